"""How long work reports its progress: ``on_progress(done, total, message)``.

``done`` and ``total`` count units of work (steps, bytes, pictures); the message names the current one. A
callback may raise ``errors.Cancelled`` to stop the work.
"""

from __future__ import annotations

from collections.abc import Callable

from starrynight.i18n import Text

OnProgress = Callable[[int, int, Text], None]


class ProgressCounter:
    """Counts finished units and reports each change to ``on_progress``, if there is one."""

    def __init__(self, on_progress: OnProgress | None, total: int) -> None:
        self.on_progress, self.total, self.done = on_progress, total, 0

    def advance(self, message: Text, count: int = 1) -> None:
        """Report that ``count`` more units are finished."""
        self.done += count
        self.announce(message)

    def announce(self, message: Text) -> None:
        """Report the current unit without counting it."""
        if self.on_progress is not None:
            self.on_progress(min(self.done, self.total), self.total, message)
