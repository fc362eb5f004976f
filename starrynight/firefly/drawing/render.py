"""Draws a scene in its style at any size: layout, brushes, then rain or snow in the air. Knows no words."""

from __future__ import annotations

import cv2
import numpy as np

from starrynight.firefly.drawing.brushes import PAINTERS
from starrynight.firefly.drawing.canvas import SUBPIXEL, Canvas
from starrynight.firefly.drawing.landscape import lay_out
from starrynight.firefly.drawing.palettes import mix
from starrynight.firefly.drawing.scene import Scene
from starrynight.firefly.drawing.shapes import disc

SMALLEST, LARGEST = 64, 2048


def render(scene: Scene, size: int = 256) -> np.ndarray:
    """The picture, uint8 [size, size, 3] RGB. The same scene and size give the same bytes.

    Raises ValueError when size is outside 64..2048.
    """
    if not SMALLEST <= size <= LARGEST:
        raise ValueError(f"size {size} is outside {SMALLEST}..{LARGEST}")
    paint, look = PAINTERS[scene.style]
    canvas = lay_out(scene, size, look)
    picture = paint(canvas, np.random.default_rng([scene.seed, 3]))
    return _weather(canvas, np.clip(picture, 0, 255).astype(np.uint8))


def _weather(canvas: Canvas, picture: np.ndarray) -> np.ndarray:
    """Slanting rain as pale strokes, snow as round flakes."""
    size = canvas.size
    picture = np.ascontiguousarray(picture)
    if canvas.rain is not None:
        veil = picture.copy()
        pale = mix(canvas.palette.cloud, (255, 255, 255), 0.3)
        for start in canvas.rain:
            line = canvas.points(np.array([start, start + np.array((-0.022, 0.075))]))
            cv2.polylines(veil, [line], False, pale, max(1, round(size / 150)), cv2.LINE_AA, SUBPIXEL)
        picture = cv2.addWeighted(veil, 0.5, picture, 0.5, 0)
    if canvas.flakes is not None:
        for x, y, r in canvas.flakes:
            cv2.fillPoly(
                picture, [canvas.points(disc(x, y, r, n=16))], (255, 255, 255), cv2.LINE_AA, SUBPIXEL
            )
    return picture
