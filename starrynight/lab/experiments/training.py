"""Experiment on training (C6): does the gradient of a LoRA survive a 16-bit format, or is loss scaling needed?

An element of the gradient counts as "flushed" where the format gives 0 and float32 does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from starrynight.i18n import Text
from starrynight.lab import formats
from starrynight.lab.findings import Finding, Row, Rows, conclude, format_number
from starrynight.lab.plan import EXTRAS, REFERENCE, Point
from starrynight.lab.run import number
from starrynight.lab.stats import median

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench
    from starrynight.lab.formats import FormatPainter

# torch.amp.GradScaler starts here and, as this experiment does, halves the scale when a gradient is not finite.
FIRST_SCALE = 2.0**16
RANK, LEARNING_RATE = 4, 1e-3
SIGMAS = (0.7, 0.3)  # noise level of each picture: one mostly noise, one mostly picture
FLUSHED_LIMIT = 0.001  # share of flushed elements above which scaling counts as needed
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


def measure(bench: Bench, point: Point) -> dict[str, Any]:
    """A few LoRA steps on the flow-matching loss, without (``plain``) and with (``scaled``) loss scaling. At every step:
    the shares of non-finite and of flushed elements, the distance from float32's gradient in dB, loss and scale.
    ``smallest``: the 1 %, 50 % and 99 % quantiles of |gradient| in float32 over all steps.

    The base weights are frozen in the format. The LoRA's weights are float32's own at each step, rounded to the format
    as mixed precision does, so that every step compares gradients at the same point. The backward pass runs under the
    same emulation as the forward pass.
    """
    import torch

    # A LoRA is not trained in float8.
    batch = None if point.format in EXTRAS else _training_batch(bench, point.model)
    if batch is None:
        return {"fits": False}
    reference = bench.painter(point.model, REFERENCE)
    steps = list(_reference_steps(reference, batch, bench.plan.training_steps))
    sizes = torch.cat([step.gradient for step in steps]).abs()
    painter = bench.painter(point.model, point.format)
    return {
        "fits": True,
        "elements": steps[0].gradient.numel(),
        "smallest": np.quantile(sizes.numpy(), [0.01, 0.5, 0.99]).tolist(),
        "plain": _compare(painter, batch, steps, 1.0),
        "scaled": _compare(painter, batch, steps, FIRST_SCALE),
    }


@dataclass
class TrainingBatch:
    """``noisy`` latents, ``clearness`` (1 − sigma), prompt ``embeddings``, and the velocity to learn as ``target``."""

    noisy: list[Any]
    clearness: Any
    embeddings: list[Any]
    target: Any


@dataclass
class ReferenceStep:
    """A step of the float32 training: the LoRA's weights before it, and the loss and gradient there."""

    weights: list[Any]
    loss: float
    gradient: Any


def _training_batch(bench: Bench, model: str) -> TrainingBatch | None:
    """The model's own float32 paintings, encoded, with noise; None for model families with another objective."""
    import torch

    painter = bench.painter(model, REFERENCE)
    pipeline = painter.pipeline
    if type(pipeline).__name__ != "ZImagePipeline":
        return None
    clean, embeddings = [], []
    for prompt in range(min(len(SIGMAS), bench.plan.prompts)):
        painting = bench.painting(Point("", model, REFERENCE, prompt, 0))
        if painting.pixels is None:
            return None
        pixels = torch.from_numpy(painting.pixels * 2 - 1).permute(2, 0, 1)[None]
        text = bench.request(model, prompt).prompt
        with torch.no_grad():
            latents = pipeline.vae.encode(pixels.to(painter.device)).latent_dist.mode().float()
            config = pipeline.vae.config
            clean.append((latents - (config.shift_factor or 0.0)) * config.scaling_factor)
            embeddings += pipeline.encode_prompt(text, do_classifier_free_guidance=False)[0]
    data = torch.cat(clean)
    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(0)).to(data)
    sigma = torch.tensor(SIGMAS[: len(data)]).to(data)
    level = sigma.view(-1, 1, 1, 1)
    noisy = (1 - level) * data + level * noise
    return TrainingBatch(list(noisy.unsqueeze(2)), 1 - sigma, embeddings, data - noise)


def _with_lora(painter: FormatPainter) -> Any:
    """A copy of the denoiser with a LoRA on its attention. Both factors start at 0.02·randn: with the usual B = 0, the
    gradient of A would be zero.
    """
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    network = formats.copy_without_hooks(painter.denoiser, keep_islands=True)
    network.requires_grad_(False)
    dtype = next(network.parameters()).dtype
    network = inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS), network)
    draw = torch.Generator().manual_seed(1)
    for parameter in _lora_parameters(network):
        parameter.data = torch.randn(parameter.shape, generator=draw).to(parameter.device, dtype) * 0.02
        parameter.requires_grad_(True)
    return network


def _lora_parameters(network: Any) -> list[Any]:
    return [p for n, p in network.named_parameters() if "lora_" in n]


def _gradient(painter: FormatPainter, network: Any, batch: TrainingBatch, scale: float) -> tuple[float, Any]:
    """(loss, unscaled gradient as one float32 vector); forward, loss and backward in the format's arithmetic."""
    import torch

    dtype = next(network.parameters()).dtype
    for parameter in _lora_parameters(network):
        parameter.grad = None
    with torch.enable_grad(), painter.arithmetic():
        noisy, embeddings = ([one.to(dtype) for one in part] for part in (batch.noisy, batch.embeddings))
        predicted = network(noisy, batch.clearness, embeddings, return_dict=False)[0]
        predicted = torch.stack([one.squeeze(1) for one in predicted])
        loss = ((predicted.float() - batch.target) ** 2).mean()
        (loss * scale).backward()
    return loss.item(), torch.cat([p.grad.flatten().float() / scale for p in _lora_parameters(network)])


def _reference_steps(painter: FormatPainter, batch: TrainingBatch, count: int) -> Iterator[ReferenceStep]:
    """Train in float32."""
    import torch

    network = _with_lora(painter)
    optimiser = torch.optim.AdamW(_lora_parameters(network), lr=LEARNING_RATE)
    for _ in range(count):
        weights = [p.detach().clone() for p in _lora_parameters(network)]
        loss, gradient = _gradient(painter, network, batch, 1.0)
        yield ReferenceStep(weights, loss, gradient)
        optimiser.step()


def _compare(
    painter: FormatPainter, batch: TrainingBatch, steps: list[ReferenceStep], scale: float
) -> dict[str, list[float]]:
    """The format's gradient at the weights of every reference step; ``scale`` is the first loss scale."""
    import torch

    network = _with_lora(painter)
    notes: dict[str, list[float]] = {k: [] for k in ("broken", "flushed", "error", "loss", "scale")}
    for step in steps:
        with torch.no_grad():
            for parameter, weights in zip(_lora_parameters(network), step.weights, strict=True):
                parameter.copy_(weights)
        while True:
            loss, gradient = _gradient(painter, network, batch, scale)
            if scale <= 1 or gradient.isfinite().all():
                break
            scale /= 2
        finite = gradient.isfinite()
        notes["broken"].append((~finite).float().mean().item())
        notes["flushed"].append(((gradient == 0) & (step.gradient != 0)).float().mean().item())
        error = (torch.where(finite, gradient, 0) - step.gradient).norm() / step.gradient.norm()
        notes["error"].append(20 * torch.log10(error).item())
        notes["loss"].append(loss)
        notes["scale"].append(scale)
    return notes


def judge(rows: Rows) -> list[Finding]:
    float16, bfloat16 = rows.two("training")
    if not float16.get("fits") or not bfloat16.get("fits"):
        return []

    def figure(model: str, format_: str) -> str:
        result = rows.result("training", model, format_)
        if not result.get("fits") or format_ == REFERENCE:
            return ""
        return f"{_format_notes(result['plain'])} ⇒ {_format_notes(result['scaled'])}"

    needed = _median(float16["plain"], "flushed") > FLUSHED_LIMIT or _any_broken(float16["plain"])
    most_flushed = max(map(number, bfloat16["plain"]["flushed"]))
    clean = not _any_broken(bfloat16["plain"]) and most_flushed < FLUSHED_LIMIT
    steps = len(float16["plain"]["loss"])
    q1, q50, q99 = (format_number(number(v), 2) for v in float16["smallest"])
    summary = _explain_scaling(rows, "float16", float16, needed)
    why = [
        Text(
            f"Figures: share of non-finite elements / share flushed to zero / distance from float32's gradient ⇒ the same with loss scaling; medians over {steps} LoRA steps. The 1, 50 and 99 % quantiles of float32's gradient are {q1}, {q50}, {q99}.",
            f"数字：非有限元素的比例 / 变为零的比例 / 与 float32 梯度的距离 ⇒ 加损失缩放之后；{steps} 个 LoRA 步的中位数。float32 梯度的 1、50、99% 分位数为 {q1}、{q50}、{q99}。",
        ),
        summary,
        _explain_scaling(rows, "bfloat16", bfloat16, not clean),
    ]
    return [conclude(rows, "C6", needed and clean, figure, why, summary)]


def _median(notes: dict[str, list[Any]], kind: str) -> float:
    return median([number(v) for v in notes[kind]]).value


def _any_broken(notes: dict[str, list[Any]]) -> bool:
    return any(number(v) > 0 for v in notes["broken"])


def _explain_scaling(rows: Rows, format_: str, found: Row, needed: bool) -> Text:
    """Whether a format needs loss scaling, what goes wrong without it, and how far the gradients are from float32's."""
    plain, scaled = (format_number(_median(found[k], "error")) for k in ("plain", "scaled"))
    if not needed:
        return Text(
            f"{format_} needs no loss scaling: its gradient is {plain} dB from float32's.",
            f"{format_} 无需损失缩放：梯度距 float32 {plain} dB。",
        )
    if _median(found["plain"], "flushed") > FLUSHED_LIMIT:
        least = format_number(rows.format_properties(format_)["tiny"], 1)
        why = Text(f"flushes numbers below {least} to zero", f"把小于 {least} 的数变为零")
    else:
        why = Text("gives Inf or NaN", "出现 Inf 或 NaN")
    return Text(
        f"{format_} {why.en}: its gradient is {plain} dB from float32's without loss scaling, {scaled} dB with it.",
        f"{format_} {why.zh}：梯度距 float32 {plain} dB，加损失缩放后 {scaled} dB。",
    )


def _format_notes(notes: dict[str, list[Any]]) -> str:
    broken, flushed, error = (_median(notes, kind) for kind in ("broken", "flushed", "error"))
    return f"{100 * broken:.3g} % / {100 * flushed:.3g} % / {format_number(error)} dB"
