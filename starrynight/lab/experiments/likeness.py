"""How like the float32 picture is the whole, to a ruler and to an eye?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starrynight.lab import metrics, stats
from starrynight.lab.findings import MEASURED, Finding, Rows, bounds, by_model, figure, middle
from starrynight.lab.plan import Point

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

QUESTION = ("How like the float32 picture is the whole?", "整幅画与 float32 有多像？")
CLAIMS = ("X1",)
PER = "picture"
REFERENCE = False
TWIN = True


def measure(bench: Bench, point: Point) -> dict[str, Any]:
    """PSNR and SSIM, and NVIDIA's FLIP at 67 pixels a degree."""
    reference, other = bench.reference(point).pixels, bench.painting(point).pixels
    if reference is None or other is None:
        return {"psnr": None, "ssim": None, "flip": None}
    return {
        "psnr": metrics.psnr(reference, other),
        "ssim": metrics.ssim(reference, other),
        "flip": metrics.flip(reference, other)[0],
    }


def judge(rows: Rows) -> list[Finding]:
    def message(model: str, format_: str) -> str:
        psnr, ssim, flip = (
            middle(rows, "likeness", field, model, format_) for field in ("psnr", "ssim", "flip")
        )
        return f"{figure(psnr.value)} dB · {ssim.value:.4f} · {flip.value:.4f}" if psnr.count else ""

    figures = by_model(rows, message)
    if not figures:
        return []
    brain, half = rows.pairs("likeness", "psnr", rows.models[0], "bfloat16", "float16")
    gain = bounds(stats.paired(brain, half)) if half else "–"
    gist = f"float16 − bfloat16: {gain} dB.", f"float16 − bfloat16：{gain} dB。"
    why = (
        f"PSNR · SSIM · FLIP (0 is equal), medians. float16 − bfloat16 in pairs: {gain} dB.",
        f"PSNR · SSIM · FLIP（0 为相同），均为中位数。成对比较 float16 − bfloat16：{gain} dB。",
    )
    return [Finding("X1", MEASURED, figures, why, gist)]
