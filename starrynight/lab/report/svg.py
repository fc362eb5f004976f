"""Charts as SVG text: lines, dots and bars on a dark ground, with no library and nothing to fetch.

Knows numbers and where they go; the colours are classes of the page's style sheet. Every mark carries its value as a
title, so a pointer and a screen reader can both read it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 560, 290
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 26, 46


@dataclass(frozen=True)
class Series:
    """One format's values: points (x, y) with a title each, y NaN where there is none; ``kind`` is "line", "dots" or "bars"."""

    name: str
    points: Sequence[tuple[float, float, str]]
    kind: str = "line"


@dataclass
class Chart:
    """``x_label``: what the axes are, in English and Chinese; a tick's text may be {language: text}; ``limit``: (y, text) drawn as a line across."""

    x_label: tuple[str, str]
    y_label: tuple[str, str]
    series: list[Series] = field(default_factory=list)
    limit: tuple[float, str] | None = None
    y_tick: Callable[[float], str] = lambda value: f"{value:g}".replace("-", "−")
    x_ticks: Sequence[tuple[float, str | dict[str, str]]] = ()
    zero: bool = False

    def draw(self, title: tuple[str, str]) -> str:
        """The whole chart; "" if nothing finite is in it."""
        values = [
            (x, y) for one in self.series for x, y, _ in one.points if math.isfinite(x) and math.isfinite(y)
        ]
        if not values:
            return ""
        xs, ys = [x for x, _ in values], [y for _, y in values]
        if self.limit:
            ys.append(self.limit[0])
        if self.zero:
            ys.append(0.0)
        x0, x1 = _widened(min(xs), max(xs), 0.02)
        y0, y1 = _widened(min(ys), max(ys), 0.06)
        if self.zero:
            y0 = 0.0

        def place(x: float, y: float) -> tuple[float, float]:
            return (
                LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT),
                HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM),
            )

        parts = self._grid(y0, y1, place, x0, x1)
        for one in self.series:
            parts += _marks(one, place, y0)
        parts += self._limit(place, x0, x1)
        name = escape(f"{title[0]} / {title[1]}")
        return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{"".join(parts)}</svg>'

    def _grid(self, y0: float, y1: float, place: Callable, x0: float, x1: float) -> list[str]:
        parts = []
        for value in ticks(y0, y1):
            (left, y), (right, _) = place(x0, value), place(x1, value)
            parts.append(f'<path class="grid" d="M{left:.1f} {y:.1f}H{right:.1f}"/>')
            parts.append(
                f'<text class="tick" x="{left - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{escape(self.y_tick(value))}</text>'
            )
        for value, words in (tick for tick in self.x_ticks if x0 <= tick[0] <= x1):
            x, y = place(value, y0)
            for lang, text in words.items() if isinstance(words, dict) else [("", words)]:
                tongue = f' lang="{lang}"' if lang else ""
                parts.append(
                    f'<text class="tick"{tongue} x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{escape(text)}</text>'
                )
        for lang, text in zip(("en", "zh"), self.x_label, strict=True):
            parts.append(
                f'<text class="axis" lang="{lang}" x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{escape(text)}</text>'
            )
        for lang, text in zip(("en", "zh"), self.y_label, strict=True):
            parts.append(f'<text class="axis" lang="{lang}" x="{LEFT}" y="{TOP - 12}">{escape(text)}</text>')
        return parts

    def _limit(self, place: Callable, x0: float, x1: float) -> list[str]:
        if self.limit is None:
            return []
        (left, y), (right, _) = place(x0, self.limit[0]), place(x1, self.limit[0])
        text = f'<text class="limit" x="{right - 4:.1f}" y="{y - 6:.1f}" text-anchor="end">{escape(self.limit[1])}</text>'
        return [f'<path class="limit" d="M{left:.1f} {y:.1f}H{right:.1f}"/>', text]


def _marks(one: Series, place: Callable, floor: float) -> list[str]:
    at = [(*place(x, y), text) for x, y, text in one.points if math.isfinite(x) and math.isfinite(y)]
    group = f'<g class="f-{escape(one.name)}">'
    if one.kind == "line":
        group += f'<path class="line" d="{_path(one, place)}"/>'
    if one.kind == "bars":
        ground = place(0, floor)[1]
        bars = (
            f'<rect class="bar" x="{x - 9:.1f}" y="{y:.1f}" width="18" height="{max(0.0, ground - y):.1f}"><title>{escape(t)}</title></rect>'
            for x, y, t in at
        )
        return [group, *bars, "</g>"]
    size = 3.4 if one.kind == "dots" else 2.2
    dots = (
        f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{size}"><title>{escape(t)}</title></circle>'
        for x, y, t in at
    )
    return [group, *dots, "</g>"]


def _path(one: Series, place: Callable) -> str:
    """A line through the points, broken where a value is not finite."""
    path, pen = "", "M"
    for x, y, _ in one.points:
        if not math.isfinite(y):
            pen = "M"
            continue
        across, down = place(x, y)
        path, pen = f"{path}{pen}{across:.1f} {down:.1f}", "L"
    return path


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between two bounds."""
    span = (high - low) / count
    step = 10 ** math.floor(math.log10(span))
    step *= next(m for m in (1, 2, 5, 10) if m * step >= span)
    first = math.ceil(low / step)
    return [round(n * step, 10) for n in range(first, math.floor(high / step) + 1)]


def _widened(low: float, high: float, share: float) -> tuple[float, float]:
    if low == high:
        return low - 1, high + 1
    margin = (high - low) * share
    return low - margin, high + margin
