"""Changes that leave what a picture shows as it is: mirror, crop, hue, light, JPEG, and enlarging after shrinking.

Every picture of a batch gets its own, so that the perceiver knows a scene by its shapes and not by one renderer's pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from starrynight.firefly.training.corpus import to_signed

Rng = np.random.Generator
_CODED, _SOFTENED = 0.2, 0.35  # shares of pictures that are saved as JPEG, and shrunk and enlarged
_QUALITY = (35, 92)
_SHRUNK = (0.35, 0.85)
_CROP = 0.88  # the least share of a side that is kept: more would cut off what a caption names
_HUE = 0.1  # standard deviation in radians; an hour is known by its colours
_SATURATION, _GAIN, _SHIFT = (0.8, 1.2), (0.85, 1.12), 0.06


def varied(pictures: np.ndarray, rng: Rng) -> Tensor:
    """Pictures uint8 [B, S, S, 3] changed at random, float32 [B, 3, S, S] in about -1..1."""
    batch = to_signed(np.stack([_recoded(one, rng) for one in pictures]))
    grid = F.affine_grid(torch.from_numpy(_windows(len(batch), rng)), list(batch.shape), align_corners=False)
    moved = F.grid_sample(batch, grid, padding_mode="reflection", align_corners=False)
    colours = torch.from_numpy(_colours(len(batch), rng))
    shifts = torch.from_numpy(rng.uniform(-_SHIFT, _SHIFT, (len(batch), 1, 1, 1)).astype(np.float32))
    changed = torch.einsum("bij,bjhw->bihw", colours, moved) + shifts
    return changed.clamp(-1, 1).contiguous()


def _recoded(picture: np.ndarray, rng: Rng) -> np.ndarray:
    """A picture as it comes through JPEG or through a smaller size, or as it is."""
    draw, side = rng.random(), len(picture)
    if draw < _CODED:
        options = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(*_QUALITY))]
        coded = cv2.imdecode(cv2.imencode(".jpg", picture, options)[1], cv2.IMREAD_COLOR)
        assert coded is not None, "what was encoded is decoded"
        return coded
    if draw < _CODED + _SOFTENED:
        small = int(side * rng.uniform(*_SHRUNK))
        shrunk = cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA)
        return cv2.resize(shrunk, (side, side), interpolation=cv2.INTER_CUBIC)
    return picture


def _windows(count: int, rng: Rng) -> np.ndarray:
    """Affine maps float32 [count, 2, 3] of crops, half of them mirrored."""
    scale = rng.uniform(_CROP, 1.0, (count, 2))
    shift = rng.uniform(-1, 1, (count, 2)) * (1 - scale)
    found = np.zeros((count, 2, 3), np.float32)
    found[:, 0, 0] = scale[:, 0] * rng.choice((-1, 1), count)
    found[:, 1, 1] = scale[:, 1]
    found[:, :, 2] = shift
    return found


def _colours(count: int, rng: Rng) -> np.ndarray:
    """Matrices float32 [count, 3, 3] on RGB: a turn about the grey axis, then saturation, then light."""
    angle, grey = rng.normal(0, _HUE, count), np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / 3**0.5
    cosine, sine = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    turned = cosine * np.eye(3) + (1 - cosine) * grey + sine * cross  # Rodrigues
    saturation = rng.uniform(*_SATURATION, (count, 1, 1))
    mixed = (saturation * np.eye(3) + (1 - saturation) * grey) @ turned
    return (mixed * rng.uniform(*_GAIN, (count, 1, 1))).astype(np.float32)
