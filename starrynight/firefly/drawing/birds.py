"""Outlines of what flies, one unit large: owl, crane, swallow, butterfly (y points down)."""

from __future__ import annotations

import numpy as np

from starrynight.firefly.drawing.figures import DARK, Coat, Xy, band, patch, turned
from starrynight.firefly.drawing.palettes import WHITE, Rgb, mix
from starrynight.firefly.drawing.shapes import Item, Points, curve, disc, place, ribbon

Rng = np.random.Generator
AMBER: Rgb = (250, 186, 44)


def _owl_face(c: Coat, x: float, y: float, s: float) -> list[Item]:
    """An owl's face: ear tufts, two pale discs, great amber eyes, a beak."""
    items: list[Item] = []
    for k in (-1, 1):
        tuft = [
            (x + k * s * 0.1, y - s * 0.3),
            (x + k * s * 0.62, y - s * 0.66),
            (x + k * s * 0.56, y - s * 0.08),
        ]
        items.append(Item(tuft, c.low))
    for k in (-1, 1):
        items.append(Item(disc(x + k * s * 0.27, y, s * 0.34, n=30), c.pale))
        items.append(Item(disc(x + k * s * 0.25, y, s * 0.22, n=26), AMBER))
        items.append(Item(disc(x + k * s * 0.24, y, s * 0.13, n=20), DARK))
        items.append(Item(disc(x + k * s * 0.24 + s * 0.04, y - s * 0.05, s * 0.045, n=10), WHITE))
    brow = [(x, y - s * 0.02), (x - s * 0.5, y - s * 0.44), (x - s * 0.24, y - s * 0.4), (x, y - s * 0.24)]
    brow += [(x + s * 0.24, y - s * 0.4), (x + s * 0.5, y - s * 0.44)]
    beak = [(x - s * 0.09, y + s * 0.06), (x, y - s * 0.02), (x + s * 0.09, y + s * 0.06), (x, y + s * 0.3)]
    return [*items, Item(brow, c.low), Item(beak, mix(AMBER, c.dark, 0.25))]


def owl_perched(rng: Rng, c: Coat) -> list[Item]:
    """An owl from the front, sitting, its feet on y = 0."""
    body = [(0.0, -0.98), (0.24, -0.92), (0.36, -0.68), (0.36, -0.34), (0.2, -0.02), (0.0, 0.04)]
    items = [
        Item([(-0.14, -0.1), (-0.12, 0.2), (0.12, 0.2), (0.14, -0.1)], c.dark),
        patch([*body, *((-x, y) for x, y in body[4:0:-1])], c.main),
        patch(
            [
                (0, -0.6),
                (0.2, -0.5),
                (0.22, -0.26),
                (0.1, -0.04),
                (-0.1, -0.04),
                (-0.22, -0.26),
                (-0.2, -0.5),
            ],
            c.pale,
        ),
    ]
    for row in range(3):
        for k in range(3 - row % 2):
            x = (k - (2 - row % 2) / 2) * 0.12
            items.append(
                Item(
                    [
                        (x - 0.035, -0.42 + 0.12 * row),
                        (x + 0.035, -0.42 + 0.12 * row),
                        (x, -0.35 + 0.12 * row),
                    ],
                    c.low,
                )
            )
    for k in (-1, 1):
        items.append(
            patch(
                [(k * 0.26, -0.66), (k * 0.4, -0.5), (k * 0.38, -0.2), (k * 0.2, 0.06), (k * 0.18, -0.3)],
                c.low,
            )
        )
        for toe in (-0.04, 0.0, 0.04):
            items.append(Item(disc(k * 0.1 + toe, 0.02, 0.022, 0.04, 10), mix(AMBER, c.dark, 0.2)))
    return [*items, *_owl_face(c, rng.uniform(-0.02, 0.02), -0.74, 0.56)]


def owl_flying(rng: Rng, c: Coat) -> list[Item]:
    """An owl gliding towards us with its wings spread."""
    lift = rng.uniform(-0.06, 0.12)
    items: list[Item] = [patch([(-0.12, -0.3), (0.12, -0.3), (0.2, 0.04), (0.0, 0.1), (-0.2, 0.04)], c.low)]
    for k in (-1, 1):
        tips = [(0.98, -0.74 - lift), (0.98, -0.46 - lift), (0.89, -0.5 - lift), (0.84, -0.3), (0.75, -0.38)]
        tips += [(0.66, -0.18), (0.57, -0.3), (0.46, -0.14), (0.36, -0.26), (0.14, -0.2)]
        wing = [(k * a, b) for a, b in [(0.1, -0.62), (0.42, -0.78 - lift), (0.74, -0.84 - lift), *tips]]
        items.append(patch(wing, c.main))
        items.append(
            patch(
                [
                    (k * 0.12, -0.6),
                    (k * 0.44, -0.74 - lift),
                    (k * 0.7, -0.72 - lift),
                    (k * 0.46, -0.56),
                    (k * 0.14, -0.44),
                ],
                c.low,
            )
        )
    items += [
        patch(
            [
                (0, -0.86),
                (0.2, -0.74),
                (0.22, -0.44),
                (0.12, -0.18),
                (-0.12, -0.18),
                (-0.22, -0.44),
                (-0.2, -0.74),
            ],
            c.main,
        ),
        patch([(0.0, -0.52), (0.13, -0.44), (0.1, -0.24), (-0.1, -0.24), (-0.13, -0.44)], c.pale),
    ]
    return [*items, *_owl_face(c, 0.0, -0.68, 0.42)]


def _crane_head(c: Coat, x: float, y: float, lean: float) -> list[Item]:
    """A red-crowned crane's head with its long beak, leaning by an angle."""
    items = [
        Item([(0.03, -0.02), (0.26, 0.015), (0.03, 0.03)], mix(c.pale, (150, 140, 90), 0.75)),
        patch(
            [(-0.06, 0.01), (-0.03, -0.045), (0.03, -0.045), (0.06, 0.0), (0.02, 0.045), (-0.04, 0.05)],
            c.main,
        ),
        patch(
            [(-0.045, -0.025), (-0.02, -0.07), (0.03, -0.06), (0.045, -0.02), (0.0, -0.025)], (214, 40, 36)
        ),
        Item(disc(0.025, -0.005, 0.011, n=8), DARK),
    ]
    return [Item(place(i.outline, x, y, 1.0), i.colour) for i in turned(items, lean, (0.0, 0.0))]


def crane_wading(rng: Rng, c: Coat) -> list[Item]:
    """A red-crowned crane standing on one leg or two: white, black neck and tail plumes."""
    folded, bow = rng.uniform() < 0.4, rng.uniform(-0.03, 0.05)
    body = [
        (0.2, -0.56),
        (0.06, -0.63),
        (-0.14, -0.61),
        (-0.32, -0.5),
        (-0.24, -0.42),
        (0.0, -0.4),
        (0.16, -0.45),
    ]
    neck = [(0.14, -0.52), (0.26, -0.64), (0.16 + bow, -0.8), (0.22 + bow, -0.95)]
    raised = (
        [(-0.02, -0.44), (0.14, -0.3), (-0.04, -0.24)]
        if folded
        else [(-0.04, -0.44), (-0.1, -0.22), (-0.06, 0.0)]
    )
    items = [
        band(raised, 0.032, 0.024, 0.0, c.dark),
        band([(0.04, -0.44), (0.06, -0.22), (0.05, 0.0)], 0.036, 0.026, 0.0, c.dark),
        band([(0.05, -0.005), (0.13, -0.005)], 0.02, 0.01, 0.0, c.dark),
    ]
    for knots in (
        [(-0.1, -0.6), (-0.36, -0.56), (-0.5, -0.34)],
        [(-0.12, -0.55), (-0.36, -0.48), (-0.42, -0.28)],
        [(-0.1, -0.5), (-0.28, -0.42), (-0.32, -0.26)],
    ):
        items.append(band(knots, 0.07, 0.01, 0.06, c.dark))
    return [
        *items,
        patch(body, c.main),
        patch([(0.08, -0.57), (-0.1, -0.56), (-0.24, -0.48), (-0.06, -0.45), (0.08, -0.49)], c.low),
        band(neck, 0.1, 0.05, 0.0, c.main),
        Item(ribbon(curve(neck, 30)[9:26], 0.068, 0.052), c.dark),
        *_crane_head(c, 0.23 + bow, -0.95, 0.12),
    ]


def _feathers(c: Coat, knots: list[Xy], tips: Points, root: Points) -> list[Item]:
    """A spread wing: white, with black flight feathers along its rear edge."""
    return [
        Item(np.concatenate([curve(knots, 16), tips]), c.dark),
        Item(np.concatenate([curve(knots, 16), root]), c.main),
    ]


def crane_flying(rng: Rng, c: Coat) -> list[Item]:
    """A red-crowned crane in flight, its neck stretched and its legs trailing."""
    lift = rng.uniform(-0.1, 0.14)
    far = [(0.12, -0.02), (0.2, -0.26 - lift), (0.1, -0.56 - lift)]
    near = [(0.14, 0.0), (0.02, -0.34 - lift), (-0.28, -0.62 - lift)]
    low = 0.3 * lift
    far_tips = [
        (0.0, -0.62 - lift),
        (0.0, -0.48 - lift),
        (-0.08, -0.46 - low),
        (-0.06, -0.34),
        (-0.14, -0.3),
        (-0.12, -0.18),
        (-0.14, -0.02),
    ]
    near_tips = [
        (-0.42, -0.6 - lift),
        (-0.38, -0.5 - lift),
        (-0.46, -0.44 - low),
        (-0.4, -0.36),
        (-0.44, -0.28),
        (-0.36, -0.22),
        (-0.38, -0.12),
        (-0.26, -0.1),
        (-0.24, 0.02),
    ]
    items = [
        *_feathers(c, far, far_tips, [(0.06, -0.5 - lift), (0.02, -0.3), (-0.06, 0.0)]),
        band([(-0.2, 0.06), (-0.5, 0.1), (-0.82, 0.08)], 0.03, 0.016, 0.0, c.dark),
        band([(-0.2, 0.03), (-0.5, 0.06), (-0.8, 0.03)], 0.03, 0.016, 0.0, c.dark),
        patch([(0.28, 0.0), (0.14, -0.07), (-0.1, -0.06), (-0.34, 0.02), (-0.2, 0.09), (0.1, 0.09)], c.main),
        patch([(-0.24, -0.02), (-0.42, -0.03), (-0.46, 0.04), (-0.36, 0.1), (-0.22, 0.08)], c.dark),
        band([(0.2, 0.0), (0.44, -0.04), (0.66, -0.02)], 0.1, 0.045, 0.0, c.main),
        Item(ribbon(curve([(0.3, -0.02), (0.46, -0.04), (0.62, -0.025)], 16), 0.06, 0.05), c.dark),
        *_crane_head(c, 0.68, -0.02, 0.0),
        *_feathers(c, near, near_tips, [(-0.24, -0.48 - lift), (-0.2, -0.28), (-0.14, 0.04)]),
    ]
    return turned(items, -rng.uniform(0.0, 0.3), (0.0, 0.0))


def swallow(rng: Rng, back: Rgb, belly: Rgb) -> list[Item]:
    """A swallow in flight: curved narrow wings, forked tail, red throat."""
    beat = rng.uniform(-0.15, 0.25)
    far = [(0.16, -0.04), (0.04, -0.3 - beat), (-0.3, -0.66 - beat)]
    near = [(0.1, 0.06), (-0.06, 0.36 + beat), (-0.44, 0.56 + beat)]
    items = [band(knots, 0.16, 0.01, 0.08, back) for knots in (far, near)]
    items += [
        band([(-0.2, 0.0), (-0.52, dy), (-0.9, 3.0 * dy)], 0.1, 0.012, 0.0, back) for dy in (-0.07, 0.07)
    ]
    return [
        *items,
        patch([(0.44, 0.0), (0.3, -0.09), (0.0, -0.1), (-0.34, 0.0), (0.0, 0.1), (0.3, 0.09)], back),
        patch([(0.26, 0.02), (0.06, 0.0), (-0.26, 0.02), (0.02, 0.1), (0.22, 0.09)], belly),
        patch([(0.42, 0.01), (0.32, -0.01), (0.24, 0.04), (0.3, 0.09), (0.38, 0.07)], (206, 74, 48)),
        Item([(0.4, -0.03), (0.53, 0.01), (0.4, 0.03)], DARK),
    ]


def butterfly(rng: Rng, colour: Rgb, spot: Rgb, edge: Rgb) -> list[Item]:
    """A butterfly with its wings open, more or less foreshortened."""
    items: list[Item] = []
    narrow = rng.uniform(0.55, 1.0)
    for k in (-1.0, narrow * 0.9):
        for grow, tint in ((1.0, edge), (0.82, colour)):
            upper = [(0.02, -0.04), (0.2, -0.36), (0.46, -0.5), (0.58, -0.4), (0.5, -0.14), (0.3, 0.02)]
            lower = [(0.02, 0.02), (0.3, 0.02), (0.46, 0.16), (0.4, 0.36), (0.24, 0.46), (0.12, 0.28)]
            for knots, cx, cy in ((upper, 0.3, -0.2), (lower, 0.22, 0.16)):
                items.append(
                    patch([(k * (cx + (x - cx) * grow), cy + (y - cy) * grow) for x, y in knots], tint)
                )
        items.append(Item(disc(k * 0.4, -0.32, 0.06 * abs(k), 0.06, 14), spot))
        items.append(Item(disc(k * 0.28, 0.24, 0.065 * abs(k), 0.065, 14), spot))
        items.append(band([(0.0, -0.2), (k * 0.06, -0.38), (k * 0.16, -0.5)], 0.02, 0.03, 0.0, DARK))
    return [*items, Item(disc(0.0, 0.02, 0.045, 0.26, 18), DARK), Item(disc(0.0, -0.24, 0.055, n=12), DARK)]


def crane_dancing(rng: Rng, c: Coat) -> list[Item]:
    """A red-crowned crane dancing: standing with both wings raised and its beak to the sky."""
    lift = rng.uniform(-0.06, 0.08)
    legs = [[(-0.04, -0.44), (-0.12, -0.22), (-0.1, 0.0)], [(0.04, -0.44), (0.18, -0.34), (0.08, -0.2)]]
    neck = [(0.14, -0.52), (0.28, -0.62), (0.26, -0.8), (0.34, -0.95)]
    body = [
        (0.2, -0.56),
        (0.06, -0.62),
        (-0.14, -0.6),
        (-0.3, -0.5),
        (-0.22, -0.42),
        (0.0, -0.4),
        (0.16, -0.45),
    ]
    far = [(0.1, -0.54), (0.04, -0.84), (0.12, -1.12 - lift)]
    far_tips = [
        (0.0, -1.2 - lift),
        (0.0, -1.04 - lift),
        (-0.08, -1.0),
        (-0.06, -0.86),
        (-0.14, -0.8),
        (-0.1, -0.6),
    ]
    near = [(0.1, -0.5), (-0.12, -0.82), (-0.36, -1.06 - lift)]
    near_tips = [
        (-0.54, -1.06 - lift),
        (-0.48, -0.96 - lift),
        (-0.58, -0.9),
        (-0.5, -0.82),
        (-0.56, -0.72),
        (-0.46, -0.68),
    ]
    near_tips += [(-0.48, -0.56), (-0.36, -0.54), (-0.26, -0.44)]
    return [
        *(band(knots, 0.034, 0.026, 0.0, c.dark) for knots in legs),
        *_feathers(c, far, far_tips, [(0.06, -1.06 - lift), (0.02, -0.84), (-0.02, -0.56)]),
        band([(-0.1, -0.5), (-0.3, -0.44), (-0.4, -0.3)], 0.08, 0.01, 0.06, c.dark),
        patch(body, c.main),
        band(neck, 0.1, 0.05, 0.0, c.main),
        Item(ribbon(curve(neck, 30)[9:26], 0.068, 0.052), c.dark),
        *_crane_head(c, 0.35, -0.96, -0.9),
        *_feathers(c, near, near_tips, [(-0.34, -0.92 - lift), (-0.3, -0.74), (-0.18, -0.46)]),
    ]
