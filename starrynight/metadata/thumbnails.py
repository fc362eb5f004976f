"""A small copy of a picture from anywhere, for a menu."""

from __future__ import annotations

import base64
import io

from starrynight.errors import StarryError
from starrynight.metadata.pixels import Limits, read_image

LIMITS = Limits(pixels=40_000_000, side=16_384, fit=1024)
SIDE = 160  # pixels: twice what a menu shows, for fine screens


def data_uri(picture: bytes | None) -> str | None:
    """The picture as a WebP of at most ``SIDE`` pixels a side, in a data URI; None without one, or if it cannot be read."""
    if picture is None:
        return None
    try:
        small = read_image(picture, LIMITS)
    except StarryError:
        return None
    small.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    small.save(out, "WEBP", quality=82)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"
