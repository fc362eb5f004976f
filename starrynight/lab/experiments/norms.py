"""What are the norms of three layers over the levels of noise?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from starrynight.lab import block_groups, formats, levels
from starrynight.lab.findings import (
    REFUTED,
    REPRODUCED,
    UNDECIDED,
    Finding,
    Rows,
    by_model,
    figure,
    joined,
    sentences,
)
from starrynight.lab.plan import REFERENCE as FLOAT32
from starrynight.lab.plan import Point
from starrynight.lab.run import number

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

QUESTION = (
    "What are the norms of three layers over the levels of noise?",
    "三层网络在各级噪声上的范数是多少？",
)
CLAIMS = ("C7",)
PER = "format"
REFERENCE = True
TWIN = False
# How many times as far as bfloat16's the three values of float16 spread, by the claim: ±0.41, 9.3, 15.6 to ±0.38, 5.1, 8.2.
CLAIMED = (0.41 / 0.38, 9.3 / 5.1, 15.6 / 8.2)


def measure(bench: Bench, point: Point) -> dict[str, Any]:
    """A picture painted in float32, noised afresh to each level of the training noise, is shown to the denoiser once
    a level. For each of three layers: the L2 norm of its weight before and after; level by level the mean and deviation
    of what it puts out, and its norm. Every format is shown the very same.
    """
    from starrynight.errors import BrokenNumbers

    hand, truth = bench.hand(point.model, point.format), bench.hand(point.model, FLOAT32)
    names = block_groups.three_layers(hand.painter.denoiser)
    found: dict[str, Any] = {
        "layers": {n: {k: [] for k in ("weight", "mean", "std", "norm")} for n in names},
        "unet": block_groups.is_unet(hand.painter.denoiser),
        "named": names == list(block_groups.NAMED),
        "side": 0,
        "levels": 0,
        "of": 0,
        "broke": False,
    }
    try:
        walk = levels.walk(truth, bench.request(point.model))
        times = walk.times(bench.plan.noise_steps)
        found |= {"of": walk.levels, "side": walk.side}
        for count in _shown(hand, walk, times, found["layers"]):
            found["levels"] += count
    except BrokenNumbers:
        found["broke"] = True
    return found


def _shown(hand: formats.FormatPainter, walk: levels.Walk, times: list[Any], layers: dict[str, Any]) -> Any:
    """Show the levels, note what the layers put out, yield how many levels each call was."""
    import torch

    from starrynight.numerics.modules import tensors_in

    modules = {name: hand.painter.denoiser.get_submodule(name) for name in layers}

    def look(name: str, output: Any) -> None:
        numbers = next(iter(tensors_in(output))).detach().float().flatten(1)
        for kind, values in (
            ("mean", numbers.mean(1)),
            ("std", numbers.std(1)),
            ("norm", numbers.norm(dim=1)),
        ):
            layers[name][kind] += [_short(v) for v in values.tolist()]

    def weigh() -> None:
        for name, module in modules.items():
            layers[name]["weight"].append(module.weight.detach().float().norm().item())

    weigh()
    hooks = [m.register_forward_hook(lambda _m, _a, out, n=n: look(n, out)) for n, m in modules.items()]
    try:
        with torch.no_grad(), hand.arithmetic():
            for latents, named in walk.calls(times, hand.painter.denoiser.dtype):
                hand.painter.denoiser(latents, **named)
                yield len(latents)
    finally:
        for hook in hooks:
            hook.remove()
    weigh()


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def spread(values: list[Any]) -> tuple[float, float]:
    """Mean and standard deviation of what is finite."""
    finite = [number(v) for v in values if math.isfinite(number(v))]
    if not finite:
        return math.nan, math.nan
    mean = sum(finite) / len(finite)
    return mean, math.sqrt(sum((v - mean) ** 2 for v in finite) / len(finite))


def judge(rows: Rows) -> list[Finding]:
    half, brain = (rows.result("norms", rows.models[0], f) for f in ("float16", "bfloat16"))
    if not half.get("levels") or not brain.get("levels"):
        return []

    def message(model: str, format_: str) -> str:
        result = rows.result("norms", model, format_)
        told = " · ".join(_told(notes) for notes in result["layers"].values()) if result.get("levels") else ""
        return told + (" ✗" if told and result["broke"] else "")

    wider = [_wider(half["layers"][n], brain["layers"][n]) for n in half["layers"]]
    (weight, weight_zh), (where, where_zh) = _weights(half), _where(half)
    factors, claimed = (joined(f"×{v:.2f}" for v in found) for found in (wider, CLAIMED))
    gist = (
        f"What the layers put out spreads in float16 {factors} as far as in bfloat16; claimed: {claimed}.",
        f"各层输出的起伏，float16 是 bfloat16 的 {factors}；所称为 {claimed}。",
    )
    walked = (
        f"Walked: {half['levels']} of the {half['of']} levels of training noise; at each, a painted picture of {half['side']}² pixels under fresh noise passes once through {where}: norm of the weight ± spread "
        f"(mean of what the layer puts out ± spread). {weight}",
        f"走过训练噪声 {half['of']} 级中的 {half['levels']} 级；每级把一幅画好的 {half['side']}² 像素的画重新加噪，通过{where_zh}一次：权重范数 ± 标准差（该层输出的均值 ± 标准差）。"
        f"{weight_zh}",
    )
    halfway = [1 + (c - 1) / 2 for c in CLAIMED]
    outcome = REPRODUCED if all(w >= h for w, h in zip(wider, halfway, strict=True)) else REFUTED
    if any(math.isnan(w) for w in wider):
        outcome = UNDECIDED
    return [Finding("C7", outcome, by_model(rows, message), sentences(walked, gist), gist)]


def _wider(half: dict[str, Any], brain: dict[str, Any]) -> float:
    """How many times as far the layer's mean spreads over the levels in float16 as in bfloat16."""
    ours, theirs = spread(half["mean"])[1], spread(brain["mean"])[1]
    return ours / theirs if theirs else math.nan


def _weights(half: dict[str, Any]) -> tuple[str, str]:
    moved = [name for name, notes in half["layers"].items() if spread(notes["weight"])[1] != 0]
    if moved:
        return f"The weights of {joined(moved)} changed on the way.", f"{joined(moved)} 的权重在途中变了。"
    return (
        "No weight's norm moved at all: a weight does not hear the noise, so the spread that is claimed can only be an activation's.",
        "权重的范数纹丝不动：权重听不见噪声，所称的起伏只能是激活的。",
    )


def _where(half: dict[str, Any]) -> tuple[str, str]:
    names = joined(half["layers"])
    if half["named"]:
        return (
            f"the UNet, measured on the layers that the claim names ({names})",
            f" UNet（测的就是所称的三层：{names}）",
        )
    if half["unet"]:
        return (
            f"the UNet, which lacks the layers that the claim names and is measured on those in their place ({names})",
            f" UNet（没有所称的三层，测的是相应的层：{names}）",
        )
    return (
        f"the transformer, which is no UNet and is measured on the corresponding layers ({names})",
        f"变换器（不是 UNet，测的是相应的层：{names}）",
    )


def _told(notes: dict[str, list[Any]]) -> str:
    weight, still = spread(notes["weight"])
    mean, moving = spread(notes["mean"])
    return f"{figure(weight)}±{figure(still, 1)} ({figure(mean, 2)}±{figure(moving, 2)})"
