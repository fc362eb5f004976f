"""Place a couple, a child with a kite, or a whole dancer, so that they fill the picture; what they share with
the small figures.
"""

from __future__ import annotations

import numpy as np

from starrynight.firefly.drawing import pens as f
from starrynight.firefly.drawing.canvas import Canvas
from starrynight.firefly.drawing.heads import draw_bun_head
from starrynight.firefly.drawing.palettes import WHITE, Palette, Rgb, mix, shade
from starrynight.firefly.drawing.pens import Pen, choose, skin, tone
from starrynight.firefly.drawing.scene import Scene
from starrynight.firefly.drawing.shapes import star
from starrynight.firefly.drawing.sitters import (
    backdrop,
    draw_collar,
    draw_face,
    draw_fringe,
    draw_neck,
    draw_robe,
    draw_sash,
    draw_woman,
    lay,
    pen_for,
)

Rng = np.random.Generator


def couple(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A man and a woman turned to each other: hand in hand, or under one golden cloak."""
    p, u = canvas.palette, 0.175 * rng.uniform(0.96, 1.05)
    side, cloaked = int(rng.choice((-1, 1))), rng.uniform() < 0.45
    x = 0.5 + (scene.figure - 0.5) * 0.4
    apart = 0.105 if cloaked else 0.155
    man = pen_for(scene, x - side * apart, 0.38, u * 1.04, side)
    woman = pen_for(scene, x + side * apart, 0.46 if not cloaked else 0.44, u, -side)
    coat = choose(rng, p, (f.BLUE, f.INDIGO, f.TEAL, f.IVORY, f.OCHRE, f.SKY), *backdrop(p))
    body = skin(p, rng)
    _man(canvas, man, rng, coat, body, 0.22 if cloaked else 0.06)
    robe, _, pale = draw_woman(canvas, woman, rng, coat, hands=False, lean=0.16 if cloaked else 0.08)
    if cloaked:
        _cloak(canvas, Pen(x, 0.42, u, side), rng)
        return
    woman.band([(-0.78, 1.2), (-0.95, 1.9), (-0.2, 2.3), (0.55, 2.1)], 0.45, 0.34, shade(robe, 0.87))
    woman.band([(1.2, 1.35), (1.1, 1.95), (0.85, 2.12)], 0.42, 0.34, shade(coat, 0.84))
    woman.disc(0.62, 2.1, 0.16, pale, 0.13)
    woman.disc(0.74, 2.16, 0.15, body, 0.12)
    lay(canvas, woman)


def _man(canvas: Canvas, man: Pen, rng: Rng, coat: Rgb, body: Rgb, lean: float) -> None:
    """A man in a robe, his hair in a knot."""
    p, dark = canvas.palette, tone(canvas.palette, f.DARK)
    trim = choose(rng, p, (f.YELLOW, f.IVORY, f.INDIGO), coat)
    man.turn = lean
    man.disc(-0.02, -0.22, 0.45, dark, 0.46)
    man.disc(-0.1, -0.74, 0.17, dark, 0.16)
    man.turn = 0.0
    draw_neck(man, body)
    draw_robe(man, p, rng, coat)
    draw_collar(man, trim, tone(p, f.IVORY))
    draw_sash(man, shade(coat, 0.6), trim)
    man.turn = lean
    draw_face(canvas, man, body, rng, brow=dark, rosy=0.25)
    front = [(-0.42, 0.08), (-0.34, -0.22), (0.06, -0.34), (0.4, -0.2), (0.44, -0.4)]
    man.loop([*front, (0.1, -0.7), (-0.36, -0.56), (-0.5, -0.2)], dark)
    man.band([(-0.24, -0.62), (-0.1, -0.58), (0.04, -0.62)], 0.07, 0.07, tone(p, f.RED))
    man.turn = 0.0
    lay(canvas, man)


def _cloak(canvas: Canvas, pen: Pen, rng: Rng) -> None:
    """One cloak around two people: tall panes on his side, circles on hers, as in Klimt's Kiss."""
    p = canvas.palette
    cloth = choose(rng, p, (f.YELLOW, f.SAFFRON, f.OCHRE, f.CORAL), *backdrop(p))
    his, hers, pale = tone(p, f.INDIGO), tone(p, f.RED), tone(p, f.IVORY)
    left = [(0.02, 1.95), (-0.4, 1.36), (-0.95, 0.95), (-1.42, 1.2), (-1.72, 1.9), (-1.9, 3.6)]
    right = [(1.9, 3.6), (1.7, 1.95), (1.4, 1.4), (0.95, 1.15), (0.4, 1.45)]
    pen.loop([*left, *right], cloth)
    for row in range(7):
        y = 1.5 + 0.3 * row
        for column in range(-5, 6):
            x = 0.33 * (column + 0.5 * (row % 2))
            if abs(x) > min(1.25 + 0.16 * row, 1.7) - 0.1 or abs(x) < max(0.12, 0.1 + 0.75 * (1.95 - y)):
                continue
            if x < 0:
                pane = [(-0.06, -0.11), (0.06, -0.11), (0.06, 0.11), (-0.06, 0.11)]
                pen.poly(np.add(pane, (x, y)), (his, pale, his, shade(cloth, 0.7))[(row + column) % 4])
            elif (row + column) % 3:
                pen.disc(x, y, 0.12, hers if column % 2 else tone(p, f.TEAL))
                pen.disc(x, y, 0.055, pale)
            else:
                pen.poly(star(x, y, 0.14, 0.08, 6), pale)
    pen.band([(0.02, 1.95), (-0.05, 2.6), (0.0, 3.4)], 0.05, 0.08, shade(cloth, 0.68))
    for rim in ([(0.02, 1.95), (-0.4, 1.36), (-0.9, 0.98)], [(0.02, 1.95), (0.4, 1.45), (0.9, 1.16)]):
        pen.band(rim, 0.16, 0.1, mix(cloth, pale, 0.65))
    lay(canvas, pen)


def child(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A child with the line of a kite in its hand and the kite above: a half-figure, or running."""
    (_half_child if rng.uniform() < 0.5 else _running_child)(canvas, scene, rng)


def _half_child(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """The child as a half-figure, looking out."""
    p, x = canvas.palette, 0.5 - 0.13 * (1 if scene.figure >= 0.5 else -1)
    side = 1 if x < 0.5 else -1
    pen = pen_for(scene, x, 0.56 + rng.uniform(-0.02, 0.02), 0.2 * rng.uniform(0.95, 1.06), side)
    body, hair = mix(skin(p, rng), WHITE, 0.1), tone(p, f.DARK)
    shirt = choose(rng, p, (f.RED, f.YELLOW, f.CORAL, f.TEAL, f.IVORY), *backdrop(p))
    trim = choose(rng, p, (f.IVORY, f.YELLOW, f.INDIGO), shirt)
    hand = (1.02, 0.75)
    kite(canvas, scene, rng, pen.at([hand])[0], (0.5 + side * rng.uniform(0.2, 0.26), 0.2), 0.135)
    if rng.uniform() < 0.6:
        for k in (-0.42, 0.42):
            pen.disc(k, -0.52, 0.2, hair)
            pen.disc(k * 0.85, -0.42, 0.1, tone(p, f.RED))
    pen.disc(0.0, -0.12, 0.52, hair, 0.5)
    draw_neck(pen, body)
    draw_robe(pen, p, rng, shirt, 0.76)
    draw_collar(pen, trim, tone(p, f.IVORY))
    pen.band([(0.5, 1.1), (0.92, 1.4), (1.0, 0.95)], 0.36, 0.3, shade(shirt, 0.87))
    pen.band([(1.0, 1.04), (1.01, 0.94)], 0.33, 0.33, trim)
    pen.disc(1.02, 0.76, 0.16, body, 0.17)
    draw_face(canvas, pen, body, rng, brow=hair, rosy=0.3, wide=1.12)
    _bowl_cut(pen, hair)
    lay(canvas, pen)


def _bowl_cut(pen: Pen, hair: Rgb) -> None:
    pen.loop(
        [
            (-0.46, 0.05),
            (-0.34, -0.16),
            (0.05, -0.24),
            (0.4, -0.16),
            (0.5, 0.02),
            (0.48, -0.4),
            (0.05, -0.62),
            (-0.44, -0.42),
        ],
        hair,
    )


def _running_child(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    p, x = canvas.palette, 0.5 - 0.17 * (1 if scene.figure >= 0.5 else -1)
    side, s = 1 if x < 0.5 else -1, rng.uniform(0.52, 0.6)
    pen = Pen(x, rng.uniform(0.92, 0.95), s, side)
    body, hair = mix(skin(p, rng), WHITE, 0.1), tone(p, f.DARK)
    shirt = choose(rng, p, (f.RED, f.YELLOW, f.CORAL, f.TEAL, f.IVORY), *backdrop(p))
    shorts = choose(rng, p, (f.BLUE, f.IVORY, f.INDIGO), backdrop(p)[1], shirt)
    hand = pen.at([(0.29, -0.97)])[0]
    kite(canvas, scene, rng, hand, (0.5 + side * rng.uniform(0.2, 0.26), 0.19), 0.125)
    pen.disc(-0.05, 0.0, 0.25, mix(shade(backdrop(p)[1], 0.6), p.top, 0.25), 0.025)
    draw_child(pen, p, shirt, shorts, body, hair)
    lay(canvas, pen)
    near = pen_for(scene, x + side * 0.03 * s, float(pen.y) - 0.87 * s, 0.29 * s, side)
    near.disc(-0.03, -0.1, 0.52, hair, 0.5)
    draw_face(canvas, near, body, rng, brow=hair, rosy=0.3, wide=1.12)
    _bowl_cut(near, hair)
    lay(canvas, near)


def draw_dancer(pen: Pen, p: Palette, ground: Rgb, rng: Rng) -> None:
    """A dancer whose long sleeves sweep through the air, or who turns with a swinging skirt."""
    body, hair = skin(p, rng), tone(p, f.DARK)
    sky = mix(p.middle, p.low, 0.5)
    dress = choose(rng, p, (f.RED, f.CORAL, f.ROSE, f.YELLOW, f.IVORY), ground)
    silk = choose(rng, p, (f.YELLOW, f.IVORY, f.JADE, f.SKY, f.RED), dress, ground, sky)
    wave = rng.uniform(-0.06, 0.06, 4)
    pen.disc(0.06, -0.015, 0.05, shade(body, 0.85), 0.02)
    if rng.uniform() < 0.5:
        back = [
            (-0.04, -0.7),
            (-0.22, -0.84),
            (-0.4, -0.62 + wave[0]),
            (-0.6, -0.78),
            (-0.78, -0.56 + wave[1]),
        ]
        front = [(0.06, -0.7), (0.2, -0.92), (0.42, -1.08 + wave[2]), (0.54, -0.82), (0.78, -0.9 + wave[3])]
    else:
        back = [(-0.04, -0.7), (-0.16, -0.96), (0.1, -1.2 + wave[0]), (0.42, -1.1), (0.62, -1.24 + wave[1])]
        front = [(0.06, -0.68), (0.24, -0.6), (0.4, -0.4 + wave[2]), (0.62, -0.5), (0.8, -0.3 + wave[3])]
    pen.band(back, 0.07, 0.09, shade(silk, 0.85), 0.09, 36)
    skirt = [(-0.05, -0.5), (0.06, -0.5), (0.16, -0.28), (0.36, -0.06), (0.16, -0.02), (0.0, -0.05)]
    pen.loop([*skirt, (-0.2, 0.0), (-0.46, -0.08), (-0.2, -0.28)], dress)
    for x in (-0.3, -0.12, 0.08, 0.24):
        pen.band([(x * 0.15, -0.46), (x * 0.55, -0.26), (x, -0.05)], 0.012, 0.035, shade(dress, 0.78))
    pen.loop(
        [(-0.06, -0.72), (0.07, -0.72), (0.055, -0.58), (0.07, -0.48), (-0.06, -0.48), (-0.045, -0.58)], silk
    )
    pen.band([(-0.065, -0.49), (0.07, -0.49)], 0.05, 0.05, tone(p, f.YELLOW))
    draw_bun_head(pen, p, 0.02, -0.82, 0.078, body, hair)
    pen.band(front, 0.07, 0.09, silk, 0.09, 36)


def draw_child(pen: Pen, p: Palette, shirt: Rgb, shorts: Rgb, body: Rgb, hair: Rgb) -> None:
    """A running child, one arm raised; the unit is its height, the origin the ground under it."""
    pen.band([(-0.05, -0.38), (-0.16, -0.24), (-0.3, -0.22)], 0.11, 0.08, shade(body, 0.88))
    pen.band([(0.05, -0.38), (0.14, -0.22), (0.08, -0.03)], 0.11, 0.08, body)
    pen.disc(0.11, -0.02, 0.07, tone(p, f.RED), 0.035)
    pen.disc(-0.32, -0.22, 0.04, tone(p, f.RED), 0.06)
    pen.loop([(-0.12, -0.5), (0.13, -0.5), (0.17, -0.3), (0.03, -0.3), (-0.13, -0.28)], shorts)
    pen.loop([(-0.1, -0.74), (0.1, -0.74), (0.14, -0.46), (-0.13, -0.45)], shirt)
    pen.band([(-0.08, -0.7), (-0.2, -0.58), (-0.3, -0.64)], 0.09, 0.07, shade(body, 0.9))
    pen.band([(0.07, -0.7), (0.2, -0.8), (0.28, -0.96)], 0.09, 0.07, body)
    pen.disc(0.02, -0.88, 0.145, hair)
    pen.disc(0.05, -0.85, 0.12, body, 0.125)
    pen.loop([(-0.1, -0.84), (0.05, -0.93), (0.17, -0.9), (0.1, -1.03), (-0.06, -1.02)], hair)


def whole_dancer(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """The dancer as a large whole figure with her face."""
    p, s = canvas.palette, rng.uniform(0.6, 0.68)
    side = int(rng.choice((-1, 1)))
    pen = Pen(0.5 + (scene.figure - 0.5) * 0.5, rng.uniform(0.92, 0.95), s, side)
    pen.disc(0.0, 0.0, 0.5, mix(shade(backdrop(p)[1], 0.6), p.top, 0.25), 0.03)
    draw_dancer(pen, p, backdrop(p)[1], rng)
    lay(canvas, pen)
    face = pen_for(scene, pen.x + side * 0.03 * s, pen.y - 0.81 * s, 0.155 * s, side)
    hair = tone(p, f.DARK)
    draw_face(canvas, face, mix(skin(p, rng), WHITE, 0.12), rng, brow=hair)
    draw_fringe(face, p, hair, rng)
    lay(canvas, face)


def kite(
    canvas: Canvas, scene: Scene, rng: Rng, hand: np.ndarray, centre: tuple[float, float], r: float
) -> None:
    """A kite of four panes with a cross, its tail with bows, and the line to the hand that holds it."""
    p = canvas.palette
    lean = 1 if centre[0] > hand[0] else -1
    sky = mix(p.top, p.middle, 0.6)
    first = choose(rng, p, (f.RED, f.YELLOW, f.CORAL, f.IVORY), sky, mix(p.low, p.middle, 0.5))
    second = choose(rng, p, (f.YELLOW, f.BLUE, f.IVORY, f.RED, f.TEAL), first, sky)
    thread = mix(p.cloud, WHITE, 0.5) if sum(p.middle) < 400 else tone(p, f.DARK)
    pen = Pen(*centre, r, lean)
    end = (np.asarray(hand) - centre) / (r * lean, r)
    pen.band([(0.0, 0.1), (end[0] * 0.45, end[1] * 0.6), (end[0], end[1])], 0.035, 0.035, thread)
    wave = rng.uniform(-0.25, 0.25)
    tail = [(-0.5, 1.05), (-0.2, 1.5), (-0.5 + wave, 2.0), (0.1, 2.4), (-0.1 - wave, 2.95)]
    pen.band(tail, 0.06, 0.06, first)
    for x, y in tail[1:]:
        for k in (-1, 1):
            pen.poly([(x, y), (x + k * 0.27, y - 0.17), (x + k * 0.27, y + 0.17)], first if k > 0 else second)
    top, right, foot, left = (0.5, -1.05), (0.72, 0.12), (-0.5, 1.05), (-0.78, -0.42)
    for u, v, colour in (
        (top, right, first),
        (right, foot, second),
        (foot, left, first),
        (left, top, second),
    ):
        pen.poly([(0.06, -0.22), u, v], colour)
    for a, b in ((top, foot), (left, right)):
        pen.band([a, b], 0.06, 0.06, shade(first, 0.5), n=4)
    canvas.draw("kite", pen.items, 0.6, 0.98)
