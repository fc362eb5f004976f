"""The ten styles' brushes, and the strokes and dots they use.

A brush is `paint(canvas, rng) -> float32 [S, S, 3]` in 0..255. It sees the canvas's layers, not the scene.
The amounts in each brush (widths, mixes, thresholds) were chosen by eye on contact sheets; none has a source.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from starrynight.firefly.drawing.canvas import SUBPIXEL, Canvas, blur, noise
from starrynight.firefly.drawing.palettes import Rgb, mix, shade
from starrynight.firefly.drawing.sky import SkyStyle

Rng = np.random.Generator
Brush = Callable[[Canvas, Rng], np.ndarray]


def lay_strokes(
    image: np.ndarray,
    canvas: Canvas,
    target: np.ndarray,
    rng: Rng,
    *,
    gap: float,
    length: float,
    width: float,
    jitter: float,
    detail: float = 0.0,
    bend: float = 0.0,
) -> None:
    """Paint `target` onto `image` in place, with strokes that follow the canvas's angle and stop at each
    layer's edge.

    `gap`, `length` and `width` are shares of the side; `jitter` varies the colours, `bend` the directions. A
    fourth channel of `image`, if any, takes the paint's height. Only pixels whose detail is at least `detail`
    are painted.
    """
    size = canvas.size
    n = int(1 / gap)
    grid = (np.stack(np.meshgrid(np.arange(n), np.arange(n)), -1).reshape(-1, 2) + 0.5) / n
    start = np.clip(grid + rng.uniform(-0.5, 0.5, grid.shape) * gap, 0, 0.999)
    rng.shuffle(start)
    order = rng.uniform(-1, 1, (len(start), 4))
    tone = 1 + jitter * rng.uniform(-1, 1, (len(start), 1))
    pixel = (start * size).astype(int)
    keep = canvas.detail[pixel[:, 1], pixel[:, 0]] >= detail
    start, pixel, order, tone = start[keep], pixel[keep], order[keep], tone[keep]
    colour = target[pixel[:, 1], pixel[:, 0]].astype(np.float32) * tone + order[:, :3] * jitter * 90
    height = 150 + 80 * order[:, 3:]
    paint = np.clip(np.concatenate([colour, height], 1), 0, 255)[:, : image.shape[2]].tolist()
    lines = _paths(canvas, start, length, bend * order[:, 0])
    points = np.round((lines * size - 0.5) * (1 << SUBPIXEL)).astype(np.int32)
    thick = max(1, round(width * size))
    for line, tint in zip(points, paint, strict=True):
        cv2.polylines(image, [line], False, tint, thick, cv2.LINE_AA, SUBPIXEL)


def _paths(canvas: Canvas, start: np.ndarray, length: float, bend: np.ndarray, steps: int = 4) -> np.ndarray:
    """Lines along the canvas's angle, both ways from each start, within its layer: [N, steps + 1, 2]."""
    size = canvas.size
    home = canvas.region[(start[:, 1] * size).astype(int), (start[:, 0] * size).astype(int)]
    halves = []
    for way in (-1.0, 1.0):
        at, walked = start, []
        for _ in range(steps // 2):
            x, y = (at[:, 0] * size).astype(int), (at[:, 1] * size).astype(int)
            turn = canvas.angle[y, x] + bend
            move = np.stack([np.cos(turn), np.sin(turn)], 1) * (way * length / steps)
            to = np.clip(at + move, 0, 0.999)
            same = canvas.region[(to[:, 1] * size).astype(int), (to[:, 0] * size).astype(int)] == home
            at = np.where(same[:, None], to, at)
            walked.append(at)
        halves.append(walked)
    return np.stack([*halves[0][::-1], start, *halves[1]], 1)


def lay_dots(
    image: np.ndarray, canvas: Canvas, target: np.ndarray, rng: Rng, gap: float, radius: float
) -> None:
    """Cover `image` in place with dots on a loose honeycomb; 7.5 % are near the complementary colour."""
    size = canvas.size
    n = int(1 / gap) + 1
    grid = np.stack(np.meshgrid(np.arange(n + 1), np.arange(n + 1)), -1).astype(float)
    grid[1::2, :, 0] += 0.5
    spots = np.clip((grid.reshape(-1, 2) + rng.uniform(-0.28, 0.28, ((n + 1) ** 2, 2))) * gap, 0, 0.999)
    rng.shuffle(spots)
    draws = rng.uniform(0, 1, (len(spots), 4))
    x, y = (spots * size).astype(int).T
    colour = target[y, x].astype(np.float32)
    grey = colour.mean(1, keepdims=True)
    vivid = grey + (colour - grey) * 1.25 + (draws[:, :3] - 0.5) * 46
    other = 255 - colour + (grey - (255 - colour).mean(1, keepdims=True))
    odd = (draws[:, 3:] < 0.075) * (canvas.detail[y, x] < 0.7)[:, None]
    tints = np.clip(vivid * (1 - 0.62 * odd) + other * 0.62 * odd, 0, 255).tolist()
    centres = np.round((spots * size - 0.5) * (1 << SUBPIXEL)).astype(int).tolist()
    r = int(radius * size * (1 << SUBPIXEL))
    for centre, tint in zip(centres, tints, strict=True):
        cv2.circle(image, centre, r, tint, -1, cv2.LINE_AA, SUBPIXEL)


def _glow(canvas: Canvas, radius: float, gain: float) -> np.ndarray:
    return blur(canvas.lights, radius * canvas.size).astype(np.float32) * gain


def _screen(image: np.ndarray, light: np.ndarray) -> np.ndarray:
    """The screen blend: add light without exceeding 255."""
    return 255 - (255 - np.clip(image, 0, 255)) * (1 - np.clip(light, 0, 255) / 255)


def _relief(height: np.ndarray, strength: float) -> np.ndarray:
    """Shading of paint of the given height, lit from the upper left, float32 [S, S, 1]."""
    high = cv2.GaussianBlur(height.astype(np.float32), (0, 0), 0.7)
    slope = cv2.Sobel(high, cv2.CV_32F, 1, 0, ksize=3) + cv2.Sobel(high, cv2.CV_32F, 0, 1, ksize=3)
    return (slope * -strength)[..., None]


def _blend(image: np.ndarray, colour: np.ndarray | Rgb, share: np.ndarray) -> np.ndarray:
    """The image with a `share` in 0..1 of another picture or of one colour."""
    return image * (1 - share) + np.asarray(colour, np.float32) * share


def _sharpen(canvas: Canvas, image: np.ndarray, least: float, gain: float, most: float) -> np.ndarray:
    """The image with the layout showing through where the detail is above `least`, up to a share `most`."""
    share = np.clip((canvas.detail - least) * gain, 0, most)[..., None]
    return _blend(image, canvas.colour, share)


def _edges(canvas: Canvas, width: float) -> np.ndarray:
    """Outlines between layers and inside detailed shapes, float32 [S, S] in 0..1."""
    grey = cv2.cvtColor(canvas.colour, cv2.COLOR_RGB2GRAY)
    k = max(2, round(width * canvas.size))
    step = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((k, k), np.uint8)).astype(np.float32)
    parts = canvas.region.astype(np.float32)
    cut = cv2.morphologyEx(parts, cv2.MORPH_GRADIENT, np.ones((k, k), np.uint8)) > 0
    solid = canvas.detail > 0.3
    near = cv2.dilate(solid.astype(np.uint8), np.ones((k, k), np.uint8)) > 0
    line = np.where(near, np.clip((step - 26) / 40, 0, 1) * 0.8 + 0.5 * cut, 0)
    return cv2.GaussianBlur(np.clip(line, 0, 1).astype(np.float32), (0, 0), 0.6)


def paint_oil(canvas: Canvas, rng: Rng) -> np.ndarray:
    """Van Gogh: long thick strokes along the canvas's angle, neighbouring hues, lit ridges of paint."""
    soft = blur(canvas.colour, canvas.size * 0.006)
    image = np.dstack([soft, np.full(soft.shape[:2], 120, np.uint8)])
    lay_strokes(image, canvas, soft, rng, gap=0.026, length=0.13, width=0.03, jitter=0.1)
    fine = canvas.colour
    lay_strokes(image, canvas, fine, rng, gap=0.0185, length=0.1, width=0.016, jitter=0.17)
    lay_strokes(image, canvas, fine, rng, gap=0.013, length=0.04, width=0.0085, jitter=0.13, detail=0.5)
    out = _sharpen(canvas, image[..., :3].astype(np.float32), 0.8, 4, 0.62) + _relief(image[..., 3], 0.085)
    return _screen(out, _glow(canvas, 0.03, 0.5))


def paint_monet(canvas: Canvas, rng: Rng) -> np.ndarray:
    """Monet: short dabs varied with violet and green; soft edges."""
    soft = blur(canvas.colour, canvas.size * 0.009).astype(np.float32)
    shimmer = noise(rng, canvas.size, 7, 2)[..., None]
    violet, green = np.array((26, -8, 22), np.float32), np.array((-16, 20, -4), np.float32)
    tints = violet * np.clip(shimmer, 0, 1) + green * np.clip(-shimmer, 0, 1)
    target = np.clip(soft + tints, 0, 255).astype(np.uint8)
    image = np.dstack([target, np.full(target.shape[:2], 120, np.uint8)])
    lay_strokes(image, canvas, target, rng, gap=0.026, length=0.06, width=0.026, jitter=0.1, bend=0.5)
    fine = np.clip(canvas.colour.astype(np.float32) + tints, 0, 255).astype(np.uint8)
    lay_strokes(image, canvas, fine, rng, gap=0.017, length=0.036, width=0.0125, jitter=0.11, bend=0.3)
    lay_strokes(image, canvas, fine, rng, gap=0.0125, length=0.022, width=0.0085, jitter=0.09, detail=0.6)
    out = _sharpen(canvas, image[..., :3].astype(np.float32), 0.5, 2, 0.68) + _relief(image[..., 3], 0.03)
    return _screen(out, _glow(canvas, 0.04, 0.45))


def paint_pointillism(canvas: Canvas, rng: Rng) -> np.ndarray:
    """Seurat: even dots of pure colour, some of the complementary colour, on a pale ground."""
    size = canvas.size
    soft = blur(canvas.colour, size * 0.006)
    lit = _screen(soft.astype(np.float32), _glow(canvas, 0.04, 0.6)).astype(np.uint8)
    image = (lit * 0.72 + np.array((238, 230, 214)) * 0.28).astype(np.uint8)
    lay_dots(image, canvas, lit, rng, 0.0235, 0.0135)
    sharp = _screen(canvas.colour.astype(np.float32), _glow(canvas, 0.04, 0.4)).astype(np.uint8)
    lay_dots(image, canvas, sharp, rng, 0.0205, 0.0092)
    return _sharpen(canvas, image, 0.8, 4, 0.45)


def paint_pastel(canvas: Canvas, rng: Rng) -> np.ndarray:
    """Chalk on toned paper: broad soft strokes, smudged, with the paper's grain showing through."""
    size = canvas.size
    paper = np.array(mix(canvas.palette.low, (196, 176, 156), 0.55), np.float32)
    soft = blur(canvas.colour, size * 0.01)
    image = np.ascontiguousarray(soft)
    lay_strokes(image, canvas, soft, rng, gap=0.024, length=0.085, width=0.026, jitter=0.1, bend=0.25)
    smudged = blur(image, size * 0.008)
    fine = canvas.colour
    lay_strokes(smudged, canvas, fine, rng, gap=0.02, length=0.055, width=0.011, jitter=0.09, bend=0.2)
    lay_strokes(smudged, canvas, fine, rng, gap=0.013, length=0.03, width=0.008, jitter=0.07, detail=0.5)
    tooth = np.clip(noise(rng, size, 44, 1) * 0.7 - 0.15, 0, 0.25)[..., None]
    out = _blend(_sharpen(canvas, smudged, 0.55, 2.4, 0.72), paper, tooth)
    out = _screen(out, _glow(canvas, 0.045, 0.55))
    return _blend(paper, out, _margin(canvas, rng, 0.022, 0.012))


def _margin(canvas: Canvas, rng: Rng, width: float, wobble: float) -> np.ndarray:
    """1 inside the picture, 0 on the bare paper around it, with an irregular border: float32 [S, S, 1]."""
    size = canvas.size
    at = (np.arange(size, dtype=np.float32) + 0.5) / size
    edge = np.minimum(at, 1 - at)
    inside = np.minimum(edge[:, None], edge[None]) - width + wobble * noise(rng, size, 9, 2)
    return np.clip(inside * 90, 0, 1)[..., None]


def paint_watercolor(canvas: Canvas, rng: Rng) -> np.ndarray:
    """Transparent washes on white paper: pigment is denser at each wash's rim and varies within it."""
    size = canvas.size
    paper = np.array((252, 249, 241), np.float32)
    flow = noise(rng, size, 6, 2)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    pull = size * 0.008
    warp_x, warp_y = x + pull * noise(rng, size, 16, 1), y + pull * noise(rng, size, 16, 1)
    out = np.tile(paper, (size, size, 1))
    pool = (0.88 + 0.3 * flow)[..., None]
    for layer in canvas.layers:
        mask = cv2.remap(layer.mask, warp_x, warp_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        share = mask.astype(np.float32) / 255
        rim = np.clip(share - blur(share, size * 0.011), 0, 1) * (1.3 if layer.role != "sky" else 0)
        hue = cv2.remap(layer.colour, warp_x, warp_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        veil = 255 - (255 - hue.astype(np.float32)) * pool * (0.9 + rim[..., None])
        out = _blend(out, np.clip(veil, 0, 255), share[..., None] * 0.93)
    grain = noise(rng, size, 52, 1)[..., None] * (255 - out) * 0.07
    out = _screen(out, _glow(canvas, 0.04, 0.55)) + grain
    edge = _margin(canvas, rng, 0.03, 0.022)
    dark = np.clip(edge - blur(edge, size * 0.01)[..., None], 0, 1) * 0.5
    return _blend(paper, 255 - (255 - out) * (1 + dark), edge)


def paint_ink(canvas: Canvas, rng: Rng) -> np.ndarray:
    """Ink wash: layers fade downward into mist, ridges are dry and dark, much paper stays empty; a seal."""
    size = canvas.size
    paper = np.array((243, 237, 222), np.float32)
    flow = noise(rng, size, 6, 2)
    y = np.arange(size, dtype=np.float32)[:, None] / size
    out = np.tile(paper, (size, size, 1))
    streaks = cv2.GaussianBlur(noise(rng, size, 40, 1), (0, 0), size * 0.012, sigmaY=size * 0.002)
    dry = np.clip(0.75 + 0.7 * streaks, 0.2, 1.15)
    for layer in canvas.layers:
        share = layer.mask.astype(np.float32) / 255
        if layer.role in ("mountain", "land", "bank", "tower", "leaves"):
            top = float(np.argmax(share.max(1) > 0.5)) / size
            fade = np.clip(1.08 - (y - top) / (0.45 if layer.role == "tower" else 0.2), 0.1, 1)
            ridge = np.clip(share - blur(share, size * 0.014), 0, 1)
            strength = share * np.clip(fade * (0.74 + 0.35 * flow) + ridge * 1.2 * dry, 0, 1)
        elif layer.role in ("sky", "water", "ring"):
            strength = share * np.clip(0.78 + 0.42 * flow, 0.2, 1)
        else:
            strength = share * np.clip(0.72 + 0.3 * dry, 0, 1)
        out = _blend(out, layer.colour, strength[..., None])
    out = _screen(out, _glow(canvas, 0.04, 0.3))
    return _seal(_blend(paper, out, _margin(canvas, rng, 0.014, 0.012)), rng, size)


def _seal(image: np.ndarray, rng: Rng, size: int) -> np.ndarray:
    """A small carved red seal near a lower corner."""
    left = 0.055 if rng.uniform() < 0.5 else 0.885
    x, y, w = int(left * size), int(0.86 * size), int(0.062 * size)
    out = np.clip(image, 0, 255).astype(np.uint8)
    cv2.rectangle(out, (x, y), (x + w, y + int(w * 1.15)), (186, 44, 34), -1)
    lines = [((0.2, 1.15 * k), (0.8, 1.15 * k)) for k in (0.28, 0.5, 0.72)]
    for (x0, y0), (x1, y1) in [*lines, ((0.5, 0.25), (0.5, 0.9))]:
        start, end = (int(x + w * x0), int(y + w * y0)), (int(x + w * x1), int(y + w * y1))
        cv2.line(out, start, end, (240, 226, 206), max(1, size // 200))
    return out.astype(np.float32)


def paint_dunhuang(canvas: Canvas, rng: Rng) -> np.ndarray:
    """A cave mural: flat mineral pigments and brown contours on plaster, eroded and finely cracked."""
    size = canvas.size
    ground = np.array((208, 172, 124), np.float32)
    out: np.ndarray = canvas.colour.astype(np.float32)
    pigment = 0.86 + 0.16 * noise(rng, size, 10, 2)[..., None]
    out = out * pigment + ground * (1 - pigment) * 0.6 + out * (1 - pigment) * 0.4
    out = _blend(out, (74, 36, 24), _edges(canvas, 0.0085)[..., None] * 0.95)
    worn = np.clip((noise(rng, size, 7, 3) - 0.36) * 2.2, 0, 0.42)
    eroded = (worn * (1 - 0.75 * np.clip(canvas.detail * 2 - 1, 0, 1)))[..., None]
    out = _blend(out, ground * (0.97 + 0.12 * noise(rng, size, 18, 1)[..., None]), eroded)
    crack = np.clip(1 - np.abs(noise(rng, size, 8, 2)) / 0.022, 0, 1)
    cracks = (crack * np.clip(noise(rng, size, 4, 1) * 1.6, 0, 1) * 0.5)[..., None]
    return _screen(_blend(out, (96, 62, 40), cracks), _glow(canvas, 0.03, 0.22))


def paint_cyberpunk(canvas: Canvas, rng: Rng) -> np.ndarray:
    """Neon in the dark: bright rims, wide bloom, haze over the horizon."""
    size = canvas.size
    p = canvas.palette
    out: np.ndarray = canvas.colour.astype(np.float32)
    y = np.arange(size, dtype=np.float32)[:, None, None] / size
    solid = (canvas.detail > 0.32).astype(np.float32)
    edge = _edges(canvas, 0.006) * solid
    swing = np.clip(0.5 + 0.9 * noise(rng, size, 4, 1), 0, 1)[..., None]
    neon = _blend(np.array(p.flower, np.float32), p.window, swing)
    rim = edge[..., None] * neon * 0.85
    out = _screen(out, rim)
    haze = np.exp(-(((y - 0.6) / 0.2) ** 2)) * 0.2
    out = _blend(out, mix(p.low, p.flower, 0.35), haze)
    shine = canvas.lights.astype(np.float32) + rim * 0.7
    bloom = blur(shine, size * 0.012) * 0.7 + blur(shine, size * 0.05) * 1.3
    out = _screen(out, bloom)
    return np.clip((out - 128) * 1.12 + 126, 0, 255)


def paint_ukiyoe(canvas: Canvas, rng: Rng) -> np.ndarray:
    """A woodblock print: flat areas, dark outlines, a dark band at the top, paper tone, a cartouche."""
    size = canvas.size
    p = canvas.palette
    paper = np.array((240, 226, 194), np.float32)
    out: np.ndarray = canvas.colour.astype(np.float32)
    y = np.arange(size, dtype=np.float32)[:, None, None] / size
    sky = (canvas.detail < 0.2).astype(np.float32)[..., None]
    band = np.clip(1 - y / 0.2, 0, 1) ** 1.3 * 0.8 * sky
    out = _blend(out, shade(p.top, 0.72), band)
    out = _blend(out, mix(p.top, (22, 20, 34), 0.75), _edges(canvas, 0.0088)[..., None])
    out = out * 0.93 + paper * 0.07 + (noise(rng, size, 12, 1) * 5)[..., None]
    out = _screen(out, _glow(canvas, 0.02, 0.15))
    return _cartouche(out, paper, rng, size)


def _cartouche(image: np.ndarray, paper: np.ndarray, rng: Rng, size: int) -> np.ndarray:
    """A border of paper, and a title cartouche in an upper corner."""
    out = np.clip(image, 0, 255).astype(np.uint8)
    frame = max(2, round(size * 0.016))
    for part in (out[:frame], out[-frame:], out[:, :frame], out[:, -frame:]):
        part[:] = paper
    left = 0.05 if rng.uniform() < 0.5 else 0.895
    x0, y0, x1, y1 = (int(k * size) for k in (left, 0.055, left + 0.055, 0.235))
    cv2.rectangle(out, (x0, y0), (x1, y1), (196, 62, 44), -1)
    cv2.rectangle(out, (x0, y0), (x1, y1), (40, 30, 40), max(1, size // 200))
    for k in range(4):
        cy = y0 + (y1 - y0) * (k + 0.5) / 4
        start, end = (int(x0 + size * 0.015), int(cy)), (int(x1 - size * 0.015), int(cy))
        cv2.line(out, start, end, (246, 230, 200), max(1, size // 150))
    return out.astype(np.float32)


def paint_papercut(canvas: Canvas, rng: Rng) -> np.ndarray:
    """Layered cut paper: each sheet casts a soft shadow on those behind and has a lit edge."""
    size = canvas.size
    out = np.zeros((size, size, 3), np.float32)
    shift = max(1, round(size * 0.012))
    move = np.array([[1, 0, shift * 0.6], [0, 1, shift]], np.float32)
    nudge = np.array([[1, 0, shift * 0.2], [0, 1, shift * 0.35]], np.float32)
    for layer in canvas.layers:
        share = layer.mask.astype(np.float32) / 255
        if layer.role == "mist":
            continue
        if layer.role not in ("sky", "glitter"):
            soft = blur(share, size * 0.013)
            thrown = cv2.warpAffine(soft, move, (size, size), borderMode=cv2.BORDER_REPLICATE)
            out *= (1 - 0.5 * thrown * (1 - share))[..., None]
        lower = cv2.warpAffine(share, nudge, (size, size), borderMode=cv2.BORDER_REPLICATE)
        bevel = (np.clip(share - lower, 0, 1) * 26)[..., None]
        out = _blend(out, layer.colour + bevel, share[..., None])
    return _screen(out, _glow(canvas, 0.035, 0.4))


BRUSHES: dict[str, tuple[Brush, SkyStyle]] = {
    "oil": (paint_oil, SkyStyle()),
    "monet": (paint_monet, SkyStyle(texture=0.8)),
    "dunhuang": (paint_dunhuang, SkyStyle(flat=True, halo=0.35)),
    "ink": (paint_ink, SkyStyle(halo=0.6, texture=0.7)),
    "watercolor": (paint_watercolor, SkyStyle(texture=0.8)),
    "cyberpunk": (paint_cyberpunk, SkyStyle(halo=0.35, texture=0.5)),
    "ukiyoe": (paint_ukiyoe, SkyStyle(flat=True, halo=0.15)),
    "pointillism": (paint_pointillism, SkyStyle()),
    "pastel": (paint_pastel, SkyStyle()),
    "papercut": (paint_papercut, SkyStyle(flat=True, paper=True)),
}
