"""The heads, hats and umbrellas of small figures, and the shadow they stand in."""

from __future__ import annotations

import numpy as np

from starrynight.firefly.drawing import pens as f
from starrynight.firefly.drawing.buildings import snowy
from starrynight.firefly.drawing.canvas import Canvas
from starrynight.firefly.drawing.palettes import WHITE, Palette, Rgb, gold, mix, pale, shade
from starrynight.firefly.drawing.pens import OUTLINED, Pen, land_colour, tone
from starrynight.firefly.drawing.scene import Scene

Rng = np.random.Generator


def draw_shadow(canvas: Canvas, scene: Scene, pen: Pen, half: float) -> None:
    if scene.has("wheat", "sunflowers"):
        return
    ground = land_colour(canvas.palette, scene)
    pen.disc(-0.05, 0.0, half * 0.8, mix(shade(ground, 0.6), canvas.palette.top, 0.25), 0.028)


def draw_blades(canvas: Canvas, scene: Scene, pen: Pen, half: float, rng: Rng) -> None:
    """Stalks in front of the feet of a figure that stands in a field or among flowers."""
    p = canvas.palette
    if not scene.has("wheat", "sunflowers", "flowers") or snowy(scene) or scene.kind == "street":
        return
    if scene.style in OUTLINED:  # whose outlines would turn thin stalks into a dark patch
        return
    base = gold(p) if scene.has("wheat") else mix(p.leaf, p.mid, 0.4)
    for k, u in enumerate(rng.uniform(0, 1, (16, 3))):
        x, high = (k / 15 * 2 - 1) * half * 1.05, 0.07 + 0.1 * u[0]
        tip = (x + 0.06 * (u[1] - 0.3), 0.03 - high)
        tint = mix(shade(base, 0.75 + 0.4 * u[2]), pale(p), 0.15 * u[0])
        pen.band([(x, 0.05), (x + 0.3 * (tip[0] - x), 0.03 - high * 0.5), tip], 0.035, 0.012, tint, 0.01, 6)


def draw_straw_hat(pen: Pen, p: Palette, x: float, y: float, r: float) -> None:
    """A wide cone of straw over a head at (x, y)."""
    straw = tone(p, f.STRAW)
    pen.loop(
        [(x - r * 1.9, y + r * 0.1), (x, y + r * 0.35), (x + r * 1.9, y + r * 0.1), (x, y - r * 1.35)],
        straw,
        5,
    )
    pen.poly([(x - r * 1.7, y + r * 0.2), (x + r * 1.7, y + r * 0.2), (x, y + r * 0.42)], shade(straw, 0.66))
    pen.poly(
        [(x + r * 0.1, y - r * 1.2), (x + r * 1.7, y + r * 0.12), (x + r * 0.6, y + r * 0.2)],
        shade(straw, 0.86),
    )


def draw_shaved_head(pen: Pen, p: Palette, body: Rgb, rng: Rng) -> None:
    pen.band([(0.0, -0.76), (0.02, -0.86)], 0.08, 0.07, shade(body, 0.85))
    pen.disc(0.02, -0.89, 0.09, body, 0.1)
    pen.disc(-0.035, -0.875, 0.02, shade(body, 0.82), 0.03)
    if rng.uniform() < 0.3:
        draw_straw_hat(pen, p, 0.02, -0.93, 0.11)
    else:
        pen.disc(0.04, -0.945, 0.035, mix(body, WHITE, 0.4), 0.02)


def draw_old_head(pen: Pen, p: Palette, body: Rgb, beard: Rgb) -> None:
    dark = tone(p, f.DARK)
    for x in (-0.1, 0.14):
        pen.band([(0.02, -0.96), (x, -0.985), (x * 1.9, -0.94)], 0.025, 0.04, dark)
    pen.disc(0.02, -0.89, 0.085, body, 0.095)
    pen.loop([(-0.04, -0.84), (0.04, -0.85), (0.1, -0.84), (0.12, -0.7), (0.06, -0.54), (-0.02, -0.7)], beard)
    pen.disc(-0.05, -0.88, 0.03, beard, 0.05)
    pen.loop(
        [(-0.08, -0.93), (0.02, -0.95), (0.115, -0.93), (0.09, -1.04), (0.0, -1.06), (-0.07, -1.02)], dark
    )


def draw_umbrella_disc(pen: Pen, p: Palette, x: float, y: float, r: float, cover: Rgb) -> None:
    """An open umbrella seen from outside: a wheel of segments with a pale ring."""
    turn = np.linspace(0, 2 * np.pi, 13)
    edge = np.stack([x + r * np.cos(turn), y + r * 0.94 * np.sin(turn)], 1)
    for k in range(12):
        pen.poly([(x, y), edge[k], edge[k + 1]], shade(cover, 1.0 if k % 2 else 0.84))
    pen.ring(x, y, r * 0.66, r * 0.07, mix(cover, tone(p, f.IVORY), 0.75))
    pen.disc(x, y, r * 0.12, tone(p, f.DARK))


def draw_umbrella_dome(pen: Pen, p: Palette, x: float, y: float, r: float, cover: Rgb, n: int = 6) -> None:
    """An open umbrella seen from the side: a dome of segments with a scalloped rim."""
    peak = (x, y - r * 0.62)
    rims = np.linspace(-1, 1, n + 1)
    for k in range(n):
        left, right = rims[k], rims[k + 1]
        sides = [_rib(peak, x, y, r, share) for share in (left, right)]
        sag = [(x + (left + right) / 2 * r, y - r * 0.05)]
        colour = shade(cover, 1.0 if k % 2 else 0.84)
        pen.poly(np.concatenate([sides[0], sag, sides[1][::-1]]), colour)
    pen.band(
        [_rib(peak, x, y, r, k)[6] for k in rims], r * 0.085, r * 0.085, mix(cover, tone(p, f.IVORY), 0.75)
    )
    pen.band([peak, (x, y - r * 0.76)], r * 0.085, r * 0.05, tone(p, f.DARK))


def _rib(peak: tuple[float, float], x: float, y: float, r: float, share: float) -> np.ndarray:
    """The curve of one rib from the peak to the rim."""
    t = np.linspace(0, 1, 10)
    drop = t**1.7 * r * (0.62 + 0.06 * (1 - share**2))
    return np.stack([x + share * r * np.sin(t * np.pi / 2), peak[1] + drop], 1)


def draw_bun_head(pen: Pen, p: Palette, x: float, y: float, r: float, body: Rgb, hair: Rgb) -> None:
    """A woman's head with her hair up and a flower in it."""
    pen.band([(x - r * 0.1, y + r * 1.3), (x, y + r * 0.5)], r * 0.8, r * 0.7, shade(body, 0.88))
    pen.disc(x - r * 0.22, y - r * 0.18, r * 1.08, hair, r * 1.12)
    pen.disc(x - r * 0.75, y - r * 1.0, r * 0.55, hair)
    pen.disc(x + r * 0.2, y + r * 0.16, r * 0.8, body, r * 0.9)
    pen.loop(
        [
            (x - r * 0.6, y - r * 0.1),
            (x + r * 0.1, y - r * 0.42),
            (x + r * 0.95, y - r * 0.3),
            (x + r * 0.4, y - r * 1.1),
            (x - r * 0.7, y - r),
        ],
        hair,
    )
    pen.disc(x - r * 0.35, y - r * 0.95, r * 0.26, tone(p, f.RED))


def draw_front_head(
    pen: Pen, p: Palette, x: float, y: float, r: float, body: Rgb, hair: Rgb, long: bool
) -> None:
    """A head seen from the front, with long or short hair."""
    if long:
        pen.loop(
            [
                (x - r, y),
                (x, y - r * 1.3),
                (x + r, y),
                (x + r * 1.15, y + r * 1.9),
                (x - r * 1.15, y + r * 1.9),
            ],
            hair,
        )
    pen.band([(x, y + r * 1.4), (x, y + r * 0.6)], r * 0.8, r * 0.8, shade(body, 0.88))
    pen.disc(x, y - r * 0.15, r * 1.05, hair, r * 1.1)
    pen.disc(x, y + r * 0.12, r * 0.85, body, r * 0.95)
    pen.loop(
        [
            (x - r * 0.9, y),
            (x - r * 0.1, y - r * 0.45),
            (x + r * 0.9, y),
            (x + r * 0.7, y - r),
            (x - r * 0.7, y - r),
        ],
        hair,
    )
