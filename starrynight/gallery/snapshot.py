"""A database on a medium that cannot be written to: it is copied to a temporary folder and read there.

SQLite cannot read a database in WAL mode in such a place: it makes two files beside it, and with ``immutable=1`` it
leaves out what stands in the log. The copy is complete, and migrates if it is of an older version. It shows the
gallery as it was when it was opened.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from starrynight.errors import StorageError
from starrynight.storage import storing

PARTS = ("", "-wal", "-journal")  # the database, and the logs that SQLite reads when it opens it
TRIES = 5  # while another machine writes to the database
_EFFECTIVE_IDS = os.access in os.supports_effective_ids


def is_read_only(database: Path) -> bool:
    """Whether the file can be read, but not written to with what SQLite puts beside it."""
    if not _may(database, os.R_OK) or not database.is_file():
        return False
    beside = [path for part in (*PARTS, "-shm") if (path := Path(f"{database}{part}")).exists()]
    return not (
        _may(database.parent, os.W_OK | os.X_OK) and all(_may(path, os.R_OK | os.W_OK) for path in beside)
    )


class Snapshot:
    """A copy of a database in a temporary folder, which ``close`` removes. Raises ``StorageError``."""

    def __init__(self, database: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="starry-gallery-", ignore_cleanup_errors=True)
        self.path = Path(self._folder.name) / database.name
        for _ in range(TRIES):
            before = _state(database)
            with storing(self.path):
                for part in PARTS:
                    self._copy(Path(f"{database}{part}"), Path(f"{self.path}{part}"))
            if _state(database) == before:
                return
            time.sleep(0.2)
        self.close()
        raise StorageError(
            f"The gallery {database} cannot be written to here, and another machine changes it all the time; try again.",
            f"画廊 {database} 在这里不可写，而另一台机器一直在改动它；请重试。",
        )

    def close(self) -> None:
        self._folder.cleanup()

    def _copy(self, source: Path, target: Path) -> None:
        target.unlink(missing_ok=True)
        if source.exists():
            shutil.copyfile(source, target)


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=_EFFECTIVE_IDS)


def _state(database: Path) -> list[tuple[int, int] | None]:
    paths = [Path(f"{database}{part}") for part in PARTS]
    found = [path.stat() if path.exists() else None for path in paths]
    return [stat and (stat.st_mtime_ns, stat.st_size) for stat in found]
