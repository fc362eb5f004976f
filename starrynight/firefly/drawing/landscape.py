"""Draw a scene: lay it out on a canvas from back to front, paint the canvas in the scene's style, add rain or
snow.

The layout is the same for every style, up to the style's sky.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from starrynight.firefly.drawing import animals, buildings, nature, people, places, plants, shapes, trees
from starrynight.firefly.drawing.brushes import BRUSHES
from starrynight.firefly.drawing.canvas import SUBPIXEL, Canvas, CanvasLayer
from starrynight.firefly.drawing.palettes import PALETTES, WHITE, mix, shade
from starrynight.firefly.drawing.scene import Scene
from starrynight.firefly.drawing.shapes import Item
from starrynight.firefly.drawing.sky import SkyStyle, paint_sky

Rng = np.random.Generator
SMALLEST, LARGEST = 64, 2048


def render(
    scene: Scene, size: int = 256, boxes: dict[str, tuple[float, float, float, float]] | None = None
) -> np.ndarray:
    """The picture of `scene`, uint8 [size, size, 3] RGB. The same scene and size give the same bytes.

    `boxes`, if given, takes the place of every painted subject: left, top, right, bottom, as shares of the side.
    Raises ValueError when size is outside 64..2048.
    """
    if not SMALLEST <= size <= LARGEST:
        raise ValueError(f"size {size} is outside {SMALLEST}..{LARGEST}")
    paint, style = BRUSHES[scene.style]
    canvas = lay_out(scene, size, style)
    if boxes is not None:
        boxes |= _boxes(canvas)
    picture = paint(canvas, np.random.default_rng([scene.seed, 3]))
    return _draw_weather(canvas, np.clip(picture, 0, 255).astype(np.uint8))


def lay_out(scene: Scene, size: int, style: SkyStyle) -> Canvas:
    """The scene as layers on a canvas of size by size pixels."""
    rng = np.random.default_rng([scene.seed, 2])
    canvas = Canvas(size, PALETTES[scene.style, scene.hour])
    paint_sky(canvas, scene, style, rng)
    for name, paint in _BEHIND:
        if scene.has(name):
            canvas.subject = name
            paint(canvas, scene, rng)
    canvas.subject = ""
    if scene.kind == "forest":
        trees.forest(canvas, scene, rng)
    if scene.weather == "mist":
        _mist(canvas, scene.horizon - 0.04, 0.16)
    if scene.has("sea", "lake") or (scene.kind == "city" and scene.has("reflection")):
        _shore(canvas, scene, rng)
        _water(canvas, scene, rng)
    elif scene.kind not in ("apsara", "desert", "gorge") or scene.has("river"):
        _land(canvas, scene, rng)
    for name, paint in _PARTS:
        if scene.has(name):
            canvas.subject = name
            paint(canvas, scene, rng)
            canvas.subject = ""
        if name == "river" and scene.kind != "apsara":
            plants.meadow(canvas, scene, np.random.default_rng([scene.seed, 4]))
    _place_weather(canvas, scene, rng)
    return canvas


# The sky's layers whose roles are not their subjects' names.
_SKY_ROLES = {"moon": "moon", "sun": "sun", "comet": "comet"}


def _boxes(canvas: Canvas) -> dict[str, tuple[float, float, float, float]]:
    """The place of every subject that has layers of its own."""
    areas: dict[str, np.ndarray] = {}
    for layer in canvas.layers:
        if name := layer.subject or _SKY_ROLES.get(layer.role, ""):
            seen = layer.mask[::4, ::4] > 100
            areas[name] = seen | areas[name] if name in areas else seen
    found = {}
    for name, area in areas.items():
        rows, columns = np.flatnonzero(area.any(1)), np.flatnonzero(area.any(0))
        if len(rows):
            n = len(area)
            found[name] = columns[0] / n, rows[0] / n, (columns[-1] + 1) / n, (rows[-1] + 1) / n
    return found


def _slope(canvas: Canvas, crest: np.ndarray) -> np.ndarray:
    """The stroke angle along a crest, float32 [S, S]."""
    heights = np.interp(np.linspace(0, 1, canvas.size), crest[:, 0], crest[:, 1])
    return np.repeat(np.arctan(np.gradient(heights) * canvas.size)[None].astype(np.float32), canvas.size, 0)


def _mountains(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Two or three ridges, paler with distance, hazy at the foot; snow on the far peaks in winter."""
    p = canvas.palette
    grand = scene.kind in ("mountain", "river", "snow")
    count = 3 if grand else 2
    for k in range(count):
        near = k / (count - 1)
        height = (0.3 if grand else 0.17) * (1 - 0.45 * near) * rng.uniform(0.85, 1.15)
        line = shapes.ridge(rng, scene.horizon + 0.02, height, 0.1 - 0.04 * near, 3 + k)
        base = mix(p.far, p.mid, near)
        foot = mix(base, p.low, 0.55 - 0.2 * near)
        top = mix(base, p.low, 0.18 * (1 - near))
        if buildings.snowy(scene) and k == 0:
            top = mix(mix(p.cloud, WHITE, 0.4), base, 0.15)
        tint = canvas.rows(top, base, foot, scene.horizon - height, scene.horizon + 0.03, 0.45)
        bottom = 1.05 if scene.kind == "apsara" else scene.horizon + 0.1
        canvas.ground("mountain", line, tint, _slope(canvas, line), bottom=bottom)
    if scene.kind == "mountain" and not scene.has("lake"):
        _mist(canvas, scene.horizon, 0.09)


def _mist(canvas: Canvas, level: float, depth: float) -> None:
    p = canvas.palette
    y = np.arange(canvas.size, dtype=np.float32)[:, None] / canvas.size
    share = np.exp(-(((y - level) / depth) ** 2)) * 0.72
    area = np.repeat((share * 255).astype(np.uint8), canvas.size, 1)
    share = area[..., None] / 255.0
    tint = np.array(mix(p.low, p.cloud, 0.5))
    canvas.colour = (canvas.colour * (1 - share) + tint * share).astype(np.uint8)
    canvas.layers.append(CanvasLayer("mist", area, canvas.colour))


def _shore(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """The far bank, which the water reflects."""
    if scene.has("sea") or scene.kind == "city":
        return
    p = canvas.palette
    line = shapes.hill(rng, scene.horizon - 0.025, 0.018)
    tint = mix(mix(p.cloud, WHITE, 0.4), p.far, 0.2) if buildings.snowy(scene) else mix(p.near, p.mid, 0.6)
    canvas.ground("bank", line, tint, bottom=scene.horizon + 0.03)
    if scene.kind == "pond":
        plants.far_trees(canvas, scene, rng)


def _water(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """The reflection of what is drawn so far, with ripples growing towards the viewer, and glitter."""
    p, size = canvas.palette, canvas.size
    top = int(scene.horizon * size)
    deep = size - top
    y, x = np.mgrid[0:deep, 0:size].astype(np.float32)
    near = y / deep
    swing = np.sin(near**0.7 * 46 + 5 * np.sin(x / size * 5 + rng.uniform(0, 6)))
    wave = swing * (0.002 + 0.012 * near) * size
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
        glint = shapes.disc(x, y, width, 0.004 + 0.006 * t, 16)
        items.append(Item(glint, mix(p.light, p.water, 0.15 + 0.25 * t)))
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
        y = base - size * swell * (0.5 + 0.5 * np.sin(turn)) ** 1.8
        line = np.stack([x - 0.3 * size * np.cos(turn), y], 1)
        lower = line + np.array((0, size * 0.42))
        body = mix(shade(p.water, 0.95 - 0.1 * t), p.near, 0.12 * t)
        items = [
            Item(shapes.down_to(line, 1.03), body),
            Item(shapes.ribbon(line, size * 0.2, size * 0.2), mix(p.cloud, WHITE, 0.45)),
            Item(shapes.ribbon(lower, size * 0.08, size * 0.08), mix(body, p.cloud, 0.45)),
        ]
        canvas.draw("wave", items, 0.0, 0.5)


def _land(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Three rolling hills, the nearest darkest, or snow fields."""
    p = canvas.palette
    snow = mix(mix(p.cloud, p.low, 0.3), WHITE, 0.5)
    dusk = 0.45 if scene.hour == "night" else 0.12
    for k in range(3):
        t = k / 2
        line = shapes.hill(rng, scene.horizon + 0.025 + 0.17 * t, 0.018 + 0.02 * t)
        if buildings.snowy(scene):
            top = mix(snow, p.far, 0.04 + dusk * 0.35 * (1 - t))
            low = mix(snow, p.far, 0.36 + dusk * (0.8 - 0.5 * t))
        else:
            top, low = mix(p.mid, p.near, 0.25 + 0.6 * t), shade(mix(p.mid, p.near, 0.4 + 0.6 * t), 0.8)
        start, end = scene.horizon + 0.15 * t, scene.horizon + 0.25 + 0.3 * t
        tint = canvas.rows(top, mix(top, low, 0.5), low, start, end)
        canvas.ground("land", line, tint, _slope(canvas, line))


def _river(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A river winding from the hills to the viewer, in the sky's low colour."""
    p = canvas.palette
    start, sway = 0.5 + rng.uniform(-0.15, 0.15), rng.choice((-1, 1)) * rng.uniform(0.18, 0.28)
    top = scene.horizon + 0.04
    t = np.linspace(0, 1, 40)
    x = start + sway * np.sin(t * np.pi * 1.6) * (0.25 + 0.75 * t)
    y = top + (1.04 - top) * t**1.35
    half = 0.012 + 0.2 * t**1.7
    area = canvas.mask(np.concatenate([np.stack([x - half, y], 1), np.stack([x + half, y], 1)[::-1]]))
    tint = canvas.rows(mix(p.low, p.cloud, 0.2), mix(p.low, p.water, 0.6), p.water, top, 1.0, 0.4)
    across = 4 * np.sin(np.linspace(0, 9, canvas.size))[None]
    ripple = np.clip(np.sin(np.linspace(0, 60, canvas.size)[:, None] + across), 0, 1)[..., None] * 0.3
    canvas.wash("water", area, tint * (1 - ripple) + np.array(mix(p.cloud, p.low, 0.4)) * ripple, 0.0, 0.35)
    canvas.water = area


def _place_weather(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Draw the positions of rain and flakes. `_draw_weather` paints them, after the brush."""
    if scene.weather == "rain":
        canvas.rain = rng.uniform(-0.1, 1.1, (60, 2))
    if scene.weather == "snow":
        spots = rng.uniform(0, 1, (64, 3))
        canvas.flakes = np.stack([spots[:, 0], spots[:, 1], 0.0055 + 0.0085 * spots[:, 2] ** 2], 1)


def _draw_weather(canvas: Canvas, picture: np.ndarray) -> np.ndarray:
    """The picture with rain as slanting pale strokes and snow as round flakes."""
    size = canvas.size
    picture = np.ascontiguousarray(picture)
    if canvas.rain is not None:
        veil = picture.copy()
        pale = mix(canvas.palette.cloud, WHITE, 0.3)
        for start in canvas.rain:
            line = canvas.points(np.array([start, start + np.array((-0.022, 0.075))]))
            cv2.polylines(veil, [line], False, pale, max(1, round(size / 150)), cv2.LINE_AA, SUBPIXEL)
        picture = cv2.addWeighted(veil, 0.5, picture, 0.5, 0)
    if canvas.flakes is not None:
        for x, y, r in canvas.flakes:
            flake = canvas.points(shapes.disc(x, y, r, n=16))
            cv2.fillPoly(picture, [flake], WHITE, cv2.LINE_AA, SUBPIXEL)
    return picture


Part = tuple[float, str, Callable[[Canvas, Scene, Rng], None]]
# What paints each subject, with its depth. Negative depths come before land and water, which reflects them;
# positive ones after, from back to front.
PARTS: tuple[Part, ...] = (
    (-0.5, "mountains", _mountains),
    (-0.4, "skyline", buildings.skyline),
    (0.1, "skyline", buildings.street),
    (0.2, "river", _river),
    (0.3, "pagoda", buildings.pagoda),
    (0.4, "village", buildings.village),
    (0.5, "trees", plants.trees),
    (0.6, "bridge", buildings.bridge),
    (0.65, "lilies", plants.lilies),
    (0.7, "wheat", plants.wheat),
    (0.72, "sunflowers", plants.sunflowers),
    (0.75, "boat", buildings.boat),
    (0.8, "cypress", plants.cypress),
    (0.85, "crows", plants.crows),
    (0.9, "apsara", plants.apsara),
    (0.95, "blossoms", plants.blossoms),
    *places.PARTS,
    *nature.PARTS,
    *animals.PARTS,
    *people.PARTS,
)
_ORDERED = sorted(PARTS, key=lambda part: part[0])
_BEHIND = [(name, paint) for depth, name, paint in _ORDERED if depth < 0]
_PARTS = [(name, paint) for depth, name, paint in _ORDERED if depth > 0]
