"""The trash: throwing away, bringing back, and, after ``KEPT_FOR``, parting for good.

Parting goes in three steps, each of which may be the last before a crash: in one transaction the row goes and a
tombstone comes; then the file goes; then the tombstone. A file without a row but with a tombstone is therefore on its
way out, not an orphan, and ``bury`` finishes what was begun.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta

from sqlalchemy import delete, insert, select, update

from starrynight.gallery.annotations import numbers
from starrynight.gallery.database import Database
from starrynight.gallery.files import Files
from starrynight.gallery.insert import number_of
from starrynight.gallery.schema import pictures, tombstones
from starrynight.gallery.thumbs import Thumbs

KEPT_FOR = timedelta(days=30)


class Trash:
    def __init__(self, database: Database, files: Files, thumbs: Thumbs) -> None:
        self.database, self.files, self.thumbs = database, files, thumbs

    def throw(self, ids: Iterable[str]) -> None:
        """Out of sight, with all that was said of them; ``bring_back`` undoes it. Raises ``MissingFile``."""
        self._mark(ids, int(time.time() * 1000))

    def bring_back(self, ids: Iterable[str]) -> None:
        self._mark(ids, None)

    def empty(self, older_than: timedelta = timedelta(0)) -> int:
        """Part for good from what was thrown away at least so long ago; returns how many pictures that were."""
        limit = int((time.time() - older_than.total_seconds()) * 1000)
        gone = pictures.c.trashed_at <= limit
        with self.database.writing() as connection:
            leaving = select(pictures.c.id, pictures.c.format).where(gone)
            connection.execute(insert(tombstones).from_select(["id", "format"], leaving))
            count = connection.execute(delete(pictures).where(gone)).rowcount
        self.bury()
        return count

    def bury(self) -> None:
        """Remove the files that have a tombstone. The lock is held meanwhile: who hangs the same picture again at
        this moment waits, and then finds that its file is not there (see hanging.py)."""
        with self.database.reading() as connection:
            waiting = connection.execute(select(tombstones)).all()
        for picture, kind in waiting:
            with self.database.writing() as connection:
                mine = tombstones.c.id == picture
                still = connection.execute(select(tombstones.c.id).where(mine).with_for_update()).scalar()
                if still and number_of(connection, picture) is None:
                    self.files.remove(self.files.name(picture, kind))
                    self.thumbs.forget(picture)
                connection.execute(delete(tombstones).where(mine))

    def _mark(self, ids: Iterable[str], when: int | None) -> None:
        with self.database.writing() as connection:
            chosen = pictures.c.number.in_(numbers(connection, ids))
            connection.execute(update(pictures).where(chosen).values(trashed_at=when))
