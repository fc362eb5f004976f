"""Which coats and poses each animal has, and how its colours stand out from what is behind it.

Colours and sizes were chosen by eye on contact sheets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from starrynight.firefly.drawing import bears, beasts, birds, grazers, shapes, swimmers
from starrynight.firefly.drawing.canvas import Canvas
from starrynight.firefly.drawing.figures import CREAM, DARK, Coat
from starrynight.firefly.drawing.palettes import WHITE, Rgb, mix, shade
from starrynight.firefly.drawing.scene import Scene
from starrynight.firefly.drawing.shapes import Item

Rng = np.random.Generator
Pose = Callable[[Rng, Coat], list[Item]]


class Kind(NamedTuple):
    """An animal: its height in a landscape as a share of the side, its poses, its coats, and how far a coat may be
    lightened or darkened (0..1).
    """

    size: float
    poses: tuple[Pose, ...]
    coats: tuple[Coat, ...]
    change: float = 0.45


RED: Rgb = (206, 48, 40)
WHITE_COAT = Coat((250, 246, 238), (212, 206, 204), (255, 252, 246), (60, 50, 54), RED)
GREY_COAT = Coat((156, 160, 168), (112, 114, 124), CREAM, (58, 56, 62), RED)
BLACK_COAT = Coat((52, 48, 56), (32, 30, 38), CREAM, (24, 22, 28), RED)
KINDS = {
    "fox": Kind(
        0.28,
        2 * (beasts.fox_sitting, beasts.fox_walking) + (beasts.fox_sleeping,),
        (
            Coat((228, 112, 38), (178, 76, 28), CREAM, (52, 36, 36), RED),
            Coat((214, 88, 34), (160, 60, 28), (255, 246, 232), (46, 32, 34), RED),
        ),
        0.2,
    ),
    "cat": Kind(
        0.26,
        2 * (beasts.cat_sitting, beasts.cat_walking) + (beasts.cat_sleeping,),
        (Coat((230, 152, 70), (172, 98, 42), CREAM, (60, 40, 30), RED), GREY_COAT, WHITE_COAT, BLACK_COAT),
    ),
    "dog": Kind(
        0.27,
        (beasts.dog_sitting, beasts.dog_walking, beasts.dog_running),
        (
            Coat((198, 142, 84), (118, 70, 40), CREAM, (50, 36, 30), RED),
            Coat((246, 240, 230), (134, 82, 48), (255, 252, 246), (50, 36, 30), RED),
            Coat((240, 234, 226), (60, 54, 58), (255, 252, 246), (40, 36, 38), (44, 104, 170)),
            Coat((226, 178, 104), (188, 134, 66), (252, 236, 206), (60, 44, 34), RED),
        ),
    ),
    "deer": Kind(
        0.38,
        (grazers.deer_standing, grazers.deer_leaping, grazers.deer_lying),
        (
            Coat((178, 114, 62), (130, 78, 44), (252, 238, 212), (56, 38, 30), RED),
            Coat((206, 140, 82), (152, 94, 54), (255, 244, 222), (60, 40, 32), RED),
        ),
        0.38,
    ),
    "horse": Kind(
        0.36,
        (grazers.horse_standing, grazers.horse_galloping, grazers.horse_grazing),
        (
            Coat((150, 82, 48), (108, 56, 36), CREAM, (44, 30, 28), RED),
            Coat((248, 244, 236), (208, 200, 198), CREAM, (176, 164, 160), RED),
            Coat((196, 138, 82), (150, 98, 56), CREAM, (250, 236, 208), RED),
            Coat((66, 58, 64), (44, 38, 44), CREAM, (28, 24, 30), RED),
        ),
        0.6,
    ),
    "panda": Kind(
        0.31,
        (bears.panda_sitting, bears.panda_walking),
        (Coat((252, 249, 242), (218, 212, 206), (252, 249, 242), (34, 32, 38), (98, 158, 74)),),
        0.1,
    ),
    "rabbit": Kind(
        0.25,
        (bears.rabbit_sitting, bears.rabbit_crouching, bears.rabbit_hopping),
        (
            Coat((248, 243, 236), (214, 200, 190), (255, 252, 248), (90, 70, 66), (242, 168, 168)),
            Coat((186, 160, 134), (146, 120, 98), (252, 240, 224), (70, 54, 46), (232, 176, 166)),
            Coat((170, 170, 178), (130, 130, 140), (246, 244, 242), (60, 58, 64), (236, 176, 176)),
        ),
    ),
    "camel": Kind(
        0.38,
        (grazers.camel_walking, grazers.camel_walking, grazers.camel_resting),
        (
            Coat((212, 160, 96), (166, 114, 62), (244, 220, 176), (98, 60, 36), RED),
            Coat((184, 126, 76), (136, 88, 52), (240, 214, 170), (84, 50, 32), (40, 110, 150)),
            Coat((230, 190, 130), (184, 138, 84), (248, 228, 190), (128, 82, 48), (180, 44, 60)),
        ),
        0.34,
    ),
    "owl": Kind(
        0.28,
        (birds.owl_perched, birds.owl_flying),
        (
            Coat((168, 120, 78), (110, 74, 50), (246, 230, 198), (64, 44, 36), RED),
            Coat((150, 146, 148), (98, 94, 102), (244, 240, 234), (56, 52, 58), RED),
            Coat((248, 244, 238), (196, 190, 190), (255, 252, 248), (70, 62, 62), RED),
        ),
    ),
    "crane": Kind(0.3, (birds.crane_wading, birds.crane_flying), (WHITE_COAT._replace(dark=(34, 32, 40)),)),
    "whale": Kind(
        0.38,
        (swimmers.whale_surfacing, swimmers.whale_surfacing, swimmers.whale_tail, swimmers.whale_breaching),
        (Coat((66, 100, 148), (44, 72, 114), (236, 244, 248), (34, 40, 60), RED),),
        0.7,
    ),
}  # fmt: skip


def lightness(colour: Rgb) -> float:
    """Perceived lightness of a colour, 0..255."""
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]


def behind(canvas: Canvas, x: float, y: float, w: float, h: float) -> Rgb:
    """The mean colour of the canvas around a point, within a rectangle of w by h."""
    n = canvas.size
    x0, x1 = (int(np.clip(k, 0.0, 0.98) * n) for k in (x - w / 2, x + w / 2))
    y0, y1 = (int(np.clip(k, 0.0, 0.98) * n) for k in (y - h / 2, y + h / 2))
    red, green, blue = canvas.colour[y0 : y1 + 2, x0 : x1 + 2].reshape(-1, 3).mean(0)
    return round(float(red)), round(float(green)), round(float(blue))


def lit(canvas: Canvas, scene: Scene, colour: Rgb) -> Rgb:
    """A natural colour in the scene's style and light."""
    p = canvas.palette
    if scene.style == "ink":
        grey = round(lightness(colour))
        colour = mix(colour, (grey, grey, grey), 0.4)
    return mix(colour, p.top, 0.13) if scene.hour == "night" else mix(colour, p.low, 0.07)


def apart(colour: Rgb, ground: Rgb, least: float = 62.0, most: float = 0.6) -> Rgb:
    """The colour made lighter or darker until its lightness differs by `least` from the ground's."""
    gap = lightness(colour) - lightness(ground)
    missing = least - abs(gap)
    if missing <= 0:
        return colour
    up = lightness(ground) + least <= 240 if gap >= 0 else lightness(ground) - least < 30
    step = missing + (2 * abs(gap) if up != (gap >= 0) else 0.0)
    room = 255 - lightness(colour) if up else lightness(colour) - 30
    return mix(colour, WHITE if up else DARK, min(step / max(room, 1.0), most))


def coat_of(canvas: Canvas, scene: Scene, rng: Rng, kind: Kind, ground: Rgb) -> Coat:
    """One of an animal's coats, in the scene's light, apart from what is behind it."""
    coat = kind.coats[int(rng.integers(len(kind.coats)))]
    main, low, paler, dark, cloth = (lit(canvas, scene, colour) for colour in coat)
    clear = apart(
        main, ground, 88.0 if scene.style == "cyberpunk" or scene.has("whale") else 62.0, kind.change
    )
    change = (lightness(clear) + 1) / (lightness(main) + 1)
    return Coat(clear, shade(low, float(np.clip(change, 0.6, 1.5))), paler, dark, cloth)


def put(items: list[Item], x: float, y: float, s: float, side: int) -> list[Item]:
    """The shapes `s` large with their origin at (x, y), mirrored where side is -1."""
    return [Item(shapes.place(i.outline, x, y, s * side, s), i.colour, i.shines) for i in items]


def box_of(items: list[Item]) -> tuple[float, float, float, float]:
    """The left, top, right and bottom of shapes."""
    every = np.concatenate([np.asarray(i.outline, dtype=float) for i in items])
    (left, top), (right, bottom) = every.min(0), every.max(0)
    return float(left), float(top), float(right), float(bottom)


def row(scene: Scene, rng: Rng, figures: list[list[Item]], target: float) -> list[tuple[float, float, int]]:
    """For each figure in a row its x, size and side: none overlap, all are in the frame, the street or the pier."""
    sizes, widths = [], []
    for k, items in enumerate(figures):
        left, top, right, bottom = box_of(items)
        size = target / max(bottom - top, 0.72 * (right - left), 0.9)
        size *= 1.0 if k == 0 else rng.uniform(0.8, 0.98)
        sizes.append(size)
        widths.append(size * (right - left))
    gap = 0.05
    total = sum(widths) + gap * (len(widths) - 1)
    shrink = min(1.0, {"harbour": 0.4, "street": 0.66}.get(scene.kind, 0.9) / total)
    total *= shrink
    centre = 0.5 + 0.5 * (scene.figure - 0.5) if scene.kind == "street" else scene.figure
    at = float(np.clip(centre, 0.04 + total / 2, 0.96 - total / 2)) - total / 2
    ahead = 1 if scene.figure < 0.5 else -1
    ahead = -ahead if rng.uniform() < 0.2 else ahead
    spots = []
    for k, (size, width) in enumerate(zip(sizes, widths, strict=True)):
        side = ahead if k == 0 or rng.uniform() < 0.7 else -ahead
        left, _, right, _ = box_of(figures[k])
        middle = (left + right) / 2 * size * shrink * side
        spots.append((at + width * shrink / 2 - middle, size * shrink, side))
        at += (width + gap) * shrink
    return spots
