"""Place what people built on the canvas: cottages, church, towers, pagoda, bridge, boat."""

from __future__ import annotations

import numpy as np

from starrynight.firefly.drawing import shapes
from starrynight.firefly.drawing.canvas import Canvas
from starrynight.firefly.drawing.palettes import WHITE, mix, shade
from starrynight.firefly.drawing.scene import Scene
from starrynight.firefly.drawing.shapes import Item

Rng = np.random.Generator


def snowy(scene: Scene) -> bool:
    """Whether roofs, trees and land are white."""
    return scene.has("snow")


def is_lit(scene: Scene) -> bool:
    """Whether windows shine."""
    return scene.hour in ("night", "dusk") or scene.style == "cyberpunk"


def wet(canvas: Canvas, x: float, y: float) -> bool:
    """Whether a point, clamped to the picture, is water."""
    last = canvas.size - 1
    return bool(canvas.water[min(int(y * canvas.size), last), min(max(int(x * canvas.size), 0), last)])


def covered(canvas: Canvas, x: float, y: float) -> bool:
    """Whether a finely drawn shape, such as a fish, is at a point, clamped to the picture."""
    last = canvas.size - 1
    return bool(
        canvas.detail[min(int(y * canvas.size), last), min(max(int(x * canvas.size), 0), last)] > 0.92
    )


def bushes(canvas: Canvas, scene: Scene, rng: Rng, y: float, size: float) -> None:
    """A row of bushes at height `y`, which hides the feet of buildings."""
    p = canvas.palette
    items: list[Item] = []
    for _ in range(11):
        r = size * rng.uniform(0.6, 1.1)
        colour = mix(p.leaf, p.near, rng.uniform(0.1, 0.9))
        colour = mix(colour, mix(p.cloud, WHITE, 0.4), 0.6) if snowy(scene) else colour
        bush = shapes.disc(rng.uniform(0, 1), y + rng.uniform(0, 0.02), r * 1.3, r, 18)
        items.append(Item(bush, colour))
    canvas.draw("bush", items, 0.6, 0.5)


def village(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Rows of cottages, the small ones behind, with the church in the last row."""
    p = canvas.palette
    far = scene.kind in ("sunflowers", "wheat", "river")
    base = scene.horizon + (0.035 if far else 0.06)
    rows = ((base, 0.1, 5),) if far else ((base, 0.115, 5), (base + 0.11, 0.165, 3), (base + 0.29, 0.24, 2))
    if scene.has("lake"):
        base, rows = scene.horizon, ((scene.horizon + 0.005, 0.11, 5),)
    church_x = 0.5 - scene.side * rng.uniform(0.02, 0.2)
    style = snowy(scene), is_lit(scene)
    for row, (y, w, count) in enumerate(rows):
        items: list[Item] = []
        if row == 0 and scene.has("church"):
            items += shapes.church(p, church_x, y + 0.01, 0.12 if far else 0.18, *style)
        many = count + int(scene.amount * 2)
        for k in range(many):
            x = (k + 0.5 + rng.uniform(-0.25, 0.25)) / many
            foot = y + rng.uniform(-0.012, 0.025)
            cottage = shapes.house(rng, p, x, foot, w * rng.uniform(0.85, 1.2), *style)
            if scene.has("lake") or not wet(canvas, x, y):
                items += cottage
        canvas.draw("house", items, np.pi / 2, 0.95)
        if not far:
            bushes(canvas, scene, rng, y + 0.03, 0.03)


def skyline(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """Three rows of towers with windows; the nearest have neon signs when lit."""
    p = canvas.palette
    lit = is_lit(scene)
    for rank in range(3):
        t, x = rank / 2, -0.03
        dark = shade(mix(p.far, p.top, 0.6), 0.62 if lit else 0.9)
        body = mix(mix(p.far, p.low, 0.45 * (1 - t)), dark, 0.9 * t)
        items: list[Item] = []
        while x < 1.02:
            w = rng.uniform(0.09, 0.16) * (0.8 + 0.35 * t)
            middle = abs(x + w / 2 - 0.5)
            taper = 1.15 - 0.5 * middle if rank == 0 else 0.6 + 0.9 * middle
            high = (0.45 - 0.1 * t) * rng.uniform(0.55, 1.0) * taper
            roof = scene.horizon - high * scene.horizon / 0.7
            front = p.wall if lit else (p.wall, p.roof, p.cloud)[int(rng.integers(3))]
            share = rng.uniform(0, 0.3) if lit else rng.uniform(0.2, 0.75) * (0.55 + 0.45 * t)
            tint = mix(body, front, share)
            items.append(Item(shapes.box(x, roof, x + w, scene.horizon + 0.03), tint))
            if rng.uniform() < 0.3:
                items.append(Item(shapes.box(x + w * 0.45, roof - 0.05, x + w * 0.52, roof), tint))
            if rank > 0:
                items += _windows(rng, canvas, x, roof, w, scene.horizon, lit)
            if rank == 2 and rng.uniform() < 0.6 and lit:
                sx, sy = x + w * rng.uniform(0.1, 0.6), roof + rng.uniform(0.03, 0.07)
                high = rng.uniform(0.08, 0.13)
                colour = (p.flower, p.window, p.light)[int(rng.integers(3))]
                inside = shapes.box(sx + 0.008, sy + 0.008, sx + 0.024, sy + high - 0.008)
                items.append(Item(shapes.box(sx, sy, sx + 0.032, sy + high), colour, True))
                items.append(Item(inside, mix(colour, p.near, 0.7)))
            x += w * rng.uniform(0.95, 1.12)
        canvas.draw("tower", items, np.pi / 2, 0.6 + 0.35 * t)


def _windows(
    rng: Rng, canvas: Canvas, x: float, roof: float, w: float, ground: float, lit: bool
) -> list[Item]:
    p = canvas.palette
    columns = max(2, int(w / 0.042))
    step = w / columns
    tints = (p.window, p.flower, mix(p.window, p.light, 0.6)) if lit else (shade(p.far, 0.8),) * 3
    tint = tints[int(rng.integers(3))]
    items: list[Item] = []
    for row in range(int((ground - roof - 0.02) / 0.046)):
        for column in range(columns):
            if rng.uniform() < 0.5:
                px, py = x + step * (column + 0.25), roof + 0.018 + 0.046 * row
                pane = mix(tint, p.near if lit else p.far, rng.uniform(0, 0.35))
                items.append(Item(shapes.box(px, py, px + step * 0.5, py + 0.025), pane, lit))
    return items


def street(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A dark embankment below a skyline without reflection."""
    if scene.kind == "city" and not scene.has("reflection"):
        p = canvas.palette
        line = shapes.hill(rng, scene.horizon + 0.01, 0.004)
        tint = canvas.rows(mix(p.far, p.low, 0.3), shade(p.far, 0.7), shade(p.far, 0.5), scene.horizon, 1)
        canvas.ground("land", line, tint, detail=0.3)


def pagoda(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A pagoda on the scene's side, with bushes unless it stands below an apsara."""
    w = 0.25 if scene.kind == "mountain" else 0.2
    x = 0.5 + scene.side * rng.uniform(0.2, 0.32)
    y = scene.horizon + (0.0 if scene.has("lake", "sea") else 0.06)
    if scene.kind == "apsara":
        y = 1.0
    tiers = 3 + int(scene.amount * 2)
    items = shapes.pagoda(canvas.palette, x, y, w, tiers, snowy(scene), is_lit(scene))
    canvas.draw("pagoda", items, np.pi / 2, 0.95)
    if scene.kind not in ("apsara", "gorge"):
        bushes(canvas, scene, rng, y, 0.028)


def bridge(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """An arched bridge across the picture, green in Monet's, pastel and Dunhuang style."""
    p = canvas.palette
    colour = mix(p.leaf, p.water, 0.4) if scene.style in ("monet", "pastel", "dunhuang") else p.roof
    x, y = 0.5 + scene.side * 0.04, scene.horizon + 0.2
    canvas.draw("bridge", shapes.bridge(p, colour, x, y, 0.98, rng.uniform(0.14, 0.19)), 0.0, 0.9)


def boat(canvas: Canvas, scene: Scene, rng: Rng) -> None:
    """A boat on the water; on a river it is in mid-stream, on the sea it mostly has a sail."""
    deep = {"pond": 0.35, "river": 0.62}.get(scene.kind, 0.3)
    y = scene.horizon + (1 - scene.horizon) * deep
    x, w = 0.5 + scene.side * rng.uniform(0.02, 0.22), rng.uniform(0.22, 0.29)
    if scene.has("river"):
        row = canvas.water[int(y * canvas.size)]
        x, w = (float(np.flatnonzero(row).mean()) / canvas.size if row.any() else x), 0.19
    sail = scene.kind == "sea" and rng.uniform() < 0.75
    w *= 1.25 if sail else 1.0
    canvas.draw("boat", shapes.boat(rng, canvas.palette, x, y, w, scene.side, sail), 0.3, 0.95)
