"""Where in the network is the error born, and how near do its numbers come to the edge?"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from starrynight.errors import BrokenNumbers
from starrynight.lab import formats
from starrynight.lab.findings import (
    FLOAT16_LIMIT,
    MEASURED,
    Finding,
    Rows,
    Words,
    by_model,
    figure,
    finite,
    name_of,
    name_zh,
    peak,
    sentences,
)
from starrynight.lab.plan import REFERENCE as FLOAT32
from starrynight.lab.plan import Point
from starrynight.lab.run import number

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench

QUESTION = ("Where in the network is the error born?", "误差生于网络的何处？")
CLAIMS = ("X3",)
PER = "format"
REFERENCE = True
TWIN = True


def measure(bench: Bench, point: Point) -> dict[str, Any]:
    """For every module of the denoiser with weights, in the order they first end, at the first step of a picture:
    ``peak``: max|x| of what it puts out, as the format stores it; ``error``: its distance from float32's, in dB, with all
    that came before; ``born``: the same for this module alone, given the same input and weights in float32.
    """
    import torch

    call = _first_call(bench, point.model)
    if call is None:
        return {"layers": []}
    reference = _run(bench.hand(point.model, FLOAT32), call, keep=True)
    if point.format == FLOAT32:
        return {"layers": [{"name": n, "peak": note["peak"]} for n, note in reference.items()]}
    hand = bench.hand(point.model, point.format)
    with torch.no_grad():
        wide = formats.bare_copy(hand.painter.denoiser).float()
        notes = _run(hand, call, keep=True, wide=dict(wide.named_modules()))
    layers = []
    for name, note in notes.items():
        kept = reference.get(name, {}).get("output")
        error = _decibels(note["output"], kept) if kept is not None else math.nan
        layers.append({"name": name, "peak": note["peak"], "error": error, "born": note["born"]})
    return {"layers": layers}


def _first_call(bench: Bench, model: str) -> tuple[tuple, dict[str, Any]] | None:
    """What the float32 denoiser is given at its first step; None where the numbers break before."""
    hand = bench.hand(model, FLOAT32)
    seen: list[tuple[tuple, dict[str, Any]]] = []

    def note(_module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        if not seen:
            seen.append((args, kwargs))

    hook = hand.painter.denoiser.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with suppress(BrokenNumbers):  # perhaps later in the same step
            formats.paint(hand, bench.request(model).replace(steps=1), lambda step: None)
    finally:
        hook.remove()
    return seen[0] if seen else None


def _run(
    hand: formats.FormatPainter,
    call: tuple[tuple, dict[str, Any]],
    keep: bool,
    wide: dict[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """One call of the denoiser; {module: {"peak", "born", "output"}}. ``wide``: the same modules in float32."""
    import torch

    from starrynight.numerics.modules import tensors_in, watching

    denoiser = hand.painter.denoiser
    args, kwargs = (formats.fit(part, denoiser.dtype) for part in call)
    notes: dict[str, dict[str, Any]] = {}
    inputs: list[Any] = []

    def enter(name: str, module: Any, given: Any) -> None:
        inputs.append(given)

    def leave(name: str, module: Any, output: Any) -> None:
        given = inputs.pop()
        if name in notes or not _own_weights(module):
            return
        result = next(iter(tensors_in(output)), None)
        if result is None or not result.is_floating_point():
            return
        numbers = result.detach().float()
        born = math.nan
        if wide is not None:
            alone = wide[name](*formats.fit(given[0], torch.float32), **formats.fit(given[1], torch.float32))
            born = _decibels(numbers, next(iter(tensors_in(alone))).float(), aligned=True)
        notes[name] = {"peak": numbers.abs().max().item(), "born": born, "output": numbers if keep else None}

    with suppress(BrokenNumbers), torch.no_grad(), hand.arithmetic(), watching(denoiser, enter, leave):
        denoiser(*args, **kwargs)
    return notes


def _own_weights(module: Any) -> bool:
    """Leaves that multiply or scale, and the blocks that hold them; not lists and not the activation functions."""
    from torch import nn

    return any(True for _ in module.parameters()) and not isinstance(module, nn.ModuleList | nn.ModuleDict)


def _decibels(other: Any, reference: Any, aligned: bool = False) -> float:
    """20·log10 ‖other − reference‖ / ‖reference‖. A folded layer stores its numbers times a power of two: that power
    is divided out first, unless both are ``aligned``.
    """
    size = reference.norm().item()
    if not size or not math.isfinite(other.norm().item()):
        return math.nan
    if not aligned:
        along = (other.flatten() @ reference.flatten()).item() / size**2
        other = other / 2.0 ** round(math.log2(along)) if along > 0 else other
    error = (other - reference).norm().item() / size
    return 20 * math.log10(error) if error else -math.inf


def judge(rows: Rows) -> list[Finding]:
    def message(model: str, format_: str) -> str:
        layers = rows.result("layers", model, format_).get("layers", [])
        if not layers:
            return ""
        top = max(layers, key=lambda one: finite(one["peak"]))
        told = f"{figure(number(top['peak']))} ({top['name'] or 'output'})"
        inner = [one for one in layers if math.isfinite(number(one.get("born"))) and _is_leaf(one, layers)]
        if inner:
            worst = max(inner, key=lambda one: number(one["born"]))
            told += f"; {figure(number(worst['born']))} dB ({worst['name']})"
        return told

    figures = by_model(rows, message)
    rooms = [_room(rows, model) for model in figures]
    why = sentences(
        (
            f"At the first step: the largest number any layer stores; the layer in which most error is born. Float16 ends at {FLOAT16_LIMIT:.0f}.",
            f"第一步中：各层所存的最大数值；误差生得最多的一层。float16 的上限是 {FLOAT16_LIMIT:.0f}。",
        ),
        *rooms,
    )
    return [Finding("X3", MEASURED, figures, why, sentences(*rooms))] if figures else []


def _room(rows: Rows, model: str) -> Words:
    """Whether float16 has room for a model's numbers, and what folding makes of them."""
    true, half, folded = (peak(rows, model, f) for f in (FLOAT32, "float16", "float16-folded"))
    if math.isnan(true) or math.isnan(half):
        return "", ""
    inside, finite = true <= FLOAT16_LIMIT, math.isfinite(half)
    en = f"{name_of(model)} reaches {figure(true)} in float32, {'inside' if inside else 'beyond'} that, and float16 {'stays finite' if finite else 'meets Inf or NaN'}"
    zh = f"{name_zh(model)}在 float32 下达到 {figure(true)}，{'未超出' if inside else '超出'}上限，float16 {'始终有限' if finite else '遇到 Inf 或 NaN'}"
    if not math.isnan(folded):
        en, zh = f"{en}; folded it reaches {figure(folded)}", f"{zh}；折叠后达到 {figure(folded)}"
    return f"{en}.", f"{zh}。"


def _is_leaf(layer: dict[str, Any], layers: list[dict[str, Any]]) -> bool:
    return layer["name"] != "" and not any(other["name"].startswith(layer["name"] + ".") for other in layers)
