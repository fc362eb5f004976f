"""How many pictures break, and where?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from starrynight.lab import stats
from starrynight.lab.findings import (
    FLOAT16_LIMIT,
    REFUTED,
    REPRODUCED,
    UNDECIDED,
    Finding,
    Rows,
    Words,
    by_model,
    figure,
    joined,
    name_of,
    name_zh,
    peak,
    percent,
    sentences,
)
from starrynight.lab.plan import REFERENCE as FLOAT32
from starrynight.lab.plan import Point

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

QUESTION = ("How many pictures break, and where?", "有多少幅画的数值会坏掉，坏在哪里？")
CLAIMS = ("C5", "C9")
PER = "attempt"
REFERENCE = True
TWIN = True
CLAIMED_BLACK, CLAIMED_FALLBACK = 0.07, 0.12


def measure(bench: Bench, point: Point) -> dict[str, Any]:
    """Whether the guard refused the picture, at which stage, step (from 0) and module, in its own words."""
    painting = bench.painting(point)
    return {
        "refused": painting.pixels is None,
        "stage": painting.stage,
        "step": painting.step,
        "module": painting.module,
        "why": list(painting.refusal) if painting.refusal else None,
    }


def judge(rows: Rows) -> list[Finding]:
    if not rows.of("refusals", format_="float16") or not rows.of("refusals", format_="bfloat16"):
        return []
    return [_black(rows), _fallbacks(rows)]


def refused(rows: Rows, model: str, format_: str) -> stats.Estimate:
    found = [row["result"]["refused"] for row in rows.of("refusals", model, format_)]
    return stats.rate(sum(found), len(found))


def _black(rows: Rows) -> Finding:
    def message(model: str, format_: str) -> str:
        rate = refused(rows, model, format_)
        return f"{round(rate.value * rate.count)}/{rate.count}: {percent(rate)}" if rate.count else ""

    half, brain = ({m: refused(rows, m, f) for m in rows.models} for f in ("float16", "bfloat16"))
    seven = any(0 < e.value < 1 and e.low <= CLAIMED_BLACK <= e.high for e in half.values())
    known = any(not e.low <= CLAIMED_BLACK <= e.high for e in half.values()) and not seven
    cause, enough = _range(rows, half), _enough(half, CLAIMED_BLACK)
    why = sentences(
        (
            "Refused pictures, with 95 % (one-sided for none or all); a refused picture is one whose numbers broke, and no ladder is climbed here.",
            "被拒绝的画，95% 区间（全无或全有时为单侧）；被拒绝即数值已坏，此处不爬梯子。",
        ),
        enough,
        cause,
        _against(brain),
        _folded(rows),
    )
    outcome = _outcome(seven, known, brain)
    return Finding("C5", outcome, by_model(rows, message), why, cause if cause[0] else enough)


def _outcome(holds: bool, known: bool, brain: dict[str, stats.Estimate]) -> str:
    """Both claims say: float16 so often, bfloat16 never."""
    if any(e.value > 0 for e in brain.values()):
        return REFUTED
    return REPRODUCED if holds else REFUTED if known else UNDECIDED


def _against(brain: dict[str, stats.Estimate]) -> Words:
    """What speaks against bfloat16's never."""
    broke = {m: round(e.value * e.count) for m, e in brain.items() if e.value > 0}
    en = joined(f"{name_of(m)} {hits} of {brain[m].count}" for m, hits in broke.items())
    zh = joined(f"{name_zh(m)} {brain[m].count} 幅中 {hits} 幅" for m, hits in broke.items())
    return (
        (f"In bfloat16, claimed never to, there broke too: {en}.", f"所称从不损坏的 bfloat16 也坏了：{zh}。")
        if broke
        else ("", "")
    )


def _enough(half: dict[str, stats.Estimate], claimed: float) -> Words:
    """How many pictures it takes to rule the claimed share out, model by model, and how many there are."""
    en, zh = [], []
    for model, found in half.items():
        if not found.count:
            continue
        takes = stats.needed(found.value, claimed)
        told = "over 100,000" if takes is None else f"{takes}"
        en.append(f"{name_of(model)} ({100 * found.value:.3g} %) takes {told}; {found.count} were painted")
        zh.append(
            f"{name_zh(model)}（{100 * found.value:.3g} %）需 {told.replace('over', '超过')} 幅，画了 {found.count} 幅"
        )
    return (
        f"How many pictures in float16 tell the measured share from {100 * claimed:.0f} %: {'; '.join(en)}.",
        f"float16 下，要把实测比例与 {100 * claimed:.0f} % 分清：{'；'.join(zh)}。",
    )


def _range(rows: Rows, half: dict[str, stats.Estimate]) -> Words:
    """Whether those models break whose numbers leave float16, and no others."""
    peaks = {m: peak(rows, m, FLOAT32) for m in half if half[m].count}
    peaks = {m: reached for m, reached in peaks.items() if not math.isnan(reached)}
    if not peaks:
        return "", ""
    told = "; ".join(f"{name_of(m)} {figure(reached)}" for m, reached in peaks.items())
    told_zh = "；".join(f"{name_zh(m)} {figure(reached)}" for m, reached in peaks.items())
    kinds = {reached > FLOAT16_LIMIT for reached in peaks.values()}
    follows = all(half[m].value == (reached > FLOAT16_LIMIT) for m, reached in peaks.items())
    if follows and kinds == {False}:
        return (
            f"Every number of float32's first step is inside float16 ({told}), and no picture broke.",
            f"float32 第一步的数值都在 float16 之内（{told_zh}），没有一幅画坏掉。",
        )
    if follows and kinds == {True}:
        return (
            f"Numbers of float32's first step pass {FLOAT16_LIMIT:.0f} ({told}), and every picture broke.",
            f"float32 第一步的数值超过 {FLOAT16_LIMIT:.0f}（{told_zh}），每一幅画都坏了。",
        )
    if follows:
        return (
            f"It is the range, not luck: all break whose float32 numbers pass {FLOAT16_LIMIT:.0f} at the first step, and none of the others ({told}).",
            f"取决于范围，而非运气：float32 第一步的数值超过 {FLOAT16_LIMIT:.0f} 的全坏，其余一幅不坏（{told_zh}）。",
        )
    return (
        f"The range at the first step does not explain it alone (largest number in float32: {told}).",
        f"单凭第一步的范围解释不了（float32 的最大数值：{told_zh}）。",
    )


def _folded(rows: Rows) -> Words:
    """What folding does to those that break without it."""
    en, zh = [], []
    for model in rows.models:
        plain, folded = (refused(rows, model, f) for f in ("float16", "float16-folded"))
        if plain.value > 0 and folded.count:
            broke = round(folded.value * folded.count)
            en.append(f"{broke} of {folded.count} pictures ({name_of(model)})")
            zh.append(f"{name_zh(model)} {folded.count} 幅中坏 {broke} 幅")
    return (f"Folded float16 broke {joined(en)}.", f"折叠之后，{'、'.join(zh)}。") if en else ("", "")


def _fallbacks(rows: Rows) -> Finding:
    def share(model: str, format_: str) -> stats.Estimate:
        results = [row["result"] for row in rows.of("refusals", model, format_)]
        return stats.rate(sum(r["step"] in (1, 2) for r in results), len(results))

    def message(model: str, format_: str) -> str:
        found = [row["result"] for row in rows.of("refusals", model, format_)]
        where = sorted({_place(result) for result in found if result["refused"]})
        return (
            f"{percent(share(model, format_))}" + (f" ({', '.join(where)})" if where else "") if found else ""
        )

    half, brain = ({m: share(m, f) for m in rows.models} for f in ("float16", "bfloat16"))
    holds = any(e.value > 0 and e.low <= CLAIMED_FALLBACK <= e.high for e in half.values())
    known = any(not e.low <= CLAIMED_FALLBACK <= e.high for e in half.values())
    when = _when(rows)
    why = sentences(
        (
            "Share of runs that broke at step 2 or 3 (in brackets: where the broken ones broke).",
            "在第 2、3 步损坏的比例（括号内为实际损坏之处）。",
        ),
        when,
        _enough(half, CLAIMED_FALLBACK),
        _against(brain),
    )
    return Finding("C9", _outcome(holds, known, brain), by_model(rows, message), why, when)


def _when(rows: Rows) -> Words:
    """At which step the broken pictures in float16 broke."""
    broken = [row["result"] for row in rows.of("refusals", format_="float16") if row["result"]["refused"]]
    late, first = (sum(r["step"] in steps for r in broken) for steps in ((1, 2), (0,)))
    if not broken:
        return "In float16 no picture broke at any step.", "float16 下没有一幅画在任何一步坏掉。"
    en = f"Of the {len(broken)} that broke in float16, {late or 'none'} broke at steps 2–3 and {first} at step 1"
    zh = f"float16 下坏掉的 {len(broken)} 幅中，{late} 幅坏在第 2–3 步，{first} 幅坏在第 1 步"
    if first == len(broken):
        return (
            f"{en}: what overflows did so the first time it was run.",
            f"{zh}：会溢出的，第一次运行就溢出了。",
        )
    return f"{en}.", f"{zh}。"


def _place(result: dict[str, Any]) -> str:
    place = result["stage"] if result["step"] is None else f"step {result['step'] + 1}"
    return f"{place}, {result['module']}" if result.get("module") else place
