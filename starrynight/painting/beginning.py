"""The picture that img2img begins from: opened with distrust, turned upright, cut to the size asked for.

Knows Pillow and numpy; knows no model.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from starrynight.errors import BadFile, MissingFile

# A phone's largest photographs have 200 million pixels; a "decompression bomb" has more. Checked before decoding.
MAX_PIXELS = 200_000_000
KINDS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")


def look(path: str | Path) -> tuple[int, int]:
    """Width and height, upright, without decoding the pixels. Raises MissingFile or BadFile."""
    with _open(Path(path)) as image:
        turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5 to 8 lie on their side
        return image.size[::-1] if turned else image.size


def begin(path: str | Path, width: int, height: int) -> tuple[Image.Image, str | None]:
    """An RGB picture of exactly ``width`` × ``height``, and how it was fitted ("crop 400x300→256x256"), if it was.

    The picture covers the frame and is cut evenly around its middle; transparency is laid over white.
    """
    with _open(Path(path)) as image:
        try:
            upright = ImageOps.exif_transpose(image).convert("RGBA")
        except (OSError, ValueError, SyntaxError) as error:
            raise _unreadable(Path(path)) from error
    paper = Image.new("RGBA", upright.size, "white")
    picture = Image.alpha_composite(paper, upright).convert("RGB")
    if picture.size == (width, height):
        return picture, None
    note = f"crop {picture.width}x{picture.height}→{width}x{height}"
    return ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS), note


def _open(path: Path) -> Image.Image:
    if not path.is_file():
        raise MissingFile(f"There is no picture “{path}”.", f"找不到图片“{path}”。")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit follows
            image = Image.open(path, formats=KINDS)
    except Image.DecompressionBombError as error:
        raise _too_large(path) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise _unreadable(path) from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise _too_large(path)
    return image


def _too_large(path: Path) -> BadFile:
    limit = MAX_PIXELS // 1_000_000
    return BadFile(
        f"“{path.name}” has more than {limit} million pixels; shrink it first.",
        f"“{path.name}”超过 {limit} 百万像素；请先缩小。",
    )


def _unreadable(path: Path) -> BadFile:
    return BadFile(
        f"“{path.name}” cannot be read as a picture (PNG, JPEG, WebP, BMP, TIFF or GIF), or it is damaged.",
        f"“{path.name}”不是可读的图片（PNG、JPEG、WebP、BMP、TIFF 或 GIF），或已损坏。",
    )
