"""Place animals on the land, small in a landscape or filling the picture."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from starrynight.firefly.drawing import flocks, shapes
from starrynight.firefly.drawing.buildings import snowy, wet
from starrynight.firefly.drawing.canvas import Canvas, noise
from starrynight.firefly.drawing.coats import (
    KINDS,
    Kind,
    behind,
    box_of,
    coat_of,
    put,
    row,
)
from starrynight.firefly.drawing.palettes import WHITE, mix, shade
from starrynight.firefly.drawing.scene import Scene
from starrynight.firefly.drawing.shapes import Item

Rng = np.random.Generator
Painter = Callable[[Canvas, Scene, Rng], None]


def _foot(scene: Scene, rng: Rng) -> float:
    """The height at which an animal stands on the land."""
    if scene.close:
        return float(rng.uniform(0.86, 0.93))
    if scene.has("village") or scene.kind in ("street", "harbour", "sunflowers", "wheat"):
        return float(rng.uniform(0.92, 0.97))
    return float(min(scene.horizon + rng.uniform(0.2, 0.32), 0.94))


def _knoll(canvas: Canvas, scene: Scene, x: float, y: float) -> None:
    """A bank in the foreground to stand on where there is water."""
    p = canvas.palette
    across = np.linspace(-0.02, 1.02, 40)
    line = np.stack([across, y - 0.02 + 0.3 * np.abs(across - x) ** 1.6 + 0.006 * np.sin(across * 21)], 1)
    top = mix(p.mid, p.near, 0.7)
    if snowy(scene):
        top = mix(mix(mix(p.cloud, p.low, 0.3), WHITE, 0.5), p.far, 0.12)
    canvas.ground("land", line, canvas.rows(top, shade(top, 0.9), shade(top, 0.72), y, 1.0), 0.1)


def beast(name: str, canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """One to three animals on the land, or the head and shoulders of one."""
    kind = KINDS[name]
    if scene.close and scene.count == 1 and rng.uniform() < 0.35:
        _head_and_shoulders(canvas, scene, rng, kind)
        return
    y = _foot(scene, rng)
    target = {1: 0.6, 2: 0.46, 3: 0.38}[scene.count] if scene.close else kind.size
    target *= rng.uniform(0.92, 1.1)
    if scene.kind == "harbour":
        pass  # the pier leads to the animal
    elif not scene.close and wet(canvas, scene.figure, y):
        y = max(y, 0.9)
        _knoll(canvas, scene, scene.figure, y)
    elif scene.kind == "village" and not scene.close:
        _knoll(canvas, scene, scene.figure, y - 0.08)  # clear ground before the houses
    elif scene.close and wet(canvas, scene.figure, y):
        _knoll(canvas, scene, scene.figure, y - 0.04)
    ground = behind(canvas, scene.figure, y - target / 2, target, target)
    coat = coat_of(canvas, scene, rng, kind, ground)
    pose = kind.poses[int(rng.integers(len(kind.poses)))]
    figures = []
    for k in range(scene.count):
        other = kind.poses[int(rng.integers(len(kind.poses)))] if k else pose
        figures.append(other(rng, coat if k == 0 else coat_of(canvas, scene, rng, kind, ground)))
    items: list[Item] = []
    dark = shade(behind(canvas, scene.figure, y, 0.2, 0.04), 0.68)
    for (x, size, side), shape in zip(row(scene, rng, figures, target), figures, strict=True):
        left, _, right, _ = box_of(shape)
        foot = y + rng.uniform(-0.012, 0.012)
        middle, half = x + side * size * (left + right) / 2, size * (right - left) / 2
        items.append(Item(shapes.disc(middle, foot, half * 0.92, 0.012 + 0.03 * size), dark))
        items += put(shape, x, foot, size, side)
    canvas.draw("animal", items, 0.4 + 0.9 * noise(rng, canvas.size, 6, 1), 0.95)


def _head_and_shoulders(canvas: Canvas, scene: Scene, rng: Rng, kind: Kind) -> None:
    """One animal so near that the picture's lower edge cuts it off."""
    ground = behind(canvas, scene.figure, 0.5, 0.5, 0.6)
    shape = kind.poses[0](rng, coat_of(canvas, scene, rng, kind, ground))
    every = np.concatenate([np.asarray(i.outline, dtype=float) for i in shape])
    top, high = float(every[:, 1].min()), float(np.ptp(every[:, 1]))
    head = every[every[:, 1] < top + 0.33 * high]
    left, right = float(head[:, 0].min()), float(head[:, 0].max())
    size = min(rng.uniform(0.78, 0.88) / (0.66 * high), 0.66 / (right - left))
    side = 1 if scene.figure < 0.5 else -1
    x = 0.5 + 0.5 * (scene.figure - 0.5) - side * size * (left + right) / 2
    y = rng.uniform(0.14, 0.2) - top * size
    canvas.draw("animal", put(shape, x, y, size, side), 0.6 + 0.9 * noise(rng, canvas.size, 6, 1), 0.95)


def _before(scene: Scene) -> bool:
    """Whether the animal is seen from near and must not be hidden by a flowering branch."""
    return scene.close and scene.has("blossoms", "plum")


def _at(depth: float, name: str, paint: Painter) -> tuple[tuple[float, str, Painter], ...]:
    """A part at its depth, or in front of flowering branches."""

    def behind_branches(canvas: Canvas, scene: Scene, rng: Rng) -> None:
        if not _before(scene):
            paint(canvas, scene, rng)

    def before_branches(canvas: Canvas, scene: Scene, rng: Rng) -> None:
        if _before(scene):
            paint(canvas, scene, rng)

    return (depth, name, behind_branches), (0.97, name, before_branches)


# What paints each subject, with its depth (see landscape.PARTS).
PARTS: tuple[tuple[float, str, Painter], ...] = (
    (0.61, "fish", flocks.fish),
    (0.67, "whale", flocks.whale),
    (0.84, "swallows", flocks.swallows),
    *_at(0.86, "crane", flocks.crane),
    *(
        part
        for name in ("fox", "cat", "dog", "deer", "horse", "panda", "rabbit", "camel")
        for part in _at(0.87, name, partial(beast, name))
    ),
    *_at(0.88, "owl", flocks.owl),
    *_at(0.93, "butterflies", flocks.butterflies),
)
