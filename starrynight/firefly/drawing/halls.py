"""Place Chinese halls and stone bridges on the canvas: temple, teahouse, bridge."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from starrynight.firefly.drawing.buildings import is_lit, snowy, wet
from starrynight.firefly.drawing.built import (
    aside,
    knoll,
    reflect,
    snowed,
    stone,
    tint,
)
from starrynight.firefly.drawing.canvas import Canvas
from starrynight.firefly.drawing.flora import plant_side
from starrynight.firefly.drawing.palettes import WHITE, Rgb, mix, pale, shade
from starrynight.firefly.drawing.scene import Scene
from starrynight.firefly.drawing.shapes import Item, box, curve, disc, place, ribbon

Rng = np.random.Generator


def temple(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A Chinese temple hall on a ledge: steps, red columns, one or two sweeping roofs."""
    x, w = aside(scene, rng, 0.06, 0.17), rng.uniform(0.36, 0.42) * (0.8 if scene.close else 1)
    foot = scene.horizon - rng.uniform(0.045, 0.085)
    knoll(canvas, scene, x, foot - 0.01, w * 2.1)
    red = tint(canvas, scene, (196, 42, 34), accent=True)
    tiles: tuple[Rgb, ...] = ((58, 72, 84), (222, 160, 46), (48, 104, 92))
    roof = snowed(canvas, scene, tint(canvas, scene, tiles[int(rng.integers(3))], accent=True))
    roof = mix(roof, pale(canvas.palette), 0.22) if scene.hour == "night" else roof
    base = stone(canvas, scene, 0.3)
    items = _steps(x, foot, w, base)
    y = foot - w * 0.1
    items += _hall(canvas, scene, x, y, w * 0.8, w * 0.24, red)
    y -= w * 0.24
    items += _temple_roof(x, y, w, 0.62, 0.3, roof, shade(red, 0.7))
    if rng.uniform() < 0.65:
        items += _hall(canvas, scene, x, y - w * 0.16, w * 0.46, w * 0.13, red)
        items += _temple_roof(x, y - w * 0.27, w, 0.46, 0.26, roof, shade(red, 0.7))
    canvas.draw("temple", items, np.pi / 2, 0.95)


def _temple_roof(x: float, y: float, w: float, half: float, rise: float, roof: Rgb, under: Rgb) -> list[Item]:
    body = _sweep(half, rise, 0.11, half * 0.5)
    ridge = curve(
        [
            [-half * 0.58, -rise - 0.06],
            [-half * 0.5, -rise],
            [half * 0.5, -rise],
            [half * 0.58, -rise - 0.06],
        ],
        19,
    )
    edge = curve([[-half, -0.11], [-half * 0.78, -0.01], [0, 0.03], [half * 0.78, -0.01], [half, -0.11]], 21)
    items = [Item(place(np.add(body, (0, 0.035)), x, y, w), under), Item(place(body, x, y, w), roof)]
    for k in (-0.6, -0.36, -0.12, 0.12, 0.36, 0.6):
        rib = place([[k * half * 0.8, -rise * 0.95], [k * half * 1.3, -0.01]], x, y, w)
        items.append(Item(ribbon(rib, w * 0.012, w * 0.012), shade(roof, 0.78)))
    items.append(Item(ribbon(place(edge, x, y, w), w * 0.022, w * 0.022), mix(roof, WHITE, 0.3)))
    return [*items, Item(ribbon(place(ridge, x, y, w), w * 0.04, w * 0.04), shade(roof, 0.65))]


def _sweep(half: float, rise: float, lift: float, top: float) -> np.ndarray:
    """A roof whose hips curve up to tips, around (0, 0) at the eaves' middle."""
    eave = curve([[-half, -lift], [-half * 0.78, -0.01], [0, 0.03], [half * 0.78, -0.01], [half, -lift]], 21)
    hip = curve([[half, -lift], [half * 0.72, -0.3 * rise], [top, -rise]], 11)
    back = hip[::-1] * (-1, 1)
    return np.concatenate([eave, hip[1:], back])


def _hall(canvas: Canvas, scene: Scene, x: float, y: float, w: float, h: float, red: Rgb) -> list[Item]:
    """A front of red columns, with lattice windows between them, standing at (x, y)."""
    dark = shade(red, 0.42)
    pane = canvas.palette.window if is_lit(scene) else mix(dark, canvas.palette.wall, 0.25)
    items = [Item(box(x - w / 2, y - h, x + w / 2, y), dark)]
    for k in range(5):
        cx = x + w * (k - 2) / 5.2
        items.append(
            Item(box(cx - w * 0.055, y - h * 0.72, cx + w * 0.055, y - h * 0.1), pane, is_lit(scene))
        )
    for k in range(6):
        cx = x + w * (k - 2.5) / 5.2
        items.append(Item(box(cx - w * 0.026, y - h, cx + w * 0.026, y), red))
    return [*items, Item(box(x - w / 2, y - h, x + w / 2, y - h * 0.86), shade(red, 0.85))]


def _steps(x: float, foot: float, w: float, base: Rgb) -> list[Item]:
    """A stone terrace with a flight of steps down its front."""
    items = [
        Item(box(x - w * 0.52, foot - w * 0.1, x + w * 0.52, foot + 0.06), shade(base, 0.82)),
        Item(box(x - w * 0.54, foot - w * 0.115, x + w * 0.54, foot - w * 0.075), base),
    ]
    for k in range(6):
        y, half = foot - w * 0.1 + w * 0.045 * k, w * (0.13 + 0.03 * k)
        step = box(x - half, y, x + half, y + w * 0.05)
        items.append(Item(step, mix(base, WHITE, 0.35) if k % 2 else shade(base, 0.62)))
    return items


def teahouse(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """An open pavilion with a curved roof: on stilts over water with its reflection, else on a low base."""
    deep = {"pond": 0.2, "gorge": 0.19}.get(scene.kind, 0.1)
    x, y = aside(scene, rng, 0.16, 0.26), scene.horizon + deep
    covered = scene.has("willow") and plant_side(scene, "willow") == scene.side
    if scene.kind == "pond" and (covered or scene.has("trees")):
        x = 0.5 if scene.has("willow") and not covered else 1 - x  # both sides may be hung with willows
    if scene.has("bridge"):  # in front of the garden bridge
        y += 0.19
    if scene.has("stonebridge"):  # behind the bridge, above its end
        x, y = 0.5 + scene.side * rng.uniform(0.28, 0.34), scene.horizon + 0.03
    w = rng.uniform(0.3, 0.36)
    wood = tint(canvas, scene, ((176, 54, 40), (128, 78, 48))[int(rng.integers(2))], accent=True)
    tiles = ((76, 96, 112), (196, 130, 60), (62, 122, 98))
    roof = snowed(canvas, scene, tint(canvas, scene, tiles[int(rng.integers(3))], accent=True))
    roof = mix(roof, pale(canvas.palette), 0.25) if scene.hour == "night" else roof
    items = _pavilion(canvas, scene, x, y, w, wood, roof, rng.uniform() < 0.5)
    if wet(canvas, x, y + 0.03):
        reflect(canvas, items, y + w * 0.12, 0.55)
    canvas.draw("teahouse", items, np.pi / 2, 0.95)


def _pavilion(
    canvas: Canvas, scene: Scene, x: float, y: float, w: float, wood: Rgb, roof: Rgb, double: bool
) -> list[Item]:
    h = w * 0.42
    dark = shade(wood, 0.55)
    items = [
        Item(box(x + w * k - w * 0.022, y, x + w * k + w * 0.022, y + w * 0.14), dark)
        for k in (-0.4, -0.14, 0.14, 0.4)
    ]
    items.append(Item(box(x - w * 0.5, y - w * 0.02, x + w * 0.5, y + w * 0.035), shade(wood, 0.8)))
    lamp = canvas.palette.window if is_lit(scene) else mix(wood, WHITE, 0.4)
    items.append(Item(disc(x, y - h * 0.72, w * 0.045, w * 0.06, 14), lamp, is_lit(scene)))
    items += [
        Item(box(x - w * 0.1, y - h * 0.3, x + w * 0.1, y - h * 0.23), dark),
        Item(box(x - w * 0.02, y - h * 0.3, x + w * 0.02, y), dark),
    ]
    items += [
        Item(box(x + w * k - w * 0.024, y - h, x + w * k + w * 0.024, y), wood)
        for k in (-0.38, -0.15, 0.15, 0.38)
    ]
    for side in (-1, 1):
        a, b = sorted((x + side * w * 0.15, x + side * w * 0.5))
        items += [Item(box(a, y - h * k, b, y - h * k + w * 0.022), wood) for k in (0.3, 0.17)]
    items.append(Item(box(x - w * 0.42, y - h, x + w * 0.42, y - h * 0.88), shade(wood, 0.7)))
    tops = (
        ((y - h * 0.98, 0.62, 0.34), (y - h * 1.62, 0.36, 0.34)) if double else ((y - h * 0.98, 0.64, 0.46),)
    )
    for top, half, rise in tops:
        body = _sweep(half, rise, 0.12, 0.03)
        items += [Item(place(np.add(body, (0, 0.03)), x, top, w), dark), Item(place(body, x, top, w), roof)]
        right = np.concatenate([body[10:32], [[0.02, 0.0]]])
        items.append(Item(place(right, x, top, w), shade(roof, 0.78)))
        items.append(Item(ribbon(place(body[:21], x, top, w), w * 0.028, w * 0.028), mix(roof, WHITE, 0.35)))
    tip = tops[-1][0] - tops[-1][2] * w
    return [*items, Item(disc(x, tip, w * 0.035, w * 0.06, 12), mix(wood, (240, 190, 80), 0.6))]


def stonebridge(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A grey stone bridge with one, two or three arches over the water, its stones visible."""
    y, x, span = scene.horizon + 0.2, 0.5 + scene.side * 0.05, rng.uniform(0.8, 0.92)
    row = canvas.water[int(y * canvas.size)]
    if row.any():
        x = float(np.flatnonzero(row).mean()) / canvas.size if row.mean() < 200 else x
    else:
        _stream(canvas, scene, x, y)
    arches = 1 if not scene.has("sea", "lake") else int(rng.integers(1, 4))
    grey = tint(canvas, scene, mix((172, 174, 176), (196, 182, 156), rng.uniform()))
    grey = mix(grey, pale(canvas.palette), 0.1)
    items = _masonry(rng, grey, x, y, span, arches, scene)
    if wet(canvas, x, y + 0.02) and scene.has("sea", "lake"):
        reflect(canvas, items[: 1 + arches], y, 0.6)
    canvas.draw("stonebridge", items, 0.0, 0.95)


def _stream(canvas: Canvas, scene: Scene, x: float, y: float) -> None:
    """A short stream below a bridge that has no river."""
    p = canvas.palette
    left = curve([[x - 0.06, y - 0.12], [x - 0.13, y + 0.02], [x - 0.2, 1.04]], 20)
    right = curve([[x + 0.06, y - 0.12], [x + 0.13, y + 0.02], [x + 0.26, 1.04]], 20)
    area = canvas.mask(np.concatenate([left, right[::-1]]))
    canvas.wash(
        "water", area, canvas.rows(mix(p.low, p.water, 0.4), p.water, shade(p.water, 0.8), y - 0.1, 1.0), 0.3
    )
    canvas.water = np.maximum(canvas.water, area)


def _masonry(rng: Rng, grey: Rgb, x: float, y: float, span: float, arches: int, scene: Scene) -> list[Item]:
    """The wall with its openings, courses of stones, the arches' rings and a parapet."""
    rise = span * (0.27 if arches == 1 else 0.2)
    t = np.linspace(0, 1, 41)
    deck = np.stack([x + span * (t - 0.5), y + 0.02 - rise * (0.28 + 0.72 * np.sin(np.pi * t) ** 1.3)], 1)
    wide = {1: 0.4, 2: 0.3, 3: 0.24}[arches] * span
    centres = [x + (k - (arches - 1) / 2) * wide * 1.18 for k in range(arches)]
    radii = [wide / 2 * (1.0 if arches < 3 or k == 1 else 0.86) for k in range(arches)]
    foot = y + 0.03
    turn = np.linspace(0, np.pi, 21)
    squash = rise * 0.76 / (wide / 2)
    under = [[x + span / 2, foot]]
    for c, r in sorted(zip(centres, radii, strict=True), reverse=True):
        under += [
            [c + r, foot],
            *np.stack([c + r * np.cos(turn), y - r * squash * np.sin(turn)], 1).tolist(),
            [c - r, foot],
        ]
    items = [Item(np.concatenate([deck, under, [[x - span / 2, foot]]]), shade(grey, 0.66))]
    for row in range(9):
        level, offset = y + 0.005 - rise * 0.105 * row, (row % 2) * 0.5
        for k in range(int(span / 0.052) + 1):
            sx = x - span / 2 + 0.052 * (k + offset)
            crest = float(np.interp(sx + 0.025, deck[:, 0], deck[:, 1]))
            clear = all(
                ((sx + 0.025 - c) / (r + 0.045)) ** 2 + ((level - y) / (r * squash + 0.03)) ** 2 > 1
                for c, r in zip(centres, radii, strict=True)
            )
            if clear and level - rise * 0.09 > crest and sx + 0.047 < x + span / 2:
                items.append(
                    Item(box(sx, level - rise * 0.09, sx + 0.046, level), shade(grey, rng.uniform(0.8, 1.12)))
                )
    for c, r in zip(centres, radii, strict=True):
        for k in range(13):
            a, b = np.pi * (k + 0.08) / 13, np.pi * (k + 0.92) / 13
            stone4 = [
                [c + q * np.cos(g), y - q * squash * np.sin(g)]
                for q, g in ((r, a), (r + 0.036, a), (r + 0.036, b), (r, b))
            ]
            items.append(Item(stone4, shade(grey, 1.2 if k % 2 else 1.02)))
    top = snowed_stone(grey, scene)
    return [
        *items,
        Item(ribbon(deck - (0, 0.012), 0.03, 0.03), top),
        Item(ribbon(np.add(deck, (0, 0.008)), 0.01, 0.01), shade(grey, 0.5)),
    ]


def snowed_stone(grey: Rgb, scene: Scene) -> Rgb:
    """The colour of a parapet's top: pale, white in snow."""
    return mix(grey, WHITE, 0.85 if snowy(scene) else 0.3)


# What paints each subject, with its depth (see landscape.PARTS).
PARTS: tuple[tuple[float, str, Callable[[Canvas, Scene, Rng], None]], ...] = (
    (-0.33, "temple", temple),
    (0.66, "teahouse", teahouse),
    (0.67, "stonebridge", stonebridge),
)
