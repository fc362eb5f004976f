"""Do bright stars burn out?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starrynight.lab import metrics, stats
from starrynight.lab.findings import Finding, Rows, bounds, by_model, middle, settled
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

    def say(model: str, format_: str) -> str:
        core = middle(rows, "highlights", "core", model, format_)
        over = list(rows.values("highlights", "over", model, format_).values())
        return f"{core.value:.4f} ({100 * sum(over) / len(over):.3g} %)" if core.count else ""

    why = (
        f"Median luma of the brightest 3×3 patch (pixels at 0.98 and above). float16 − bfloat16 in pairs: {bounds(gap, 2)}, against the 0.06 claimed. "
        "How bright a star burns is the model's and the prompt's affair; near 0.95 bfloat16's steps are 0.004 and float16's 0.0005, both far finer than that.",
        f"最亮 3×3 区域的亮度中位数（0.98 及以上的像素占比）。成对比较 float16 − bfloat16：{bounds(gap, 2)}，所称为 0.06。"
        "星有多亮由模型与提示词决定；在 0.95 附近 bfloat16 的间距为 0.004，float16 为 0.0005，都远细于此。",
    )
    return [Finding("C14", settled(gap, 0 < gap.low <= CLAIMED_GAP <= gap.high), by_model(rows, say), why)]
