"""Place what grows or flies on the canvas: trees, flowers, fields, crows, the apsara."""

from __future__ import annotations

import numpy as np

from starrynight.firefly.drawing import shapes
from starrynight.firefly.drawing.buildings import covered, snowy, wet
from starrynight.firefly.drawing.canvas import Canvas, noise
from starrynight.firefly.drawing.palettes import WHITE, gold, mix, pale, shade
from starrynight.firefly.drawing.scene import Scene
from starrynight.firefly.drawing.shapes import Item

Rng = np.random.Generator


def far_trees(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Round tree crowns along the far bank."""
    p = canvas.palette
    items: list[Item] = []
    for _ in range(16):
        x, r = rng.uniform(-0.02, 1.02), rng.uniform(0.035, 0.075)
        crown = shapes.disc(x, scene.horizon - r * 0.55, r, r * rng.uniform(0.9, 1.5))
        green = mix(mix(p.leaf, p.mid, rng.uniform(0, 0.8)), p.low, rng.uniform(0, 0.25))
        items.append(Item(crown, green))
    canvas.draw("bank", items, 1.3, 0.4)


def meadow(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Tufts of grass and flowers in the foreground, on land that is otherwise empty."""
    if snowy(scene) or scene.kind not in ("mountain", "river", "village") or scene.has("lake"):
        return
    p = canvas.palette
    items: list[Item] = []
    for y in np.sort(rng.uniform(0.84, 1.0, 34)):
        x, h = rng.uniform(0, 1), 0.035 + 0.25 * (y - 0.84)
        if wet(canvas, x, y) or wet(canvas, x - h / 2, y) or wet(canvas, x + h / 2, y):
            continue
        green = mix(mix(p.leaf, p.mid, rng.uniform(0, 0.8)), pale(p), rng.uniform(0, 0.22))
        for lean in (-0.5, 0.0, 0.5):
            blade = shapes.curve([[x, y], [x + lean * h * 0.4, y - h * 0.6], [x + lean * h, y - h]], 7)
            items.append(Item(shapes.ribbon(blade, h * 0.13, h * 0.03), green))
        if rng.uniform() < 0.6:
            tint = (p.flower, mix(pale(p), WHITE, 0.3), p.roof)[int(rng.integers(3))]
            flower = shapes.star(x, y - h * 1.05, h * 0.34, h * 0.24, 5, rng.uniform(0, 6))
            items.append(Item(flower, tint))
    canvas.draw("meadow", items, np.pi / 2, 0.6)


def lilies(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Groups of lily pads in perspective, some with flowers."""
    p = canvas.palette
    items: list[Item] = []
    blooms: list[Item] = []
    for level in np.sort(rng.uniform(0.08, 1, 12 + int(scene.amount * 5))):
        y = scene.horizon + 0.06 + (0.96 - scene.horizon - 0.06) * level
        centre, r = rng.uniform(0, 1), 0.026 + 0.05 * level
        for _ in range(4):
            x, py = centre + rng.uniform(-2.4, 2.4) * r, y + rng.uniform(-0.6, 0.6) * r
            pad = mix(mix(p.leaf, p.near, rng.uniform(0, 0.9)), pale(p), rng.uniform(0.05, 0.4))
            if covered(canvas, x - r, py) or covered(canvas, x + r, py):
                continue
            items.append(Item(shapes.disc(x, py, r, r * 0.38, 22), pad))
            if rng.uniform() < 0.42:
                blooms += _lotus(rng, canvas, x, py - r * 0.1, r * 0.72)
    canvas.draw("lily", items + blooms, 0.0, 0.75)


def _lotus(rng: Rng, canvas: Canvas, x: float, y: float, r: float) -> list[Item]:
    p = canvas.palette
    pink = mix(p.flower, p.cloud, rng.uniform(0, 0.6))
    items = [Item(shapes.disc(x, y + r * 0.12, r * 0.75, r * 0.35, 14), shade(pink, 0.82))]
    for n, k in enumerate((-1.0, -0.55, 0.55, 1.0, 0.0)):
        tip, right = [x + k * r, y - r * (0.75 - 0.4 * abs(k))], x + k * r * 0.5 + 0.18 * r
        petal = [[x, y + r * 0.3], tip, [right, y + r * 0.3]]
        items.append(Item(petal, shade(pink, 0.9 + 0.1 * (n % 2))))
    return [*items, Item(shapes.disc(x, y, r * 0.2, r * 0.16, 10), p.light)]


def sunflowers(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Rows of sunflowers, small in the distance and large in front."""
    p = canvas.palette
    for row in range(4):
        t = row / 3
        y, r = scene.horizon + 0.035 + 0.33 * t**1.15, 0.022 + 0.062 * t
        items: list[Item] = []
        count = int(1.0 / (r * 1.9))
        for k in range(count):
            x = (k + 0.5 + rng.uniform(-0.3, 0.3)) / count
            head, size = y + rng.uniform(-0.35, 0.35) * r, r * rng.uniform(0.88, 1.15)
            items += shapes.sunflower(rng, p, x, head, size, y + r * 3.4)
        canvas.draw("flower", items, 0.9, 0.9)
        if row < 3:
            tint = mix(mix(p.leaf, p.mid, 0.35), p.near, 0.3 * t)
            canvas.ground("leaves", shapes.hill(rng, y + r * 2.0, 0.006), tint, 1.2)


def wheat(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A golden field: five bands of leaning ears."""
    p = canvas.palette
    ripe = gold(p)
    lean = scene.side * 0.35
    for row in range(5):
        t = row / 4
        y = scene.horizon + 0.012 + 0.35 * t
        base = mix(ripe, (shade(ripe, 0.72), mix(ripe, pale(p), 0.4))[row % 2], 0.45)
        canvas.ground("wheat", shapes.hill(rng, y, 0.008 + 0.008 * t), base, np.pi / 2 + lean, 0.4)
        items: list[Item] = []
        h = 0.05 + 0.1 * t
        for _k in range(46 - row * 5):
            x = rng.uniform(-0.02, 1.02)
            foot = y + rng.uniform(0.2, 0.9) * h
            tip = [x + lean * h, foot - h]
            stem = shapes.curve([[x, foot], [x + lean * h * 0.35, foot - h * 0.6], tip], 7)
            tint = mix(shade(ripe, rng.uniform(0.7, 1.12)), pale(p), rng.uniform(0, 0.35))
            items.append(Item(shapes.ribbon(stem, h * 0.045, h * 0.05, h * 0.05), tint))
        canvas.draw("wheat", items, np.pi / 2 - lean * 0.5, 0.5)


def trees(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Pines on both sides, or willows by the pond."""
    p = canvas.palette
    if scene.kind == "pond":
        _willow(canvas, scene, rng)
        return
    white = mix(p.cloud, WHITE, 0.4)
    items: list[Item] = []
    for k in range(5 + int(scene.amount * 3)):
        side = scene.side if k % 3 else -scene.side
        x, h = 0.5 + side * rng.uniform(0.3, 0.52), rng.uniform(0.14, 0.26)
        y = scene.horizon + rng.uniform(0.03, 0.2) * (0.3 if scene.has("lake", "sea") else 1)
        colour = mix(p.leaf, p.mid, rng.uniform(0, 0.4))
        items.append(Item(shapes.box(x - h * 0.025, y - h * 0.2, x + h * 0.025, y), shade(p.roof, 0.5)))
        for tier in range(4):
            top, w = y - h * (0.34 + 0.2 * tier), h * (0.3 - 0.06 * tier)
            fan = shapes.place([[-1, 0.2], [0, -0.1], [1, 0.2], [0, 0.15]], x, top, w, h)
            items.append(Item(fan, shade(colour, 0.85 + 0.1 * tier)))
            if snowy(scene):
                cap = [[-0.62, 0.09], [0, -0.1], [0.62, 0.09], [0, 0.04]]
                items.append(Item(shapes.place(cap, x, top, w, h), white))
    canvas.draw("tree", items, 1.2, 0.7)


def _willow(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    p = canvas.palette
    items: list[Item] = []
    for _k in range(26):
        x = 0.5 + scene.side * (0.5 - 0.28 * rng.uniform() ** 1.5)
        length = rng.uniform(0.2, 0.5)
        tip = [x - scene.side * rng.uniform(-0.02, 0.04), length]
        line = shapes.curve([[x, -0.03], [x - scene.side * 0.02, length * 0.5], tip], 14)
        green = mix(mix(p.leaf, p.mid, rng.uniform(0, 0.7)), p.light, rng.uniform(0, 0.2))
        items.append(Item(shapes.ribbon(line, 0.006, 0.004, 0.014), green))
    canvas.draw("willow", items, np.pi / 2, 0.6)


def blossoms(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A flowering branch reaching in from the upper corner."""
    p = canvas.palette
    bark = shade(mix(p.roof, (40, 26, 26), 0.7), 0.8)
    side = scene.side
    edge = 0.5 + side * 0.53
    bends = [[edge, 0.02], [edge - side * 0.16, 0.1], [edge - side * 0.3, 0.09], [edge - side * 0.46, 0.19]]
    main = shapes.curve(bends, 30)
    twig = shapes.curve([main[10], main[10] + (-side * 0.06, 0.1), main[10] + (-side * 0.16, 0.17)], 16)
    items = [Item(shapes.ribbon(main, 0.032, 0.006), bark), Item(shapes.ribbon(twig, 0.014, 0.004), bark)]
    for line in (main, twig):
        for k in range(3, len(line), 2):
            x, y = line[k] + rng.uniform(-0.028, 0.028, 2)
            r, tint = rng.uniform(0.014, 0.024), mix(p.flower, p.cloud, rng.uniform(0.1, 0.6))
            items.append(Item(shapes.star(x, y, r * 1.15, r * 0.8, 5, rng.uniform(0, 6)), tint))
            items.append(Item(shapes.disc(x, y, r * 0.28, n=10), mix(p.light, p.roof, 0.3)))
    canvas.draw("blossom", items, 0.6, 0.9)


def cypress(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A large cypress in front of a smaller one, each with two lighter shapes inside."""
    p = canvas.palette
    dark = mix(p.leaf, (10, 22, 24), 0.35)
    height = rng.uniform(0.68, 0.84)
    x = 0.5 + scene.side * rng.uniform(0.26, 0.36)
    items: list[Item] = []
    for dx, share in ((scene.side * 0.1, 0.62), (0.0, 1.0)):
        for inner, colour in ((1.0, dark), (0.55, mix(dark, p.mid, 0.4)), (0.25, mix(dark, p.mid, 0.7))):
            foot, tall = 1.03 - 0.05 * (1 - inner), height * share * (0.6 + 0.4 * inner)
            items.append(Item(shapes.flame_tree(rng, x + dx, foot, tall, 0.165 * share * inner), colour))
    canvas.draw("cypress", items, np.pi / 2 + 0.5 * noise(rng, canvas.size, 5, 1), 0.55)


def apsara(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """One flying apsara near the middle."""
    x, y = 0.5 + scene.side * rng.uniform(0.06, 0.12), scene.horizon * rng.uniform(0.62, 0.7)
    items = shapes.apsara(canvas.palette, x, y, rng.uniform(0.34, 0.4), scene.side, rng)
    canvas.draw("apsara", items, 0.3, 0.95)


def crows(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Dark birds over the field."""
    p = canvas.palette
    ink = shade(mix(p.near, (16, 14, 24), 0.85), 0.9)
    if sum(p.middle) < 180:  # black wings would be invisible in a sky this dark
        ink = p.window
    items: list[Item] = []
    for _ in range(7 + int(scene.amount * 6)):
        y = rng.uniform(0.12, scene.horizon + 0.03)
        x = 0.5 - scene.side * rng.uniform(-0.2, 0.42)
        items.append(shapes.bird(x, y, rng.uniform(0.022, 0.05), ink, rng.uniform(-0.2, 0.25)))
    canvas.draw("crow", items, 0.3, 0.95)
