"""What outlines of animals are made of: coats, smooth closed shapes, legs, eyes. Nothing here knows scenes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from starrynight.firefly.drawing.palettes import WHITE, Rgb
from starrynight.firefly.drawing.shapes import Item, Points, curve, disc, ribbon

Rng = np.random.Generator
Xy = tuple[float, float]

DARK: Rgb = (38, 30, 34)
CREAM: Rgb = (250, 240, 222)


class Coat(NamedTuple):
    """An animal's colours: most of it, its shaded side, its pale parts, its darkest parts, and a garment."""

    main: Rgb
    low: Rgb
    pale: Rgb
    dark: Rgb
    cloth: Rgb


def blob(*knots: Xy, fine: int = 6) -> np.ndarray:
    """A smooth closed outline through the knots, [fine * N, 2]."""
    line = curve([*knots[-2:], *knots, *knots[:2]], (len(knots) + 3) * fine + 1)
    return line[2 * fine : (len(knots) + 2) * fine]


def band(knots: Points, start: float, end: float, belly: float, colour: Rgb) -> Item:
    """A tapering band through the knots: a leg, a tail, an antler."""
    return Item(ribbon(curve(knots, 6 * len(knots)), start, end, belly), colour)


def leg(knots: list[Xy], w: float, colour: Rgb, foot: Rgb, sock: float = 0.0) -> list[Item]:
    """A leg from hip to foot, `w` wide at the ankle, with a hoof or paw, and a sock up to that share of it."""
    line = curve(knots, 24)
    cap = disc(line[1, 0], line[1, 1], w * 1.04, n=16)
    items = [Item(cap, colour), Item(ribbon(line, w * 2.1, w), colour)]
    if sock:
        lower = line[int(24 * (1 - sock)) :]
        items.append(Item(ribbon(lower, w * (1 + 1.1 * sock), w * 1.05), foot))
    x, y = knots[-1]
    shoe = [(x - w * 0.55, y), (x - w * 0.5, y - w), (x + w * 0.5, y - w), (x + w * 1.05, y)]
    return [*items, Item(shoe, foot)]


def fore(x: float, top: float, step: float = 0.0) -> list[Xy]:
    """A straight fore leg."""
    return [(x, top), (x + step * 0.5, top * 0.5), (x + step * 0.8, top * 0.2), (x + step, 0.0)]


def hind(x: float, top: float, step: float = 0.0, bend: float = 0.06) -> list[Xy]:
    """A hind leg with its hock bent backward."""
    knee, hock = (x + bend * 0.8 + step * 0.3, top * 0.68), (x - bend + step * 0.75, top * 0.4)
    return [(x, top), knee, hock, (x - bend * 0.5 + step, 0.0)]


def eye(x: float, y: float, r: float, iris: Rgb = DARK) -> list[Item]:
    """A dark eye with a light in it."""
    shine = Item(disc(x + r * 0.25, y - r * 0.35, r * 0.34, n=8), WHITE)
    ring = [Item(disc(x, y, r, n=14), iris)] if iris != DARK else []
    return [*ring, Item(disc(x, y, r * (0.6 if ring else 1), r, n=14), DARK), shine]


def patch(knots: Points, colour: Rgb) -> Item:
    """A smooth closed shape of one colour."""
    return Item(blob(*((float(x), float(y)) for x, y in knots)), colour)


def turned(items: list[Item], angle: float, centre: Xy) -> list[Item]:
    """The shapes turned about a point."""
    spin = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return [Item((np.asarray(i.outline) - centre) @ spin + centre, i.colour, i.shines) for i in items]
