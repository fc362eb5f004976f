"""Does a roof in shadow keep more of itself in bfloat16?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starrynight.lab import metrics, stats
from starrynight.lab.findings import (
    Finding,
    Rows,
    bounds,
    decibels_by_model,
    decibels_for_bits,
    few,
    sentences,
    settled,
)
from starrynight.lab.plan import Point

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

QUESTION = ("Does a roof in shadow keep more of itself in bfloat16?", "阴影里的屋顶在 bfloat16 下更清楚吗？")
CLAIMS = ("C15",)
PER = "picture"
REFERENCE = False
TWIN = True


def measure(bench: Bench, point: Point) -> dict[str, Any]:
    """PSNR in the darkest twentieth of the reference, where roofs and trees stand in shadow."""
    reference, other = bench.reference(point).pixels, bench.painting(point).pixels
    if reference is None or other is None:
        return {"psnr": None}
    return {"psnr": metrics.psnr(reference, other, metrics.darkest(reference))}


def judge(rows: Rows) -> list[Finding]:
    half, brain = rows.pairs("roofs", "psnr", rows.models[0], "float16", "bfloat16")
    if not half:
        return []
    gain = stats.paired(half, brain)
    share = f"{100 * metrics.DARKEST_SHARE:.0f} %"
    gist = (
        f"bfloat16 − float16: {bounds(gain)} dB, claimed +3.2.",
        f"bfloat16 − float16：{bounds(gain)} dB，所称为 +3.2。",
    )
    why = sentences(
        (
            f"Median PSNR in the darkest {share} of each picture, where roofs and trees stand in shadow.",
            f"各画最暗的 {share}（阴影里的屋顶与树）的 PSNR 中位数。",
        ),
        gist,
        decibels_for_bits(rows, gain),
        few(gain),
    )
    return [Finding("C15", settled(gain, gain.low > 0), decibels_by_model(rows, "roofs", "psnr"), why, gist)]
