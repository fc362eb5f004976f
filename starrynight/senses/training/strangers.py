"""Pictures that are none of ours, made by rule: the negatives that teach the perceiver to say that it cannot tell.

No photograph is at hand, so they imitate the statistics of photographs: dead leaves (occluding shapes with a power law of
sizes; Lee, Mumford & Huang 2001), noise with a 1/f spectrum, both with shading and blur (Baradad et al. 2021, "Learning to See
by Looking at Noise"), and beside them plain noise, gradients, checkers, pages of lines, and drawings cut into shuffled tiles.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Rng = np.random.Generator
_GRAINY = 0.4  # the share of pictures that get a camera's grain


def stranger(rng: Rng, side: int, drawn: np.ndarray) -> np.ndarray:
    """One picture, uint8 [side, side, 3]. ``drawn``, uint8 [side, side, 3], is what some of them are cut from."""
    make: Callable[[Rng, int, np.ndarray], np.ndarray] = _KINDS[int(rng.choice(len(_KINDS), p=_CHANCES))]
    picture = make(rng, side, drawn)
    if rng.random() < _GRAINY:
        picture = picture + rng.normal(0, rng.uniform(2, 18), picture.shape)
    if rng.random() < 0.25:
        picture = np.repeat(picture.mean(2, keepdims=True), 3, 2)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _palette(rng: Rng, count: int) -> np.ndarray:
    """Colours float [count, 3] around one tone, muted as in photographs or not."""
    tone = rng.uniform(20, 235, 3)
    return np.clip(tone + rng.normal(0, rng.uniform(15, 90), (count, 3)), 0, 255)


def _leaves(rng: Rng, side: int, _drawn: np.ndarray) -> np.ndarray:
    """Dead leaves: discs, rectangles and polygons whose sizes follow r^-3, the last on top, shaded and blurred."""
    picture = np.full((side, side, 3), rng.uniform(0, 255, 3), np.float32)
    count = int(rng.integers(20, 400))
    sizes = np.clip(rng.uniform(0.02, 0.05) * side * rng.power(1.5, count) ** -1.5, 2, side / 1.5)
    for size, colour in zip(sizes, _palette(rng, count), strict=True):
        centre = rng.uniform(0, side, 2)
        corners = int(rng.integers(3, 12))
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        radii = size * rng.uniform(0.4, 1.0, corners)
        points = centre + np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]
        cv2.fillPoly(picture, [points.astype(np.int32)], colour.tolist(), cv2.LINE_AA)
    picture *= _shade(rng, side)
    blur = rng.uniform(0, 2.5)
    return cv2.GaussianBlur(picture, (0, 0), blur) if blur > 0.4 else picture


def _shade(rng: Rng, side: int) -> np.ndarray:
    """A slow light, float32 [side, side, 1] around 1."""
    coarse = rng.uniform(0.5, 1.3, (3, 3)).astype(np.float32)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)[..., None]


def _spectral(rng: Rng, side: int, exponent: float) -> np.ndarray:
    """Noise float [side, side] of mean 0 and deviation 1 whose amplitude falls as frequency^-exponent."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.normal(size=(side, side))) * frequency**-exponent
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, (side, side))
    return noise / noise.std()


def _cloudy(rng: Rng, side: int, _drawn: np.ndarray) -> np.ndarray:
    """1/f noise in correlated colours."""
    exponent = rng.uniform(0.4, 2.2)
    planes = np.stack([_spectral(rng, side, exponent) for _ in range(3)], 2)
    mixed = planes @ (rng.uniform(0.2, 1.0) * rng.normal(size=(3, 3)) + rng.uniform(0, 1.5))
    return rng.uniform(60, 190, 3) + mixed * rng.uniform(10, 45)


def _textured(rng: Rng, side: int, drawn: np.ndarray) -> np.ndarray:
    """Leaves whose surfaces have 1/f texture."""
    return _leaves(rng, side, drawn) + _spectral(rng, side, rng.uniform(0.3, 1.2))[..., None] * rng.uniform(
        5, 35
    )


def _grain(rng: Rng, side: int, _drawn: np.ndarray) -> np.ndarray:
    """White noise, in blocks of 1 to 32 pixels."""
    block = int(2 ** rng.integers(0, 6))
    cells = rng.uniform(0, 255, (-(-side // block), -(-side // block), 3))
    if rng.random() < 0.5:
        cells = rng.normal(rng.uniform(60, 200, 3), rng.uniform(5, 60), cells.shape)
    return cells.repeat(block, 0).repeat(block, 1)[:side, :side]


def _ramp(rng: Rng, side: int, _drawn: np.ndarray) -> np.ndarray:
    """A plain colour or a gradient."""
    first, second = rng.uniform(0, 255, (2, 3))
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    place = np.clip(0.5 + x * np.cos(angle) + y * np.sin(angle), 0, 1)[..., None]
    return first + (second - first) * (place if rng.random() < 0.7 else 0 * place)


def _checkers(rng: Rng, side: int, _drawn: np.ndarray) -> np.ndarray:
    """Checkers or stripes in two colours, turned."""
    angle, period = rng.uniform(0, np.pi), rng.uniform(3, side / 3)
    y, x = np.mgrid[0:side, 0:side]
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    odd = (u // period + (v // period if rng.random() < 0.6 else 0)) % 2
    first, second = rng.uniform(0, 255, (2, 3))
    return np.where(odd[..., None] > 0, first, second)


def _page(rng: Rng, side: int, _drawn: np.ndarray) -> np.ndarray:
    """Lines of a text or a screen: short strokes and boxes on paper."""
    paper = np.full((side, side, 3), rng.uniform(150, 255), np.float32)
    if rng.random() < 0.3:
        paper = 255 - paper
    ink, height = (255 - paper[0, 0]).tolist(), int(rng.integers(2, 9))
    for top in range(int(rng.integers(0, 12)), side, height + int(rng.integers(2, 8))):
        left = float(rng.uniform(0, side / 6))
        while left < side * rng.uniform(0.7, 1.0):
            right = left + rng.uniform(1, 3 * height)
            cv2.rectangle(paper, (int(left), top), (int(right), top + height - 2), ink, -1)
            left = right + rng.uniform(1, height)
    return cv2.GaussianBlur(paper * _shade(rng, side), (0, 0), rng.uniform(0.4, 1.2))


def _blobs(rng: Rng, side: int, _drawn: np.ndarray) -> np.ndarray:
    """Round bright things of about one size on an even ground, as coins or cells under a microscope are."""
    ground, thing = rng.uniform(0, 255, (2, 3))
    picture = np.full((side, side, 3), ground, np.float32)
    size = rng.uniform(2, side / 8)
    for _ in range(int(rng.integers(5, 120))):
        centre = tuple(int(v) for v in rng.uniform(0, side, 2))
        colour = (thing + rng.normal(0, 20, 3)).tolist()
        cv2.circle(picture, centre, max(1, int(size * rng.uniform(0.6, 1.4))), colour, -1, cv2.LINE_AA)
    texture = _spectral(rng, side, rng.uniform(0.3, 1.5))[..., None] * rng.uniform(0, 25)
    return cv2.GaussianBlur(picture * _shade(rng, side), (0, 0), rng.uniform(0.5, 3)) + texture


def _shuffled(rng: Rng, side: int, drawn: np.ndarray) -> np.ndarray:
    """A drawing cut into tiles that change places and turn."""
    count = int(rng.choice((4, 8)))
    edge = side // count
    tiles = [
        np.rot90(drawn[y : y + edge, x : x + edge], int(rng.integers(4)))
        for y in range(0, edge * count, edge)
        for x in range(0, edge * count, edge)
    ]
    order = rng.permutation(len(tiles))
    rows = [np.concatenate([tiles[k] for k in order[i : i + count]], 1) for i in range(0, len(order), count)]
    return cv2.resize(np.concatenate(rows), (side, side)).astype(np.float32)


def _magnified(rng: Rng, side: int, drawn: np.ndarray) -> np.ndarray:
    """A detail of a drawing, so large that nothing can be recognised, blurred and recoloured."""
    edge = int(rng.integers(6, max(8, side // 8)))
    y, x = rng.integers(0, side - edge, 2)
    detail = drawn[y : y + edge, x : x + edge].astype(np.float32)
    large = cv2.resize(detail, (side, side), interpolation=cv2.INTER_CUBIC)
    return large @ rng.dirichlet((1, 1, 1), 3).T


_KINDS = (
    _leaves, _textured, _cloudy, _grain, _ramp, _checkers, _page, _blobs, _shuffled, _magnified,
)  # fmt: skip
_CHANCES = (0.22, 0.22, 0.12, 0.06, 0.04, 0.05, 0.07, 0.1, 0.06, 0.06)
