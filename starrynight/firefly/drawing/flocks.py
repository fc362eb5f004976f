"""Place what flies or swims on the canvas: owl, cranes, butterflies, swallows, koi, whale."""

from __future__ import annotations

import numpy as np

from starrynight.firefly.drawing import birds, shapes, swimmers
from starrynight.firefly.drawing.buildings import snowy, wet
from starrynight.firefly.drawing.canvas import Canvas
from starrynight.firefly.drawing.coats import (
    KINDS,
    Kind,
    apart,
    behind,
    coat_of,
    lightness,
    lit,
    put,
    row,
)
from starrynight.firefly.drawing.figures import DARK, turned
from starrynight.firefly.drawing.palettes import WHITE, Rgb, mix, shade
from starrynight.firefly.drawing.scene import Scene
from starrynight.firefly.drawing.shapes import Item

Rng = np.random.Generator


def owl(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """An owl on a branch that reaches in from the nearer edge, or in flight."""
    kind, p = KINDS["owl"], canvas.palette
    size = (0.58 if scene.close else kind.size) * rng.uniform(0.94, 1.1)
    flying = rng.uniform() < 0.3
    y = 0.8 if scene.close else max(scene.horizon - 0.1, size + 0.1)
    x = float(np.clip(scene.figure, 0.5 * size + 0.06, 0.94 - 0.5 * size))
    coat = coat_of(canvas, scene, rng, kind, behind(canvas, x, y - size / 2, size, size))
    if flying:
        size *= 0.72 if scene.close else 0.8
        x = float(np.clip(scene.figure, size + 0.03, 0.97 - size))
        canvas.draw("bird", put(birds.owl_flying(rng, coat), x, y - 0.12, size, 1), 0.4, 0.95)
        return
    edge = -1 if x < 0.5 else 1
    end = x - edge * (0.16 + 0.5 * size)
    start = 0.5 + edge * 0.54
    bark = apart(lit(canvas, scene, (104, 70, 50)), behind(canvas, x, y, 0.3, 0.06), 46)
    line = shapes.curve([[start, y + 0.07], [x + edge * 0.1, y + 0.025], [end, y - 0.02]], 24)
    items = [Item(shapes.ribbon(line, 0.06 + 0.07 * size, 0.02), bark)]
    for k in (4, 8, 19, 21, 23):
        lx, ly = line[k]
        tip = [[lx, ly], [lx - edge * 0.05, ly - 0.05], [lx - edge * 0.1, ly - 0.06]]
        leaf = mix(p.leaf, p.mid, float(rng.uniform(0.1, 0.7)))
        leaf = mix(p.cloud, WHITE, 0.4) if snowy(scene) else leaf
        items.append(Item(shapes.ribbon(shapes.curve(tip, 9), 0.008, 0.004, 0.035), leaf))
    figure = birds.owl_perched(rng, coat)
    canvas.draw("bird", [*put(figure[:1], x, y, size, 1), *items, *put(figure[1:], x, y, size, 1)], 0.4, 0.95)


def crane(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Red-crowned cranes wading or standing, or flying across the sky."""
    kind = KINDS["crane"]
    high = {"mountain": 0.65, "gorge": 0.8, "creature": 0.35}.get(scene.kind, 0.3)
    if rng.uniform() >= high:
        _standing_cranes(canvas, scene, rng, kind)
        return
    size = ({1: 0.5, 2: 0.36, 3: 0.3}[scene.count] if scene.close else 0.22) * rng.uniform(0.92, 1.08)
    items: list[Item] = []
    ahead = 1 if scene.figure < 0.5 else -1
    tall = 0.72 * size * (scene.count - 1)
    top = 0.09 + 0.62 * size + tall / 2
    middle = 0.46 if scene.close else max(0.45 * scene.horizon, 0.2)
    centre = float(np.clip(scene.figure, 0.06 + size * 1.1, 0.94 - size * 1.1))
    for k in range(scene.count):
        spread = (k - (scene.count - 1) / 2) * size
        x = centre + 0.4 * spread * ahead
        y = max(middle, top) + 0.72 * spread + rng.uniform(-0.015, 0.015)
        coat = coat_of(canvas, scene, rng, kind, behind(canvas, x, y, size, size))._replace(
            main=(253, 250, 244)
        )
        items += put(birds.crane_flying(rng, coat), x, y, size * (1 - 0.06 * k), ahead)
    canvas.draw("bird", items, 0.2, 0.95)


def _standing_cranes(canvas: Canvas, scene: Scene, rng: Rng, kind: Kind) -> None:
    """Cranes on the land, or in the water with ripples about their legs."""
    size = ({1: 0.66, 2: 0.56, 3: 0.46}[scene.count] if scene.close else 0.4) * rng.uniform(0.92, 1.1)
    y = float(rng.uniform(0.88, 0.93)) if scene.close else min(scene.horizon + rng.uniform(0.3, 0.44), 0.93)
    y = max(y, 0.86) if scene.has("bridge") else y
    coat = coat_of(canvas, scene, rng, kind, (128, 128, 128))._replace(main=(253, 250, 244))
    poses = (birds.crane_dancing if rng.uniform() < 0.25 else birds.crane_wading for _ in range(scene.count))
    figures = [pose(rng, coat) for pose in poses]
    items: list[Item] = []
    p = canvas.palette
    for (x, s, side), shape in zip(row(scene, rng, figures, size), figures, strict=True):
        foot = y + rng.uniform(-0.015, 0.015)
        if wet(canvas, x, foot):
            for r in (1.0, 0.6):
                ring = shapes.disc(x, foot - 0.01, 0.26 * s * r, 0.05 * s * r)
                items.append(Item(ring, mix(p.cloud if r == 1.0 else p.water, p.water, 0.3)))
        items += put(shape, x, foot, s, side)
    canvas.draw("bird", items, 0.3, 0.95)


def butterflies(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Butterflies over the land; from near, one large one among them."""
    tints = ((242, 150, 44), (74, 140, 224), (250, 214, 70), (236, 96, 130), (252, 248, 240), (150, 96, 200))
    first = int(rng.integers(len(tints)))
    sizes = [0.48 * rng.uniform(0.9, 1.1)] if scene.close else []
    sizes += [rng.uniform(0.11, 0.16) for _ in range(2 if scene.close else 3 + int(scene.amount * 3))]
    count = len(sizes)
    for k, size in enumerate(sizes):
        tint = lit(canvas, scene, tints[(first + (k if rng.uniform() < 0.5 else 0)) % len(tints)])
        x = (k + 0.5 + rng.uniform(-0.25, 0.25)) / count
        y = scene.horizon + rng.uniform(-0.26, 0.18)
        if scene.close:
            x = (
                scene.figure
                if k == 0
                else scene.figure + (0.36 if k == 1 else -0.36) + rng.uniform(-0.06, 0.06)
            )
            y = 0.48 if k == 0 else rng.uniform(0.2, 0.75)
        x = float(np.clip(x, size / 2 + 0.03, 0.97 - size / 2))
        ground = behind(canvas, x, y, size, size)
        edge = mix(DARK, tint, 0.12) if lightness(ground) > 70 else mix(WHITE, tint, 0.35)
        spot = (255, 250, 236) if lightness(tint) < 200 else (240, 150, 60)
        shape = turned(
            birds.butterfly(rng, apart(tint, ground, 40), spot, edge), rng.uniform(-0.6, 0.6), (0, 0)
        )
        canvas.draw("butterfly", put(shape, x, y, size, int(rng.choice((-1, 1)))), 0.4, 0.95)


def swallows(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Three to six swallows in the sky."""
    count = 3 + int(scene.amount * 3)
    ahead = int(rng.choice((-1, 1)))
    items: list[Item] = []
    ground = behind(canvas, 0.5, 0.4 * scene.horizon + 0.05, 0.8, 0.5 * scene.horizon)
    for k in range(count):
        size = rng.uniform(0.08, 0.115)
        x = (k + 0.5 + rng.uniform(-0.3, 0.3)) / count * 0.8 + 0.1
        y = rng.uniform(0.14, max(scene.horizon - 0.14, 0.24))
        back: Rgb = (30, 40, 76) if lightness(ground) > 120 else (226, 232, 246)
        belly: Rgb = (248, 242, 232) if lightness(ground) > 120 else (120, 130, 170)
        shape = turned(birds.swallow(rng, back, belly), rng.uniform(-0.2, 0.7), (0, 0))
        items += put(shape, x, y, size, ahead if rng.uniform() < 0.75 else -ahead)
    canvas.draw("bird", items, 0.3, 0.95)


def _pool(canvas: Canvas, scene: Scene, rng: Rng, x: float, y: float, r: float) -> None:
    """A pool where there is no other water."""
    p = canvas.palette
    area = canvas.mask(shapes.disc(x, y, r * 1.25, r * 0.62, 48))
    tint = canvas.rows(mix(p.low, p.cloud, 0.2), mix(p.low, p.water, 0.6), p.water, y - r * 0.6, y + r * 0.6)
    canvas.wash("water", area, tint, 0.0, 0.35)


KOI: tuple[tuple[Rgb, Rgb, Rgb], ...] = (
    ((252, 248, 240), (226, 66, 34), (252, 214, 190)), ((240, 110, 40), (250, 240, 226), (248, 176, 120)),
    ((250, 196, 70), (228, 110, 40), (252, 226, 160)), ((250, 246, 238), (48, 44, 52), (226, 222, 218)),
    ((226, 62, 36), (252, 248, 240), (246, 150, 120)),
)  # fmt: skip


def fish(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """One to three koi seen from above, with ripples around them."""
    p, count = canvas.palette, scene.count
    size = ({1: 0.5, 2: 0.4, 3: 0.34} if scene.close else {1: 0.29, 2: 0.25, 3: 0.22})[count]
    top = scene.horizon + 0.16
    middle = (top + 0.95) / 2 + 0.03
    if not canvas.water.any():
        _pool(canvas, scene, rng, 0.5, middle, 0.4)
    elif not wet(canvas, scene.figure, middle):
        middle = 0.85
    row = canvas.water[min(int(middle * canvas.size), canvas.size - 1)]
    centre = (
        scene.figure
        if not scene.has("river") or not row.any()
        else float(np.flatnonzero(row).mean()) / canvas.size
    )
    turn, chosen = rng.uniform(0, 2 * np.pi), int(rng.integers(len(KOI)))
    for k in range(count):
        angle = turn + 2 * np.pi * k / count
        away = 0.0 if count == 1 else size * 0.7
        half = size * 0.62
        x = float(np.clip(centre + away * np.cos(angle), half + 0.02, 0.98 - half))
        y = float(np.clip(middle + away * 0.62 * np.sin(angle), top, 0.95 - half * 0.4))
        body, spots, fin = (
            lit(canvas, scene, colour) for colour in KOI[(chosen + k * int(rng.integers(2))) % len(KOI)]
        )
        course = angle + np.pi / 2 + rng.uniform(-0.3, 0.3) if count > 1 else rng.uniform(-0.6, 0.6)
        shape = turned(
            swimmers.koi(rng, apart(body, behind(canvas, x, y, size, size * 0.6), 40), spots, fin),
            course,
            (0, 0),
        )
        flat = [
            Item(
                shapes.place(
                    np.asarray(i.outline) + np.array((0.13, 0.0)), x, y, size * scene.side, size * 0.8
                ),
                i.colour,
            )
            for i in shape
        ]
        deep = shade(behind(canvas, x, y, size, size * 0.5), 0.6)
        under = [Item(np.asarray(i.outline) + np.array((0.012, 0.02)), deep) for i in flat[:7]]
        for r, gap in ((0.62, 0.012), (0.5, 0.009)):
            ring = np.concatenate([shapes.disc(x, y, size * r, size * r * 0.62, 48)] * 2)[:40]
            under.append(Item(shapes.ribbon(ring, 0.003, 0.003, gap * 0.7), mix(p.cloud, p.water, 0.35)))
        canvas.draw("fish", [*under, *flat], 0.2, 0.95)


def whale(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A whale at the sea's surface: its back and spout, its tail, or leaping."""
    kind = KINDS["whale"]
    pose = kind.poses[int(rng.integers(len(kind.poses)))]
    apart_from = scene.has("boat", "lighthouse", "island")
    near = scene.close and not apart_from
    size = (0.66 if near else 0.36 if apart_from else 0.42) * rng.uniform(0.92, 1.08)
    size *= 0.8 if pose is swimmers.whale_tail else 0.9 if pose is swimmers.whale_breaching else 1.0
    y = min(scene.horizon + (0.24 if near else rng.uniform(0.07, 0.16)), 0.93)
    x = 0.5 - scene.side * 0.27 if apart_from else scene.figure
    x = float(np.clip(x, 0.66 * size + 0.04, 0.96 - 0.66 * size))
    if not canvas.water.any():
        _pool(canvas, scene, rng, 0.5, y + 0.08, 0.5)
    coat = coat_of(canvas, scene, rng, kind, behind(canvas, x, y - 0.15 * size, size, 0.4 * size))
    sky = behind(canvas, x, y - 0.5 * size, 0.5 * size, 0.3 * size)
    spout = mix(canvas.palette.water, WHITE, 0.4) if lightness(sky) > 185 else mix(coat.pale, WHITE, 0.5)
    coat = coat._replace(cloth=spout)
    side = 1 if x < 0.5 else -1
    canvas.draw("animal", put(pose(rng, coat), x, y, size, side), 0.3, 0.95)
