"""While nothing waits to be painted, the worker looks at the pictures that no eyes have seen: new ones first, one at a time."""

from __future__ import annotations

import logging
import time

from starrynight.errors import StarryError
from starrynight.gallery.store import Gallery
from starrynight.i18n import Text
from starrynight.senses.eyes import Eyes, eyes
from starrynight.senses.look import look_at_missing

EVERY = 1.0  # seconds between two looks for unseen pictures where there were none
RETRY = 600.0  # seconds until eyes that failed are tried again

log = logging.getLogger("starrynight.worker")


class Watcher:
    """Looks at one unseen picture of a gallery at a call. Eyes that cannot be had are logged once, and tried again later."""

    def __init__(self, gallery: Gallery) -> None:
        self.gallery = gallery
        self._eyes: Eyes | None = None
        self._next, self._said = 0.0, ""

    def look(self) -> bool:
        """Look at one picture; whether there was one, and so may be another."""
        if time.monotonic() < self._next or not self.gallery.database.writable:
            return False
        try:
            self._eyes = self._eyes or eyes()
            if self._eyes is None:
                self._next = time.monotonic() + RETRY
                return False
            done, failed = look_at_missing(self.gallery, self._eyes, 1)
        except StarryError as error:
            done, failed = 0, Text(error.en, error.zh)
        if failed is not None and failed.en != self._said:
            log.warning("%s", failed.en)
            self._said = failed.en
        if not done:
            self._next = time.monotonic() + (EVERY if failed is None else RETRY)
        return bool(done)
