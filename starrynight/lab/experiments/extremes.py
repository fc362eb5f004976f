"""Do extreme latents survive the decoder and its clamp?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starrynight.lab.findings import REFUTED, REPRODUCED, Finding, Rows, by_model, figure
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
    dtype = {"float8": torch.bfloat16}.get(point.format) or getattr(
        torch, point.format.removesuffix("-folded")
    )
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

    def say(model: str, format_: str) -> str:
        result = rows.result("extremes", model, format_)
        if not result:
            return ""
        held, clamped = map(number, result["clamped"])
        low, high, broken = map(number, result["decoded"].get("6.2", ["nan", "nan", 0]))
        drawn = "NaN/Inf ✗" if broken else f"{figure(low)} … {figure(high)}"
        return f"{figure(held, 5)} → {figure(clamped)}; {drawn}"

    at_the_clamp = any(
        abs(number(r["result"]["clamped"][1])) != 1 for r in rows.of("extremes", format_="float16")
    )
    why = (
        "What the format makes of −6.2, and of that the clamp to −1 … 1; then the range the decoder draws from latents with ±6.2 in them. −6.2 is an ordinary float16 number "
        "(spacing 0.004), and a clamp cannot make an Inf. A picture goes black when an activation inside a network exceeds 65504, becomes Inf, and Inf − Inf or Inf · 0 becomes NaN.",
        "−6.2 在该格式中的值，以及钳位到 −1…1 的结果；之后是解码器由含 ±6.2 的潜变量画出的范围。−6.2 是再普通不过的 float16 数（间距 0.004），"
        "钳位不可能产生 Inf。画面变黑，是因为网络内部某个激活超过 65504 成为 Inf，再经 Inf − Inf 或 Inf · 0 成为 NaN。",
    )
    return [Finding("C10", REPRODUCED if at_the_clamp else REFUTED, by_model(rows, say), why)]
