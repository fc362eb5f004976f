"""Do bright stars burn out?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

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
from starrynight.lab.plan import Point

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

QUESTION = ("Do bright stars burn out?", "明亮的星会过曝吗？")
CLAIMS = ("C14",)
PER = "picture"
REFERENCE = True
TWIN = True
CLAIMED_GAP = 0.06  # 0.98 against 0.92


def measure(bench: Bench, point: Point) -> dict[str, Any]:
    """Luma of the brightest 3×3 patch, and the share of pixels at 0.98 and above."""
    pixels = bench.painting(point).pixels
    return {"core": None, "over": None} if pixels is None else dict(metrics.highlights(pixels))


def judge(rows: Rows) -> list[Finding]:
    brain, half = rows.pairs("highlights", "core", rows.models[0], "bfloat16", "float16")
    if not half:
        return []
    gap = stats.paired(brain, half)

    def message(model: str, format_: str) -> str:
        core = middle(rows, "highlights", "core", model, format_)
        over = list(rows.values("highlights", "over", model, format_).values())
        return f"{core.value:.4f} ({100 * sum(over) / len(over):.3g} %)" if core.count else ""

    gist = (
        f"float16 − bfloat16: {bounds(gap, 2)}, against the {CLAIMED_GAP} claimed.",
        f"float16 − bfloat16：{bounds(gap, 2)}，所称为 {CLAIMED_GAP}。",
    )
    why = sentences(
        (
            f"Median luma of the brightest 3×3 patch (pixels at {metrics.OVEREXPOSED} and above).",
            f"最亮 3×3 区域的亮度中位数（{metrics.OVEREXPOSED} 及以上的像素占比）。",
        ),
        gist,
        _spacing(rows, gap),
        few(gap),
    )
    return [
        Finding(
            "C14", settled(gap, 0 < gap.low <= CLAIMED_GAP <= gap.high), by_model(rows, message), why, gist
        )
    ]


def _spacing(rows: Rows, gap: stats.Estimate) -> Words:
    """How far apart neighbouring numbers of each format are at that brightness, as its fraction bits were probed."""
    half, brain = (2.0 ** -(facts(rows, f)["fraction"] + 1) for f in ("float16", "bfloat16"))
    if math.isnan(half + brain):
        return "", ""
    told = f"{figure(brain, 2)} : {figure(half, 2)}"
    within = abs(gap.value) <= max(half, brain)
    return (
        f"Neighbouring numbers between 0.5 and 1 are {told} apart, bfloat16 : float16; the difference is "
        + (
            "less than one such step."
            if within
            else "more than one such step, so no rounding of the picture."
        ),
        f"0.5 到 1 之间相邻两数的间距，bfloat16 : float16 = {told}；这一差别"
        + ("不到一个间距。" if within else "超过一个间距，不是对画面的舍入。"),
    )
