"""The charts of a report, drawn as SVG text from a run's rows, without a library. The colours are classes of page.css. Every
mark has its value as a title, which a pointer and a screen reader can read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from statistics import median

from starrynight.i18n import Text
from starrynight.lab.findings import (
    EMPTY,
    FLOAT16_LIMIT,
    SUPERSCRIPTS,
    Rows,
    join_sentences,
    name_of,
    name_zh,
)
from starrynight.lab.plan import REFERENCE, WIDE
from starrynight.lab.run import number

ChartPoint = tuple[float, float, str]  # x, y (NaN for none), title
Tick = tuple[float, str | Text]
WIDTH, HEIGHT = 560, 290
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 26, 46
# How denoisers name their lists of blocks.
STACKS = ("layers", "transformer_blocks", "down_blocks", "up_blocks")
PHASE_NAMES = {
    "text": Text("text", "文本"),
    "first": Text("first third", "前段"),
    "middle": Text("middle", "中段"),
    "last": Text("last third", "后段"),
    "decoder": Text("decoder", "解码器"),
}


@dataclass(frozen=True)
class Plot:
    """A drawn chart with its title and caption; ``formats``: the formats for its legend."""

    title: Text
    caption: Text
    svg: str
    formats: tuple[str, ...]


def plots(rows: Rows) -> list[Plot]:
    """The charts that a run's rows allow."""
    found = [
        *(p for m in rows.models for p in (_ranges(rows, m), _born(rows, m))),
        _drift(rows),
        _spread(rows),
        _norms(rows),
        _colours(rows),
        _memory(rows),
        *(_weights(rows, model) for model in rows.models),
    ]
    return [plot for plot in found if plot is not None]


def _plot(chart: Chart, title: Text, caption: Text) -> Plot | None:
    svg = chart.draw(title)
    formats = tuple(dict.fromkeys(s.name for s in chart.series if s.points))
    return Plot(title, caption, svg, formats) if svg else None


def _title(model: str, en: str, zh: str) -> Text:
    return Text(f"{en}: {name_of(model)}", f"{zh}：{name_zh(model)}")


def _power(value: float) -> str:
    return "2" + str(round(value)).translate(SUPERSCRIPTS)


def _block_ticks(rows: Rows, model: str) -> list[Tick]:
    """A tick with the block's number where each block of the network ends."""
    layers = rows.result("layers", model, REFERENCE).get("layers", [])
    ends = [(at, one["name"].split(".")) for at, one in enumerate(layers)]
    return [(at, name[1]) for at, name in ends if len(name) == 2 and name[1].isdigit() and name[0] in STACKS]


def _by_layer(
    rows: Rows, model: str, format_: str, field: str, template: str, height: Callable[[float], float] = float
) -> list[ChartPoint]:
    """One number of every layer in the order they run; ``template`` formats it for the point's title, ``height`` maps it
    to y.
    """
    layers = rows.result("layers", model, format_).get("layers", [])
    values = [(at, one["name"] or "output", number(one.get(field))) for at, one in enumerate(layers)]
    return [(at, height(v), f"{name}: {template.format(v)} ({format_})") for at, name, v in values]


def _log2(value: float) -> float:
    return math.log2(value) if 0 < value < math.inf else math.nan


LAYERS = Text("layers, in the order they run; numbered: blocks", "网络层，按运行先后；数字为块")


def _ranges(rows: Rows, model: str) -> Plot | None:
    chart = Chart(LAYERS, Text("largest number stored", "所存的最大数值"), limit=(math.log2(FLOAT16_LIMIT), "65504 float16"), y_tick=_power)  # fmt: skip
    for format_ in (REFERENCE, "float16", "float16-folded", "bfloat16"):
        chart.add(format_, _by_layer(rows, model, format_, "peak", "{:.4g}", _log2))
    chart.x_ticks = _block_ticks(rows, model)
    return _plot(
        chart, _title(model, "How close to the limit of float16", "离 float16 的上限有多近"),
        Text("The largest number in the output of each layer of the denoiser at the first step. A line is interrupted at Inf or NaN. Folded float16 computes the same function; powers of two are divided out of what it stores.",
         "第一步中去噪网络每一层输出的最大数值。线条在 Inf 或 NaN 处中断。折叠 float16 计算的是同一个函数，只是所存数值除去了 2 的幂。"),
    )  # fmt: skip


def _born(rows: Rows, model: str) -> Plot | None:
    chart = Chart(LAYERS, Text("error against float32, dB", "相对 float32 的误差，dB"))
    for format_ in rows.others:
        for number_name, kind in (("error", "line"), ("born", "dots")):
            chart.add(format_, _by_layer(rows, model, format_, number_name, "{:.1f} dB " + number_name), kind)
    chart.x_ticks = _block_ticks(rows, model)
    return _plot(
        chart, _title(model, "Where the error arises", "误差产生于何处"),
        Text("Lines: distance from float32, with the error of all earlier layers. Dots: the error of this layer alone, given the same input. 6 dB are a factor of two; lower is closer.",
         "线：与 float32 的距离，含之前各层的误差。点：同样输入下这一层单独产生的误差。6 dB 相当于两倍；越低越接近。"),
    )  # fmt: skip


def _norms(rows: Rows) -> Plot | None:
    """The norms of claim C7's three layers, at fifty of the noise levels."""
    model = rows.models[0]
    chart = Chart(Text("level of training noise, from all to none", "训练噪声的级别，由满到无"), Text("norm of the layer's output", "该层输出的范数"), y_tick=_power)  # fmt: skip
    found = {f: rows.result("norms", model, f) for f in (REFERENCE, "float16", "bfloat16")}
    for format_, result in found.items():
        for name, notes in result["layers"].items() if result.get("levels") else ():
            stride = max(1, len(notes["norm"]) // 50)
            apart = result["of"] / min(result["of"], rows.plan.noise_steps)
            chosen = [(at * apart, number(v)) for at, v in list(enumerate(notes["norm"]))[::stride]]
            title = f"{name}, level {{:.0f}}: {{:.4g}} ({format_})"
            chart.add(format_, [(level, _log2(v), title.format(level, v)) for level, v in chosen])
    whole = max((result.get("of", 0) for result in found.values()), default=0)
    chart.x_ticks = [(whole * at / 4, str(whole * at // 4)) for at in range(5)]
    names = ", ".join(found[REFERENCE].get("layers", {}))
    return _plot(
        chart, _title(model, "Three layers over the noise levels", "三层在各级噪声上"),
        Text(f"Every format gets the same noised picture: {names}. Where only one colour is visible, the lines coincide.",
         f"各格式输入同一幅加噪的画：{names}。只见一种颜色之处，各线重合。"),
    )  # fmt: skip


def _drift(rows: Rows) -> Plot | None:
    chart = Chart(
        Text("step", "步"), Text("distance from float32's latents, dB", "与 float32 潜变量的距离，dB")
    )
    model = rows.models[0]
    for format_ in rows.others:
        results = rows.results("latents", model, format_)
        drifts = [[number(v) for v in result["drift"]] for result in results if result["drift"]]
        if not drifts:
            continue
        points = [
            (step, value, f"step {step}: {value:.1f} dB ({format_}, median of {len(drifts)})")
            for step, values in enumerate(zip(*drifts, strict=False), 1)
            if math.isfinite(value := median(values))
        ]
        chart.add(format_, points)
    last = max((len(s.points) for s in chart.series), default=0)
    chart.x_ticks = [(step, str(step)) for step in range(1, last + 1)]
    return _plot(
        chart, _title(model, "How the latents drift", "潜变量如何漂移"),
        Text("The same seed in each format; medians over the pictures.", "各格式使用同一种子；取各画的中位数。"),
    )  # fmt: skip


def _spread(rows: Rows) -> Plot | None:
    """The least and the greatest latent at each step, over all pictures."""
    chart = Chart(
        Text("step (0: the noise)", "步（0 为噪声）"), Text("least and greatest latent", "潜变量的最小与最大")
    )
    model = rows.models[0]
    for format_ in (REFERENCE, "float16", "bfloat16"):
        found = [result for result in rows.results("latents", model, format_) if result.get("low")]
        for side, pick, noise in (("low", min, 0), ("high", max, 1)) if found else ():
            each = zip(*([r["noise"][noise], *r[side]] for r in found), strict=False)
            steps = [pick(map(number, values)) for values in each]
            chart.add(format_, [(at, v, f"step {at}: {v:.3g} ({format_})") for at, v in enumerate(steps)])
    longest = max((len(s.points) for s in chart.series), default=0)
    chart.x_ticks = [(at, str(at)) for at in range(longest)]
    widest = max((abs(y) for s in chart.series for _, y, _ in s.points), default=math.nan)
    return _plot(
        chart, _title(model, "The latents' range, step by step", "潜变量逐步的范围"),
        Text(f"Over all pictures. The largest magnitude is {widest:.3g}; float16 ends at {FLOAT16_LIMIT:.0f}. Where only one colour is visible, the lines coincide.",
         f"取自所有画。最大绝对值为 {widest:.3g}；float16 的上限是 {FLOAT16_LIMIT:.0f}。只见一种颜色之处，各线重合。"),
    )  # fmt: skip


def _colours(rows: Rows) -> Plot | None:
    chart = Chart(
        Text("prompts", "提示词"),
        Text("mean ΔE2000 to float32", "与 float32 的平均 ΔE2000"),
        y_tick=lambda v: f"{10**v:.2g}",
    )
    model = rows.models[0]
    for format_ in rows.others:
        values = rows.values("colour", "mean", model, format_)
        points = [
            (prompt + 1, math.log10(value), f"prompt {prompt + 1}, seed {seed}: ΔE {value:.3g} ({format_})")
            for (prompt, seed), value in sorted(values.items())
            if value > 0
        ]
        chart.add(format_, points, "dots")
    chart.x_ticks = [(p + 1, str(p + 1)) for p in range(rows.plan.prompts)]
    return _plot(
        chart, _title(model, "Colour, picture by picture", "逐幅的色差"),
        Text("Each dot is a picture. A ΔE below 1 is not visible side by side.", "每个点是一幅画。ΔE 低于 1 时，并排也看不出差别。"),
    )  # fmt: skip


def _memory(rows: Rows) -> Plot | None:
    chart = Chart(EMPTY, Text("live tensors at the peak, MB", "活张量峰值，MB"), zero=True)
    model = next((m for m in rows.models if m != WIDE), rows.models[0])
    for place, format_ in enumerate((REFERENCE, "float16", "bfloat16")):
        memory = rows.result("memory", model, format_)
        phases = PHASE_NAMES.items() if "phases" in memory else ()
        sizes = [(name.en, memory["phases"].get(phase, 0)) for phase, name in phases]
        points = [
            (at + (place - 1) * 0.2, size / 2**20, f"{name}: {size} bytes ({format_})")
            for at, (name, size) in enumerate(sizes)
        ]
        chart.add(format_, points, "bars")
    float16, bfloat16 = (rows.result("memory", model, f).get("phases") for f in ("float16", "bfloat16"))
    equal = Text("float16 and bfloat16 are the same to the byte.", "float16 与 bfloat16 一个字节也不差。")
    differ = Text("float16 and bfloat16 differ.", "float16 与 bfloat16 不同。")
    method = Text("Counted from live tensors during one step.", "由一步之内的活张量计数。")
    chart.x_ticks = list(enumerate(PHASE_NAMES.values()))
    return _plot(
        chart,
        _title(model, "Memory of activations, part by part", "激活内存，逐部分"),
        join_sentences(method, equal if float16 == bfloat16 else differ),
    )


def _weights(rows: Rows, model: str) -> Plot | None:
    """Bytes of the denoiser's layers against the scenes' mean PSNR: the fit as a line, uniform types as dots."""
    found = sorted(rows.result("weights", model, "").get("formats", []), key=lambda one: one["bytes"])
    chart = Chart(
        Text("bytes of the denoiser's layers, MB", "去噪网络各层的字节，MB"), Text("PSNR to float32, dB", "与 float32 的 PSNR，dB")
    )  # fmt: skip
    for name, own, key in (("fit", True, "psnr"), ("one type for all", False, "psnr"), ("fit predicted", True, "predicted")):  # fmt: skip
        points = [
            (one["bytes"] / 1e6, number(one[key]), f"{one['name']}: {one['bits']:.2f} bits, {number(one[key]):.1f} dB")
            for one in found
            if one["fit"] == own
        ]  # fmt: skip
        css = {"one type for all": "one", "fit predicted": "predicted"}.get(name, name)
        chart.add(css, points, "line" if own else "dots")
    sizes = [one["bytes"] / 1e6 for one in found]
    chart.x_ticks = [(v, f"{v:g}") for v in (ticks(min(sizes), max(sizes)) if len(set(sizes)) > 1 else ())]
    return _plot(
        chart, _title(model, "What the bytes of the weights buy", "权重的字节换来什么"),
        Text("“fit”: a type for each layer (starry fit), painted; “predicted”: what was said beforehand; “one”: one type for all layers, as such files are published. Point at a mark for its name.",
             "fit：逐层选择类型（starry fit），实测；predicted：事先预计；one：各层同一类型，如通常发布的文件。指向标记可见其名称。"),
    )  # fmt: skip


# -- drawing -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Series:
    """One format's values; ``kind`` is "line", "dots" or "bars"."""

    name: str
    points: Sequence[ChartPoint]
    kind: str = "line"

    @property
    def finite(self) -> list[ChartPoint]:
        return [point for point in self.points if math.isfinite(point[0]) and math.isfinite(point[1])]


@dataclass
class Chart:
    """``limit``: (y, text) of a horizontal line. ``zero``: the y axis starts at 0. An x tick's text may be a ``Text``."""

    x_label: Text
    y_label: Text
    series: list[Series] = field(default_factory=list)
    limit: tuple[float, str] | None = None
    y_tick: Callable[[float], str] = lambda value: f"{value:g}".replace("-", "−")
    x_ticks: Sequence[Tick] = ()
    zero: bool = False

    def add(self, name: str, points: Sequence[ChartPoint], kind: str = "line") -> None:
        self.series.append(Series(name, points, kind))

    def draw(self, title: Text) -> str:
        """The chart as SVG; "" if it has no finite value."""
        values = [point for one in self.series for point in one.finite]
        if not values:
            return ""
        xs, ys, _ = zip(*values, strict=True)
        ys += (self.limit[0],) if self.limit else (0.0,) if self.zero else ()
        x0, x1 = _widened(min(xs), max(xs), 0.02)
        y0, y1 = _widened(min(ys), max(ys), 0.06)
        y0 = 0.0 if self.zero else y0

        def place(x: float, y: float) -> tuple[float, float]:
            return (
                LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT),
                HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM),
            )

        marks = [part for one in self.series for part in _marks(one, place, y0)]
        parts = [*self._grid(y0, y1, place, x0, x1), *marks, *self._limit(place, x0, x1)]
        name = escape(f"{title.en} / {title.zh}")
        return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{"".join(parts)}</svg>'

    def _grid(self, y0: float, y1: float, place: Callable, x0: float, x1: float) -> list[str]:
        parts = []
        for value in ticks(y0, y1):
            (left, y), (right, _) = place(x0, value), place(x1, value)
            parts.append(f'<path class="grid" d="M{left:.1f} {y:.1f}H{right:.1f}"/>')
            parts.append(_text("tick", left - 8, y + 4, self.y_tick(value), "end"))
        for value, words in (tick for tick in self.x_ticks if x0 <= tick[0] <= x1):
            x, y = place(value, y0)
            parts.append(_text("tick", x, y + 18, words, "middle"))
        x_label = _text("axis", WIDTH - RIGHT, HEIGHT - 6, self.x_label, "end")
        return [*parts, x_label, _text("axis", LEFT, TOP - 12, self.y_label)]

    def _limit(self, place: Callable, x0: float, x1: float) -> list[str]:
        if self.limit is None:
            return []
        (left, y), (right, _) = place(x0, self.limit[0]), place(x1, self.limit[0])
        line = f'<path class="limit" d="M{left:.1f} {y:.1f}H{right:.1f}"/>'
        return [line, _text("limit", right - 4, y - 6, self.limit[1], "end")]


def _text(kind: str, x: float, y: float, words: str | Text, anchor: str = "") -> str:
    """A text at a place; a ``Text`` gets one element for each language, of which the page shows one."""
    place = f'x="{round(x, 1)}" y="{round(y, 1)}"' + (f' text-anchor="{anchor}"' if anchor else "")
    if isinstance(words, str):
        return f'<text class="{kind}" {place}>{escape(words)}</text>'
    each = words._asdict().items()
    return "".join(f'<text class="{kind}" lang="{lang}" {place}>{escape(one)}</text>' for lang, one in each)


def _marks(one: Series, place: Callable, bottom: float) -> list[str]:
    at = [(*place(x, y), escape(text)) for x, y, text in one.finite]
    group = f'<g class="f-{escape(one.name)}">'
    if one.kind == "line":
        group += f'<path class="line" d="{_path(one, place)}"/>'
    if one.kind == "bars":
        ground = place(0, bottom)[1]
        bars = (
            f'<rect class="bar" x="{x - 9:.1f}" y="{y:.1f}" width="18" height="{max(0.0, ground - y):.1f}"><title>{t}</title></rect>'
            for x, y, t in at
        )
        return [group, *bars, "</g>"]
    size = 3.4 if one.kind == "dots" else 2.2
    dots = (
        f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{size}"><title>{t}</title></circle>'
        for x, y, t in at
    )
    return [group, *dots, "</g>"]


def _path(one: Series, place: Callable) -> str:
    """A line through the points, broken where a value is not finite."""
    path, pen = "", "M"
    for x, y, _ in one.points:
        if math.isfinite(y):
            across, down = place(x, y)
            path += f"{pen}{across:.1f} {down:.1f}"
        pen = "L" if math.isfinite(y) else "M"
    return path


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) between two bounds, at most about ``count``."""
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
