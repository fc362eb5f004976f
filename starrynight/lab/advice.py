"""Which precision for this model on this device, and what it costs: a paragraph with numbers.

Asks ``numerics.precision`` for the plan, counts bytes from the model's headers, and takes what a run of the lab here has
measured; it says when nothing has been. Loads no model.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from starrynight.lab import stats, table
from starrynight.lab.experiments.refusals import refused
from starrynight.lab.findings import Rows, figure, middle, percent
from starrynight.lab.plan import REFERENCE
from starrynight.lab.run import Run, number

if TYPE_CHECKING:
    from starrynight.numerics.precision import PrecisionPlan

Words = tuple[str, str]


def evidence(model: str) -> Run | None:
    """The newest run here that painted this model."""
    for known in table.runs():
        run = Run.open(known.folder)
        if model in run.plan.models and Rows(run).of("refusals", model):
            return run
    return None


def advise(model: str, device: str | None = None) -> Words:
    """English and Chinese. Raises what resolving the model raises."""
    from starrynight.numerics.precision import BYTES
    from starrynight.painting import catalogue, plans

    chosen = catalogue.resolve(model)
    plan = plans.choose(chosen, device, "auto")
    counts = plans.parameters(chosen)
    main = next(iter(plan))
    whole = sum(counts.values())
    size = sum(n * BYTES[_format_of(plan, part, main.format)] for part, n in counts.items())
    formats = ", ".join(f"{f} ×{n}" for f, n in Counter(c.format for c in plan).items())
    parts = [
        (
            f"Use {main.format} for {chosen.en}: {main.reason_en}.",
            f"{chosen.zh}：建议用 {main.format}，{main.reason_zh}。",
        ),
        (
            f"Its components run in {formats}; {whole / 1e6:.3g} million numbers take {size / 2**20:.3g} MB of weights, against {4 * whole / 2**20:.3g} MB in float32.",
            f"各组件：{formats}；{whole / 1e6:.3g} 百万个数的权重占 {size / 2**20:.3g} MB，float32 则为 {4 * whole / 2**20:.3g} MB。",
        ),
    ]
    run = evidence(model)
    parts += _measured(Rows(run), model, main.format) if run else [_nothing(model)]
    return " ".join(en for en, _ in parts), "".join(zh for _, zh in parts)


def _format_of(plan: PrecisionPlan, component: str, otherwise: str) -> str:
    entries = {choice.component: choice.format for choice in plan}
    return entries.get("vae_decode" if component == "vae" else component, otherwise)


def _nothing(model: str) -> Words:
    return (
        f"What that costs has not been measured here yet: starry lab advise {model} --measure.",
        f"代价尚未在本机测过：starry lab advise {model} --measure。",
    )


def _measured(rows: Rows, model: str, format_: str) -> list[Words]:
    """What the run says of the recommended format, then of the others."""
    parts = [_cost(rows, model, one) for one in rows.formats if one == format_ and one != REFERENCE]
    if format_ == REFERENCE:
        parts.append(("It is the reference: it costs no fidelity.", "它就是参照：画质上没有代价。"))
    parts += [_cost(rows, model, one) for one in rows.formats if one not in (format_, REFERENCE)]
    return [part for part in parts if part[0]]


def _cost(rows: Rows, model: str, format_: str) -> Words:
    broken = refused(rows, model, format_)
    if not broken.count:
        return "", ""
    if broken.value == 1:
        return (
            f"{format_}: every one of {broken.count} pictures was refused ({percent(broken)}).",
            f"{format_}：{broken.count} 幅画全部被拒绝（{percent(broken)}）。",
        )
    error, like = (
        middle(rows, e, f, model, format_).value for e, f in (("colour", "mean"), ("likeness", "psnr"))
    )
    time, time_zh = _time(rows, model, format_)
    return (
        f"{format_}: ΔE {figure(error, 2)} and {figure(like)} dB from float32, {round(broken.value * broken.count)} of {broken.count} pictures refused{time}.",
        f"{format_}：与 float32 相差 ΔE {figure(error, 2)}、{figure(like)} dB，{broken.count} 幅中被拒绝 {round(broken.value * broken.count)} 幅{time_zh}。",
    )


def _time(rows: Rows, model: str, format_: str) -> Words:
    found = rows.result("speed", model, "")
    times = found.get("times", {})
    if format_ not in times or REFERENCE not in times:
        return "", ""
    if format_ in found["emulated"]:
        return ", emulated here", "，本机为仿真"
    share = stats.ratio(*([number(v) for v in times[f]["cpu"]] for f in (REFERENCE, format_))).value
    return f", {figure(share, 2)} × float32's time", f"，耗时为 float32 的 {figure(share, 2)} 倍"
