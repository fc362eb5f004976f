"""Place landmarks on the canvas: lighthouse, castle, windmill, Great Wall; PARTS has all that was built."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from starrynight.firefly.drawing import halls, shapes, towns, travel
from starrynight.firefly.drawing.buildings import is_lit, snowy
from starrynight.firefly.drawing.built import (
    RED,
    arch,
    aside,
    knoll,
    merlons,
    pane_colour,
    snowed,
    stone,
    tint,
)
from starrynight.firefly.drawing.canvas import Canvas
from starrynight.firefly.drawing.palettes import WHITE, Rgb, mix, pale, shade
from starrynight.firefly.drawing.scene import Scene
from starrynight.firefly.drawing.shapes import Item, box, curve, disc, place, ribbon

Rng = np.random.Generator


def lighthouse(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A lighthouse on a rock, with red bands or a red lantern; its beam sweeps when windows are lit."""
    p = canvas.palette
    x = aside(scene, rng, 0.29, 0.36) + 0.06 * scene.side * scene.has("harbour")
    h, foot = rng.uniform(0.36, 0.42), scene.horizon - 0.045
    w = h * rng.uniform(0.24, 0.29)
    lamp = foot - h * 0.86
    if is_lit(scene):
        _beam(canvas, scene, x, lamp, float(rng.uniform(-0.12, 0.06)))
    rock = shade(mix(p.far, p.near, 0.6), 0.55)
    white = mix(tint(canvas, scene, (248, 244, 236)), WHITE, 0.25)
    red = tint(canvas, scene, RED, accent=True)
    lift = np.array(
        [[-1.0, 0.6], [-0.8, 0.1], [-0.55, 0.0], [-0.4, -0.32], [0.3, -0.4], [0.5, -0.08], [0.8, 0.05]]
    )
    crag = place([*lift.tolist(), [1.0, 0.6]], x, foot + 0.03, w * 2.9, h * 0.24)
    light = place(
        [[-0.8, 0.3], [-0.5, 0.05], [-0.36, -0.26], [-0.1, -0.3], [-0.35, 0.3]],
        x,
        foot + 0.03,
        w * 2.9,
        h * 0.24,
    )
    rocks = [Item(crag, rock), Item(light, mix(rock, p.low, 0.38))]
    if not scene.has("sea", "lake"):
        knoll(canvas, scene, x, foot, 0.5)
    canvas.draw("rock", rocks, 0.5, 0.8)
    if rng.uniform() < 0.4:  # the keeper's cottage
        yard = x + w * (0.95 if x < 0.5 else -0.95)
        home = shapes.house(rng, p, yard, foot + 0.01, w * 1.05, snowy(scene), is_lit(scene))
        canvas.draw("house", home, np.pi / 2, 0.95)
    items = _light_tower(x, foot, w, h, white, red, int(rng.integers(3)), pane_colour(canvas, scene, red))
    glass = p.window if is_lit(scene) else mix(pale(p), (140, 180, 200), 0.5)
    items += [
        Item(box(x - w * 0.42, foot - h * 0.8, x + w * 0.42, foot - h * 0.775), shade(red, 0.55)),
        Item(box(x - w * 0.2, foot - h * 0.93, x + w * 0.2, foot - h * 0.8), glass, is_lit(scene)),
        Item(box(x - w * 0.025, foot - h * 0.93, x + w * 0.025, foot - h * 0.8), shade(red, 0.5)),
        Item(
            place([[-0.3, 0], [-0.2, -0.07], [0, -0.12], [0.2, -0.07], [0.3, 0]], x, foot - h * 0.92, w, h),
            red,
        ),
        Item(box(x - w * 0.02, foot - h * 1.1, x + w * 0.02, foot - h * 1.02), shade(red, 0.5)),
    ]
    canvas.draw("tower", items, np.pi / 2, 0.95)


def _light_tower(
    x: float, foot: float, w: float, h: float, white: Rgb, red: Rgb, pattern: int, pane: Rgb
) -> list[Item]:
    """The tapered tower: bands, wide bands or plain, with a shaded side and small windows."""

    def part(low: float, high: float, colour: Rgb) -> list[Item]:
        a, b = w * (0.5 - 0.2 * low), w * (0.5 - 0.2 * high)
        ya, yb = foot - h * 0.78 * low, foot - h * 0.78 * high
        whole = [[x - a, ya], [x - b, yb], [x + b, yb], [x + a, ya]]
        dark = [[x + a * 0.35, ya], [x + b * 0.35, yb], [x + b, yb], [x + a, ya]]
        return [Item(whole, colour), Item(dark, shade(colour, 0.72))]

    bands = {0: ((0.14, 0.34), (0.52, 0.7), (0.86, 1.0)), 1: ((0.0, 0.26), (0.5, 0.76)), 2: ((0.78, 1.0),)}[
        pattern
    ]
    items = part(0.0, 1.0, white)
    for low, high in bands:
        items += part(low, high, red)
    for k in (0.2, 0.44):
        items.append(Item(arch(x - w * 0.1, foot - h * k, w * 0.12, h * 0.07), pane, pane[0] > 150))
    return items


def _beam(canvas: Canvas, scene: Scene, x: float, y: float, tilt: float) -> None:
    """Two cones of light from the lamp, fading outwards. Where they covered less than half, a brush would outline the end."""
    far = np.abs(np.linspace(0, 1, canvas.size, dtype=np.float32) - x)[None]
    share = np.zeros((canvas.size, canvas.size), np.uint8)
    for side in (-1, 1):
        end = x + side * 1.2
        cone = [[x, y - 0.006], [end, y + tilt * side - 0.17], [end, y + tilt * side + 0.1], [x, y + 0.006]]
        share = np.maximum(share, canvas.mask(cone))
    share = (share * np.clip(0.8 - 0.6 * far, 0.52, 1)).astype(np.uint8)
    canvas.wash("glitter", share, mix(pale(canvas.palette), WHITE, 0.25), 0.0, 0.4)


class _Fort(NamedTuple):
    """The colours of a castle, and the side its flags fly to."""

    wall: Rgb
    roof: Rgb
    pane: Rgb
    flag: Rgb
    side: int


def castle(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A castle on a hill: towers with pointed roofs or battlements, and flags, around a curtain wall."""
    x, w = aside(scene, rng, 0.08, 0.18), rng.uniform(0.33, 0.39) * (0.8 if scene.close else 1)
    foot = scene.horizon - rng.uniform(0.02, 0.06)
    knoll(canvas, scene, x, foot - 0.01, w * 2.3)
    wall = mix(stone(canvas, scene, float(rng.uniform())), pale(canvas.palette), 0.12)
    roofs: tuple[Rgb, ...] = ((64, 84, 150), (176, 56, 46), (60, 110, 116))
    roof = tint(canvas, scene, roofs[int(rng.integers(3))], accent=True)
    flag = tint(canvas, scene, ((224, 58, 44), (246, 196, 60))[int(rng.integers(2))], accent=True)
    roof = mix(roof, pale(canvas.palette), 0.2) if scene.hour == "night" else roof
    roof = mix(roof, snowed(canvas, scene, roof), 0.6)
    fort = _Fort(wall, roof, pane_colour(canvas, scene, wall), flag, scene.side)
    lean, strong = float(rng.choice((-1, 1))), rng.uniform() < 0.35
    plan = [(-0.13, 0.17, 0.67), (0.16, 0.19, 0.84), (-0.34, 0.13, 0.52), (0.36, 0.13, 0.57)]
    items: list[Item] = []
    for k, (dx, wide, high) in enumerate(plan):
        items += _tower(fort, x + lean * dx * w, foot, wide * w, high * w, not strong or k == 0)
    left, right, top = x - w * 0.5, x + w * 0.5, foot - w * 0.3
    items += [*merlons(left, right, top, w * 0.042, wall), Item(box(left, top, right, foot + 0.03), wall)]
    items.append(Item(box(left, foot - w * 0.04, right, foot + 0.03), shade(wall, 0.75)))
    for dx in (-0.5, 0.5):
        items += _tower(fort, x + dx * w, foot + 0.015, 0.19 * w, 0.46 * w, not strong)
    gate = box(x - 0.1 * w, foot - 0.38 * w, x + 0.1 * w, foot + 0.03)
    items += [Item(gate, shade(wall, 0.88))]
    items += merlons(x - 0.1 * w, x + 0.1 * w, foot - 0.38 * w, w * 0.04, wall)
    items.append(Item(arch(x, foot + 0.03, 0.12 * w, 0.24 * w), fort.pane, is_lit(scene)))
    canvas.draw("castle", items, np.pi / 2, 0.95)


def _tower(fort: _Fort, x: float, y: float, w: float, h: float, pointed: bool) -> list[Item]:
    """A round tower with a shaded side, a window and a pennant, under a pointed roof or battlements."""
    top, wall, roof, side = y - h, fort.wall, fort.roof, fort.side
    tip = top - w * (1.5 if pointed else 0.3)
    wind = [[x, tip - w * 0.62], [x + side * w * 0.4, tip - w * 0.52], [x + side * w * 0.85, tip - w * 0.6]]
    items = [
        Item(box(x - w / 2, top, x + w / 2, y), wall),
        Item(box(x + w * 0.12, top, x + w / 2, y), shade(wall, 0.74)),
        Item(arch(x - w * 0.08, top + w * 0.85, w * 0.24, w * 0.46), fort.pane, fort.pane[0] > 200),
        Item(box(x - w * 0.03, tip - w * 0.75, x + w * 0.03, tip + w * 0.3), shade(roof, 0.5)),
        Item(ribbon(curve(wind, 9), w * 0.36, w * 0.06), fort.flag),
    ]
    if not pointed:
        crown = merlons(x - w * 0.6, x + w * 0.6, top, w * 0.2, wall)
        return [*items, *crown, Item(box(x - w * 0.6, top, x + w * 0.6, top + w * 0.2), shade(wall, 0.86))]
    cone = [[x - w * 0.68, top], [x, tip], [x + w * 0.68, top], [x, top + w * 0.14]]
    lee = [[x + w * 0.1, top + w * 0.12], [x, tip], [x + w * 0.68, top]]
    return [*items, Item(cone, roof), Item(lee, shade(roof, 0.72))]


def windmill(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A windmill with four latticed sails, of wood or whitewashed."""
    x, h = aside(scene, rng, 0.14, 0.24), rng.uniform(0.33, 0.4)
    if scene.has("cypress"):
        x = 0.5 - scene.side * rng.uniform(0.0, 0.08)
    foot = scene.horizon + (0.12 if scene.has("train") else 0.05)
    white = rng.uniform() < 0.5 and sum(canvas.palette.low) < 690
    body = tint(canvas, scene, (244, 236, 220) if white else (150, 92, 60))
    cap = snowed(canvas, scene, tint(canvas, scene, RED if white else (92, 62, 60), accent=white))
    w = h * 0.46
    top = foot - h * 0.74
    pane = pane_colour(canvas, scene, body)
    items = [
        Item([[x - w / 2, foot], [x - w * 0.3, top], [x + w * 0.3, top], [x + w / 2, foot]], body),
        Item(
            [[x + w * 0.16, foot], [x + w * 0.1, top], [x + w * 0.3, top], [x + w / 2, foot]],
            shade(body, 0.7),
        ),
        Item(arch(x, foot, w * 0.22, h * 0.16), shade(body, 0.4)),
        Item(arch(x, foot - h * 0.28, w * 0.17, h * 0.1), pane, is_lit(scene)),
        Item(
            place([[-0.36, 0.02], [-0.3, -0.12], [0, -0.26], [0.3, -0.12], [0.36, 0.02]], x, top, w, h * 0.8),
            cap,
        ),
    ]
    if not white:
        items.insert(
            2, Item(box(x - w * 0.58, foot - h * 0.24, x + w * 0.58, foot - h * 0.205), shade(body, 0.5))
        )
    grass = mix(canvas.palette.mid, canvas.palette.near, 0.5)
    items.append(Item(disc(x, foot + 0.006, w * 0.9, 0.016), snowed(canvas, scene, grass)))
    canvas.draw("house", items, np.pi / 2, 0.95)
    dark = shade(tint(canvas, scene, (84, 54, 40)), 0.8)
    cloth = mix(tint(canvas, scene, (252, 240, 214)), pale(canvas.palette), 0.3)
    sails = _sails(x - w * 0.04, top - h * 0.05, h * 0.62, float(rng.uniform(0.12, 1.45)), cloth, dark)
    canvas.draw("sail", sails, np.pi / 4, 0.95)


def _sails(x: float, y: float, r: float, turn: float, cloth: Rgb, dark: Rgb) -> list[Item]:
    items: list[Item] = []
    for k in range(4):
        a = turn + k * np.pi / 2
        along, across = np.array([np.cos(a), np.sin(a)]), np.array([-np.sin(a), np.cos(a)])

        def at(u: float, v: float, along: np.ndarray = along, across: np.ndarray = across) -> list[float]:
            return [float(k) for k in np.array((x, y)) + along * (u * r) + across * (v * r)]

        items.append(Item([at(0.2, -0.01), at(1, -0.03), at(1, 0.25), at(0.2, 0.21)], dark))
        for u in (0.24, 0.5, 0.76):
            items.append(Item([at(u, 0.03), at(u + 0.21, 0.03), at(u + 0.21, 0.21), at(u, 0.19)], cloth))
        items.append(Item([at(0, -0.035), at(1.04, -0.03), at(1.04, 0.02), at(0, 0.035)], dark))
    return [*items, Item(disc(x, y, r * 0.075, n=14), dark)]


def _far_wall(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    if scene.has("sea", "lake"):
        greatwall(canvas, scene, rng, scene.horizon - 0.13)


def _near_wall(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    if not scene.has("sea", "lake"):
        greatwall(canvas, scene, rng, scene.horizon)


# Layouts of the Great Wall. Each ridge from far to near: knots of its crest around the horizon, the wall's
# height, the towers' x, and how near it is in 0..1.
_RIDGES = (
    (
        ([[-0.1, -0.1], [0.3, -0.13], [0.52, -0.16], [0.7, -0.2], [0.86, -0.26], [1.1, -0.17]], 0.02, (0.86, 0.55), 0.3),
        ([[-0.1, 0.06], [0.2, 0.02], [0.42, -0.02], [0.62, -0.12], [0.82, -0.02], [1.1, 0.04]], 0.036, (0.62,), 0.6),
        ([[-0.1, 0.05], [0.1, -0.01], [0.2, -0.02], [0.42, 0.1], [0.7, 0.2], [1.1, 0.26]], 0.06, (0.17, 0.6), 0.95),
    ),
    (
        ([[-0.1, -0.14], [0.1, -0.22], [0.24, -0.28], [0.4, -0.18], [0.7, -0.1], [1.1, -0.04]], 0.018, (0.24,), 0.3),
        ([[-0.1, 0.03], [0.2, -0.04], [0.4, -0.05], [0.6, 0.0], [0.8, -0.1], [1.1, -0.12]], 0.032, (0.4, 0.82), 0.6),
        ([[-0.1, 0.3], [0.12, 0.24], [0.36, 0.16], [0.6, 0.1], [0.76, 0.04], [1.1, 0.12]], 0.062, (0.28, 0.76), 0.95),
    ),
    (
        ([[-0.1, -0.08], [0.2, -0.1], [0.5, -0.22], [0.66, -0.26], [0.84, -0.15], [1.1, -0.12]], 0.022, (0.64,), 0.35),
        ([[-0.1, 0.24], [0.16, 0.14], [0.34, 0.0], [0.52, -0.04], [0.78, 0.09], [1.1, 0.14]], 0.052, (0.48, 0.86), 0.8),
    ),
)  # fmt: skip


def greatwall(canvas: Canvas, scene: Scene, rng: Rng, level: float) -> None:
    """A wall with watchtowers over ridge behind ridge, larger towards the viewer."""
    p = canvas.palette
    face = mix(stone(canvas, scene, 0.8), pale(p), 0.28)
    ridges = _RIDGES[int(rng.integers(len(_RIDGES)))]
    wave = rng.uniform(-0.02, 0.02, 8)
    for k, (knots, size, towers, near) in enumerate(ridges):
        crest = curve(np.array(knots) + np.array([[0, wave[(i + k) % 8]] for i in range(6)]), 90)
        line = np.stack([crest[:, 0] if scene.side > 0 else 1 - crest[:, 0], level + crest[:, 1]], 1)
        line = line[np.argsort(line[:, 0])]
        body = mix(mix(p.far, p.low, 0.25), shade(p.near, 0.9), near)
        if snowy(scene):
            body = mix(mix(p.cloud, WHITE, 0.4), p.far, 0.55 - 0.35 * near)
        tone = canvas.rows(mix(body, p.low, 0.1), body, mix(body, p.low, 0.25), level - 0.25, level + 0.3)
        bottom = scene.horizon + 0.04 if scene.has("sea", "lake") else 1.05
        canvas.ground("mountain", line, tone, 0.6 * scene.side, bottom=bottom)
        colour = mix(face, p.low, 0.3 * (1 - near))
        items = _rampart(line, size, colour, snowy(scene))
        for tx in towers:
            tx = tx if scene.side > 0 else 1 - tx
            items += _watchtower(
                canvas, scene, tx, float(np.interp(tx, line[:, 0], line[:, 1])), size, colour
            )
        canvas.draw("wall", items, 0.0, 0.95)


def _rampart(line: np.ndarray, size: float, colour: Rgb, snow: bool) -> list[Item]:
    """A wall along a crest, with battlements."""
    top = line - (0, size)
    items = [Item(np.concatenate([top, (np.add(line, (0, size * 0.45)))[::-1]]), colour)]
    items.append(
        Item(
            np.concatenate([np.add(line, (0, size * 0.05)), (np.add(line, (0, size * 0.45)))[::-1]]),
            shade(colour, 0.68),
        )
    )
    items.append(
        Item(
            ribbon(np.add(top, (0, size * 0.12)), size * 0.14, size * 0.14),
            WHITE if snow else shade(colour, 0.72),
        )
    )
    step = size * 0.72
    for x in np.arange(line[0, 0], line[-1, 0], step):
        a, b = (float(np.interp(x + d, top[:, 0], top[:, 1])) for d in (0, step * 0.55))
        merlon = [
            [x, a + 0.002],
            [x, a - size * 0.34],
            [x + step * 0.55, b - size * 0.34],
            [x + step * 0.55, b + 0.002],
        ]
        items.append(Item(merlon, colour))
    return items


def _watchtower(canvas: Canvas, scene: Scene, x: float, y: float, size: float, colour: Rgb) -> list[Item]:
    """A square tower with battlements and a row of arched windows."""
    half, top = size * 1.15, y - size * 2.5
    pane = pane_colour(canvas, scene, colour)
    light = mix(colour, WHITE, 0.15)
    items = [*merlons(x - half, x + half, top, size * 0.34, light)]
    items += [Item(box(x - half, top, x + half, y + size * 0.5), light)]
    items += [Item(box(x + half * 0.45, top, x + half, y + size * 0.5), shade(light, 0.72))]
    items += [
        Item(box(x - half * 1.06, top + size * 0.25, x + half * 1.06, top + size * 0.4), shade(light, 0.6))
    ]
    for k in (-0.62, -0.1, 0.42):
        items.append(Item(arch(x + half * k, y - size * 1.0, size * 0.4, size * 0.72), pane, is_lit(scene)))
    return items


# What paints each subject, with its depth (see landscape.PARTS).
PARTS: tuple[tuple[float, str, Callable[[Canvas, Scene, Rng], None]], ...] = (
    (-0.36, "greatwall", _far_wall),
    (-0.34, "castle", castle),
    (-0.3, "lighthouse", lighthouse),
    (0.15, "greatwall", _near_wall),
    (0.35, "windmill", windmill),
    *halls.PARTS,
    *towns.PARTS,
    *travel.PARTS,
)
