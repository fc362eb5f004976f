"""Lays a scene out on a canvas, back to front: sky, mountains, land or water, buildings, trees, weather.

Knows the scene and the palette, not the brushes: every style paints the same layout.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from starrynight.firefly import shapes
from starrynight.firefly.canvas import Canvas, noise
from starrynight.firefly.palettes import PALETTES, Rgb, gold, mix, pale, shade
from starrynight.firefly.scene import Scene
from starrynight.firefly.shapes import Item
from starrynight.firefly.sky import Look, flock, paint_sky

Rng = np.random.Generator
WHITE: Rgb = (255, 255, 255)


def lay_out(scene: Scene, size: int, look: Look) -> Canvas:
    """The scene as layers on a canvas of size by size pixels."""
    rng = np.random.default_rng([scene.seed, 2])
    canvas = Canvas(size, PALETTES[scene.style, scene.hour])
    paint_sky(canvas, scene, look, rng)
    if scene.has("mountains"):
        _mountains(canvas, scene, rng)
    if scene.has("skyline"):
        _skyline(canvas, scene, rng)
    if scene.weather == "mist":
        _mist(canvas, scene.horizon - 0.04, 0.16)
    if scene.has("sea", "lake") or (scene.kind == "city" and scene.has("reflection")):
        _shore(canvas, scene, rng)
        _water(canvas, scene, rng)
    elif scene.kind != "apsara" or scene.has("river"):
        _land(canvas, scene, rng)
    for name, paint in _PARTS:
        if scene.has(name):
            paint(canvas, scene, rng)
        if name == "river" and scene.kind != "apsara":
            _meadow(canvas, scene, np.random.default_rng([scene.seed, 4]))
    _weather(canvas, scene, rng)
    return canvas


def _snowy(scene: Scene) -> bool:
    return scene.has("snow")


def _lit(scene: Scene) -> bool:
    return scene.hour in ("night", "dusk") or scene.style == "cyberpunk"


def _mountains(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Two or three ridges, paler with distance, their feet in haze; snow on the far peaks in winter."""
    p = canvas.palette
    grand = scene.kind in ("mountain", "river", "snow")
    count = 3 if grand else 2
    for k in range(count):
        near = k / (count - 1)
        height = (0.3 if grand else 0.17) * (1 - 0.45 * near) * rng.uniform(0.85, 1.15)
        line = shapes.ridge(rng, scene.horizon + 0.02, height, 0.1 - 0.04 * near, 3 + k)
        base = mix(p.far, p.mid, near)
        foot = mix(base, p.low, 0.55 - 0.2 * near)
        top = mix(mix(p.cloud, WHITE, 0.4), base, 0.15) if _snowy(scene) and k == 0 else mix(base, p.low, 0.18 * (1 - near))
        tint = canvas.rows(top, base, foot, scene.horizon - height, scene.horizon + 0.03, 0.45)
        slope = np.gradient(np.interp(np.linspace(0, 1, canvas.size), line[:, 0], line[:, 1])) * canvas.size
        angle = np.repeat(np.arctan(slope)[None].astype(np.float32), canvas.size, 0)
        floor = 1.05 if scene.kind == "apsara" else scene.horizon + 0.1
        canvas.wash("mountain", canvas.mask([shapes.down_to(line, floor)]), tint, angle, 0.35)
    if scene.kind == "mountain" and not scene.has("lake"):
        _mist(canvas, scene.horizon, 0.09)


def _mist(canvas: Canvas, level: float, depth: float) -> None:
    p = canvas.palette
    y = np.arange(canvas.size, dtype=np.float32)[:, None] / canvas.size
    share = np.exp(-(((y - level) / depth) ** 2)) * 0.72
    area = np.repeat((share * 255).astype(np.uint8), canvas.size, 1)
    tint = mix(p.low, p.cloud, 0.5)
    canvas.colour = (canvas.colour * (1 - area[..., None] / 255.0) + np.array(tint) * (area[..., None] / 255.0)).astype(np.uint8)
    if canvas.layers:
        canvas.layers.append(type(canvas.layers[0])("mist", area, canvas.colour))


def _shore(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """The far bank, so that the water has something to mirror."""
    if scene.has("sea") or scene.kind == "city":
        return
    p = canvas.palette
    line = shapes.hill(rng, scene.horizon - 0.025, 0.018)
    tint = mix(mix(p.cloud, WHITE, 0.4), p.far, 0.2) if _snowy(scene) else mix(p.near, p.mid, 0.6)
    canvas.wash("bank", canvas.mask([shapes.down_to(line, scene.horizon + 0.03)]), tint, 0.0, 0.35)
    if scene.kind == "pond":
        _far_trees(canvas, scene, rng)


def _far_trees(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Round masses of leaves along the far bank."""
    p = canvas.palette
    items: list[Item] = []
    for _ in range(16):
        x, r = rng.uniform(-0.02, 1.02), rng.uniform(0.035, 0.075)
        items.append((shapes.disc(x, scene.horizon - r * 0.55, r, r * rng.uniform(0.9, 1.5)), mix(mix(p.leaf, p.mid, rng.uniform(0, 0.8)), p.low, rng.uniform(0, 0.25)), False))
    canvas.draw("bank", items, 1.3, 0.4)


def _water(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A mirror with ripples that grow towards the viewer, and the light's path across it."""
    p, size = canvas.palette, canvas.size
    top = int(scene.horizon * size)
    deep = size - top
    y, x = np.mgrid[0:deep, 0:size].astype(np.float32)
    near = y / deep
    wave = np.sin(near**0.7 * 46 + 5 * np.sin(x / size * 5 + rng.uniform(0, 6))) * (0.002 + 0.012 * near) * size
    stretch = 1.0 if scene.kind != "pond" else 0.85
    source_y = np.clip(top - 1 - y * stretch * min(1.0, top / deep) + wave * 0.3, 0, size - 1)
    mirror = cv2.remap(canvas.colour, x + wave, source_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    shining = cv2.remap(canvas.lights, x + wave, source_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    strength = 0.72 if scene.has("reflection", "lake") else 0.3
    depth = canvas.rows(mix(p.water, p.low, 0.35), p.water, shade(p.water, 0.72), scene.horizon, 1.0)[top:]
    image = canvas.colour.astype(np.float32)
    image[top:] = mirror * strength + depth * (1 - strength)
    if strength < 0.5:
        bands = np.clip(np.sin(near**0.6 * 60 + 3 * np.sin(x / size * 7)), 0, 1)[..., None] * 0.35
        image[top:] = image[top:] * (1 - bands) + np.array(mix(p.water, p.cloud, 0.5)) * bands
    area = np.zeros((size, size), np.uint8)
    area[top:] = 255
    canvas.wash("water", area, image, 0.0, 0.35)
    canvas.lights[top:] = (shining * 0.6).astype(np.uint8)
    canvas.water = area
    if scene.has("moon", "crescent", "sun"):
        _glitter(canvas, scene, rng)
    if scene.has("waves"):
        _waves(canvas, scene, rng)


def _glitter(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    p = canvas.palette
    lx, _, lr = scene.light
    items: list[Item] = []
    for k in range(13):
        t = (k + 0.5) / 13
        y = scene.horizon + 0.012 + (0.97 - scene.horizon) * t**1.4
        width = lr * (0.7 + 1.2 * t) * rng.uniform(0.6, 1.2)
        x = lx + rng.uniform(-0.35, 0.35) * lr * (1 + t)
        items.append((shapes.disc(x, y, width, 0.004 + 0.006 * t, 16), mix(p.light, p.water, 0.15 + 0.25 * t), False))
    canvas.draw("glitter", items, 0.0, 0.6)


def _waves(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Rows of curling waves with pale crests."""
    p = canvas.palette
    rows = 6
    for k in range(rows):
        t = (k + 1) / rows
        base = scene.horizon + (1.02 - scene.horizon) * (t**1.25) * 0.86
        size = 0.022 + 0.06 * t
        x = np.linspace(-0.05, 1.05, 200)
        phase = x / (size * 4.2) + rng.uniform()
        turn = 2 * np.pi * phase
        swell = 0.75 + 0.35 * np.sin(2 * np.pi * (x * (1.3 + 0.3 * k) + rng.uniform()))
        line = np.stack([x - 0.3 * size * np.cos(turn), base - size * swell * (0.5 + 0.5 * np.sin(turn)) ** 1.8], 1)
        body = mix(shade(p.water, 0.95 - 0.1 * t), p.near, 0.12 * t)
        items: list[Item] = [(shapes.down_to(line, 1.03), body, False), (shapes.ribbon(line, size * 0.2, size * 0.2), mix(p.cloud, WHITE, 0.45), False)]
        lower = line + (0, size * 0.42)
        items.append((shapes.ribbon(lower, size * 0.08, size * 0.08), mix(body, p.cloud, 0.45), False))
        canvas.draw("wave", items, 0.0, 0.5)


def _land(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Two or three rolling hills, the nearest darkest, or snow fields."""
    p = canvas.palette
    snow = mix(mix(p.cloud, p.low, 0.3), WHITE, 0.5)
    dusk = 0.45 if scene.hour == "night" else 0.12
    for k in range(3):
        t = k / 2
        line = shapes.hill(rng, scene.horizon + 0.025 + 0.17 * t, 0.018 + 0.02 * t)
        if _snowy(scene):
            top, low = mix(snow, p.far, 0.04 + dusk * 0.35 * (1 - t)), mix(snow, p.far, 0.36 + dusk * (0.8 - 0.5 * t))
        else:
            top, low = mix(p.mid, p.near, 0.25 + 0.6 * t), shade(mix(p.mid, p.near, 0.4 + 0.6 * t), 0.8)
        tint = canvas.rows(top, mix(top, low, 0.5), low, scene.horizon + 0.15 * t, scene.horizon + 0.25 + 0.3 * t)
        slope = np.gradient(np.interp(np.linspace(0, 1, canvas.size), line[:, 0], line[:, 1])) * canvas.size
        canvas.wash("land", canvas.mask([shapes.down_to(line, 1.05)]), tint, np.repeat(np.arctan(slope)[None].astype(np.float32), canvas.size, 0), 0.35)


def _meadow(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Tufts of grass and flowers at the viewer's feet, on land that would else lie bare."""
    if _snowy(scene) or scene.kind not in ("mountain", "river", "village") or scene.has("lake"):
        return
    p = canvas.palette
    items: list[Item] = []
    for y in np.sort(rng.uniform(0.84, 1.0, 34)):
        x, h = rng.uniform(0, 1), 0.035 + 0.25 * (y - 0.84)
        if _wet(canvas, x, y) or _wet(canvas, x - h / 2, y) or _wet(canvas, x + h / 2, y):
            continue
        green = mix(mix(p.leaf, p.mid, rng.uniform(0, 0.8)), pale(p), rng.uniform(0, 0.22))
        for lean in (-0.5, 0.0, 0.5):
            blade = shapes.curve(np.array([[x, y], [x + lean * h * 0.4, y - h * 0.6], [x + lean * h, y - h]]), 7)
            items.append((shapes.ribbon(blade, h * 0.13, h * 0.03), green, False))
        if rng.uniform() < 0.6:
            tint = (p.flower, mix(pale(p), WHITE, 0.3), p.roof)[int(rng.integers(3))]
            items.append((shapes.star(x, y - h * 1.05, h * 0.34, h * 0.24, 5, rng.uniform(0, 6)), tint, False))
    canvas.draw("meadow", items, np.pi / 2, 0.6)


def _river(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A river winding from the hills to the viewer, shining with the sky's low colour."""
    p = canvas.palette
    start, sway = 0.5 + rng.uniform(-0.15, 0.15), rng.choice((-1, 1)) * rng.uniform(0.18, 0.28)
    top = scene.horizon + 0.04
    t = np.linspace(0, 1, 40)
    x = start + sway * np.sin(t * np.pi * 1.6) * (0.25 + 0.75 * t)
    y = top + (1.04 - top) * t**1.35
    half = 0.012 + 0.2 * t**1.7
    outline = np.concatenate([np.stack([x - half, y], 1), np.stack([x + half, y], 1)[::-1]])
    area = canvas.mask([outline])
    tint = canvas.rows(mix(p.low, p.cloud, 0.2), mix(p.low, p.water, 0.6), p.water, top, 1.0, 0.4)
    ripple = np.clip(np.sin(np.linspace(0, 60, canvas.size)[:, None] + 4 * np.sin(np.linspace(0, 9, canvas.size))[None]), 0, 1)[..., None] * 0.3
    canvas.wash("water", area, tint * (1 - ripple) + np.array(mix(p.cloud, p.low, 0.4)) * ripple, 0.0, 0.35)
    canvas.water = area


def _village(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Rows of cottages, small ones behind; the church stands among them."""
    p = canvas.palette
    far = scene.kind in ("sunflowers", "wheat", "river")
    base = scene.horizon + (0.035 if far else 0.06)
    rows = ((base, 0.075, 6),) if far else ((base - 0.01, 0.078, 6), (base + 0.085, 0.115, 5), (base + 0.22, 0.165, 3))
    if scene.has("lake"):
        base, rows = scene.horizon, ((scene.horizon + 0.005, 0.08, 7),)
    church_x = 0.5 - scene.side * rng.uniform(0.02, 0.2)
    for row, (y, w, count) in enumerate(rows):
        items: list[Item] = []
        if row == 0 and scene.has("church"):
            items += shapes.church(p, church_x, y + 0.01, 0.13 if not far else 0.09, _snowy(scene), _lit(scene))
        for k in range(count + int(scene.amount * 2)):
            x = (k + 0.5 + rng.uniform(-0.25, 0.25)) / (count + int(scene.amount * 2))
            cottage = shapes.house(rng, p, x, y + rng.uniform(-0.012, 0.025), w * rng.uniform(0.85, 1.2), _snowy(scene), _lit(scene))
            if scene.has("lake") or not _wet(canvas, x, y):
                items += cottage
        canvas.draw("house", items, np.pi / 2, 0.95)
        if not far:
            _bushes(canvas, scene, rng, y + 0.03, 0.03)


def _wet(canvas: Canvas, x: float, y: float) -> bool:
    last = canvas.size - 1
    return bool(canvas.water[min(int(y * canvas.size), last), min(max(int(x * canvas.size), 0), last)])


def _bushes(canvas: Canvas, scene: Scene, rng: Rng, y: float, size: float) -> None:
    p = canvas.palette
    items: list[Item] = []
    for _ in range(11):
        r = size * rng.uniform(0.6, 1.1)
        colour = mix(p.leaf, p.near, rng.uniform(0.1, 0.9))
        colour = mix(colour, mix(p.cloud, WHITE, 0.4), 0.6) if _snowy(scene) else colour
        items.append((shapes.disc(rng.uniform(0, 1), y + rng.uniform(0, 0.02), r * 1.3, r, 18), colour, False))
    canvas.draw("bush", items, 0.6, 0.5)


def _skyline(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Three ranks of towers with lit windows; the nearest carry neon signs."""
    p = canvas.palette
    lit = _lit(scene)
    for rank in range(3):
        t, x = rank / 2, -0.03
        body = mix(mix(p.far, p.low, 0.45 * (1 - t)), shade(mix(p.far, p.top, 0.6), 0.62 if lit else 0.9), 0.9 * t)
        items: list[Item] = []
        while x < 1.02:
            w = rng.uniform(0.07, 0.13) * (0.8 + 0.35 * t)
            middle = abs(x + w / 2 - 0.5)
            high = (0.45 - 0.1 * t) * rng.uniform(0.55, 1.0) * (1.15 - 0.5 * middle if rank == 0 else 0.6 + 0.9 * middle)
            roof = scene.horizon - high * scene.horizon / 0.7
            front = p.wall if lit else (p.wall, p.roof, p.cloud)[int(rng.integers(3))]
            tint = mix(body, front, rng.uniform(0, 0.3) if lit else rng.uniform(0.2, 0.75) * (0.55 + 0.45 * t))
            items.append((shapes.box(x, roof, x + w, scene.horizon + 0.03), tint, False))
            if rng.uniform() < 0.3:
                items.append((shapes.box(x + w * 0.45, roof - 0.05, x + w * 0.52, roof), tint, False))
            if rank > 0:
                items += _windows(rng, canvas, x, roof, w, scene.horizon, lit)
            if rank == 2 and rng.uniform() < 0.6 and lit:
                sx, sy, high = x + w * rng.uniform(0.1, 0.6), roof + rng.uniform(0.03, 0.07), rng.uniform(0.08, 0.13)
                colour = (p.flower, p.window, p.light)[int(rng.integers(3))]
                items += [(shapes.box(sx, sy, sx + 0.032, sy + high), colour, True), (shapes.box(sx + 0.008, sy + 0.008, sx + 0.024, sy + high - 0.008), mix(colour, p.near, 0.7), False)]
            x += w * rng.uniform(0.95, 1.12)
        canvas.draw("tower", items, np.pi / 2, 0.6 + 0.35 * t)


def _windows(rng: Rng, canvas: Canvas, x: float, roof: float, w: float, ground: float, lit: bool) -> list[Item]:
    p = canvas.palette
    columns = max(2, int(w / 0.03))
    step = w / columns
    tints = (p.window, p.flower, mix(p.window, p.light, 0.6)) if lit else (shade(p.far, 0.8),) * 3
    tint = tints[int(rng.integers(3))]
    items: list[Item] = []
    for row in range(int((ground - roof - 0.02) / 0.034)):
        for column in range(columns):
            if rng.uniform() < 0.5:
                px, py = x + step * (column + 0.25), roof + 0.018 + 0.034 * row
                items.append((shapes.box(px, py, px + step * 0.5, py + 0.017), mix(tint, p.near if lit else p.far, rng.uniform(0, 0.35)), lit))
    return items


def _street(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Under a skyline without a mirror: a plain dark embankment."""
    if scene.kind == "city" and not scene.has("reflection"):
        p = canvas.palette
        line = shapes.hill(rng, scene.horizon + 0.01, 0.004)
        canvas.wash("land", canvas.mask([shapes.down_to(line, 1.05)]), canvas.rows(mix(p.far, p.low, 0.3), shade(p.far, 0.7), shade(p.far, 0.5), scene.horizon, 1), 0.0, 0.3)


def _pagoda(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    w = 0.19 if scene.kind == "mountain" else 0.14
    x = 0.5 + scene.side * rng.uniform(0.2, 0.32)
    y = scene.horizon + (0.0 if scene.has("lake", "sea") else 0.06)
    if scene.kind == "apsara":
        y = 1.0
    canvas.draw("pagoda", shapes.pagoda(canvas.palette, x, y, w, 4 + int(scene.amount * 2), _snowy(scene), _lit(scene)), np.pi / 2, 0.95)
    if scene.kind != "apsara":
        _bushes(canvas, scene, rng, y, 0.028)


def _bridge(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    p = canvas.palette
    colour = mix(p.leaf, p.water, 0.4) if scene.style in ("monet", "pastel", "dunhuang") else p.roof
    y = scene.horizon + 0.2
    canvas.draw("bridge", shapes.bridge(p, colour, 0.5 + scene.side * 0.04, y, 0.98, rng.uniform(0.14, 0.19)), 0.0, 0.9)


def _lilies(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Rafts of pads lying in perspective, with flowers on the nearer ones."""
    p = canvas.palette
    items: list[Item] = []
    blooms: list[Item] = []
    for level in np.sort(rng.uniform(0.08, 1, 12 + int(scene.amount * 5))):
        y = scene.horizon + 0.06 + (0.96 - scene.horizon - 0.06) * level
        centre, r = rng.uniform(0, 1), 0.026 + 0.05 * level
        for _ in range(4):
            x, py = centre + rng.uniform(-2.4, 2.4) * r, y + rng.uniform(-0.6, 0.6) * r
            pad = mix(mix(p.leaf, p.near, rng.uniform(0, 0.9)), pale(p), rng.uniform(0.05, 0.4))
            items.append((shapes.disc(x, py, r, r * 0.38, 22), pad, False))
            if rng.uniform() < 0.42:
                blooms += _lotus(rng, canvas, x, py - r * 0.1, r * 0.72)
    canvas.draw("lily", items + blooms, 0.0, 0.75)


def _lotus(rng: Rng, canvas: Canvas, x: float, y: float, r: float) -> list[Item]:
    p = canvas.palette
    pink = mix(p.flower, p.cloud, rng.uniform(0, 0.6))
    petals = [(np.array([[x, y + r * 0.3], [x + k * r, y - r * (0.75 - 0.4 * abs(k))], [x + k * r * 0.5 + 0.18 * r, y + r * 0.3]]), shade(pink, 0.9 + 0.1 * (n % 2)), False) for n, k in enumerate((-1.0, -0.55, 0.55, 1.0, 0.0))]
    return [(shapes.disc(x, y + r * 0.12, r * 0.75, r * 0.35, 14), shade(pink, 0.82), False), *petals, (shapes.disc(x, y, r * 0.2, r * 0.16, 10), p.light, False)]


def _boat(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    deep = {"pond": 0.35, "river": 0.62}.get(scene.kind, 0.3)
    y = scene.horizon + (1 - scene.horizon) * deep
    x, w = 0.5 + scene.side * rng.uniform(0.02, 0.22), rng.uniform(0.16, 0.22)
    if scene.has("river"):
        row = canvas.water[int(y * canvas.size)]
        x, w = (float(np.flatnonzero(row).mean()) / canvas.size if row.any() else x), 0.13
    sail = scene.kind == "sea" and rng.uniform() < 0.75
    canvas.draw("boat", shapes.boat(rng, canvas.palette, x, y, w * (1.25 if sail else 1.0), scene.side, sail), 0.3, 0.95)


def _field(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Rows of sunflowers, small ones far, large faces near."""
    p = canvas.palette
    for row in range(4):
        t = row / 3
        y, r = scene.horizon + 0.035 + 0.33 * t**1.15, 0.022 + 0.062 * t
        items: list[Item] = []
        count = int(1.0 / (r * 1.9))
        for k in range(count):
            x = (k + 0.5 + rng.uniform(-0.3, 0.3)) / count
            items += shapes.sunflower(rng, p, x, y + rng.uniform(-0.35, 0.35) * r, r * rng.uniform(0.88, 1.15), y + r * 3.4)
        canvas.draw("flower", items, 0.9, 0.9)
        if row < 3:
            line = shapes.hill(rng, y + r * 2.0, 0.006)
            canvas.wash("leaves", canvas.mask([shapes.down_to(line, 1.05)]), mix(mix(p.leaf, p.mid, 0.35), p.near, 0.3 * t), 1.2, 0.35)


def _wheat(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A golden field: bands of swaying ears, parted by a path."""
    p = canvas.palette
    ripe = gold(p)
    lean = scene.side * 0.35
    for row in range(5):
        t = row / 4
        y = scene.horizon + 0.012 + 0.35 * t
        base = mix(ripe, (shade(ripe, 0.72), mix(ripe, pale(p), 0.4))[row % 2], 0.45)
        line = shapes.hill(rng, y, 0.008 + 0.008 * t)
        canvas.wash("wheat", canvas.mask([shapes.down_to(line, 1.05)]), base, np.pi / 2 + lean, 0.4)
        items: list[Item] = []
        h = 0.05 + 0.1 * t
        for k in range(46 - row * 5):
            x = rng.uniform(-0.02, 1.02)
            foot = y + rng.uniform(0.2, 0.9) * h
            stem = shapes.curve(np.array([[x, foot], [x + lean * h * 0.35, foot - h * 0.6], [x + lean * h, foot - h]]), 7)
            tint = mix(shade(ripe, rng.uniform(0.7, 1.12)), pale(p), rng.uniform(0, 0.35))
            items.append((shapes.ribbon(stem, h * 0.045, h * 0.05, h * 0.05), tint, False))
        canvas.draw("wheat", items, np.pi / 2 - lean * 0.5, 0.5)


def _trees(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Pines on both sides, or willows by the pond."""
    p = canvas.palette
    if scene.kind == "pond":
        _willow(canvas, scene, rng)
        return
    white = mix(p.cloud, WHITE, 0.4)
    items: list[Item] = []
    for k in range(5 + int(scene.amount * 3)):
        side = scene.side if k % 3 else -scene.side
        x, h = 0.5 + side * rng.uniform(0.3, 0.52), rng.uniform(0.14, 0.26)
        y = scene.horizon + rng.uniform(0.03, 0.2) * (0.3 if scene.has("lake", "sea") else 1)
        colour = mix(p.leaf, p.mid, rng.uniform(0, 0.4))
        items.append((shapes.box(x - h * 0.025, y - h * 0.2, x + h * 0.025, y), shade(p.roof, 0.5), False))
        for tier in range(4):
            top, w = y - h * (0.34 + 0.2 * tier), h * (0.3 - 0.06 * tier)
            fan = np.array([[x - w, top + h * 0.2], [x, top - h * 0.1], [x + w, top + h * 0.2], [x, top + h * 0.15]])
            items.append((fan, shade(colour, 0.85 + 0.1 * tier), False))
            if _snowy(scene):
                items.append((np.array([[x - w * 0.62, top + h * 0.09], [x, top - h * 0.1], [x + w * 0.62, top + h * 0.09], [x, top + h * 0.04]]), white, False))
    canvas.draw("tree", items, 1.2, 0.7)


def _willow(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    p = canvas.palette
    items: list[Item] = []
    for k in range(26):
        x = 0.5 + scene.side * (0.5 - 0.28 * rng.uniform() ** 1.5)
        length = rng.uniform(0.2, 0.5)
        line = shapes.curve(np.array([[x, -0.03], [x - scene.side * 0.02, length * 0.5], [x - scene.side * rng.uniform(-0.02, 0.04), length]]), 14)
        items.append((shapes.ribbon(line, 0.006, 0.004, 0.014), mix(mix(p.leaf, p.mid, rng.uniform(0, 0.7)), p.light, rng.uniform(0, 0.2)), False))
    canvas.draw("willow", items, np.pi / 2, 0.6)


def _blossoms(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A flowering branch reaching in from the upper corner."""
    p = canvas.palette
    bark = shade(mix(p.roof, (40, 26, 26), 0.7), 0.8)
    side = scene.side
    edge = 0.5 + side * 0.53
    main = shapes.curve(np.array([[edge, 0.02], [edge - side * 0.16, 0.1], [edge - side * 0.3, 0.09], [edge - side * 0.46, 0.19]]), 30)
    twig = shapes.curve(np.array([main[10], main[10] + (-side * 0.06, 0.1), main[10] + (-side * 0.16, 0.17)]), 16)
    items: list[Item] = [(shapes.ribbon(main, 0.032, 0.006), bark, False), (shapes.ribbon(twig, 0.014, 0.004), bark, False)]
    for line in (main, twig):
        for k in range(3, len(line), 2):
            x, y = line[k] + rng.uniform(-0.028, 0.028, 2)
            r, tint = rng.uniform(0.014, 0.024), mix(p.flower, p.cloud, rng.uniform(0.1, 0.6))
            items.append((shapes.star(x, y, r * 1.15, r * 0.8, 5, rng.uniform(0, 6)), tint, False))
            items.append((shapes.disc(x, y, r * 0.28, n=10), mix(p.light, p.roof, 0.3), False))
    canvas.draw("blossom", items, 0.6, 0.9)


def _cypress(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """One great flame of a tree in front, and a smaller one beside it; lighter tongues inside."""
    p = canvas.palette
    dark = mix(p.leaf, (10, 22, 24), 0.35)
    height = rng.uniform(0.68, 0.84)
    x = 0.5 + scene.side * rng.uniform(0.26, 0.36)
    items: list[Item] = []
    for dx, share in ((scene.side * 0.1, 0.62), (0.0, 1.0)):
        for inner, colour in ((1.0, dark), (0.55, mix(dark, p.mid, 0.4)), (0.25, mix(dark, p.mid, 0.7))):
            items.append((shapes.flame_tree(rng, x + dx, 1.03 - 0.05 * (1 - inner), height * share * (0.6 + 0.4 * inner), 0.165 * share * inner), colour, False))
    size = canvas.size
    angle = np.pi / 2 + 0.5 * noise(rng, size, 5, 1)
    canvas.draw("cypress", items, angle, 0.55)


def _apsara(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    x, y = 0.5 + scene.side * rng.uniform(0.06, 0.12), scene.horizon * rng.uniform(0.62, 0.7)
    canvas.draw("apsara", shapes.apsara(canvas.palette, x, y, rng.uniform(0.34, 0.4), scene.side, rng), 0.3, 0.95)


def _crows(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    canvas.draw("crow", flock(rng, canvas.palette, scene), 0.3, 0.95)


def _weather(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Where rain and flakes fall; the brushes draw them last."""
    if scene.weather == "rain":
        canvas.rain = rng.uniform(-0.1, 1.1, (60, 2))
    if scene.weather == "snow":
        spots = rng.uniform(0, 1, (64, 3))
        canvas.flakes = np.stack([spots[:, 0], spots[:, 1], 0.0055 + 0.0085 * spots[:, 2] ** 2], 1)


_PARTS: tuple[tuple[str, Callable[[Canvas, Scene, Rng], None]], ...] = (
    ("skyline", _street),
    ("river", _river),
    ("pagoda", _pagoda),
    ("village", _village),
    ("trees", _trees),
    ("bridge", _bridge),
    ("lilies", _lilies),
    ("wheat", _wheat),
    ("sunflowers", _field),
    ("boat", _boat),
    ("cypress", _cypress),
    ("crows", _crows),
    ("apsara", _apsara),
    ("blossoms", _blossoms),
)
