"""Outlines of koi and whale, one unit long (y points down; a whale's waterline is y = 0)."""

from __future__ import annotations

import numpy as np

from starrynight.firefly.drawing.figures import DARK, Coat, band, eye, patch
from starrynight.firefly.drawing.palettes import Rgb, mix, shade
from starrynight.firefly.drawing.shapes import Item, curve, disc, place, ribbon

Rng = np.random.Generator


def koi(rng: Rng, base: Rgb, spots: Rgb, fin: Rgb) -> list[Item]:
    """A koi seen from above, 1.26 units long from nose to tail, bending as it swims."""
    bend = rng.uniform(0.1, 0.24) * rng.choice((-1, 1))
    spine = curve(
        [(0.5, 0.0), (0.2, 0.05 * bend), (-0.1, -0.35 * bend), (-0.32, -0.2 * bend), (-0.46, 0.2 * bend)], 41
    )
    t = np.linspace(0, 1, 41)
    half = 0.135 * np.sin(np.pi * t**0.6) ** 0.6 * (1 - 0.35 * t) + 0.012 * np.sqrt(t)
    along = np.gradient(spine, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], 1) / np.linalg.norm(along, axis=1, keepdims=True)
    body = np.concatenate([spine + across * half[:, None], (spine - across * half[:, None])[::-1]])
    tx, ty = spine[-1]
    items = [
        band(
            [
                (tx + 0.03, ty),
                (tx - 0.14, ty + s * 0.06 + 0.3 * bend),
                (tx - 0.3, ty + s * 0.17 + 0.5 * bend),
            ],
            0.03,
            0.02,
            0.09,
            fin,
        )
        for s in (-1, 1)
    ]
    for s in (-1, 1):
        items.append(
            patch(
                [(0.26, s * 0.1), (0.24, s * 0.22), (0.1, s * 0.3), (0.06, s * 0.24), (0.16, s * 0.12)], fin
            )
        )
        items.append(
            patch(
                [
                    (-0.12, s * 0.07 - 0.3 * bend),
                    (-0.2, s * 0.17 - 0.3 * bend),
                    (-0.28, s * 0.17 - 0.2 * bend),
                    (-0.22, s * 0.07 - 0.25 * bend),
                ],
                fin,
            )
        )
    items.append(Item(body, base))
    for at, size in ((3, 0.7), (14, 0.95), (25, 0.9)):
        k = at + int(rng.integers(0, 3))
        width = half[k] * size * rng.uniform(0.75, 1.0)
        shift = across[k] * half[k] * rng.uniform(-0.3, 0.3)
        items.append(
            Item(
                disc(spine[k, 0] + shift[0] * 0.6, spine[k, 1] + shift[1] * 0.6, width * 1.25, width, 20),
                spots,
            )
        )
    items.append(Item(ribbon(spine[12:28], 0.012, 0.008, 0.02), fin))
    items += [Item(disc(0.42, s * 0.075, 0.02, n=10), DARK) for s in (-1, 1)]
    return items


def _fluke(x: float, y: float, s: float, colour: Rgb) -> list[Item]:
    """A whale's tail fin, seen from behind, its stalk's top at (x, y)."""
    right = [(0.0, 0.02), (0.06, -0.16), (0.3, -0.3), (0.62, -0.3), (0.5, -0.12), (0.3, 0.0), (0.08, 0.1)]
    return [patch([(x + k * s * a, y + s * b) for a, b in right], colour) for k in (-1, 1)]


def _spout(x: float, y: float, s: float, colour: Rgb) -> list[Item]:
    """A whale's spout: two curling plumes and drops."""
    items = [
        band(
            [
                (x, y),
                (x + k * s * 0.06, y - s * 0.5),
                (x + k * s * 0.34, y - s * 0.72),
                (x + k * s * 0.5, y - s * 0.42),
            ],
            s * 0.06,
            s * 0.03,
            s * 0.1,
            colour,
        )
        for k in (-1, 1)
    ]
    drops = ((-0.56, -0.24), (0.56, -0.22), (0.1, -0.86), (-0.24, -0.9), (0.44, -0.78))
    return items + [Item(disc(x + s * a, y + s * b, s * 0.045, s * 0.06, 10), colour) for a, b in drops]


def _foam(x0: float, x1: float, y: float, depth: float, colour: Rgb) -> list[Item]:
    """Scalloped foam along the waterline."""
    n = 6
    step = (x1 - x0) / n
    return [
        Item(disc(x0 + step * (k + 0.5), y, step * 0.72, depth * (0.75 + 0.25 * (k % 2)), 18), colour)
        for k in range(n)
    ]


def whale_surfacing(rng: Rng, c: Coat) -> list[Item]:
    """A whale's back at the waterline y = 0, with its spout and its tail raised behind."""
    lift = rng.uniform(-0.05, 0.08)
    body = [
        (0.52, -0.06),
        (0.46, -0.22),
        (0.26, -0.35),
        (0.0, -0.36),
        (-0.24, -0.24),
        (-0.4, -0.06),
        (-0.38, 0.06),
        (0.0, 0.08),
        (0.44, 0.06),
    ]
    stalk = [(-0.36, 0.02), (-0.5, -0.02), (-0.6, -0.16), (-0.6, -0.32 - lift)]
    belly = [(0.5, -0.08), (0.3, -0.12), (0.06, -0.06), (-0.04, 0.04), (0.2, 0.06), (0.46, 0.05)]
    grooves = [
        band(
            [(0.47 - 0.02 * k, -0.05 + 0.03 * k), (0.26, -0.07 + 0.03 * k), (0.04, 0.0 + 0.02 * k)],
            0.008,
            0.008,
            0.0,
            c.low,
        )
        for k in range(3)
    ]
    return [
        *_spout(0.2, -0.34, 0.4, c.cloth),
        band(stalk, 0.2, 0.07, 0.0, c.main),
        *_fluke(-0.6, -0.34 - lift, 0.38, c.main),
        patch(body, c.main),
        patch([(0.4, -0.24), (0.24, -0.33), (0.0, -0.34), (-0.2, -0.24), (0.0, -0.29), (0.24, -0.27)], c.low),
        patch(belly, c.pale),
        *grooves,
        *eye(0.3, -0.15, 0.02),
        *_foam(-0.56, 0.6, 0.07, 0.055, c.pale),
    ]


def whale_tail(rng: Rng, c: Coat) -> list[Item]:
    """A diving whale's tail above the waterline y = 0."""
    sway = rng.uniform(-0.12, 0.12)
    stalk = [(-0.5 * sway, 0.06), (0.4 * sway, -0.2), (sway, -0.5)]
    line = curve(stalk, 20)
    return [
        Item(ribbon(line, 0.34, 0.12), c.main),
        Item(ribbon(line + np.array((0.045, 0.0)), 0.1, 0.03), c.low),
        *_fluke(sway, -0.54, 0.95, c.main),
        *[Item(place(i.outline, sway * 0.24, -0.13, 0.76), c.low) for i in _fluke(sway, -0.56, 0.95, c.low)],
        *[
            Item(disc(0.26 * k + 0.5 * sway, -0.16 - 0.1 * (k % 2), 0.025, 0.035, 10), c.pale)
            for k in (-2, -1, 1, 2)
        ],
        *_foam(-0.4, 0.4, 0.06, 0.055, c.pale),
    ]


def whale_breaching(rng: Rng, c: Coat) -> list[Item]:
    """A whale leaping out of the water, its pale grooved belly towards us."""
    lean = rng.uniform(-0.05, 0.08)
    body = [
        (-0.3, 0.05),
        (-0.3, -0.3),
        (-0.12, -0.66),
        (0.16, -0.9),
        (0.4 + lean, -1.0),
        (0.46 + lean, -0.9),
        (0.38, -0.6),
        (0.26, -0.3),
        (0.22, 0.05),
    ]
    belly = [
        (0.45 + lean, -0.93),
        (0.22, -0.76),
        (0.06, -0.46),
        (0.0, -0.1),
        (0.02, 0.05),
        (0.22, 0.05),
        (0.26, -0.3),
        (0.38, -0.6),
    ]
    grooves = [
        band(
            [(0.4 - 0.07 * k + lean, -0.8 + 0.03 * k), (0.28 - 0.07 * k, -0.5), (0.2 - 0.06 * k, -0.05)],
            0.012,
            0.012,
            0.0,
            mix(c.pale, c.main, 0.55),
        )
        for k in range(3)
    ]
    fin = [(0.02, -0.42), (-0.1, -0.3), (-0.34, -0.2), (-0.52, -0.24), (-0.42, -0.36), (-0.2, -0.46)]
    return [
        patch([(0.3, -0.42), (0.5, -0.4), (0.7, -0.5), (0.62, -0.34), (0.44, -0.28), (0.28, -0.3)], c.low),
        patch(body, c.main),
        patch(belly, c.pale),
        *grooves,
        patch(fin, shade(c.low, 0.9)),
        *eye(0.1, -0.7, 0.02),
        *[
            Item(disc(0.62 * np.cos(a), -0.05 + 0.42 * np.sin(a), 0.03, 0.04, 10), c.pale)
            for a in (3.5, 3.8, 5.6, 5.9)
        ],
        *_foam(-0.56, 0.5, 0.06, 0.09, c.pale),
    ]
