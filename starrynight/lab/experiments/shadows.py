"""How much of the shadows' detail is kept?"""

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
    gist = (
        f"bfloat16 − float16: {bounds(gain)} dB, claimed +3.2.",
        f"bfloat16 − float16：{bounds(gain)} dB，所称为 +3.2。",
    )
    why = sentences(
        (
            f"Median PSNR where float32 is darker than L* {metrics.SHADOW_LIGHTNESS:.0f}; {gain.count} pictures have such shadows.",
            f"float32 画面中 L* 低于 {metrics.SHADOW_LIGHTNESS:.0f} 处的 PSNR 中位数；{gain.count} 幅画有这样的暗部。",
        ),
        gist,
        decibels_for_bits(rows, gain),
        few(gain),
    )
    return [Finding("C4", settled(gain, gain.low > 0), decibels_by_model(rows, "shadows", "psnr"), why, gist)]
