"""The curve of a fit as SVG: bits a weight against PSNR, the programme's line, and uniform types and the hand rule beside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from starrynight.fitting.fit import CurvePoint
from starrynight.i18n import Text

WIDTH, HEIGHT = 860, 520
LEFT, RIGHT, TOP, BOTTOM = 70, 30, 96, 64
NIGHT, MOON, GOLD, PALE, FIRE = "#0b1026", "#e8e6df", "#f4c95d", "#8d95b8", "#ff8a65"
# Between labels, in pixels.
LINE = 15
LEGEND = (
    Text("fit, predicted", "适配，预计"),
    Text("fit, measured (bar: worst picture)", "适配，实测（竖线为最差一幅）"),
    Text("one type for all, or by hand: measured", "统一类型或手工规则：实测"),
    Text("the same, predicted", "同上，预计"),
)


def draw(curve: Sequence[CurvePoint], title: Text, note: Text, t: Callable[[str, str], str]) -> str:
    """The curve as one SVG document; ``t`` picks a language. Every mark has its numbers as a title."""
    line = sorted((p for p in curve if p.fit), key=lambda p: p.bits)
    others = [p for p in curve if not p.fit]
    values = [v for p in curve for v in (p.predicted, p.measured, p.worst) if v is not None]
    x = _scale([p.bits for p in curve], LEFT, WIDTH - RIGHT)
    y = _scale(values, HEIGHT - BOTTOM, TOP)
    path = "L".join(f"{x(p.bits):.1f} {y(p.predicted):.1f}" for p in line)
    parts = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{NIGHT}"/>',
        _text(LEFT, 38, t(*title), GOLD, 22),
        _text(LEFT, 62, t(*note), MOON, 13),
        *_axes(x, y, curve, values, t),
        f'<path d="M{path}" fill="none" stroke="{GOLD}" stroke-width="2"/>',
        *(_dot(x(p.bits), y(p.predicted), 2.6, GOLD, p, True) for p in line),
        *(part for p in line for part in _measured(p, x, y, GOLD)),
        *(part for p in others for part in (_dot(x(p.bits), y(p.predicted), 3, "none", p, True, PALE), *_measured(p, x, y, FIRE))),
        *_names(others, x, y),
        *_legend(t),
    ]  # fmt: skip
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="system-ui, Noto Sans CJK SC, sans-serif" role="img" aria-label="{escape(t(*title))}">{"".join(parts)}</svg>\n'
    )


def _scale(values: Sequence[float], first: float, last: float) -> Callable[[float], float]:
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 1.0
    low, high = low - margin, high + margin
    return lambda value: first + (value - low) / (high - low) * (last - first)


def _axes(
    x: Callable[[float], float], y: Callable[[float], float], curve: Sequence[CurvePoint], values: Sequence[float],
    t: Callable[[str, str], str],
) -> list[str]:  # fmt: skip
    parts = []
    for value in range(int(min(values) // 5 * 5), int(max(values)) + 6, 5):
        if TOP <= y(value) <= HEIGHT - BOTTOM:
            parts.append(f'<path d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}" stroke="{PALE}" opacity="0.25"/>')
            parts.append(_text(LEFT - 10, y(value) + 4, str(value), PALE, 12, "end"))
    bits = [p.bits for p in curve]
    for value in range(int(min(bits)), int(max(bits)) + 2):
        if LEFT <= x(value) <= WIDTH - RIGHT:
            parts.append(_text(x(value), HEIGHT - BOTTOM + 20, str(value), PALE, 12, "middle"))
    parts.append(_text(WIDTH - RIGHT, HEIGHT - 22, t("bits a weight", "每个权重的位数"), PALE, 12, "end"))
    parts.append(
        _text(LEFT - 44, TOP - 12, t("PSNR against float32, dB", "与 float32 相比的 PSNR，dB"), PALE, 12)
    )
    return parts


def _dot(x: float, y: float, r: float, fill: str, point: CurvePoint, predicted: bool, stroke: str = "none") -> str:  # fmt: skip
    value = point.predicted if predicted else point.measured
    label = f"{point.name}: {point.bits:.2f} bits, {point.bytes / 1e6:.1f} MB, {value:.1f} dB {'predicted' if predicted else 'measured'}"
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" fill="{fill}" stroke="{stroke}"><title>{escape(label)}</title></circle>'


def _measured(point: CurvePoint, x: Callable[[float], float], y: Callable[[float], float], colour: str) -> list[str]:  # fmt: skip
    """A ring at the mean of the painted pictures, with a line down to the worst."""
    if point.measured is None or point.worst is None:
        return []
    at = x(point.bits)
    bar = f'<path d="M{at:.1f} {y(point.measured):.1f}V{y(point.worst):.1f}" stroke="{colour}" stroke-width="1.4" opacity="0.7"/>'
    return [bar, _dot(at, y(point.measured), 5, colour, point, False)]


def _names(points: Sequence[CurvePoint], x: Callable[[float], float], y: Callable[[float], float]) -> list[str]:  # fmt: skip
    """The names beside their marks, moved apart where they would overlap."""
    placed: list[tuple[float, float]] = []
    parts = []
    for point in sorted(points, key=lambda p: -(p.measured or p.predicted)):
        across = x(point.bits) + 9
        down = y(point.measured if point.measured is not None else point.predicted) + 4
        while any(abs(across - a) < 80 and abs(down - d) < LINE for a, d in placed):
            down += LINE
        placed.append((across, down))
        end = across + 8 * len(point.name) > WIDTH - RIGHT
        parts.append(_text(across - 18 if end else across, down, point.name, MOON, 12, "end" if end else ""))
    return parts


def _legend(t: Callable[[str, str], str]) -> list[str]:
    marks = ((GOLD, 2.6, "none"), (GOLD, 5, "none"), (FIRE, 5, "none"), ("none", 3, PALE))
    parts = []
    for number, (text, (fill, r, stroke)) in enumerate(zip(LEGEND, marks, strict=True)):
        at, level = (
            LEFT + 16,
            TOP + 22 + LINE * number,
        )  # better pictures take more bits: this corner is empty
        parts.append(f'<circle cx="{at}" cy="{level - 4}" r="{r}" fill="{fill}" stroke="{stroke}"/>')
        parts.append(_text(at + 12, level, t(*text), MOON, 12))
    return parts


def _text(x: float, y: float, words: str, colour: str, size: int, anchor: str = "") -> str:
    where = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" font-size="{size}"{where}>{escape(words)}</text>'
