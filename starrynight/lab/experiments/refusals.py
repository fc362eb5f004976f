"""Experiment on broken pictures: how many break (C5), and at which step (C9). A picture breaks when its numbers become
NaN or Inf; the lab paints without fallbacks, so the guard refuses every such picture. One of a single colour is broken too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from starrynight.i18n import Text
from starrynight.lab import stats
from starrynight.lab.findings import (
    EMPTY,
    FLOAT16_LIMIT,
    REFUTED,
    UNDECIDED,
    Finding,
    Rows,
    conclude,
    format_number,
    format_percent,
    join_names,
    name_of,
    name_zh,
)
from starrynight.lab.plan import REFERENCE, Point
from starrynight.lab.stats import Estimate

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

CLAIMED_BLACK, CLAIMED_FALLBACK = 0.07, 0.12  # shares of pictures in float16; the claims say 0 for bfloat16
SECOND_OR_THIRD = (1, 2)  # steps count from 0
ByModel = dict[str, Estimate]


def measure(bench: Bench, point: Point) -> dict[str, Any]:
    """Whether the guard refused the picture; at which stage, step (from 0) and module, and its message. Whether it has one
    colour in every pixel.
    """
    from starrynight.painting.results import only_colour

    painting = bench.painting(point)
    return {
        "refused": painting.pixels is None,
        "uniform": painting.pixels is not None and only_colour(painting.pixels) is not None,
        "stage": painting.stage,
        "step": painting.step,
        "module": painting.module,
        "why": list(painting.refusal) if painting.refusal else None,
    }


def judge(rows: Rows) -> list[Finding]:
    if not rows.of("refusals", format_="float16") or not rows.of("refusals", format_="bfloat16"):
        return []
    return [_judge_black(rows), _judge_fallbacks(rows)]


def broken(rows: Rows, model: str, format_: str) -> Estimate:
    """The share of broken pictures: refused, or uniform."""
    found = [result["refused"] or _is_uniform(result) for result in rows.results("refusals", model, format_)]
    return stats.rate(sum(found), len(found))


def _is_uniform(result: dict[str, Any]) -> bool:
    return bool(result.get("uniform"))  # runs before 2026-12 do not have it


def _uniform(rows: Rows, model: str, format_: str) -> int:
    return sum(map(_is_uniform, rows.results("refusals", model, format_)))


def _count(estimate: Estimate) -> int:
    return round(estimate.value * estimate.count)


def _judge_black(rows: Rows) -> Finding:
    def figure(model: str, format_: str) -> str:
        share, one_colour = broken(rows, model, format_), _uniform(rows, model, format_)
        note = f" ({one_colour} uniform)" if one_colour else ""
        return f"{_count(share)}/{share.count}: {format_percent(share)}{note}" if share.count else ""

    float16, bfloat16 = ({m: broken(rows, m, f) for m in rows.models} for f in ("float16", "bfloat16"))
    holds = any(0 < e.value < 1 and e.contains(CLAIMED_BLACK) for e in float16.values())
    cause, enough = _explain_by_range(rows, float16), _explain_sample_size(float16, CLAIMED_BLACK)
    why = [
        Text(
            "Broken pictures and their share with its 95 % interval (one-sided for none or all). The guard refuses a picture with NaN or Inf, and one of a single colour counts as broken; fallbacks are off here.",
            "损坏的画及其比例，附 95% 区间（全无或全有时为单侧）。出现 NaN 或 Inf 的画会被拒绝，纯色的画也算损坏；此处不作补救。",
        ),
        enough,
        cause,
        _explain_bfloat16(bfloat16),
        _explain_folding(rows),
    ]
    outcome = _outcome(holds, float16, CLAIMED_BLACK, bfloat16)
    return conclude(rows, "C5", outcome, figure, why, cause if cause.en else enough)


def _outcome(holds: bool, float16: ByModel, claimed: float, bfloat16: ByModel) -> str | bool:
    """Both claims give float16 a share and bfloat16 none. ``holds``: some model shows the share. Undecided if none
    does and no model's interval excludes it.
    """
    if any(e.value > 0 for e in bfloat16.values()):
        return REFUTED
    return holds if holds or not all(e.contains(claimed) for e in float16.values()) else UNDECIDED


def _explain_bfloat16(bfloat16: ByModel) -> Text:
    """The pictures that broke in bfloat16, which the claims say never break; empty if none did."""
    broke = {m: e for m, e in bfloat16.items() if e.value > 0}
    if not broke:
        return EMPTY
    en = join_names(f"{name_of(m)} {_count(e)} of {e.count}" for m, e in broke.items())
    zh = join_names(f"{name_zh(m)} {e.count} 幅中 {_count(e)} 幅" for m, e in broke.items())
    return Text(
        f"Pictures broke in bfloat16 too, which is claimed never to break: {en}.",
        f"所称从不损坏的 bfloat16 也有画损坏：{zh}。",
    )


def _explain_sample_size(float16: ByModel, claimed: float) -> Text:
    """How many pictures it takes to exclude the claimed share, and how many there are, for each model."""
    en, zh = [], []
    for model, found in float16.items():
        if not found.count:
            continue
        share, needed = f"{100 * found.value:.3g} %", stats.needed(found.value, claimed)
        takes = Text("over 100,000", "超过 100,000") if needed is None else Text(f"{needed}", f"{needed}")
        en.append(f"{name_of(model)} ({share}) needs {takes.en}, {found.count} were painted")
        zh.append(f"{name_zh(model)}（{share}）需 {takes.zh} 幅，已画 {found.count} 幅")
    return Text(
        f"Pictures in float16 needed to distinguish the measured share from {100 * claimed:.0f} %: {'; '.join(en)}.",
        f"float16 下，区分实测比例与 {100 * claimed:.0f} % 所需的画：{'；'.join(zh)}。",
    )


def _explain_by_range(rows: Rows, float16: ByModel) -> Text:
    """Whether exactly those models break whose float32 numbers exceed float16's range."""
    peaks = {m: rows.layer_peak(m, REFERENCE) for m in float16 if float16[m].count}
    peaks = {m: peak for m, peak in peaks.items() if not math.isnan(peak)}
    if not peaks:
        return EMPTY
    en = "; ".join(f"{name_of(m)} {format_number(peak)}" for m, peak in peaks.items())
    zh = "；".join(f"{name_zh(m)} {format_number(peak)}" for m, peak in peaks.items())
    exceeds = {peak > FLOAT16_LIMIT for peak in peaks.values()}
    if not all(float16[m].value == (peak > FLOAT16_LIMIT) for m, peak in peaks.items()):
        return Text(
            f"The range at the first step alone does not explain it (largest number in float32: {en}).",
            f"仅凭第一步的范围不能解释（float32 的最大数值：{zh}）。",
        )
    if exceeds == {False}:
        return Text(
            f"All numbers of float32's first step are within float16's range ({en}), and no picture broke.",
            f"float32 第一步的数值都在 float16 的范围内（{zh}），没有一幅画损坏。",
        )
    if exceeds == {True}:
        return Text(
            f"Float32's numbers exceed {FLOAT16_LIMIT:.0f} at the first step ({en}), and every picture broke.",
            f"float32 第一步的数值超过 {FLOAT16_LIMIT:.0f}（{zh}），每一幅画都损坏。",
        )
    return Text(
        f"The range decides: every picture of a model whose float32 numbers exceed {FLOAT16_LIMIT:.0f} at the first step broke, and no other picture did ({en}).",
        f"取决于数值范围：float32 第一步的数值超过 {FLOAT16_LIMIT:.0f} 的模型，每幅画都损坏；其余模型没有一幅损坏（{zh}）。",
    )


def _explain_folding(rows: Rows) -> Text:
    """How many pictures break in folded float16, for the models that break without folding."""
    en, zh = [], []
    for model in rows.models:
        plain, folded = (broken(rows, model, f) for f in ("float16", "float16-folded"))
        if plain.value > 0 and folded.count:
            en.append(f"{_count(folded)} of {folded.count} pictures ({name_of(model)})")
            zh.append(f"{name_zh(model)} {folded.count} 幅中有 {_count(folded)} 幅损坏")
    if not en:
        return EMPTY
    return Text(f"In folded float16, {join_names(en)} broke.", f"折叠之后，{'、'.join(zh)}。")


def _judge_fallbacks(rows: Rows) -> Finding:
    def share(model: str, format_: str) -> Estimate:
        results = rows.results("refusals", model, format_)
        return stats.rate(sum(r["step"] in SECOND_OR_THIRD for r in results), len(results))

    def figure(model: str, format_: str) -> str:
        found = rows.results("refusals", model, format_)
        if not found:
            return ""
        places = sorted({_place(result) for result in found if result["refused"]})
        places += ["uniform"] if _uniform(rows, model, format_) else []
        return format_percent(share(model, format_)) + (f" ({', '.join(places)})" if places else "")

    float16, bfloat16 = ({m: share(m, f) for m in rows.models} for f in ("float16", "bfloat16"))
    holds = any(e.value > 0 and e.contains(CLAIMED_FALLBACK) for e in float16.values())
    summary = _explain_steps(rows)
    why = [
        Text(
            "Share of pictures that broke at step 2 or 3 (in brackets: where pictures broke).",
            "在第 2、3 步损坏的画的比例（括号内：实际损坏之处）。",
        ),
        summary,
        _explain_sample_size(float16, CLAIMED_FALLBACK),
        _explain_bfloat16(bfloat16),
    ]
    return conclude(rows, "C9", _outcome(holds, float16, CLAIMED_FALLBACK, bfloat16), figure, why, summary)


def _explain_steps(rows: Rows) -> Text:
    """At which steps the pictures that broke in float16 broke."""
    found = [result for result in rows.results("refusals", format_="float16") if result["refused"]]
    late, first = (sum(r["step"] in steps for r in found) for steps in (SECOND_OR_THIRD, (0,)))
    if not found:
        return Text("In float16 no picture broke at any step.", "float16 下没有一幅画在任何一步损坏。")
    en = f"Of the {len(found)} pictures that broke in float16, {late or 'none'} broke at steps 2–3 and {first} at step 1"
    zh = f"float16 下损坏的 {len(found)} 幅画中，{late} 幅在第 2–3 步损坏，{first} 幅在第 1 步损坏"
    if first == len(found):
        return Text(
            f"{en}: an overflow occurs the first time the layer runs.",
            f"{zh}：会溢出的层在第一次运行时就溢出。",
        )
    return Text(f"{en}.", f"{zh}。")


def _place(result: dict[str, Any]) -> str:
    place = result["stage"] if result["step"] is None else f"step {result['step'] + 1}"
    return f"{place}, {result['module']}" if result.get("module") else place
