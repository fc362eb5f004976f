"""How many pictures break, and where?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starrynight.lab import stats
from starrynight.lab.findings import REFUTED, REPRODUCED, UNDECIDED, Finding, Rows, by_model, percent
from starrynight.lab.plan import Point

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

QUESTION = ("How many pictures break, and where?", "有多少幅画的数值会坏掉，坏在哪里？")
CLAIMS = ("C5", "C9")
PER = "picture"
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
    def say(model: str, format_: str) -> str:
        rate = refused(rows, model, format_)
        return f"{round(rate.value * rate.count)}/{rate.count}: {percent(rate)}" if rate.count else ""

    half, brain = ([refused(rows, m, f) for m in rows.models] for f in ("float16", "bfloat16"))
    seven = any(0 < e.value < 1 and e.low <= CLAIMED_BLACK <= e.high for e in half)
    known = any(not e.low <= CLAIMED_BLACK <= e.high for e in half) and not seven
    holds = seven and all(e.value == 0 for e in brain)
    why = (
        "Refused pictures, with 95 % (one-sided for none or all). Black is not bad luck at some rate: where every activation stays below 65504 "
        "no picture breaks, where one exceeds it every picture does. It belongs to the model, and folding takes it away.",
        "被拒绝的画，95% 区间（全无或全有时为单侧）。黑图不是某个概率的坏运气：所有激活都在 65504 以内，一幅不坏；"
        "有一处超出，幅幅皆坏。它属于模型本身，而折叠可以消除它。",
    )
    return Finding("C5", REPRODUCED if holds else REFUTED if known else UNDECIDED, by_model(rows, say), why)


def _fallbacks(rows: Rows) -> Finding:
    def share(model: str, format_: str) -> stats.Estimate:
        results = [row["result"] for row in rows.of("refusals", model, format_)]
        return stats.rate(sum(r["step"] in (1, 2) for r in results), len(results))

    def say(model: str, format_: str) -> str:
        found = [row["result"] for row in rows.of("refusals", model, format_)]
        where = sorted({_place(result) for result in found if result["refused"]})
        return (
            f"{percent(share(model, format_))}" + (f" ({', '.join(where)})" if where else "") if found else ""
        )

    half = [share(m, "float16") for m in rows.models]
    holds = any(e.value > 0 and e.low <= CLAIMED_FALLBACK <= e.high for e in half)
    known = any(not e.low <= CLAIMED_FALLBACK <= e.high for e in half)
    why = (
        "Share of runs that broke at step 2 or 3 (in brackets: where the broken ones broke). A layer that overflows does so the first time it is run, "
        "which is step 1 or the decoder. Flow matching has no Euler a to fall back to, and another sampler would meet the same layer.",
        "在第 2、3 步损坏的比例（括号内为实际损坏之处）。会溢出的层第一次运行就会溢出，即第 1 步或解码时。"
        "流匹配没有 Euler a 可退，换采样器也还是同一层。",
    )
    return Finding("C9", REPRODUCED if holds else REFUTED if known else UNDECIDED, by_model(rows, say), why)


def _place(result: dict[str, Any]) -> str:
    place = result["stage"] if result["step"] is None else f"step {result['step'] + 1}"
    return f"{place}, {result['module']}" if result.get("module") else place
