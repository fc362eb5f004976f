"""What painters of buildings share: colours in the hour's light, a free place, a knoll, reflections, windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from starrynight.firefly.drawing import shapes
from starrynight.firefly.drawing.buildings import is_lit, snowy
from starrynight.firefly.drawing.canvas import Canvas
from starrynight.firefly.drawing.palettes import WHITE, Rgb, mix, shade
from starrynight.firefly.drawing.scene import Scene
from starrynight.firefly.drawing.shapes import Item

Rng = np.random.Generator
RED: Rgb = (214, 44, 34)
# House fronts: ochre, coral, teal, cream, blue, rose, sage.
FRONTS: tuple[Rgb, ...] = (
    (232, 172, 76), (206, 96, 72), (70, 140, 146), (240, 226, 196), (86, 120, 178), (222, 138, 138), (142, 164, 110),
)  # fmt: skip


def tint(canvas: Canvas, scene: Scene, colour: Rgb, accent: bool = False) -> Rgb:
    """A fixed colour in the light of the hour and the pigments of the style. Ink keeps only accents' hues."""
    p = canvas.palette
    if scene.style == "ink":
        grey = round(0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2])
        colour = mix(colour, (grey, grey, grey), 0.35 if accent else 0.85)
    if scene.style == "cyberpunk":
        return mix(mix(colour, p.flower, 0.12), p.near, 0.2 if accent else 0.42)
    share = {"night": 0.24, "dusk": 0.14}.get(scene.hour, 0.06)
    return mix(mix(colour, p.top, share * (0.5 if accent else 1)), p.wall, 0.1)


def stone(canvas: Canvas, scene: Scene, warm: float = 0.5) -> Rgb:
    """Light stone, grey or warm."""
    return tint(canvas, scene, mix((186, 190, 194), (226, 204, 168), warm))


def snowed(canvas: Canvas, scene: Scene, colour: Rgb) -> Rgb:
    """A roof's colour: white in snow."""
    return mix(canvas.palette.cloud, WHITE, 0.5) if snowy(scene) else colour


def aside(scene: Scene, rng: Rng, near: float = 0.14, far: float = 0.24) -> float:
    """The x of a landmark: on the scene's side, or away from a figure that fills the picture."""
    side = scene.side
    if scene.close:
        near, far = 0.3, 0.36
        side = -int(np.sign(scene.figure - 0.5)) or side
    return 0.5 + side * float(rng.uniform(near, far))


# The crests of a grassy knoll and of a crag.
_KNOLL = [[-0.5, 1], [-0.38, 0.72], [-0.27, 0.2], [-0.16, 0], [0.16, 0], [0.28, 0.26], [0.37, 0.6], [0.5, 1]]
_CRAG = [[-0.42, 1], [-0.4, 0.5], [-0.34, 0.16], [-0.3, 0], [0.3, 0], [0.33, 0.2], [0.41, 0.46], [0.42, 1]]


def knoll(canvas: Canvas, scene: Scene, x: float, top: float, width: float) -> None:
    """A hill with a level top at height `top`, down to the foot of the land; in a gorge a crag by the pool."""
    p = canvas.palette
    crag = scene.kind == "gorge"
    low = scene.horizon + (0.21 if crag else 0.09)
    line = shapes.place(
        shapes.curve(_CRAG if crag else _KNOLL, 40), x, top, width * (0.8 if crag else 1), low - top
    )
    body = mix(p.mid, p.near, 0.45)
    if crag:
        body = mix(tint(canvas, scene, (142, 132, 120)), body, 0.45)
    if scene.kind == "desert":
        body = mix(shapes.gold(p), p.near, 0.35)
    if snowy(scene):
        body = mix(mix(p.cloud, WHITE, 0.5), p.far, 0.2)
    tints = canvas.rows(mix(body, p.low, 0.2 if crag else 0.12), body, shade(body, 0.8), top, low)
    canvas.ground("land", line, tints, np.pi / (2 if crag else 4), bottom=low)


def reflect(
    canvas: Canvas, items: Sequence[Item], level: float, dim: float = 0.5, stretch: float = 0.8
) -> None:
    """Draw items upside down below a level of water, in the water's tone."""
    water = canvas.palette.water
    flipped = []
    for outline, colour, shines in items:
        points = np.array(outline, float)
        points[:, 1] = level + (level - points[:, 1]) * stretch
        points[:, 0] += 0.004 * np.sin(points[:, 1] * 160)
        flipped.append(Item(points, mix(colour, water, dim if not shines else dim * 0.5), shines))
    canvas.draw("water", flipped, 0.0, 0.6)


def merlons(x0: float, x1: float, y: float, size: float, colour: Rgb) -> list[Item]:
    """Battlements on top of a level wall."""
    count = max(2, round((x1 - x0) / (1.9 * size)))
    step = (x1 - x0) / (count - 0.45)
    return [
        Item(shapes.box(x0 + k * step, y - size, x0 + (k + 0.55) * step, y + 0.002), colour)
        for k in range(count)
    ]


def arch(x: float, y: float, w: float, h: float) -> np.ndarray:
    """A window or gate with a round top, standing at (x, y)."""
    turn = np.linspace(np.pi, 0, 11)
    top = np.stack([x + w / 2 * np.cos(turn), y - h + w / 2 - w / 2 * np.sin(turn)], 1)
    return np.concatenate([[[x - w / 2, y]], top, [[x + w / 2, y]]])


def pane_colour(canvas: Canvas, scene: Scene, wall: Rgb) -> Rgb:
    """The colour of a window: lit, or darker than its wall."""
    return canvas.palette.window if is_lit(scene) else shade(wall, 0.42)
