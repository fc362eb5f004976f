"""Experiments on finished pictures: each compares a painting with float32's, same prompt and seed, on float pixels.

``METRICS`` says what is measured, ``PAIRED_CLAIMS`` which claim about bfloat16 and float16 is decided by it: the median
of the paired differences with its interval. An experiment that differs only in metric, mask and claim is one entry in
each table. Likeness has no claim, so it has a judge of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from starrynight.i18n import Text
from starrynight.lab import metrics, stats
from starrynight.lab.findings import (
    MEASURED,
    Finding,
    Rows,
    conclude,
    explain_gain,
    format_interval,
    format_number,
    paired_outcome,
    too_few_pairs,
)
from starrynight.lab.plan import REFERENCE, Point
from starrynight.lab.stats import Estimate

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

CLAIMED_COLOUR = (18.1, 22.4)  # ΔE of bfloat16 and of float16
CLAIMED_HIGHLIGHT_GAP = 0.06  # 0.98 against 0.92
ENERGY_TOLERANCE = 0.01  # a smaller relative change of the detail's energy counts as none

# -- what is measured ------------------------------------------------------------------------------------------------


def _likeness(reference: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """PSNR in dB, SSIM, and NVIDIA's FLIP at 67 pixels per degree."""
    psnr, ssim = metrics.psnr(reference, other), metrics.ssim(reference, other)
    return {"psnr": psnr, "ssim": ssim, "flip": metrics.flip(reference, other)[0]}


def _roofs(reference: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """PSNR in the darkest twentieth of the reference, where roofs and trees stand in shadow."""
    return {"psnr": metrics.psnr(reference, other, metrics.darkest(reference))}


# experiment → the fields of a row, and the function of (reference, other) that computes them.
METRICS: dict[str, tuple[tuple[str, ...], Callable[[np.ndarray, np.ndarray], dict[str, float]]]] = {
    "likeness": (("psnr", "ssim", "flip"), _likeness),
    "roofs": (("psnr",), _roofs),
    "texture": (("decibels", "energy"), metrics.texture),
}


def measure(experiment: str) -> Callable[[Bench, Point], dict[str, Any]]:
    """The measurement of one entry of ``METRICS``; every field is None if either picture was refused."""
    fields, compare = METRICS[experiment]

    def compare_point(bench: Bench, point: Point) -> dict[str, Any]:
        reference, other = bench.reference(point).pixels, bench.painting(point).pixels
        if reference is None or other is None:
            return dict.fromkeys(fields)
        return dict(compare(reference, other))

    return compare_point


def measure_shadows(bench: Bench, point: Point) -> dict[str, Any]:
    """PSNR where the reference is darker than L* 30, and that area's share of the picture."""
    reference, other = bench.reference(point).pixels, bench.painting(point).pixels
    mask = None if reference is None else metrics.shadows(reference)
    if reference is None or other is None or mask is None:
        return {"psnr": None, "share": None if mask is None else float(mask.mean())}
    return {"psnr": metrics.psnr(reference, other, mask), "share": float(mask.mean())}


def measure_colour(bench: Bench, point: Point) -> dict[str, Any]:
    """ΔE2000 over the picture: mean and 99 % quantile. For float32 itself: the distance to the next prompt's picture,
    as a yardstick.
    """
    reference = bench.reference(point).pixels
    if point.format == REFERENCE:
        prompt, seed = point.picture
        point = Point("", point.model, REFERENCE, (prompt + 1) % bench.plan.prompts, seed)
    other = bench.painting(point).pixels
    if reference is None or other is None:
        return {"mean": None, "p99": None}
    difference = metrics.colour_difference(reference, other)
    return {"mean": float(difference.mean()), "p99": float(np.quantile(difference, 0.99))}


def measure_highlights(bench: Bench, point: Point) -> dict[str, Any]:
    """Luma of the brightest 3×3 patch, and the share of pixels at 0.98 and above; of this picture alone."""
    pixels = bench.painting(point).pixels
    return {"core": None, "over": None} if pixels is None else dict(metrics.highlights(pixels))


# -- how a claim is decided ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairs:
    """One field in float16 and bfloat16, for the pictures that have both; ``gap``: median of bfloat16 − float16."""

    float16: list[float]
    bfloat16: list[float]
    gap: Estimate


@dataclass(frozen=True)
class PairedClaim:
    """A claim on the paired difference of ``field`` between bfloat16 and float16, and how it is worded.

    ``method`` says what was measured, ``answer`` is the one-line answer, ``causes`` are sentences on why,
    ``figure(rows, model, format)`` is one format's figure ("" for none), ``holds`` decides from the gap.
    """

    claim: str
    field: str
    method: Callable[[Pairs], Text]
    answer: Callable[[Rows, Pairs], Text]
    causes: Callable[[Rows, Pairs], list[Text]]
    figure: Callable[[Rows, str, str], str]
    holds: Callable[[Estimate], bool] = lambda gap: gap.low > 0


def judge(experiment: str) -> Callable[[Rows], list[Finding]]:
    """The judge of one entry of ``PAIRED_CLAIMS``: the first model decides, every model's figures are shown."""

    def judge_rows(rows: Rows) -> list[Finding]:
        claim = PAIRED_CLAIMS[experiment]
        float16, bfloat16 = rows.pairs(experiment, claim.field, rows.models[0], "float16", "bfloat16")
        if not float16:
            return []
        pairs = Pairs(float16, bfloat16, stats.paired(float16, bfloat16))
        answer = claim.answer(rows, pairs)
        why = [claim.method(pairs), answer, *claim.causes(rows, pairs), too_few_pairs(pairs.gap)]
        outcome = paired_outcome(pairs.gap, claim.holds(pairs.gap))
        return [conclude(rows, claim.claim, outcome, partial(claim.figure, rows), why, answer)]

    return judge_rows


# colour


def _colour_method(pairs: Pairs) -> Text:
    gap = format_interval(pairs.gap)
    return Text(
        f"Median ΔE2000 from float32. Paired difference bfloat16 − float16: {gap}.",
        f"与 float32 的 ΔE2000 中位数。成对差 bfloat16 − float16：{gap}。",
    )


def _colour_answer(rows: Rows, pairs: Pairs) -> Text:
    """Whether the ratio of the errors is that of the probed fraction bits."""
    ratio = stats.ratio(pairs.float16, pairs.bfloat16)
    bits = rows.format_properties("float16")["fraction"] - rows.format_properties("bfloat16")["fraction"]
    times = f"bfloat16 ÷ float16 = {format_interval(ratio)}"
    if math.isnan(bits):
        return Text(f"{times}.", f"{times}。")
    if 0.5 < ratio.value / 2**bits < 2:
        return Text(
            f"{times}: {bits:.0f} fewer fraction bits round {2**bits:.0f} times as coarsely.",
            f"{times}：尾数少 {bits:.0f} 位，舍入步长是 {2**bits:.0f} 倍。",
        )
    return Text(
        f"{times}; rounding alone would give {2**bits:.0f}: there is another cause than fraction bits.",
        f"{times}；若只有舍入，应为 {2**bits:.0f}：原因不止尾数位数。",
    )


def _colour_causes(rows: Rows, pairs: Pairs) -> list[Text]:
    """What the claimed ΔE of 18–22 would mean here: float32's distance between two prompts is the yardstick."""
    apart = rows.median("colour", "mean", rows.models[0], REFERENCE).value
    worst, (low, high) = max(*pairs.float16, *pairs.bfloat16), CLAIMED_COLOUR
    if math.isnan(apart):
        return []
    en = f"Pictures of different prompts are ΔE {format_number(apart)} apart here"
    zh = f"此处不同提示词的画相距 ΔE {format_number(apart)}"
    if worst < low / 2 and apart > low / 2:
        return [Text(
            f"{en}: {low:.0f}–{high:.0f} would be a different picture, not a different rounding.",
            f"{zh}：{low:.0f}–{high:.0f} 意味着另一幅画，而不是另一种舍入。",
        )]  # fmt: skip
    return [Text(
        f"{en}; no picture in the two formats is farther than {format_number(worst)} from float32.",
        f"{zh}；两种格式的画与 float32 最远为 {format_number(worst)}。",
    )]  # fmt: skip


def _colour_figure(rows: Rows, model: str, format_: str) -> str:
    error = rows.median("colour", "mean", model, format_)
    return format_number(error.value) if error.count and format_ != REFERENCE else ""


# shadows and roofs: PSNR under a mask


def _shadows_method(pairs: Pairs) -> Text:
    return Text(
        f"Median PSNR where float32 is darker than L* {metrics.SHADOW_LIGHTNESS:.0f}; {pairs.gap.count} pictures have such an area.",
        f"float32 画面中 L* 低于 {metrics.SHADOW_LIGHTNESS:.0f} 处的 PSNR 中位数；{pairs.gap.count} 幅画有这样的区域。",
    )


def _roofs_method(_pairs: Pairs) -> Text:
    share = f"{100 * metrics.DARKEST_SHARE:.0f} %"
    return Text(
        f"Median PSNR in the darkest {share} of each picture, where roofs and trees stand in shadow.",
        f"每幅画最暗的 {share}（阴影里的屋顶与树）的 PSNR 中位数。",
    )


def _psnr_answer(_rows: Rows, pairs: Pairs) -> Text:
    gap = format_interval(pairs.gap)
    return Text(
        f"bfloat16 − float16: {gap} dB; claimed: +3.2.", f"bfloat16 − float16：{gap} dB；所称：+3.2。"
    )


def _psnr_causes(rows: Rows, pairs: Pairs) -> list[Text]:
    return [explain_gain(rows, pairs.gap)]


def _psnr_figure(experiment: str, rows: Rows, model: str, format_: str) -> str:
    found = rows.median(experiment, "psnr", model, format_)
    return format_number(found.value, 3, "dB") if found.count else ""


# highlights


def _highlights_method(_pairs: Pairs) -> Text:
    return Text(
        f"Median luma of the brightest 3×3 patch (in brackets: share of pixels at {metrics.OVEREXPOSED} and above).",
        f"最亮 3×3 区域的亮度中位数（括号内：{metrics.OVEREXPOSED} 及以上的像素占比）。",
    )


def _highlights_answer(_rows: Rows, pairs: Pairs) -> Text:
    gap = format_interval(stats.negated(pairs.gap), 2)
    return Text(
        f"float16 − bfloat16: {gap}; claimed: {CLAIMED_HIGHLIGHT_GAP}.",
        f"float16 − bfloat16：{gap}；所称：{CLAIMED_HIGHLIGHT_GAP}。",
    )


def _highlights_causes(rows: Rows, pairs: Pairs) -> list[Text]:
    """The gap against the spacing of numbers in 0.5 … 1, which follows from the probed fraction bits."""
    float16, bfloat16 = (2.0 ** -(rows.format_properties(f)["fraction"] + 1) for f in ("float16", "bfloat16"))
    if math.isnan(float16 + bfloat16):
        return []
    spacing = f"{format_number(bfloat16, 2)} : {format_number(float16, 2)}"
    within = abs(pairs.gap.value) <= max(float16, bfloat16)
    en = "less than one such step." if within else "more than one such step, so rounding does not explain it."
    zh = "不到一个间距。" if within else "超过一个间距，不能用舍入解释。"
    return [Text(
        f"Between 0.5 and 1, numbers are {spacing} apart (bfloat16 : float16). The measured difference is {en}",
        f"0.5 到 1 之间相邻两数的间距为 {spacing}（bfloat16 : float16）。实测之差{zh}",
    )]  # fmt: skip


def _highlights_hold(gap: Estimate) -> bool:
    brighter = stats.negated(gap)
    return brighter.low > 0 and brighter.contains(CLAIMED_HIGHLIGHT_GAP)


def _highlights_figure(rows: Rows, model: str, format_: str) -> str:
    core = rows.median("highlights", "core", model, format_)
    over = list(rows.values("highlights", "over", model, format_).values())
    return f"{core.value:.4f} ({100 * sum(over) / len(over):.3g} %)" if core.count else ""


# texture


def _texture_method(_pairs: Pairs) -> Text:
    return Text(
        "Median error in the detail that a one-pixel Gaussian blur removes (in brackets: that detail's energy relative to float32's).",
        "一像素高斯模糊所去除的细节的误差中位数（括号内：该细节的能量与 float32 之比）。",
    )


def _texture_answer(_rows: Rows, pairs: Pairs) -> Text:
    gap = format_interval(pairs.gap)
    return Text(f"bfloat16's error is {gap} dB above float16's.", f"bfloat16 的误差比 float16 高 {gap} dB。")


def _texture_causes(rows: Rows, pairs: Pairs) -> list[Text]:
    """Whether rounding explains the error, and whether detail is lost or gained or only displaced."""
    energy = {f: rows.median("texture", "energy", rows.models[0], f).value for f in ("float16", "bfloat16")}
    shares = ", ".join(f"{f} ×{v:.4f}" for f, v in energy.items())
    gain = explain_gain(rows, stats.negated(pairs.gap))
    if all(abs(v - 1) < ENERGY_TOLERANCE for v in energy.values()):
        return [gain, Text(
            f"Neither format loses or gains detail ({shares}): it is displaced.",
            f"两种格式的细节都不增不减（{shares}），只有偏移。",
        )]  # fmt: skip
    return [gain, Text(f"Detail is lost or gained: {shares}.", f"细节有增减：{shares}。")]


def _texture_figure(rows: Rows, model: str, format_: str) -> str:
    error, energy = (rows.median("texture", field, model, format_) for field in ("decibels", "energy"))
    return f"{format_number(error.value)} dB (×{energy.value:.4f})" if error.count else ""


PAIRED_CLAIMS = {
    "colour": PairedClaim(
        "C3", "mean", _colour_method, _colour_answer, _colour_causes, _colour_figure, lambda gap: gap.high < 0
    ),
    "shadows": PairedClaim(
        "C4", "psnr", _shadows_method, _psnr_answer, _psnr_causes, partial(_psnr_figure, "shadows")
    ),
    "roofs": PairedClaim(
        "C15", "psnr", _roofs_method, _psnr_answer, _psnr_causes, partial(_psnr_figure, "roofs")
    ),
    "highlights": PairedClaim(
        "C14",
        "core",
        _highlights_method,
        _highlights_answer,
        _highlights_causes,
        _highlights_figure,
        _highlights_hold,
    ),
    "texture": PairedClaim(
        "C19", "decibels", _texture_method, _texture_answer, _texture_causes, _texture_figure
    ),
}


def judge_likeness(rows: Rows) -> list[Finding]:
    def figure(model: str, format_: str) -> str:
        psnr, ssim, flip = (rows.median("likeness", f, model, format_) for f in ("psnr", "ssim", "flip"))
        return f"{format_number(psnr.value)} dB · {ssim.value:.4f} · {flip.value:.4f}" if psnr.count else ""

    bfloat16, float16 = rows.pairs("likeness", "psnr", rows.models[0], "bfloat16", "float16")
    gain = format_interval(stats.paired(bfloat16, float16)) if float16 else "–"
    summary = Text(f"PSNR, float16 − bfloat16: {gain} dB.", f"PSNR，float16 − bfloat16：{gain} dB。")
    method = Text(
        f"Medians of PSNR · SSIM · FLIP (a FLIP of 0 means equal). Paired difference of PSNR, float16 − bfloat16: {gain} dB.",
        f"PSNR · SSIM · FLIP 的中位数（FLIP 为 0 即相同）。PSNR 的成对差 float16 − bfloat16：{gain} dB。",
    )
    found = conclude(rows, "X1", MEASURED, figure, [method], summary)
    return [found] if found.figures else []
