"""A picture file in another format, with everything it says of its making still in it. Knows files, not HTTP."""

from __future__ import annotations

import io

from PIL import Image

from starrynight.errors import BadRequest, NoRecipe
from starrynight.metadata import OURS, read_pixels, read_recipe
from starrynight.picture import JPEG_QUALITY, WEBP_QUALITY, Picture

KINDS = ("png", "jpeg", "webp")


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
    return _bare(pixels, kind, quality)


def _bare(pixels, kind: str, quality: int | None) -> bytes:  # type: ignore[no-untyped-def]
    out = io.BytesIO()
    Image.fromarray(pixels).save(
        out, kind.upper(), quality=quality or {"jpeg": JPEG_QUALITY}.get(kind, WEBP_QUALITY)
    )
    return out.getvalue()
