"""Place land on the canvas: dunes, a waterfall between cliffs, a rainbow, an island, a volcano.

PARTS registers these and the plants of flora.py and trees.py.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from starrynight.firefly.drawing import flora, shapes, trees
from starrynight.firefly.drawing.canvas import Canvas
from starrynight.firefly.drawing.flora import apart, lightness, moved, natural
from starrynight.firefly.drawing.palettes import WHITE, Rgb, mix, pale, shade
from starrynight.firefly.drawing.scene import Scene
from starrynight.firefly.drawing.shapes import Item

Rng = np.random.Generator
RAINBOW: tuple[Rgb, ...] = (
    (232, 60, 56), (246, 146, 46), (252, 222, 74), (88, 188, 92), (70, 136, 226), (136, 84, 200),
)  # fmt: skip


def desert(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Four dunes with sharp crests, lit on the light's side and shaded on the other."""
    p, side = canvas.palette, scene.side
    lit = mix(natural(p, (240, 196, 120), 0.7), p.low, 0.12)
    dim = mix(natural(p, (156, 86, 54), 0.7), p.far, 0.16)
    if lightness(lit) - lightness(dim) < 60:
        dim = shade(dim, 0.68)
    peaks = np.array((0.16, -0.22, 0.24, -0.12)) * rng.choice((-1, 1)) + rng.uniform(-0.08, 0.08, 4)
    for k in range(4):
        t = k / 3
        base = scene.horizon + (0.035, 0.12, 0.24, 0.4)[k]
        h = (0.07, 0.11, 0.16, 0.17)[k] * rng.uniform(0.85, 1.15)
        px = 0.5 + peaks[k]
        light = mix(lit, p.low, 0.4 * (1 - t))
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
        canvas.ground("land", crest, tint, slope, 0.45)
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
        canvas.draw("dune", [Item(shadow, dark)], side * 0.5, 0.5)
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


def gorge(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Cliffs on both sides, a white fall between them, a pool with mist."""
    if scene.kind != "gorge":
        return
    p, side = canvas.palette, scene.side
    crowned = scene.has("pagoda", "temple", "teahouse")
    x = 0.5 + (-0.14 if crowned else 0.11) * side + rng.uniform(-0.03, 0.03)
    lip, pool = scene.horizon - rng.uniform(0.2, 0.26), scene.horizon + 0.2
    stone = mix(natural(p, (112, 104, 104)), p.mid, 0.35)
    back = mix(stone, p.low, 0.3)
    _cliff(
        canvas,
        rng,
        [
            [-0.1, lip - 0.1],
            [x - 0.2, lip - 0.03],
            [x - 0.1, lip],
            [x + 0.1, lip + 0.005],
            [x + 0.22, lip - 0.05],
            [1.1, lip - 0.1],
        ],
        pool + 0.02,
        back,
    )
    _pool(canvas, scene, x, pool)
    _fall(canvas, rng, x, lip, pool + 0.015, rng.uniform(0.13, 0.17))
    for way, reach in ((side, 0.16), (-side, 0.24)):
        edge, near = 0.5 + way * 0.56, mix(stone, p.near, 0.35)
        inner = x + way * reach
        tall = lip - rng.uniform(0.04, 0.12)
        crest = [
            [edge, tall - 0.08],
            [inner + way * 0.14, tall],
            [inner + way * 0.03, tall + 0.1],
            [inner + way * 0.045, tall + 0.25],
            [inner - way * 0.01, pool - 0.06],
            [inner - way * 0.03, pool + 0.04],
            [edge, pool + 0.1],
        ]
        _crag(canvas, rng, crest, way, near)
    if crowned:
        _ledge(canvas, scene, rng, mix(stone, p.near, 0.25))
    _bank(canvas, scene, rng, pool, x)


def _cliff(canvas: Canvas, rng: Rng, crest: list[list[float]], bottom: float, colour: Rgb) -> None:
    """A rock wall with darker clefts below a rough crest."""
    line = shapes.curve(crest, 40)
    line[:, 1] += rng.uniform(-0.008, 0.008, 40)
    tint = canvas.rows(
        mix(colour, canvas.palette.leaf, 0.25), colour, shade(colour, 0.75), float(line[:, 1].min()), bottom
    )
    canvas.ground("cliff", line, tint, np.pi / 2, 0.5, bottom)


def _crag(canvas: Canvas, rng: Rng, outline: list[list[float]], way: int, colour: Rgb) -> None:
    """A side cliff with lit facets and dark clefts, green on top."""
    p = canvas.palette
    line = shapes.curve(outline, 48)
    line[4:-4] += rng.uniform(-0.01, 0.01, (40, 2))
    items = [Item(line, colour)]
    for _ in range(9):
        k = int(rng.integers(8, 36))
        sx, sy = line[k] + (way * rng.uniform(0.01, 0.16), rng.uniform(0.0, 0.05))
        length, w = rng.uniform(0.1, 0.22), rng.uniform(0.012, 0.03)
        facet = [
            [sx, sy],
            [sx + way * w, sy + 0.02],
            [sx + way * w * 0.7, sy + length],
            [sx - way * w * 0.3, sy + length * 0.8],
        ]
        items.append(Item(facet, shade(colour, (0.68, 1.22)[int(rng.integers(2))])))
    moss = mix(natural(p, (84, 128, 66), 0.8), p.leaf, 0.4)
    for k in range(2, 22, 2):
        cx, cy = line[k]
        items.append(
            Item(
                shapes.disc(cx + way * 0.02, cy, rng.uniform(0.025, 0.045), rng.uniform(0.016, 0.026), 16),
                shade(moss, rng.uniform(0.8, 1.2)),
            )
        )
    canvas.draw("cliff", items, np.pi / 2, 0.65)


def _ledge(canvas: Canvas, scene: Scene, rng: Rng, colour: Rgb) -> None:
    """A grassy rock before the cliff, for a building."""
    p, side, top = canvas.palette, scene.side, scene.horizon + 0.065
    line = shapes.curve(
        [
            [0.5 + side * k, top + dy]
            for k, dy in ((-0.1, 0.17), (-0.05, 0.06), (0.05, 0.005), (0.3, -0.01), (0.6, -0.02))
        ],
        30,
    )
    rock = np.concatenate([line, [[0.5 + side * 0.6, top + 0.17]]])
    rock[:6, 0] += rng.uniform(-0.01, 0.01, 6)
    grass = mix(natural(p, (96, 140, 72), 0.8), p.leaf, 0.3)
    turf = np.concatenate([line[8:], moved(line[8:], 0, 0.035)[::-1]])
    canvas.draw("cliff", [Item(rock, colour), Item(turf, grass)], np.pi / 2, 0.65)
    canvas.water = np.where(canvas.mask(rock) > 127, 0, canvas.water).astype(np.uint8)


def _pool(canvas: Canvas, scene: Scene, x: float, pool: float) -> None:
    """The pool under the fall, widening towards the viewer."""
    p = canvas.palette
    blue = mix(p.water, natural(p, (90, 160, 176), 0.8), 0.35)
    area = canvas.mask(np.array([[-0.1, pool - 0.02], [1.1, pool - 0.02], [1.1, 1.05], [-0.1, 1.05]]))
    across = 3 * np.sin(np.linspace(0, 8, canvas.size))[None]
    ripple = np.clip(np.sin(np.linspace(0, 85, canvas.size)[:, None] + across), 0, 1)[..., None] * 0.28
    tint = canvas.rows(mix(blue, p.cloud, 0.5), blue, shade(blue, 0.75), pool - 0.02, 1.0, 0.35)
    canvas.wash("water", area, tint * (1 - ripple) + np.array(mix(p.cloud, blue, 0.3)) * ripple, 0.0, 0.35)
    canvas.water = area


def _fall(canvas: Canvas, rng: Rng, x: float, lip: float, foot: float, width: float) -> None:
    """A white sheet of falling water with blue threads, and mist at its foot."""
    p = canvas.palette
    white = mix(pale(p), WHITE, 0.75)
    blue = mix(p.water, WHITE, 0.45)
    line = np.array([[x, lip - 0.004], [x, lip + 0.03], [x, (lip + foot) / 2], [x, foot]])
    items = [Item(shapes.ribbon(shapes.curve(line, 20), width * 0.8, width * 1.3), mix(white, blue, 0.3))]
    for k in np.linspace(-0.42, 0.42, 9):
        k += rng.uniform(-0.03, 0.03)
        start, end = x + k * width * 0.8, x + k * width * 1.3
        a, b = rng.uniform(0, 0.25), rng.uniform(0.7, 1.0)
        thread = np.array([[start + (end - start) * t, lip + (foot - lip) * t] for t in (a, (a + b) / 2, b)])
        tone = white if rng.uniform() < 0.62 else blue
        items.append(Item(shapes.ribbon(thread, width * 0.03, width * 0.04, width * 0.06), tone))
    canvas.draw("fall", items, np.pi / 2, 0.9)
    mist: list[Item] = []
    for _ in range(16):
        mx, my, r = (
            x + rng.normal() * width * 0.55,
            foot + rng.uniform(-0.03, 0.02),
            rng.uniform(0.018, 0.045),
        )
        mist.append(Item(shapes.disc(mx, my, r * 1.3, r * 0.8, 18), mix(white, blue, rng.uniform(0, 0.45))))
    canvas.draw("foam", mist, 0.0, 0.6)


def _bank(canvas: Canvas, scene: Scene, rng: Rng, pool: float, x: float) -> None:
    """A grassy near bank on the side of the person or animal, with stones in the water."""
    p, way = canvas.palette, -scene.side
    grass = mix(natural(p, (104, 146, 72), 0.8), p.near, 0.45)
    edge = 0.5 + way * 0.56
    line = shapes.curve(
        [
            [edge, pool + 0.03],
            [0.5 + way * 0.3, pool + 0.05],
            [x + way * 0.16, pool + 0.12],
            [x + way * 0.06, pool + 0.2],
            [x - way * 0.1, 1.05],
        ],
        30,
    )
    bank = np.concatenate([line, [[edge, 1.05]]])
    canvas.draw(
        "land", [Item(bank, shade(grass, 0.75)), Item(moved(bank, way * 0.02, 0.014), grass)], 0.2, 0.5
    )
    canvas.water = np.where(canvas.mask(bank) > 127, 0, canvas.water).astype(np.uint8)
    stones: list[Item] = []
    stone = mix(natural(p, (120, 114, 116)), p.mid, 0.3)
    for k in range(7):
        t = (k + rng.uniform()) / 7
        sx, sy, r = x - way * (0.02 + 0.42 * rng.uniform()), pool + 0.06 + 0.24 * t, 0.02 + 0.04 * t
        stones.append(Item(shapes.disc(sx, sy + r * 0.35, r * 1.4, r * 0.5, 18), mix(p.cloud, p.water, 0.3)))
        stones.append(Item(shapes.disc(sx, sy, r * 1.15, r * 0.7, 11), shade(stone, 0.75)))
        stones.append(
            Item(shapes.disc(sx - r * 0.15, sy - r * 0.15, r * 0.8, r * 0.42, 11), mix(stone, p.cloud, 0.25))
        )
    canvas.draw("stone", stones, 0.0, 0.8)


def cascade(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """In other kinds of scene than a gorge: a fall from a crag before the mountains."""
    if scene.kind == "gorge":
        return
    p, side = canvas.palette, scene.side
    x, foot = 0.5 - side * rng.uniform(0.16, 0.24), scene.horizon + 0.05
    lip = scene.horizon - rng.uniform(0.16, 0.2)
    rock = mix(natural(p, (96, 92, 96)), p.mid, 0.4)
    outline = [
        [x - 0.2, foot],
        [x - 0.15, lip + 0.08],
        [x - 0.08, lip - 0.02],
        [x - 0.03, lip],
        [x + 0.03, lip],
        [x + 0.09, lip - 0.03],
        [x + 0.15, lip + 0.07],
        [x + 0.21, foot],
    ]
    line = shapes.curve(outline, 40)
    line[:, 1] += rng.uniform(-0.006, 0.006, 40)
    canvas.draw("cliff", [Item(shapes.down_to(line, foot + 0.03), rock)], np.pi / 2, 0.6)
    _fall(canvas, rng, x, lip + 0.004, foot - 0.005, 0.055)


# What paints each subject, with its depth (see landscape.PARTS).
PARTS: tuple[tuple[float, str, Callable[[Canvas, Scene, Rng], None]], ...] = (
    (-0.9, "rainbow", rainbow),
    (-0.45, "volcano", volcano),
    (-0.35, "waterfall", cascade),
    (-0.3, "island", island),
    (0.08, "desert", desert),
    (-0.38, "waterfall", gorge),
    (-0.4, "bamboo", trees.far_bamboo),
    (0.12, "bamboo", trees.few_bamboo),
    (0.14, "flowers", flora.flowers),
    (0.52, "maple", trees.maple),
    (0.63, "bamboo", trees.near_bamboo),
    (0.66, "lotus", flora.lotus),
    (0.78, "pine", trees.pine),
    (0.79, "willow", trees.willow),
    (0.935, "flowers", flora.near_flowers),
    (0.96, "plum", flora.plum),
)
