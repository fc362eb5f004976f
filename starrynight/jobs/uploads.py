"""Pictures that strangers hand in to begin from: decoded, drawn anew as plain PNGs, and named by their content.

What is kept holds pixels alone: no metadata, nothing behind the picture, no name from outside.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

from PIL import Image

from starrynight.errors import BadFile, MissingFile
from starrynight.gallery.files import id_of
from starrynight.metadata import read_pixels
from starrynight.picture import storage_error, write_whole
from starrynight.settings import settings

LARGEST = 32 << 20  # bytes of a file handed in
LONGEST_SIDE = 4096  # pixels; larger ones are made smaller, for no picture painted from them is larger


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
        try:
            write_whole(path, out.getvalue(), overwrite=True)
        except OSError as error:
            raise storage_error(path, error) from error
        return name, image.width, image.height

    def path(self, name: str) -> Path:
        """Where an upload is. Raises ``MissingFile``."""
        path = self.folder / f"{name}.png"
        if not re.fullmatch(r"[0-9a-f]{32}", name) or not path.is_file():
            raise MissingFile(
                "There is no such upload; hand the picture in again.", "没有这个上传；请重新上传图片。"
            )
        return path
