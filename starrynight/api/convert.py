"""A picture file in another format, with everything it says of its making still in it. Knows files, not HTTP."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from starrynight.errors import BadRequest, NoRecipe
from starrynight.metadata import OURS, read_pixels, read_recipe
from starrynight.metadata.files import open_picture, read_texts
from starrynight.picture import JPEG_QUALITY, WEBP_QUALITY, Picture

KINDS = ("png", "jpeg", "webp")
EXIF_IFD, USER_COMMENT = 0x8769, 0x9286


def converted(data: bytes, is_kind: str, kind: str, quality: int | None = None) -> bytes:
    """``data`` itself where it is that already. Raises ``BadRequest`` for another kind or a quality outside 1..100."""
    if kind not in KINDS:
        raise BadRequest(f"format is one of {', '.join(KINDS)}.", f"format 可选：{'、'.join(KINDS)}。")
    if quality is not None and not 1 <= quality <= 100:
        raise BadRequest("quality is a number from 1 to 100.", "quality 应当是 1 到 100 之间的数。")
    if kind == is_kind and quality is None:
        return data
    pixels = read_pixels(data)
    try:
        recipe = read_recipe(data)
    except NoRecipe:
        recipe = None
    if recipe is not None and recipe.tool == OURS:
        return Picture(pixels, recipe.raw).encode(kind, quality=quality)
    return _as_it_came(data, pixels, kind, quality)


def _as_it_came(data: bytes, pixels: np.ndarray, kind: str, quality: int | None) -> bytes:
    """Another tool's picture: its XMP (whatever label stands there stays) and its A1111 text come along."""
    before, image, out = open_picture(data), Image.fromarray(pixels), io.BytesIO()
    texts = read_texts(before, whole_file=True).found
    packet = before.info.get("xmp") or before.info.get("XML:com.adobe.xmp") or b""
    packet = packet.encode() if isinstance(packet, str) else packet
    words = texts.get("parameters") or texts.get("UserComment") or ""
    if kind == "png":
        marks = PngInfo()
        if words:
            marks.add_itxt("parameters", words)
        if packet:
            marks.add_itxt("XML:com.adobe.xmp", packet.decode("utf-8", "replace"))
        image.save(out, "PNG", pnginfo=marks)
        return out.getvalue()
    exif = Image.Exif()
    if words:
        exif.get_ifd(EXIF_IFD)[USER_COMMENT] = b"UNICODE\0" + words.encode("utf-16-be", "replace")
    quality = quality or (JPEG_QUALITY if kind == "jpeg" else WEBP_QUALITY)
    image.save(out, kind.upper(), quality=quality, exif=exif, xmp=packet)
    return out.getvalue()
