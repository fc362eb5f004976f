"""Does a smooth sky fall into bands?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from starrynight.lab import formats, metrics
from starrynight.lab.findings import REFUTED, REPRODUCED, Finding, Rows, Words, by_model, facts, sentences
from starrynight.lab.plan import Point

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

QUESTION = ("Does a smooth sky fall into bands?", "平滑的天空会分成色带吗？")
CLAIMS = ("C16",)
PER = "format"
REFERENCE = True
TWIN = False
# A dusk sky from deep blue to violet, sRGB in 0..1, left to right.
BLUE, VIOLET = (0.05, 0.10, 0.45), (0.55, 0.25, 0.75)
WIDE, SIDE = 2048, 256


def measure(bench: Bench, point: Point) -> dict[str, Any]:
    """``stored``: the sky, 2048 pixels wide, kept in the format as a decoder's −1…1 and framed from it in the format,
    as a program that stays in 16 bits does. ``decoded``: a 256-pixel sky through the model's own autoencoder. Levels,
    longest flat run, visible steps of each (``metrics.banding``).
    """
    import torch

    hand = bench.hand(point.model, point.format)
    dtype = formats.stored(point.format)
    signed = torch.from_numpy(sky(WIDE) * 2 - 1).to(dtype)
    stored = ((signed / 2 + 0.5).float()).numpy()
    found = {"stored": metrics.banding(metrics.eight_bits(stored)), "decoded": None}
    decoded = _through(hand, sky(SIDE, SIDE))
    if decoded is not None:
        found["decoded"] = metrics.banding(metrics.eight_bits(decoded))
    return found


def sky(width: int, height: int = 8) -> np.ndarray:
    """float32 [height, width, 3] in 0..1."""
    along = np.linspace(0, 1, width, dtype=np.float32)[None, :, None]
    row = np.array(BLUE, np.float32) * (1 - along) + np.array(VIOLET, np.float32) * along
    return np.repeat(row, height, 0)


def _through(hand: Any, picture: np.ndarray) -> np.ndarray | None:
    """Encoded and decoded by the model; None without an autoencoder, or where its numbers break."""
    import torch

    from starrynight.errors import BrokenNumbers

    vae = getattr(hand.painter.pipeline, "vae", None)
    if vae is None or not hasattr(vae, "decoder"):
        return None
    pixels = torch.from_numpy(picture * 2 - 1).permute(2, 0, 1)[None].to(hand.painter.device, vae.dtype)
    try:
        with torch.no_grad(), hand.arithmetic():
            drawn = vae.decode(vae.encode(pixels).latent_dist.mode()).sample.float()
    except BrokenNumbers:
        return None
    if not drawn.isfinite().all():
        return None
    return (drawn[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).cpu().numpy()


def judge(rows: Rows) -> list[Finding]:
    model = rows.models[0]
    half, brain = (rows.result("banding", model, f) for f in ("float16", "bfloat16"))
    if not half or not brain:
        return []

    def message(one: str, format_: str) -> str:
        result = rows.result("banding", one, format_)
        return f"{_told(result['stored'])}; {_told(result['decoded'])}" if result else ""

    holds = half["stored"]["steps"] >= 2 and brain["stored"]["steps"] == 0
    steps = f"{half['stored']['steps']} : {brain['stored']['steps']}"
    seen = (
        f"Visible steps, float16 : bfloat16 = {steps}, where 2–3 : 0 is claimed.",
        f"可见台阶，float16 : bfloat16 = {steps}，所称为 2–3 : 0。",
    )
    why = sentences(
        (
            f"Colours (longest flat run in pixels, visible steps) of a blue-to-violet sky of {WIDE} pixels kept in the format; then of {SIDE} pixels through the autoencoder.",
            f"蓝紫天空以该格式保存后的颜色数（最长平段像素数，可见台阶数），宽 {WIDE} 像素；之后是 {SIDE} 像素经自编码器。",
        ),
        seen,
        _cause(rows, half["stored"], brain["stored"]),
    )
    return [Finding("C16", REPRODUCED if holds else REFUTED, by_model(rows, message), why, seen)]


def _cause(rows: Rows, half: dict[str, Any], brain: dict[str, Any]) -> Words:
    """Which format keeps fewer colours of the stored sky, and whether its fraction bits would have it so."""
    if half["levels"] == brain["levels"]:
        return "Both keep as many colours.", "两者留下的颜色一样多。"
    fewer, more = ("bfloat16", "float16") if brain["levels"] < half["levels"] else ("float16", "bfloat16")
    counts = f"{min(half['levels'], brain['levels'])} : {max(half['levels'], brain['levels'])}"
    short, long = facts(rows, fewer)["fraction"], facts(rows, more)["fraction"]
    bits = f" ({short:.0f} : {long:.0f} fraction bits)" if short < long else ""
    bits_zh = f"（尾数位 {short:.0f} : {long:.0f}）" if short < long else ""
    return (
        f"{fewer} keeps fewer colours than {more}, {counts}{bits}.",
        f"{fewer} 留下的颜色比 {more} 少，{counts}{bits_zh}。",
    )


def _told(result: dict[str, Any] | None) -> str:
    return f"{result['levels']} ({result['flat']}, {result['steps']})" if result else "–"
