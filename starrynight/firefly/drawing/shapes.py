"""Outlines of the subjects of a painting, as polygons in shares of the picture's side (y pointing down).

Nothing here knows pixels or styles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from starrynight.firefly.drawing.palettes import WHITE, Palette, Rgb, gold, mix, pale, shade

Rng = np.random.Generator
# A line or an outline, [N, 2].
Points = np.ndarray | Sequence[Sequence[float] | np.ndarray]


class Item(NamedTuple):
    """A shape of one colour."""

    outline: Points
    colour: Rgb
    shines: bool = False


Band = Callable[..., Item]


def place(points: Points, x: float, y: float, width: float, height: float | None = None) -> np.ndarray:
    """Points scaled by `width` and `height` (the same by default), then moved to (x, y)."""
    return np.asarray(points) * (width, width if height is None else height) + (x, y)


def disc(x: float, y: float, rx: float, ry: float | None = None, n: int = 28) -> np.ndarray:
    """An ellipse."""
    turn = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([x + rx * np.cos(turn), y + (rx if ry is None else ry) * np.sin(turn)], 1)


def box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """An upright rectangle."""
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def star(x: float, y: float, outer: float, inner: float, points: int, turn: float = -np.pi / 2) -> np.ndarray:
    """A star with `points` rays; many rays make a ring of petals."""
    angles = turn + np.arange(2 * points) * np.pi / points
    radii = np.where(np.arange(2 * points) % 2 == 0, outer, inner)
    return np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], 1)


def crescent(x: float, y: float, r: float, side: int) -> np.ndarray:
    """A crescent moon whose horns point away from `side`."""
    turn = np.linspace(-2.15, 2.15, 30)
    outer = np.stack([np.cos(turn), np.sin(turn)], 1)
    inner_turn = np.linspace(1.0, -1.0, 30) * 2.0
    gap = outer[-1, 1] / np.sin(2.0)
    inner = np.stack(
        [np.cos(inner_turn) * gap * 0.72 + outer[-1, 0] - np.cos(2.0) * gap * 0.72, np.sin(inner_turn) * gap],
        1,
    )
    shape = np.concatenate([outer, inner]) * r * np.array([side, 1.0])
    lean = -0.45 * side
    spin = np.array([[np.cos(lean), -np.sin(lean)], [np.sin(lean), np.cos(lean)]])
    return shape @ spin.T + (x, y)


def curve(knots: Points, n: int = 40) -> np.ndarray:
    """A smooth line through the knots (Catmull-Rom), [n, 2]."""
    knots = np.asarray(knots, dtype=float)
    ends = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    at = np.linspace(0, len(knots) - 1 - 1e-6, n)
    i, t = at.astype(int), (at % 1)[:, None]
    a, b, c, d = ends[i], ends[i + 1], ends[i + 2], ends[i + 3]
    return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)


def ribbon(line: np.ndarray, start: float, end: float, belly: float = 0.0) -> np.ndarray:
    """A band along a line. Its width goes from `start` to `end`, plus `belly` in the middle."""
    t = np.linspace(0, 1, len(line))
    half = ((start + (end - start) * t) + belly * np.sin(np.pi * t))[:, None] / 2
    along = np.gradient(line, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], 1) / (np.linalg.norm(along, axis=1, keepdims=True) + 1e-9)
    return np.concatenate([line + across * half, (line - across * half)[::-1]])


def ridge(rng: Rng, base: float, height: float, rough: float, peaks: int = 3, n: int = 65) -> np.ndarray:
    """A mountain crest from edge to edge, [n, 2]: a few large peaks with finer and finer roughness."""
    x = np.linspace(-0.02, 1.02, n)
    y = np.zeros(n)
    for _ in range(peaks):
        centre, width = rng.uniform(0.02, 0.98), rng.uniform(0.16, 0.36)
        y = np.maximum(y, rng.uniform(0.6, 1.0) * np.clip(1 - np.abs(x - centre) / width, 0, 1) ** 1.15)
    for step in (4, 8, 16, 32):
        bumps = np.interp(x, np.linspace(-0.02, 1.02, step + 1), rng.uniform(-1, 1, step + 1))
        y = y + rough * 1.6 / step * bumps
    return np.stack([x, base - height * np.clip(y + 0.12, 0.02, None)], 1)


def hill(rng: Rng, base: float, height: float, n: int = 40) -> np.ndarray:
    """A smooth rolling crest from edge to edge, [n, 2]."""
    x = np.linspace(-0.02, 1.02, n)
    y = sum(rng.uniform(0.3, 1) / k * np.sin(2 * np.pi * (k * x * 0.7 + rng.uniform())) for k in (1, 2, 3))
    return np.stack([x, base - height * y], 1)


def down_to(line: np.ndarray, bottom: float) -> np.ndarray:
    """The area between a crest and a level below it."""
    return np.concatenate([line, [[line[-1, 0], bottom], [line[0, 0], bottom]]])


def cloud(rng: Rng, x: float, y: float, width: float, height: float) -> np.ndarray:
    """A cloud with a scalloped top and a flat base."""
    lobes = int(rng.integers(4, 7))
    edges = np.linspace(-1, 1, lobes + 1)
    points = []
    for left, right in pairwise(edges):
        middle, radius = (left + right) / 2, (right - left) / 2
        turn = np.linspace(np.pi, 0, 9)
        lift = (1 - middle**2) * rng.uniform(0.75, 1.1)
        points.append(np.stack([middle + radius * 1.15 * np.cos(turn), -lift - 0.5 * np.sin(turn)], 1))
    top = np.concatenate([[[-1.25, 0.0]], *points, [[1.25, 0.0]]])
    foot = np.stack([np.linspace(1.25, -1.25, 9), 0.14 * np.abs(np.sin(np.linspace(0, 3 * np.pi, 9)))], 1)
    return np.concatenate([top, foot]) * (width / 2, height / 1.6) + (x, y)


def flame_tree(rng: Rng, x: float, foot: float, height: float, width: float) -> np.ndarray:
    """A cypress in the shape of a tall flame with a few tongues."""
    t = np.linspace(0, 1, 46)
    sway = 0.18 * width * np.sin(2 * np.pi * (t * 1.1 + rng.uniform()))
    body = width / 2 * np.sin(np.pi * np.clip(t, 0, 1) ** 0.55) ** 0.8 * (1 - 0.25 * t)
    tongues = 0.16 * width * np.abs(np.sin(np.pi * (t * 5 + rng.uniform()))) * (1 - t)
    left = np.stack([x + sway - body - tongues, foot - t * height], 1)
    right = np.stack([x + sway + body + tongues[::-1] * (1 - t), foot - t * height], 1)
    return np.concatenate([left, right[::-1]])


def house(rng: Rng, p: Palette, x: float, y: float, w: float, snowy: bool, lit: bool) -> list[Item]:
    """A cottage standing at (x, y): a gable end, a long side under its roof, windows."""
    h = w * rng.uniform(0.42, 0.6)
    gable, peak = x - w * 0.18, y - h - w * rng.uniform(0.3, 0.42)
    left, right = x - w / 2, x + w / 2
    wall = mix(p.wall, (p.roof, p.far, p.cloud)[int(rng.integers(3))], rng.uniform(0.05, 0.3))
    roof = mix(p.cloud, WHITE, 0.5) if snowy else mix(p.roof, p.mid, rng.uniform(0, 0.45))
    middle = (left + gable) / 2
    side = [[gable, y - h * 0.95], [middle, peak], [right - w * 0.1, peak], [right + w * 0.04, y - h * 0.95]]
    eaves = np.array([[left - w * 0.03, y - h * 0.93], [middle, peak], [gable, y - h * 0.95]])
    items = [
        Item(box(gable, y - h, right, y), shade(wall, 0.78)),
        Item([[left, y], [left, y - h], [middle, peak], [gable, y - h], [gable, y]], wall),
        Item(side, roof),
        Item(ribbon(eaves, w * 0.05, w * 0.05), shade(roof, 0.8)),
    ]
    pane = p.window if lit else shade(mix(p.window, p.far, 0.75), 0.8)
    size = w * 0.13
    for cx in (middle, gable + (right - gable) * 0.3, gable + (right - gable) * 0.72):
        window = box(cx - size / 2, y - h * 0.68, cx + size / 2, y - h * 0.68 + size * 1.15)
        items.append(Item(window, pane, lit))
    return items


def church(p: Palette, x: float, y: float, w: float, snowy: bool, lit: bool) -> list[Item]:
    """A church with a tall steeple standing at (x, y)."""
    wall = mix(p.wall, p.far, 0.25)
    roof = mix(p.cloud, WHITE, 0.5) if snowy else mix(p.roof, p.far, 0.35)
    pane = p.window if lit else shade(p.far, 0.7)
    tower = w * 0.3
    steeple = [[x - tower * 0.62, y - w * 1.12], [x, y - w * 2.25], [x + tower * 0.62, y - w * 1.12]]
    windows = [box(x + w * k, y - w * 0.34, x + w * (k + 0.12), y - w * 0.1) for k in (0.3, 0.52, 0.74)]
    return [
        Item(box(x, y - w * 0.5, x + w, y), shade(wall, 0.8)),
        Item(place([[-0.04, -0.48], [0.1, -0.85], [0.92, -0.85], [1.05, -0.48]], x, y, w), roof),
        Item(box(x - tower / 2, y - w * 1.15, x + tower / 2, y), wall),
        Item(steeple, shade(roof, 0.85)),
        Item(disc(x, y - w * 0.85, w * 0.07, w * 0.1, 12), pane, lit),
        *(Item(window, pane, lit) for window in windows),
    ]


def pagoda(p: Palette, x: float, y: float, w: float, tiers: int, snowy: bool, lit: bool) -> list[Item]:
    """A pagoda with upturned eaves standing at (x, y), `w` wide at the foot."""
    items: list[Item] = []
    roof = mix(p.cloud, WHITE, 0.4) if snowy else p.roof
    wall, pane = mix(p.wall, p.roof, 0.25), p.window if lit else shade(p.far, 0.8)
    eave = curve([[-1.12, -0.95], [-0.8, -0.72], [0, -0.68], [0.8, -0.72], [1.12, -0.95]], 17)
    eaves = np.concatenate([eave, curve([[0.52, -1.28], [0, -1.32], [-0.52, -1.28]], 9)])
    for tier in range(tiers):
        half = w / 2 * (1 - 0.13 * tier)
        h = w * 0.36 * (1 - 0.07 * tier)
        items.append(Item(box(x - half * 0.62, y - h, x + half * 0.62, y), wall))
        for k in (-0.36, 0.0, 0.36):
            window = box(x + half * (k - 0.1), y - h * 0.62, x + half * (k + 0.1), y - h * 0.16)
            items.append(Item(window, pane, lit))
        items.append(Item(place(eaves, x, y, half, h), shade(roof, 0.82 + 0.1 * (tier % 2))))
        y -= h * 1.22
    return [*items, Item(place([[-0.05, 0], [0, -0.4], [0.05, 0]], x, y, w), shade(roof, 0.9))]


def bridge(p: Palette, colour: Rgb, x: float, y: float, span: float, rise: float) -> list[Item]:
    """An arched garden bridge with a railing, its feet at height y."""
    t = np.linspace(0, 1, 25)
    arch = np.stack([x + span * (t - 0.5), y - rise * np.sin(np.pi * t)], 1)
    thick, rail = span * 0.05, span * 0.11
    posts = [box(px - thick * 0.16, py - rail, px + thick * 0.16, py) for px, py in arch[1:25:3]]
    return [
        *(Item(post, shade(colour, 0.85)) for post in posts),
        Item(ribbon(arch - (0, rail), thick * 0.42, thick * 0.42), mix(colour, pale(p), 0.25)),
        Item(ribbon(arch - (0, rail * 0.5), thick * 0.25, thick * 0.25), colour),
        Item(ribbon(arch, thick, thick), colour),
        Item(ribbon(arch + np.array((0, thick * 0.45)), thick * 0.35, thick * 0.35), shade(colour, 0.6)),
    ]


def boat(rng: Rng, p: Palette, x: float, y: float, w: float, side: int, sail: bool) -> list[Item]:
    """A small boat on the water at (x, y): with a sail, or with a fisherman in a straw hat."""
    hull = [[-0.5, -0.1], [-0.3, 0.02], [0.3, 0.02], [0.55, -0.14], [0.36, 0.13], [-0.34, 0.13]]
    dark = shade(mix(p.roof, p.near, 0.6), 0.7)
    items = [Item(place(hull, x, y, w * side, w), dark)]
    if sail:
        cloth = mix(p.cloud, p.light, rng.uniform(0.2, 0.7))
        big = np.concatenate([curve([[0.03, -1.05], [0.3, -0.6], [0.42, -0.14]], 9), [[0.03, -0.12]]])
        small = [[-0.03, -0.95], [-0.34, -0.14], [-0.03, -0.12]]
        return [
            *items,
            Item(place(big, x, y, w * side, w), cloth),
            Item(place(small, x, y, w * side, w), shade(cloth, 0.82)),
            Item(box(x - w * 0.02, y - w * 1.08, x + w * 0.02, y), dark),
        ]
    man = [[-0.12, 0.0], [-0.09, -0.24], [0.0, -0.3], [0.09, -0.24], [0.12, 0.0]]
    hat = [[-0.17, -0.27], [0.0, -0.42], [0.17, -0.27]]
    rod = np.array([[x, y - w * 0.16], [x + side * w * 0.75, y - w * 0.5]])
    return [
        *items,
        Item(ribbon(rod, w * 0.035, w * 0.02), dark),
        Item(place(man, x - side * w * 0.06, y, w), shade(p.far, 0.8)),
        Item(place(hat, x - side * w * 0.06, y, w), mix(p.flower, p.wall, 0.5)),
    ]


def apsara(p: Palette, x: float, y: float, s: float, side: int, rng: Rng) -> list[Item]:
    """A flying apsara: halo, trailing skirt and long ribbons that wave behind."""

    def band(points: Points, start: float, end: float, belly: float, colour: Rgb, n: int = 40) -> Item:
        line = place(curve(points, n), x, y, s * side, s)
        return Item(ribbon(line, s * start, s * end, s * belly), colour)

    skin = mix(mix(p.wall, pale(p), 0.5), (250, 226, 200), 0.5)
    second, wave = mix(p.leaf, p.water, 0.35), rng.uniform(-0.06, 0.06, 6)
    hx, hy = x + side * s * 0.44, y - s * 0.64
    return [
        *_apsara_ribbons(p, band, second, wave),
        Item(disc(hx, hy, s * 0.24), mix(p.leaf, p.cloud, 0.35)),
        Item(disc(hx, hy, s * 0.19), mix(p.light, p.cloud, 0.3)),
        *_apsara_figure(p, band, second, skin, float(wave[0])),
        *_apsara_head(p, hx, hy, s, side, skin),
    ]


def _apsara_ribbons(p: Palette, band: Band, second: Rgb, wave: np.ndarray) -> list[Item]:
    back = [(-0.02, -0.78), (-0.34, -0.5), (-0.78, -0.72 + wave[1])]
    back += [(-1.2, -0.44), (-1.7, -0.72 + wave[2]), (-2.0, -0.6)]
    under = [(0.86, -0.5), (1.02, -0.1), (0.74, 0.3), (0.25, 0.5)]
    under += [(-0.3, 0.42 + wave[3]), (-0.85, 0.58), (-1.4, 0.32 + wave[4]), (-1.95, 0.46)]
    sash = [(0.14, -0.02), (-0.3, -0.1), (-0.75, -0.26 + wave[5]), (-1.2, -0.06), (-1.75, -0.22)]
    return [
        band(back, 0.06, 0.03, 0.08, p.water, 56),
        band(under, 0.05, 0.03, 0.09, p.flower, 64),
        band(sash, 0.04, 0.03, 0.09, second),
    ]


def _apsara_figure(p: Palette, band: Band, second: Rgb, skin: Rgb, wave: float) -> list[Item]:
    """Far arm, feet, skirt and its hem, body, bodice, near arm, and the scarf over them."""
    skirt = [(0.22, -0.16), (0.06, 0.1), (-0.34, 0.24), (-0.78, 0.13), (-1.14, -0.06)]
    hem = [(0.2, -0.12), (0.02, 0.06), (-0.34, 0.15), (-0.78, 0.05), (-1.2, -0.16)]
    arc = [(0.86, -0.5), (0.84, -0.98 + wave), (0.42, -1.2), (0.0, -1.08), (-0.06, -0.76)]
    return [
        band([(0.34, -0.43), (0.1, -0.48), (-0.03, -0.77)], 0.09, 0.05, 0.0, skin),
        band([(-0.85, 0.12), (-1.15, -0.06), (-1.32, -0.14)], 0.09, 0.03, 0.0, skin),
        band(skirt, 0.17, 0.16, 0.06, p.roof),
        band(hem, 0.07, 0.1, 0.03, mix(p.flower, pale(p), 0.35)),
        band([(0.41, -0.5), (0.36, -0.32), (0.22, -0.12)], 0.13, 0.16, 0.05, skin),
        band([(0.32, -0.3), (0.24, -0.16), (0.14, -0.02)], 0.17, 0.2, 0.0, second),
        band([(0.42, -0.43), (0.68, -0.3), (0.86, -0.52)], 0.09, 0.05, 0.0, skin),
        band(arc, 0.04, 0.04, 0.07, second, 48),
    ]


def _apsara_head(p: Palette, hx: float, hy: float, s: float, side: int, skin: Rgb) -> list[Item]:
    hair = shade(mix(p.top, p.near, 0.5), 0.5)
    return [
        Item(disc(hx - side * s * 0.02, hy - s * 0.05, s * 0.115), hair),
        Item(disc(hx - side * s * 0.03, hy - s * 0.19, s * 0.06), hair),
        Item(disc(hx - side * s * 0.025, hy - s * 0.13, s * 0.04, s * 0.025), p.flower),
        Item(disc(hx + side * s * 0.02, hy + s * 0.015, s * 0.085, s * 0.1), skin),
    ]


def sunflower(rng: Rng, p: Palette, x: float, y: float, r: float, foot: float) -> list[Item]:
    """A sunflower: stem down to `foot`, leaves, two rings of petals, a dark centre."""
    bend = [x + rng.uniform(-0.3, 0.3) * r, (y + foot) / 2]
    stem = curve([[x, y], bend, [x + rng.uniform(-0.6, 0.6) * r, foot]], 9)
    green = mix(p.leaf, p.mid, rng.uniform(0, 0.4))
    items = [Item(ribbon(stem, r * 0.2, r * 0.22), green)]
    for side in (-1, 1):
        ly = y + r * rng.uniform(1.4, 2.0)
        leaf = curve(place([[0, 0.3], [side * 0.7, -0.1], [side * 1.35, 0.25]], x, ly, r), 11)
        items.append(Item(ribbon(leaf, r * 0.08, r * 0.04, r * 0.5), shade(green, 1.15)))
    yellow = mix(gold(p), pale(p), rng.uniform(0.0, 0.35))
    tilt, turn = rng.uniform(0.78, 1.0), rng.uniform(0, 1)
    for outer, inner, colour in ((1.0, 0.62, shade(yellow, 0.84)), (0.86, 0.55, yellow)):
        petals = star(0, 0, r * outer, r * inner, 12, turn + inner)
        items.append(Item(place(petals, x, y, 1.0, tilt), colour))
    heart = mix(shade(p.roof, 0.6), (60, 34, 20), 0.6)
    return [
        *items,
        Item(disc(x, y, r * 0.46, r * 0.46 * tilt), heart),
        Item(disc(x, y, r * 0.22, r * 0.22 * tilt), mix(heart, yellow, 0.35)),
    ]


def bird(x: float, y: float, s: float, colour: Rgb, lift: float) -> Item:
    """A distant bird in flight."""
    wings = curve([[-1, -0.25 - lift], [-0.45, -0.42], [0, 0], [0.45, -0.42], [1, -0.25 - lift]], 17)
    return Item(ribbon(place(wings, x, y, s), s * 0.05, s * 0.05, s * 0.2), colour)
