"""Place flowering plants on the canvas: a plum branch, lotus, wild flowers; colours that nature keeps."""

from __future__ import annotations

import numpy as np

from starrynight.firefly.drawing import shapes
from starrynight.firefly.drawing.buildings import covered, snowy, wet
from starrynight.firefly.drawing.canvas import Canvas
from starrynight.firefly.drawing.palettes import WHITE, Palette, Rgb, mix, pale, shade
from starrynight.firefly.drawing.scene import Scene
from starrynight.firefly.drawing.shapes import Item

Rng = np.random.Generator
DARK: Rgb = (18, 20, 28)
_TALL = ("blossoms", "cypress", "pine", "willow", "plum", "bamboo", "maple")
LANDMARKS = ("pagoda", "temple", "castle", "volcano", "lighthouse", "teahouse", "windmill")


def lightness(colour: Rgb) -> float:
    """How light a colour looks, 0..255 (the luma of ITU-R BT.601)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def natural(p: Palette, colour: Rgb, grey: float = 0.6) -> Rgb:
    """A colour of nature as the palette shows it: darker at darker hours; in ink the share `grey` loses hue."""
    tone = mix(colour, p.near, 0.4 * (1 - sum(p.low) / 765))
    if max(p.leaf) - min(p.leaf) < 16:
        level = round(lightness(tone))
        tone = mix(tone, (level, level, level), grey)
    return tone


def apart(colour: Rgb, behind: Rgb, least: float = 60) -> Rgb:
    """The colour made lighter or darker until its lightness differs enough from what is behind it."""
    start, ground = lightness(colour), lightness(behind)
    goal = WHITE if ground < 105 or (start >= ground and ground < 170) else DARK
    for share in np.arange(0, 0.9, 0.08):
        tone = mix(colour, goal, float(share))
        if abs(lightness(tone) - ground) >= least:
            break
    return tone


def moved(points: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """The points, or one point, moved."""
    return points + np.array((dx, dy))


def plant_side(scene: Scene, name: str) -> int:
    """The side of the picture for a tall plant: away from landmarks, near figures and other tall plants."""
    first = scene.side
    if scene.close and abs(scene.figure - 0.5) > 0.05:
        first = -1 if scene.figure > 0.5 else 1
    elif scene.has(*LANDMARKS) and not scene.has("blossoms"):
        first = -first
    tall = [
        plant for plant in _TALL if scene.has(plant) and not (plant == "bamboo" and scene.kind == "bamboo")
    ]
    return -first if name in tall and tall.index(name) % 2 else first


# Plum branches: seven bends (share of the side from the middle, height), then the twigs: the place on the branch
# and two bends from there.
_Bend = tuple[float, float]
_PLUMS: tuple[tuple[tuple[_Bend, ...], tuple[tuple[int, _Bend, _Bend], ...]], ...] = (
    (
        ((0.55, 0.62), (0.42, 0.5), (0.37, 0.36), (0.25, 0.33), (0.2, 0.22), (0.08, 0.2), (-0.04, 0.1)),
        ((10, (0.03, -0.12), (-0.01, -0.28)), (15, (-0.12, 0.02), (-0.24, -0.01)), (20, (-0.01, -0.1), (0.03, -0.17)),
         (6, (-0.1, 0.0), (-0.21, -0.01))),
    ),
    (
        ((0.55, 0.06), (0.45, 0.17), (0.35, 0.14), (0.27, 0.24), (0.16, 0.22), (0.08, 0.32), (-0.06, 0.34)),
        ((7, (0.0, 0.13), (-0.06, 0.26)), (10, (-0.05, -0.06), (-0.14, -0.08)), (16, (-0.03, 0.12), (-0.1, 0.2)),
         (21, (-0.07, -0.06), (-0.12, -0.14))),
    ),
    (
        ((0.46, 1.04), (0.37, 0.84), (0.42, 0.64), (0.3, 0.48), (0.31, 0.32), (0.17, 0.25), (0.1, 0.1)),
        ((10, (0.04, -0.13), (0.02, -0.3)), (15, (-0.12, 0.0), (-0.24, -0.07)), (20, (0.05, -0.1), (0.06, -0.22)),
         (25, (-0.1, 0.0), (-0.2, -0.07))),
    ),
)  # fmt: skip


def plum(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """The plum branch in front of everything, unless a figure fills the picture."""
    if not scene.close:
        plum_branch(canvas, scene, rng)


def plum_behind(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """The plum branch behind a figure that fills the picture."""
    if scene.close:
        plum_branch(canvas, scene, rng)


def plum_branch(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A dark crooked branch from one side, with upright twigs and round red blossoms."""
    p = canvas.palette
    side = plant_side(scene, "plum")
    bark = apart(natural(p, (58, 40, 38)), p.middle, 45)
    red = apart(natural(p, (214, 30, 58), 0.0), p.middle, 40)
    knots, offshoots = _PLUMS[int(rng.choice(3, p=(0.5, 0.3, 0.2)))]
    lift = rng.uniform(-0.03, 0.04)
    bends = np.array([(0.5 + side * dx, y + lift) for dx, y in knots])
    main = np.concatenate([shapes.curve(bends[k : k + 3], 11)[: 11 if k == 4 else 10] for k in (0, 2, 4)])
    twigs = []
    for k, *ways in offshoots:
        twigs.append(shapes.curve([main[k], *(moved(main[k], side * dx, dy) for dx, dy in ways)], 11))
    lines = [main, *twigs]
    items = [Item(shapes.ribbon(main, 0.05, 0.01, 0.004), bark)]
    items += [Item(shapes.ribbon(line, 0.016, 0.006), bark) for line in twigs]
    if snowy(scene):
        white = mix(p.cloud, WHITE, 0.6)
        items += [Item(shapes.ribbon(moved(line, 0, -0.012), 0.016, 0.006), white) for line in lines]
    canvas.draw("branch", items, 0.6, 0.9)
    blooms: list[Item] = []
    for line in lines:
        for k in range(5 if line is main else 3, len(line), 3):
            x, y = line[k] + rng.uniform(-0.018, 0.018, 2)
            blooms += _plum_flower(
                rng, p, x, y, rng.uniform(0.022, 0.034), shade(red, rng.uniform(0.85, 1.15))
            )
        x, y = line[-1]
        blooms.append(Item(shapes.disc(x, y, 0.012, n=12), red))
    canvas.draw("blossom", blooms, 0.6, 0.95)


def _plum_flower(rng: Rng, p: Palette, x: float, y: float, r: float, colour: Rgb) -> list[Item]:
    """Five round petals around yellow stamens."""
    turn = rng.uniform(0, 6)
    items: list[Item] = []
    for k in range(5):
        angle = turn + k * 2 * np.pi / 5
        px, py = x + r * 0.52 * np.cos(angle), y + r * 0.52 * np.sin(angle)
        items.append(Item(shapes.disc(px, py, r * 0.5, n=14), shade(colour, 0.88 if k % 2 else 1.08)))
    items.append(Item(shapes.disc(x, y, r * 0.24, n=10), mix((255, 214, 90), pale(p), 0.3)))
    return items


def lotus(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Round leaves standing above the water on stalks, large pink flowers, buds and seed pods."""
    p = canvas.palette
    side = scene.side
    green = apart(natural(p, (84, 150, 96), 0.8), p.water, 35)
    pink = apart(natural(p, (248, 116, 160), 0.15), green, 30)
    spots = [(side * rng.uniform(-0.02, 0.48), level) for level in np.linspace(0.12, 0.8, 8)]
    spots += [(side * rng.uniform(-0.5, 0.1), 0.93), (side * rng.uniform(0.2, 0.5), 0.93)]
    room = 1.02 - scene.horizon
    for n, (dx, level) in enumerate(spots):
        x, y = 0.5 + dx, scene.horizon + room * level
        r = 0.045 + 0.075 * level
        reach = (
            (-r, 0.0),
            (0.0, 0.0),
            (r, 0.0),
            (0.0, -1.2 * r),
            (0.0, r),
            (-0.7 * r, -1.8 * r),
            (0.7 * r, -1.8 * r),
        )
        if any(covered(canvas, x + a, y + b) for a, b in reach):
            continue
        items = _lotus_leaf(rng, x, y, r, mix(green, p.leaf, rng.uniform(0, 0.35)))
        bloom, height = x + r * rng.uniform(-0.9, 0.9), r * rng.uniform(1.5, 2.1)
        stalk = shapes.curve([[x, y + r * 0.4], [bloom + 0.01, y - height * 0.5], [bloom, y - height]], 9)
        kind = n % 4
        if kind != 3:
            items.append(Item(shapes.ribbon(stalk, r * 0.12, r * 0.09), shade(green, 0.8)))
        if kind in (0, 2):
            items += _lotus_flower(rng, p, bloom, y - height, r * 0.85, pink)
        elif kind == 1:
            items += (
                _pod(bloom, y - height, r * 0.4, green)
                if rng.uniform() < 0.6
                else _bud(bloom, y - height, r, pink)
            )
        canvas.draw("lotus", items, 0.3, 0.92)


def _lotus_leaf(rng: Rng, x: float, y: float, r: float, colour: Rgb) -> list[Item]:
    """A leaf like a shallow dish with a waved rim and radial veins, on its stalk."""
    turn = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    tilt, phase = rng.uniform(0.4, 0.58), rng.uniform(0, 6)
    wave = 1 + 0.06 * np.sin(5 * turn + phase)
    rim = np.stack([x + r * 1.2 * wave * np.cos(turn), y + r * tilt * wave * np.sin(turn)], 1)
    stalk = np.array([[x, y], [x + r * 0.05, y + r * 1.4]])
    items = [Item(shapes.ribbon(stalk, r * 0.1, r * 0.1), shade(colour, 0.6))]
    items += [Item(moved(rim, 0, r * 0.09), shade(colour, 0.62)), Item(rim, colour)]
    heart = np.array((x, y - r * 0.05))
    for angle in np.arange(9) * 2 * np.pi / 9 + phase:
        end = (x + r * 1.05 * np.cos(angle), y + r * tilt * 0.88 * np.sin(angle))
        items.append(Item(shapes.ribbon(np.array([heart, end]), r * 0.06, r * 0.02), mix(colour, WHITE, 0.3)))
    return [*items, Item(shapes.disc(x, y - r * 0.05, r * 0.14, r * 0.09, 12), mix(colour, WHITE, 0.45))]


def _petal(x: float, y: float, angle: float, length: float, width: float, colour: Rgb) -> Item:
    """A pointed petal from (x, y) in the direction `angle`."""
    way = np.array((np.cos(angle), np.sin(angle)))
    line = np.array((x, y)) + np.linspace(0, 1, 11)[:, None] * way * length
    return Item(shapes.ribbon(line, width * 0.25, width * 0.02, width), colour)


def _lotus_flower(rng: Rng, p: Palette, x: float, y: float, r: float, pink: Rgb) -> list[Item]:
    """An open flower: a back fan, a low fan and three front petals around a yellow heart."""
    foot, up = y + r * 0.35, -np.pi / 2
    items: list[Item] = []
    for turn in (-0.95, 0.95, -0.5, 0.5, 0.0):
        items.append(_petal(x, foot, up + turn, r * 1.25, r * 0.5, mix(pink, WHITE, 0.3)))
    items.append(Item(shapes.disc(x, y - r * 0.15, r * 0.26, r * 0.2, 14), (250, 206, 84)))
    for turn in (-1.4, 1.4, -0.8, 0.8, 0.0):
        tone = shade(pink, 0.86 if abs(turn) > 1 else 1.0)
        items.append(_petal(x, foot, up + turn, r * (1.15 - 0.25 * (abs(turn) < 0.3)), r * 0.46, tone))
        items.append(_petal(x, foot, up + turn, r * 0.7, r * 0.16, mix(tone, WHITE, 0.45)))
    return items


def _pod(x: float, y: float, r: float, green: Rgb) -> list[Item]:
    """A seed pod: a cone with a flat top and dark seeds."""
    cone = [[x - r, y], [x + r, y], [x + r * 0.3, y + r * 1.3], [x - r * 0.3, y + r * 1.3]]
    tone = mix(green, (150, 140, 70), 0.5)
    seeds = [
        Item(shapes.disc(x + r * k, y + r * 0.02, r * 0.13, r * 0.1, 8), shade(tone, 0.4))
        for k in (-0.55, 0, 0.55)
    ]
    return [
        Item(cone, shade(tone, 0.8)),
        Item(shapes.disc(x, y, r, r * 0.36, 18), mix(tone, WHITE, 0.25)),
        *seeds,
    ]


def _bud(x: float, y: float, r: float, pink: Rgb) -> list[Item]:
    up = -np.pi / 2
    return [
        _petal(x, y + r * 0.3, up + k, r * 0.95, r * 0.4, shade(pink, 1 - abs(k))) for k in (-0.2, 0.2, 0.0)
    ]


def flowers(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Wild flowers in the grass, from dots of colour in the distance to large ones."""
    p = canvas.palette
    tints = _flower_tints(p)
    grass = mix(natural(p, (110, 158, 66), 0.8), p.near, 0.35)
    start, room = scene.horizon + 0.05, 0.84 - scene.horizon
    for row in range(3):
        near = row / 2
        items: list[Item] = []
        for _ in range((100, 44, 24)[row]):
            level = (row + rng.uniform()) / 3
            x, y, r = rng.uniform(-0.02, 1.02), start + room * level, 0.006 + 0.018 * level
            tint = tints[int(rng.integers(len(tints)))]
            shape = [Item(shapes.disc(x, y, r, r * 0.8, 8), tint)]
            if row:
                shape = _wild_flower(rng, x, y, r, tint, grass, 2.2 + near)
            items += [] if wet(canvas, x, y) else shape
        items.sort(key=lambda item: float(np.max(np.asarray(item.outline)[:, 1])))
        canvas.draw("flower", items, np.pi / 2, 0.85)


def near_flowers(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """The large flowers along the lower edge."""
    p = canvas.palette
    tints = _flower_tints(p)
    grass = mix(natural(p, (110, 158, 66), 0.8), p.near, 0.2)
    items: list[Item] = []
    for _ in range(44):
        x, h = rng.uniform(-0.02, 1.02), rng.uniform(0.05, 0.13)
        blade = shapes.curve(
            [[x, 1.02], [x + rng.uniform(-0.01, 0.01), 1 - h / 2], [x + rng.uniform(-0.04, 0.04), 1 - h]], 8
        )
        items.append(Item(shapes.ribbon(blade, 0.012, 0.002), shade(grass, rng.uniform(0.7, 1.15))))
    for k in range(15):
        x = (k + rng.uniform(0.1, 0.9)) / 15
        tall = 0.04 if abs(x - scene.figure) < 0.2 else 0.09
        y, r = 0.95 - rng.uniform(0, tall), rng.uniform(0.026, 0.042)
        items += _wild_flower(rng, x, y, r, tints[int(rng.integers(len(tints)))], grass, 3.0)
    canvas.draw("flower", items, np.pi / 2, 0.92)


def _flower_tints(p: Palette) -> list[Rgb]:
    """Red, white, yellow, violet, pink and blue against the palette's grass."""
    pure = ((232, 52, 44), (250, 246, 236), (252, 206, 50), (150, 92, 210), (248, 130, 170), (84, 120, 230))
    tints = [natural(p, tint, 0.45) for tint in pure]
    return [apart(tint, p.near, 45) for tint in tints] if lightness(p.near) < 105 else tints


def _wild_flower(rng: Rng, x: float, y: float, r: float, tint: Rgb, grass: Rgb, tall: float) -> list[Item]:
    """A poppy, daisy or bellflower at (x, y) on a stalk `tall` times its radius."""
    stalk = shapes.curve([[x, y], [x + rng.uniform(-0.3, 0.3) * r, y + tall * r / 2], [x, y + tall * r]], 6)
    items = [Item(shapes.ribbon(stalk, r * 0.22, r * 0.2), shade(grass, 0.8))]
    form = rng.integers(3)
    heart = (250, 200, 60) if tint[2] > 90 else (70, 44, 34)
    turn = rng.uniform(0, 6)
    if form == 0:
        items.append(Item(shapes.star(x, y, r, r * 0.62, 9, turn), tint))
        return [*items, Item(shapes.disc(x, y, r * 0.34, n=10), heart)]
    if form == 1:
        for k in range(4):
            angle = turn + k * np.pi / 2
            petal = shapes.disc(
                x + r * 0.42 * np.cos(angle), y + r * 0.34 * np.sin(angle), r * 0.56, r * 0.5, 12
            )
            items.append(Item(petal, shade(tint, 0.85 if k % 2 else 1.05)))
        return [*items, Item(shapes.disc(x, y, r * 0.24, n=10), heart)]
    cup = [
        [-0.7, -0.5],
        [-0.35, -0.95],
        [-0.2, -0.6],
        [0, -1.05],
        [0.2, -0.6],
        [0.35, -0.95],
        [0.7, -0.5],
        [0.55, 0.3],
        [0, 0.6],
        [-0.55, 0.3],
    ]
    items.append(Item(shapes.place(cup, x, y, r), tint))
    return [
        *items,
        Item(shapes.place([[-0.2, -0.5], [0, -1.0], [0.2, -0.5], [0, 0.5]], x, y, r), shade(tint, 0.82)),
    ]
