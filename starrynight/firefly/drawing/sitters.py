"""The parts of half-figures: face, hair, robe, sleeves, hat.

The unit of every half-figure is the height of its face and its origin the middle of the face; the shoulders
are at 0.9, the lower edge of the picture at about 3.
"""

from __future__ import annotations

import numpy as np

from starrynight.firefly.drawing import pens as f
from starrynight.firefly.drawing.canvas import Canvas
from starrynight.firefly.drawing.palettes import WHITE, Palette, Rgb, mix, shade
from starrynight.firefly.drawing.pens import OUTLINED, Pen, choose, skin, tone
from starrynight.firefly.drawing.scene import Scene
from starrynight.firefly.drawing.shapes import star

Rng = np.random.Generator


VIVID = (f.RED, f.CORAL, f.ROSE, f.TEAL, f.JADE, f.BLUE, f.PLUM, f.SAFFRON, f.IVORY, f.SKY)


def backdrop(p: Palette) -> tuple[Rgb, Rgb]:
    """The colours behind a half-figure: the sky above the horizon, and land."""
    return mix(p.middle, p.low, 0.7), mix(p.mid, p.near, 0.5)


def pen_for(scene: Scene, x: float, y: float, u: float, side: int) -> Pen:
    """A pen for a half-figure. Styles that outline fine shapes get no outlines inside the face."""
    pen = Pen(x, y, u, side)
    pen.face_detail = 0.29 if scene.style in OUTLINED else 0.98
    return pen


def sitter(scene: Scene, rng: Rng, y: float = 0.37, u: float = 0.215) -> Pen:
    """A pen at the place of the scene's person."""
    size = u * rng.uniform(0.93, 1.06)
    side = int(rng.choice((-1, 1)))
    if abs(scene.figure - 0.5) > 0.05:  # looks into the picture
        side = 1 if scene.figure < 0.5 else -1
    return pen_for(scene, scene.figure, y + rng.uniform(-0.02, 0.02), size, side)


def lay(canvas: Canvas, pen: Pen, detail: float = 0.98) -> None:
    """Draw what the pen has collected as one layer, and go on with an empty pen."""
    canvas.draw("person", pen.items, np.pi / 2, detail)
    pen.items = []


def draw_face(
    canvas: Canvas, pen: Pen, body: Rgb, rng: Rng, *, brow: Rgb, rosy: float = 0.4, wide: float = 1.0
) -> None:
    """A calm face, turned a little, as a layer of its own: brows, two eyes open or lowered, nose, mouth."""
    red, w = tone(canvas.palette, f.RED), wide
    pen.disc(-0.36 * w, 0.06, 0.06, shade(body, 0.86), 0.1)
    lay(canvas, pen)
    low = [(0.37 * w, 0.16), (0.22 * w, 0.42), (0.03, 0.5), (-0.18 * w, 0.42), (-0.34 * w, 0.16)]
    pen.loop([(-0.36 * w, -0.2), (-0.18, -0.5), (0.2, -0.5), (0.38 * w, -0.2), *low], body)
    cheek = [(-0.34 * w, -0.1), (-0.2 * w, 0.1), (-0.12 * w, 0.36), (0.0, 0.49), *low[3:]]
    pen.loop(cheek, shade(body, 0.93))
    lid, blush = shade(tone(canvas.palette, f.DARK), 0.9), mix(body, red, 0.32 * rosy)
    _eyes(pen, body, blush, lid, brow, w, 0.026 if rosy > 0.36 else 0.042, rng)
    pen.band([(0.09, -0.04), (0.12, 0.15), (0.06, 0.18)], 0.014, 0.024, shade(body, 0.72), 0.0, 10)
    mouth = [(-0.04, 0.305), (0.03, 0.275), (0.07, 0.288), (0.11, 0.275), (0.17, 0.305), (0.07, 0.36)]
    pen.loop(mouth, mix(red, body, 0.9 - 1.6 * rosy), 4)
    lay(canvas, pen, pen.face_detail)


def _eyes(pen: Pen, body: Rgb, blush: Rgb, ink: Rgb, brow: Rgb, w: float, bold: float, rng: Rng) -> None:
    lowered = rng.uniform() < 0.5
    for k in (-1, 1):
        x = 0.06 + k * 0.175 * w
        pen.disc(x + k * 0.035, 0.17, 0.085, blush, 0.06)
        arch = [(x - 0.1, -0.165 - 0.025 * k), (x, -0.215), (x + 0.1, -0.165 + 0.025 * k)]
        pen.band(arch, bold, bold, mix(brow, body, 0.15), 0.012, 10)
        if lowered:
            pen.band([(x - 0.1, -0.01), (x, 0.035), (x + 0.1, -0.01)], 0.022, 0.022, ink, 0.024, 10)
        else:
            pen.loop([(x - 0.1, 0.005), (x, -0.05), (x + 0.1, 0.0), (x, 0.04)], mix(body, WHITE, 0.7), 4)
            pen.disc(x + 0.01, -0.005, 0.042, ink)
            pen.band([(x - 0.11, 0.01), (x, -0.055), (x + 0.11, -0.01)], 0.024, 0.03, ink, 0.01, 10)


def draw_neck(pen: Pen, body: Rgb) -> None:
    pen.loop(
        [(-0.17, 0.3), (0.18, 0.3), (0.19, 0.6), (0.36, 0.86), (0.0, 1.3), (-0.36, 0.86), (-0.18, 0.6)],
        shade(body, 0.9),
    )


def draw_robe(pen: Pen, p: Palette, rng: Rng, cloth: Rgb, wide: float = 1.0, plain: bool = False) -> None:
    """The body of a robe down to the edge of the picture, with folds and a simple pattern in another colour."""
    w = wide
    right = [(0.42 * w, 0.72), (0.8 * w, 0.9), (1.04 * w, 1.4), (1.12 * w, 2.2), (1.3 * w, 3.6)]
    left = [(-x, y) for x, y in right[::-1]]
    pen.loop([(0.0, 0.95), *right, *left], cloth)
    if not plain:
        draw_pattern(pen, p, rng, cloth, w)
    for x in (-0.62, 0.66):
        pen.band([(x * w * 0.8, 1.2), (x * w, 2.0), (x * 1.15 * w, 3.3)], 0.02, 0.06, shade(cloth, 0.72))


def draw_pattern(pen: Pen, p: Palette, rng: Rng, cloth: Rgb, w: float) -> None:
    """Rows of circles, blossoms, diamonds or tall gold panes, or nothing, on a robe `w` wide."""
    kind = int(rng.integers(5))
    first = choose(rng, p, (f.YELLOW, f.IVORY, f.INDIGO, f.RED, f.JADE), cloth)
    first, second = mix(first, cloth, 0.25), mix(first, cloth, 0.75)
    for row in range(8 if kind else 0):
        y = 1.2 + 0.3 * row
        for column in range(-3, 4):
            x = 0.34 * (column + 0.5 * (row % 2))
            if abs(x) > (0.78 + 0.1 * row) * w - 0.16:
                continue
            if kind == 1:
                pen.disc(x, y, 0.1, first)
                pen.disc(x, y, 0.045, second)
            elif kind == 2:
                pen.poly(star(x, y, 0.12, 0.07, 5), first)
                pen.disc(x, y, 0.035, second)
            elif kind == 3:
                pen.poly([(x, y - 0.12), (x + 0.08, y), (x, y + 0.12), (x - 0.08, y)], first)
            else:
                pen.poly(
                    [(x - 0.06, y - 0.1), (x + 0.06, y - 0.1), (x + 0.06, y + 0.1), (x - 0.06, y + 0.1)],
                    (first, second)[(row + column) % 2],
                )


def draw_collar(pen: Pen, trim: Rgb, lining: Rgb) -> None:
    """A collar that crosses in front, over a pale lining."""
    for colour, width, drop in ((lining, 0.24, -0.06), (trim, 0.17, 0.04)):
        pen.band([(0.3, 0.62 + drop), (0.26, 0.95), (-0.14, 1.62)], width, width, colour)
        pen.band([(-0.3, 0.62 + drop), (-0.24, 0.95), (0.2, 1.66)], width, width, colour)


def draw_sash(pen: Pen, sash: Rgb, edge: Rgb) -> None:
    pen.loop([(-0.78, 1.78), (0.0, 1.86), (0.78, 1.78), (0.82, 2.24), (0.0, 2.34), (-0.82, 2.24)], sash)
    pen.band([(-0.8, 2.0), (0.0, 2.09), (0.8, 2.0)], 0.07, 0.07, edge)


def draw_sleeves(pen: Pen, cloth: Rgb, cuff: Rgb, body: Rgb | None = None) -> None:
    """Wide sleeves meeting in front, the hands inside, or one over the other when their colour is given."""
    for k in (-1, 1):
        tint = shade(cloth, 0.86 if k < 0 else 0.93)
        outer = [(k * 0.72, 1.0), (k * 1.08, 1.35), (k * 1.22, 2.1), (k * 0.95, 2.8), (k * 0.22, 2.95)]
        pen.loop([*outer, (k * 0.05, 2.5), (k * 0.07, 2.0), (k * 0.5, 1.95), (k * 0.7, 1.6)], tint)
        pen.band([(k * 0.76, 1.5), (k * 0.95, 2.0), (k * 0.75, 2.5)], 0.03, 0.06, shade(cloth, 0.7))
        pen.band([(k * 0.11, 2.0), (k * 0.1, 2.4), (k * 0.2, 2.92)], 0.13, 0.15, cuff)
    if body is not None:
        pen.loop([(0.2, 2.0), (0.02, 1.93), (-0.22, 2.06), (-0.26, 2.16), (0.0, 2.2), (0.2, 2.2)], body)
        pen.band([(-0.2, 2.12), (0.04, 2.1)], 0.02, 0.02, shade(body, 0.72))


def draw_raised(pen: Pen, cloth: Rgb, cuff: Rgb, body: Rgb, hand: tuple[float, float]) -> None:
    """The near arm bent, its hand closed at `hand`."""
    x, y = hand
    pen.loop(
        [
            (0.5, 0.95),
            (0.95, 1.15),
            (1.2, 1.8),
            (1.05, 2.5),
            (x + 0.05, y + 0.75),
            (x - 0.16, y + 0.14),
            (x + 0.14, y + 0.08),
            (0.62, 1.6),
        ],
        shade(cloth, 0.88),
    )
    pen.band([(x - 0.16, y + 0.16), (x + 0.0, y + 0.5), (x + 0.1, y + 0.74)], 0.12, 0.12, cuff)
    pen.loop(
        [
            (x - 0.14, y - 0.12),
            (x + 0.05, y - 0.17),
            (x + 0.17, y - 0.04),
            (x + 0.14, y + 0.14),
            (x - 0.1, y + 0.17),
            (x - 0.18, y + 0.02),
        ],
        body,
    )
    for k in (-0.05, 0.04):
        pen.band([(x - 0.16, y + k), (x + 0.02, y + k - 0.01)], 0.02, 0.014, shade(body, 0.7))


def draw_long_hair(pen: Pen, p: Palette, hair: Rgb, rng: Rng) -> None:
    """A woman's hair behind her head: one high knot or two, or falling on her shoulders."""
    kind = int(rng.integers(3))
    if kind == 0:
        pen.loop(
            [(-0.46, -0.2), (0.0, -0.7), (0.48, -0.2), (0.6, 0.6), (0.62, 1.3), (-0.66, 1.3), (-0.6, 0.6)],
            hair,
        )
    knots = ((0.0, -0.72, 0.3),) if kind < 2 else ((-0.42, -0.56, 0.24), (0.44, -0.56, 0.24))
    for x, y, r in knots:
        pen.disc(x, y, r, hair, r * 0.86)
        pen.band(
            [(x - r * 0.8, y + r * 0.5), (x, y + r * 0.75), (x + r * 0.8, y + r * 0.5)],
            0.06,
            0.06,
            tone(p, f.RED),
        )
    pen.disc(0.0, -0.16, 0.49, hair, 0.5)
    pen.disc(-0.4, 0.1, 0.14, hair, 0.28)
    pen.disc(0.42, 0.06, 0.12, hair, 0.26)


def draw_fringe(pen: Pen, p: Palette, hair: Rgb, rng: Rng) -> None:
    """The parted hair over a woman's forehead, pins, a flower and an ear-ring."""
    gold = tone(p, f.YELLOW)
    pen.loop([(-0.42, 0.04), (-0.3, -0.2), (0.08, -0.4), (-0.05, -0.62), (-0.4, -0.5), (-0.5, -0.2)], hair)
    pen.loop([(0.43, 0.02), (0.37, -0.2), (0.06, -0.4), (0.1, -0.62), (0.42, -0.48), (0.5, -0.2)], hair)
    flower = tone(p, (f.RED, f.ROSE, f.IVORY, f.YELLOW)[int(rng.integers(4))])
    for x, y, r in ((-0.42, -0.42, 0.15), (-0.28, -0.58, 0.11)):
        pen.poly(star(x, y, r, r * 0.62, 5, 0.4), flower)
        pen.disc(x, y, r * 0.3, gold)
    pen.band([(0.2, -0.6), (0.62, -0.78)], 0.03, 0.05, gold)
    pen.disc(0.64, -0.79, 0.06, gold)
    pen.disc(-0.37, 0.22, 0.035, gold, 0.05)


def draw_woman(
    canvas: Canvas, pen: Pen, rng: Rng, *behind: Rgb, hands: bool = True, lean: float | None = None
) -> tuple[Rgb, Rgb, Rgb]:
    """A woman in a patterned robe, without her arms unless `hands`: her robe's, trim's and skin's colours."""
    p = canvas.palette
    body, hair = mix(skin(p, rng), WHITE, 0.12), tone(p, f.DARK)
    cloth = choose(rng, p, VIVID, *backdrop(p), *behind)
    trim = choose(rng, p, (f.YELLOW, f.IVORY, f.INDIGO, f.RED), cloth)
    sash = choose(rng, p, (f.INDIGO, f.RED, f.SAFFRON, f.JADE), cloth, trim)
    lean = float(rng.uniform(-0.13, 0.16)) if lean is None else lean
    pen.turn = lean
    draw_long_hair(pen, p, hair, rng)
    pen.turn = 0.0
    draw_neck(pen, body)
    draw_robe(pen, p, rng, cloth)
    draw_collar(pen, trim, mix(tone(p, f.IVORY), WHITE, 0.2))
    draw_sash(pen, sash, trim)
    if hands:
        draw_sleeves(pen, cloth, trim, body if rng.uniform() < 0.5 else None)
    pen.turn = lean
    draw_face(canvas, pen, body, rng, brow=hair)
    draw_fringe(pen, p, hair, rng)
    pen.turn = 0.0
    return cloth, trim, body


def draw_cone_hat(pen: Pen, p: Palette, y: float = -0.4) -> None:
    """A wide straw hat over the forehead, with its ring and ribs."""
    straw = tone(p, f.STRAW)
    pen.loop(
        [
            (-1.08, y + 0.14),
            (-0.6, y + 0.22),
            (0.05, y + 0.26),
            (0.7, y + 0.22),
            (1.12, y + 0.14),
            (0.5, y - 0.34),
            (0.03, y - 0.66),
            (-0.45, y - 0.34),
        ],
        straw,
    )
    pen.loop(
        [
            (-1.0, y + 0.15),
            (0.03, y + 0.1),
            (1.05, y + 0.15),
            (0.6, y + 0.24),
            (0.03, y + 0.28),
            (-0.6, y + 0.24),
        ],
        shade(straw, 0.62),
    )
    for x in (-0.62, -0.22, 0.26, 0.68):
        pen.band([(0.03, y - 0.62), (x * 0.6, y - 0.28), (x, y + 0.06)], 0.014, 0.025, shade(straw, 0.78))
    pen.band([(-0.6, y - 0.12), (0.03, y - 0.2), (0.66, y - 0.12)], 0.035, 0.035, shade(straw, 0.7))


def draw_short_beard(pen: Pen, hair: Rgb) -> None:
    pen.loop(
        [
            (-0.2, 0.36),
            (-0.05, 0.4),
            (0.07, 0.39),
            (0.2, 0.4),
            (0.3, 0.34),
            (0.16, 0.62),
            (0.05, 0.72),
            (-0.06, 0.6),
        ],
        hair,
    )
    for k in (-1, 1):
        pen.band(
            [(0.07 + k * 0.03, 0.24), (0.07 + k * 0.17, 0.27), (0.07 + k * 0.22, 0.36)], 0.035, 0.02, hair
        )
