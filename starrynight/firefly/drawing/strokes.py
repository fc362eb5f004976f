"""Brush marks laid along the canvas's flow: curved strokes, dots, hatching. Knows the canvas, not scenes or styles."""

from __future__ import annotations

import cv2
import numpy as np

from starrynight.firefly.drawing.canvas import SUBPIXEL, Canvas

Rng = np.random.Generator


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
    """Paint `target` onto `image` in place with strokes that follow the flow and stop at each layer's edge.

    gap, length and width are shares of the side; a fourth channel of `image`, if any, takes the paint's height.
    Only places whose detail is at least `detail` are painted.
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
    """Walk along the flow both ways from each start, never leaving its layer: float [N, steps + 1, 2]."""
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
    """Cover `image` in place with dots on a loose honeycomb, every few of them nearer the complement."""
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
