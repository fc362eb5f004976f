"""Read a recipe hidden in the lowest bits of a picture's pixels, as NovelAI and the "stealth pnginfo" extension write it.

The bits run down each column, of alpha or of red, green and blue: 15 letters that name the form, 32 bits with
the length in bits, then a text, compressed by gzip in the forms that end in "comp". A picture that was scaled
or stored with loss holds none.
"""

from __future__ import annotations

import zlib

import numpy as np
from PIL import Image

MAX_TEXT = 4 << 20
_HEAD = 15 + 4  # bytes


def read(picture: Image.Image) -> str:
    """The hidden text; "" if there is none. ``picture`` is decoded: call ``load`` before."""
    if picture.mode not in ("RGB", "RGBA"):
        return ""
    for first, last, names in (
        (3, 4, (b"stealth_pnginfo", b"stealth_pngcomp")),
        (0, 3, (b"stealth_rgbinfo", b"stealth_rgbcomp")),
    ):
        if last <= len(picture.mode):
            bits = _Bits(picture, first, last)
            head = bits.bytes(0, _HEAD)
            if (
                head[:15] in names
                and (length := int.from_bytes(head[15:], "big") // 8) <= bits.count // 8 - _HEAD
            ):
                return _text(bits.bytes(_HEAD, length), head[:15].endswith(b"comp"))
    return ""


class _Bits:
    def __init__(self, picture: Image.Image, first: int, last: int) -> None:
        self.picture, self.bands, self.count = (
            picture,
            slice(first, last),
            picture.width * picture.height * (last - first),
        )
        self.per_column = picture.height * (last - first)

    def bytes(self, start: int, length: int) -> bytes:
        """``length`` bytes from byte ``start``; only the columns that hold them are looked at."""
        columns = min(-(-(start + length) * 8 // self.per_column), self.picture.width)
        part = np.asarray(self.picture.crop((0, 0, columns, self.picture.height)))[..., self.bands] & 1
        return np.packbits(part.transpose(1, 0, 2).ravel()).tobytes()[start : start + length]


def _text(data: bytes, packed: bool) -> str:
    if packed:
        try:
            data = zlib.decompressobj(wbits=31).decompress(data, MAX_TEXT)
        except zlib.error:
            return ""
    return data.decode("utf-8", "replace")
