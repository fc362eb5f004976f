"""How much of the shadows' detail is kept?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starrynight.lab import metrics, stats
from starrynight.lab.findings import Finding, Rows, bounds, decibels_by_model, settled
from starrynight.lab.plan import Point

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

QUESTION = ("How much of the shadows' detail is kept?", "暗部细节保留了多少？")
CLAIMS = ("C4",)
PER = "picture"
REFERENCE = False
TWIN = True


def measure(bench: Bench, point: Point) -> dict[str, Any]:
    """PSNR where the reference is darker than L* 30, and how much of the picture that is."""
    reference, other = bench.reference(point).pixels, bench.painting(point).pixels
    mask = None if reference is None else metrics.shadows(reference)
    if reference is None or other is None or mask is None:
        return {"psnr": None, "share": None if mask is None else float(mask.mean())}
    return {"psnr": metrics.psnr(reference, other, mask), "share": float(mask.mean())}


def judge(rows: Rows) -> list[Finding]:
    half, brain = rows.pairs("shadows", "psnr", rows.models[0], "float16", "bfloat16")
    if not half:
        return []
    gain = stats.paired(half, brain)
    why = (
        f"Median PSNR where float32 is darker than L* 30. From float16 to bfloat16 it changes by {bounds(gain)} dB; three fraction bits fewer cost up to 18 dB. "
        "A level near 25 dB would be another picture, not another rounding.",
        f"float32 画面中 L* 低于 30 处的 PSNR 中位数。从 float16 换成 bfloat16 变化 {bounds(gain)} dB；少 3 位尾数最多损失 18 dB。"
        "25 dB 左右的水平意味着另一幅画，而不是另一种舍入。",
    )
    return [Finding("C4", settled(gain, gain.low > 0), decibels_by_model(rows, "shadows", "psnr"), why)]
