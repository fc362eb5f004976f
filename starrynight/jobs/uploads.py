"""Pictures that strangers hand in to begin from: decoded, drawn anew as plain PNGs, and named by their content.

What is kept holds pixels alone: no metadata, nothing behind the picture, no name from outside. It goes when no job and
no picture names it any more and nobody has asked for it in a while.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import time
from datetime import timedelta
from pathlib import Path

from PIL import Image
from sqlalchemy import select

from starrynight.errors import BadFile, MissingFile
from starrynight.gallery.database import Database
from starrynight.gallery.files import id_of
from starrynight.gallery.schema import jobs, recipes
from starrynight.metadata import read_pixels
from starrynight.settings import settings
from starrynight.storage import PART_SUFFIX, storing, write_atomic

LARGEST = 32 << 20  # bytes of a file handed in
LONGEST_SIDE = 4096  # pixels; larger ones are made smaller, for no picture painted from them is larger
KEPT_FOR = timedelta(days=7)  # since it was last handed in or asked for: a desk may stay open over a weekend
LEAVING = ".leaving"

_NAME = re.compile(r"[0-9a-f]{32}")


class Uploads:
    """In ``folder``, by default STARRY_HOME/uploads."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or settings().home / "uploads"

    def take(self, data: bytes) -> tuple[str, int, int]:
        """Id, width and height of what was handed in. Raises ``BadFile`` for what is no whole PNG, JPEG or WebP picture
        or too large, ``StorageError`` if it cannot be kept."""
        if len(data) > LARGEST:
            raise BadFile(
                f"The picture is larger than {LARGEST >> 20} MB; make it smaller first.",
                f"图片超过 {LARGEST >> 20} MB；请先缩小。",
            )
        image = Image.fromarray(read_pixels(data))
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        image.save(out, "PNG")
        name = id_of(out.getvalue())
        path = self.folder / f"{name}.png"
        with storing(path):
            write_atomic(path, out.getvalue(), overwrite=True)
        return name, image.width, image.height

    def path(self, name: str) -> Path:
        """Where an upload is; asking for it keeps it a while longer. Raises ``MissingFile``."""
        path = self.folder / f"{name}.png"
        if not _NAME.fullmatch(name) or not path.is_file():
            raise MissingFile(
                "There is no such upload; hand the picture in again.", "没有这个上传；请重新上传图片。"
            )
        with contextlib.suppress(OSError):  # a folder that may only be read is swept by nobody
            os.utime(path)
        return path

    def sweep(self, database: Database, older_than: timedelta = KEPT_FOR) -> int:
        """Remove what was not asked for so long and is named by no job (waiting, painting or ended: it may be tried
        again) and no recipe of a picture (it may be painted again); returns how many. A server does this once a day."""
        before = time.time() - older_than.total_seconds()
        old = [path for path in self._all() if _touched(path) < before]
        needed = _named(database) if old else set()
        leaving = [path for path in old if path.name.partition(".")[0] not in needed]
        return sum(_remove(path, before) for path in leaving)

    def _all(self) -> list[Path]:
        """Uploads, what a killed sweep left, and what a killed process left half-written."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        ours = (LEAVING, PART_SUFFIX)
        return [
            path
            for path in found
            if path.name.endswith(ours) or (path.suffix == ".png" and _NAME.fullmatch(path.stem))
        ]


def _named(database: Database) -> set[str]:
    """Names in the first pictures' paths of all jobs and recipes. Any 32 hex digits count: one too many does no harm."""
    with database.reading() as connection:
        texts = [
            text
            for column in (jobs.c.request, recipes.c.recipe)
            for text in connection.execute(select(column).where(column.contains("uploads"))).scalars()
        ]
    return {name for text in texts for name in _NAME.findall(text)}


def _remove(path: Path, before: float) -> bool:
    """Aside first, then gone: whoever asked for it since we looked, and so may have put a job into the queue, made it
    younger, and gets it back."""
    aside = path if path.name.endswith(LEAVING) else path.with_name(path.name + LEAVING)
    try:
        path.rename(aside)
        if _touched(aside) < before:
            aside.unlink()
            return True
        aside.rename(path)
    except OSError:  # another server sweeps here too, or it is in use; tomorrow again
        pass
    return False


def _touched(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return float("inf")
