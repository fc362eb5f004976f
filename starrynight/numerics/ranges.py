"""The range of every layer compared with every format's limits, as data and as an SVG plot."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from itertools import groupby
from typing import Any

from starrynight.i18n import Text
from starrynight.numerics.measured import Trace
from starrynight.numerics.solve import collect_ranges, immovable, solve_exponents

# log2 of the largest finite number of each format.
LIMITS = {"float8_e4m3": math.log2(448), "float8_e5m2": math.log2(57344), "float16": math.log2(65504),
          "bfloat16": math.log2(3.3895e38)}  # fmt: skip

# log2 of float16's smallest normal and smallest subnormal number.
NORMAL, SUBNORMAL = -14.0, -24.0


@dataclass
class LayerRange:
    """One module's 16-bit results over a whole run, in log2.

    ``peak`` is that of max|x|, ``small`` of the 10 % quantile of |x| (infinite if all values are 0),
    ``folded`` of the peak after folding. ``op`` is the op with the peak.
    """

    component: str
    name: str
    op: str
    peak: float
    small: float
    folded: float

    def headroom_bits(self, name: str, folded: bool = False) -> float:
        """Bits between the peak and the largest number of the format ``name``; negative if it overflows.

        ``folded``: of the peak after folding.
        """
        return LIMITS[name] - (self.folded if folded else self.peak)

    def to_dict(self) -> dict[str, Any]:
        """The fields for JSON, rounded; "spare" holds the headroom in bits by format."""
        fields = {k: round(v, 2) if isinstance(v, float) else v for k, v in asdict(self).items()}
        return fields | {"spare": {name: round(self.headroom_bits(name), 2) for name in LIMITS}}


def layer_ranges(trace: Trace) -> list[LayerRange]:
    """The layers in the order in which they first ran, with their peaks after the cheapest fold."""
    exponents = solve_exponents(trace, collect_ranges(trace), immovable(trace))
    found: dict[str, LayerRange] = {}
    for site in trace.sites.values():
        if not site.half or site.peak <= 0:
            continue
        peak, small = math.log2(site.peak), math.log2(site.small) if 0 < site.small < math.inf else math.inf
        folded = peak + max(exponents.get(trace.exponents.root(e), 0) for e in site.exponents)
        component, _, name = site.module.partition(".")
        layer = found.setdefault(site.module, LayerRange(component, name, site.op, peak, small, folded))
        if peak > layer.peak:
            layer.peak, layer.op = peak, site.op
        layer.small, layer.folded = min(layer.small, small), max(layer.folded, folded)
    return list(found.values())


def overflowing_layers(found: Sequence[LayerRange], name: str = "float16") -> list[LayerRange]:
    """The layers that overflow in the format ``name``, the worst first."""
    return sorted(
        (layer for layer in found if layer.headroom_bits(name) < 0),
        key=lambda layer: layer.headroom_bits(name),
    )


def float16_summary(layers: Sequence[LayerRange]) -> Text:
    """Whether float16 holds every layer; if not, by how much the worst overflows, and the headroom after folding."""
    if not layers:
        return Text("No operation ran in 16 bits.", "没有任何 16 位计算。")
    worst = max(layers, key=lambda layer: layer.peak)
    place, bits = f"{worst.component}.{worst.name}", worst.headroom_bits("float16")
    if bits >= 0:
        return Text(
            f"float16 holds all {len(layers)} layers; the least headroom is {bits:.1f} bits, at {place}.",
            f"float16 容得下全部 {len(layers)} 层，最紧处 {place} 还余 {bits:.1f} 位。",
        )
    count = len(overflowing_layers(layers))
    folded = min(layer.headroom_bits("float16", folded=True) for layer in layers)
    return Text(
        f"float16 overflows in {count} of {len(layers)} layers, by up to {-bits:.1f} bits at {place}; "
        f"after folding the headroom is {folded:+.1f} bits.",
        f"float16 在 {len(layers)} 层中的 {count} 层溢出，最多超出 {-bits:.1f} 位（{place}）；折叠后余量 {folded:+.1f} 位。",
    )


# -- the plot -------------------------------------------------------------------------------------------------------

WIDTH, LEFT, RIGHT, TOP, BOTTOM, PLOT = 1280, 92, 150, 118, 74, 430
NIGHT, DEEP, GOLD, PALE, FIRE, MOON = "#0a1230", "#050818", "#e6b94a", "#7f93c9", "#ff6b4a", "#f4e9c8"
CAP = "#bfe3ff"
MARGIN_BELOW, MARGIN_ABOVE = 2.0, 3.0  # bits
SERIF = "'Noto Serif CJK SC','Noto Serif SC','Songti SC',Georgia,serif"

# name, log2, colour, dash
LINES = (
    ("float16 65504", LIMITS["float16"], GOLD, ""),
    ("float8 e4m3 448", LIMITS["float8_e4m3"], PALE, "2 5"),
    ("float16 normal 2⁻¹⁴", NORMAL, PALE, "2 5"),
    ("float16 least 2⁻²⁴", SUBNORMAL, PALE, "1 7"),
)


def range_plot(layers: Sequence[LayerRange], title: str, note: str, legend: Sequence[str]) -> str:
    """An SVG bar chart of the layers' ranges in log2, drawn as a city under a night sky; no file is written.

    A bar reaches from a layer's small values to its peak: gold if float16 holds it, red if it overflows, with
    a pale cap at the peak after folding. ``legend`` names these three.
    """
    low, high = _extent(layers)
    step = (WIDTH - LEFT - RIGHT) / max(1, len(layers))

    def y(bits: float) -> float:
        return TOP + PLOT * (high - bits) / (high - low)

    parts = [
        _background(),
        _heading(title, note),
        _legend(legend),
        *(_limit_line(*line, y(line[1])) for line in LINES if low < line[1] < high),
    ]
    for number, layer in enumerate(layers):
        parts.append(_bar(layer, LEFT + number * step, step, y, low))
    parts += _component_names(layers, step)
    parts += [_tick(bits, y(bits)) for bits in range(int(low) // 8 * 8, int(high) + 1, 8) if bits > low]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {TOP + PLOT + BOTTOM}" '
        f'font-family="{SERIF}">{"".join(parts)}</svg>\n'
    )


def _extent(layers: Sequence[LayerRange]) -> tuple[float, float]:
    """log2 at the bottom and at the top, so that the data and float16's limits are visible."""
    finite = [layer.small for layer in layers if layer.small < 100]
    low = max(min([NORMAL, *finite]), SUBNORMAL - 4) - MARGIN_BELOW
    return low, max([LIMITS["float16"], *(layer.peak for layer in layers)]) + MARGIN_ABOVE


def _background() -> str:
    height = TOP + PLOT + BOTTOM
    stars = []
    place = 7
    for number in range(90):  # a fixed Lehmer sequence, so that equal input gives an equal file
        place = (place * 16807) % 2147483647
        x, level = place % WIDTH, (place // WIDTH) % (TOP + 60)
        stars.append(
            f'<circle cx="{x}" cy="{level}" r="{0.4 + number % 4 * 0.3:.1f}" fill="{MOON}" opacity="{0.25 + number % 5 * 0.13:.2f}"/>'
        )
    return (
        f'<defs><linearGradient id="sky" x1="0" y1="0" x2="0" y2="1"><stop offset="0" stop-color="{DEEP}"/>'
        f'<stop offset="0.55" stop-color="{NIGHT}"/><stop offset="1" stop-color="#1b2a5c"/></linearGradient>'
        f'<linearGradient id="gold" x1="0" y1="0" x2="0" y2="1"><stop offset="0" stop-color="#ffdf8a"/>'
        f'<stop offset="1" stop-color="#7a5a1c"/></linearGradient><linearGradient id="fire" x1="0" y1="0" x2="0" y2="1">'
        f'<stop offset="0" stop-color="#ffb199"/><stop offset="0.35" stop-color="{FIRE}"/>'
        f'<stop offset="1" stop-color="#7a2a2c"/></linearGradient></defs>'
        f'<rect width="{WIDTH}" height="{height}" fill="url(#sky)"/>{"".join(stars)}'
    )


def _heading(title: str, note: str) -> str:
    return (
        f'<text x="{LEFT}" y="52" fill="{GOLD}" font-size="28">{escape(title)}</text>'
        f'<text x="{LEFT}" y="82" fill="{MOON}" opacity="0.8" font-size="15">{escape(note)}</text>'
    )


def _legend(names: Sequence[str]) -> str:
    parts = []
    for number, (name, fill) in enumerate(zip(names, ("url(#gold)", "url(#fire)", CAP), strict=False)):
        level = 40 + 20 * number
        size, drop = (10, 9) if fill != CAP else (3, 5)
        parts.append(
            f'<rect x="{WIDTH - RIGHT - 60}" y="{level - drop}" width="12" height="{size}" fill="{fill}"/>'
            f'<text x="{WIDTH - RIGHT - 40}" y="{level}" fill="{MOON}" opacity="0.8" font-size="12">{escape(name)}</text>'
        )
    return "".join(parts)


def _limit_line(name: str, _bits: float, colour: str, dash: str, level: float) -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    width = 1.6 if not dash else 1
    return (
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT + 6}" y1="{level:.1f}" y2="{level:.1f}" stroke="{colour}" '
        f'stroke-width="{width}"{dashed} opacity="0.9"/>'
        f'<text x="{WIDTH - RIGHT + 12}" y="{level + 4:.1f}" fill="{colour}" font-size="12">{escape(name)}</text>'
    )


def _tick(bits: int, level: float) -> str:
    return f'<text x="{LEFT - 12}" y="{level + 4:.1f}" fill="{PALE}" font-size="12" text-anchor="end">2{_raised(bits)}</text>'


def _raised(number: int) -> str:
    return "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] if digit.isdigit() else "⁻" for digit in str(number))


def _bar(layer: LayerRange, x: float, step: float, y: Callable[[float], float], low: float) -> str:
    """A layer's bar, with a tooltip, and the cap of its folded peak."""
    broken = layer.headroom_bits("float16") < 0
    top, foot = y(layer.peak), y(max(low, min(layer.small, layer.peak)))
    width = max(0.6, step * 0.78)
    label = f"{layer.component}.{layer.name}: 2^{layer.peak:.1f}, {layer.headroom_bits('float16'):+.1f} bits, {layer.op}"
    bar = (
        f'<rect x="{x:.2f}" y="{top:.1f}" width="{width:.2f}" height="{max(1.0, foot - top):.1f}" '
        f'fill="url(#{"fire" if broken else "gold"})" opacity="{0.95 if broken else 0.8}"><title>{escape(label)}</title></rect>'
    )
    if abs(layer.folded - layer.peak) < 0.5:
        return bar
    return (
        bar
        + f'<rect x="{x:.2f}" y="{y(layer.folded) - 1:.1f}" width="{width:.2f}" height="2.4" fill="{CAP}"/>'
    )


def _component_names(layers: Sequence[LayerRange], step: float) -> list[str]:
    """The components' names under their layers' bars."""
    parts, number = [], 0
    for component, group in groupby(layers, key=lambda layer: layer.component):
        count = len(list(group))
        first, last = LEFT + number * step, LEFT + (number + count) * step
        level = TOP + PLOT + 14
        if last - first > 24:
            parts.append(
                f'<line x1="{first + 2:.1f}" x2="{last - 2:.1f}" y1="{level}" y2="{level}" stroke="{PALE}" opacity="0.6"/>'
            )
        if last - first > 70:
            parts.append(
                f'<text x="{(first + last) / 2:.1f}" y="{level + 24}" fill="{MOON}" font-size="15" text-anchor="middle">{escape(component)}</text>'
            )
        number += count
    return parts
