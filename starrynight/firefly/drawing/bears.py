"""Outlines of panda and rabbit, one unit high, feet on y = 0 (y points down)."""

from __future__ import annotations

import numpy as np

from starrynight.firefly.drawing.figures import (
    DARK,
    Coat,
    Xy,
    band,
    eye,
    fore,
    hind,
    leg,
    patch,
)
from starrynight.firefly.drawing.palettes import WHITE, mix
from starrynight.firefly.drawing.shapes import Item, disc, ribbon

Rng = np.random.Generator


def panda_head(c: Coat, x: float, y: float, s: float) -> list[Item]:
    """A panda's face from the front: round black ears and eye patches on white."""
    items: list[Item] = []
    for k in (-1, 1):
        items.append(Item(disc(x + k * s * 0.4, y - s * 0.38, s * 0.19), c.dark))
    items.append(Item(disc(x, y, s * 0.54, s * 0.46, 36), c.main))
    for k in (-1, 1):
        spot = [(0.1, -0.02), (0.16, -0.17), (0.3, -0.13), (0.36, 0.06), (0.28, 0.19), (0.15, 0.13)]
        items.append(patch([(x + k * s * a, y + s * b) for a, b in spot], c.dark))
        items.append(Item(disc(x + k * s * 0.21, y - s * 0.0, s * 0.05, n=12), WHITE))
        items.append(Item(disc(x + k * s * 0.205, y + s * 0.005, s * 0.032, n=10), c.dark))
    nose = [(-0.09, 0.15), (0.0, 0.12), (0.09, 0.15), (0.04, 0.23), (-0.04, 0.23)]
    items.append(patch([(x + s * a, y + s * b) for a, b in nose], c.dark))
    items.append(
        band(
            [(x - s * 0.1, y + s * 0.29), (x, y + s * 0.33), (x + s * 0.1, y + s * 0.29)],
            s * 0.03,
            s * 0.03,
            0.0,
            c.dark,
        )
    )
    return items


def _bamboo_stick(c: Coat, start: Xy, end: Xy) -> list[Item]:
    """A stick of bamboo with leaves at its end."""
    line = np.array([start, end])
    items = [Item(ribbon(line, 0.05, 0.045), c.cloth)]
    for k in (0.25, 0.5, 0.75):
        at = line[0] + (line[1] - line[0]) * k
        items.append(Item(disc(at[0], at[1], 0.03, 0.014, 10), mix(c.cloth, DARK, 0.35)))
    ex, ey = end
    for dx, dy in ((0.2, -0.1), (0.16, 0.08), (-0.05, -0.2), (0.06, -0.22)):
        items.append(
            band([(ex, ey), (ex + dx * 0.6, ey + dy * 0.5), (ex + dx, ey + dy)], 0.015, 0.005, 0.055, c.cloth)
        )
    return items


def panda_sitting(rng: Rng, c: Coat) -> list[Item]:
    """A panda sitting and eating bamboo, its soles towards us."""
    lift = rng.uniform(-0.06, 0.06)
    items = [
        Item(disc(0.0, -0.3, 0.37, 0.31, 40), c.main),
        patch(
            [
                (-0.34, -0.46),
                (-0.2, -0.58),
                (0.0, -0.6),
                (0.2, -0.58),
                (0.34, -0.46),
                (0.2, -0.42),
                (0.0, -0.44),
                (-0.2, -0.42),
            ],
            c.dark,
        ),
    ]
    for k in (-1, 1):
        items.append(
            patch(
                [
                    (k * 0.12, -0.2),
                    (k * 0.3, -0.26),
                    (k * 0.48, -0.14),
                    (k * 0.46, 0.0),
                    (k * 0.26, 0.01),
                    (k * 0.12, -0.06),
                ],
                c.dark,
            )
        )
        items.append(Item(disc(k * 0.4, -0.09, 0.075, 0.09, 18), mix(c.low, (230, 170, 160), 0.35)))
    return [
        *items,
        *panda_head(c, 0.0, -0.72, 0.62),
        *_bamboo_stick(c, (-0.06, -0.2), (0.4, -0.72 + lift)),
        band([(-0.3, -0.48), (-0.26, -0.3), (-0.02, -0.24)], 0.16, 0.13, 0.02, c.dark),
        band([(0.3, -0.5), (0.36, -0.36), (0.2, -0.4)], 0.15, 0.13, 0.02, c.dark),
        Item(disc(0.18, -0.42, 0.075, n=18), c.dark),
        Item(disc(-0.02, -0.24, 0.075, n=18), c.dark),
    ]


def panda_walking(rng: Rng, c: Coat) -> list[Item]:
    """A panda walking on all fours, its face towards us."""
    step = rng.uniform(0.04, 0.1)
    body = [
        (-0.66, -0.5),
        (-0.5, -0.74),
        (-0.2, -0.84),
        (0.14, -0.82),
        (0.36, -0.72),
        (0.42, -0.46),
        (0.2, -0.26),
        (-0.2, -0.22),
        (-0.52, -0.24),
    ]
    band_ = [
        (0.1, -0.83),
        (0.28, -0.78),
        (0.42, -0.6),
        (0.44, -0.4),
        (0.3, -0.24),
        (0.12, -0.26),
        (0.08, -0.5),
    ]
    return [
        *leg(fore(0.2, -0.4, -step), 0.13, c.dark, c.dark),
        *leg(hind(-0.4, -0.36, step, 0.03), 0.13, c.dark, c.dark),
        Item(disc(-0.68, -0.5, 0.07), c.main),
        patch(body, c.main),
        patch(band_, c.dark),
        *leg(fore(0.3, -0.42, step), 0.14, c.dark, c.dark),
        *leg([(-0.46, -0.4), (-0.44, -0.28), (-0.48, -0.14), (-0.48 - step, 0.0)], 0.14, c.dark, c.dark),
        *panda_head(c, 0.48, -0.66, 0.56),
    ]


def rabbit_face(c: Coat, x: float, y: float, s: float, flop: float) -> list[Item]:
    """A rabbit's face from the front, with tall ears; `flop` bends one of them."""
    items: list[Item] = []
    for k in (-1, 1):
        bend = flop if k == 1 else 0.05
        ear = [
            (x + k * s * 0.16, y - s * 0.2),
            (x + k * s * 0.24, y - s * 0.75),
            (x + k * s * (0.22 + bend), y - s * 1.2),
        ]
        items.append(band(ear, s * 0.2, s * 0.06, s * 0.14, c.main))
        inner = [
            (x + k * s * 0.18, y - s * 0.36),
            (x + k * s * 0.245, y - s * 0.75),
            (x + k * s * (0.22 + 0.8 * bend), y - s * 1.1),
        ]
        items.append(band(inner, s * 0.08, s * 0.02, s * 0.09, c.cloth))
    items.append(Item(disc(x, y, s * 0.42, s * 0.39, 32), c.main))
    for k in (-1, 1):
        items.append(Item(disc(x + k * s * 0.14, y + s * 0.17, s * 0.17, s * 0.14, 20), c.pale))
        items += eye(x + k * s * 0.21, y - s * 0.05, s * 0.075)
    items.append(
        Item([(x - s * 0.06, y + s * 0.06), (x + s * 0.06, y + s * 0.06), (x, y + s * 0.13)], (226, 120, 130))
    )
    return items


def rabbit_sitting(rng: Rng, c: Coat) -> list[Item]:
    """A rabbit sitting up and looking at us."""
    flop = rng.uniform(0.0, 0.3)
    return [
        Item(disc(-0.27, -0.1, 0.09), c.pale),
        patch(
            [
                (0.0, -0.5),
                (-0.18, -0.38),
                (-0.27, -0.14),
                (-0.22, 0.0),
                (0.22, 0.0),
                (0.27, -0.14),
                (0.18, -0.38),
            ],
            c.main,
        ),
        Item(disc(0.0, -0.2, 0.13, 0.17, 24), c.pale),
        Item(disc(-0.17, -0.03, 0.11, 0.05, 18), c.pale),
        Item(disc(0.17, -0.03, 0.11, 0.05, 18), c.pale),
        *leg(fore(-0.07, -0.28, 0.02), 0.05, c.low, c.low),
        *leg(fore(0.08, -0.28, -0.02), 0.05, c.low, c.low),
        *rabbit_face(c, 0.0, -0.5, 0.43, flop),
    ]


def rabbit_crouching(rng: Rng, c: Coat) -> list[Item]:
    """A rabbit from the side, ears up, with a round white tail."""
    tilt = rng.uniform(-0.08, 0.1)
    body = [
        (0.2, -0.44),
        (0.0, -0.54),
        (-0.26, -0.52),
        (-0.48, -0.32),
        (-0.48, -0.08),
        (-0.3, 0.0),
        (0.2, 0.0),
        (0.32, -0.14),
        (0.34, -0.32),
    ]
    haunch = [
        (-0.22, -0.4),
        (-0.42, -0.26),
        (-0.42, -0.06),
        (-0.2, 0.0),
        (0.02, -0.02),
        (0.02, -0.2),
        (-0.08, -0.36),
    ]
    head = [
        (0.14, -0.5),
        (0.24, -0.64),
        (0.4, -0.64),
        (0.52, -0.5),
        (0.52, -0.42),
        (0.4, -0.34),
        (0.22, -0.34),
    ]
    return [
        Item(disc(-0.52, -0.18, 0.1), c.pale),
        band([(0.3, -0.58), (0.34, -0.8), (0.36 + tilt, -1.0)], 0.08, 0.03, 0.07, c.low),
        patch(body, c.main),
        patch(haunch, mix(c.main, c.low, 0.55)),
        Item(disc(-0.08, -0.035, 0.16, 0.045, 18), c.pale),
        *leg(fore(0.24, -0.24, 0.04), 0.06, c.main, c.pale, 0.3),
        patch(head, c.main),
        Item(disc(0.45, -0.42, 0.08, 0.06, 18), c.pale),
        band([(0.23, -0.58), (0.2, -0.8), (0.14 + tilt, -1.02)], 0.09, 0.03, 0.09, c.main),
        band([(0.225, -0.64), (0.2, -0.8), (0.15 + tilt, -0.97)], 0.03, 0.01, 0.05, c.cloth),
        *eye(0.38, -0.52, 0.034),
        Item(disc(0.53, -0.46, 0.025, n=10), (226, 120, 130)),
    ]


def rabbit_hopping(rng: Rng, c: Coat) -> list[Item]:
    """A rabbit in mid-leap, its ears laid back."""
    sweep = rng.uniform(-0.06, 0.08)
    body = [
        (-0.48, -0.36),
        (-0.34, -0.56),
        (-0.04, -0.62),
        (0.24, -0.56),
        (0.36, -0.42),
        (0.2, -0.3),
        (-0.1, -0.25),
        (-0.38, -0.24),
    ]
    head = [
        (0.2, -0.6),
        (0.32, -0.72),
        (0.48, -0.7),
        (0.6, -0.56),
        (0.58, -0.48),
        (0.44, -0.42),
        (0.26, -0.44),
    ]
    haunch = [(-0.16, -0.5), (-0.4, -0.44), (-0.46, -0.28), (-0.26, -0.22), (-0.08, -0.3)]
    return [
        Item(disc(-0.5, -0.42, 0.1), c.pale),
        band([(0.34, -0.68), (0.14, -0.82), (-0.04, -0.92 + sweep)], 0.08, 0.03, 0.07, c.low),
        *leg([(0.2, -0.38), (0.38, -0.26), (0.52, -0.18)], 0.06, c.low, c.pale, 0.3),
        *leg([(-0.32, -0.34), (-0.52, -0.22), (-0.78, -0.1)], 0.08, c.low, c.pale, 0.3),
        patch(body, c.main),
        patch(haunch, mix(c.main, c.low, 0.55)),
        *leg([(0.24, -0.38), (0.44, -0.3), (0.6, -0.26)], 0.065, c.main, c.pale, 0.3),
        *leg([(-0.34, -0.36), (-0.56, -0.3), (-0.84, -0.22)], 0.085, c.main, c.pale, 0.3),
        patch(head, c.main),
        Item(disc(0.53, -0.5, 0.08, 0.06, 18), c.pale),
        band([(0.32, -0.68), (0.1, -0.78), (-0.1, -0.82 + sweep)], 0.09, 0.03, 0.09, c.main),
        band([(0.22, -0.725), (0.1, -0.78), (-0.05, -0.81 + sweep)], 0.03, 0.01, 0.05, c.cloth),
        *eye(0.45, -0.6, 0.034),
        Item(disc(0.61, -0.53, 0.025, n=10), (226, 120, 130)),
    ]
