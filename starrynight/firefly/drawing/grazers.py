"""Outlines of deer, horse and camel, facing right, one unit high, feet on y = 0 (y points down)."""

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
    turned,
)
from starrynight.firefly.drawing.palettes import Rgb, mix
from starrynight.firefly.drawing.shapes import Item, disc

Rng = np.random.Generator


def antlers(x: float, y: float, s: float, colour: Rgb, far: Rgb) -> list[Item]:
    """A pair of branching antlers, lyre-shaped, growing from (x, y)."""
    items: list[Item] = []
    for k, tint in ((1, far), (-1, colour)):
        beam = [(0.04 * k, 0), (0.3 * k, -0.24), (0.4 * k, -0.58), (0.28 * k, -0.94)]
        tines = [
            [(0.27 * k, -0.2), (0.42 * k, -0.34), (0.44 * k, -0.46)],
            [(0.39 * k, -0.5), (0.56 * k, -0.64), (0.58 * k, -0.82)],
        ]
        tines += [
            [(0.1 * k, -0.08), (0.04 * k, -0.3), (0.1 * k, -0.42)],
            [(0.38 * k, -0.64), (0.2 * k, -0.74), (0.12 * k, -0.86)],
        ]
        for knots, w in ((beam, 0.085), *((tine, 0.06) for tine in tines)):
            items.append(band([(x + s * a, y + s * b) for a, b in knots], s * w, s * w * 0.35, 0.0, tint))
    return items


def _deer_head(c: Coat, x: float, y: float, s: float, horned: bool) -> list[Item]:
    """A deer's head from the side, its skull at (x, y)."""

    def at(*knots: Xy) -> list[Xy]:
        return [(x + s * a, y + s * b) for a, b in knots]

    skull = at(
        (-0.2, 0.04),
        (-0.1, -0.17),
        (0.1, -0.17),
        (0.3, -0.02),
        (0.54, 0.16),
        (0.56, 0.26),
        (0.44, 0.3),
        (0.2, 0.24),
        (-0.06, 0.26),
    )
    muzzle = at((0.4, 0.16), (0.54, 0.18), (0.55, 0.27), (0.42, 0.29), (0.3, 0.25))
    ear = at((-0.1, -0.12), (-0.3, -0.32), (-0.56, -0.3), (-0.42, -0.12), (-0.18, -0.02))
    inner = at((-0.16, -0.13), (-0.32, -0.25), (-0.48, -0.26), (-0.36, -0.15))
    rack = (
        antlers(x, y - s * 0.14, s * 1.35, mix(c.pale, c.low, 0.35), mix(c.pale, c.low, 0.6))
        if horned
        else []
    )
    return [
        *rack[:5],
        patch(at((0.06, -0.14), (0.12, -0.38), (0.26, -0.44), (0.2, -0.12)), c.low),
        *rack[5:],
        patch(skull, c.main),
        patch(muzzle, c.pale),
        patch(ear, c.main),
        patch(inner, c.pale),
        Item(disc(x + s * 0.55, y + s * 0.19, s * 0.06, s * 0.05, 12), DARK),
        *eye(x + s * 0.13, y - s * 0.0, s * 0.06),
    ]


def deer_standing(rng: Rng, c: Coat) -> list[Item]:
    """A stag with spots and antlers, standing or stepping."""
    step = rng.uniform(0.0, 0.12)
    body = [
        (-0.38, -0.55),
        (-0.2, -0.58),
        (0.06, -0.55),
        (0.16, -0.62),
        (0.22, -0.76),
        (0.32, -0.8),
        (0.36, -0.68),
        (0.32, -0.5),
        (0.24, -0.38),
        (0.08, -0.35),
        (-0.14, -0.37),
        (-0.3, -0.38),
        (-0.41, -0.46),
    ]
    spots = [
        Item(disc(-0.3 + 0.1 * k + 0.03 * (row % 2), -0.52 + 0.055 * row, 0.017, n=10), c.pale)
        for row in range(2)
        for k in range(4)
    ]
    return [
        *leg(fore(0.2, -0.42, -0.02), 0.032, c.low, c.dark),
        *leg(hind(-0.29, -0.42, step), 0.034, c.low, c.dark),
        patch([(-0.36, -0.56), (-0.44, -0.54), (-0.48, -0.42), (-0.4, -0.42)], c.pale),
        patch(body, c.main),
        patch([(-0.36, -0.52), (-0.42, -0.46), (-0.37, -0.38), (-0.33, -0.44)], c.pale),
        patch([(0.35, -0.7), (0.28, -0.64), (0.24, -0.44), (0.28, -0.42), (0.35, -0.56)], c.pale),
        *spots,
        *leg(fore(0.24, -0.44, 0.03 + step * 0.5), 0.036, c.main, c.dark),
        Item(disc(-0.31, -0.43, 0.082, 0.125, 20), c.main),
        *leg(hind(-0.32, -0.46, -step * 0.5, 0.05), 0.04, c.main, c.dark),
        *_deer_head(c, 0.32, -0.8, 0.32, True),
    ]


def deer_leaping(rng: Rng, c: Coat) -> list[Item]:
    """A stag leaping, fore legs folded, hind legs stretched."""
    turn = rng.uniform(0.22, 0.34)
    body = [
        (-0.4, -0.52),
        (-0.16, -0.56),
        (0.08, -0.54),
        (0.2, -0.64),
        (0.28, -0.78),
        (0.38, -0.8),
        (0.38, -0.66),
        (0.34, -0.48),
        (0.22, -0.36),
        (0.0, -0.36),
        (-0.26, -0.37),
        (-0.42, -0.42),
    ]
    spots = [
        Item(disc(-0.3 + 0.1 * k + 0.03 * (row % 2), -0.51 + 0.055 * row, 0.017, n=10), c.pale)
        for row in range(2)
        for k in range(4)
    ]
    items = [
        *leg([(0.24, -0.44), (0.46, -0.36), (0.5, -0.22), (0.38, -0.12)], 0.034, c.low, c.dark),
        *leg([(-0.34, -0.44), (-0.5, -0.34), (-0.56, -0.22), (-0.78, -0.14)], 0.036, c.low, c.dark),
        patch([(-0.38, -0.54), (-0.5, -0.58), (-0.52, -0.46), (-0.42, -0.44)], c.pale),
        patch(body, c.main),
        patch([(0.37, -0.7), (0.3, -0.64), (0.26, -0.44), (0.3, -0.42), (0.37, -0.56)], c.pale),
        *spots,
        *leg([(0.26, -0.44), (0.5, -0.46), (0.64, -0.36), (0.56, -0.22)], 0.036, c.main, c.dark),
        *leg([(-0.32, -0.46), (-0.46, -0.3), (-0.62, -0.26), (-0.8, -0.06)], 0.04, c.main, c.dark),
        *_deer_head(c, 0.36, -0.82, 0.32, True),
    ]
    return turned(items, -turn, (-0.1, -0.42))


def _horse_front(c: Coat, flow: float) -> list[Item]:
    """A horse's mane, ear, blaze, nostril and eye, over its body's outline."""
    mane = [
        (0.42, -1.0),
        (0.3, -0.96),
        (0.16 - flow, -0.8),
        (0.04 - flow, -0.62),
        (0.14, -0.58),
        (0.24, -0.72),
        (0.34, -0.88),
    ]
    return [
        patch(mane, c.dark),
        Item([(0.36, -0.93), (0.385, -1.06), (0.45, -0.93)], c.main),
        patch([(0.45, -0.96), (0.4, -0.99), (0.38, -0.94), (0.44, -0.88), (0.49, -0.86)], c.dark),
        patch(
            [(0.5, -0.85), (0.6, -0.74), (0.62, -0.68), (0.56, -0.66), (0.52, -0.74)],
            mix(c.main, c.dark, 0.55),
        ),
        *eye(0.455, -0.865, 0.019),
        Item(disc(0.605, -0.71, 0.012, n=8), DARK),
    ]


_HORSE = [
    (-0.44, -0.58), (-0.36, -0.66), (-0.2, -0.65), (-0.02, -0.61), (0.14, -0.66), (0.24, -0.82), (0.36, -0.96),
    (0.45, -0.95), (0.54, -0.82), (0.625, -0.72), (0.61, -0.66), (0.55, -0.655), (0.47, -0.73), (0.41, -0.76),
    (0.375, -0.62), (0.33, -0.47), (0.2, -0.39), (0.0, -0.37), (-0.22, -0.4), (-0.38, -0.42), (-0.47, -0.48),
]  # fmt: skip


def horse_standing(rng: Rng, c: Coat) -> list[Item]:
    """A horse standing or walking, its tail hanging."""
    step, flow = rng.uniform(0.0, 0.12), rng.uniform(-0.02, 0.05)
    tail = [(-0.44, -0.6), (-0.54, -0.54), (-0.58 - flow, -0.34), (-0.54 - 2 * flow, -0.14)]
    return [
        *leg(fore(0.2, -0.44, -0.03 - step * 0.3), 0.05, c.low, c.dark, 0.2),
        *leg(hind(-0.32, -0.46, step), 0.052, c.low, c.dark, 0.2),
        band(tail, 0.07, 0.03, 0.08, c.dark),
        patch(_HORSE, c.main),
        *leg(fore(0.26, -0.46, 0.03 + step * 0.6), 0.054, c.main, c.dark, 0.2),
        Item(disc(-0.355, -0.46, 0.1, 0.155, 20), c.main),
        *leg(hind(-0.37, -0.5, -step * 0.5, 0.06), 0.06, c.main, c.dark, 0.2),
        *_horse_front(c, flow),
    ]


def horse_galloping(rng: Rng, c: Coat) -> list[Item]:
    """A horse galloping, mane and tail streaming."""
    flow = rng.uniform(0.08, 0.16)
    tail = [(-0.42, -0.6), (-0.58, -0.68), (-0.76, -0.6), (-0.96, -0.62 + flow)]
    items = [
        *leg([(0.2, -0.46), (0.42, -0.4), (0.44, -0.26), (0.3, -0.2)], 0.05, c.low, c.dark, 0.2),
        *leg([(-0.34, -0.48), (-0.36, -0.3), (-0.56, -0.22), (-0.7, -0.06)], 0.052, c.low, c.dark, 0.2),
        band(tail, 0.07, 0.02, 0.12, c.dark),
        patch(_HORSE, c.main),
        *leg([(0.26, -0.48), (0.5, -0.42), (0.64, -0.3), (0.76, -0.18)], 0.054, c.main, c.dark, 0.2),
        *leg([(-0.36, -0.52), (-0.48, -0.34), (-0.66, -0.34), (-0.84, -0.2)], 0.058, c.main, c.dark, 0.2),
        *_horse_front(c, flow),
    ]
    return turned(items, -0.06, (0.0, -0.4))


_CAMEL = [
    (-0.48, -0.5), (-0.42, -0.64), (-0.33, -0.8), (-0.25, -0.87), (-0.18, -0.78), (-0.11, -0.66), (-0.03, -0.66),
    (0.03, -0.78), (0.1, -0.87), (0.17, -0.78), (0.22, -0.62), (0.31, -0.52), (0.4, -0.58), (0.45, -0.76),
    (0.49, -0.93), (0.57, -0.99), (0.67, -0.95), (0.78, -0.87), (0.79, -0.81), (0.7, -0.79), (0.6, -0.8),
    (0.56, -0.66), (0.5, -0.48), (0.38, -0.38), (0.22, -0.35), (0.0, -0.33), (-0.28, -0.35), (-0.45, -0.4),
]  # fmt: skip


def _camel_body(rng: Rng, c: Coat) -> list[Item]:
    """A two-humped camel without its legs; mostly with a saddle cloth between the humps."""
    saddled = rng.uniform() < 0.7
    cloth = [(-0.17, -0.72), (-0.07, -0.69), (0.03, -0.74), (0.07, -0.42), (-0.05, -0.4), (-0.19, -0.42)]
    fringe = [(-0.2, -0.47), (0.075, -0.47), (0.08, -0.41), (-0.205, -0.41)]
    back = [(-0.37, -0.74), (-0.31, -0.84), (-0.25, -0.89), (-0.19, -0.81), (-0.15, -0.71), (-0.25, -0.76)]
    throat = [(0.58, -0.8), (0.56, -0.62), (0.48, -0.44), (0.36, -0.36), (0.42, -0.5), (0.5, -0.66)]
    return [
        band([(-0.46, -0.54), (-0.53, -0.46), (-0.54, -0.3)], 0.03, 0.045, 0.0, c.dark),
        patch(_CAMEL, c.main),
        patch(back, c.dark),
        patch([(0.0, -0.73), (0.04, -0.81), (0.1, -0.89), (0.16, -0.81), (0.2, -0.71), (0.1, -0.76)], c.dark),
        patch(throat, c.dark),
        *([patch(cloth, c.cloth), Item(fringe, (246, 196, 84))] if saddled else []),
        patch([(0.5, -0.94), (0.45, -1.0), (0.43, -0.94), (0.48, -0.9)], c.low),
        patch([(0.54, -0.97), (0.6, -1.03), (0.64, -0.97), (0.58, -0.94)], c.dark),
        *eye(0.615, -0.91, 0.02),
        band([(0.7, -0.825), (0.79, -0.825)], 0.012, 0.012, 0.0, c.dark),
        Item(disc(0.775, -0.86, 0.012, n=8), DARK),
    ]


def camel_walking(rng: Rng, c: Coat) -> list[Item]:
    """A two-humped camel standing or walking."""
    step = rng.uniform(0.02, 0.1)
    body = _camel_body(rng, c)
    return [
        *leg(fore(0.2, -0.42, -step), 0.055, c.low, c.low),
        *leg(hind(-0.32, -0.42, step), 0.055, c.low, c.low),
        *body[:5],
        *leg(fore(0.3, -0.44, step), 0.062, c.main, c.low),
        Item(disc(-0.365, -0.45, 0.105, 0.15, 20), c.main),
        *leg(hind(-0.38, -0.48, -step, 0.07), 0.068, c.main, c.low),
        *body[5:],
    ]


def camel_resting(rng: Rng, c: Coat) -> list[Item]:
    """A two-humped camel lying with its legs folded."""
    hip = [(-0.48, -0.26), (-0.34, -0.3), (-0.16, -0.14), (-0.08, -0.03), (-0.3, 0.0), (-0.5, -0.06)]
    knee = [(0.14, -0.2), (0.28, -0.22), (0.46, -0.07), (0.44, -0.01), (0.24, 0.0), (0.12, -0.06)]
    body = [Item(np.asarray(i.outline) + np.array((0.0, 0.32)), i.colour) for i in _camel_body(rng, c)]
    return [*body[:5], patch(hip, c.low), patch(knee, c.low), *body[5:]]


def horse_grazing(rng: Rng, c: Coat) -> list[Item]:
    """A horse grazing with its head down."""
    step, flow = rng.uniform(0.0, 0.08), rng.uniform(-0.03, 0.05)
    front = [(0.14, -0.66), (0.3, -0.61), (0.45, -0.47), (0.55, -0.33), (0.63, -0.22), (0.68, -0.07)]
    front += [(0.62, -0.01), (0.55, -0.04), (0.51, -0.15), (0.44, -0.24), (0.37, -0.33), (0.3, -0.41)]
    mane = [
        (0.12, -0.67),
        (0.3, -0.66),
        (0.47, -0.51),
        (0.57, -0.35),
        (0.5, -0.33),
        (0.4, -0.45),
        (0.26, -0.54),
    ]
    tail = [(-0.44, -0.6), (-0.54, -0.54), (-0.58 - flow, -0.34), (-0.54 - 2 * flow, -0.14)]
    return [
        *leg(fore(0.18, -0.44, -0.05 - step), 0.05, c.low, c.dark, 0.2),
        *leg(hind(-0.32, -0.46, step), 0.052, c.low, c.dark, 0.2),
        band(tail, 0.07, 0.03, 0.08, c.dark),
        patch([*_HORSE[:4], *front, *_HORSE[16:]], c.main),
        *leg(fore(0.24, -0.46, 0.06), 0.054, c.main, c.dark, 0.2),
        Item(disc(-0.355, -0.46, 0.1, 0.155, 20), c.main),
        *leg(hind(-0.37, -0.5, -step * 0.5, 0.06), 0.06, c.main, c.dark, 0.2),
        patch(mane, c.dark),
        Item([(0.53, -0.33), (0.62, -0.4), (0.6, -0.28)], c.main),
        patch(
            [(0.62, -0.12), (0.67, -0.08), (0.66, -0.03), (0.6, -0.01), (0.56, -0.05)],
            mix(c.main, c.dark, 0.55),
        ),
        *eye(0.585, -0.2, 0.019),
    ]


def deer_lying(rng: Rng, c: Coat) -> list[Item]:
    """A stag resting on the ground with its head up."""
    sway = rng.uniform(-0.02, 0.02)
    body = [
        (-0.46, -0.2),
        (-0.3, -0.33),
        (-0.04, -0.33),
        (0.12, -0.36),
        (0.2, -0.5),
        (0.29, -0.57),
        (0.36, -0.46),
    ]
    body += [(0.36, -0.26), (0.34, -0.08), (0.2, 0.0), (-0.2, 0.0), (-0.42, -0.02)]
    haunch = [(-0.22, -0.28), (-0.4, -0.2), (-0.42, -0.04), (-0.2, 0.0), (-0.02, -0.02), (-0.06, -0.16)]
    spots = [
        Item(disc(-0.34 + 0.1 * k + 0.03 * (row % 2), -0.29 + 0.055 * row, 0.017, n=10), c.pale)
        for row in range(2)
        for k in range(4)
    ]
    return [
        patch([(-0.42, -0.26), (-0.5, -0.26), (-0.54, -0.16), (-0.46, -0.14)], c.pale),
        patch(body, c.main),
        patch([(0.35, -0.48), (0.28, -0.4), (0.25, -0.22), (0.3, -0.18), (0.36, -0.34)], c.pale),
        patch(haunch, mix(c.main, c.low, 0.6)),
        *spots,
        band([(0.2, -0.12), (0.38, -0.08), (0.46, -0.03), (0.28, -0.02)], 0.07, 0.04, 0.0, c.low),
        band([(-0.18, -0.04), (0.02, -0.02), (0.12, -0.02)], 0.06, 0.035, 0.0, c.low),
        *_deer_head(c, 0.3 + sway, -0.56, 0.32, True),
    ]
