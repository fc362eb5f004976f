"""Is very fine texture finer in float16?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starrynight.lab import metrics, stats
from starrynight.lab.findings import (
    Finding,
    Rows,
    Words,
    bounds,
    by_model,
    decibels_for_bits,
    few,
    figure,
    middle,
    sentences,
    settled,
)
from starrynight.lab.plan import Point
from starrynight.lab.stats import negated

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

QUESTION = ("Is very fine texture finer in float16?", "float16 的极细纹理更细吗？")
CLAIMS = ("C19",)
PER = "picture"
REFERENCE = False
TWIN = True
STILL = 0.01  # a change of the detail's energy below this is none


def measure(bench: Bench, point: Point) -> dict[str, Any]:
    """In detail finer than a Gaussian of one pixel: the error in dB, and its energy over the reference's."""
    reference, other = bench.reference(point).pixels, bench.painting(point).pixels
    if reference is None or other is None:
        return {"decibels": None, "energy": None}
    return dict(metrics.texture(reference, other))


def judge(rows: Rows) -> list[Finding]:
    half, brain = rows.pairs("texture", "decibels", rows.models[0], "float16", "bfloat16")
    if not half:
        return []
    gap = stats.paired(half, brain)

    def message(model: str, format_: str) -> str:
        error = middle(rows, "texture", "decibels", model, format_)
        energy = middle(rows, "texture", "energy", model, format_)
        return f"{figure(error.value)} dB (×{energy.value:.4f})" if error.count else ""

    gist = (
        f"bfloat16's error is {bounds(gap)} dB above float16's.",
        f"bfloat16 的误差比 float16 高 {bounds(gap)} dB。",
    )
    why = sentences(
        (
            "Median error in detail finer than one pixel's blur (energy of that detail over float32's).",
            "细于一个像素模糊半径的细节误差中位数（该细节的能量与 float32 之比）。",
        ),
        gist,
        decibels_for_bits(rows, negated(gap)),
        _energy(rows),
        few(gap),
    )
    return [Finding("C19", settled(gap, gap.low > 0), by_model(rows, message), why, gist)]


def _energy(rows: Rows) -> Words:
    """Whether detail is lost or gained, or only displaced."""
    found = {f: middle(rows, "texture", "energy", rows.models[0], f).value for f in ("float16", "bfloat16")}
    told = ", ".join(f"{f} ×{v:.4f}" for f, v in found.items())
    if all(abs(v - 1) < STILL for v in found.values()):
        return (
            f"Neither loses or gains detail ({told}): it is displaced.",
            f"两者的细节都不增不减（{told}），只是有所偏移。",
        )
    return f"Detail is lost or gained: {told}.", f"细节有增减：{told}。"
