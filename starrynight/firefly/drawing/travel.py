"""Place harbours and what travels on the canvas: quay, boats, pier, train, hot-air balloons."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from starrynight.firefly.drawing import shapes
from starrynight.firefly.drawing.buildings import is_lit, snowy, wet
from starrynight.firefly.drawing.built import (
    FRONTS,
    RED,
    arch,
    reflect,
    snowed,
    stone,
    tint,
)
from starrynight.firefly.drawing.canvas import Canvas
from starrynight.firefly.drawing.palettes import WHITE, Rgb, mix, pale, shade
from starrynight.firefly.drawing.scene import Scene
from starrynight.firefly.drawing.shapes import Item, box, curve, disc, place, ribbon

Rng = np.random.Generator


def quay_houses(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A row of narrow colourful houses along the quay, which the water reflects."""
    p, lit = canvas.palette, is_lit(scene)
    level = scene.horizon + 0.005
    x, end = (-0.03, rng.uniform(0.62, 0.74)) if scene.side > 0 else (rng.uniform(0.26, 0.38), 1.0)
    wall = stone(canvas, scene, 0.4)
    items: list[Item] = []
    last = -1
    start = x
    while x < end:
        w, h = rng.uniform(0.085, 0.115), rng.uniform(0.15, 0.25)
        pick = int(rng.integers(7))
        pick = (pick + 1) % 7 if pick == last else pick
        last = pick
        items += _quay_house(
            canvas, scene, rng, x, level - 0.015, w, h, tint(canvas, scene, FRONTS[pick], accent=True)
        )
        x += w
    items.append(Item(box(start - 0.03, level - 0.02, x + 0.03, level + 0.02), wall))
    items.append(Item(box(start - 0.03, level, x + 0.03, level + 0.02), shade(wall, 0.65)))
    for k in np.arange(start + 0.05, x, 0.16):
        if lit:
            items.append(Item(disc(k, level - 0.05, 0.009, n=10), p.window, True))
            items.append(Item(box(k - 0.002, level - 0.045, k + 0.002, level - 0.02), shade(wall, 0.4)))
    canvas.draw("house", items, np.pi / 2, 0.95)


def _quay_house(
    canvas: Canvas, scene: Scene, rng: Rng, x: float, y: float, w: float, h: float, front: Rgb
) -> list[Item]:
    p, lit = canvas.palette, is_lit(scene)
    roof = snowed(canvas, scene, tint(canvas, scene, ((170, 74, 54), (84, 74, 86))[int(rng.integers(2))]))
    top, right, mid = y - h, x + w, x + w / 2
    if rng.uniform() < 0.6:
        head = [
            Item([[x - 0.004, top], [mid, top - w * 0.62], [right + 0.004, top]], roof),
            Item([[x + w * 0.14, top], [mid, top - w * 0.46], [right - w * 0.14, top]], front),
        ]
    else:
        head = [
            Item(
                [
                    [x - 0.004, top],
                    [x + w * 0.16, top - w * 0.42],
                    [right - w * 0.16, top - w * 0.42],
                    [right + 0.004, top],
                ],
                roof,
            )
        ]
    items = [
        *head,
        Item(box(x, top, right, y), front),
        Item(box(right - w * 0.1, top, right, y), shade(front, 0.78)),
    ]
    pane = shade(mix(front, p.top, 0.6), 0.6)
    for row in range(int((h - 0.055) / 0.05)):
        for k in (0.2, 0.56):
            on = lit and rng.uniform() < 0.7
            wx, wy = x + w * k, top + 0.015 + 0.05 * row
            items.append(Item(box(wx, wy, wx + w * 0.22, wy + 0.03), p.window if on else pane, on))
    return [*items, Item(arch(x + w * 0.4, y, w * 0.24, 0.042), shade(front, 0.4))]


def harbour(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Moored boats with masts, each with its reflection, and a wooden pier on posts towards the viewer."""
    h = scene.horizon
    deep = 1 - h
    spots = [(0.18, 0.1, 0.13), (0.36, 0.16, 0.17), (0.06, 0.24, 0.2), (0.3, 0.38, 0.26)]
    for across, down, size in spots[: 3 + int(scene.amount > 0.35)]:
        x = 0.5 + scene.side * (across + rng.uniform(-0.03, 0.03))
        y = h + deep * (down + rng.uniform(-0.02, 0.02))
        items = _yacht(canvas, scene, rng, x, y, size * rng.uniform(0.9, 1.1))
        reflect(canvas, items, y + size * 0.1, 0.55, 0.6)
        canvas.draw("boat", items, np.pi / 2, 0.95)
    aside = abs(scene.figure - 0.5)
    if scene.has("fisherman"):  # his boat needs the water
        aside = 0.4 if aside < 0.2 else 0.02
    _pier(canvas, scene, 0.5 - scene.side * (aside or 0.2))


def _yacht(canvas: Canvas, scene: Scene, rng: Rng, x: float, y: float, w: float) -> list[Item]:
    """A moored boat: coloured hull with a pale rim, cabin, mast, furled or half-raised sail, pennant."""
    p, side = canvas.palette, int(rng.choice((-1, 1)))
    hulls: tuple[Rgb, ...] = ((206, 52, 44), (44, 92, 160), (244, 236, 220), (40, 120, 104), (236, 170, 52))
    hull = tint(canvas, scene, hulls[int(rng.integers(5))], accent=True)
    rim = mix(hull, WHITE, 0.7) if min(hull) < 150 else tint(canvas, scene, (180, 60, 48), accent=True)
    dark = shade(tint(canvas, scene, (96, 62, 44)), 0.7)
    spar = mix(dark, pale(p), 0.35) if is_lit(scene) else dark
    cloth = mix(tint(canvas, scene, (250, 240, 220)), pale(p), 0.3)
    tall = w * rng.uniform(1.0, 1.3)
    body = np.concatenate(
        [curve([[-0.5, -0.1], [-0.1, -0.04], [0.3, -0.07], [0.58, -0.17]], 15), [[0.4, 0.1], [-0.38, 0.1]]]
    )
    deck = curve([[-0.5, -0.1], [-0.1, -0.04], [0.3, -0.07], [0.58, -0.17]], 15)
    items = [Item(box(x - w * 0.014, y - tall, x + w * 0.014, y), spar)]
    if rng.uniform() < 0.7:
        sail = np.concatenate([curve([[0.02, -1.0], [-0.24, -0.6], [-0.38, -0.22]], 9), [[0.02, -0.2]]])
        items.append(Item(place(sail, x, y, w * side, tall), cloth))
    else:
        roll = np.array([[x + w * side * 0.02, y - w * 0.26], [x - w * side * 0.44, y - w * 0.22]])
        items.append(Item(ribbon(roll, w * 0.07, w * 0.05), cloth))
    cabin = box(x - w * 0.18, y - w * 0.17, x + w * 0.14, y - w * 0.02)
    flag = [[x, y - tall], [x - side * w * 0.17, y - tall + w * 0.05], [x, y - tall + w * 0.1]]
    return [
        *items,
        Item(cabin, mix(rim, cloth, 0.5)),
        Item(
            box(x - w * 0.12, y - w * 0.14, x + w * 0.08, y - w * 0.08),
            p.window if is_lit(scene) else dark,
            is_lit(scene),
        ),
        Item(place(body, x, y, w * side, w), hull),
        Item(ribbon(place(deck, x, y, w * side, w), w * 0.04, w * 0.04), rim),
        Item(flag, tint(canvas, scene, RED, accent=True)),
    ]


def _pier(canvas: Canvas, scene: Scene, x: float) -> None:
    """Planks in perspective on posts, from the lower edge out over the water."""
    p = canvas.palette
    wood = mix(tint(canvas, scene, (176, 128, 84)), pale(p), 0.1)
    wood = mix(p.cloud, WHITE, 0.5) if snowy(scene) else wood
    dark = shade(tint(canvas, scene, (92, 62, 46)), 0.75)
    h, near = scene.horizon, (1.04 - scene.horizon)
    rows = 1 / np.linspace(1, 0.2, 14)
    items: list[Item] = []
    for d in rows[::-1]:
        for side in (-1, 1):
            cx, y = x + side * 0.19 / d, h + near / d
            post = box(cx - 0.018 / d, y - 0.01 / d, cx + 0.018 / d, y + 0.16 / d)
            items.append(Item(post, dark))
    for a, b in pairwise(rows[::-1]):
        lo, hi = h + near / b, h + near / a
        tone = shade(wood, 0.9 + 0.16 * (round(b * 31) % 3) / 2)
        items.append(
            Item([[x - 0.19 / a, hi], [x + 0.19 / a, hi], [x + 0.19 / b, lo], [x - 0.19 / b, lo]], tone)
        )
        items.append(
            Item(
                [
                    [x - 0.19 / b, lo - 0.008 / b],
                    [x + 0.19 / b, lo - 0.008 / b],
                    [x + 0.19 / b, lo],
                    [x - 0.19 / b, lo],
                ],
                shade(wood, 0.6),
            )
        )
    for d in rows[::-1][1::3]:
        for side in (-1, 1):
            cx, y = x + side * 0.19 / d, h + near / d
            items.append(
                Item(box(cx - 0.02 / d, y - 0.14 / d, cx + 0.02 / d, y + 0.03 / d), shade(dark, 1.25))
            )
            items.append(Item(disc(cx, y - 0.14 / d, 0.024 / d, 0.01 / d, 12), mix(wood, WHITE, 0.3)))
    canvas.draw("pier", items, 0.0, 0.9)


def train(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A steam engine with its smoke and three carriages, on an embankment or a stone viaduct."""
    side = scene.side
    y, s = scene.horizon + rng.uniform(0.05, 0.09) - 0.08 * scene.has("village"), rng.uniform(0.15, 0.18)
    x = 0.5 + side * rng.uniform(0.1, 0.2)
    grey = stone(canvas, scene, 0.5)
    ground = [
        Item(box(-0.02, y, 1.02, y + s * 0.1), shade(grey, 0.7)),
        Item(box(-0.02, y, 1.02, y + s * 0.035), shade(grey, 1.05)),
    ]
    if rng.uniform() < 0.4 or wet(canvas, 0.5, y + s):
        ground = _viaduct(canvas, scene, y, s, grey) + ground
    canvas.draw("rail", ground, 0.0, 0.9)
    _smoke(canvas, scene, rng, x + side * s * 0.68, y - s * 1.05, s)
    paints: tuple[Rgb, ...] = ((186, 40, 36), (34, 104, 74), (38, 66, 132), (40, 38, 44))
    coat = tint(canvas, scene, paints[int(rng.integers(4))], accent=True)
    coach = tint(
        canvas, scene, ((186, 52, 42), (70, 112, 70), (48, 92, 140))[int(rng.integers(3))], accent=True
    )
    items: list[Item] = []
    for k in range(5):
        items += _carriage(canvas, scene, x - side * s * (1.62 + 1.62 * k), y, s, coach)
    items += _engine(canvas, scene, x, y, s, side, coat)
    canvas.draw("train", items, 0.0, 0.95)


def _viaduct(canvas: Canvas, scene: Scene, y: float, s: float, grey: Rgb) -> list[Item]:
    deep = s * 0.95
    p = canvas.palette
    shadow = mix(p.water, p.low, 0.15) if scene.has("lake", "sea") else shade(grey, 0.3)
    items = [Item(box(-0.02, y, 1.02, y + deep), mix(grey, WHITE, 0.1))]
    for k in range(8):
        x = 0.06 + 0.147 * k
        items.append(Item(arch(x, y + deep, 0.108, deep * 0.84), shade(grey, 0.42)))
        items.append(Item(arch(x + 0.008, y + deep, 0.09, deep * 0.78), shadow))
    return items


def _carriage(canvas: Canvas, scene: Scene, x: float, y: float, s: float, coat: Rgb) -> list[Item]:
    p = canvas.palette
    dark = shade(coat, 0.4)
    pane = p.window if is_lit(scene) else mix(WHITE, p.top, 0.35)
    items = [Item(box(x - s * 0.86, y - s * 0.26, x + s * 0.86, y - s * 0.2), dark)]
    items += [Item(disc(x + k * s, y - s * 0.12, s * 0.12, n=18), dark) for k in (-0.56, -0.26, 0.26, 0.56)]
    items += [Item(box(x - s * 0.75, y - s * 0.8, x + s * 0.75, y - s * 0.2), coat)]
    items += [Item(box(x - s * 0.75, y - s * 0.3, x + s * 0.75, y - s * 0.2), shade(coat, 0.65))]
    roof = curve([[-0.8, -0.78], [-0.66, -0.88], [0.66, -0.88], [0.8, -0.78]], 13)
    items.append(Item(place(roof, x, y, s), snowed(canvas, scene, mix(dark, p.low, 0.25))))
    items += [
        Item(box(x + s * (k - 0.1), y - s * 0.68, x + s * (k + 0.1), y - s * 0.42), pane, is_lit(scene))
        for k in (-0.57, -0.285, 0, 0.285, 0.57)
    ]
    return items


def _engine(canvas: Canvas, scene: Scene, x: float, y: float, s: float, side: int, coat: Rgb) -> list[Item]:
    """The engine, facing `side`: cab, boiler with bands and domes, chimney, wheels with a rod, cowcatcher."""
    p = canvas.palette
    brass = tint(canvas, scene, (240, 188, 74), accent=True)
    red = tint(canvas, scene, (204, 44, 36), accent=True)
    dark = shade(mix(coat, (20, 20, 26), 0.7), 0.8)
    light = mix(coat, WHITE, 0.28)

    def at(points: shapes.Points) -> np.ndarray:
        return place(points, x, y, s * side, s)

    def slab(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
        return at(box(x0, y0, x1, y1))

    items = [
        Item(slab(-0.8, -0.34, 0.86, -0.22), dark),
        Item(at([[0.8, -0.26], [1.12, -0.02], [0.8, -0.02]]), red),
        Item(slab(-0.32, -0.78, 0.8, -0.3), coat),
        Item(slab(-0.32, -0.72, 0.8, -0.62), light),
        Item(slab(0.72, -0.8, 0.88, -0.28), dark),
        *(Item(slab(k, -0.79, k + 0.04, -0.29), brass) for k in (-0.1, 0.2, 0.48)),
        Item(
            at([[0.6, -0.78], [0.57, -1.06], [0.52, -1.12], [0.84, -1.12], [0.79, -1.06], [0.76, -0.78]]),
            dark,
        ),
        Item(at(disc(0.28, -0.8, 0.1, 0.12, 16)), brass),
        Item(at(disc(0.0, -0.79, 0.08, 0.09, 16)), brass),
        Item(slab(-0.8, -1.0, -0.3, -0.26), coat),
        Item(
            slab(-0.7, -0.9, -0.42, -0.6),
            p.window if is_lit(scene) else mix(WHITE, p.top, 0.3),
            is_lit(scene),
        ),
        Item(at([[-0.9, -1.0], [-0.55, -1.1], [-0.2, -1.0]]), snowed(canvas, scene, dark)),
        Item(at(disc(0.92, -0.6, 0.06, 0.07, 12)), pale(p), is_lit(scene)),
    ]
    for cx, r in ((-0.5, 0.21), (-0.02, 0.21), (0.38, 0.16), (0.7, 0.16)):
        hub = at(disc(cx, -r, r, n=22))
        items += [
            Item(hub, shade(dark, 0.7)),
            Item(at(disc(cx, -r, r * 0.78, n=22)), red),
            Item(at(disc(cx, -r, r * 0.25, n=12)), brass),
        ]
    return [*items, Item(slab(-0.5, -0.24, 0.4, -0.19), mix(brass, WHITE, 0.3))]


def _smoke(canvas: Canvas, scene: Scene, rng: Rng, x: float, y: float, s: float) -> None:
    """Puffs that grow and rise backwards from the chimney."""
    p = canvas.palette
    puff = mix(p.cloud, WHITE, 0.45 if scene.hour != "noon" else 0.1)
    puff = mix(puff, p.far, 0.3) if scene.hour in ("noon", "dawn") else puff
    shadows, lights = [], []
    for k in range(11):
        t = k / 10
        cx = x - scene.side * s * (0.05 + 3.4 * t**1.15) + rng.uniform(-0.01, 0.01)
        cy = y - s * (0.12 + 1.25 * t**0.8) + 0.1 * s * np.sin(k * 2.1)
        r = s * (0.11 + 0.36 * t**0.8) * rng.uniform(0.9, 1.15)
        shadows.append(Item(disc(cx, cy + r * 0.16, r * 1.06, r * 0.9), shade(mix(puff, p.top, 0.25), 0.9)))
        lights.append(Item(disc(cx - r * 0.08, cy - r * 0.1, r * 0.84, r * 0.72), puff))
    canvas.draw("cloud", [*shadows, *lights], 0.4, 0.6)


def balloon(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """One to three striped hot-air balloons in the sky, the nearest large."""
    gap = scene.has("castle", "windmill", "lighthouse", "temple", "pagoda", "cypress")
    x = 0.5 + scene.side * rng.uniform(0.06, 0.26)
    if gap:  # away from what stands on the scene's side, and from the moon or sun on the other
        x = 0.5 - scene.side * (0.37 if abs(scene.light[0] - 0.5) < 0.23 else 0.1)
    r = rng.uniform(0.1, 0.13)
    spots = [(x, 0.19 + rng.uniform(-0.02, 0.03), r)]
    for k, (dx, dy, share) in enumerate(((-0.24 if gap else 0.25, 0.13, 0.42), (-0.2, 0.2, 0.3))):
        if rng.uniform() < 0.55 - 0.1 * k:
            spots.append((x + scene.side * dx, 0.16 + dy, r * share))
    for bx, by, br in spots[::-1]:
        canvas.draw("balloon", _balloon(canvas, scene, rng, bx, by, br), np.pi / 2, 0.95)


def _balloon(canvas: Canvas, scene: Scene, rng: Rng, x: float, y: float, r: float) -> list[Item]:
    """A balloon whose stripes follow its roundness, with ropes and a basket."""
    pairs: tuple[tuple[Rgb, Rgb], ...] = (
        ((220, 52, 44), (252, 232, 190)), ((36, 110, 176), (250, 206, 70)), ((236, 136, 40), (250, 240, 214)),
        ((126, 62, 140), (250, 180, 90)), ((40, 140, 120), (246, 236, 200)),
    )  # fmt: skip
    first, second = (tint(canvas, scene, c, accent=True) for c in pairs[int(rng.integers(5))])
    dark = shade(tint(canvas, scene, (120, 76, 46)), 0.75)
    t = np.linspace(0, 1, 25)
    down = np.where(t < 0.62, -np.cos(np.pi / 2 * t / 0.62), 1.28 * np.clip((t - 0.62) / 0.38, 0, 1))
    low = np.clip((t - 0.62) / 0.38, 0, 1)
    half = np.where(t < 0.62, np.sin(np.pi / 2 * t / 0.62), 1 - 0.78 * low**1.5)
    edges = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 9))
    items: list[Item] = []
    for side in (-0.17, 0.17):
        rope = np.array([[x + side * r, y + r * 1.24], [x + side * r * 0.7, y + r * 1.58]])
        items.append(Item(ribbon(rope, r * 0.035, r * 0.035), dark))
    items.append(Item(box(x - r * 0.16, y + r * 1.52, x + r * 0.16, y + r * 1.78), dark))
    items.append(Item(box(x - r * 0.18, y + r * 1.5, x + r * 0.18, y + r * 1.57), shade(dark, 1.5)))
    for k in range(8):
        left = np.stack([x + half * edges[k] * r, y + down * r], 1)
        right = np.stack([x + half * edges[k + 1] * r, y + down * r], 1)
        tone = shade(first if k % 2 else second, 1.06 - 0.045 * max(0, k - 2))
        items.append(Item(np.concatenate([left, right[::-1]]), tone))
    if rng.uniform() < 0.4:
        belt = [(a, b) for a, b in zip(half * r, down * r, strict=True) if -0.3 * r < b < 0.18 * r]
        band = [(x + a, y + b) for a, b in belt] + [(x - a, y + b) for a, b in belt[::-1]]
        items.append(Item(band, mix(first, WHITE, 0.15)))
    if is_lit(scene):
        items.append(Item(disc(x, y + r * 1.22, r * 0.1, r * 0.12, 12), canvas.palette.window, True))
    return items


# What paints each subject, with its depth (see landscape.PARTS).
PARTS: tuple[tuple[float, str, Callable[[Canvas, Scene, Rng], None]], ...] = (
    (-0.25, "harbour", quay_houses),
    (-0.2, "balloon", balloon),
    (0.32, "train", train),
    (0.6, "harbour", harbour),
)
