"""Which charts the report shows, drawn from a run's rows. Knows the rows' fields and the chart's shape, no HTML."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from starrynight.lab.findings import FLOAT16_LIMIT, RAISED, Rows, name_of, name_zh
from starrynight.lab.plan import REFERENCE, WIDE
from starrynight.lab.report.svg import Chart, Series
from starrynight.lab.run import number

STACKS = ("layers", "transformer_blocks", "down_blocks", "up_blocks")
Words = tuple[str, str]
Spot = tuple[float, float, str]  # x, y, and what a pointer reads


@dataclass(frozen=True)
class Plot:
    """A drawn chart with its caption; ``formats``: whose colours are in it."""

    title: Words
    caption: Words
    svg: str
    formats: tuple[str, ...]


def plots(rows: Rows) -> list[Plot]:
    found = [
        *(p for m in rows.models for p in (_ranges(rows, m), _born(rows, m))),
        _drift(rows),
        _spread(rows),
        _norms(rows),
        _colours(rows),
        _memory(rows),
    ]
    return [plot for plot in found if plot is not None]


def _plot(chart: Chart, title: Words, caption: Words) -> Plot | None:
    svg = chart.draw(title)
    return (
        Plot(title, caption, svg, tuple(dict.fromkeys(s.name for s in chart.series if s.points)))
        if svg
        else None
    )


def _title(model: str, en: str, zh: str) -> Words:
    return f"{en}: {name_of(model)}", f"{zh}：{name_zh(model)}"


def _power(value: float) -> str:
    return "2" + str(round(value)).translate(RAISED)


def _blocks(rows: Rows, model: str) -> list[tuple[float, str | dict[str, str]]]:
    """A tick where each block of the network ends, with its number."""
    layers = rows.result("layers", model, REFERENCE).get("layers", [])
    ends = [(at, one["name"].split(".")) for at, one in enumerate(layers)]
    return [(at, name[1]) for at, name in ends if len(name) == 2 and name[1].isdigit() and name[0] in STACKS]


def _by_layer(
    rows: Rows, model: str, format_: str, field: str, said: str, height: Callable[[float], float] = float
) -> list[Spot]:
    """One number of every layer, in the order they run; ``said`` is what a pointer reads on it."""
    layers = rows.result("layers", model, format_).get("layers", [])
    values = [(at, one["name"] or "output", number(one.get(field))) for at, one in enumerate(layers)]
    return [(at, height(v), f"{name}: {said.format(v)} ({format_})") for at, name, v in values]


def _log(value: float) -> float:
    return math.log2(value) if 0 < value < math.inf else math.nan


LAYERS = ("layers, in the order they run; numbered: blocks", "网络层，按运行先后；数字为块")


def _ranges(rows: Rows, model: str) -> Plot | None:
    chart = Chart(LAYERS, ("largest number stored", "所存的最大数值"), limit=(math.log2(FLOAT16_LIMIT), "65504 float16"), y_tick=_power)  # fmt: skip
    for format_ in (REFERENCE, "float16", "float16-folded", "bfloat16"):
        chart.series.append(Series(format_, _by_layer(rows, model, format_, "peak", "{:.4g}", _log)))
    chart.x_ticks = _blocks(rows, model)
    return _plot(
        chart, _title(model, "How near the edge", "离边缘有多近"),
        ("The largest number each layer of the denoiser puts out at the first step. A line breaks where it meets Inf or NaN. Folded float16 stores the same function with powers of two divided out.",
         "第一步中去噪网络每一层输出的最大数值。线条中断处即遇到了 Inf 或 NaN。折叠 float16 存的是同一个函数，只是除去了若干个 2 的幂。"),
    )  # fmt: skip


def _born(rows: Rows, model: str) -> Plot | None:
    chart = Chart(LAYERS, ("error against float32, dB", "相对 float32 的误差，dB"))
    for format_ in rows.others:
        for field, kind in (("error", "line"), ("born", "dots")):
            spots = _by_layer(rows, model, format_, field, "{:.1f} dB " + field)
            chart.series.append(Series(format_, spots, kind))
    chart.x_ticks = _blocks(rows, model)
    return _plot(
        chart, _title(model, "Where the error is born", "误差生于何处"),
        ("Lines: distance from float32 with all that came before. Dots: what this layer adds alone, given the same input. 6 dB is a factor of two; lower is truer.",
         "线：连同之前各层在内，与 float32 的距离。点：在同样输入下这一层单独带来的误差。6 dB 为一倍；越低越真。"),
    )  # fmt: skip


def _norms(rows: Rows) -> Plot | None:
    """The three layers of claim C7 over the levels of noise, fifty of them."""
    model = rows.models[0]
    chart = Chart(("level of training noise, from all to none", "训练噪声的级别，由满到无"), ("norm of what the layer puts out", "该层输出的范数"), y_tick=_power)  # fmt: skip
    found = {f: rows.result("norms", model, f) for f in (REFERENCE, "float16", "bfloat16")}
    for format_, result in found.items():
        for name, notes in result["layers"].items() if result.get("levels") else ():
            stride = max(1, len(notes["norm"]) // 50)
            apart = result["of"] / min(result["of"], rows.plan.noise_steps)
            spots = [
                (at * apart, _log(number(v)), f"{name}, level {at * apart:.0f}: {number(v):.4g} ({format_})")
                for at, v in list(enumerate(notes["norm"]))[::stride]
            ]
            chart.series.append(Series(format_, spots))
    whole = max((result.get("of", 0) for result in found.values()), default=0)
    chart.x_ticks = [(whole * at / 4, str(whole * at // 4)) for at in range(5)]
    names = ", ".join(found[REFERENCE].get("layers", {}))
    return _plot(
        chart, _title(model, "Three layers over the noise", "三层在各级噪声上"),
        (f"The same noised picture shown to each format: {names}. Where only one colour is seen, the formats lie on one another.",
         f"给各格式看同一幅加噪的画：{names}。只见一种颜色之处，各格式彼此重叠。"),
    )  # fmt: skip


def _drift(rows: Rows) -> Plot | None:
    chart = Chart(("step", "步"), ("distance from float32's latents, dB", "与 float32 潜变量的距离，dB"))
    model = rows.models[0]
    for format_ in rows.others:
        drifts = [
            [number(v) for v in row["result"]["drift"]]
            for row in rows.of("latents", model, format_)
            if row["result"]["drift"]
        ]
        if not drifts:
            continue
        steps = min(map(len, drifts))
        points = [
            (step + 1, value, f"step {step + 1}: {value:.1f} dB ({format_}, median of {len(drifts)})")
            for step in range(steps)
            if math.isfinite(value := median(d[step] for d in drifts))
        ]
        chart.series.append(Series(format_, points))
    last = max((len(s.points) for s in chart.series), default=0)
    chart.x_ticks = [(step, str(step)) for step in range(1, last + 1)]
    return _plot(
        chart, _title(model, "How the latents drift", "潜变量如何漂移"),
        ("The same seed in each format, step by step; medians over the pictures.", "同一种子在各格式下逐步的偏离；各画的中位数。"),
    )  # fmt: skip


def _spread(rows: Rows) -> Plot | None:
    """Range by step: the least and the greatest latent, over all pictures."""
    chart = Chart(
        ("step (0: the noise)", "步（0 为噪声）"), ("least and greatest latent", "潜变量的最小与最大")
    )
    model = rows.models[0]
    for format_ in (REFERENCE, "float16", "bfloat16"):
        found = [row["result"] for row in rows.of("latents", model, format_) if row["result"].get("low")]
        if not found:
            continue
        for side, pick, noise in (("low", min, 0), ("high", max, 1)):
            steps = [pick(number(r["noise"][noise]) for r in found)]
            steps += [
                pick(number(r[side][at]) for r in found) for at in range(min(len(r[side]) for r in found))
            ]
            chart.series.append(
                Series(format_, [(at, v, f"step {at}: {v:.3g} ({format_})") for at, v in enumerate(steps)])
            )
    longest = max((len(s.points) for s in chart.series), default=0)
    chart.x_ticks = [(at, str(at)) for at in range(longest)]
    widest = max((abs(y) for s in chart.series for _, y, _ in s.points), default=math.nan)
    return _plot(
        chart, _title(model, "The latents' range, step by step", "潜变量逐步的范围"),
        (f"Over all pictures. The widest is {widest:.3g}, where float16 ends at {FLOAT16_LIMIT:.0f}; where only one colour is seen, the formats lie on one another.",
         f"取遍所有画。最大的绝对值为 {widest:.3g}，而 float16 的上限是 {FLOAT16_LIMIT:.0f}；只见一种颜色之处，各格式彼此重叠。"),
    )  # fmt: skip


def _colours(rows: Rows) -> Plot | None:
    chart = Chart(
        ("prompts", "提示词"),
        ("mean ΔE2000 to float32", "与 float32 的平均 ΔE2000"),
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
        chart.series.append(Series(format_, points, "dots"))
    chart.x_ticks = [(p + 1, str(p + 1)) for p in range(rows.plan.prompts)]
    return _plot(
        chart, _title(model, "Colour, picture by picture", "逐幅的色差"),
        ("Each dot is a picture. A ΔE below 1 is not seen side by side.", "每个点是一幅画。ΔE 低于 1 时，并排也看不出差别。"),
    )  # fmt: skip


def _memory(rows: Rows) -> Plot | None:
    phases = {
        "text": ("text", "文本"),
        "first": ("first third", "前段"),
        "middle": ("middle", "中段"),
        "last": ("last third", "后段"),
        "decoder": ("decoder", "解码器"),
    }
    chart = Chart(("", ""), ("live tensors at the peak, MB", "活张量峰值，MB"), zero=True)
    model = next((m for m in rows.models if m != WIDE), rows.models[0])
    for place, format_ in enumerate((REFERENCE, "float16", "bfloat16")):
        found = rows.result("memory", model, format_)
        points = [
            (
                at + (place - 1) * 0.2,
                found["phases"].get(phase, 0) / 2**20,
                f"{phases[phase][0]}: {found['phases'].get(phase, 0)} bytes ({format_})",
            )
            for at, phase in enumerate(phases)
            if found
        ]
        chart.series.append(Series(format_, points, "bars"))
    half, brain = (rows.result("memory", model, f).get("phases") for f in ("float16", "bfloat16"))
    same = half == brain
    chart.x_ticks = [(at, {"en": en, "zh": zh}) for at, (en, zh) in enumerate(phases.values())]
    return _plot(
        chart, _title(model, "Memory of activations, part by part", "激活内存，逐部分"),
        ("Counted from live tensors during one step. " + ("float16 and bfloat16 are the same to the byte." if same else "float16 and bfloat16 differ."),
         "由一步之内的活张量计数。" + ("float16 与 bfloat16 一个字节也不差。" if same else "float16 与 bfloat16 不同。")),
    )  # fmt: skip
