"""Thumbnails: WebP, made by the first request for one, in the thread of that request, and then cached.

The cache may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path

from starrynight.errors import BadRequest, StarryError
from starrynight.gallery.files import Files, id_of
from starrynight.metadata.pixels import Limits, read_image

SIZES = (256, 512, 1024)  # pixels of the longer side; few, so that requests cannot fill the disk
QUALITY = 82


class Thumbs:
    """``folder`` is on this machine even if the pictures are not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = Files(folder)

    def get(self, picture: str, size: int, read: Callable[[], bytes]) -> bytes:
        """The thumbnail as WebP, at most ``size`` pixels on its longer side.

        ``read`` returns the picture's file; it is called if no thumbnail is cached. Raises ``BadRequest`` for
        a size that is not in ``SIZES``, and the errors of ``read`` and of decoding. An unwritable cache is
        not an error.
        """
        if (cached := self.cached(picture, size)) is not None:
            return cached
        file = read()
        data = shrink(file, size)
        if id_of(file) != picture:  # changed since it was added; the next one may be right again
            return data
        with contextlib.suppress(StarryError):
            self._files.write(_name(picture, size), data)
        return data

    def cached(self, picture: str, size: int) -> bytes | None:
        """The thumbnail if it is in the cache. Raises ``BadRequest`` for a size that is not in ``SIZES``."""
        if size not in SIZES:
            raise BadRequest(
                f"Thumbnails are {', '.join(map(str, SIZES))} pixels, not {size}.",
                f"缩略图的边长是 {'、'.join(map(str, SIZES))} 像素，没有 {size}。",
            )
        with contextlib.suppress(StarryError):
            return self._files.read(_name(picture, size))
        return None

    def remove(self, picture: str) -> None:
        """Remove a picture's thumbnails from the cache."""
        for size in SIZES:
            with contextlib.suppress(StarryError):
                self._files.remove(_name(picture, size))

    def clear(self) -> None:
        """Delete the whole cache."""
        shutil.rmtree(self.folder, ignore_errors=True)


def shrink(data: bytes, size: int) -> bytes:
    """A picture's file as WebP, at most ``size`` pixels on its longer side, without metadata."""
    image = read_image(data, Limits(fit=size, whole=False))
    out = io.BytesIO()
    image.save(out, "WEBP", quality=QUALITY)
    return out.getvalue()


def _name(picture: str, size: int) -> str:
    return f"{picture[:2]}/{picture}-{size}.webp"
