"""Place the large trees on the canvas: a forest, bamboo, willow, maples, an old pine."""

from __future__ import annotations

import numpy as np

from starrynight.firefly.drawing import shapes
from starrynight.firefly.drawing.buildings import snowy, wet
from starrynight.firefly.drawing.canvas import Canvas
from starrynight.firefly.drawing.flora import LANDMARKS, apart, lightness, moved, natural, plant_side
from starrynight.firefly.drawing.palettes import WHITE, Palette, Rgb, mix, pale, shade
from starrynight.firefly.drawing.scene import Scene
from starrynight.firefly.drawing.shapes import Item

Rng = np.random.Generator


def forest(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Three rows of tall firs around a clearing, the farthest the palest."""
    p = canvas.palette
    landmark = scene.has(*LANDMARKS)
    gap = 0.5 + scene.side * (0.19 if landmark else -0.08)
    white = mix(p.cloud, WHITE, 0.4)
    for row in range(3):
        t = row / 2
        green = mix(mix(natural(p, (62, 104, 78)), p.leaf, 0.5), p.low, 0.5 - 0.45 * t)
        items: list[Item] = []
        for x in np.linspace(-0.03, 1.03, 15 - 4 * row):
            x += rng.uniform(-0.025, 0.025)
            away = min(abs(x - gap) / 0.5, 1.0)
            low, rise = (0.1, 0.26) if landmark else (0.18, 0.4)
            h = (low + rise * away**1.2) * rng.uniform(0.85, 1.15) * (1 + 0.15 * t)
            if row == 2 and away < 0.45:
                continue
            foot = scene.horizon + 0.06
            items += fir(
                x, foot, h, 0.05 + 0.02 * t, shade(green, rng.uniform(0.9, 1.1)), shade(p.roof, 0.45)
            )
            if snowy(scene):
                items += fir(x, foot - h * 0.8, h * 0.24, 0.016, white, white)[1:]
        canvas.draw("tree", items, 1.2, 0.7)


def fir(x: float, y: float, h: float, w: float, colour: Rgb, bark: Rgb) -> list[Item]:
    """A fir of five tiers standing at (x, y)."""
    items = [Item(shapes.box(x - w * 0.12, y - h * 0.25, x + w * 0.12, y + 0.03), bark)]
    for tier in range(5):
        low, half = y - h * (0.1 + 0.17 * tier), w * (1.15 - 0.2 * tier)
        outline = [[x - half, low], [x, low - h * 0.24], [x + half, low], [x, low - h * 0.03]]
        items.append(Item(outline, shade(colour, 0.86 + 0.07 * tier)))
    return items


def few_bamboo(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A few thick stalks on one side, in scenes of other kinds than a grove."""
    if scene.kind != "bamboo":
        side = plant_side(scene, "bamboo")
        _grove(canvas, scene, rng, [0.5 + side * k for k in (0.47, 0.4, 0.33)], 0.3)


def far_bamboo(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """The far stalks of a grove, paler with distance."""
    if scene.kind != "bamboo":
        return
    p = canvas.palette
    for row in range(2):
        count = 14 - 4 * row
        tint = mix(natural(p, (110, 160, 84)), p.low, 0.66 - 0.3 * row)
        items: list[Item] = []
        for k in range(count):
            x = (k + rng.uniform(0.1, 0.9)) / count
            items += _stalk(rng, x, scene.horizon + 0.05 + 0.03 * row, 0.013 + 0.006 * row, tint, 0.04)
            if row and k % 2:
                items += _leaves(rng, x, rng.uniform(-0.02, 0.4), rng.uniform(0.06, 0.09), shade(tint, 0.85))
        canvas.draw("bamboo", items, np.pi / 2, 0.75)


def near_bamboo(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """The thick stalks at the front of a grove, clear of the person or animal."""
    if scene.kind != "bamboo":
        return
    at: list[float] = []
    for x in (0.04, 0.13, 0.21, 0.3, 0.72, 0.8, 0.88, 0.96):
        x += rng.uniform(-0.025, 0.025)
        hides = scene.has(*LANDMARKS) and 0 < (x - 0.5) * scene.side < 0.38
        if abs(x - scene.figure) > 0.16 and not hides:
            at.append(x)
    _grove(canvas, scene, rng, at, 0.24)


def _grove(canvas: Canvas, scene: Scene, rng: Rng, at: list[float], drop: float) -> None:
    """Thick jointed stalks at the given places with hanging leaves."""
    p = canvas.palette
    green = apart(natural(p, (122, 178, 64)), p.middle, 45)
    items: list[Item] = []
    leaves: list[Item] = []
    for x in at:
        foot = scene.horizon + rng.uniform(0.4, 1.0) * drop
        foot = 1.04 if wet(canvas, x, foot) else foot
        tint = mix(green, natural(p, (70, 128, 62)), rng.uniform(0, 0.6))
        width = rng.uniform(0.026, 0.036)
        items += _stalk(rng, x, foot, width, tint, 0.05)
        for _ in range(3):
            leaves += _leaves(
                rng, x, rng.uniform(-0.02, 0.62) * foot, rng.uniform(0.07, 0.1), shade(tint, 0.8)
            )
    for _ in range(9):
        x = at[int(rng.integers(len(at)))] if at else 0.1
        tint = shade(green, rng.uniform(0.7, 1.15))
        leaves += _leaves(
            rng, x + rng.uniform(-0.07, 0.07), rng.uniform(0, 0.12), rng.uniform(0.08, 0.12), tint
        )
    canvas.draw("bamboo", items, np.pi / 2, 0.9)
    canvas.draw("bamboo", leaves, 1.0, 0.9)


def _stalk(rng: Rng, x: float, foot: float, w: float, colour: Rgb, lean: float) -> list[Item]:
    """A jointed stalk from `foot` to above the picture: lit on the left, each joint a bright and a dark ring."""
    top = x + rng.uniform(-lean, lean)
    line = shapes.curve([[x, foot], [(x + top) / 2 + rng.uniform(-0.01, 0.01), foot / 2], [top, -0.05]], 41)
    light = mix(colour, WHITE, 0.36)
    items = [
        Item(shapes.ribbon(line, w, w * 0.94), colour),
        Item(shapes.ribbon(moved(line, -w * 0.2, 0), w * 0.26, w * 0.22), light),
        Item(shapes.ribbon(moved(line, w * 0.33, 0), w * 0.3, w * 0.28), shade(colour, 0.72)),
    ]
    for jx, jy in line[3 + int(rng.integers(0, 3)) : 40 : 5]:
        upper = shapes.box(jx - w * 0.6, jy - w * 0.36, jx + w * 0.6, jy - w * 0.12)
        lower = shapes.box(jx - w * 0.62, jy - w * 0.12, jx + w * 0.62, jy + w * 0.16)
        items += [Item(upper, light), Item(lower, shade(colour, 0.48))]
    return items


def _leaves(rng: Rng, x: float, y: float, size: float, colour: Rgb) -> list[Item]:
    """A bunch of slender leaves hanging from a twig at (x, y)."""
    side = 1 if rng.uniform() < 0.5 else -1
    tip = np.array((x + side * size * 0.7, y + size * 0.1))
    twig = shapes.curve([[x, y], [x + side * size * 0.35, y - size * 0.05], tip], 7)
    items = [Item(shapes.ribbon(twig, size * 0.06, size * 0.03), shade(colour, 0.8))]
    for turn in np.array((-0.5, 0.25, 0.8, 1.35)) + rng.uniform(-0.15, 0.15):
        way = np.array((side * np.cos(turn), np.sin(turn)))
        end = tip + way * size * rng.uniform(0.8, 1.15)
        bow = tip + way * size * 0.5 - np.array((0, size * 0.08))
        blade = shapes.curve([tip, bow, end], 9)
        items.append(
            Item(
                shapes.ribbon(blade, size * 0.03, size * 0.01, size * 0.17), shade(colour, 0.85 + 0.2 * turn)
            )
        )
    return items


def willow(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A whole willow at the bank: a leaning trunk under an umbrella of hanging branches."""
    p = canvas.palette
    side = plant_side(scene, "willow")
    foot = np.array((0.5 + side * rng.uniform(0.33, 0.39), rng.uniform(0.86, 0.94)))
    top = np.array((0.5 + side * rng.uniform(0.24, 0.28), rng.uniform(0.22, 0.27)))
    bark = apart(natural(p, (88, 66, 48)), p.low, 40)
    fresh = apart(natural(p, (146, 186, 74), 0.75), p.low, 38)
    deep, spread = mix(fresh, p.leaf, 0.55), rng.uniform(0.82, 1.15)
    if wet(canvas, foot[0], min(float(foot[1]), 0.99)):
        mound = shapes.curve(
            [
                [0.5 + side * 0.08, 1.06],
                [0.5 + side * 0.22, foot[1] + 0.02],
                [0.5 + side * 0.56, foot[1] - 0.05],
            ],
            20,
        )
        bank = np.concatenate([mound, [[0.5 + side * 0.56, 1.06]]])
        canvas.draw("land", [Item(bank, mix(p.near, natural(p, (96, 140, 70)), 0.4))], 0.0, 0.5)
    canvas.draw("willow", _strands(rng, top, 26, 0.9 * spread, deep), np.pi / 2, 0.8)
    bend = (foot + top) / 2 + np.array((side * 0.035, 0))
    trunk = shapes.curve([moved(foot, side * 0.012, 0.02), bend, top, moved(top, -side * 0.03, -0.07)], 24)
    items = [Item(shapes.ribbon(trunk, 0.085, 0.028), bark)]
    items.append(Item(shapes.ribbon(moved(trunk, -0.016, 0), 0.02, 0.006), mix(bark, pale(p), 0.25)))
    for dx, dy in ((-0.16, -0.1), (0.15, -0.09), (-0.07, -0.14)):
        arm = shapes.curve([moved(top, 0, 0.09), moved(top, dx * 0.5, dy * 0.5), moved(top, dx, dy)], 10)
        items.append(Item(shapes.ribbon(arm, 0.03, 0.008), bark))
    canvas.draw("trunk", items, np.pi / 2, 0.85)
    canvas.draw("willow", _strands(rng, top, 30, spread, fresh), np.pi / 2, 0.88)


def _strands(rng: Rng, top: np.ndarray, count: int, size: float, colour: Rgb) -> list[Item]:
    """Branches that spring from an arch over `top` and hang down."""
    items: list[Item] = []
    for turn in np.linspace(0.02, 0.98, count):
        turn = float(np.clip(turn + rng.uniform(-0.02, 0.02), 0, 1))
        out = -np.cos(np.pi * turn)
        start = moved(top, out * 0.08 * size, -0.1 - 0.03 * np.sin(np.pi * turn))
        arch = moved(top, out * 0.235 * size, -0.1 - 0.06 * np.sin(np.pi * turn) + 0.03 * abs(out))
        length = rng.uniform(0.22, 0.5) * size
        drop = moved(arch, out * 0.03 + rng.uniform(-0.012, 0.012), length)
        middle = moved((arch + drop) / 2, out * 0.02, 0)
        line = shapes.curve([start, arch, middle, drop], 22)
        tint = shade(colour, rng.uniform(0.75, 1.2))
        items.append(Item(shapes.ribbon(line, 0.006, 0.003, 0.013), tint))
    return items


def maple(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Maples with forked trunks and broad crowns of red and orange leaves; some leaves fall."""
    side = plant_side(scene, "maple")
    many = scene.kind == "forest"
    spots = [(0.5 + side * rng.uniform(0.34, 0.4), 0.19, 0.52)]
    if many:
        spots = [
            (0.5 - side * rng.uniform(0.34, 0.4), 0.1, 0.34), (0.5 + side * rng.uniform(0.12, 0.2), 0.07, 0.26),
            *spots,
        ]  # fmt: skip
    for x, drop, height in spots:
        drop *= 0.2 if wet(canvas, x, scene.horizon + drop) else 1.0
        _maple(canvas, rng, x, scene.horizon + drop, height * rng.uniform(0.9, 1.1))
    p = canvas.palette
    fallen: list[Item] = []
    for _ in range(22):
        x, y = rng.uniform(0, 1), scene.horizon + rng.uniform(0.12, 0.45)
        tint = _maple_tints(p)[int(rng.integers(4))]
        fallen.append(Item(_maple_leaf(x, y, rng.uniform(0.009, 0.017), rng.uniform(0, 6), 0.6), tint))
    canvas.draw("leaf", fallen, 0.4, 0.9)


def _maple_tints(p: Palette) -> list[Rgb]:
    """Leaf colours from the shaded underside of a crown to its lit top."""
    tints = [natural(p, tint, 0.0) for tint in ((142, 26, 22), (206, 44, 26), (238, 90, 30), (252, 156, 52))]
    if lightness(p.middle) < 105 and p.middle[0] > 1.6 * p.middle[2]:  # a red sky takes golden leaves
        tints = [
            natural(p, tint, 0.0) for tint in ((206, 96, 30), (236, 146, 44), (250, 186, 70), (255, 220, 120))
        ]
    return tints


def _maple_leaf(x: float, y: float, r: float, turn: float, flat: float = 1.0) -> np.ndarray:
    return shapes.place(shapes.star(0, 0, 1, 0.5, 5, turn), x, y, r, r * flat)


def _maple(canvas: Canvas, rng: Rng, x: float, foot: float, h: float) -> None:
    """One maple standing at (x, foot), `h` tall."""
    p = canvas.palette
    bark = shade(natural(p, (84, 54, 44)), 0.8)
    fork = np.array((x + rng.uniform(-0.02, 0.02), foot - h * 0.36))
    trunk = shapes.curve([[x, foot], [x + h * 0.03, foot - h * 0.2], fork], 12)
    items = [Item(shapes.ribbon(trunk, h * 0.12, h * 0.06), bark)]
    for dx, dy in ((-0.28, -0.22), (0.28, -0.24), (-0.08, -0.38), (0.12, -0.34)):
        limb = shapes.curve([fork, moved(fork, dx * h * 0.5, dy * h * 0.6), moved(fork, dx * h, dy * h)], 8)
        items.append(Item(shapes.ribbon(limb, h * 0.05, h * 0.015), bark))
    canvas.draw("trunk", items, np.pi / 2, 0.85)
    tints = _maple_tints(p)
    crown: list[Item] = []
    for n, (share, count) in enumerate(((1.0, 20), (0.92, 24), (0.8, 20), (0.62, 14))):
        for _ in range(count):
            turn, out = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform()) * share
            cx = fork[0] + 0.4 * h * out * np.cos(turn) - 0.03 * h * n
            cy = fork[1] - 0.3 * h + 0.27 * h * out * np.sin(turn) - 0.045 * h * n
            tint = shade(tints[n], rng.uniform(0.88, 1.12))
            crown.append(Item(_maple_leaf(cx, cy, h * rng.uniform(0.07, 0.115), rng.uniform(0, 6)), tint))
    canvas.draw("crown", crown, 0.6, 0.85)


# Old pines: the trunk's bends (share of the side from the middle, height), then its pads: the bend's number on
# the trunk, how far out, half the width, how far down.
_PINES: tuple[tuple[tuple[tuple[float, float], ...], tuple[tuple[int, float, float, float], ...]], ...] = (
    (
        ((0.42, 1.04), (0.36, 0.82), (0.42, 0.62), (0.3, 0.46), (0.34, 0.32), (0.24, 0.19)),
        ((38, -0.3, 0.1, -0.01), (44, 0.14, 0.1, -0.02), (28, 0.16, 0.08, 0.0), (34, -0.3, 0.1, -0.01),
         (22, -0.24, 0.11, -0.02), (50, -0.02, 0.11, -0.03)),
    ),
    (
        ((0.48, 1.04), (0.43, 0.84), (0.3, 0.7), (0.33, 0.52), (0.18, 0.4), (0.12, 0.24)),
        ((44, 0.17, 0.1, 0.0), (36, 0.2, 0.11, -0.01), (42, -0.17, 0.1, 0.02), (28, -0.22, 0.11, 0.01),
         (22, 0.16, 0.08, 0.0), (50, 0.0, 0.12, -0.03)),
    ),
)  # fmt: skip


def pine(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """One old crooked pine in the foreground with flat pads of needles."""
    p = canvas.palette
    side = plant_side(scene, "pine")
    bark = apart(mix(natural(p, (104, 64, 48)), p.near, 0.2), p.low, 40)
    green = apart(natural(p, (46, 104, 70), 0.9), p.low, 55)

    def at(dx: float, y: float) -> np.ndarray:
        return np.array((0.5 + side * dx, y))

    narrow = scene.kind == "gorge" or scene.has(*LANDMARKS)
    knots, pads = _PINES[0 if narrow or rng.uniform() < 0.55 else 1]
    least, lean = (0.24 if narrow else -0.1), rng.uniform(-0.03, 0.03)
    trunk = shapes.curve([at(dx + lean * (0.2 < y < 0.7), y) for dx, y in knots], 51)
    limbs: list[Item] = [Item(shapes.ribbon(trunk, 0.1, 0.022, 0.01), bark)]
    limbs.append(Item(shapes.ribbon(moved(trunk, -side * 0.012, 0), 0.026, 0.008), mix(bark, pale(p), 0.3)))
    tufts: list[Item] = []
    for k, dx, half, rise in pads:
        half *= rng.uniform(0.9, 1.2)
        reach = side * (trunk[k][0] - 0.5) + dx
        end = at(max(float(reach), least), float(trunk[k][1]) + rise + rng.uniform(-0.02, 0.02))
        bend = moved((trunk[k] + end) / 2, 0, 0.02)
        limbs.append(Item(shapes.ribbon(shapes.curve([trunk[k], bend, end], 10), 0.026, 0.01), bark))
        tufts += _pad(canvas, scene, rng, end, half, green)
    canvas.draw("trunk", limbs, np.pi / 2, 0.88)
    canvas.draw("needles", tufts, np.pi / 2, 0.9)


def _pad(canvas: Canvas, scene: Scene, rng: Rng, at: np.ndarray, half: float, green: Rgb) -> list[Item]:
    """A flat cloud of needles, lit from above, snowy in winter."""
    p = canvas.palette
    x, y = at
    state = int(rng.integers(1 << 30))

    def cloud(dy: float, width: float, height: float) -> np.ndarray:
        return shapes.cloud(np.random.default_rng(state), x, y + dy, width, height)

    items = [
        Item(cloud(0.026, half * 2.1, half * 0.75), shade(green, 0.6)),
        Item(cloud(0.012, half * 2.0, half * 0.8), green),
        Item(cloud(-0.004, half * 1.5, half * 0.6), mix(shade(green, 1.25), pale(p), 0.14)),
    ]
    if snowy(scene):
        items.append(Item(cloud(-0.01, half * 1.7, half * 0.62), mix(p.cloud, WHITE, 0.5)))
    return items
