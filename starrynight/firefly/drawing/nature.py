"""Place land on the canvas: dunes, a waterfall between cliffs, a rainbow, an island, a volcano.

PARTS registers these and the plants of flora.py and trees.py.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from starrynight.firefly.drawing import flora, gorge, shapes, trees
from starrynight.firefly.drawing.canvas import Canvas
from starrynight.firefly.drawing.flora import apart, lightness, moved, natural
from starrynight.firefly.drawing.palettes import Rgb, mix, shade
from starrynight.firefly.drawing.scene import Scene
from starrynight.firefly.drawing.shapes import Item

Rng = np.random.Generator
RAINBOW: tuple[Rgb, ...] = (
    (232, 60, 56), (246, 146, 46), (252, 222, 74), (88, 188, 92), (70, 136, 226), (136, 84, 200),
)  # fmt: skip


def desert(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Four dunes with sharp crests, lit on the light's side and shaded on the other."""
    p, side = canvas.palette, scene.side
    lit = mix(natural(p, (240, 196, 120), 0.7), p.low, 0.06)
    dim = mix(natural(p, (156, 86, 54), 0.7), p.far, 0.16)
    if scene.hour == "night":
        dim = mix(dim, p.top, 0.4)
    if lightness(lit) - lightness(dim) < 80:
        dim = shade(dim, 0.66)
    peaks = np.array((0.16, -0.22, 0.24, -0.12)) * rng.choice((-1, 1)) + rng.uniform(-0.08, 0.08, 4)
    for k in range(4):
        t = k / 3
        base = scene.horizon + (0.035, 0.12, 0.24, 0.4)[k]
        h = (0.07, 0.11, 0.16, 0.17)[k] * rng.uniform(0.85, 1.15)
        px = 0.5 + peaks[k]
        light = mix(lit, p.low, 0.16 * (1 - t))
        dark = mix(dim, p.low, 0.35 * (1 - t))
        up = shapes.curve(
            [
                [px - side * 1.2, base + 0.02],
                [px - side * 0.55, base],
                [px - side * 0.22, base - h * 0.45],
                [px, base - h],
            ],
            30,
        )
        lee = shapes.curve(
            [
                [px, base - h],
                [px + side * 0.16, base - h * 0.42],
                [px + side * 0.42, base - h * 0.05],
                [px + side * 1.2, base + 0.01],
            ],
            30,
        )
        crest = np.concatenate([up, lee[1:]])[::side]
        tint = canvas.rows(light, light, mix(light, dark, 0.35), base - h, base + 0.35)
        slope = np.full((canvas.size, canvas.size), -side * 0.25, np.float32)
        canvas.ground("land", crest, tint, slope, 0.55)
        edge = shapes.curve(
            [
                [px, base - h],
                [px + side * 0.05, base - h * 0.2],
                [px - side * 0.07, base + h * 0.7],
                [px + side * 0.12, base + h * 2.2],
                [px + side * 0.04, 1.06],
            ],
            40,
        )
        shadow = np.concatenate([lee, [[px + side * 1.2, 1.06]], edge[::-1]])
        canvas.draw("dune", [Item(shadow, dark)], side * 0.5, 0.7)
        if k > 1:
            canvas.draw("dune", _sand_ripples(rng, edge, side, h, mix(light, dark, 0.45)), 0.0, 0.6)


def _sand_ripples(rng: Rng, edge: np.ndarray, side: int, h: float, colour: Rgb) -> list[Item]:
    """Wind ripples on the lit side of a dune, from its ridge outwards."""
    items: list[Item] = []
    for n in range(12, 34, 4):
        x, y = edge[n]
        length = rng.uniform(0.16, 0.34)
        line = shapes.curve(
            [
                [x - side * 0.03, y + 0.01],
                [x - side * length * 0.5, y - 0.012],
                [x - side * length, y + 0.012],
            ],
            12,
        )
        items.append(Item(shapes.ribbon(line, 0.001, 0.001, 0.007), colour))
    return items


def rainbow(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """An arch of six translucent colours from the ground."""
    size = canvas.size
    x0, y0 = 0.5 + scene.side * rng.uniform(0.02, 0.2), scene.horizon + rng.uniform(0.0, 0.06)
    radius, band = rng.uniform(0.4, 0.5), 0.017
    y, x = (np.mgrid[0:size, 0:size].astype(np.float32) + 0.5) / size
    at = (radius - np.hypot(x - x0, y - y0)) / band
    count = len(RAINBOW)
    tints = np.array([natural(canvas.palette, tint, 0.35) for tint in RAINBOW], np.float32)
    image = tints[np.clip(at, 0, count - 1).astype(int)]
    soft = np.clip(np.minimum(at + 0.3, count + 0.3 - at) * 2, 0, 1) * 200
    canvas.wash("rainbow", soft.astype(np.uint8), image, np.arctan2(y - y0, x - x0) + np.pi / 2, 0.85)


def volcano(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """One steep cone with a glowing crater, lava on its flanks, and a plume that drifts to one side."""
    p, side = canvas.palette, scene.side
    x, foot = 0.5 + side * rng.uniform(0.04, 0.16), scene.horizon + 0.03
    h, half, rim = rng.uniform(0.3, 0.37), rng.uniform(0.4, 0.48), rng.uniform(0.055, 0.07)
    top = foot - h
    _plume(canvas, rng, x, top, side)
    rock = apart(natural(p, (92, 70, 74)), p.low, 50)
    left = shapes.curve(
        [
            [x - half * 1.3, foot + 0.02],
            [x - half * 0.74, foot - h * 0.2],
            [x - half * 0.34, foot - h * 0.6],
            [x - rim, top],
        ],
        24,
    )
    right = shapes.curve(
        [
            [x + rim, top],
            [x + half * 0.34, foot - h * 0.6],
            [x + half * 0.74, foot - h * 0.2],
            [x + half * 1.3, foot + 0.02],
        ],
        24,
    )
    notch = np.array(
        [[x - rim * 0.5, top + 0.016], [x + rim * 0.1, top + 0.01], [x + rim * 0.55, top + 0.018]]
    )
    cone = np.concatenate([left, notch, right])
    area = canvas.mask(shapes.down_to(cone, foot + 0.08))
    tint = canvas.rows(shade(rock, 0.8), rock, mix(rock, p.low, 0.4), top, foot + 0.05, 0.5)
    canvas.wash("cone", area, tint, side * 0.9, 0.5)
    dark = np.concatenate(
        [
            right if side > 0 else left[::-1],
            [[x + side * half * 0.5, foot + 0.06], [x + side * half * 0.2, foot - h * 0.4]],
        ]
    )
    canvas.draw("cliff", [Item(dark, shade(rock, 0.68))], side * 0.9, 0.5)
    _lava(canvas, rng, x, top, rim, h)


def _plume(canvas: Canvas, rng: Rng, x: float, top: float, side: int) -> None:
    """Smoke that swells and drifts away from the crater, lit from below."""
    p = canvas.palette
    smoke = apart(natural(p, (128, 118, 124)), p.middle, 45)
    under = mix(smoke, (250, 130, 60), 0.45)
    items: list[Item] = []
    steps = np.linspace(0, 1, 13)[::-1]
    for t in steps:
        cx = x - side * (0.03 * t + 0.3 * t**1.8)
        cy = top - 0.01 - (top + 0.0) * 0.86 * t**0.8
        r = 0.03 + 0.085 * t
        for dx, dy, share in ((-0.5, 0.3, 0.8), (0.5, 0.2, 0.85), (0, -0.2, 1.0)):
            jig = rng.uniform(-0.3, 0.3, 2) * r
            tone = mix(smoke, under, max(0.0, 0.9 - 2.2 * t))
            tone = shade(tone, (0.84, 0.94, 1.1)[int((share - 0.8) * 12)] if share < 1 else 1.1)
            items.append(
                Item(shapes.disc(cx + dx * r + jig[0], cy + dy * r + jig[1], r * share, r * share, 20), tone)
            )
    canvas.draw("smoke", items, 0.8, 0.6)


def _lava(canvas: Canvas, rng: Rng, x: float, top: float, rim: float, h: float) -> None:
    """The glowing crater, sparks over it, and streams of lava."""
    hot, deep = (255, 206, 92), (240, 84, 32)
    items = [Item(shapes.disc(x, top + 0.01, rim * 0.95, 0.014, 20), deep, True)]
    for k, reach in ((-0.45, 0.5), (0.2, 0.75), (0.6, 0.4)):
        reach *= rng.uniform(0.8, 1.15)
        start = (x + k * rim, top + 0.008)
        end = (x + k * rim * (1 + 4.5 * reach), top + h * reach)
        middle = ((start[0] + end[0]) / 2 - k * 0.03, (start[1] + end[1]) / 2 + rng.uniform(-0.02, 0.02))
        line = shapes.curve([start, middle, end], 16)
        items.append(Item(shapes.ribbon(line, 0.02, 0.008), deep, True))
        items.append(Item(shapes.ribbon(line[:12], 0.009, 0.003), hot, True))
    items.append(Item(shapes.disc(x, top + 0.008, rim * 0.7, 0.008, 16), hot, True))
    for _ in range(9):
        sx, sy = x + rng.uniform(-1.3, 1.3) * rim, top - rng.uniform(0.01, 0.09)
        items.append(Item(shapes.disc(sx, sy, 0.005, n=8), hot, True))
    canvas.draw("lava", items, np.pi / 2, 0.92)


def island(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """An island on the horizon with a beach and palms, or pines."""
    p = canvas.palette
    side = -scene.side if scene.has("volcano", "lighthouse") else scene.side
    x, y, half = 0.5 + side * rng.uniform(0.2, 0.27), scene.horizon, rng.uniform(0.2, 0.25)
    sand = apart(natural(p, (240, 212, 150)), p.water, 40)
    green = apart(natural(p, (64, 118, 72), 0.8), p.low, 60)
    bumps = rng.uniform(0.75, 1.0, 3)
    crest = shapes.curve(
        [
            [-0.86, 0.0],
            [-0.5, -0.2 * bumps[0]],
            [-0.1, -0.42 * bumps[1]],
            [0.35, -0.26 * bumps[2]],
            [0.86, 0.0],
        ],
        30,
    )
    beach = shapes.curve([[-1.15, 0.06], [-0.9, -0.05], [0, -0.1], [0.9, -0.05], [1.15, 0.06]], 20)
    hill = shapes.down_to(shapes.place(crest, x, y, half), y + 0.02)
    shore = shapes.down_to(shapes.place(beach, x, y, half), y + 0.02)
    palms = bool(rng.uniform() < 0.65)
    items: list[Item] = [Item(hill, shade(green, 0.85))]
    stand = ((-0.35, 0.2, -1), (0.3, 0.17, 1), (-0.02, 0.26, 1), (0.6, 0.12, 1))[: int(rng.integers(3, 5))]
    for dx, tall, lean in stand:
        tall, fx = tall * rng.uniform(0.9, 1.15), x + dx * half
        fy = y - 0.3 * half * (1 - dx * dx)
        if palms:
            items += _palm(rng, fx, fy + 0.015, tall, lean, green, shade(natural(p, (110, 80, 58)), 0.8))
        else:
            items += trees.fir(fx, fy + 0.01, tall, tall * 0.26, shade(green, 0.8), shade(p.roof, 0.5))
    canvas.draw("tree", [*items, Item(shore, sand)], 0.6, 0.9)


def _palm(rng: Rng, x: float, y: float, h: float, lean: int, green: Rgb, bark: Rgb) -> list[Item]:
    """A palm with a curved trunk and drooping fronds."""
    top = np.array((x + lean * h * 0.3, y - h))
    trunk = shapes.curve([[x, y], [x + lean * h * 0.06, y - h * 0.5], top], 14)
    items = [Item(shapes.ribbon(trunk, h * 0.085, h * 0.05), bark)]
    for k, turn in enumerate((0.35, 2.8, -0.15, 3.3, -0.65, 3.8, -1.5)):
        turn += rng.uniform(-0.1, 0.1)
        way = np.array((np.cos(turn), np.sin(turn)))
        reach = h * rng.uniform(0.42, 0.52)
        line = shapes.curve(
            [top, moved(top + way * reach * 0.55, 0, -h * 0.07), moved(top + way * reach, 0, h * 0.14)], 10
        )
        items.append(Item(shapes.ribbon(line, h * 0.035, h * 0.01, h * 0.085), shade(green, 0.85 + 0.05 * k)))
    return [*items, Item(shapes.disc(float(top[0]), float(top[1]), h * 0.045, n=10), bark)]


# What paints each subject, with its depth (see landscape.PARTS).
PARTS: tuple[tuple[float, str, Callable[[Canvas, Scene, Rng], None]], ...] = (
    (-0.9, "rainbow", rainbow),
    (-0.45, "volcano", volcano),
    (-0.35, "waterfall", gorge.cascade),
    (-0.3, "island", island),
    (0.08, "desert", desert),
    (-0.38, "waterfall", gorge.gorge),
    (-0.4, "bamboo", trees.far_bamboo),
    (0.12, "bamboo", trees.few_bamboo),
    (0.14, "flowers", flora.flowers),
    (0.52, "maple", trees.maple),
    (0.63, "bamboo", trees.near_bamboo),
    (0.66, "lotus", flora.lotus),
    (0.78, "pine", trees.pine),
    (0.79, "willow", trees.willow),
    (0.935, "flowers", flora.near_flowers),
    (0.795, "plum", flora.plum_behind),
    (0.96, "plum", flora.plum),
)
