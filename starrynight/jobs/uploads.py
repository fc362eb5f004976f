"""Uploaded pictures to start from: decoded, encoded anew as plain PNGs, and named by their content.

A stored file holds pixels alone: no metadata, no bytes after the picture, no name chosen by the sender. It is
removed when no job and no recipe names it and it has not been requested for ``UPLOAD_RETENTION``.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from sqlalchemy import select

from starrynight.errors import BadFile, MissingFile
from starrynight.gallery.database import Database
from starrynight.gallery.files import id_of
from starrynight.gallery.schema import recipes
from starrynight.jobs.schema import jobs
from starrynight.metadata.files import PIXEL_FORMATS, open_picture
from starrynight.metadata.pixels import Limits, read_image, read_with_alpha
from starrynight.settings import settings
from starrynight.storage import PART_SUFFIX, storing, write_atomic

MAX_BYTES = 32 << 20
# 40 million pixels take 160 MB to decode. No picture painted from an upload is larger than 4096 pixels a side.
LIMITS = Limits(pixels=40_000_000, side=16_384, fit=4096)
UPLOAD_RETENTION = timedelta(days=7)  # since the last request: a page may stay open over a weekend
LEAVING = ".leaving"  # suffix of a file that is about to be removed

_NAME = re.compile(r"[0-9a-f]{32}")


class Uploads:
    """The uploads in ``folder``, by default STARRY_HOME/uploads."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or settings().home / "uploads"

    def save(self, data: bytes) -> tuple[str, int, int]:
        """Store a picture and return its id, width and height in pixels.

        Raises ``BadFile`` unless it is a whole picture (``files.PIXEL_FORMATS``) within the limits, or ``StorageError``.
        """
        check_length(data)
        return self._store(read_image(data, LIMITS))

    def save_mask(self, data: bytes, by_alpha: bool = False, invert: bool = False) -> str:
        """Store a mask, in which white is painted, and return its id. ``by_alpha``: what is transparent is painted, as OpenAI
        has it; ``invert``: black is painted. Raises as ``save``, and ``BadFile`` for a mask without transparency.
        """
        check_length(data)
        if not by_alpha:
            grey = read_image(data, LIMITS).convert("L")
        else:
            opened = open_picture(data)
            alone = opened.width * opened.height <= LIMITS.pixels
            pixels = read_with_alpha(data) if alone else np.zeros((1, 1, 3), np.uint8)
            if pixels.shape[-1] < 4:
                raise BadFile(
                    "The mask is transparent nowhere, or too large; make transparent what is to be painted.",
                    "蒙版没有透明的部分，或者太大；请把要重画的部分变成透明。",
                    "mask",
                )
            grey = Image.fromarray(255 - pixels[..., 3])
        return self._store(ImageOps.invert(grey) if invert else grey)[0]

    def _store(self, image: Image.Image) -> tuple[str, int, int]:
        out = io.BytesIO()
        image.save(out, "PNG")
        name = id_of(out.getvalue())
        path = self.folder / f"{name}.png"
        with storing(path):
            write_atomic(path, out.getvalue(), overwrite=True)
        return name, image.width, image.height

    def path(self, name: str) -> Path:
        """The file of an upload; each request for it restarts its retention. Raises ``MissingFile``."""
        path = self.folder / f"{name}.png"
        if not _NAME.fullmatch(name) or not path.is_file():
            raise MissingFile(
                "There is no such upload; upload the picture again.", "没有这个上传；请重新上传图片。"
            )
        with contextlib.suppress(OSError):  # a read-only folder is never swept
            os.utime(path)
        return path

    def sweep(self, database: Database, older_than: timedelta = UPLOAD_RETENTION) -> int:
        """Remove uploads not requested within ``older_than`` that nothing names, and return how many.

        A job in any state keeps its upload, because an ended job can be retried. So does a picture's recipe,
        because the picture can be painted again.
        """
        before = time.time() - older_than.total_seconds()
        old = [path for path in self._files() if _modified_at(path) < before]
        needed = _referenced_names(database) if old else set()
        unneeded = [path for path in old if path.name.partition(".")[0] not in needed]
        return sum(_remove(path, before) for path in unneeded)

    def _files(self) -> list[Path]:
        """Uploads, and what a killed sweep or a killed write left behind."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        leftovers = (LEAVING, PART_SUFFIX)
        return [
            path
            for path in found
            if path.name.endswith(leftovers) or (path.suffix == ".png" and _NAME.fullmatch(path.stem))
        ]


def check_length(data: bytes) -> None:
    """Raises ``BadFile`` for a file above ``MAX_BYTES``."""
    if len(data) > MAX_BYTES:
        raise BadFile(
            f"The picture is larger than {MAX_BYTES >> 20} MB; make it smaller first.",
            f"图片超过 {MAX_BYTES >> 20} MB；请先缩小。",
        )


def check_picture(data: bytes) -> None:
    """Raises ``BadFile`` for a file that is too large to be decoded beside others. Decodes nothing."""
    check_length(data)
    opened = open_picture(data, PIXEL_FORMATS)
    if opened.width * opened.height > LIMITS.pixels or max(opened.size) > LIMITS.side:
        raise BadFile(
            f"The picture has {opened.width}×{opened.height} pixels, more than may be sent; make it smaller first, or import "
            "it with `starry gallery import`.",
            f"图片有 {opened.width}×{opened.height} 像素，超过网页允许的大小；请先缩小，或用 `starry gallery import` 导入。",
        )


def _referenced_names(database: Database) -> set[str]:
    """Upload names in all jobs and recipes. Any 32 hex digits count: a file kept too long does no harm."""
    with database.reading() as connection:
        texts = [
            text
            for column in (jobs.c.request, recipes.c.recipe)
            for text in connection.execute(select(column).where(column.contains("uploads"))).scalars()
        ]
    return {name for text in texts for name in _NAME.findall(text)}


def _remove(path: Path, before: float) -> bool:
    """Rename, read the time again, then delete.

    A file requested since the sweep listed it has a new time, and a job may name it: it is renamed back.
    """
    aside = path if path.name.endswith(LEAVING) else path.with_name(path.name + LEAVING)
    try:
        path.rename(aside)
        if _modified_at(aside) < before:
            aside.unlink()
            return True
        aside.rename(path)
    except OSError:  # another server sweeps here too, or the file is in use; the next sweep tries again
        pass
    return False


def _modified_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return float("inf")
