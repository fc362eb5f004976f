"""The trash: discard pictures, restore them, and delete them permanently after ``RETENTION``.

Deletion has three steps, and the process may be killed after each: one transaction deletes the row and
inserts a tombstone; then the file is deleted; then the tombstone. A file with a tombstone and no row is
therefore about to be deleted, not an orphan, and ``delete_files`` completes an interrupted deletion.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta

from sqlalchemy import delete, insert, select, update

from starrynight.gallery.annotations import find_numbers
from starrynight.gallery.database import Database
from starrynight.gallery.files import Files
from starrynight.gallery.insert import find_number
from starrynight.gallery.schema import pictures, tombstones
from starrynight.gallery.thumbs import Thumbs

RETENTION = timedelta(days=30)


class Trash:
    """``discard`` and ``restore`` raise ``MissingFile`` for an unknown id, and then change nothing."""

    def __init__(self, database: Database, files: Files, thumbs: Thumbs) -> None:
        self.database, self.files, self.thumbs = database, files, thumbs

    def discard(self, ids: Iterable[str]) -> None:
        """Move pictures to the trash; they keep their annotations."""
        self._set_trashed_at(ids, int(time.time() * 1000))

    def restore(self, ids: Iterable[str]) -> None:
        self._set_trashed_at(ids, None)

    def empty(self, older_than: timedelta = timedelta(0)) -> int:
        """Permanently delete the pictures discarded at least ``older_than`` ago; return their number."""
        limit = int((time.time() - older_than.total_seconds()) * 1000)
        expired = pictures.c.trashed_at <= limit
        with self.database.writing() as connection:
            rows = select(pictures.c.id, pictures.c.format).where(expired)
            connection.execute(insert(tombstones).from_select(["id", "format"], rows))
            count = connection.execute(delete(pictures).where(expired)).rowcount
        self.delete_files()
        return count

    def delete_files(self) -> None:
        """Delete the files that have a tombstone.

        Each is deleted in a transaction that locks its tombstone. A process that adds the same picture at
        that moment waits, then finds that the file is missing and writes it again (``insert.add_picture``).
        """
        with self.database.reading() as connection:
            pending = connection.execute(select(tombstones)).all()
        for picture, kind in pending:
            with self.database.writing() as connection:
                tombstone = tombstones.c.id == picture
                locked = connection.execute(
                    select(tombstones.c.id).where(tombstone).with_for_update()
                ).scalar()
                if locked and find_number(connection, picture) is None:
                    self.files.remove(self.files.name(picture, kind))
                    self.thumbs.remove(picture)
                connection.execute(delete(tombstones).where(tombstone))

    def _set_trashed_at(self, ids: Iterable[str], when: int | None) -> None:
        with self.database.writing() as connection:
            chosen = pictures.c.number.in_(find_numbers(connection, ids))
            connection.execute(update(pictures).where(chosen).values(trashed_at=when))
