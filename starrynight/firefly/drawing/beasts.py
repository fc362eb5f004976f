"""Outlines of fox, cat and dog, facing right, one unit high, feet on y = 0 (y points down)."""

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
from starrynight.firefly.drawing.shapes import Item, curve, disc, ribbon

Rng = np.random.Generator


def _fox_head(c: Coat, x: float, y: float, s: float) -> list[Item]:
    """A fox's head from the side, its skull at (x, y)."""

    def at(*knots: Xy) -> list[Xy]:
        return [(x + s * a, y + s * b) for a, b in knots]

    skull = at(
        (-0.2, -0.02), (-0.1, -0.17), (0.06, -0.18), (0.2, -0.08), (0.42, 0.05), (0.44, 0.1), (0.26, 0.14)
    )
    skull += at((0.08, 0.22), (-0.12, 0.18))
    cheek = at(
        (0.43, 0.08), (0.24, 0.06), (0.08, 0.04), (-0.06, 0.1), (-0.16, 0.24), (0.06, 0.2), (0.28, 0.15)
    )
    return [
        Item(at((-0.02, -0.12), (0.1, -0.46), (0.18, -0.1)), c.low),
        patch(skull, c.main),
        patch(cheek, c.pale),
        Item(at((-0.2, -0.04), (-0.12, -0.48), (0.06, -0.14)), c.main),
        Item(at((-0.14, -0.12), (-0.1, -0.38), (0.0, -0.14)), c.dark),
        Item(disc(x + s * 0.44, y + s * 0.06, s * 0.045, n=12), DARK),
        *eye(x + s * 0.13, y - s * 0.02, s * 0.036),
    ]


def _brush(c: Coat, knots: list[Xy], w: float) -> list[Item]:
    """A fox's bushy tail with a white tip."""
    line = curve(knots, 40)
    return [Item(ribbon(line, 0.08, 0.02, w), c.main), Item(ribbon(line[27:], w * 0.82, 0.01), c.pale)]


def fox_sitting(rng: Rng, c: Coat) -> list[Item]:
    """A fox sitting with its tail laid around behind it."""
    lift = rng.uniform(-0.1, 0.12)
    body = [(0.02, -0.66), (-0.14, -0.5), (-0.28, -0.24), (-0.28, -0.04), (-0.1, 0.0), (0.16, -0.02)]
    chest = [(0.18, -0.62), (0.05, -0.5), (0.08, -0.3), (0.16, -0.16), (0.22, -0.32), (0.26, -0.52)]
    thigh = [(-0.18, -0.26), (-0.26, -0.08), (-0.12, 0.0), (0.06, -0.01), (0.02, -0.16), (-0.06, -0.28)]
    tail = [(-0.2, -0.06), (-0.48, -0.03), (-0.72, -0.16 - lift), (-0.8, -0.44 - lift)]
    return [
        *_brush(c, tail, 0.2),
        *leg(fore(0.15, -0.36, 0.05), 0.055, c.low, c.dark, 0.5),
        patch([*body, (0.22, -0.3), (0.26, -0.55), (0.18, -0.7)], c.main),
        patch(chest, c.pale),
        *leg(fore(0.12, -0.36, 0.02), 0.06, c.main, c.dark, 0.5),
        patch(thigh, mix(c.main, c.low, 0.5)),
        *_fox_head(c, 0.14, -0.72, 0.62),
    ]


def fox_walking(rng: Rng, c: Coat) -> list[Item]:
    """A fox trotting, its tail stretched out behind."""
    step, lift = rng.uniform(0.08, 0.16), rng.uniform(-0.06, 0.14)
    body = [
        (-0.56, -0.62),
        (-0.3, -0.67),
        (0.0, -0.64),
        (0.22, -0.7),
        (0.4, -0.84),
        (0.56, -0.72),
        (0.44, -0.5),
    ]
    body += [(0.24, -0.38), (-0.1, -0.4), (-0.4, -0.4), (-0.58, -0.46)]
    chest = [(0.54, -0.72), (0.4, -0.62), (0.26, -0.44), (0.2, -0.36), (0.4, -0.42), (0.52, -0.58)]
    tail = [(-0.54, -0.58), (-0.8, -0.56 - 0.3 * lift), (-1.1, -0.5 - lift), (-1.36, -0.56 - 2 * lift)]
    return [
        *leg(fore(0.26, -0.46, -step), 0.06, c.low, c.dark, 0.55),
        *leg(hind(-0.4, -0.46, step), 0.06, c.low, c.dark, 0.5),
        *_brush(c, tail, 0.24),
        patch(body, c.main),
        patch(chest, c.pale),
        *leg(fore(0.3, -0.48, step), 0.065, c.main, c.dark, 0.55),
        Item(disc(-0.43, -0.46, 0.13, 0.16, 20), c.main),
        *leg(hind(-0.44, -0.5, -step, 0.08), 0.07, c.main, c.dark, 0.5),
        *_fox_head(c, 0.5, -0.84, 0.72),
    ]


def cat_head(c: Coat, x: float, y: float, s: float, iris: Rgb | None) -> list[Item]:
    """A cat's face from the front: pointed ears, a pale muzzle, eyes with an iris or closed."""

    def at(*knots: Xy) -> list[Xy]:
        return [(x + s * a, y + s * b) for a, b in knots]

    items: list[Item] = []
    for k in (-1, 1):
        items.append(Item(at((k * 0.06, -0.3), (k * 0.4, -0.66), (k * 0.46, -0.06)), c.main))
        items.append(
            Item(
                at((k * 0.17, -0.3), (k * 0.36, -0.52), (k * 0.39, -0.16)), mix(c.pale, (240, 150, 140), 0.6)
            )
        )
    items.append(
        patch(
            at(
                (0, -0.37),
                (0.3, -0.29),
                (0.47, 0.0),
                (0.34, 0.28),
                (0, 0.37),
                (-0.34, 0.28),
                (-0.47, 0.0),
                (-0.3, -0.29),
            ),
            c.main,
        )
    )
    for mark in (-0.12, 0.0, 0.12):
        items.append(Item(at((mark - 0.025, -0.34), (mark + 0.025, -0.34), (mark * 0.8, -0.16)), c.low))
    items.append(
        patch(at((0, -0.02), (0.1, 0.06), (0.22, 0.18), (0.0, 0.34), (-0.22, 0.18), (-0.1, 0.06)), c.pale)
    )
    for k in (-1, 1):
        lid = at((k * 0.1, -0.02), (k * 0.2, 0.04), (k * 0.3, -0.02))
        closed = [band(lid, s * 0.035, s * 0.035, 0.0, c.dark)]
        items += eye(x + k * s * 0.2, y - s * 0.03, s * 0.105, iris) if iris else closed
        for lift in (-0.02, 0.06):
            line = np.array(at((k * 0.2, 0.16), (k * 0.62, 0.12 + 2 * lift)))
            items.append(Item(ribbon(line, s * 0.012, s * 0.008), mix(c.pale, DARK, 0.35)))
    items.append(Item(at((-0.06, 0.08), (0.06, 0.08), (0.0, 0.15)), (214, 110, 110)))
    return items


def cat_sitting(rng: Rng, c: Coat) -> list[Item]:
    """A cat sitting and looking at us, its tail curled up."""
    tip = rng.uniform(-0.12, 0.12)
    body = [
        (0.06, -0.62),
        (-0.1, -0.52),
        (-0.24, -0.28),
        (-0.27, -0.06),
        (-0.12, 0.0),
        (0.2, 0.0),
        (0.24, -0.2),
    ]
    tail = [(-0.2, -0.05), (-0.44, -0.02), (-0.56, -0.2), (-0.46, -0.42), (-0.56 + tip, -0.58)]
    stripes = [
        band(
            [(-0.26 + 0.05 * k, -0.1 - 0.14 * k), (-0.1 + 0.02 * k, -0.12 - 0.14 * k)],
            0.045,
            0.01,
            0.01,
            c.low,
        )
        for k in range(4)
    ]
    return [
        band(tail, 0.1, 0.05, 0.02, c.main),
        patch([*body, (0.24, -0.42), (0.22, -0.62)], c.main),
        *stripes,
        patch([(0.1, -0.56), (0.03, -0.36), (0.1, -0.1), (0.2, -0.1), (0.22, -0.4)], c.pale),
        patch(
            [(-0.12, -0.24), (-0.22, -0.08), (-0.1, 0.0), (0.06, -0.01), (0.02, -0.18)],
            mix(c.main, c.low, 0.35),
        ),
        *leg(fore(0.17, -0.34, 0.02), 0.06, c.main, c.pale, 0.2),
        *leg(fore(0.07, -0.34, 0.0), 0.06, c.main, c.pale, 0.2),
        *cat_head(c, 0.13, -0.72, 0.48, (214, 200, 70)),
    ]


def cat_walking(rng: Rng, c: Coat) -> list[Item]:
    """A cat walking with its tail in the air."""
    step, tip = rng.uniform(0.06, 0.12), rng.uniform(-0.12, 0.16)
    body = [
        (-0.5, -0.56),
        (-0.3, -0.62),
        (0.0, -0.57),
        (0.28, -0.62),
        (0.46, -0.6),
        (0.5, -0.44),
        (0.3, -0.32),
        (-0.1, -0.34),
        (-0.4, -0.32),
        (-0.54, -0.42),
    ]
    stripes = [
        band([(-0.36 + 0.18 * k, -0.62), (-0.34 + 0.18 * k, -0.44)], 0.05, 0.01, 0.01, c.low)
        for k in range(4)
    ]
    return [
        *leg(fore(0.28, -0.42, -step), 0.055, c.low, c.pale, 0.2),
        *leg(hind(-0.4, -0.42, step), 0.055, c.low, c.pale, 0.2),
        band([(-0.48, -0.54), (-0.62, -0.68), (-0.62, -0.9), (-0.54 + tip, -1.08)], 0.1, 0.06, 0.01, c.main),
        patch(body, c.main),
        *stripes,
        patch([(0.48, -0.56), (0.36, -0.46), (0.3, -0.34), (0.42, -0.36), (0.52, -0.46)], c.pale),
        *leg(fore(0.34, -0.42, step), 0.06, c.main, c.pale, 0.2),
        Item(disc(-0.41, -0.42, 0.12, 0.15, 20), c.main),
        *leg(hind(-0.42, -0.46, -step, 0.08), 0.07, c.main, c.pale, 0.2),
        *cat_head(c, 0.52, -0.72, 0.44, (190, 214, 80)),
    ]


def _dog_head(c: Coat, x: float, y: float, s: float) -> list[Item]:
    """A dog's head from the side: blunt muzzle, hanging ear, tongue, collar."""

    def at(*knots: Xy) -> list[Xy]:
        return [(x + s * a, y + s * b) for a, b in knots]

    skull = at(
        (-0.24, 0.06), (-0.2, -0.16), (0.0, -0.26), (0.17, -0.18), (0.24, -0.06), (0.46, -0.02), (0.5, 0.1)
    )
    skull += at((0.44, 0.17), (0.22, 0.2), (0.02, 0.28), (-0.16, 0.24))
    muzzle = at((0.22, -0.05), (0.46, -0.03), (0.5, 0.08), (0.42, 0.17), (0.22, 0.2), (0.1, 0.1))
    tongue = at((0.3, 0.14), (0.42, 0.15), (0.42, 0.32), (0.35, 0.38), (0.29, 0.3))
    ear = at((-0.14, -0.2), (0.0, -0.16), (0.03, 0.08), (-0.06, 0.28), (-0.19, 0.24), (-0.22, 0.0))
    return [
        patch(tongue, (232, 110, 120)),
        patch(skull, c.main),
        patch(muzzle, c.pale),
        Item(ribbon(np.array(at((0.22, 0.15), (0.44, 0.15))), s * 0.02, s * 0.02), c.dark),
        Item(disc(x + s * 0.48, y + s * 0.0, s * 0.06, s * 0.05, 14), DARK),
        patch(ear, c.low),
        *eye(x + s * 0.15, y - s * 0.06, s * 0.042),
    ]


def dog_sitting(rng: Rng, c: Coat) -> list[Item]:
    """A dog sitting, its tongue out, its tail wagging."""
    wag = rng.uniform(-0.1, 0.14)
    body = [
        (0.0, -0.66),
        (-0.16, -0.46),
        (-0.28, -0.2),
        (-0.28, -0.03),
        (-0.1, 0.0),
        (0.2, -0.04),
        (0.25, -0.34),
    ]
    thigh = [(-0.16, -0.28), (-0.27, -0.1), (-0.12, 0.0), (0.1, -0.0), (0.05, -0.14), (-0.04, -0.27)]
    return [
        band([(-0.22, -0.06), (-0.42, -0.1), (-0.54, -0.28), (-0.52 + wag, -0.44)], 0.1, 0.03, 0.03, c.main),
        *leg(fore(0.18, -0.4, 0.05), 0.07, c.low, c.pale, 0.25),
        patch([*body, (0.26, -0.56), (0.2, -0.7)], c.main),
        patch([(0.22, -0.58), (0.1, -0.46), (0.12, -0.26), (0.2, -0.16), (0.26, -0.36)], c.pale),
        patch(thigh, mix(c.main, c.low, 0.5)),
        *leg(fore(0.12, -0.4, 0.02), 0.075, c.main, c.pale, 0.25),
        band([(-0.06, -0.56), (0.1, -0.5), (0.27, -0.56)], 0.07, 0.06, 0.0, c.cloth),
        *_dog_head(c, 0.1, -0.74, 0.72),
    ]


def dog_walking(rng: Rng, c: Coat) -> list[Item]:
    """A dog trotting with its tail up."""
    step, wag = rng.uniform(0.08, 0.17), rng.uniform(-0.12, 0.12)
    body = [
        (-0.54, -0.58),
        (-0.3, -0.63),
        (0.0, -0.61),
        (0.2, -0.66),
        (0.36, -0.84),
        (0.54, -0.72),
        (0.46, -0.5),
    ]
    body += [(0.28, -0.34), (-0.05, -0.38), (-0.36, -0.4), (-0.56, -0.42)]
    return [
        *leg(fore(0.26, -0.44, -step), 0.075, c.low, c.pale, 0.3),
        *leg(hind(-0.4, -0.44, step), 0.075, c.low, c.pale, 0.3),
        band([(-0.5, -0.55), (-0.66, -0.68), (-0.72, -0.88), (-0.62 + wag, -1.0)], 0.1, 0.03, 0.03, c.main),
        patch(body, c.main),
        patch([(-0.34, -0.62), (-0.08, -0.6), (-0.04, -0.46), (-0.26, -0.44)], c.low),
        patch([(0.5, -0.66), (0.36, -0.54), (0.24, -0.36), (0.36, -0.38), (0.48, -0.52)], c.pale),
        *leg(fore(0.3, -0.46, step), 0.08, c.main, c.pale, 0.3),
        Item(disc(-0.42, -0.45, 0.13, 0.155, 20), c.main),
        *leg(hind(-0.43, -0.48, -step, 0.08), 0.085, c.main, c.pale, 0.3),
        band([(0.26, -0.74), (0.4, -0.64), (0.54, -0.66)], 0.07, 0.06, 0.0, c.cloth),
        *_dog_head(c, 0.46, -0.86, 0.72),
    ]


def cat_sleeping(rng: Rng, c: Coat) -> list[Item]:
    """A cat asleep, curled up, its tail around it."""
    nod = rng.uniform(-0.04, 0.04)
    stripes = [
        band([(-0.36 + 0.16 * k, -0.5 - 0.02 * k), (-0.3 + 0.15 * k, -0.34)], 0.05, 0.01, 0.01, c.low)
        for k in range(4)
    ]
    return [
        patch(
            [
                (0.0, -0.56),
                (0.32, -0.48),
                (0.52, -0.24),
                (0.4, -0.02),
                (0.0, 0.0),
                (-0.4, -0.02),
                (-0.54, -0.24),
                (-0.34, -0.48),
            ],
            c.main,
        ),
        *stripes,
        patch(
            [(-0.16, -0.34), (-0.44, -0.2), (-0.36, -0.02), (-0.04, 0.0), (0.08, -0.14)],
            mix(c.main, c.low, 0.35),
        ),
        *cat_head(c, 0.26, -0.26 + nod, 0.5, None),
        band(
            [(-0.5, -0.14), (-0.36, -0.02), (0.0, 0.0), (0.34, -0.03)],
            0.13,
            0.07,
            0.02,
            mix(c.main, c.low, 0.3),
        ),
        band([(0.2, -0.02), (0.36, -0.035)], 0.1, 0.05, 0.02, c.pale),
    ]


def fox_sleeping(rng: Rng, c: Coat) -> list[Item]:
    """A fox asleep, curled up behind its bushy tail."""
    nod = rng.uniform(-0.03, 0.03)
    tail = [(-0.52, -0.2), (-0.4, -0.02), (-0.05, 0.0), (0.3, -0.02), (0.56, -0.1)]
    line = curve(tail, 40)
    return [
        patch(
            [
                (0.0, -0.54),
                (0.34, -0.44),
                (0.5, -0.22),
                (0.4, -0.02),
                (0.0, 0.0),
                (-0.42, -0.02),
                (-0.56, -0.24),
                (-0.34, -0.46),
            ],
            c.main,
        ),
        patch([(0.1, -0.46), (-0.3, -0.42), (-0.44, -0.24), (-0.2, -0.3), (0.1, -0.32)], c.low),
        *_fox_head(c, 0.2, -0.3 + nod, 0.7)[:-3],
        Item(ribbon(line, 0.1, 0.03, 0.14), mix(c.main, c.pale, 0.22)),
        Item(ribbon(line[26:], 0.2, 0.01), c.pale),
        *([band([(0.26, -0.3 + nod), (0.32, -0.27 + nod), (0.37, -0.29 + nod)], 0.022, 0.018, 0.0, c.dark)]),
    ]


def dog_running(rng: Rng, c: Coat) -> list[Item]:
    """A dog running flat out."""
    wag = rng.uniform(-0.1, 0.1)
    body = [
        (-0.56, -0.56),
        (-0.3, -0.6),
        (0.0, -0.58),
        (0.22, -0.66),
        (0.36, -0.82),
        (0.54, -0.72),
        (0.48, -0.5),
    ]
    body += [(0.3, -0.34), (-0.05, -0.38), (-0.36, -0.38), (-0.58, -0.42)]
    items = [
        *leg([(0.26, -0.44), (0.46, -0.36), (0.56, -0.24), (0.46, -0.14)], 0.075, c.low, c.pale, 0.3),
        *leg([(-0.44, -0.44), (-0.5, -0.26), (-0.68, -0.18), (-0.82, -0.06)], 0.075, c.low, c.pale, 0.3),
        band([(-0.52, -0.52), (-0.7, -0.62), (-0.9, -0.64), (-1.02, -0.74 + wag)], 0.1, 0.03, 0.03, c.main),
        patch(body, c.main),
        patch([(-0.34, -0.6), (-0.08, -0.58), (-0.04, -0.46), (-0.26, -0.44)], c.low),
        patch([(0.52, -0.66), (0.38, -0.54), (0.26, -0.36), (0.38, -0.38), (0.5, -0.52)], c.pale),
        *leg([(0.32, -0.46), (0.54, -0.4), (0.72, -0.3), (0.84, -0.2)], 0.08, c.main, c.pale, 0.3),
        *leg([(-0.46, -0.48), (-0.6, -0.34), (-0.78, -0.32), (-0.94, -0.2)], 0.085, c.main, c.pale, 0.3),
        band([(0.26, -0.74), (0.4, -0.64), (0.54, -0.66)], 0.07, 0.06, 0.0, c.cloth),
        *_dog_head(c, 0.46, -0.84, 0.72),
    ]
    return turned(items, -0.05, (0.0, -0.4))
