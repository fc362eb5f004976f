"""The layered canvas a scene is laid out on: colours, lights, stroke directions, and each layer's mask.

Outlines come in shares of the side and become pixels here. Nothing here knows scenes or styles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from starrynight.firefly.drawing.palettes import Palette, Rgb
from starrynight.firefly.drawing.shapes import Item, Points, down_to

# Fractional bits of OpenCV's fixed-point coordinates: sixteenths of a pixel.
SUBPIXEL = 4


def noise(rng: np.random.Generator, size: int, cells: int, octaves: int = 2) -> np.ndarray:
    """Smooth noise float32 [size, size], mean about 0, within about -1..1; the same shapes at every size."""
    total = np.zeros((size, size), np.float32)
    for k in range(octaves):
        n = cells * 2**k
        grid = rng.uniform(-1, 1, (n, n)).astype(np.float32)
        total += cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC) * 0.6**k
    return total / 1.4


def blur(image: np.ndarray, radius: float) -> np.ndarray:
    """Gaussian blur with a standard deviation of `radius` pixels; wide ones use a smaller copy."""
    if radius > 5:
        step = int(radius // 2.5)
        h, w = image.shape[:2]
        small = cv2.resize(image, (max(w // step, 4), max(h // step, 4)), interpolation=cv2.INTER_AREA)
        return cv2.resize(
            cv2.GaussianBlur(small, (0, 0), radius / step), (w, h), interpolation=cv2.INTER_CUBIC
        )
    return cv2.GaussianBlur(image, (0, 0), max(radius, 0.3))


@dataclass(frozen=True)
class CanvasLayer:
    """One layer: its role, its coverage uint8 [S, S], the canvas's colours with it, uint8 [S, S, 3], and the
    subject it belongs to.
    """

    role: str
    mask: np.ndarray
    colour: np.ndarray
    subject: str = ""


class Canvas:
    """Layers painted back to front.

    `colour` uint8 [S, S, 3] shows all layers so far; `lights` uint8 [S, S, 3] only what shines; `angle`
    float32 [S, S] is the stroke direction in radians; `region` int32 [S, S] the number of the visible layer;
    `detail` float32 [S, S] in 0..1 how fine the brush must be; `water` uint8 [S, S] the mask of water; `rain`
    [N, 2] and `flakes` [N, 3] the positions of rain and snow, if any. `subject` is what is being painted: its
    layers are marked with it.
    """

    def __init__(self, size: int, palette: Palette) -> None:
        self.size = size
        self.palette = palette
        self.subject = ""
        self.colour = np.zeros((size, size, 3), np.uint8)
        self.lights = np.zeros((size, size, 3), np.uint8)
        self.angle = np.zeros((size, size), np.float32)
        self.detail = np.zeros((size, size), np.float32)
        self.region = np.zeros((size, size), np.int32)
        self.layers: list[CanvasLayer] = []
        self.water = np.zeros((size, size), np.uint8)
        self.rain: np.ndarray | None = None
        self.flakes: np.ndarray | None = None

    def points(self, outline: Points) -> np.ndarray:
        """An outline in shares of the side, as OpenCV's fixed-point pixels."""
        return np.round((np.asarray(outline) * self.size - 0.5) * (1 << SUBPIXEL)).astype(np.int32)

    def mask(self, outline: Points) -> np.ndarray:
        """The area of an outline, uint8 [S, S]."""
        area = np.zeros((self.size, self.size), np.uint8)
        cv2.fillPoly(area, [self.points(outline)], 255, cv2.LINE_AA, SUBPIXEL)
        return area

    def wash(
        self,
        role: str,
        area: np.ndarray,
        colour: Rgb | np.ndarray,
        angle: float | np.ndarray = 0.0,
        detail: float = 0.3,
    ) -> None:
        """Add one large layer: a colour, or a picture, over the mask `area`. It covers the lights beneath."""
        image = np.asarray(colour, np.float32)
        share = area.astype(np.float32)[..., None] / 255
        self.colour = (self.colour * (1 - share) + image * share + 0.5).astype(np.uint8)
        self.lights = (self.lights * (1 - share)).astype(np.uint8)
        self._finish(role, area, angle, detail)

    def ground(
        self,
        role: str,
        crest: np.ndarray,
        colour: Rgb | np.ndarray,
        angle: float | np.ndarray = 0.0,
        detail: float = 0.35,
        bottom: float = 1.05,
    ) -> None:
        """Add one large layer from a crest down to a level below it."""
        self.wash(role, self.mask(down_to(crest, bottom)), colour, angle, detail)

    def draw(
        self, role: str, items: Sequence[Item], angle: float | np.ndarray = np.pi / 2, detail: float = 0.8
    ) -> None:
        """Add one layer made of many small shapes, in their order."""
        area = np.zeros((self.size, self.size), np.uint8)
        colour, lights = self.colour.copy(), self.lights
        for outline, tint, shines in items:
            points = [self.points(outline)]
            cv2.fillPoly(colour, points, tint, cv2.LINE_AA, SUBPIXEL)
            cv2.fillPoly(area, points, 255, cv2.LINE_AA, SUBPIXEL)
            cv2.fillPoly(lights, points, tint if shines else (0, 0, 0), cv2.LINE_AA, SUBPIXEL)
        self.colour = colour
        self._finish(role, area, angle, detail)

    def _finish(self, role: str, area: np.ndarray, angle: float | np.ndarray, detail: float) -> None:
        seen = area > 127
        self.layers.append(CanvasLayer(role, area, self.colour, self.subject))
        self.region[seen] = len(self.layers)
        self.detail[seen] = detail
        self.angle[seen] = angle[seen] if isinstance(angle, np.ndarray) else angle

    def rows(
        self, top: Rgb, middle: Rgb, low: Rgb, start: float, end: float, bend: float = 0.55
    ) -> np.ndarray:
        """A vertical gradient through three colours between two heights, float32 [S, S, 3]."""
        at = np.clip((np.arange(self.size) / self.size - start) / max(end - start, 1e-3), 0, 1)
        column = np.stack(
            [np.interp(at, (0, bend, 1), (top[k], middle[k], low[k])) for k in range(3)], 1
        ).astype(np.float32)
        return np.repeat(column[:, None], self.size, 1)
