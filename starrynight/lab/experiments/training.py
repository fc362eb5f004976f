"""Do gradients survive: is loss scaling needed?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starrynight.lab import formats
from starrynight.lab.findings import (
    REFUTED,
    REPRODUCED,
    Finding,
    Rows,
    Words,
    by_model,
    facts,
    figure,
    sentences,
)
from starrynight.lab.plan import EXTRAS, Point
from starrynight.lab.plan import REFERENCE as FLOAT32
from starrynight.lab.run import number
from starrynight.lab.stats import median

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

QUESTION = ("Do gradients survive without loss scaling?", "不做损失缩放，梯度能保住吗？")
CLAIMS = ("C6",)
PER = "format"
REFERENCE = True
TWIN = False
FIRST_SCALE = 2.0**16  # where torch's GradScaler begins; halved whenever a gradient is not finite, as it does
RANK, RATE = 4, 1e-3
WORTH_MENDING = 0.001  # share of gradients flushed from which scaling is called needed
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
# A gradient is "flushed" where the format holds 0 and float32 does not.


def measure(bench: Bench, point: Point) -> dict[str, Any]:
    """A few LoRA steps on the flow-matching loss, without and with loss scaling: at every step the share of gradient
    elements not finite, the share flushed to zero, the distance from float32's gradient; the losses.

    The base is frozen in the format; the LoRA's own weights are float32 copies rounded to it at each step, as mixed
    precision keeps them, and follow float32's path, so that every step compares the same point. The backward pass runs
    under the same emulation as the forward one.
    """
    lesson = None if point.format in EXTRAS else _lesson(bench, point.model)  # nobody trains a LoRA in float8
    if lesson is None:
        return {"fits": False}
    truth = bench.hand(point.model, FLOAT32)
    walk = list(_reference_walk(truth, lesson, bench.plan.training_steps))
    hand = bench.hand(point.model, point.format)
    found: dict[str, Any] = {"fits": True, "elements": walk[0].gradient.numel(), "smallest": _quantiles(walk)}
    for name, scale in (("plain", 1.0), ("scaled", FIRST_SCALE)):
        found[name] = _compare(hand, lesson, walk, scale)
    return found


@dataclass
class Stop:
    """A place on float32's way: the LoRA's weights, the loss and the gradient there."""

    weights: list[Any]
    loss: float
    gradient: Any


@dataclass
class Lesson:
    """Pictures to learn: noisy latents at their times, the words, and the velocity that is right."""

    arguments: tuple[Any, Any, Any]
    target: Any


def _lesson(bench: Bench, model: str) -> Lesson | None:
    """Float32 paintings of the model's own, encoded, with noise; None for a family that does not match flows so."""
    import torch

    hand = bench.hand(model, FLOAT32)
    pipeline = hand.painter.pipeline
    if type(pipeline).__name__ != "ZImagePipeline":
        return None
    draw = torch.Generator().manual_seed(0)
    clean, words = [], []
    for prompt in range(min(2, bench.plan.prompts)):
        painting = bench.painting(Point("", model, FLOAT32, prompt, 0))
        if painting.pixels is None:
            return None
        pixels = torch.from_numpy(painting.pixels * 2 - 1).permute(2, 0, 1)[None]
        with torch.no_grad():
            latents = pipeline.vae.encode(pixels.to(hand.painter.device)).latent_dist.mode().float()
            config = pipeline.vae.config
            clean.append((latents - (config.shift_factor or 0.0)) * config.scaling_factor)
            words += pipeline.encode_prompt(
                bench.request(model, prompt).prompt, do_classifier_free_guidance=False
            )[0]
    data = torch.cat(clean)
    noise = torch.randn(data.shape, generator=draw).to(data)
    sigma = torch.tensor([0.7, 0.3][: len(data)]).to(data)
    level = sigma.view(-1, 1, 1, 1)
    noisy = (1 - level) * data + level * noise
    return Lesson((list(noisy.unsqueeze(2)), 1 - sigma, words), data - noise)


def _network(hand: Any) -> Any:
    """A copy of the denoiser with a LoRA on its attention; ``B`` begins small but not zero, or A would learn nothing."""
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    network = formats.bare_copy(hand.painter.denoiser, with_islands=True)
    network.requires_grad_(False)
    dtype = next(network.parameters()).dtype
    network = inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS), network)
    draw = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=draw).to(parameter.device, dtype) * 0.02
            parameter.requires_grad_(True)
    return network


def _trained(network: Any) -> list[Any]:
    return [p for n, p in network.named_parameters() if "lora_" in n]


def _gradient(hand: Any, network: Any, lesson: Lesson, scale: float) -> tuple[float, Any]:
    """(loss, gradient as one float32 vector, unscaled). Forward, loss and backward under the format's arithmetic."""
    import torch

    noisy, clearness, words = lesson.arguments
    dtype = next(network.parameters()).dtype
    for parameter in _trained(network):
        parameter.grad = None
    with torch.enable_grad(), hand.arithmetic():
        answer = network(
            [x.to(dtype) for x in noisy], clearness, [w.to(dtype) for w in words], return_dict=False
        )[0]
        answer = torch.stack([a.squeeze(1) for a in answer])
        loss = ((answer.float() - lesson.target) ** 2).mean()
        (loss * scale).backward()
    return loss.item(), torch.cat([p.grad.flatten().float() / scale for p in _trained(network)])


def _reference_walk(hand: Any, lesson: Lesson, steps: int) -> Any:
    import torch

    network = _network(hand)
    optimiser = torch.optim.AdamW(_trained(network), lr=RATE)
    for _ in range(steps):
        weights = [p.detach().clone() for p in _trained(network)]
        loss, gradient = _gradient(hand, network, lesson, 1.0)
        yield Stop(weights, loss, gradient)
        optimiser.step()


def _compare(hand: Any, lesson: Lesson, walk: list[Stop], scale: float) -> dict[str, list[float]]:
    import torch

    network = _network(hand)
    notes: dict[str, list[float]] = {k: [] for k in ("broken", "flushed", "error", "loss", "scale")}
    for stop in walk:
        with torch.no_grad():
            for parameter, weights in zip(_trained(network), stop.weights, strict=True):
                parameter.copy_(weights)
        while True:
            loss, gradient = _gradient(hand, network, lesson, scale)
            if scale <= 1 or gradient.isfinite().all():
                break
            scale /= 2
        finite = gradient.isfinite()
        notes["broken"].append((~finite).float().mean().item())
        notes["flushed"].append(((gradient == 0) & (stop.gradient != 0)).float().mean().item())
        error = (torch.where(finite, gradient, 0) - stop.gradient).norm() / stop.gradient.norm()
        notes["error"].append(20 * torch.log10(error).item())
        notes["loss"].append(loss)
        notes["scale"].append(scale)
    return notes


def _quantiles(walk: list[Stop]) -> list[float]:
    """|gradient| in float32: the 1 %, 50 % and 99 % quantiles over all stops."""
    import numpy as np
    import torch

    sizes = torch.cat([stop.gradient for stop in walk]).abs().numpy()
    return [float(q) for q in np.quantile(sizes, [0.01, 0.5, 0.99])]


def judge(rows: Rows) -> list[Finding]:
    model = rows.models[0]
    half, brain = (rows.result("training", model, f) for f in ("float16", "bfloat16"))
    if not half.get("fits") or not brain.get("fits"):
        return []

    def message(one: str, format_: str) -> str:
        result = rows.result("training", one, format_)
        return (
            f"{_told(result['plain'])} ⇒ {_told(result['scaled'])}"
            if result.get("fits") and format_ != FLOAT32
            else ""
        )

    lost = median([number(v) for v in half["plain"]["flushed"]]).value
    needed = lost > WORTH_MENDING or any(number(v) > 0 for v in half["plain"]["broken"])
    clean = (
        all(number(v) == 0 for v in brain["plain"]["broken"])
        and max(map(number, brain["plain"]["flushed"])) < WORTH_MENDING
    )
    steps, (q1, q50, q99) = len(half["plain"]["loss"]), (figure(number(v), 2) for v in half["smallest"])
    scaling = _scaling(rows, "float16", half, needed)
    why = sentences(
        (
            f"Non-finite / flushed to zero / distance from float32's gradient ⇒ the same with loss scaling; medians over {steps} LoRA steps. Float32's gradients are {q1}, {q50}, {q99} (1, 50, 99 %).",
            f"非有限 / 被冲为零 / 与 float32 梯度的距离 ⇒ 加损失缩放之后；{steps} 个 LoRA 步的中位数。float32 梯度为 {q1}、{q50}、{q99}（1、50、99% 分位）。",
        ),
        scaling,
        _scaling(rows, "bfloat16", brain, not clean),
    )
    return [Finding("C6", REPRODUCED if needed and clean else REFUTED, by_model(rows, message), why, scaling)]


def _scaling(rows: Rows, format_: str, found: dict[str, Any], needed: bool) -> Words:
    """Whether a format's gradients need scaling, with the distances and, where zeros are the cause, its least number."""
    plain, scaled = (
        figure(median([number(v) for v in found[k]["error"]]).value) for k in ("plain", "scaled")
    )
    if not needed:
        return (
            f"{format_} keeps them without scaling: {plain} dB from float32's.",
            f"{format_} 不缩放也保得住：距 float32 {plain} dB。",
        )
    flushed = median([number(v) for v in found["plain"]["flushed"]]).value > WORTH_MENDING
    least = figure(facts(rows, format_)["tiny"], 1)
    why = (
        (f"loses what falls below {least} on the way", f"丢掉途中低于 {least} 的部分")
        if flushed
        else ("meets Inf or NaN", "遇到 Inf 或 NaN")
    )
    return (
        f"{format_} {why[0]}: {plain} dB from float32's without scaling, {scaled} dB with it.",
        f"{format_} {why[1]}：不缩放时距 float32 {plain} dB，缩放后 {scaled} dB。",
    )


def _told(notes: dict[str, list[Any]]) -> str:
    broken, flushed, error = (
        median([number(v) for v in notes[k]]).value for k in ("broken", "flushed", "error")
    )
    return f"{100 * broken:.3g} % / {100 * flushed:.3g} % / {figure(error)} dB"
