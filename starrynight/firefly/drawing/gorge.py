"""Place a waterfall on the canvas: between the cliffs of a gorge, or small before the mountains."""

from __future__ import annotations

import numpy as np

from starrynight.firefly.drawing import shapes
from starrynight.firefly.drawing.buildings import snowy
from starrynight.firefly.drawing.canvas import Canvas
from starrynight.firefly.drawing.flora import moved, natural
from starrynight.firefly.drawing.palettes import WHITE, Rgb, mix, pale, shade
from starrynight.firefly.drawing.scene import Scene
from starrynight.firefly.drawing.shapes import Item

Rng = np.random.Generator


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
    width, foot = rng.uniform(0.13, 0.17), pool + 0.015
    if rng.uniform() < 0.4:
        step = lip + (foot - lip) * rng.uniform(0.38, 0.5)
        _fall(canvas, rng, x + side * 0.02, lip, step, width * 0.66)
        _shelf(canvas, rng, x, step, width * 1.3, shade(back, 0.8))
        _fall(canvas, rng, x, step - 0.012, foot, width)
    else:
        _fall(canvas, rng, x, lip, foot, width)
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
        _crag(canvas, rng, crest, way, near, snowy(scene))
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


def _crag(canvas: Canvas, rng: Rng, outline: list[list[float]], way: int, colour: Rgb, white: bool) -> None:
    """A side cliff with lit facets and dark clefts, green on top."""
    p = canvas.palette
    line = shapes.curve(outline, 48)
    line[4:-4] += rng.uniform(-0.01, 0.01, (40, 2))
    items = [Item(line, colour)]
    for _ in range(9):
        k = int(rng.integers(8, 36))
        sx, sy = line[k] + (way * rng.uniform(0.01, 0.16), rng.uniform(0.0, 0.05))
        length, w = rng.uniform(0.1, 0.22), rng.uniform(0.012, 0.03)
        length = min(length, outline[-2][1] - 0.03 - sy)  # ends above the pool
        if length < 0.03:
            continue
        facet = [
            [sx, sy],
            [sx + way * w, sy + 0.02],
            [sx + way * w * 0.7, sy + length],
            [sx - way * w * 0.3, sy + length * 0.8],
        ]
        items.append(Item(facet, shade(colour, (0.68, 1.22)[int(rng.integers(2))])))
    moss = mix(p.cloud, WHITE, 0.4) if white else mix(natural(p, (84, 128, 66), 0.8), p.leaf, 0.4)
    for k in range(1, 22):
        cx, cy = line[k]
        items.append(
            Item(
                shapes.disc(cx + way * 0.02, cy, rng.uniform(0.025, 0.045), rng.uniform(0.016, 0.026), 16),
                shade(moss, rng.uniform(0.88 if white else 0.8, 1.2)),
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
    grass = mix(p.cloud, WHITE, 0.5) if snowy(scene) else mix(natural(p, (96, 140, 72), 0.8), p.leaf, 0.3)
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


def _shelf(canvas: Canvas, rng: Rng, x: float, y: float, half: float, colour: Rgb) -> None:
    """The rocks of a step in the fall."""
    items: list[Item] = []
    for k in (-1.0, 1.0, -0.62, 0.62, -0.2, 0.2):
        r = half * rng.uniform(0.24, 0.34)
        items.append(Item(shapes.disc(x + k * half * 0.8, y + 0.012, r, r * 0.5, 9), shade(colour, 0.85)))
        items.append(
            Item(shapes.disc(x + k * half * 0.8, y + 0.002, r * 0.8, r * 0.3, 9), mix(colour, WHITE, 0.2))
        )
    canvas.draw("stone", items, 0.0, 0.7)


def _bank(canvas: Canvas, scene: Scene, rng: Rng, pool: float, x: float) -> None:
    """A grassy near bank on the side of the person or animal, with stones in the water."""
    p, way = canvas.palette, -scene.side
    grass = mix(p.cloud, WHITE, 0.5) if snowy(scene) else mix(natural(p, (104, 146, 72), 0.8), p.near, 0.45)
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
    lip = scene.horizon - rng.uniform(0.19, 0.24)
    rock = mix(natural(p, (104, 98, 100)), p.mid, 0.4)
    knots = (
        (-0.24, 0.0),
        (-0.16, 0.55),
        (-0.1, 0.8),
        (-0.06, 1.08),
        (-0.025, 1.0),
        (0.025, 0.99),
        (0.07, 1.16),
        (0.13, 0.74),
        (0.18, 0.5),
        (0.25, 0.0),
    )
    line = shapes.curve([(x + dx, foot + (lip - foot) * share) for dx, share in knots], 50)
    line[:, 1] += rng.uniform(-0.007, 0.007, 50)
    shaded = line[25:] if side > 0 else line[:25]
    inner = [[x + side * 0.03, foot], [x + side * 0.045, (lip + foot) / 2]]
    items = [Item(shapes.down_to(line, foot + 0.03), rock)]
    items.append(Item(np.concatenate([shaded if side > 0 else shaded[::-1], inner]), shade(rock, 0.72)))
    canvas.draw("cliff", items, np.pi / 2, 0.7)
    _fall(canvas, rng, x, lip + 0.004, foot - 0.005, rng.uniform(0.05, 0.07))
