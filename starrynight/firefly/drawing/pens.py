"""What people are drawn with: a pen in a figure's own measure, and colours that stand out from the land."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from starrynight.firefly.drawing.buildings import snowy
from starrynight.firefly.drawing.canvas import Canvas
from starrynight.firefly.drawing.palettes import WHITE, Palette, Rgb, gold, mix
from starrynight.firefly.drawing.scene import Scene
from starrynight.firefly.drawing.shapes import Item, Points, curve, disc, place, ribbon

Rng = np.random.Generator

# Colours of cloth and of what people carry, before `tone`.
RED, ROSE, CORAL, SAFFRON = (206, 44, 42), (232, 120, 140), (236, 104, 72), (240, 150, 40)
OCHRE, YELLOW, JADE, TEAL = (206, 150, 74), (246, 200, 72), (104, 180, 150), (40, 130, 136)
SKY, BLUE, INDIGO, PLUM = (120, 172, 220), (52, 98, 176), (40, 52, 112), (130, 62, 122)
IVORY, STRAW, WOOD, DARK = (248, 238, 214), (232, 196, 112), (112, 72, 42), (34, 26, 34)
MAROON, GREY = (132, 40, 44), (150, 146, 150)
# The styles whose brushes outline whatever has a high detail (see brushes.py).
OUTLINED = ("dunhuang", "ukiyoe", "cyberpunk")


class Pen:
    """Collects a figure's shapes. (x, y) is the origin, `s` the unit; x grows where the figure looks.

    `turn` in radians leans what follows, forwards when positive.
    """

    def __init__(self, x: float, y: float, s: float, side: int = 1) -> None:
        self.x, self.y, self.s, self.side = x, y, s, side
        self.items: list[Item] = []
        self.face_detail, self.turn = 0.98, 0.0

    def at(self, points: Points) -> np.ndarray:
        """Points of the figure's measure as shares of the picture's side."""
        c, s = np.cos(self.turn), np.sin(self.turn)
        turned = np.asarray(points, dtype=float) @ np.array([[c, s], [-s, c]])
        return place(turned, self.x, self.y, self.s * self.side, self.s)

    def loop(self, knots: Points, colour: Rgb, per: int = 6) -> None:
        """A smooth closed shape through the knots."""
        k = list(np.asarray(knots, dtype=float))
        line = curve(np.array([k[-1], *k, k[0], k[1]]), per * (len(k) + 2) + 1)
        self.items.append(Item(self.at(line[per:-per]), colour))

    def poly(self, points: Points, colour: Rgb) -> None:
        """A shape with straight edges."""
        self.items.append(Item(self.at(points), colour))

    def band(
        self, knots: Points, start: float, end: float, colour: Rgb, belly: float = 0.0, n: int = 22
    ) -> None:
        """A band along a smooth line through the knots."""
        line = self.at(curve(knots, n))
        self.items.append(Item(ribbon(line, start * self.s, end * self.s, belly * self.s), colour))

    def disc(self, x: float, y: float, rx: float, colour: Rgb, ry: float | None = None) -> None:
        """An ellipse."""
        self.items.append(Item(self.at(disc(x, y, rx, ry, 30)), colour))

    def ring(self, x: float, y: float, r: float, width: float, colour: Rgb) -> None:
        """A circle's line."""
        line = disc(x, y, r, n=25)
        self.band(np.concatenate([line, line[:1]]), width, width, colour, n=40)


def is_ink(p: Palette) -> bool:
    """Whether the palette is the ink style's, which is nearly grey."""
    return max(p.leaf) - min(p.leaf) < 16


def tone(p: Palette, colour: Rgb) -> Rgb:
    """The colour in the picture's light: towards the sky's, and greyer in ink except for red."""
    if is_ink(p) and not (colour[0] > 190 and colour[1] < 70):
        level = sum(colour) // 3
        colour = mix(colour, (level, level, level), 0.55)
    return mix(colour, mix(p.low, p.light, 0.3), 0.12) if sum(p.low) > 330 else mix(colour, p.low, 0.16)


def skin(p: Palette, rng: Rng) -> Rgb:
    """A light or tanned skin; always light enough to stand out from dark hair."""
    tint = mix((250, 222, 192), (226, 172, 126), float(rng.uniform(0, 0.6)))
    return mix(tone(p, tint), tint, 0.5 if is_ink(p) else 0.15)


def land_colour(p: Palette, scene: Scene) -> Rgb:
    """About the colour of the land that a small figure stands on."""
    if snowy(scene):
        return mix(p.cloud, WHITE, 0.4)
    if scene.has("wheat", "sunflowers", "desert"):
        return gold(p)
    return mix(p.mid, p.near, 0.6)


def choose(rng: Rng, p: Palette, options: Sequence[Rgb], *behind: Rgb) -> Rgb:
    """One of the colours, toned, that differs clearly from all colours behind it; else the most different."""
    toned = [tone(p, colour) for colour in options]
    far = [min(_difference(colour, other) for other in behind) for colour in toned]
    good = [colour for colour, d in zip(toned, far, strict=True) if d > 72]
    pick = int(rng.integers(1 << 16))
    return good[pick % len(good)] if good else toned[int(np.argmax(far))]


def _difference(a: Rgb, b: Rgb) -> float:
    """How far two colours are apart; lightness counts most."""
    d = np.subtract(a, b, dtype=float)
    light = float(d @ (0.3, 0.59, 0.11))
    return float(np.hypot(1.2 * light, 0.5 * np.linalg.norm(d - light)))


def stand(canvas: Canvas, scene: Scene, x: float, foot: float, half: float) -> tuple[float, float]:
    """A dry place near (x, foot) for a figure `half` wide to each side; without one, a bank is drawn there."""
    # From a coarse map, on which a pixel's difference between sizes does not count.
    coarse = cv2.resize(canvas.water, (32, 32), interpolation=cv2.INTER_AREA)
    row = coarse[min(int(foot * 32), 31)]
    for shift in (0.0, 0.08, -0.08, 0.16, -0.16, 0.24, -0.24, 0.32, -0.32):
        at = x - scene.side * shift
        left, right = int((at - half * 0.6) * 32), int((at + half * 0.6) * 32)
        if half + 0.03 < at < 0.97 - half and row[max(left, 0) : right + 1].max() < 60:
            return at, foot
    p = canvas.palette
    top, low = mix(p.mid, p.near, 0.5), mix(p.near, p.leaf, 0.4)
    if snowy(scene):
        top = low = land_colour(p, scene)
    foot = max(foot, 0.88)
    line = curve(
        [[x - 0.62, 1.04], [x - 0.3, 0.93], [x, foot - 0.025], [x + 0.3, 0.93], [x + 0.62, 1.04]], 40
    )
    tint = canvas.rows(top, top, low, foot - 0.05, 1.0)
    canvas.ground("land", line, tint, 0.2)
    return x, foot
