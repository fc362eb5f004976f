"""The registry of experiments. To add one: write ``measure`` and ``judge`` functions in the module of its subject
(pictures, refusals, latents, layers, training, memory, weights, hardware) and add a line to ``EXPERIMENTS``.

    measure(bench, point) -> dict     the raw numbers of one point, JSON values only
    judge(rows) -> list[Finding]      the verdicts that all rows of a run allow; [] while there are none

An experiment that compares a painting with float32's, and differs only in metric, mask and claim, is one entry in the
tables of ``pictures``. Importing this package does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from starrynight.i18n import Text
from starrynight.lab.experiments import (
    hardware,
    latents,
    layers,
    memory,
    pictures,
    refusals,
    training,
    weights,
)
from starrynight.lab.findings import Finding, Rows
from starrynight.lab.plan import REFERENCE, WIDE, ExperimentPlan, Point

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

Per = Literal["machine", "model", "format", "picture", "attempt"]


@dataclass(frozen=True)
class Experiment:
    """One question and how it is answered.

    ``per``: what one measurement is of; "attempt" is a picture that may be painted only to see whether it breaks.
    ``reference``: float32 is measured too. ``twin``: the wide twin is measured too; it has Firefly's sizes and times but
    larger activations, so experiments on size or time skip it.
    """

    name: str
    claims: tuple[str, ...]
    per: Per
    measure: Callable[[Bench, Point], dict[str, Any]]
    judge: Callable[[Rows], list[Finding]]
    question: Text
    reference: bool = True
    twin: bool = True


# The order within each ``per`` is the order in which points are measured.
EXPERIMENTS = {one.name: one for one in (
    Experiment("facts", ("C17",), "machine", hardware.measure_formats, hardware.judge_formats,
               Text("What are the formats: bits, range, spacing?", "各格式的位数、范围与间距是多少？"), twin=False),
    Experiment("products", ("C18",), "machine", hardware.measure_products, hardware.judge_products,
               Text("How fast are matrix products in each format here?", "本机各格式的矩阵乘法有多快？"), twin=False),
    Experiment("memory", ("C1", "C11", "C20"), "format", memory.measure_memory, memory.judge_memory,
               Text("How much memory does a picture take?", "一幅画要多少内存？"), twin=False),
    Experiment("extremes", ("C10",), "format", latents.measure_extremes, latents.judge_extremes,
               Text("Do extreme latents survive the decoder and its clamp?", "极端的潜变量能否通过解码与钳位？")),
    Experiment("banding", ("C16",), "format", latents.measure_banding, latents.judge_banding,
               Text("Does a smooth sky show bands?", "平滑的天空会出现色带吗？"), twin=False),
    Experiment("norms", ("C7",), "format", layers.measure_norms, layers.judge_norms,
               Text("What are the norms of three layers over the noise levels?", "三层网络在各级噪声上的范数是多少？"), twin=False),
    Experiment("layers", ("X3",), "format", layers.measure_layers, layers.judge_layers,
               Text("Where in the network does the error arise?", "误差产生于网络的何处？")),
    Experiment("training", ("C6",), "format", training.measure, training.judge,
               Text("Do gradients survive without loss scaling?", "不做损失缩放，梯度能保住吗？"), twin=False),
    Experiment("refusals", ("C5", "C9"), "attempt", refusals.measure, refusals.judge,
               Text("How many pictures break, and where?", "有多少幅画的数值会坏掉，坏在哪里？")),
    Experiment("colour", ("C3",), "picture", pictures.measure_colour, pictures.judge("colour"),
               Text("How far are the colours from float32's?", "颜色离 float32 有多远？")),
    Experiment("shadows", ("C4",), "picture", pictures.measure_shadows, pictures.judge("shadows"),
               Text("How much of the shadows' detail is kept?", "暗部细节保留了多少？"), reference=False),
    Experiment("roofs", ("C15",), "picture", pictures.measure("roofs"), pictures.judge("roofs"),
               Text("Does a roof in shadow keep more detail in bfloat16?", "阴影里的屋顶在 bfloat16 下更清楚吗？"), reference=False),
    Experiment("likeness", ("X1",), "picture", pictures.measure("likeness"), pictures.judge_likeness,
               Text("How similar is the whole picture to float32's?", "整幅画与 float32 有多像？"), reference=False),
    Experiment("latents", ("C8", "X2"), "picture", latents.measure_latents, latents.judge_latents,
               Text("How wide are the latents, and how far do they drift?", "潜变量的范围多大，逐步偏离多少？")),
    Experiment("highlights", ("C14",), "picture", pictures.measure_highlights, pictures.judge("highlights"),
               Text("Do bright stars clip?", "明亮的星会过曝吗？")),
    Experiment("texture", ("C19",), "picture", pictures.measure("texture"), pictures.judge("texture"),
               Text("Is very fine texture finer in float16?", "float16 的极细纹理更细吗？"), reference=False),
    Experiment("speed", ("C2",), "model", hardware.measure_speed, hardware.judge_speed,
               Text("How long does a picture take?", "一幅画要多久？"), twin=False),
    Experiment("loading", ("C13",), "model", hardware.measure_loading, hardware.judge_loading,
               Text("Does one 16-bit format load faster than the other?", "两种 16 位格式，哪个载入更快？"), twin=False),
    Experiment("weights", ("X4",), "model", weights.measure_weights, weights.judge_weights,
               Text("Which format of the weights should a small card take?", "小显卡该用哪种权重格式？"), twin=False),
    Experiment("offload", ("C12",), "model", memory.measure_offload, memory.judge_offload,
               Text("How much memory does model offload free?", "模型卸载能省多少内存？"), twin=False),
)}  # fmt: skip


def points(plan: ExperimentPlan) -> Iterator[Point]:
    """Every measurement of a plan, in an order that loads each model once per format and paints float32 first."""
    wanted = set(plan.claims)
    chosen = [one for one in EXPERIMENTS.values() if not wanted or wanted.intersection(one.claims)]

    def of(per: Per, model: str = "", format_: str = "") -> list[Experiment]:
        fitting = [one for one in chosen if one.per == per and (one.twin or model != WIDE)]
        return [one for one in fitting if one.reference or format_ != REFERENCE]

    yield from (Point(one.name, "", "") for one in of("machine"))
    for model in plan.models:
        for format_ in plan.formats:
            compared = plan.pictures(model, format_)
            for prompt, seed in plan.attempts(model, format_):
                measured = of("picture", model, format_) if (prompt, seed) in compared else []
                for one in of("attempt", model, format_) + measured:
                    yield Point(one.name, model, format_, prompt, seed)
            yield from (Point(one.name, model, format_) for one in of("format", model, format_))
        yield from (Point(one.name, model, "") for one in of("model", model))
