"""How far are the colours from float32's?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from starrynight.lab import metrics, stats
from starrynight.lab.findings import (
    Finding,
    Rows,
    Words,
    bounds,
    by_model,
    facts,
    few,
    figure,
    middle,
    sentences,
    settled,
)
from starrynight.lab.plan import REFERENCE as FLOAT32
from starrynight.lab.plan import Point

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

QUESTION = ("How far are the colours from float32's?", "颜色离 float32 有多远？")
CLAIMS = ("C3",)
PER = "picture"
REFERENCE = True
TWIN = True
CLAIMED = (18.1, 22.4)  # ΔE of bfloat16 and of float16


def measure(bench: Bench, point: Point) -> dict[str, Any]:
    """ΔE2000 over the picture: mean and 99 % quantile. For float32: to the next prompt's picture, as a yardstick."""
    reference = bench.reference(point).pixels
    if point.format == FLOAT32:
        other = bench.reference(next_prompt(bench, point)).pixels
    else:
        other = bench.painting(point).pixels
    if reference is None or other is None:
        return {"mean": None, "p99": None}
    difference = metrics.colour_difference(reference, other)
    return {"mean": float(difference.mean()), "p99": float(np.quantile(difference, 0.99))}


def next_prompt(bench: Bench, point: Point) -> Point:
    assert point.prompt is not None
    return Point("", point.model, FLOAT32, (point.prompt + 1) % bench.plan.prompts, point.seed)


def judge(rows: Rows) -> list[Finding]:
    model = rows.models[0]
    half, brain = rows.pairs("colour", "mean", model, "float16", "bfloat16")
    if not half:
        return []
    gap = stats.paired(half, brain)

    def message(one: str, format_: str) -> str:
        error = middle(rows, "colour", "mean", one, format_)
        return figure(error.value) if error.count and format_ != FLOAT32 else ""

    rounding = _rounding(rows, stats.ratio(half, brain))
    why = sentences(
        (
            f"Median ΔE2000 to float32; bfloat16 − float16 in pairs: {bounds(gap)}.",
            f"与 float32 的 ΔE2000 中位数；成对比较 bfloat16 − float16：{bounds(gap)}。",
        ),
        rounding,
        _yardstick(middle(rows, "colour", "mean", model, FLOAT32).value, max(*half, *brain)),
        few(gap),
    )
    return [Finding("C3", settled(gap, gap.high < 0), by_model(rows, message), why, rounding)]


def _rounding(rows: Rows, ratio: stats.Estimate) -> Words:
    """Whether the errors stand to one another as the probed fraction bits do."""
    bits = facts(rows, "float16")["fraction"] - facts(rows, "bfloat16")["fraction"]
    times = f"bfloat16 ÷ float16 = {bounds(ratio)}"
    if math.isnan(bits):
        return f"{times}.", f"{times}。"
    if 0.5 < ratio.value / 2**bits < 2:
        return (
            f"{times}: {bits:.0f} fraction bits fewer round {2**bits:.0f} times as coarsely.",
            f"{times}：少 {bits:.0f} 位尾数，舍入粗 {2**bits:.0f} 倍。",
        )
    return (
        f"{times}, where rounding alone would give {2**bits:.0f}: something else than fraction bits is at work.",
        f"{times}，若只是舍入应为 {2**bits:.0f}：起作用的不止是尾数位。",
    )


def _yardstick(apart: float, worst: float) -> Words:
    """What the claimed 18–22 would be here."""
    low, high = CLAIMED
    if math.isnan(apart):
        return "", ""
    between = (
        f"Two prompts' pictures are ΔE {figure(apart)} apart here",
        f"此处两条提示词的画相距 ΔE {figure(apart)}",
    )
    if worst < low / 2 and apart > low / 2:
        return (
            f"{between[0]}: {low:.0f}–{high:.0f} would be another picture, not another rounding.",
            f"{between[1]}：{low:.0f}–{high:.0f} 意味着另一幅画，而不是另一种舍入。",
        )
    return (
        f"{between[0]}; no picture of the two formats is further than {figure(worst)} from float32.",
        f"{between[1]}；两种格式的画与 float32 最远为 {figure(worst)}。",
    )
