"""Place people on the canvas, small in a landscape or as half-figures that fill the picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from starrynight.firefly.drawing import companions, portraits
from starrynight.firefly.drawing import pens as f
from starrynight.firefly.drawing.canvas import Canvas
from starrynight.firefly.drawing.heads import (
    draw_blades,
    draw_bun_head,
    draw_front_head,
    draw_old_head,
    draw_shadow,
    draw_shaved_head,
    draw_straw_hat,
    draw_umbrella_disc,
    draw_umbrella_dome,
)
from starrynight.firefly.drawing.palettes import WHITE, Palette, Rgb, mix, shade
from starrynight.firefly.drawing.pens import Pen, choose, land_colour, skin, stand, tone
from starrynight.firefly.drawing.scene import Scene

Rng = np.random.Generator
Painter = Callable[[Pen, Palette, Rgb, Rng], None]


def _person(low: float, high: float, half: float, draw: Painter) -> Callable[[Canvas, Scene, Rng], None]:
    """A painter of one small figure, `low` to `high` tall and `half` of its height to each side."""

    def paint(canvas: Canvas, scene: Scene, rng: Rng) -> None:
        s = rng.uniform(low, high)
        x, foot = _place(canvas, scene, rng, s * half)
        pen = Pen(x, foot, s, int(rng.choice((-1, 1))))
        draw_shadow(canvas, scene, pen, half)
        p = canvas.palette
        water = scene.has("lake", "sea")  # which is then behind most of the figure
        draw(pen, p, mix(p.water, p.low, 0.3) if water else land_colour(p, scene), rng)
        draw_blades(canvas, scene, pen, half, rng)
        canvas.draw("person", pen.items, np.pi / 2, 0.97)

    return paint


def _place(canvas: Canvas, scene: Scene, rng: Rng, half: float) -> tuple[float, float]:
    """Where a small figure stands: on the pavement of a street, in front of a village, else on dry land."""
    foot, x = min(scene.horizon + rng.uniform(0.18, 0.3), 0.95), scene.figure
    if scene.kind == "street":
        return 0.5 + (x - 0.5) * 0.4, float(rng.uniform(0.86, 0.92))
    if scene.has("village") and scene.kind in ("village", "snow"):
        foot = float(rng.uniform(0.93, 0.97))
    return stand(canvas, scene, x, foot, half)


def _monk(pen: Pen, p: Palette, ground: Rgb, rng: Rng) -> None:
    """A monk walking with a ringed staff; shaved, or under a straw hat."""
    body = skin(p, rng)
    robe = choose(rng, p, (f.SAFFRON, f.OCHRE, f.YELLOW, f.CORAL), ground)
    drape = choose(rng, p, (f.MAROON, f.RED, f.SAFFRON), robe)
    wood, brass = tone(p, f.WOOD), tone(p, f.YELLOW)
    pen.band([(0.25, -1.02), (0.23, 0.0)], 0.026, 0.026, wood)
    pen.ring(0.25, -1.04, 0.05, 0.022, brass)
    for x in (-0.08, 0.1):
        pen.disc(x, -0.015, 0.055, shade(body, 0.75), 0.025)
    pen.loop(
        [
            (-0.06, -0.78),
            (0.07, -0.78),
            (0.13, -0.5),
            (0.19, -0.04),
            (0.0, -0.01),
            (-0.2, -0.04),
            (-0.13, -0.5),
        ],
        robe,
    )
    pen.loop([(-0.09, -0.77), (0.0, -0.8), (0.1, -0.5), (0.17, -0.24), (0.02, -0.3), (-0.12, -0.52)], drape)
    for x in (-0.08, 0.03, 0.12):
        pen.band([(x * 0.6, -0.32), (x, -0.05)], 0.008, 0.016, shade(robe, 0.74))
    pen.band([(0.05, -0.7), (0.11, -0.54), (0.22, -0.55)], 0.1, 0.08, shade(robe, 0.88))
    pen.disc(0.24, -0.56, 0.033, body)
    draw_shaved_head(pen, p, body, rng)


def _scholar(pen: Pen, p: Palette, ground: Rgb, rng: Rng) -> None:
    """An old poet in a wide robe: leaning on a staff, or raising a cup."""
    body, beard = skin(p, rng), mix(tone(p, (246, 244, 240)), WHITE, 0.3)
    robe = choose(rng, p, (f.SKY, f.JADE, f.OCHRE, f.TEAL, f.ROSE), ground)
    trim, wood = tone(p, f.INDIGO), tone(p, f.WOOD)
    raised = rng.uniform() < 0.5
    if not raised:
        pen.band([(0.34, -0.92), (0.31, -0.5), (0.33, 0.0)], 0.035, 0.025, wood)
    pen.loop(
        [
            (-0.08, -0.79),
            (0.08, -0.79),
            (0.17, -0.42),
            (0.24, -0.02),
            (0.0, 0.0),
            (-0.25, -0.02),
            (-0.17, -0.42),
        ],
        robe,
    )
    pen.band([(-0.24, -0.03), (0.0, -0.015), (0.235, -0.03)], 0.035, 0.035, trim)
    pen.band([(-0.145, -0.5), (0.0, -0.47), (0.145, -0.5)], 0.04, 0.04, trim)
    pen.band([(0.06, -0.47), (0.05, -0.3), (0.09, -0.12)], 0.022, 0.03, shade(trim, 1.2))
    lift = -0.3 if raised else 0.0
    sleeve = [(-0.02, -0.76), (0.16, -0.66 + lift * 0.3), (0.31, -0.62 + lift), (0.36, -0.5 + lift)]
    pen.loop([*sleeve, (0.3, -0.3 + lift * 0.5), (0.1, -0.36)], shade(robe, 0.86))
    pen.band([(0.32, -0.62 + lift), (0.36, -0.5 + lift), (0.3, -0.31 + lift * 0.5)], 0.03, 0.03, trim)
    pen.disc(0.345, -0.6 + lift, 0.035, body)
    if raised:
        pen.poly([(0.32, -1.0), (0.42, -1.0), (0.39, -0.92), (0.35, -0.92)], tone(p, f.RED))
    pen.loop(
        [(-0.17, -0.66), (-0.06, -0.74), (-0.04, -0.46), (-0.14, -0.26), (-0.25, -0.3)], shade(robe, 0.8)
    )
    draw_old_head(pen, p, body, beard)


def _umbrella(pen: Pen, p: Palette, ground: Rgb, rng: Rng) -> None:
    """A woman in a long robe, her umbrella open above her or resting on her shoulder."""
    body, hair = skin(p, rng), tone(p, f.DARK)
    cover = choose(
        rng, p, (f.RED, f.RED, f.YELLOW, f.CORAL, f.TEAL, f.PLUM), ground, mix(p.middle, p.low, 0.5)
    )
    robe = choose(rng, p, (f.IVORY, f.SKY, f.ROSE, f.JADE, f.INDIGO), ground, cover)
    sash, above = choose(rng, p, (f.RED, f.INDIGO, f.YELLOW), robe), rng.uniform() < 0.55
    pole = tone(p, f.WOOD)
    if not above:
        pen.band([(0.14, -0.42), (-0.2, -0.86)], 0.02, 0.02, pole)
        draw_umbrella_disc(pen, p, -0.2, -0.84, 0.36, cover)
    pen.loop(
        [
            (-0.07, -0.7),
            (0.06, -0.7),
            (0.1, -0.42),
            (0.12, -0.15),
            (0.18, -0.01),
            (-0.2, -0.01),
            (-0.13, -0.2),
            (-0.11, -0.45),
        ],
        robe,
    )
    pen.band([(-0.1, -0.48), (0.0, -0.46), (0.095, -0.48)], 0.085, 0.085, sash)
    pen.disc(-0.12, -0.47, 0.05, sash, 0.06)
    pen.band([(0.03, -0.4), (0.05, -0.03)], 0.012, 0.02, shade(robe, 0.74))
    if above:
        pen.band([(0.12, -0.4), (0.1, -1.0)], 0.02, 0.02, pole)
    pen.loop(
        [(0.0, -0.68), (0.08, -0.62), (0.15, -0.5), (0.13, -0.42), (0.08, -0.26), (0.0, -0.36)],
        shade(robe, 0.86),
    )
    pen.disc(0.135, -0.47, 0.03, body)
    draw_bun_head(pen, p, 0.0, -0.79, 0.078, body, hair)
    if above:
        draw_umbrella_dome(pen, p, 0.09, -0.84, 0.36, cover)


def _farmer(pen: Pen, p: Palette, ground: Rgb, rng: Rng) -> None:
    """A farmer in a straw hat: with a hoe on the shoulder, or two baskets on a pole."""
    body, wood = skin(p, rng), tone(p, f.WOOD)
    jacket = choose(rng, p, (f.BLUE, f.SKY, f.CORAL, f.IVORY, f.TEAL), ground)
    trousers = choose(rng, p, (f.INDIGO, f.IVORY, f.GREY), ground, jacket)
    pole = rng.uniform() < 0.5
    for x, knee in ((-0.12, -0.1), (0.12, 0.09)):
        pen.band(
            [(x * 0.3, -0.44), (knee, -0.24), (x, -0.04)], 0.12, 0.08, shade(trousers, 0.85 if x < 0 else 1.0)
        )
        pen.disc(x + 0.02, -0.015, 0.055, shade(body, 0.7), 0.028)
    if not pole:
        pen.band([(-0.42, -0.92), (0.3, -0.52)], 0.03, 0.03, wood)
        pen.poly(
            [(-0.42, -0.97), (-0.36, -0.87), (-0.47, -0.7), (-0.56, -0.76)], mix(tone(p, f.GREY), WHITE, 0.3)
        )
    pen.loop(
        [(-0.08, -0.77), (0.08, -0.77), (0.13, -0.6), (0.13, -0.38), (-0.13, -0.38), (-0.12, -0.6)], jacket
    )
    pen.band([(-0.12, -0.42), (0.12, -0.42)], 0.04, 0.04, tone(p, f.RED))
    hand = (0.17, -0.68) if pole else (0.2, -0.59)
    pen.band([(0.06, -0.72), (0.15, -0.54), hand], 0.1, 0.07, shade(jacket, 0.86))
    pen.disc(*hand, 0.035, body)
    pen.disc(0.02, -0.87, 0.08, body, 0.09)
    draw_straw_hat(pen, p, 0.02, -0.9, 0.12)
    if pole:
        _baskets(pen, p, wood, rng)


def _baskets(pen: Pen, p: Palette, wood: Rgb, rng: Rng) -> None:
    """A carrying pole with two baskets of fruit or greens."""
    pen.band([(-0.56, -0.66), (0.0, -0.75), (0.56, -0.66)], 0.025, 0.025, wood, 0.015)
    fruit = tone(p, (f.CORAL, f.YELLOW, f.JADE)[int(rng.integers(3))])
    for x in (-0.5, 0.5):
        for dx in (-0.11, 0.11):
            pen.band([(x, -0.66), (x + dx, -0.32)], 0.01, 0.01, wood)
        for dx in (-0.07, 0.07, 0.0):
            pen.disc(x + dx, -0.33 - 0.03 * (dx == 0), 0.065, shade(fruit, 1.0 if dx else 1.12))
        straw = tone(p, f.OCHRE)
        pen.loop(
            [(x - 0.15, -0.32), (x, -0.29), (x + 0.15, -0.32), (x + 0.11, -0.13), (x - 0.11, -0.13)], straw
        )
        pen.band([(x - 0.13, -0.22), (x, -0.2), (x + 0.13, -0.22)], 0.02, 0.02, shade(straw, 0.7))


def _couple(pen: Pen, p: Palette, ground: Rgb, rng: Rng) -> None:
    """Two people holding hands, or sitting side by side and seen from behind."""
    coat = choose(rng, p, (f.BLUE, f.TEAL, f.INDIGO, f.IVORY, f.OCHRE), ground)
    dress = choose(rng, p, (f.RED, f.ROSE, f.YELLOW, f.CORAL, f.IVORY), ground, coat)
    body, hair = skin(p, rng), tone(p, f.DARK)
    if rng.uniform() < 0.4:
        _seated(pen, p, -0.19, 0.05, 1.12, coat, body, hair, False)
        _seated(pen, p, 0.17, -0.05, 1.0, dress, body, mix(hair, tone(p, f.WOOD), 0.5), True)
        return
    trousers = choose(rng, p, (f.INDIGO, f.WOOD, f.IVORY), ground, coat)
    for x in (-0.26, -0.15):
        pen.band([(x * 0.98, -0.45), (x, -0.03)], 0.1, 0.075, trousers)
        pen.disc(x + 0.01, -0.015, 0.045, hair, 0.022)
    pen.loop(
        [(-0.29, -0.78), (-0.13, -0.78), (-0.08, -0.6), (-0.09, -0.36), (-0.32, -0.36), (-0.34, -0.6)], coat
    )
    pen.band([(0.04, -0.6), (0.03, -0.42), (-0.02, -0.36)], 0.06, 0.05, shade(dress, 0.86))
    pen.band([(-0.12, -0.72), (-0.06, -0.52), (-0.02, -0.36)], 0.085, 0.06, shade(coat, 0.84))
    pen.disc(-0.02, -0.36, 0.032, body)
    for x in (0.14, 0.22):
        pen.band([(x, -0.2), (x, -0.02)], 0.045, 0.04, shade(body, 0.9))
    pen.loop(
        [(0.1, -0.7), (0.24, -0.7), (0.245, -0.5), (0.38, -0.14), (0.17, -0.11), (-0.02, -0.14), (0.1, -0.5)],
        dress,
    )
    pen.band([(0.1, -0.5), (0.245, -0.5)], 0.04, 0.04, shade(dress, 0.7))
    pen.band([(0.24, -0.66), (0.32, -0.5), (0.3, -0.36)], 0.06, 0.05, body)
    for x, y, long in ((-0.21, -0.89, False), (0.17, -0.8, True)):
        draw_front_head(pen, p, x, y, 0.083, body, hair, long)


def _seated(
    pen: Pen, p: Palette, x: float, lean: float, s: float, cloth: Rgb, body: Rgb, hair: Rgb, long: bool
) -> None:
    """A person sitting on the ground, seen from behind, the head leaning by `lean`."""
    pen.loop(
        [
            (x - 0.09, -0.52 * s),
            (x + 0.09, -0.52 * s),
            (x + 0.18, -0.3),
            (x + 0.26, -0.03),
            (x, 0.01),
            (x - 0.26, -0.03),
            (x - 0.18, -0.3),
        ],
        cloth,
    )
    pen.band([(x, -0.42), (x + lean * 0.3, -0.06)], 0.012, 0.02, shade(cloth, 0.74))
    for k in (-1, 1):
        pen.band(
            [(x + k * 0.11, -0.46 * s), (x + k * 0.19, -0.26), (x + k * 0.15, -0.06)],
            0.09,
            0.07,
            shade(cloth, 0.88),
        )
    pen.band([(x, -0.5 * s), (x + lean, -0.6 * s)], 0.08, 0.08, body)
    if long:
        pen.loop(
            [
                (x + lean - 0.1, -0.68 * s),
                (x + lean + 0.1, -0.68 * s),
                (x + 0.11, -0.36),
                (x, -0.32),
                (x - 0.11, -0.36),
            ],
            hair,
        )
    pen.disc(x + lean * 1.3, -0.68 * s, 0.105, hair, 0.115)


def _child(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A running child, and high in the sky the kite whose line it holds."""
    p, s = canvas.palette, rng.uniform(0.24, 0.28)
    x, foot = _place(canvas, scene, rng, 0.07)
    spot = _clear_sky(canvas, scene, x, rng.uniform(0.3, 0.42), rng.uniform(0.15, 0.2))
    pen = Pen(x, foot, s, 1 if spot[0] > x else -1)
    draw_shadow(canvas, scene, pen, 0.3)
    shirt = choose(rng, p, (f.RED, f.YELLOW, f.CORAL, f.IVORY), land_colour(p, scene))
    shorts = choose(rng, p, (f.BLUE, f.IVORY, f.INDIGO), land_colour(p, scene), shirt)
    body, hair = skin(p, rng), tone(p, f.DARK)
    companions.draw_child(pen, p, shirt, shorts, body, hair)
    hand = pen.at([(0.29, -0.97)])[0]
    companions.kite(canvas, scene, rng, hand, spot, rng.uniform(0.085, 0.105))
    draw_blades(canvas, scene, pen, 0.4, rng)
    canvas.draw("person", pen.items, np.pi / 2, 0.97)


def _clear_sky(canvas: Canvas, scene: Scene, x: float, away: float, y: float) -> tuple[float, float]:
    """A place for the kite where least is painted behind it; sixths of the area are told apart at any size."""
    n, best, least = canvas.size, (0.5, y), 9
    for dx in (away, -away, away + 0.12, -away - 0.12, away - 0.15, 0.15 - away):
        kx = float(np.clip(x + scene.side * dx, 0.16, 0.84))
        area = canvas.detail[int(0.06 * n) : int((y + 0.22) * n), int((kx - 0.11) * n) : int((kx + 0.11) * n)]
        filled = int((area > 0.55).mean() * 6)
        if filled < least:
            best, least = (kx, y), filled
    return best


def _fisherman(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A fisherman in his skiff on the water, or walking home with his rod."""
    p = canvas.palette
    if scene.has("sea", "lake", "river"):
        y, s = scene.horizon + (1 - scene.horizon) * rng.uniform(0.3, 0.5), rng.uniform(0.36, 0.42)
        x = scene.figure
        if scene.has("river"):
            y, s = scene.horizon + (1 - scene.horizon) * 0.66, 0.3
            row = canvas.water[int(y * canvas.size)]
            x = float(np.flatnonzero(row).mean()) / canvas.size if row.any() else x
        # Not by x in a river: where that is the middle, rounding would decide.
        away = 1 if x < 0.5 else -1
        pen = Pen(x, y, s, scene.side if scene.has("river") else away)
        _skiff(pen, p, rng)
    else:
        s = rng.uniform(0.29, 0.34)
        pen = Pen(*_place(canvas, scene, rng, 0.1), s, scene.side)
        draw_shadow(canvas, scene, pen, 0.3)
        _angler(pen, p, land_colour(p, scene), rng)
    canvas.draw("person", pen.items, 0.3, 0.97)


def _skiff(pen: Pen, p: Palette, rng: Rng) -> None:
    """A flat boat with a seated man in a straw cape; the unit is the boat's length."""
    hull = mix(tone(p, f.WOOD), p.roof, 0.3)
    line = tone(p, f.IVORY) if sum(p.water) < 300 else tone(p, f.DARK)
    pen.disc(0.0, 0.1, 0.5, shade(p.water, 0.7), 0.03)
    pen.band([(0.06, -0.2), (0.4, -0.42), (0.66, -0.46)], 0.018, 0.01, line)
    pen.band([(0.66, -0.46), (0.67, -0.1), (0.66, 0.07)], 0.006, 0.006, line)
    pen.disc(0.66, 0.07, 0.016, tone(p, f.RED))
    cape = choose(rng, p, (f.OCHRE, f.STRAW, f.BLUE, f.CORAL), p.water, hull)
    pen.loop([(-0.12, -0.38), (0.0, -0.38), (0.1, -0.18), (0.13, 0.0), (-0.22, 0.0), (-0.2, -0.18)], cape)
    for k in (-0.15, -0.06, 0.03):
        pen.band([(-0.06 + k * 0.3, -0.32), (k - 0.02, -0.02)], 0.01, 0.022, shade(cape, 0.72))
    pen.band([(-0.02, -0.3), (0.06, -0.2), (0.12, -0.22)], 0.07, 0.05, shade(cape, 0.85))
    pen.disc(0.12, -0.23, 0.022, skin(p, rng))
    pen.disc(-0.05, -0.42, 0.055, skin(p, rng), 0.06)
    draw_straw_hat(pen, p, -0.05, -0.45, 0.085)
    pen.loop(
        [(-0.52, -0.12), (-0.3, 0.0), (0.3, 0.0), (0.56, -0.14), (0.38, 0.1), (0.0, 0.13), (-0.38, 0.1)], hull
    )
    pen.band([(-0.5, -0.09), (-0.28, 0.025), (0.28, 0.025), (0.53, -0.1)], 0.025, 0.025, shade(hull, 1.5))


def _angler(pen: Pen, p: Palette, ground: Rgb, rng: Rng) -> None:
    """A fisherman on foot with the rod over his shoulder and a fish on a string."""
    body, wood = skin(p, rng), tone(p, f.WOOD)
    cape = choose(rng, p, (f.STRAW, f.OCHRE, f.CORAL), ground)
    for x in (-0.09, 0.1):
        pen.band([(x * 0.5, -0.35), (x, -0.03)], 0.08, 0.06, shade(body, 0.85))
        pen.disc(x + 0.02, -0.015, 0.05, wood, 0.025)
    pen.band([(0.16, -0.5), (-0.2, -0.86), (-0.62, -1.12)], 0.022, 0.012, tone(p, f.OCHRE))
    pen.band([(-0.62, -1.12), (-0.62, -0.78)], 0.008, 0.008, tone(p, f.IVORY))
    pen.loop([(-0.07, -0.78), (0.08, -0.78), (0.17, -0.5), (0.2, -0.26), (-0.2, -0.26), (-0.17, -0.5)], cape)
    for k in (-0.13, -0.04, 0.05, 0.14):
        pen.band([(k * 0.5, -0.7), (k, -0.28)], 0.012, 0.025, shade(cape, 0.72))
    pen.disc(0.16, -0.52, 0.035, body)
    pen.disc(0.02, -0.87, 0.08, body, 0.09)
    draw_straw_hat(pen, p, 0.02, -0.9, 0.12)


def _either(name: str, small: Callable[[Canvas, Scene, Rng], None]) -> Callable[[Canvas, Scene, Rng], None]:
    """The subject's half-figure when the scene is seen from near, else its small figure."""

    def paint(canvas: Canvas, scene: Scene, rng: Rng) -> None:
        if scene.close:
            portraits.PORTRAITS[name](canvas, scene, rng)
        else:
            small(canvas, scene, rng)

    return paint


_SMALL = {
    "fisherman": _fisherman,
    "dancer": _person(0.29, 0.35, 0.6, companions.draw_dancer),
    "monk": _person(0.29, 0.35, 0.28, _monk),
    "kite": _child,
    "umbrella": _person(0.31, 0.37, 0.4, _umbrella),
    "scholar": _person(0.29, 0.35, 0.36, _scholar),
    "couple": _person(0.29, 0.34, 0.4, _couple),
    "farmer": _person(0.28, 0.33, 0.55, _farmer),
}
# What paints each subject, with its depth (see landscape.PARTS).
PARTS: tuple[tuple[float, str, Callable[[Canvas, Scene, Rng], None]], ...] = tuple(
    (1.0, name, _either(name, small)) for name, small in _SMALL.items()
)
