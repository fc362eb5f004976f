"""Small WebP pictures for the wall, made when somebody first looks, on the looker's thread, and kept.

A cache and no more: any of it may be deleted at any time. Knows nothing of rows; it is given a file's bytes.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from starrynight.errors import BadRequest, StarryError
from starrynight.gallery.files import Files
from starrynight.metadata import read_pixels

SIZES = (256, 512, 1024)  # pixels of the longer side: few, so that no one fills the disk by asking
QUALITY = 82


class Thumbs:
    """``folder`` on this machine holds the cache, even when the pictures are elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = Files(folder)

    def get(self, picture: str, size: int, read: Callable[[], bytes]) -> bytes:
        """WebP bytes of the picture with this id, ``size`` pixels on its longer side (smaller pictures stay so).

        ``read`` gives the whole file when there is no thumbnail yet. Raises ``BadRequest`` for another size, and what
        ``read`` and decoding raise. That the cache cannot be written is no reason to show nothing.
        """
        if size not in SIZES:
            raise BadRequest(
                f"Thumbnails are {', '.join(map(str, SIZES))} pixels, not {size}.",
                f"缩略图的边长是 {'、'.join(map(str, SIZES))} 像素，没有 {size}。",
            )
        name = f"{picture[:2]}/{picture}-{size}.webp"
        with contextlib.suppress(StarryError):
            return self._files.read(name)
        data = shrink(read(), size)
        with contextlib.suppress(StarryError):
            self._files.put(name, data)
        return data

    def forget(self, picture: str) -> None:
        for size in SIZES:
            with contextlib.suppress(StarryError):
                self._files.remove(f"{picture[:2]}/{picture}-{size}.webp")

    def clear(self) -> None:
        """Throw all of them away; they are made again when looked at."""
        shutil.rmtree(self.folder, ignore_errors=True)


def shrink(data: bytes, size: int) -> bytes:
    """The picture as WebP, at most ``size`` pixels on its longer side, without any metadata."""
    image = Image.fromarray(read_pixels(data))
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=QUALITY)
    return out.getvalue()
