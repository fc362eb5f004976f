"""Decode the pixels of an untrusted picture in bounded memory.

At most ``MAX_DECODERS`` pictures of a process are decoded at once, each in one copy: the decoder's own image is
turned upright, made smaller if the caller wants it small, and converted to RGB in strips of rows. A picture of
40 million pixels takes 160 MB in Pillow, because it stores RGB in four bytes.
"""

from __future__ import annotations

import io
import struct
import threading
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile, PngInfo

from starrynight.errors import BadFile
from starrynight.i18n import Text
from starrynight.metadata import modes
from starrynight.metadata.files import (
    BROKEN,
    EXIF_TEXTS,
    MAX_PIXELS,
    PIXEL_FORMATS,
    Source,
    broken,
    no_warnings,
    open_picture,
    too_large,
)

MAX_DECODERS = 2
STRIP = 1 << 22  # pixels converted at once
_decoders = threading.BoundedSemaphore(MAX_DECODERS)

# PNG's seven passes of interlacing: first column, first row, step of columns, step of rows (PNG 3, section 8.1)
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of PNG's colour types


@dataclass(frozen=True)
class Limits:
    """``pixels`` in all and on one ``side``; ``fit``: the side to which a larger picture is scaled down.

    ``whole``: refuse a PNG whose data end before its last row, which Pillow fills with black. The check inflates
    the data a second time; a file that has passed it needs it no more.
    """

    pixels: int = MAX_PIXELS
    side: int = MAX_PIXELS
    fit: int | None = None
    whole: bool = True


def read_pixels(source: Source) -> np.ndarray:
    """The pixels, uint8 [H, W, 3], with EXIF orientation applied and transparency composited over white.

    Raises ``BadFile`` and the errors of ``files.read_bytes``.
    """
    return np.array(read_image(source))


def read_with_alpha(source: Source, flat: bool = False) -> np.ndarray:
    """As ``read_pixels``, or uint8 [H, W, 4] with straight alpha for a picture that has transparency, unless ``flat``."""
    picture = open_picture(source, PIXEL_FORMATS)
    if flat or not picture.has_transparency_data:
        return read_pixels(source)
    name = "The picture" if isinstance(source, bytes) else str(source)
    with _decoders:
        try:
            with no_warnings():
                if isinstance(picture, PngImageFile):
                    _check_rows(picture)
                ImageOps.exif_transpose(picture, in_place=True)
                return np.array(modes.with_alpha(picture))
        except BROKEN as error:
            raise broken(name) from error


def read_image(source: Source, limits: Limits | None = None) -> Image.Image:
    """``read_pixels`` as an RGB image without metadata, within ``limits``; the same errors."""
    limits = limits or Limits()
    name = "The picture" if isinstance(source, bytes) else str(source)
    picture = open_picture(source, PIXEL_FORMATS)
    if picture.width * picture.height > limits.pixels:
        raise too_large(name, limits.pixels)
    if max(picture.size) > limits.side:
        raise _too_long(name, limits.side)
    with _decoders:
        try:
            with no_warnings():
                if limits.whole and isinstance(picture, PngImageFile):
                    _check_rows(picture)
                return _upright_rgb(picture, limits.fit)
        except BROKEN as error:
            raise broken(name) from error


def as_png(source: Source) -> tuple[bytes, Text]:
    """A picture of another format as the PNG that the gallery keeps, and what became of it. Its pixels and transparency stay, of
    several frames the first; so do its descriptions, which may be a recipe.

    Raises as ``read_pixels``.
    """
    picture = open_picture(source, PIXEL_FORMATS)
    kind, frames = picture.format or "", _holds_frames(picture)
    texts = PngInfo()
    if isinstance(comment := picture.info.get("comment"), bytes):
        texts.add_itxt("comment", comment.decode("utf-8", "replace"))
    exif = Image.Exif()
    for tag, value in picture.getexif().items():
        if tag in EXIF_TEXTS and isinstance(value, str):
            exif[tag] = value
    written = io.BytesIO()
    pixels = read_with_alpha(source)
    Image.fromarray(pixels).save(written, "PNG", pnginfo=texts, exif=exif.tobytes() if len(exif) else b"")
    en = f"{kind}, kept as PNG" + (": the first of its frames" if frames else "")
    zh = f"{kind}，转存为 PNG" + ("：取其首帧" if frames else "")
    return written.getvalue(), Text(en, zh)


def notes(source: Source) -> list[Text]:
    """What is not read of a picture to start from: further frames, transparency. Raises as ``files.open_picture``."""
    picture = open_picture(source, PIXEL_FORMATS)
    found = []
    if _holds_frames(picture):
        found.append(
            Text(
                "The picture to start from holds several frames; the first is used.",
                "起始图含有多帧，只用第一帧。",
            )
        )
    if picture.has_transparency_data:
        found.append(
            Text(
                "The transparent parts of the picture to start from are white.", "起始图的透明处按白色处理。"
            )
        )
    return found


def _holds_frames(picture: Image.Image) -> bool:
    try:
        with no_warnings():
            return bool(getattr(picture, "is_animated", False))
    except BROKEN:  # what follows the first frame is damaged
        return True


def _upright_rgb(picture: Image.Image, fit: int | None) -> Image.Image:
    ImageOps.exif_transpose(picture, in_place=True)
    picture.load()
    rgb = picture
    if modes.needs_conversion(picture):
        rgb = _in_strips(picture)
    if fit:
        rgb.thumbnail((fit, fit), Image.Resampling.LANCZOS)
    rgb.info = {}  # profile, EXIF and texts stay behind
    return rgb


def _in_strips(picture: Image.Image) -> Image.Image:
    """Convert a picture of any other mode to RGB over white, strip by strip."""
    rgb = Image.new("RGB", picture.size)
    rows, convert = max(1, STRIP // picture.width), modes.converter(picture)
    for top in range(0, picture.height, rows):
        box = (0, top, picture.width, min(top + rows, picture.height))
        rgb.paste(convert(picture.crop(box)), (0, top))
    return rgb


def _check_rows(picture: PngImageFile) -> None:
    """Raise ValueError for a PNG that holds fewer bytes than its size takes. Frames after the first are not read."""
    stream = picture.fp
    if not isinstance(stream, io.BytesIO):
        return
    data = memoryview(stream.getbuffer())
    header = struct.unpack(">IIBBBBB", data[16:29])  # IHDR is the first chunk
    missing, at, inflate = _raw_size(*header), 8, zlib.decompressobj()
    while missing > 0 and at + 8 <= len(data) and not inflate.eof:
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind == b"IDAT":
            packed: bytes | memoryview = data[at + 8 : at + 8 + length]
            while packed and missing > 0:
                missing -= len(inflate.decompress(packed, 1 << 16))
                packed = inflate.unconsumed_tail
        at += 12 + length
    if missing > 0:
        raise ValueError(f"{missing} bytes of pixels are missing")


def _raw_size(
    width: int, height: int, depth: int, colour: int, _compression: int, _filter: int, interlaced: int
) -> int:
    """Bytes of a PNG's inflated rows, each with the byte that names its filter."""
    bits = depth * _CHANNELS.get(colour, 1)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    total = 0
    for first_column, first_row, columns, rows in passes:
        wide, high = -(-(width - first_column) // columns), -(-(height - first_row) // rows)
        if wide > 0 and high > 0:
            total += high * (1 + (wide * bits + 7) // 8)
    return total


def _too_long(name: str, side: int) -> BadFile:
    return BadFile(
        f"{name} is wider or higher than {side} pixels; make it smaller first.",
        f"{name} 的宽或高超过 {side} 像素；请先缩小。",
    )
