"""Place streets on the canvas: a lane between houses, with lamps and paper lanterns."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

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
        """The point in shares of the side."""
        return [self.x + across / d, self.y + (0.5 - above) / d]


class _House(NamedTuple):
    """A house of a row: its front stands at `wide` across the lane, `high`, from depth `near` to `far`."""

    lane: _Lane
    wide: float
    high: float
    near: float
    far: float
    front: Rgb

    def at(self, inward: float, above: float, t: float) -> list[float]:
        """A point `inward` of the front (a share of `wide`, 1 on it), t in 0..1 along it."""
        return self.lane.at(self.wide * inward, above, self.near + (self.far - self.near) * t)

    def pane(self, low: float, high: float, a: float, b: float) -> list[list[float]]:
        """A rectangle on the front between a and b in 0..1 along it."""
        return [self.at(1, low, a), self.at(1, high, a), self.at(1, high, b), self.at(1, low, b)]


def street(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A lane between two rows of houses with shops, narrowing to a vanishing point; western or Chinese."""
    lane = _Lane(0.5 + scene.side * rng.uniform(0.0, 0.06), scene.horizon + 0.015)
    _pavement(canvas, scene, rng, lane)
    canvas.draw("house", _far_end(canvas, scene, rng, lane), np.pi / 2, 0.9)
    if scene.has("church"):
        tower = shapes.church(canvas.palette, lane.x - 0.04, lane.y + 0.06, 0.15, snowy(scene), is_lit(scene))
        canvas.draw("house", tower, np.pi / 2, 0.95)
    liking = 0.7 if scene.style in ("ink", "ukiyoe", "dunhuang") else 0.12
    eastern = rng.uniform() < max(liking, 0.5 * scene.has("lanterns"))
    cuts = np.array([0.62, 0.98, 1.4, 1.95, 2.7, 3.8, 5.4, 8.0])
    for group in ((6, 5, 4), (3, 2), (1, 0)):
        items: list[Item] = []
        for k in group:
            for side in (-1, 1):
                house = _house(
                    canvas, scene, rng, lane, side, cuts[k] * rng.uniform(0.97, 1.03), cuts[k + 1], eastern
                )
                items += (_eastern if eastern else _western)(canvas, scene, rng, house)
        canvas.draw("house", items, np.pi / 2, 0.93)
    _lamps(canvas, scene, lane)


def _far_end(canvas: Canvas, scene: Scene, rng: Rng, lane: _Lane) -> list[Item]:
    """Small pale houses where the lane ends."""
    p = canvas.palette
    items: list[Item] = []
    for k in (-1, 1, 0):
        x, y, w = lane.x + 0.05 * k, lane.y + 0.03, 0.07
        h = 0.05 + 0.035 * rng.uniform() + 0.02 * (k == 0)
        wall = mix(
            mix(tint(canvas, scene, FRONTS[int(rng.integers(7))]), p.low, 0.35), p.far, 0.15 + 0.15 * abs(k)
        )
        roof = snowed(canvas, scene, shade(mix(wall, p.roof, 0.4), 0.8))
        items += [Item(box(x - w / 2, y - h, x + w / 2, y), wall)]
        items += [Item([[x - w * 0.56, y - h], [x, y - h - w * 0.55], [x + w * 0.56, y - h]], roof)]
        items += [Item(box(x - w * 0.12, y - h * 0.75, x + w * 0.12, y - h * 0.4), p.window, is_lit(scene))]
    return items


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
    if not snowy(scene) and (is_lit(scene) or scene.weather == "rain"):
        _gleams(canvas, scene, rng, lane, mix(base, glow, 0.5))


def _gleams(canvas: Canvas, scene: Scene, rng: Rng, lane: _Lane, base: Rgb) -> None:
    """The shops' light on the pavement; longer on a wet one."""
    wet = scene.weather == "rain"
    items: list[Item] = []
    for d in (4.6, 3.2, 2.3, 1.65, 1.2, 0.95):
        for side in (-1, 1):
            colour = mix(canvas.palette.window, (_AWNINGS[int(rng.integers(4))]), 0.35 if wet else 0.0)
            long = rng.uniform(0.24, 0.34) if wet else 0.1
            a, b, edge = d * rng.uniform(0.94, 1.0), d * rng.uniform(1.12, 1.2), 0.39 * side
            quad = [
                lane.at(edge, -0.01, a),
                lane.at(edge, -0.01, b),
                lane.at(edge * 0.94, -long, b),
                lane.at(edge * 0.94, -long, a),
            ]
            items.append(Item(quad, mix(base, colour, 0.6 if wet else 0.4), wet and is_lit(scene)))
    canvas.draw("water", items, np.pi / 2, 0.5)


def _house(
    canvas: Canvas, scene: Scene, rng: Rng, lane: _Lane, side: int, near: float, far: float, eastern: bool
) -> _House:
    """A house with a colour of its own; the rows have a light and a shaded side."""
    p = canvas.palette
    fronts = ((238, 226, 204), (164, 96, 64), (196, 84, 60), (214, 172, 116)) if eastern else FRONTS
    front = tint(canvas, scene, fronts[int(rng.integers(len(fronts)))], accent=scene.hour == "night")
    front = shade(front, 1.0 if side == scene.side else 0.84)
    if is_lit(scene):
        front = mix(front, p.window, 0.1)
    front = mix(front, p.low, min(0.5, 0.05 * far))
    high = rng.uniform(0.66, 0.82) if eastern else rng.uniform(0.74, 0.98)
    return _House(lane, 0.4 * side, high, near, far, front)


def _western(canvas: Canvas, scene: Scene, rng: Rng, house: _House) -> list[Item]:
    """A house with a gable or eaves towards the lane, windows, a shop with a striped awning or a door."""
    high, near, far = house.high, house.near, house.far
    roof = snowed(canvas, scene, mix(tint(canvas, scene, (150, 70, 54)), house.front, 0.1))
    if rng.uniform() < 0.45:
        slope = [
            house.at(0.86, high - 0.03, 0),
            house.at(0.86, high - 0.03, 1),
            house.at(1.5, high + 0.12, 1),
            house.at(1.5, high + 0.12, 0),
        ]
        items = [Item(house.pane(0, high, 0, 1), house.front), Item(slope, roof)]
    else:
        peak = house.at(1, high + 0.2, 0.42)
        gable = [house.at(1, 0, 0), house.at(1, high, 0), peak, house.at(1, high, 1), house.at(1, 0, 1)]
        edge = np.array([house.at(0.96, high - 0.03, 0), peak, house.at(0.96, high - 0.03, 1)])
        items = [Item(gable, house.front), Item(ribbon(edge, 0.05 / near, 0.05 / far), roof)]
    items += _windows(canvas, scene, rng, house, (0.42, 0.66), mix(house.front, WHITE, 0.4))
    pane = _pane(canvas, scene, house)
    shop = rng.uniform() < 0.7
    for a, b in ((0.08, 0.5), (0.58, 0.9)) if shop else ((0.2, 0.46), (0.62, 0.86)):
        items.append(Item(house.pane(0.01 if a < 0.5 else 0.09, 0.25, a, b), pane, is_lit(scene)))
    return items + (_awning(canvas, scene, rng, house) if shop else [])


def _pane(canvas: Canvas, scene: Scene, house: _House) -> Rgb:
    p = canvas.palette
    return p.window if is_lit(scene) else mix(shade(house.front, 0.4), p.top, 0.3)


def _windows(
    canvas: Canvas, scene: Scene, rng: Rng, house: _House, floors: tuple[float, ...], frame: Rgb
) -> list[Item]:
    """Two windows on each floor, most of them lit in the dark."""
    lit, items = is_lit(scene), []
    for floor in floors:
        for a in (0.14, 0.58) if floor + 0.17 < house.high else ():
            on = lit and rng.uniform() < 0.75
            tone = _pane(canvas, scene, house) if on or not lit else shade(house.front, 0.5)
            outer = house.pane(floor - 0.015, floor + 0.165, a - 0.03, a + 0.29)
            items.append(Item(outer, shade(house.front, 0.55) if lit else frame))
            items.append(Item(house.pane(floor, floor + 0.15, a, a + 0.26), tone, on))
    return items


def _awning(canvas: Canvas, scene: Scene, rng: Rng, house: _House) -> list[Item]:
    """A striped awning over the lane with a hanging edge."""
    colour = tint(canvas, scene, _AWNINGS[int(rng.integers(4))], accent=True)
    items: list[Item] = []
    for k in range(6):
        a, b = 0.03 + 0.155 * k, 0.03 + 0.155 * (k + 1)
        cloth = [house.at(1, 0.36, a), house.at(1, 0.36, b), house.at(0.76, 0.25, b), house.at(0.76, 0.25, a)]
        drop = [
            house.at(0.76, 0.25, a),
            house.at(0.76, 0.25, b),
            house.at(0.76, 0.225, b),
            house.at(0.76, 0.225, a),
        ]
        items.append(Item(cloth, mix(colour, WHITE, 0.75) if k % 2 else colour))
        items.append(Item(drop, shade(mix(colour, WHITE, 0.6) if k % 2 else colour, 0.75)))
    return items


def _eastern(canvas: Canvas, scene: Scene, rng: Rng, house: _House) -> list[Item]:
    """A Chinese house: tiled eaves with upturned ends on two floors, red posts, lattice, a hanging sign."""
    red = tint(canvas, scene, RED, accent=True)
    tiles = snowed(canvas, scene, tint(canvas, scene, (92, 106, 118)))
    items = [Item(house.pane(0, house.high, 0, 1), house.front)]
    items += _windows(canvas, scene, rng, house, (0.44,), shade(red, 0.6))
    items.append(Item(house.pane(0.0, 0.27, 0.06, 0.94), _pane(canvas, scene, house), is_lit(scene)))
    for a in (0.02, 0.22, 0.42, 0.62, 0.82):
        items.append(Item(house.pane(0.0, 0.3, a, a + 0.05), red))
    items.append(Item(house.pane(0.0, 0.07, 0.06, 0.94), shade(red, 0.6)))
    items += _eave(house, 0.29, 0.12, tiles) + _eave(house, house.high - 0.05, 0.2, tiles)
    if rng.uniform() < 0.7:
        x, top = house.at(0.76, 0.56, 0.1)
        s, gold = 1 / house.near, tint(canvas, scene, (246, 204, 96), accent=True)
        items += [
            Item(box(x - 0.032 * s, top, x + 0.032 * s, top + 0.2 * s), red),
            Item(box(x - 0.014 * s, top + 0.025 * s, x + 0.014 * s, top + 0.175 * s), gold),
        ]
    return items


def _eave(house: _House, base: float, rise: float, tiles: Rgb) -> list[Item]:
    """A strip of roof over the front whose lower edge curls up at both ends."""
    along = np.linspace(-0.04, 1.0, 15)
    lower = np.array([house.at(0.76, base + 0.07 * abs(2 * t - 1) ** 3, t) for t in along])
    upper = np.array([house.at(1.0 + 0.4 * (rise > 0.15), base + rise, t) for t in along])
    return [
        Item(np.concatenate([lower, upper[::-1]]), tiles),
        Item(ribbon(lower, 0.03 / house.near, 0.03 / house.far), mix(tiles, WHITE, 0.3)),
        Item(
            ribbon(np.add(lower, (0, 0.018 / house.near)), 0.012 / house.near, 0.012 / house.far),
            shade(tiles, 0.5),
        ),
    ]


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
    """Lanterns along a string, all round or all long: red, with a lighter heart, gold caps and a tassel."""
    p, lit = canvas.palette, is_lit(scene)
    red = tint(canvas, scene, RED, accent=True)
    red = mix(red, RED, 0.6) if lit else red
    gold = mix((246, 196, 84), p.window, 0.3)
    wide, high = (0.72, 1.12) if rng.uniform() < 0.25 else (1.0, 0.86)
    items = [Item(ribbon(line, 0.005, 0.005), shade(mix(p.near, (40, 24, 24), 0.6), 0.8))]
    for k in range(count):
        x, top = line[int((k + 0.5) / count * (len(line) - 1))]
        s = size * rng.uniform(0.92, 1.08)
        w, h = s * wide, s * high
        y = top + s * 0.49 + h
        items += [
            Item(box(x - s * 0.04, top, x + s * 0.04, y), gold),
            Item(box(x - s * 0.05, y + h * 0.9, x + s * 0.05, y + h * 0.9 + s * 0.9), shade(gold, 0.9)),
            Item(disc(x, y, w * 1.06, h * 1.05), shade(red, 0.7)),
            Item(disc(x, y, w * 0.98, h), red, lit),
            Item(disc(x, y + h * 0.07, w * 0.6, h * 0.97), mix(red, (255, 120, 50), 0.55), lit),
            Item(disc(x, y + h * 0.1, w * 0.24, h * 0.93), mix(red, (255, 196, 96), 0.8), lit),
            Item(box(x - w * 0.42, y - h * 1.14, x + w * 0.42, y - h * 0.9), gold),
            Item(box(x - w * 0.42, y + h * 0.9, x + w * 0.42, y + h * 1.14), gold),
        ]
    return items


# What paints each subject, with its depth (see landscape.PARTS).
PARTS: tuple[tuple[float, str, Callable[[Canvas, Scene, Rng], None]], ...] = (
    (0.05, "street", street),
    (0.68, "lanterns", lanterns),
)
