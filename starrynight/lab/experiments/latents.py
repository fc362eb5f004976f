"""Experiments on latents and on the decoder that turns them into pixels: their range and drift (C8, X2), extreme values
through the decoder (C10), and banding in a smooth sky (C16).
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from starrynight.errors import BrokenNumbers
from starrynight.i18n import Text
from starrynight.lab import formats, metrics, stats
from starrynight.lab.findings import (
    EMPTY,
    MEASURED,
    Finding,
    Row,
    Rows,
    conclude,
    format_number,
    name_of,
    name_zh,
)
from starrynight.lab.plan import REFERENCE, Point
from starrynight.lab.run import number

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench
    from starrynight.lab.formats import FormatPainter

CLAIMED_EXTREME = -6.2
MAGNITUDES = (1.0, 3.0, 6.2, 12.0, 25.0, 100.0)
# A dusk sky from deep blue to violet, sRGB in 0..1, left to right.
BLUE, VIOLET = (0.05, 0.10, 0.45), (0.55, 0.25, 0.75)
STORED_WIDTH, DECODED_SIDE = 2048, 256  # pixels

# -- range and drift -------------------------------------------------------------------------------------------------


def measure_latents(bench: Bench, point: Point) -> dict[str, Any]:
    """Least and greatest value of the noise at t = 1000 in the format and of the latents after every step; ``drift``:
    20·log10 of their relative distance from float32's. ``noise`` is None if float32 broke before its first step.
    """
    import torch

    from starrynight.numerics.rng import generator

    painting, reference = bench.painting(point), bench.reference(point)
    dtype = formats.storage_dtype(point.format)
    if not len(reference.latents):
        return {"noise": None, "drift": []}
    seed = bench.request(point.model, *point.picture).seed_of(0)
    shape = reference.latents.shape[1:]
    noise = torch.randn(shape, generator=generator(seed)).to(dtype).float()
    return {
        "noise": [noise.min().item(), noise.max().item()],
        "broken": int((~torch.isfinite(noise)).sum()),
        "numbers": noise.numel(),
        "low": [float(step.min()) for step in painting.latents],
        "high": [float(step.max()) for step in painting.latents],
        "drift": [_decibels(a, b) for a, b in zip(painting.latents, reference.latents, strict=False)],
    }


def _decibels(other: np.ndarray, reference: np.ndarray) -> float:
    error = float(np.linalg.norm(other - reference) / np.linalg.norm(reference))
    return 20 * math.log10(error) if error else -math.inf


def judge_latents(rows: Rows) -> list[Finding]:
    if not rows.of("latents", format_="float16"):
        return []
    return [one for one in (_judge_range(rows), _judge_drift(rows)) if one.figures]


def _with_noise(rows: Rows, model: str | None, format_: str) -> list[Row]:
    return [result for result in rows.results("latents", model, format_) if result["noise"]]


def _judge_range(rows: Rows) -> Finding:
    def figure(model: str, format_: str) -> str:
        found = _with_noise(rows, model, format_)
        if not found:
            return ""
        low, high = min(number(r["noise"][0]) for r in found), max(number(r["noise"][1]) for r in found)
        return f"{format_number(low)} … {format_number(high)} ({sum(r['broken'] for r in found)} Inf/NaN)"

    found = _with_noise(rows, None, "float16")
    broken, numbers = (sum(r[k] for r in found) for k in ("broken", "numbers"))
    widest = max((abs(number(v)) for r in found for v in r["noise"]), default=math.nan)
    limit = rows.format_properties("float16")["largest"]
    summary = Text(
        f"In float16, {broken} of {numbers} numbers are Inf or NaN.",
        f"float16 下 {numbers} 个数中有 {broken} 个 Inf 或 NaN。",
    )
    headroom = Text(
        f"The largest magnitude is {format_number(widest)}; the limit of float16 is {format_number(limit / widest, 2)} times as large.",
        f"最大绝对值为 {format_number(widest)}；float16 的上限是它的 {format_number(limit / widest, 2)} 倍。",
    )
    why = [
        Text(
            "At t = 1000 the latents are the noise itself, drawn from the seed before any network runs. Figures: the least … greatest value over all pictures.",
            "t = 1000 时潜变量就是由种子抽取的噪声，网络尚未运行。数字：所有画中的最小值 … 最大值。",
        ),
        summary,
        headroom if limit > widest else EMPTY,
    ]
    return conclude(rows, "C8", bool(broken), figure, why, summary)


def _judge_drift(rows: Rows) -> Finding:
    def figure(model: str, format_: str) -> str:
        drifts = [result["drift"] for result in rows.results("latents", model, format_) if result["drift"]]
        first, last = (stats.median([number(d[at]) for d in drifts]).value for at in (0, -1))
        known = format_ != REFERENCE and not math.isnan(last)
        return f"{format_number(first)} → {format_number(last)} dB" if known else ""

    method = Text(
        "Median distance of the latents from float32's after the first step → after the last; 6 dB are a factor of two.",
        "潜变量与 float32 的距离的中位数：第一步之后 → 最后一步之后；6 dB 相当于两倍。",
    )
    return conclude(rows, "X2", MEASURED, figure, [method])


# -- extreme latents through the decoder -----------------------------------------------------------------------------


def measure_extremes(bench: Bench, point: Point) -> dict[str, Any]:
    """``clamped``: −6.2 as the format stores it, and that value clamped to −1…1. ``decoded``: for each magnitude,
    [least, greatest, count of NaN and Inf] of what the decoder makes of noise that contains ± that magnitude.
    """
    import torch

    painter = bench.painter(point.model, point.format)
    vae = _autoencoder(painter)
    stored = torch.tensor(CLAIMED_EXTREME, dtype=formats.storage_dtype(point.format))
    found: dict[str, Any] = {"clamped": [stored.item(), stored.clamp(-1, 1).item()], "decoded": {}}
    if vae is None:
        return found
    channels = vae.config.get("latent_channels", 4)
    noise = torch.randn(1, channels, 16, 16, generator=torch.Generator().manual_seed(0))
    for magnitude in MAGNITUDES:
        latents = noise.clone()
        latents[..., 7, 7], latents[..., 8, 8] = -magnitude, magnitude
        found["decoded"][f"{magnitude:g}"] = _decoded_range(painter, vae, latents)
    return found


def _autoencoder(painter: FormatPainter) -> Any:
    """The pipeline's VAE, or None if it has no decoder."""
    vae = getattr(painter.pipeline, "vae", None)
    return vae if hasattr(vae, "decoder") else None


def _decoded_range(painter: FormatPainter, vae: Any, latents: Any) -> list[float]:
    import torch

    with suppress(BrokenNumbers), torch.no_grad(), painter.arithmetic():  # the guard checks the output
        decoded = vae.decode(latents.to(painter.device, vae.dtype)).sample.float()
        return [decoded.min().item(), decoded.max().item(), int((~decoded.isfinite()).sum())]
    return [math.nan, math.nan, 1]


def judge_extremes(rows: Rows) -> list[Finding]:
    if not rows.of("extremes", format_="float16"):
        return []

    def figure(model: str, format_: str) -> str:
        result = rows.result("extremes", model, format_)
        if not result:
            return ""
        stored, clamped = map(number, result["clamped"])
        low, high, broken = map(number, result["decoded"].get("6.2", ["nan", "nan", 0]))
        decoded = "NaN/Inf ✗" if broken else f"{format_number(low)} … {format_number(high)}"
        return f"{format_number(stored, 5)} → {format_number(clamped)}; {decoded}"

    result = rows.result("extremes", rows.models[0], "float16")
    stored, clamped = map(number, result["clamped"])
    summary = Text(
        f"float16 stores −6.2 as {format_number(stored, 5)}, and clamping gives {format_number(clamped)}.",
        f"float16 把 −6.2 存为 {format_number(stored, 5)}，钳位后为 {format_number(clamped)}。",
    )
    why = [
        Text(
            "Figures: −6.2 as the format stores it → clamped to −1 … 1; the range of the decoder's output for latents that contain ±6.2.",
            "数字：−6.2 在该格式中的值 → 钳位到 −1…1 之后；潜变量含 ±6.2 时解码器输出的范围。",
        ),
        summary,
        *(_explain_decoder(rows, model) for model in rows.models),
    ]
    holds = clamped != -1 or any(_extreme_breaks_it(rows, model) for model in rows.models)
    return [conclude(rows, "C10", holds, figure, why, summary)]


def _breaking_magnitudes(rows: Rows, model: str, format_: str) -> list[float]:
    """The magnitudes at which the decoder puts out NaN or Inf."""
    decoded = rows.result("extremes", model, format_).get("decoded", {})
    return [float(magnitude) for magnitude, (_, _, broken) in decoded.items() if number(broken)]


def _extreme_breaks_it(rows: Rows, model: str) -> bool:
    """Whether −6.2 itself breaks float16's decoder: an ordinary latent does not, and bfloat16 decodes −6.2."""
    float16, bfloat16 = (_breaking_magnitudes(rows, model, f) for f in ("float16", "bfloat16"))
    return -CLAIMED_EXTREME in float16 and MAGNITUDES[0] not in float16 and -CLAIMED_EXTREME not in bfloat16


def _explain_decoder(rows: Rows, model: str) -> Text:
    if not rows.of("extremes", model, "float16"):
        return EMPTY
    en, zh, float16 = name_of(model), name_zh(model), _breaking_magnitudes(rows, model, "float16")
    if not float16:
        return Text(
            f"{en}'s decoder stays finite in float16 up to ±{MAGNITUDES[-1]:g}.",
            f"{zh}的解码器在 float16 下直到 ±{MAGNITUDES[-1]:g} 都保持有限。",
        )
    both = min(float16) in _breaking_magnitudes(rows, model, "bfloat16")
    other, other_zh = ("breaks too", "也会") if both else ("does not", "不会")
    if MAGNITUDES[0] in float16:
        return Text(
            f"{en}'s decoder breaks at ±{MAGNITUDES[0]:g} already: the cause is an activation inside it, not −6.2 (bfloat16 {other}).",
            f"{zh}的解码器在 ±{MAGNITUDES[0]:g} 就已出现 NaN 或 Inf：原因是内部的激活值，而不是 −6.2（bfloat16 {other_zh}）。",
        )
    return Text(
        f"{en}'s decoder breaks from ±{min(float16):g} on (bfloat16 {other}).",
        f"{zh}的解码器从 ±{min(float16):g} 起出现 NaN 或 Inf（bfloat16 {other_zh}）。",
    )


# -- banding ---------------------------------------------------------------------------------------------------------


def measure_banding(bench: Bench, point: Point) -> dict[str, Any]:
    """``metrics.banding`` of two skies. ``stored``: 2048 pixels wide, rounded to the format as a decoder's output in
    −1…1, as in a program whose pixels stay in 16 bits. ``decoded``: 256 pixels, encoded and decoded by the model's own
    autoencoder; None without one, or if its numbers break.
    """
    import torch

    painter = bench.painter(point.model, point.format)
    signed = torch.from_numpy(sky(STORED_WIDTH) * 2 - 1).to(formats.storage_dtype(point.format))
    stored = ((signed / 2 + 0.5).float()).numpy()
    decoded = _through_autoencoder(painter, sky(DECODED_SIDE, DECODED_SIDE))
    return {
        "stored": metrics.banding(metrics.eight_bits(stored)),
        "decoded": None if decoded is None else metrics.banding(metrics.eight_bits(decoded)),
    }


def sky(width: int, height: int = 8) -> np.ndarray:
    """A linear gradient from ``BLUE`` to ``VIOLET``: float32 [height, width, 3] in 0..1."""
    along = np.linspace(0, 1, width, dtype=np.float32)[None, :, None]
    row = np.array(BLUE, np.float32) * (1 - along) + np.array(VIOLET, np.float32) * along
    return np.repeat(row, height, 0)


def _through_autoencoder(painter: FormatPainter, picture: np.ndarray) -> np.ndarray | None:
    import torch

    vae = _autoencoder(painter)
    if vae is None:
        return None
    pixels = torch.from_numpy(picture * 2 - 1).permute(2, 0, 1)[None].to(painter.device, vae.dtype)
    try:
        with torch.no_grad(), painter.arithmetic():
            decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample.float()
    except BrokenNumbers:
        return None
    if not decoded.isfinite().all():
        return None
    return (decoded[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).cpu().numpy()


def judge_banding(rows: Rows) -> list[Finding]:
    float16, bfloat16 = rows.two("banding")
    if not float16 or not bfloat16:
        return []

    def figure(one: str, format_: str) -> str:
        result = rows.result("banding", one, format_)
        return f"{_format_banding(result['stored'])}; {_format_banding(result['decoded'])}" if result else ""

    steps = float16["stored"]["steps"], bfloat16["stored"]["steps"]
    summary = Text(
        f"Visible steps, float16 : bfloat16 = {steps[0]} : {steps[1]}; claimed: 2–3 : 0.",
        f"可见台阶，float16 : bfloat16 = {steps[0]} : {steps[1]}；所称：2–3 : 0。",
    )
    why = [
        Text(
            f"Figures: colours (longest flat run in pixels, visible steps) of a blue-to-violet sky: {STORED_WIDTH} pixels wide, stored in the format; then {DECODED_SIDE} pixels wide, through the autoencoder.",
            f"数字：蓝紫天空的颜色数（最长平段的像素数，可见台阶数）：先是以该格式保存，宽 {STORED_WIDTH} 像素；再是经过自编码器，宽 {DECODED_SIDE} 像素。",
        ),
        summary,
        _explain_banding(rows, float16["stored"], bfloat16["stored"]),
    ]
    return [conclude(rows, "C16", steps[0] >= 2 and steps[1] == 0, figure, why, summary)]


def _explain_banding(rows: Rows, float16: Row, bfloat16: Row) -> Text:
    """Which format keeps fewer colours of the stored sky, and its fraction bits if they account for it."""
    levels = {"bfloat16": bfloat16["levels"], "float16": float16["levels"]}
    if levels["bfloat16"] == levels["float16"]:
        return Text("Both formats keep the same number of colours.", "两种格式保留的颜色一样多。")
    fewer, more = sorted(levels, key=lambda format_: levels[format_])
    counts = f"{levels[fewer]} : {levels[more]}"
    short, long = (rows.format_properties(f)["fraction"] for f in (fewer, more))
    bits = f" ({short:.0f} : {long:.0f} fraction bits)" if short < long else ""
    bits_zh = f"（尾数位 {short:.0f} : {long:.0f}）" if short < long else ""
    return Text(
        f"{fewer} keeps fewer colours than {more}, {counts}{bits}.",
        f"{fewer} 保留的颜色比 {more} 少，{counts}{bits_zh}。",
    )


def _format_banding(result: Row | None) -> str:
    return f"{result['levels']} ({result['flat']}, {result['steps']})" if result else "–"
