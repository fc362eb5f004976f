"""Do extreme latents survive the decoder and its clamp?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starrynight.lab import formats
from starrynight.lab.findings import (
    REFUTED,
    REPRODUCED,
    Finding,
    Rows,
    Words,
    by_model,
    figure,
    name_of,
    name_zh,
    sentences,
)
from starrynight.lab.plan import Point
from starrynight.lab.run import number

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

QUESTION = ("Do extreme latents survive the decoder and its clamp?", "极端的潜变量能否通过解码与钳位？")
CLAIMS = ("C10",)
PER = "format"
REFERENCE = True
TWIN = True
CLAIMED = -6.2
MAGNITUDES = (1.0, 3.0, 6.2, 12.0, 25.0, 100.0)


def measure(bench: Bench, point: Point) -> dict[str, Any]:
    """``clamped``: what the format makes of −6.2, as a number and clamped to −1…1. ``decoded``: for each magnitude,
    [least, greatest, NaN or Inf] that the decoder makes of noise with that extreme, of either sign, in it.
    """
    import torch

    hand = bench.hand(point.model, point.format)
    vae = getattr(hand.painter.pipeline, "vae", None)
    dtype = formats.stored(point.format)
    held = torch.tensor(CLAIMED, dtype=dtype)
    found: dict[str, Any] = {"clamped": [held.item(), held.clamp(-1, 1).item()], "decoded": {}}
    if vae is None or not hasattr(vae, "decoder"):
        return found
    channels = vae.config.get("latent_channels", 4)
    noise = torch.randn(1, channels, 16, 16, generator=torch.Generator().manual_seed(0))
    for magnitude in MAGNITUDES:
        latents = noise.clone()
        latents[..., 7, 7], latents[..., 8, 8] = -magnitude, magnitude
        found["decoded"][f"{magnitude:g}"] = _decoded(hand, vae, latents)
    return found


def _decoded(hand: Any, vae: Any, latents: Any) -> list[float]:
    import torch

    from starrynight.errors import BrokenNumbers

    try:
        with torch.no_grad(), hand.arithmetic():
            drawn = vae.decode(latents.to(hand.painter.device, vae.dtype)).sample.float()
    except BrokenNumbers:  # the guard stands at the decoder
        return [float("nan"), float("nan"), 1]
    return [drawn.min().item(), drawn.max().item(), int((~drawn.isfinite()).sum())]


def judge(rows: Rows) -> list[Finding]:
    if not rows.of("extremes", format_="float16"):
        return []

    def message(model: str, format_: str) -> str:
        result = rows.result("extremes", model, format_)
        if not result:
            return ""
        held, clamped = map(number, result["clamped"])
        low, high, broken = map(number, result["decoded"].get("6.2", ["nan", "nan", 0]))
        drawn = "NaN/Inf ✗" if broken else f"{figure(low)} … {figure(high)}"
        return f"{figure(held, 5)} → {figure(clamped)}; {drawn}"

    result = rows.result("extremes", rows.models[0], "float16")
    held, clamped = map(number, result["clamped"])
    black = [m for m in rows.models if _only_there(rows, m)]
    gist = (
        f"float16 holds −6.2 as {figure(held, 5)}, and its clamp gives {figure(clamped)}.",
        f"float16 把 −6.2 存作 {figure(held, 5)}，钳位得 {figure(clamped)}。",
    )
    why = sentences(
        (
            "What the format makes of −6.2, and of that the clamp to −1 … 1; then the range the decoder draws from latents with ±6.2 in them.",
            "−6.2 在该格式中的值，以及钳位到 −1…1 的结果；之后是解码器由含 ±6.2 的潜变量画出的范围。",
        ),
        gist,
        *(_broken(rows, model) for model in rows.models),
    )
    outcome = REPRODUCED if clamped != -1 or black else REFUTED
    return [Finding("C10", outcome, by_model(rows, message), why, gist)]


def _breaks(rows: Rows, model: str, format_: str) -> list[float]:
    """The magnitudes at which the decoder's numbers break."""
    decoded = rows.result("extremes", model, format_).get("decoded", {})
    return [float(magnitude) for magnitude, (_, _, broken) in decoded.items() if number(broken)]


def _only_there(rows: Rows, model: str) -> bool:
    """Whether it is the extreme that breaks float16's decoder: −6.2 does and an ordinary latent does not, and bfloat16
    bears both.
    """
    half, brain = (_breaks(rows, model, f) for f in ("float16", "bfloat16"))
    return -CLAIMED in half and MAGNITUDES[0] not in half and -CLAIMED not in brain


def _broken(rows: Rows, model: str) -> Words:
    if not rows.of("extremes", model, "float16"):
        return "", ""
    name, name_in_zh, half = name_of(model), name_zh(model), _breaks(rows, model, "float16")
    if not half:
        return (
            f"{name}'s decoder stays finite in float16 up to ±{MAGNITUDES[-1]:g}.",
            f"{name_in_zh}的解码器在 float16 下直到 ±{MAGNITUDES[-1]:g} 都有限。",
        )
    brain = _breaks(rows, model, "bfloat16")
    other = "breaks too" if min(half) in brain else "does not"
    other_zh = "也坏" if min(half) in brain else "不坏"
    if MAGNITUDES[0] in half:
        return (
            f"{name}'s breaks at ±{MAGNITUDES[0]:g} already, so −6.2 is not what breaks it but an activation inside (bfloat16 {other}).",
            f"{name_in_zh}的解码器在 ±{MAGNITUDES[0]:g} 就已坏掉：坏在内部的激活，与 −6.2 无关（bfloat16 {other_zh}）。",
        )
    return (
        f"{name}'s breaks from ±{min(half):g} on (bfloat16 {other}).",
        f"{name_in_zh}的解码器从 ±{min(half):g} 起坏掉（bfloat16 {other_zh}）。",
    )
