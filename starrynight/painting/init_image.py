"""The picture that img2img begins from, cut to the size asked for.

Leaves opening a stranger's file to ``metadata.files``, which alone lets a decoder loose on one; knows no model.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageOps

from starrynight.metadata.files import open_picture, read_pixels


def look(path: str | Path) -> None:
    """Raise MissingFile or BadFile where there is no picture to begin from; the pixels are not decoded."""
    open_picture(path).close()


def begin(path: str | Path, width: int, height: int) -> tuple[Image.Image, str | None]:
    """An RGB picture of exactly ``width`` × ``height``, and how it was fitted ("crop 400x300→256x256"), if it was.

    The picture covers the frame and is cut evenly around its middle. Raises MissingFile or BadFile.
    """
    picture = Image.fromarray(read_pixels(path))
    if picture.size == (width, height):
        return picture, None
    note = f"crop {picture.width}x{picture.height}→{width}x{height}"
    return ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS), note
