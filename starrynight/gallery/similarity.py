"""What a picture looks like, in 8 + 48 bytes, and how far two such looks are apart.

``hash``: 63 bits, the signs of the lowest DCT frequencies against their median (pHash: Zauner, 2010, "Implementation and
Benchmarking of Perceptual Image Hash Functions"); scaling, re-encoding and light leave most of them as they are.
``colours``: the mean colour of each of 4 × 4 fields in CIE Lab (D65), a byte a channel. Knows nothing of databases.
"""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

from starrynight.errors import BadRequest

GRID, SIDE, LOW = 4, 32, 8  # fields a side; pixels a side before the DCT; frequencies a side kept from it
BITS = LOW * LOW - 1
FAR = 30.0  # ΔE*ab from which on a colour is simply another one
_SCALE, _SHIFT = np.array([2.55, 1, 1], np.float32), np.array([0, 128, 128], np.float32)  # L*a*b* to bytes
_REACH = 100.0  # ΔE*ab between black and white

_SRGB_TO_XYZ = np.array(  # IEC 61966-2-1, divided by the white of D65
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
) / np.array([[0.95047], [1.0], [1.08883]])


def look(pixels: np.ndarray) -> tuple[int, bytes]:
    """The hash (0 … 2⁶³−1) and the colours (48 bytes) of uint8 [H, W, 3]."""
    image = Image.fromarray(pixels)
    grey = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64)
    fields = np.asarray(image.resize((GRID, GRID), Image.Resampling.BOX))
    return _hash(grey), pack(lab(fields.reshape(-1, 3)))


def _hash(grey: np.ndarray) -> int:
    places, waves = np.arange(SIDE) + 0.5, np.arange(LOW)
    dct = np.cos(np.pi / SIDE * np.outer(waves, places))
    low = (dct @ grey @ dct.T).ravel()[1:]  # without the mean: light alone makes no difference
    bits = np.rint(low * 1e3) > np.rint(np.median(low) * 1e3)  # a flat picture has no signs but rounding's
    return int("".join("01"[bit] for bit in bits.astype(int)), 2)


def lab(colours: np.ndarray) -> np.ndarray:
    """sRGB uint8 [N, 3] as CIE L*a*b*, float [N, 3] (L* 0 … 100)."""
    srgb = colours / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _SRGB_TO_XYZ.T
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def pack(colours: np.ndarray) -> bytes:
    scaled = colours * _SCALE + _SHIFT
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8).tobytes()


def unpack(colours: bytes) -> np.ndarray:
    """Float32 [3, 16, N], L*a*b*, of the packed colours of N pictures one after another."""
    packed = np.frombuffer(colours, np.uint8).reshape(-1, GRID * GRID, 3)
    return np.ascontiguousarray(((packed - _SHIFT) / _SCALE).T, dtype=np.float32)


def parse_colour(text: str) -> np.ndarray:
    """ "#1f3b73" (or "1f3b73") as L*a*b*, float [3]. Raises ``BadRequest``."""
    if not (found := re.fullmatch(r"#?([0-9a-fA-F]{6})", text.strip())):
        raise BadRequest(
            f"“{text[:40]}” is not a colour; write it as #1f3b73.", f"“{text[:40]}”不是颜色；请写成 #1f3b73。"
        )
    return lab(np.frombuffer(bytes.fromhex(found[1]), np.uint8).reshape(1, 3))[0]


def distance(hash_: int, colours: np.ndarray, hashes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """0 (the same look) … 1, float [N]: the share of bits that differ (unrelated pictures: half of them, which is as far
    as it goes), and half the mean ΔE*ab of the fields. ``colours`` is [3, 16, 1], ``others`` [3, 16, N]."""
    apart = np.bitwise_count(hashes ^ np.uint64(hash_)) / np.float32(BITS)
    tint = _delta_e(colours, others).mean(axis=0) / _REACH
    return np.minimum(apart, 0.5) + np.minimum(tint, 1.0) / 2


def colour_distance(colour: np.ndarray, others: np.ndarray) -> np.ndarray:
    """0 (all of that colour) … 1 (nothing like it), float [N]: the fields' ΔE*ab to it, of which ``FAR`` is the most
    that counts, so that a corner in just this colour weighs more than all of it in a similar one."""
    return np.minimum(_delta_e(colour[:, None, None].astype(np.float32), others), FAR).mean(axis=0) / FAR


def _delta_e(colours: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Float32 [16, N] (CIE 1976), plane by plane, which is three times as fast as all at once."""
    squares = (others[0] - colours[0]) ** 2
    for channel in (1, 2):
        squares += (others[channel] - colours[channel]) ** 2
    return np.sqrt(squares, out=squares)
