"""How one picture differs from another: each measure takes a reference and another picture, float [H, W, 3] in 0..1, sRGB.

Colour difference and SSIM are scikit-image's, FLIP is NVIDIA's flip-evaluator. The masks and the measures of banding,
highlights and texture are ours; their thresholds stand here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

# Below this CIE lightness a pixel of the reference is in shadow (L* 30 is a relative luminance of 0.062).
SHADOW_LIGHTNESS = 30.0
# A mask that covers a smaller share of the picture is not evaluated.
LEAST_SHARE = 0.005
# The darkest share of the reference: in a night picture, roofs and trees.
DARKEST_SHARE = 0.05
# sRGB luma (Rec. 709 weights) from which the claims call a highlight over-exposed.
OVEREXPOSED = 0.98
# A step of one ΔE2000 between two flat bands is just visible; a band needs at least this many pixels.
VISIBLE_STEP, BAND = 1.0, 4
# Texture is what a Gaussian blur of this standard deviation (pixels) removes.
TEXTURE_RADIUS = 1.0
LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)

Array = np.ndarray


def colour_difference(reference: Array, other: Array) -> Array:
    """ΔE2000 pixel by pixel, [H, W]."""
    from skimage.color import deltaE_ciede2000, rgb2lab

    return deltaE_ciede2000(rgb2lab(reference), rgb2lab(other))


def psnr(reference: Array, other: Array, mask: Array | None = None) -> float:
    """PSNR in decibels for a peak of 1, inside ``mask`` if one is given; ∞ for equal pictures."""
    from starrynight.numerics import certify  # imports torch

    error = (np.asarray(reference, np.float64) - np.asarray(other, np.float64)) ** 2
    decibels = certify.psnr(float(error[mask].mean() if mask is not None else error.mean()))
    return math.nan if decibels is None else decibels


def ssim(reference: Array, other: Array) -> float:
    from skimage.metrics import structural_similarity

    return float(structural_similarity(reference, other, channel_axis=2, data_range=1.0))


def flip(reference: Array, other: Array) -> tuple[float, Array]:
    """Mean FLIP error (0 equal, 1 worst, at 67 pixels per degree, its default) and its map [H, W]."""
    import flip_evaluator

    pair = (np.ascontiguousarray(p, np.float32) for p in (reference, other))
    error, mean, _ = flip_evaluator.evaluate(*pair, "LDR", applyMagma=False)
    return float(mean), np.asarray(error, np.float32).reshape(np.asarray(reference).shape[:2])


def lightness(picture: Array) -> Array:
    """CIE L*, 0..100."""
    from skimage.color import rgb2lab

    return rgb2lab(picture)[..., 0]


def shadows(reference: Array) -> Array | None:
    """Where the reference is darker than ``SHADOW_LIGHTNESS``; None if that is less than ``LEAST_SHARE`` of it."""
    mask = lightness(reference) < SHADOW_LIGHTNESS
    return mask if mask.mean() >= LEAST_SHARE else None


def darkest(reference: Array) -> Array:
    """The darkest ``DARKEST_SHARE`` of the reference."""
    light = lightness(reference)
    return light <= np.quantile(light, DARKEST_SHARE)


def highlights(picture: Array) -> dict[str, float]:
    """``core``: mean luma of the brightest 3×3 patch. ``over``: the share of pixels at ``OVEREXPOSED`` or above."""
    from scipy.ndimage import uniform_filter

    luma = np.asarray(picture, np.float32) @ LUMA
    core = float(uniform_filter(luma, 3, mode="nearest").max())
    return {"core": core, "over": float((luma >= OVEREXPOSED).mean())}


def texture(reference: Array, other: Array) -> dict[str, float]:
    """Fine detail: ``decibels``: its error relative to the reference's detail (−∞ if equal); ``energy``: the ratio of its
    energy to the reference's.
    """
    a, b = (_fine(p) for p in (reference, other))
    strength = float(np.square(a).sum())
    error = float(np.square(b - a).sum())
    if not strength:
        return {"decibels": -math.inf if not error else math.inf, "energy": 1.0 if not error else math.inf}
    return {
        "decibels": 10 * math.log10(error / strength) if error else -math.inf,
        "energy": float(np.square(b).sum()) / strength,
    }


def _fine(picture: Array) -> Array:
    from scipy.ndimage import gaussian_filter

    picture = np.asarray(picture, np.float64)
    return picture - gaussian_filter(picture, (TEXTURE_RADIUS, TEXTURE_RADIUS, 0))


def banding(gradient: Array) -> dict[str, Any]:
    """Banding in the middle row of an 8-bit gradient (uint8 [H, W, 3], left to right).

    ``levels``: distinct colours. ``flat``: the longest run of one colour, in pixels. ``steps``: jumps of at least
    ``VISIBLE_STEP`` ΔE2000 between two bands of at least ``BAND`` pixels each.
    """
    row = np.asarray(gradient)[len(gradient) // 2]
    changes = np.flatnonzero((row[1:] != row[:-1]).any(axis=1)) + 1
    edges = np.concatenate([[0], changes, [len(row)]])
    widths = np.diff(edges)
    colours = row[edges[:-1]].astype(np.float64)[None] / 255
    jumps = colour_difference(colours[:, :-1], colours[:, 1:])[0] if len(widths) > 1 else np.zeros(0)
    wide = (widths[:-1] >= BAND) & (widths[1:] >= BAND)
    return {
        "levels": len({tuple(pixel) for pixel in row.tolist()}),
        "flat": int(widths.max()),
        "steps": int((wide & (jumps >= VISIBLE_STEP)).sum()),
    }


def eight_bits(picture: Array) -> Array:
    """uint8 by rounding, as the studio saves pictures."""
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
