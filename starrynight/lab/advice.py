"""Which precision for this model on this device, and what it costs: a paragraph with numbers.

Asks ``numerics.precision`` for the plan, counts bytes from the model's headers, and takes what a run of the lab here has
measured; it says which run that was, and when there is none. Loads no model.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from starrynight.lab import formats, stats, table
from starrynight.lab.experiments.refusals import refused
from starrynight.lab.findings import Rows, Words, figure, middle, name_of, name_zh, sentences
from starrynight.lab.plan import REFERENCE
from starrynight.lab.run import ExperimentRun, number

if TYPE_CHECKING:
    from starrynight.models.catalogue import ModelSpec
    from starrynight.numerics.precision import PrecisionPlan

SEEN = 1.0  # ΔE2000 from which two pictures side by side begin to look different


def evidence(model: str) -> ExperimentRun | None:
    """The newest run here that painted this model."""
    for known in table.runs():
        run = ExperimentRun.open(known.folder)
        if model in run.plan.models and Rows(run).of("refusals", model):
            return run
    return None


def advise(model: str, device: str | None = None) -> Words:
    """English and Chinese. Raises what resolving the model raises."""
    from starrynight.models import catalogue, precision_plan

    chosen = catalogue.resolve(formats.place_of(model))
    plan = precision_plan.choose(chosen, device, "auto")
    main = next(iter(plan))
    name = main.dtype if not main.folded else "float16-folded"
    use = (
        f"Use {name} for {name_of(model)}: {main.reason_en}.",
        f"{name_zh(model)}：建议用 {name}，{main.reason_zh}。",
    )
    run = evidence(model)
    return sentences(
        use, _weights(chosen, plan), *(_measured(run, model, name) if run else [_nothing(model)])
    )


def _weights(model: ModelSpec, plan: PrecisionPlan) -> Words:
    """What the weights take, in the plan and in float32, and which components stay outside the main format."""
    from starrynight.models import precision_plan
    from starrynight.numerics.precision import BYTES

    counts, main = precision_plan.parameters(model), next(iter(plan)).dtype
    held = {part: precision_plan.dtype_name(plan, part) for part in counts}
    size = sum(count * BYTES[held[part]] for part, count in counts.items()) / 2**20
    whole = 4 * sum(counts.values()) / 2**20
    apart = {part: dtype for part, dtype in held.items() if dtype != main}
    en = ", ".join(f"{part} in {dtype}" for part, dtype in apart.items())
    zh = "、".join(f"{part} 为 {dtype}" for part, dtype in apart.items())
    return (
        f"Its weights take {size:.3g} MB where float32 takes {whole:.3g}{f' ({en})' if en else ''}.",
        f"权重占 {size:.3g} MB，float32 则为 {whole:.3g} MB{f'（{zh}）' if zh else ''}。",
    )


def _nothing(model: str) -> Words:
    return (
        f"What that costs a picture has not been measured here yet: starry lab advise {model} --measure.",
        f"画面要付出什么，尚未在本机测过：starry lab advise {model} --measure。",
    )


def _measured(run: ExperimentRun, model: str, format_: str) -> list[Words]:
    """What the run says of the recommended format, then of the others, and which run it is."""
    rows = Rows(run)
    day = time.strftime("%Y-%m-%d", time.gmtime(max(row["at"] for row in run.rows.values())))
    where = (
        f"Measured here on {day} ({run.folder.name}) against float32, same seeds:",
        f"{day} 在本机测得（{run.folder.name}），与同种子的 float32 相比：",
    )
    others = [one for one in rows.formats if one not in (format_, REFERENCE)]
    if format_ == REFERENCE:
        ours = "It is the reference and costs no fidelity.", "它就是参照，画质上没有代价。"
    else:
        ours = _cost(rows, model, format_)
        if not ours[0]:
            ours = f"{format_} was not among them.", f"其中没有 {format_}。"
    told = [words for words in (_cost(rows, model, one) for one in others) if words[0]]
    return [where, ours, *([("Instead:", "若换用："), *told] if told else [])]


def _cost(rows: Rows, model: str, format_: str) -> Words:
    """A sentence on a format: whether pictures break, how far they are from float32's, how long they take."""
    broken = refused(rows, model, format_)
    if not broken.count:
        return "", ""
    hits, high = round(broken.value * broken.count), f"{100 * broken.high:.2g}"
    if hits == broken.count:
        return (
            f"{format_}: all of {broken.count} pictures broke.",
            f"{format_}：{broken.count} 幅画全都坏了。",
        )
    error, like = (
        middle(rows, e, f, model, format_).value for e, f in (("colour", "mean"), ("likeness", "psnr"))
    )
    time_en, time_zh = _time(rows, model, format_)
    seen = ("seen", "看得出") if error >= SEEN else ("not seen side by side", "并排也看不出")
    return (
        f"{format_}: {hits} of {broken.count} pictures broke (95 %: below {high} in 100), ΔE {figure(error, 2)} ({seen[0]}), {figure(like)} dB{time_en}.",
        f"{format_}：{broken.count} 幅坏 {hits} 幅（95%：每百幅不超过 {high}），ΔE {figure(error, 2)}（{seen[1]}），{figure(like)} dB{time_zh}。",
    )


def _time(rows: Rows, model: str, format_: str) -> Words:
    found = rows.result("speed", model, "")
    times = found.get("times", {})
    if format_ not in times or REFERENCE not in times:
        return "", ""
    if format_ in found["emulated"]:
        return ", emulated here, so its time says nothing", "，本机为仿真，其时间不作数"
    seconds = stats.median([number(v) for v in times[format_]["wall"]]).value
    share = stats.ratio(*([number(v) for v in times[f]["cpu"]] for f in (REFERENCE, format_))).value
    return (
        f", {figure(seconds, 2)} s a picture, {figure(share, 2)} × float32's time",
        f"，每幅 {figure(seconds, 2)} 秒，为 float32 的 {figure(share, 2)} 倍",
    )
