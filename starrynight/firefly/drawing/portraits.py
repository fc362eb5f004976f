"""Place one person, or two, as a half-figure that fills the picture.

The unit of every half-figure is the height of its face and its origin the middle of the face; the shoulders
are at 0.9, the lower edge of the picture at about 3.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from starrynight.firefly.drawing import companions
from starrynight.firefly.drawing import pens as f
from starrynight.firefly.drawing.canvas import Canvas
from starrynight.firefly.drawing.heads import draw_umbrella_dome
from starrynight.firefly.drawing.palettes import WHITE, Palette, Rgb, mix, shade
from starrynight.firefly.drawing.pens import Pen, choose, skin, tone
from starrynight.firefly.drawing.scene import Scene
from starrynight.firefly.drawing.sitters import (
    backdrop,
    draw_collar,
    draw_cone_hat,
    draw_face,
    draw_neck,
    draw_raised,
    draw_robe,
    draw_short_beard,
    draw_sleeves,
    draw_woman,
    lay,
    sitter,
)

Rng = np.random.Generator


def _fisherman(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A fisherman in a straw hat and a straw cape, his rod over his shoulder."""
    p, pen = canvas.palette, sitter(scene, rng)
    body, hair = (
        mix(skin(p, rng), tone(p, (214, 150, 104)), 0.35),
        tone(p, (f.DARK, f.GREY)[int(rng.integers(2))]),
    )
    coat = choose(rng, p, (f.BLUE, f.TEAL, f.INDIGO, f.MAROON), *backdrop(p))
    line = tone(p, f.IVORY) if sum(p.middle) < 330 else tone(p, f.DARK)
    pen.band([(0.3, 2.3), (0.56, 1.62), (1.0, 0.4), (1.5, -0.85), (2.0, -1.4)], 0.1, 0.035, tone(p, f.WOOD))
    pen.band([(2.0, -1.4), (2.03, -0.6), (1.96, 0.2)], 0.025, 0.025, line)
    _catch(pen, p, 1.96, 0.2)
    lay(canvas, pen)
    draw_neck(pen, body)
    draw_robe(pen, p, rng, coat, plain=True)
    draw_collar(pen, shade(coat, 0.6), tone(p, f.IVORY))
    _cape(pen, p)
    draw_raised(pen, coat, shade(coat, 0.6), body, (0.5, 1.62))
    pen.band([(0.34, 2.16), (0.52, 1.64), (0.66, 1.2)], 0.1, 0.1, tone(p, f.WOOD))
    pen.loop([(0.34, 1.52), (0.6, 1.5), (0.64, 1.62), (0.6, 1.76), (0.38, 1.76), (0.32, 1.64)], body)
    draw_face(canvas, pen, body, rng, brow=hair, rosy=0.3)
    if rng.uniform() < 0.7:
        draw_short_beard(pen, hair)
    draw_cone_hat(pen, p)
    lay(canvas, pen)


def _catch(pen: Pen, p: Palette, x: float, y: float) -> None:
    """A small fish on the line."""
    silver = mix(tone(p, f.CORAL), WHITE, 0.15)
    pen.loop(
        [(x, y), (x + 0.15, y + 0.2), (x + 0.03, y + 0.46), (x - 0.03, y + 0.46), (x - 0.15, y + 0.2)], silver
    )
    pen.poly([(x, y + 0.4), (x + 0.16, y + 0.62), (x, y + 0.56), (x - 0.16, y + 0.62)], shade(silver, 0.85))
    pen.disc(x + 0.04, y + 0.12, 0.03, tone(p, f.DARK))


def _cape(pen: Pen, p: Palette) -> None:
    """Three rows of straw fringe over the shoulders."""
    straw = tone(p, f.OCHRE)
    for row, (top, drop) in enumerate(((1.5, 0.75), (1.1, 0.7), (0.7, 0.66))):
        half, tint = 1.36 - 0.24 * row, shade(straw, 0.78 + 0.14 * row)
        x = np.linspace(-half, half, 23)
        jag = np.where(np.arange(23) % 2, drop, drop * 0.72) + 0.18 * (np.abs(x) / half) ** 2
        inner = [(0.34, top - 0.02), (0.16, top + 0.34), (-0.16, top + 0.34), (-0.34, top - 0.02)]
        edge = np.stack([x, top + jag], 1)
        edge = edge[np.abs(x) > 0.2]
        left, right = edge[edge[:, 0] < 0], edge[edge[:, 0] > 0]
        pen.poly([*left, inner[2], inner[3], (-half * 0.7, top + 0.08)], tint)
        pen.poly([*right, (half * 0.7, top + 0.08), inner[0], inner[1]], tint)


def _dancer(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A dancer whose long silk sleeves circle her, as a half-figure or whole."""
    if rng.uniform() < 0.5:
        companions.whole_dancer(canvas, scene, rng)
        return
    p, pen = canvas.palette, sitter(scene, rng, 0.43, 0.185)
    silk = choose(rng, p, (f.RED, f.CORAL, f.YELLOW, f.IVORY, f.JADE, f.ROSE), *backdrop(p))
    wave = rng.uniform(-0.15, 0.15, 4)
    over = [
        (0.78, -0.5),
        (0.72, -1.12),
        (0.0, -1.4),
        (-0.85, -1.2 + wave[0]),
        (-1.3, -0.5),
        (-1.75, -0.7 + wave[1]),
    ]
    pen.band(over, 0.3, 0.34, silk, 0.26, 50)
    pen.band(over, 0.03, 0.04, shade(silk, 0.72), 0.03, 50)
    down = [(-1.35, 1.35), (-1.75, 1.2 + wave[2]), (-2.0, 1.8), (-1.5, 2.3), (-1.9, 3.0 + wave[3])]
    pen.band(down, 0.3, 0.34, silk, 0.22, 50)
    pen.band(down, 0.03, 0.04, shade(silk, 0.72), 0.03, 50)
    lay(canvas, pen)
    cloth, trim, body = draw_woman(canvas, pen, rng, silk, hands=False)
    pen.band([(0.62, 1.12), (1.3, 0.75), (1.0, 0.0)], 0.42, 0.3, shade(cloth, 0.88))
    pen.band([(-0.62, 1.12), (-1.0, 1.6), (-1.4, 1.4)], 0.42, 0.3, shade(cloth, 0.82))
    for x, y in ((0.9, -0.28), (-1.42, 1.34)):
        pen.band([(1.0, 0.02), (x, y)] if x > 0 else [(-1.3, 1.44), (x, y)], 0.26, 0.2, trim)
        pen.disc(x, y, 0.13, body, 0.15)
    pen.band([(0.88, -0.3), (0.8, -0.6), (0.55, -1.2)], 0.26, 0.4, silk)
    lay(canvas, pen)


def _monk(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A monk with a shaved head, or under a straw hat: palms together, or with a ringed staff."""
    p, pen = canvas.palette, sitter(scene, rng)
    body, brass = skin(p, rng), tone(p, f.YELLOW)
    robe = choose(rng, p, (f.SAFFRON, f.OCHRE, f.YELLOW, f.CORAL, f.MAROON), *backdrop(p))
    under = choose(rng, p, (f.MAROON, f.IVORY, f.SAFFRON, f.RED), robe)
    staff = rng.uniform() < 0.5
    draw_neck(pen, body)
    draw_robe(pen, p, rng, under, plain=True)
    pen.loop(
        [
            (-0.5, 0.7),
            (-0.86, 0.9),
            (-1.14, 1.8),
            (-1.3, 3.6),
            (1.2, 3.6),
            (1.0, 2.4),
            (0.5, 2.1),
            (-0.05, 1.4),
        ],
        robe,
    )
    for x in (0.0, 0.3, 0.6):
        pen.band([(-0.62 + x * 0.4, 0.95), (-0.4 + x, 1.8), (0.1 + x, 2.6)], 0.03, 0.07, shade(robe, 0.74))
    for k in np.linspace(-1, 1, 15):
        pen.disc(0.42 * k, 1.5 - 0.72 * k**2 - 0.04, 0.062, tone(p, (92, 48, 34)))
    if staff:
        pen.band([(0.86, -0.95), (0.8, 3.3)], 0.08, 0.08, tone(p, f.WOOD))
        pen.ring(0.86, -1.08, 0.2, 0.06, brass)
        draw_raised(pen, under, shade(under, 0.7), body, (0.8, 1.5))
    else:
        draw_sleeves(pen, robe, shade(robe, 0.72))
        for dx, tint in ((-0.06, 0.86), (0.04, 1.0)):
            pen.loop(
                [
                    (dx - 0.12, 2.15),
                    (dx - 0.06, 1.75),
                    (dx + 0.03, 1.5),
                    (dx + 0.11, 1.72),
                    (dx + 0.14, 2.15),
                ],
                shade(body, tint),
            )
    pen.disc(-0.02, -0.2, 0.41, body, 0.42)
    draw_face(canvas, pen, body, rng, brow=tone(p, f.DARK), rosy=0.25, wide=1.06)
    pen.disc(-0.37, 0.16, 0.07, shade(body, 0.86), 0.16)
    if rng.uniform() < 0.25:
        draw_cone_hat(pen, p)
    else:
        pen.disc(0.14, -0.42, 0.13, mix(body, WHITE, 0.4), 0.07)
    lay(canvas, pen)


def _umbrella(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A woman with an oil-paper umbrella open behind her head, or above it."""
    p, above = canvas.palette, rng.uniform() < 0.4
    pen = sitter(scene, rng, 0.48, 0.18) if above else sitter(scene, rng, 0.42, 0.195)
    cover = choose(rng, p, (f.RED, f.RED, f.YELLOW, f.CORAL, f.TEAL, f.PLUM), *backdrop(p))
    hand = (0.58, 1.6) if above else (0.44, 1.68)
    if above:
        pen.band([(0.6, 2.2), (0.5, 0.6), (0.3, -1.6)], 0.08, 0.08, tone(p, f.WOOD))
        draw_umbrella_dome(pen, p, 0.28, -0.72, 1.75, cover, 8)
    else:
        _wheel(pen, p, rng, cover)
    lay(canvas, pen)
    cloth, trim, body = draw_woman(canvas, pen, rng, cover, hands=False)
    draw_sleeves(pen, cloth, trim)
    handle = [(0.62, 2.1), (0.58, 1.5), (0.52, 0.9)] if above else [(0.5, 2.3), (0.42, 1.5), (0.3, 0.72)]
    pen.band(handle, 0.08, 0.08, tone(p, f.WOOD))
    draw_raised(pen, cloth, trim, body, hand)
    lay(canvas, pen)


def _wheel(pen: Pen, p: Palette, rng: Rng, cover: Rgb) -> None:
    """The open umbrella behind a head, with its ribs and pale rings."""
    pale, (x, y, r) = mix(cover, tone(p, f.IVORY), 0.75), (-0.25, -0.3, 1.55)
    turn = np.linspace(0, 2 * np.pi, 17) + rng.uniform(0, 0.3)
    edge = np.stack([x + r * np.cos(turn), y + r * 0.92 * np.sin(turn)], 1)
    for k in range(16):
        pen.poly([(x, y), edge[k], edge[k + 1]], shade(cover, 1.0 if k % 2 else 0.86))
    for share, width in ((0.97, 0.06), (0.7, 0.16)):
        pen.ring(x, y, r * share * 0.96, width, pale)
    for k in range(16):
        pen.band([(x, y), edge[k]], 0.02, 0.02, shade(cover, 0.62), n=4)


def _scholar(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """An old poet with a long beard, in a robe with wide sleeves, with a wine cup or folded hands."""
    p, pen = canvas.palette, sitter(scene, rng)
    body, dark = skin(p, rng), tone(p, f.DARK)
    beard = mix(tone(p, (240, 238, 234)), WHITE, 0.3)
    robe = choose(
        rng, p, (f.SKY, f.JADE, f.OCHRE, f.TEAL, f.INDIGO, f.BLUE, f.PLUM, f.MAROON), *backdrop(p), beard
    )
    trim = choose(rng, p, (f.INDIGO, f.IVORY, f.DARK), robe)
    for k in (-1, 1):
        pen.band([(k * 0.2, -0.5), (k * 0.7, -0.62), (k * 1.12, -0.4)], 0.1, 0.17, dark, 0.04)
    draw_neck(pen, body)
    draw_robe(pen, p, rng, robe)
    draw_collar(pen, trim, tone(p, f.IVORY))
    cup = rng.uniform() < 0.6
    if cup:
        draw_sleeves(pen, robe, trim)
        draw_raised(pen, robe, trim, body, (0.62, 1.45))
        pen.loop(
            [(0.4, 1.1), (0.62, 1.14), (0.84, 1.1), (0.76, 1.36), (0.62, 1.4), (0.48, 1.36)], tone(p, f.RED)
        )
        pen.disc(0.62, 1.11, 0.21, tone(p, f.IVORY), 0.05)
    else:
        draw_sleeves(pen, robe, trim, body)
    draw_face(canvas, pen, body, rng, brow=shade(beard, 0.8), rosy=0.3)
    _long_beard(pen, p, beard)
    _scholars_cap(pen, p, dark)
    lay(canvas, pen)


def _long_beard(pen: Pen, p: Palette, beard: Rgb) -> None:
    pen.loop(
        [
            (-0.3, 0.22),
            (-0.12, 0.38),
            (0.07, 0.37),
            (0.24, 0.38),
            (0.38, 0.2),
            (0.36, 0.7),
            (0.22, 1.2),
            (0.04, 1.75),
            (-0.12, 1.25),
            (-0.28, 0.7),
        ],
        beard,
    )
    for x in (-0.12, 0.03, 0.17):
        pen.band([(x, 0.6), (0.04 + x * 0.6, 1.05), (0.04, 1.5)], 0.018, 0.01, shade(beard, 0.78))
    for k in (-1, 1):
        pen.band(
            [(0.07, 0.25), (0.07 + k * 0.16, 0.28), (0.07 + k * 0.26, 0.46)], 0.06, 0.025, shade(beard, 0.94)
        )
    pen.loop([(-0.03, 0.34), (0.07, 0.325), (0.17, 0.34), (0.07, 0.38)], tone(p, f.MAROON), 4)
    pen.disc(-0.37, 0.05, 0.05, beard, 0.16)


def _scholars_cap(pen: Pen, p: Palette, dark: Rgb) -> None:
    pen.loop(
        [
            (-0.44, -0.24),
            (0.03, -0.3),
            (0.46, -0.24),
            (0.42, -0.6),
            (0.25, -0.74),
            (0.16, -0.98),
            (-0.2, -0.98),
            (-0.28, -0.74),
            (-0.42, -0.6),
        ],
        dark,
    )
    pen.band([(-0.42, -0.32), (0.03, -0.38), (0.44, -0.32)], 0.05, 0.05, tone(p, f.YELLOW))


def _farmer(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A farmer in a straw hat, with a basket of fruit, or a hoe on the shoulder."""
    p, pen = canvas.palette, sitter(scene, rng)
    body, hair, wood = skin(p, rng), tone(p, f.DARK), tone(p, f.WOOD)
    jacket = choose(rng, p, (f.BLUE, f.TEAL, f.SKY, f.CORAL, f.INDIGO), *backdrop(p))
    iron = mix(tone(p, f.GREY), WHITE, 0.2)
    hoe = rng.uniform() < 0.5
    if hoe:
        pen.band([(0.3, 2.3), (0.52, 1.62), (1.5, -0.5)], 0.1, 0.1, wood)
        pen.loop([(1.4, -0.55), (1.62, -0.62), (1.95, -0.2), (2.0, 0.25), (1.78, 0.2), (1.6, -0.22)], iron)
        lay(canvas, pen)
    draw_neck(pen, body)
    draw_robe(pen, p, rng, jacket, 0.94, plain=True)
    pen.band([(0.0, 1.1), (0.02, 3.2)], 0.04, 0.04, shade(jacket, 0.6))
    scarf = choose(rng, p, (f.IVORY, f.RED, f.YELLOW, f.CORAL), jacket)
    pen.loop([(0.02, 0.98), (0.18, 1.0), (0.26, 1.5), (0.08, 1.56)], shade(scarf, 0.86))
    pen.loop([(-0.36, 0.64), (0.0, 0.8), (0.38, 0.64), (0.36, 0.84), (0.06, 1.06), (-0.34, 0.84)], scarf)
    if hoe:
        draw_raised(pen, jacket, shade(jacket, 0.66), body, (0.48, 1.62))
        pen.band([(0.36, 2.06), (0.52, 1.64), (0.74, 1.16)], 0.1, 0.1, wood)
        pen.loop([(0.34, 1.52), (0.58, 1.5), (0.62, 1.62), (0.58, 1.74), (0.38, 1.76), (0.32, 1.64)], body)
    else:
        _harvest(pen, p, jacket, body, rng)
    draw_face(canvas, pen, body, rng, brow=hair, rosy=float(rng.choice((0.25, 0.4))))
    if rng.uniform() < 0.3:
        draw_short_beard(pen, hair)
    draw_cone_hat(pen, p)
    lay(canvas, pen)


def _harvest(pen: Pen, p: Palette, jacket: Rgb, body: Rgb, rng: Rng) -> None:
    """A basket of fruit held in both arms."""
    straw = tone(p, f.OCHRE)
    fruit = tone(p, (f.CORAL, f.RED, f.YELLOW)[int(rng.integers(3))])
    for x, y in (
        (-0.5, 1.85),
        (0.5, 1.85),
        (-0.2, 1.73),
        (0.22, 1.73),
        (0.0, 1.87),
        (-0.34, 1.95),
        (0.36, 1.95),
    ):
        pen.disc(x, y, 0.19, shade(fruit, 0.9 + 0.12 * (x > 0)))
        pen.band([(x, y - 0.12), (x + 0.1, y - 0.22)], 0.08, 0.03, tone(p, f.JADE))
    pen.loop([(-0.82, 2.0), (0.0, 2.11), (0.82, 2.0), (0.68, 3.1), (-0.68, 3.1)], straw)
    for y in (2.25, 2.55, 2.85):
        pen.band([(-0.78, y), (0.0, y + 0.1), (0.78, y)], 0.05, 0.05, shade(straw, 0.68))
    for k in (-1, 1):
        pen.band([(k * 0.78, 1.15), (k * 1.06, 1.75), (k * 0.8, 2.36)], 0.4, 0.32, shade(jacket, 0.86))
        pen.disc(k * 0.72, 2.42, 0.17, body, 0.14)


PORTRAITS: dict[str, Callable[[Canvas, Scene, Rng], None]] = {
    "fisherman": _fisherman,
    "dancer": _dancer,
    "monk": _monk,
    "kite": companions.child,
    "umbrella": _umbrella,
    "scholar": _scholar,
    "couple": companions.couple,
    "farmer": _farmer,
}
