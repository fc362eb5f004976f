"""The sky of a scene: gradient, swirls, stars, moon or sun, clouds, comet and aurora.

It uses the scene and the canvas, not the brushes. `SkyStyle` holds what a style changes in the layout.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from starrynight.firefly.drawing.canvas import Canvas, blur, noise
from starrynight.firefly.drawing.palettes import WHITE, mix, pale
from starrynight.firefly.drawing.scene import Scene
from starrynight.firefly.drawing.shapes import Item, cloud, crescent, curve, disc, ribbon, star

Rng = np.random.Generator


@dataclass(frozen=True)
class SkyStyle:
    """A style's layout of the sky: flat areas instead of gradients, sheets of cut paper, the strength of
    halos around lights, and the strength of the sky's texture.
    """

    flat: bool = False
    paper: bool = False
    halo: float = 1.0
    texture: float = 1.0


@dataclass(frozen=True)
class Lights:
    """Where the sky's lights are: rows of x, y, radius."""

    stars: np.ndarray
    vortices: np.ndarray


# The lowest stars, as a share of the sky's height: towers and high peaks hide those below.
_CEILING = {"apsara": 0.95, "city": 0.42, "mountain": 0.62, "river": 0.62, "snow": 0.62}


def place_lights(rng: Rng, scene: Scene) -> Lights:
    """Draw positions: stars apart from each other and from the moon, swirls in the open sky."""
    lx, ly, lr = scene.light
    count = int(7 + 8 * scene.amount) if scene.kind != "pond" else 5
    found: list[tuple[float, float, float]] = []
    ceiling = scene.horizon * _CEILING.get(scene.kind, 0.78)
    for _ in range(400):
        x, y = rng.uniform(0.04, 0.96), rng.uniform(0.04, ceiling)
        r = float(rng.choice((0.009, 0.014, 0.02), p=(0.4, 0.4, 0.2)))
        apart = all(np.hypot(x - a, y - b) > 0.09 + 3 * (r + c - 0.016) for a, b, c in found)
        if apart and (np.hypot(x - lx, y - ly) > 2.3 * lr + 0.03):
            found.append((x, y, r))
        if len(found) == count:
            break
    swirl_x = 0.5 + scene.side * rng.uniform(0.06, 0.2)
    vortices = [(swirl_x, scene.horizon * rng.uniform(0.36, 0.5), rng.uniform(0.14, 0.19))]
    swirl_x = swirl_x + scene.side * rng.uniform(0.22, 0.3)
    vortices.append((swirl_x, scene.horizon * rng.uniform(0.42, 0.66), rng.uniform(0.09, 0.13)))
    return Lights(np.array(found).reshape(-1, 3), np.array(vortices))


def paint_sky(canvas: Canvas, scene: Scene, style: SkyStyle, rng: Rng) -> None:
    """Paint the sky and everything in it on the canvas, as its lowest layers."""
    lights = place_lights(rng, scene)
    night = scene.hour == "night"
    colour, angle = _air(canvas, scene, style, lights, rng)
    if scene.has("aurora"):
        colour = _aurora(canvas, scene, colour, rng)
    colour = _halos(canvas, scene, style, lights, colour)
    whole = np.full((canvas.size, canvas.size), 255, np.uint8)
    canvas.wash("sky", whole, np.clip(colour, 0, 255), angle, 0.15)
    if style.paper:
        _paper_rings(canvas, scene)
    if style.flat and scene.has("swirls"):
        _spirals(canvas, scene, lights.vortices)
    if scene.has("comet"):
        _comet(canvas, scene, rng)
    if scene.has("stars"):
        _stars(canvas, lights.stars, style, angle)
    _disc(canvas, scene, angle)
    if scene.has("clouds"):
        _clouds(canvas, scene, style, rng, behind=not night)


def _air(
    canvas: Canvas, scene: Scene, style: SkyStyle, lights: Lights, rng: Rng
) -> tuple[np.ndarray, np.ndarray]:
    """Sky colour float32 [S, S, 3] and stroke angle [S, S]: a gradient, turned by the vortices of swirls."""
    p, size = canvas.palette, canvas.size
    grid = 96
    y, x = np.mgrid[0:grid, 0:grid].astype(np.float32) / grid
    wave = rng.uniform(0, 6.28)
    u = np.ones_like(x)
    v = 0.32 * np.cos(2 * np.pi * 1.1 * x + wave) + 0.12 * np.sin(5 * y + wave)
    sx, sy = x.copy(), y + 0.05 * np.sin(2 * np.pi * 1.1 * x + wave)
    rings = np.zeros_like(x)
    if scene.has("swirls"):
        for k, (cx, cy, r) in enumerate(lights.vortices):
            turn = scene.side * (1 if k % 2 == 0 else -1)
            dx, dy = x - cx, y - cy
            near = np.exp(-(dx**2 + dy**2) / (2 * (r * 0.75) ** 2))
            distance = np.sqrt(dx**2 + dy**2) + 1e-4
            weight = 1 - (1 - near) ** 3
            u = u * (1 - weight) + weight * (-dy / distance * turn - 0.25 * dx / distance)
            v = v * (1 - weight) + weight * (dx / distance * turn - 0.25 * dy / distance)
            spiral = 0.5 + 0.5 * np.cos(distance / r * 9 - turn * np.arctan2(dy, dx) * 2)
            rings = np.maximum(rings, spiral * near**0.7)
    for cx, cy, r in _round_lights(scene, lights):
        dx, dy = x - cx, y - cy
        near = np.exp(-(dx**2 + dy**2) / (2 * (r * 1.9) ** 2))
        distance = np.sqrt(dx**2 + dy**2) + 1e-4
        u, v = u * (1 - near) - near * dy / distance, v * (1 - near) + near * dx / distance
    bands = noise(rng, grid, 4, 1) * 0.4 + np.sin(2 * np.pi * (4.2 * sy + 0.5 * sx) + wave) * 0.6
    lift = np.clip(0.5 * bands + 0.1, 0, 1) * 0.55 * style.texture
    if scene.has("swirls"):
        lift = np.clip(lift + rings * 0.9, 0, 1)
    else:
        lift = lift * (0 if style.flat else 0.6)
    base = canvas.rows(p.top, p.middle, p.low, 0, scene.horizon)
    big = cv2.resize(lift, (size, size), interpolation=cv2.INTER_CUBIC)[..., None]
    colour = base * (1 - big) + (np.array(p.cloud, np.float32) * 0.75 + base * 0.25) * big
    angle = np.arctan2(cv2.resize(v, (size, size)), cv2.resize(u, (size, size))).astype(np.float32)
    return colour, angle


def _round_lights(scene: Scene, lights: Lights) -> list[tuple[float, float, float]]:
    around = [tuple(row) for row in lights.stars * (1, 1, 1.6)] if scene.has("stars") else []
    if scene.has("moon", "crescent", "sun"):
        around.append(scene.light)
    return around


def _halos(canvas: Canvas, scene: Scene, style: SkyStyle, lights: Lights, colour: np.ndarray) -> np.ndarray:
    """Soft light around stars, moon and sun, with a ring at night."""
    if style.halo == 0 or style.paper:
        return colour
    small, light = 96, canvas.palette.light
    tint = light if min(light) > 90 else mix(light, canvas.palette.cloud, 0.6)
    y, x = np.mgrid[0:small, 0:small].astype(np.float32) / small
    glow = np.zeros_like(x)
    for cx, cy, r in _round_lights(scene, lights):
        distance = np.hypot(x - cx, y - cy) / r
        ring = 0.75 * np.exp(-((distance / 2.3) ** 2))
        if scene.hour == "night":
            ring = ring + 0.16 * np.exp(-((distance - 2.6) ** 2) * 5)
        glow = np.maximum(glow, ring)
    bright = np.clip(glow * style.halo, 0, 0.9)
    share = cv2.resize(bright, (canvas.size, canvas.size), interpolation=cv2.INTER_CUBIC)[..., None]
    return colour * (1 - share) + np.array(tint, np.float32) * share


def _aurora(canvas: Canvas, scene: Scene, colour: np.ndarray, rng: Rng) -> np.ndarray:
    """Two curtains of green light with a waving lower edge, fading to violet at the top."""
    size = canvas.size
    x = np.linspace(0, 1, size, dtype=np.float32)[None]
    y = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    for k in range(2):
        a, b = rng.uniform(0, 6.28, 2)
        waves = 0.06 * np.sin(2 * np.pi * 1.2 * x + a)
        foot = scene.horizon * (0.62 - 0.22 * k) + waves + 0.03 * np.sin(2 * np.pi * 2.7 * x + b)
        rise = np.clip((foot - y) / (scene.horizon * 0.55), -1, 1)
        rays = 0.65 + 0.35 * np.sin(2 * np.pi * (5 * x + 0.6 * np.sin(6 * x + b)))
        strength = np.where(rise > 0, np.exp(-2.6 * rise), np.exp(rise * 22)) * rays * (0.95 - 0.3 * k)
        violet = np.clip(rise, 0, 1)[..., None] * np.array((70, -130, 60), np.float32)
        share = 0.85 * strength[..., None]
        colour = colour * (1 - share) + (np.array((90, 240, 170), np.float32) + violet) * share
    return colour


def _paper_rings(canvas: Canvas, scene: Scene) -> None:
    """The sky as four nested sheets of paper around the moon or sun."""
    p = canvas.palette
    lx, ly, _ = scene.light
    for k, r in enumerate((0.72, 0.52, 0.34, 0.2)):
        tint = mix(mix(p.top, p.middle, 0.3 + 0.25 * k), p.low, 0.12 * k)
        lobes = disc(lx, ly, r, r, 90)
        around = np.arctan2(lobes[:, 1] - ly, lobes[:, 0] - lx)
        wavy = (lobes - (lx, ly)) * (1 + 0.05 * np.abs(np.sin(around * (9 - k))))[:, None] + (lx, ly)
        canvas.wash("ring", canvas.mask(wavy), tint, 0.0, 0.15)


def _spirals(canvas: Canvas, scene: Scene, vortices: np.ndarray) -> None:
    """Swirls as solid spiral bands, for styles without brush strokes."""
    p = canvas.palette
    for k, (cx, cy, r) in enumerate(vortices):
        turn = scene.side * (1 if k % 2 == 0 else -1)
        items: list[Item] = []
        for arm in range(2):
            t = np.linspace(0, 1, 60)
            around = arm * np.pi + turn * t * 2.2 * np.pi
            reach = r * (0.12 + 0.95 * t)
            line = np.stack([cx + reach * np.cos(around), cy + 0.8 * reach * np.sin(around)], 1)
            tint = mix((p.low, p.cloud)[arm], p.middle, 0.25)
            items.append(Item(ribbon(line, r * 0.1, r * 0.04, r * 0.16), tint))
        canvas.draw("swirl", items, 0.0, 0.5)


def _stars(canvas: Canvas, stars: np.ndarray, style: SkyStyle, angle: np.ndarray) -> None:
    light = pale(canvas.palette)
    items: list[Item] = []
    for x, y, r in stars:
        if style.paper:
            items.append(Item(star(x, y, r * 2.2, r * 0.95, 5), light, True))
        else:
            items.append(Item(disc(x, y, r * 1.15), light, True))
            items.append(Item(disc(x, y, r * 0.6), mix(light, WHITE, 0.35), True))
    canvas.draw("stars", items, angle, 0.9)


def _disc(canvas: Canvas, scene: Scene, angle: np.ndarray) -> None:
    p = canvas.palette
    x, y, r = scene.light
    if scene.has("crescent"):
        canvas.draw("moon", [Item(crescent(x, y, r, -scene.side), p.light, True)], angle, 0.9)
    elif scene.has("moon"):
        inner = Item(disc(x - r * 0.12, y - r * 0.12, r * 0.78), mix(p.light, WHITE, 0.4), True)
        canvas.draw("moon", [Item(disc(x, y, r), p.light, True), inner], angle, 0.9)
    elif scene.has("sun"):
        canvas.draw("sun", [Item(disc(x, y, r * 1.1), p.light, True)], angle, 0.9)


def _comet(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A comet opposite the moon, with a widening tail."""
    p = canvas.palette
    side = scene.side
    x = 0.5 + side * rng.uniform(0.14, 0.26)
    y = scene.horizon * rng.uniform(0.34, 0.5) * (0.6 if scene.kind == "city" else 1)
    length, lift = rng.uniform(0.26, 0.36), rng.uniform(0.1, 0.17)
    bend = [x + side * length * 0.5, y - lift * 0.62]
    tail = curve([[x, y], bend, [x + side * length, y - lift]], 20)
    items = [
        Item(ribbon(tail, 0.02, spread), mix(p.middle, p.light, share))
        for spread, share in ((0.075, 0.35), (0.045, 0.6), (0.02, 0.9))
    ]
    items += [Item(disc(x, y, 0.024), p.light, True), Item(disc(x, y, 0.014), WHITE, True)]
    canvas.draw("comet", items, float(np.arctan2(-lift, side * length)), 0.8)


def _clouds(canvas: Canvas, scene: Scene, style: SkyStyle, rng: Rng, behind: bool) -> None:
    """Three to six clouds, with soft edges or, in flat styles, scalloped ones."""
    p = canvas.palette
    count = 3 + int(scene.amount * 3)
    if scene.kind == "apsara":
        spots = [
            (rng.uniform(0, 1), scene.horizon * (0.7 + 0.3 * k / count), rng.uniform(0.3, 0.5))
            for k in range(count + 1)
        ]
    else:
        spots = [
            (rng.uniform(0.05, 0.95), scene.horizon * rng.uniform(0.25, 0.72), rng.uniform(0.2, 0.36))
            for k in range(count)
        ]
    lx, ly, lr = scene.light
    for x, y, w in spots:
        beside = abs(x - lx) < w * 0.55 + lr and y - w * 0.45 < ly + lr < y + w * 0.1 + 2 * lr
        if beside and scene.has("moon", "crescent", "sun"):
            x, y = lx + scene.side * (w * 0.6 + lr * 1.3), y + 0.02
        area = canvas.mask(cloud(rng, x, y, w, w * rng.uniform(0.28, 0.4)))
        if not style.flat:
            area = blur(area, canvas.size * 0.012)
        area = (area * (0.95 if style.flat else 0.8)).astype(np.uint8)
        under = mix(p.cloud, p.middle, 0.55)
        tint = canvas.rows(p.cloud, mix(p.cloud, under, 0.35), under, y - w * 0.28, y + w * 0.03)
        canvas.wash("cloud", area, tint, 0.0, 0.4)
