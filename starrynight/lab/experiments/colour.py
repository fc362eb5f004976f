"""How far are the colours from float32's?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from starrynight.lab import metrics, stats
from starrynight.lab.findings import Finding, Rows, bounds, by_model, figure, middle, settled
from starrynight.lab.plan import REFERENCE as FLOAT32
from starrynight.lab.plan import Point

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

QUESTION = ("How far are the colours from float32's?", "颜色离 float32 有多远？")
CLAIMS = ("C3",)
PER = "picture"
REFERENCE = True
TWIN = True


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
    yardstick = figure(middle(rows, "colour", "mean", model, FLOAT32).value)

    def say(one: str, format_: str) -> str:
        error = middle(rows, "colour", "mean", one, format_)
        return figure(error.value) if error.count and format_ != FLOAT32 else ""

    coarser = gap.value > 0
    why = (
        f"Median ΔE2000 to float32; bfloat16 − float16 in pairs: {bounds(gap)}. "
        + (
            "bfloat16 keeps 7 fraction bits where float16 keeps 10, so it rounds 8 times as coarsely. "
            if coarser
            else ""
        )
        + f"A ΔE of 18–22 is not rounding at all: it is what two different pictures are apart ({yardstick} between two prompts here).",
        f"与 float32 的 ΔE2000 中位数；成对比较 bfloat16 − float16：{bounds(gap)}。"
        + ("bfloat16 只有 7 位尾数，float16 有 10 位，舍入粗 8 倍。" if coarser else "")
        + f"18–22 的 ΔE 根本不是舍入误差，而是两幅不同画面之间的距离（此处两条提示词之间为 {yardstick}）。",
    )
    return [Finding("C3", settled(gap, gap.high < 0), by_model(rows, say), why)]
