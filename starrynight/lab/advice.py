"""Which precision to use for a model on this device, and what it costs: a paragraph with numbers.

The recommendation is ``numerics.precision``'s plan. Bytes come from the headers of the model's files, and the cost of a
format from the newest run on this machine that measured the model. No model is loaded.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starrynight.i18n import Text
from starrynight.lab import formats, stats, table
from starrynight.lab.experiments.refusals import broken
from starrynight.lab.findings import EMPTY, Rows, format_number, join_sentences, name_of, name_zh
from starrynight.lab.plan import REFERENCE
from starrynight.lab.run import ExperimentRun, number

if TYPE_CHECKING:
    from starrynight.models.catalogue import LocalModel
    from starrynight.numerics.precision import PrecisionPlan

VISIBLE = 1.0  # ΔE2000 from which two pictures side by side look different


def evidence(model: str) -> ExperimentRun | None:
    """The newest run on this machine that painted this model, or None."""
    for summary in table.runs():
        run = ExperimentRun.open(summary.folder)
        if model in run.plan.models and Rows(run).of("refusals", model):
            return run
    return None


def advise(model: str, device: str | None = None) -> Text:
    """The whole paragraph. Raises what resolving the model raises."""
    from starrynight.models import catalogue, precision_plan

    chosen = catalogue.resolve(formats.catalogue_name(model))
    plan = precision_plan.choose(chosen, device, "auto")
    main = next(iter(plan))
    name = main.dtype if not main.folded else "float16-folded"
    use = Text(
        f"Use {name} for {name_of(model)}: {main.reason_en}.",
        f"{name_zh(model)}：建议用 {name}，{main.reason_zh}。",
    )
    run = evidence(model)
    measured = _measured(run, model, name) if run else [_not_measured(model)]
    return join_sentences(use, _weights(chosen, plan), *measured)


def _weights(model: LocalModel, plan: PrecisionPlan) -> Text:
    """The size of the weights in the plan and in float32, and the components in another format than the main one."""
    from starrynight.models import precision_plan
    from starrynight.numerics.precision import BYTES

    counts, main = model.parameters, next(iter(plan)).dtype
    dtypes = {part: precision_plan.dtype_name(plan, part) for part in counts}
    size = sum(count * BYTES[dtypes[part]] for part, count in counts.items()) / 2**20
    kept = {choice.component for choice in plan if choice.kept}
    whole = 4 * sum(counts.values()) / 2**20
    others = {part: dtype for part, dtype in dtypes.items() if dtype != main}
    en = ", ".join(f"{part} in {dtype}" for part, dtype in others.items())
    zh = "、".join(f"{part} 为 {dtype}" for part, dtype in others.items())
    for part, stored in precision_plan.quantised(model).items():
        computed = (
            Text("kept packed, computed in", "保持原格式，计算用")
            if part in kept
            else Text("computed in", "计算用")
        )
        en += f"{', ' if en else ''}{part}: {stored}, {computed.en} {dtypes[part]}"
        zh += f"{'、' if zh else ''}{part}：{stored}，{computed.zh} {dtypes[part]}"
    return Text(
        f"Its weights take {size:.3g} MB; float32 would take {whole:.3g} MB{f' ({en})' if en else ''}.",
        f"权重占 {size:.3g} MB，用 float32 则为 {whole:.3g} MB{f'（{zh}）' if zh else ''}。",
    )


def _not_measured(model: str) -> Text:
    return Text(
        f"The cost in picture quality has not been measured here yet; to measure it: starry lab advise {model} --measure.",
        f"对画质的影响尚未在本机测过；要测量：starry lab advise {model} --measure。",
    )


def _measured(run: ExperimentRun, model: str, format_: str) -> list[Text]:
    """Which run measured it, what the recommended format costs, then what the others cost."""
    rows = Rows(run)
    day = time.strftime("%Y-%m-%d", time.gmtime(max(row["at"] for row in run.rows.values())))
    source = Text(
        f"Measured here on {day} ({run.folder.name}) against float32, same seeds:",
        f"{day} 在本机测得（{run.folder.name}），与同种子的 float32 相比：",
    )
    costs = {one: found for one in rows.others if (found := cost(rows, model, one)).en}
    recommended = costs.pop(format_, Text(f"{format_} was not measured.", f"{format_} 没有测过。"))
    if format_ == REFERENCE:
        recommended = Text("It is the reference itself.", "它就是参照。")
    others = [Text("The alternatives:", "其他格式："), *costs.values()] if costs else []
    return [source, recommended, *others]


def cost(rows: Rows, model: str, format_: str) -> Text:
    """One sentence on a format: the share of broken pictures, the distance from float32's, the time; empty if it was not
    measured.
    """
    share = broken(rows, model, format_)
    if not share.count:
        return EMPTY
    hits, high = round(share.value * share.count), f"{100 * share.high:.2g}"
    if hits == share.count:
        return Text(f"{format_}: all of {hits} pictures broke.", f"{format_}：{hits} 幅画全部损坏。")
    error = rows.median("colour", "mean", model, format_).value
    psnr = rows.median("likeness", "psnr", model, format_).value
    seen = Text("visible", "看得出") if error >= VISIBLE else Text("not visible side by side", "并排也看不出")
    duration = _duration(rows, model, format_)
    return Text(
        f"{format_}: {hits} of {share.count} pictures broke (95 %: below {high} in 100), ΔE {format_number(error, 2)} ({seen.en}), {format_number(psnr)} dB{duration.en}.",
        f"{format_}：{share.count} 幅中 {hits} 幅损坏（95%：每百幅不超过 {high}），ΔE {format_number(error, 2)}（{seen.zh}），{format_number(psnr)} dB{duration.zh}。",
    )


def times_of(rows: Rows, model: str) -> dict[str, float]:
    """Format → its time for a picture over float32's, in pairs; without formats that were emulated."""
    found = rows.result("speed", model, "")
    wall = {f: _wall(times) for f, times in found.get("times", {}).items()}
    if REFERENCE not in wall:
        return {}
    return {f: stats.ratio(wall[REFERENCE], wall[f]).value for f in wall if f not in found["emulated"]}


def _wall(times: Mapping[str, Any]) -> list[float]:
    """Seconds of each picture."""
    return [number(v) for v in times["wall"]]


def _duration(rows: Rows, model: str, format_: str) -> Text:
    found = rows.result("speed", model, "")
    times = found.get("times", {})
    if format_ not in times or REFERENCE not in times:
        return EMPTY
    if format_ in found["emulated"]:
        return Text(", emulated here, so its time does not count", "，本机为仿真，其时间不作数")
    seconds, ratio = stats.median(_wall(times[format_])).value, times_of(rows, model)[format_]
    return Text(
        f", {format_number(seconds, 2)} s a picture, {format_number(ratio, 2)} × float32's time",
        f"，每幅 {format_number(seconds, 2)} 秒，为 float32 的 {format_number(ratio, 2)} 倍",
    )
