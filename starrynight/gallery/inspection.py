"""What a picture file says of itself, and what its pixels show: recipe, health, colours, perceptual hash. Nothing is stored."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

import numpy as np
from PIL import Image

from starrynight.errors import BadFile, NoRecipe
from starrynight.gallery.similarity import GRID, compute_descriptor
from starrynight.metadata import read_recipe
from starrynight.metadata.files import PIXEL_FORMATS, open_picture
from starrynight.metadata.pixels import Limits, read_image
from starrynight.text import finite

LIMITS = Limits(pixels=40_000_000, side=16_384)  # as for uploads: 160 MB in Pillow
COLOURS = 6  # of the palette
SMALL = 96  # pixels a side from which the palette is taken


def inspect_picture(data: bytes) -> dict[str, Any]:
    """Of a PNG, JPEG, WebP, AVIF or TIFF file, as JSON-compatible values.

    ``health``: ``finite`` is False for floats with NaN or Inf among them, whose pixels are not looked at further;
    ``uniform``: every pixel has one colour; ``clipped``: the share of all numbers, three a pixel, that are 0 (``black``) and
    255 (``white``) in eight bits; ``mean`` and ``deviation`` of all numbers, 0 to 255. ``colours``: up to ``COLOURS`` of a
    palette by median cut with their shares, and the mean colours of 4 × 4 fields, row by row. ``perceptual_hash``: 16 hex
    digits; similar pictures differ in few bits. Raises ``BadFile``.
    """
    opened = open_picture(data, PIXEL_FORMATS)
    facts = {
        "format": str(opened.format).lower(), "width": opened.width, "height": opened.height, "mode": opened.mode,
        "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), **_recipe(data),
    }  # fmt: skip
    if (
        opened.mode == "F"
        and opened.width * opened.height <= LIMITS.pixels
        and not np.isfinite(np.asarray(opened)).all()
    ):
        return facts | {"health": {"finite": False}, "colours": None, "perceptual_hash": None}
    image = read_image(data, LIMITS)
    pixels = np.asarray(image)
    return facts | {
        "health": _health(pixels),
        "colours": {"palette": _palette(image), "fields": _fields(image)},
        "perceptual_hash": f"{compute_descriptor(pixels).hash:016x}",
    }


def _recipe(data: bytes) -> dict[str, Any]:
    """The recipe in one shape for every tool, with what the tool wrote as ``raw``; or why there is none."""
    try:
        recipe = read_recipe(data)
    except NoRecipe:
        return {"recipe": None, "recipe_error": None}
    except BadFile as error:
        return {"recipe": None, "recipe_error": {"en": error.en, "zh": error.zh}}
    found = asdict(recipe) | {
        "loras": [list(lora) for lora in recipe.loras], "left": [{"en": note.en, "zh": note.zh} for note in recipe.left]
    }  # fmt: skip
    return {"recipe": finite(found), "recipe_error": None}


def _health(pixels: np.ndarray) -> dict[str, Any]:
    """Of uint8 [H, W, 3]."""
    counts = np.bincount(pixels.ravel(), minlength=256)
    levels = np.arange(256)
    mean = float((counts * levels).sum() / pixels.size)
    variance = float((counts * (levels - mean) ** 2).sum() / pixels.size)
    return {
        "finite": True,
        "uniform": bool((pixels == pixels[0, 0]).all()),
        "clipped": {"black": int(counts[0]) / pixels.size, "white": int(counts[255]) / pixels.size},
        "mean": round(mean, 3),
        "deviation": round(variance**0.5, 3),
    }


def _palette(image: Image.Image) -> list[dict[str, Any]]:
    small = image.copy()
    small.thumbnail((SMALL, SMALL), Image.Resampling.BOX)
    reduced = small.quantize(COLOURS, Image.Quantize.MEDIANCUT)
    palette, counts = reduced.getpalette() or [], np.bincount(np.asarray(reduced).ravel())
    return [
        {
            "colour": _hex(palette[3 * index : 3 * index + 3]),
            "share": round(int(counts[index]) / int(counts.sum()), 4),
        }
        for index in np.argsort(-counts, kind="stable").tolist()
        if counts[index]
    ]


def _fields(image: Image.Image) -> list[str]:
    fields = np.asarray(image.resize((GRID, GRID), Image.Resampling.BOX))
    return [_hex(colour) for colour in fields.reshape(-1, 3).tolist()]


def _hex(colour: list[int]) -> str:
    return "#" + "".join(f"{level:02x}" for level in colour)
