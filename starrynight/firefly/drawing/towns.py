"""Place streets on the canvas: a lane between houses, with lamps and paper lanterns."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from starrynight.firefly.drawing import shapes
from starrynight.firefly.drawing.buildings import is_lit, snowy
from starrynight.firefly.drawing.built import (
    FRONTS,
    RED,
    snowed,
    stone,
    tint,
)
from starrynight.firefly.drawing.canvas import Canvas
from starrynight.firefly.drawing.palettes import WHITE, Rgb, mix, shade
from starrynight.firefly.drawing.scene import Scene
from starrynight.firefly.drawing.shapes import Item, box, curve, disc, place, ribbon

Rng = np.random.Generator

_AWNINGS: tuple[Rgb, ...] = ((214, 52, 44), (46, 128, 110), (238, 168, 44), (60, 92, 168))


class _Lane:
    """The perspective of a lane: a point `across` and `above` the lane at depth `d` (1 is near)."""

    def __init__(self, x: float, y: float) -> None:
        self.x, self.y = x, y

    def at(self, across: float, above: float, d: float) -> list[float]:
        return [self.x + across / d, self.y + (0.5 - above) / d]

    def wall(self, across: float, low: float, high: float, near: float, far: float) -> np.ndarray:
        """A rectangle on a wall along the lane."""
        corners = ((low, near), (high, near), (high, far), (low, far))
        return np.array([self.at(across, above, d) for above, d in corners])


def street(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A lane between two rows of houses with shops, narrowing to a vanishing point."""
    lane = _Lane(0.5 + scene.side * rng.uniform(0.0, 0.06), scene.horizon + 0.015)
    _pavement(canvas, scene, rng, lane)
    if scene.has("church"):
        style = snowy(scene), is_lit(scene)
        canvas.draw(
            "house",
            shapes.church(canvas.palette, lane.x - 0.04, lane.y + 0.06, 0.15, *style),
            np.pi / 2,
            0.95,
        )
    eastern = rng.uniform() < (
        0.75 if scene.style in ("ink", "ukiyoe", "dunhuang") else 0.35 if scene.has("lanterns") else 0.1
    )
    cuts = np.array([0.62, 0.98, 1.4, 1.95, 2.7, 3.8, 5.4, 8.0])
    for k in range(len(cuts) - 2, -1, -1):
        for side in (-1, 1):
            near, far = cuts[k] * rng.uniform(0.97, 1.03), cuts[k + 1]
            items = _row_house(canvas, scene, rng, lane, side, near, far, eastern)
            canvas.draw("house", items, np.pi / 2, 0.93)
    _lamps(canvas, scene, lane)


def _pavement(canvas: Canvas, scene: Scene, rng: Rng, lane: _Lane) -> None:
    """The lane itself: setts in perspective, light from the shops, white in snow."""
    p = canvas.palette
    base = mix(stone(canvas, scene, 0.6), p.near, 0.45 if is_lit(scene) else 0.25)
    if snowy(scene):
        base = mix(mix(p.cloud, WHITE, 0.5), p.far, 0.15)
    glow = mix(base, p.window, 0.45) if is_lit(scene) else mix(base, WHITE, 0.25)
    line = np.array([[-0.02, lane.y], [1.02, lane.y]])
    canvas.ground("land", line, canvas.rows(glow, base, shade(base, 0.72), lane.y, 1.0, 0.5), 0.0, 0.5)
    items: list[Item] = []
    edges = 1.0 / np.linspace(0.95, 0.09, 15)
    for row, (a, b) in enumerate(pairwise(edges)):
        for k in range(-4, 4):
            left, right = (k + 0.5 * (row % 2)) * 0.1, (k + 0.5 * (row % 2) + 0.88) * 0.1
            drop = rng.uniform(0.84, 1.14)
            b2 = a + (b - a) * 0.86
            quad = [lane.at(left, 0, a), lane.at(right, 0, a), lane.at(right, 0, b2), lane.at(left, 0, b2)]
            tone = mix(base, glow, 0.9 * rng.uniform() * min(1.0, 0.25 + 0.16 * a))
            if rng.uniform() < 0.62:
                items.append(Item(quad, shade(tone, drop)))
    canvas.draw("land", items, 0.0, 0.6)


def _row_house(
    canvas: Canvas, scene: Scene, rng: Rng, lane: _Lane, side: int, near: float, far: float, eastern: bool
) -> list[Item]:
    """One house of a row: front along the lane, roof or gable, windows, a shop with its awning."""
    p = canvas.palette
    wide, high = 0.4 * side, rng.uniform(0.72, 0.98)
    front = tint(
        canvas, scene, (150, 92, 66) if eastern and rng.uniform() < 0.5 else FRONTS[int(rng.integers(7))]
    )
    front = shade(front, 1.0 if side == scene.side else 0.86)
    if is_lit(scene):
        front = mix(front, p.window, 0.12)
    front = mix(front, p.low, min(0.5, 0.05 * far))
    roof = snowed(
        canvas, scene, mix(tint(canvas, scene, (70, 66, 76) if eastern else (150, 70, 54)), front, 0.1)
    )
    middle = 2 / (1 / near + 1 / far)
    items: list[Item] = []
    back = wide * 1.5
    if eastern or rng.uniform() < 0.45:
        rise = high + 0.12
        slope = [
            lane.at(wide * 0.86, high - 0.03, near),
            lane.at(wide * 0.86, high - 0.03, far),
            lane.at(back, rise, far),
            lane.at(back, rise, near),
        ]
        items += [Item(lane.wall(wide, 0, high, near, far), front), Item(slope, roof)]
        if eastern:
            tip = lane.at(wide * 0.82, high + 0.02, near)
            curl = curve(
                [tip, lane.at(wide * 0.86, high - 0.03, near * 1.04), lane.at(wide * 0.86, high - 0.03, far)],
                12,
            )
            items.append(Item(ribbon(curl, 0.03 / near, 0.03 / far), shade(roof, 0.7)))
    else:
        peak = lane.at(wide, high + 0.2, middle)
        gable = [
            lane.at(wide, 0, near),
            lane.at(wide, high, near),
            peak,
            lane.at(wide, high, far),
            lane.at(wide, 0, far),
        ]
        items += [Item(gable, front)]
        edge = np.array(
            [lane.at(wide * 0.96, high - 0.03, near), peak, lane.at(wide * 0.96, high - 0.03, far)]
        )
        items.append(Item(ribbon(edge, 0.045 / near, 0.045 / far), roof))
    return items + _openings(canvas, scene, rng, lane, wide, high, near, far, front)


def _openings(
    canvas: Canvas,
    scene: Scene,
    rng: Rng,
    lane: _Lane,
    wide: float,
    high: float,
    near: float,
    far: float,
    front: Rgb,
) -> list[Item]:
    """Windows upstairs; below, a lit shop with a striped awning, or a door and a window."""
    p, lit = canvas.palette, is_lit(scene)
    pane = p.window if lit else mix(shade(front, 0.4), p.top, 0.3)
    items: list[Item] = []

    def depth(t: float) -> float:
        return near + (far - near) * t

    for floor in (0.42, 0.66):
        if floor + 0.17 > high:
            continue
        for t in (0.14, 0.58):
            on = lit and rng.uniform() < 0.75
            tone = pane if on or not lit else shade(front, 0.5)
            frame = lane.wall(wide, floor - 0.015, floor + 0.165, depth(t - 0.03), depth(t + 0.29))
            items.append(Item(frame, mix(front, WHITE, 0.4) if not on else shade(front, 0.55)))
            items.append(Item(lane.wall(wide, floor, floor + 0.15, depth(t), depth(t + 0.26)), tone, on))
    shop = rng.uniform() < 0.7
    for a, b in ((0.08, 0.5), (0.58, 0.9)) if shop else ((0.2, 0.46), (0.62, 0.86)):
        items.append(Item(lane.wall(wide, 0.01 if a < 0.5 else 0.09, 0.25, depth(a), depth(b)), pane, lit))
    if shop:
        colour = tint(canvas, scene, _AWNINGS[int(rng.integers(4))], accent=True)
        for k in range(6):
            a, b = depth(0.03 + 0.155 * k), depth(0.03 + 0.155 * (k + 1))
            quad = [
                lane.at(wide, 0.36, a),
                lane.at(wide, 0.36, b),
                lane.at(wide * 0.76, 0.25, b),
                lane.at(wide * 0.76, 0.25, a),
            ]
            items.append(Item(quad, mix(colour, WHITE, 0.75) if k % 2 else colour))
            drop = [
                lane.at(wide * 0.76, 0.25, a),
                lane.at(wide * 0.76, 0.25, b),
                lane.at(wide * 0.76, 0.225, b),
                lane.at(wide * 0.76, 0.225, a),
            ]
            items.append(Item(drop, shade(mix(colour, WHITE, 0.6) if k % 2 else colour, 0.75)))
    return items


def _lamps(canvas: Canvas, scene: Scene, lane: _Lane) -> None:
    """Street lamps along one side."""
    p = canvas.palette
    dark = shade(mix(p.near, (30, 26, 34), 0.7), 0.8)
    items: list[Item] = []
    for d in (4.2, 2.4, 1.45):
        x, foot = lane.at(-0.3 * scene.side, 0, d)
        top, s = lane.at(0, 0.58, d)[1], 1.25 / d
        items.append(Item(box(x - 0.007 * s, top, x + 0.007 * s, foot), dark))
        items.append(
            Item(
                place([[-0.03, -0.07], [0.03, -0.07], [0.02, 0], [-0.02, 0]], x, top, s),
                p.window if is_lit(scene) else WHITE,
                is_lit(scene),
            )
        )
        items.append(Item(place([[-0.04, -0.07], [0, -0.11], [0.04, -0.07]], x, top, s), dark))
    canvas.draw("lamp", items, np.pi / 2, 0.95)


def lanterns(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Red paper lanterns on strings: across a street, along a quay, else across the top of the picture."""
    strings: list[tuple[list[list[float]], int, float]] = []
    if scene.kind == "street":
        for d, count in ((3.6, 3), (2.2, 4), (1.4, 5)):
            top, half = scene.horizon + 0.015 - 0.44 / d, 0.38 / d
            lean = rng.uniform(-0.05, 0.05) / d
            strings.append(
                (
                    [[0.5 - half, top + lean], [0.5, top + 0.09 / d], [0.5 + half, top - lean]],
                    count,
                    0.062 / d,
                )
            )
    elif scene.kind == "harbour":
        y = scene.horizon - 0.12
        strings.append(([[-0.03, y], [0.28, y + 0.06], [0.6, y], [1.03, y + 0.05]], 9, 0.024))
    else:
        y = rng.uniform(0.02, 0.06)
        ends = y + scene.side * 0.05, y - scene.side * 0.05
        strings.append(([[-0.03, ends[0]], [0.3, y + 0.1], [0.68, y + 0.08], [1.03, ends[1]]], 5, 0.052))
    for knots, count, size in strings:
        canvas.draw("lantern", _string(canvas, scene, rng, curve(knots, 50), count, size), np.pi / 2, 0.95)


def _string(canvas: Canvas, scene: Scene, rng: Rng, line: np.ndarray, count: int, size: float) -> list[Item]:
    """Lanterns along a string: a red globe with a lighter heart and ribs, gold caps, a tassel."""
    p, lit = canvas.palette, is_lit(scene)
    red = tint(canvas, scene, RED, accent=True)
    red = mix(red, RED, 0.6) if lit else red
    gold = mix((246, 196, 84), p.window, 0.3)
    items = [Item(ribbon(line, 0.005, 0.005), shade(mix(p.near, (40, 24, 24), 0.6), 0.8))]
    for k in range(count):
        x, top = line[int((k + 0.5) / count * (len(line) - 1))]
        s = size * rng.uniform(0.92, 1.08)
        y = top + s * 1.35
        items += [
            Item(box(x - s * 0.04, top, x + s * 0.04, y), gold),
            Item(box(x - s * 0.05, y + s * 0.8, x + s * 0.05, y + s * 1.7), shade(gold, 0.9)),
            Item(disc(x, y, s * 1.06, s * 0.9), shade(red, 0.7), False),
            Item(disc(x, y, s * 0.98, s * 0.86), red, lit),
            Item(disc(x, y + s * 0.06, s * 0.6, s * 0.84), mix(red, (255, 120, 50), 0.55), lit),
            Item(disc(x, y + s * 0.1, s * 0.24, s * 0.82), mix(red, (255, 196, 96), 0.8), lit),
            Item(box(x - s * 0.42, y - s * 0.98, x + s * 0.42, y - s * 0.78), gold),
            Item(box(x - s * 0.42, y + s * 0.78, x + s * 0.42, y + s * 0.98), gold),
        ]
    return items


# What paints each subject, with its depth (see landscape.PARTS).
PARTS: tuple[tuple[float, str, Callable[[Canvas, Scene, Rng], None]], ...] = (
    (0.05, "street", street),
    (0.64, "lanterns", lanterns),
)
