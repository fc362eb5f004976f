"""What are the norms of three layers over the steps of noise?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from starrynight.lab import formats, thirds
from starrynight.lab.findings import REFUTED, UNDECIDED, Finding, Rows, by_model, figure
from starrynight.lab.plan import Point
from starrynight.lab.run import number

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

QUESTION = (
    "What are the norms of three layers over the steps of noise?",
    "三层网络在各噪声步上的范数是多少？",
)
CLAIMS = ("C7",)
PER = "format"
REFERENCE = True
TWIN = False


def measure(bench: Bench, point: Point) -> dict[str, Any]:
    """For each layer: the L2 norm of its weight at every step; the mean, deviation and norm of what it puts out."""
    from starrynight.errors import BrokenNumbers
    from starrynight.numerics.modules import tensors_in

    hand = bench.hand(point.model, point.format)
    request = bench.request(point.model).replace(steps=min(150, bench.plan.noise_steps))
    names = thirds.three_layers(hand.painter.denoiser)
    found: dict[str, dict[str, list[float]]] = {
        n: {k: [] for k in ("weight", "mean", "std", "norm")} for n in names
    }

    def look(name: str, module: Any, output: Any) -> None:
        numbers = next(iter(tensors_in(output))).detach().float()
        notes = found[name]
        notes["weight"].append(module.weight.detach().float().norm().item())
        notes["mean"].append(numbers.mean().item())
        notes["std"].append(numbers.std().item())
        notes["norm"].append(numbers.norm().item())

    modules = dict(hand.painter.denoiser.named_modules())
    hooks = [modules[n].register_forward_hook(lambda m, _, out, n=n: look(n, m, out)) for n in names]
    broke = False
    try:
        formats.paint(hand, request, lambda step: None)
    except BrokenNumbers:
        broke = True
    finally:
        for hook in hooks:
            hook.remove()
    return {
        "layers": found,
        "unet": thirds.is_unet(hand.painter.denoiser),
        "broke": broke,
        "steps": request.steps,
    }


def spread(values: list[Any]) -> tuple[float, float]:
    """Mean and standard deviation of what is finite."""
    finite = [number(v) for v in values if math.isfinite(number(v))]
    if not finite:
        return math.nan, math.nan
    mean = sum(finite) / len(finite)
    return mean, math.sqrt(sum((v - mean) ** 2 for v in finite) / len(finite))


def judge(rows: Rows) -> list[Finding]:
    half = rows.result("norms", rows.models[0], "float16")
    if not half:
        return []

    def say(model: str, format_: str) -> str:
        result = rows.result("norms", model, format_)
        told = " · ".join(_told(notes) for notes in result["layers"].values()) if result else ""
        return told + (" ✗" if result.get("broke") else "")

    names = ", ".join(half["layers"])
    where = (
        "the UNet's own layers" if half["unet"] else f"the corresponding layers of this transformer ({names})"
    )
    where_zh = "UNet 的原层" if half["unet"] else f"本变换器中相应的层（{names}）"
    still = all(spread(notes["weight"])[1] == 0 for notes in half["layers"].values())
    why = (
        f"On {where}, {half['steps']} steps of noise: norm of the weight ± spread (mean of what the layer puts out ± spread). "
        "A weight does not depend on the noise, so its norm does not spread, and no norm is −3.1; what moves is the activation, and it moves alike in every format.",
        f"测于{where_zh}，{half['steps']} 个噪声步：权重范数 ± 标准差（该层输出的均值 ± 标准差）。"
        "权重与噪声无关，其范数不会变动；范数也不可能是 −3.1。会动的是激活，而它在各格式下动得一样。",
    )
    return [Finding("C7", REFUTED if still else UNDECIDED, by_model(rows, say), why)]


def _told(notes: dict[str, list[Any]]) -> str:
    weight, still = spread(notes["weight"])
    mean, moving = spread(notes["mean"])
    return f"{figure(weight)}±{figure(still, 1)} ({figure(mean, 2)}±{figure(moving, 2)})"
