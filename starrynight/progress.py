"""The one shape in which long work reports how far it is: ``on_progress(done, total, message)``.

``done`` and ``total`` count whatever the work is made of (steps, bytes, pictures). The message says what is going on now.
A callback may raise ``errors.Cancelled``, which ends the work.
"""

from __future__ import annotations

from collections.abc import Callable

from starrynight.i18n import Text

OnProgress = Callable[[int, int, Text], None]


class ProgressCounter:
    """Counts finished units and reports each change; without a callback it only counts."""

    def __init__(self, on_progress: OnProgress | None, total: int) -> None:
        self.on_progress, self.total, self.done = on_progress, total, 0

    def advance(self, message: Text, count: int = 1) -> None:
        """Report that ``count`` more units are finished."""
        self.done += count
        self.announce(message)

    def announce(self, message: Text) -> None:
        """Report what is going on now, before the next unit is finished."""
        if self.on_progress is not None:
            self.on_progress(min(self.done, self.total), self.total, message)
