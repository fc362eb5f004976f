"""A picture's descriptor for similarity search, 8 + 48 bytes, and the distances between descriptors.

``hash``: 63 bits, the signs of the lowest DCT frequencies relative to their median (pHash: Zauner, 2010,
"Implementation and Benchmarking of Perceptual Image Hash Functions"). Scaling, re-encoding and brightness
leave most bits unchanged. ``colours``: the mean colour of each of 4 × 4 fields in CIE L*a*b* (D65), one byte
per channel.

Descriptors are stored in the database, so their bytes must not change.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from PIL import Image

from starrynight.errors import BadRequest

GRID, SIDE, LOW = 4, 32, 8  # fields per side; pixels per side before the DCT; frequencies kept per side
BITS = LOW * LOW - 1
MAX_COLOUR_DISTANCE = 30.0  # ΔE*ab; colours farther apart than this count as equally different
_SCALE, _SHIFT = np.array([2.55, 1, 1], np.float32), np.array([0, 128, 128], np.float32)  # L*a*b* to bytes
_BLACK_TO_WHITE = 100.0  # ΔE*ab

_SRGB_TO_XYZ = np.array(  # IEC 61966-2-1, divided by the white point of D65
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
) / np.array([[0.95047], [1.0], [1.08883]])


class Descriptor(NamedTuple):
    """``hash``: 0 … 2⁶³−1. ``colours``: 48 bytes."""

    hash: int
    colours: bytes


def compute_descriptor(pixels: np.ndarray) -> Descriptor:
    """The descriptor of a picture, uint8 [H, W, 3]."""
    image = Image.fromarray(pixels)
    grey = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64)
    fields = np.asarray(image.resize((GRID, GRID), Image.Resampling.BOX))
    return Descriptor(_hash(grey), pack(srgb_to_lab(fields.reshape(-1, 3))))


def _hash(grey: np.ndarray) -> int:
    positions, frequencies = np.arange(SIDE) + 0.5, np.arange(LOW)
    dct = np.cos(np.pi / SIDE * np.outer(frequencies, positions))
    low = (dct @ grey @ dct.T).ravel()[1:]  # without the mean, so that brightness does not matter
    # Rounding keeps floating-point noise from setting the bits of a picture of one colour.
    bits = np.rint(low * 1e3) > np.rint(np.median(low) * 1e3)
    return int("".join("01"[bit] for bit in bits.astype(int)), 2)


def srgb_to_lab(colours: np.ndarray) -> np.ndarray:
    """sRGB uint8 [N, 3] to CIE L*a*b* float64 [N, 3] (L* 0 … 100).

    ``skimage.color.rgb2lab`` uses a matrix with other digits: up to 0.005 apart, which changes the stored
    bytes of 131 of 2,000 random pictures. Its first call also takes 0.18 s to import.
    """
    srgb = colours / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _SRGB_TO_XYZ.T
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def pack(colours: np.ndarray) -> bytes:
    """L*a*b* [N, 3] as 3 N bytes."""
    scaled = colours * _SCALE + _SHIFT
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8).tobytes()


def unpack(colours: bytes) -> np.ndarray:
    """The packed colours of N pictures, one after another, as L*a*b* float32 [3, 16, N]."""
    packed = np.frombuffer(colours, np.uint8).reshape(-1, GRID * GRID, 3)
    return np.ascontiguousarray(((packed - _SHIFT) / _SCALE).T, dtype=np.float32)


def parse_colour(text: str) -> np.ndarray:
    """Parse "#1f3b73" or "1f3b73" into L*a*b*, float64 [3]. Raises ``BadRequest``."""
    if not (found := re.fullmatch(r"#?([0-9a-fA-F]{6})", text.strip())):
        raise BadRequest(
            f"“{text[:40]}” is not a colour; write it as #1f3b73.", f"“{text[:40]}”不是颜色；请写成 #1f3b73。"
        )
    return srgb_to_lab(np.frombuffer(bytes.fromhex(found[1]), np.uint8).reshape(1, 3))[0]


def distance(hash_: int, colours: np.ndarray, hashes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The distance of one descriptor to N others, float32 [N], from 0 (equal) to 1.

    It is the sum of the share of differing bits, at most 0.5 (unrelated pictures differ in half of them), and
    half the mean ΔE*ab of the fields, relative to that of black and white. ``colours`` is [3, 16, 1],
    ``others`` [3, 16, N].
    """
    differing_bits = np.bitwise_count(hashes ^ np.uint64(hash_)) / np.float32(BITS)
    delta_e = _delta_e(colours, others).mean(axis=0) / _BLACK_TO_WHITE
    return np.minimum(differing_bits, 0.5) + np.minimum(delta_e, 1.0) / 2


def colour_distance(colour: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The distance of a colour, L*a*b* [3], to N pictures, [3, 16, N], as float32 [N], from 0 (every field
    has that colour) to 1.

    ``MAX_COLOUR_DISTANCE`` limits each field's ΔE*ab, so a corner of exactly this colour counts for more than
    a whole picture of a similar colour.
    """
    delta_e = _delta_e(colour[:, None, None].astype(np.float32), others)
    return np.minimum(delta_e, MAX_COLOUR_DISTANCE).mean(axis=0) / MAX_COLOUR_DISTANCE


def _delta_e(colours: np.ndarray, others: np.ndarray) -> np.ndarray:
    """ΔE*ab (CIE 1976), float32 [16, N]. One channel at a time is three times as fast as all at once."""
    squares = (others[0] - colours[0]) ** 2
    for channel in (1, 2):
        squares += (others[channel] - colours[channel]) ** 2
    return np.sqrt(squares, out=squares)
