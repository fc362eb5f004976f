"""Experiments on the denoiser's layers: their largest numbers and where the error arises (X3), and the norms of three
layers over the levels of training noise (C7).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

from starrynight.errors import BrokenNumbers
from starrynight.i18n import Text
from starrynight.lab import formats
from starrynight.lab.findings import (
    EMPTY,
    FLOAT16_LIMIT,
    MEASURED,
    UNDECIDED,
    Finding,
    Row,
    Rows,
    conclude,
    finite_or_inf,
    format_number,
    join_names,
    join_sentences,
    name_of,
    name_zh,
)
from starrynight.lab.plan import REFERENCE, Point
from starrynight.lab.run import number

if TYPE_CHECKING:
    from starrynight.lab.bench import Bench
    from starrynight.lab.formats import FormatPainter
    from starrynight.lab.instruments import NoiseSweep

Call = tuple[tuple, dict[str, Any]]  # the arguments of one call of the denoiser
# How many times as far the three layers spread in float16 as in bfloat16, as claimed: ±0.41, 9.3, 15.6 to ±0.38, 5.1, 8.2.
CLAIMED_SPREADS = (0.41 / 0.38, 9.3 / 5.1, 15.6 / 8.2)

# -- peaks and errors ------------------------------------------------------------------------------------------------


def measure_layers(bench: Bench, point: Point) -> dict[str, Any]:
    """For every module of the denoiser with weights, in the order they finish, at the first step of a picture:

    ``peak``: max|x| of its output as the format stores it. ``error``: the output's distance from float32's in dB, with
    the error of all layers before it. ``born``: the error of this module alone, in dB: against the same module in
    float32, given the same input and weights.
    """
    import torch

    from starrynight.models.kept import KeptLayer

    call = _first_call(bench, point.model)
    if call is None:
        return {"layers": []}
    reference = _run(bench.painter(point.model, REFERENCE), call)
    if point.format == REFERENCE:
        return {"layers": [{"name": n, "peak": note["peak"]} for n, note in reference.items()]}
    painter = bench.painter(point.model, point.format)
    with torch.no_grad():
        upcast = formats.copy_without_hooks(painter.denoiser).float()
        for layer in upcast.modules():
            if isinstance(layer, KeptLayer):  # int8, whose integers no cast reaches
                layer.held = torch.float32
        notes = _run(painter, call, upcast=dict(upcast.named_modules()))
    layers = []
    for name, note in notes.items():
        expected = reference.get(name, {}).get("output")
        error = _decibels(note["output"], expected) if expected is not None else math.nan
        layers.append({"name": name, "peak": note["peak"], "error": error, "born": note["born"]})
    return {"layers": layers}


def _first_call(bench: Bench, model: str) -> Call | None:
    """The arguments of the float32 denoiser's first call; None if the numbers break before it."""
    painter = bench.painter(model, REFERENCE)
    calls: list[Call] = []

    def note(_module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        if not calls:
            calls.append((args, kwargs))

    hook = painter.denoiser.register_forward_pre_hook(note, with_kwargs=True)
    with hook, suppress(BrokenNumbers):  # they may break later in the same step
        formats.paint(painter, bench.request(model).replace(steps=1), lambda step: None)
    return calls[0] if calls else None


def _run(painter: FormatPainter, call: Call, upcast: dict[str, Any] | None = None) -> dict[str, Row]:
    """Call the denoiser once: {module: {"peak", "born", "output"}}. ``upcast``: the same modules in float32, which
    "born" is measured against; NaN without them.
    """
    import torch

    from starrynight.numerics.modules import tensors_in, watching

    args, kwargs = (formats.cast_arguments(part, painter.denoiser.dtype) for part in call)
    notes: dict[str, Row] = {}
    inputs: list[Call] = []

    def leave(name: str, module: Any, output: Any) -> None:
        given = inputs.pop()
        if name in notes or not _has_weights(module):
            return
        result = next(iter(tensors_in(output)), None)
        if result is None or not result.is_floating_point():
            return
        numbers = result.detach().float()
        born = math.nan
        if upcast is not None:
            given_args, given_kwargs = (formats.cast_arguments(part, torch.float32) for part in given)
            alone = upcast[name](*given_args, **given_kwargs)
            born = _decibels(numbers, next(iter(tensors_in(alone))).float(), same_scale=True)
        notes[name] = {"peak": numbers.abs().max().item(), "born": born, "output": numbers}

    watch = watching(painter.denoiser, lambda _name, _module, given: inputs.append(given), leave)
    with suppress(BrokenNumbers), torch.no_grad(), painter.arithmetic(), watch:
        painter.denoiser(*args, **kwargs)
    return notes


def _has_weights(module: Any) -> bool:
    """Layers with weights and the blocks that contain them; not activation functions."""
    from torch import nn

    from starrynight.models.kept import KeptLayer

    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        return False  # never called
    kept = any(isinstance(part, KeptLayer) for part in module.modules())
    return kept or any(True for _ in module.parameters())


def _decibels(other: Any, reference: Any, same_scale: bool = False) -> float:
    """20·log10(‖other − reference‖ / ‖reference‖).

    A folded layer stores its numbers times a power of two. Unless both have the ``same_scale``, the nearest power of two
    of their least-squares ratio is divided out first.
    """
    size = reference.norm().item()
    if not size or not math.isfinite(other.norm().item()):
        return math.nan
    if not same_scale:
        along = (other.flatten() @ reference.flatten()).item() / size**2
        other = other / 2.0 ** round(math.log2(along)) if along > 0 else other
    error = (other - reference).norm().item() / size
    return 20 * math.log10(error) if error else -math.inf


def judge_layers(rows: Rows) -> list[Finding]:
    def figure(model: str, format_: str) -> str:
        layers = rows.result("layers", model, format_).get("layers", [])
        if not layers:
            return ""
        top = max(layers, key=lambda one: finite_or_inf(one["peak"]))
        text = f"{format_number(number(top['peak']))} ({top['name'] or 'output'})"
        inner = [one for one in layers if math.isfinite(number(one.get("born"))) and _is_leaf(one, layers)]
        if inner:
            worst = max(inner, key=lambda one: number(one["born"]))
            text += f"; {format_number(number(worst['born']))} dB ({worst['name']})"
        return text

    method = Text(
        f"Figures, at the first step: the largest number that any layer stores; the layer in which the most error arises. Float16 ends at {FLOAT16_LIMIT:.0f}.",
        f"数字（第一步）：各层所存的最大数值；产生误差最多的一层。float16 的上限是 {FLOAT16_LIMIT:.0f}。",
    )
    headroom = join_sentences(*(_explain_headroom(rows, model) for model in rows.models))
    found = conclude(rows, "X3", MEASURED, figure, [method, headroom], headroom)
    return [found] if found.figures else []


def _explain_headroom(rows: Rows, model: str) -> Text:
    """Whether a model's numbers fit into float16, and how large they are after folding."""
    float32, float16, folded = (rows.layer_peak(model, f) for f in (REFERENCE, "float16", "float16-folded"))
    if math.isnan(float32) or math.isnan(float16):
        return EMPTY
    fits, finite = float32 <= FLOAT16_LIMIT, math.isfinite(float16)
    en = f"{name_of(model)} reaches {format_number(float32)} in float32, {'within' if fits else 'beyond'} float16's range; float16 {'stays finite' if finite else 'gives Inf or NaN'}"
    zh = f"{name_zh(model)}在 float32 下达到 {format_number(float32)}，{'未超出' if fits else '超出'} float16 的范围；float16 {'保持有限' if finite else '出现 Inf 或 NaN'}"
    if not math.isnan(folded):
        en += f"; after folding it reaches {format_number(folded)}"
        zh += f"；折叠后达到 {format_number(folded)}"
    return Text(f"{en}.", f"{zh}。")


def _is_leaf(layer: Row, layers: list[Row]) -> bool:
    return layer["name"] != "" and not any(other["name"].startswith(layer["name"] + ".") for other in layers)


# -- norms over the noise levels -------------------------------------------------------------------------------------


def measure_norms(bench: Bench, point: Point) -> dict[str, Any]:
    """A picture painted in float32 gets fresh noise at each level of the training noise and passes through the denoiser
    once a level. Every format gets the same inputs.

    For each of three layers: ``weight``: the L2 norm of its weight before and after; ``mean``, ``std``, ``norm`` of its
    output at each level. ``unet``, ``named``: which layers these are; ``side``: of the picture, in pixels; ``levels`` done,
    ``of`` all; ``broke``: the numbers broke on the way.
    """
    from starrynight.lab import instruments

    painter, reference = bench.painter(point.model, point.format), bench.painter(point.model, REFERENCE)
    names = instruments.three_layers(painter.denoiser)
    found: dict[str, Any] = {
        "layers": {n: {k: [] for k in ("weight", "mean", "std", "norm")} for n in names},
        "unet": instruments.is_unet(painter.denoiser),
        "named": names == list(instruments.CLAIMED_LAYERS),
        "side": 0,
        "levels": 0,
        "of": 0,
        "broke": False,
    }
    try:
        sweep = instruments.noise_sweep(reference, bench.request(point.model))
        found |= {"of": sweep.levels, "side": sweep.side}
        for count in _run_levels(painter, sweep, sweep.times(bench.plan.noise_steps), found["layers"]):
            found["levels"] += count
    except BrokenNumbers:
        found["broke"] = True
    return found


def _run_levels(painter: FormatPainter, sweep: NoiseSweep, times: list[Any], layers: Row) -> Iterator[int]:
    """Run the levels, append to ``layers`` what they put out, and yield how many levels each call had."""
    import torch

    from starrynight.numerics.modules import tensors_in

    modules = {name: painter.denoiser.get_submodule(name) for name in layers}

    def note_output(name: str, output: Any) -> None:
        numbers = next(iter(tensors_in(output))).detach().float().flatten(1)
        statistics = {"mean": numbers.mean(1), "std": numbers.std(1), "norm": numbers.norm(dim=1)}
        for kind, values in statistics.items():
            # Five significant digits: a thousand levels of three layers would fill a row with more.
            layers[name][kind] += [float(f"{v:.5g}") for v in values.tolist()]

    def note_weights() -> None:
        for name, module in modules.items():
            layers[name]["weight"].append(module.weight.detach().float().norm().item())

    note_weights()
    with ExitStack() as hooks, torch.no_grad(), painter.arithmetic():
        for n, m in modules.items():
            hooks.enter_context(m.register_forward_hook(lambda _m, _a, out, n=n: note_output(n, out)))
        for latents, others in sweep.calls(times, painter.denoiser.dtype):
            painter.denoiser(latents, **others)
            yield len(latents)
    note_weights()


def spread(values: list[Any]) -> tuple[float, float]:
    """Mean and standard deviation of the finite values."""
    finite = [number(v) for v in values if math.isfinite(number(v))]
    return (fmean(finite), pstdev(finite)) if finite else (math.nan, math.nan)


def judge_norms(rows: Rows) -> list[Finding]:
    float16, bfloat16 = rows.two("norms")
    if not float16.get("levels") or not bfloat16.get("levels"):
        return []

    def figure(model: str, format_: str) -> str:
        result = rows.result("norms", model, format_)
        if not result.get("levels"):
            return ""
        return " · ".join(map(_format_layer, result["layers"].values())) + (" ✗" if result["broke"] else "")

    ratios = [_spread_ratio(float16["layers"][n], bfloat16["layers"][n]) for n in float16["layers"]]
    measured, claimed = (join_names(f"×{v:.2f}" for v in found) for found in (ratios, CLAIMED_SPREADS))
    summary = Text(
        f"Ratio of the outputs' spread, float16 ÷ bfloat16: {measured}; claimed: {claimed}.",
        f"各层输出的标准差之比 float16 ÷ bfloat16：{measured}；所称：{claimed}。",
    )
    where = _describe_layers(float16)
    method = Text(
        f"Measured at {float16['levels']} of the {float16['of']} levels of training noise: at each, a painted picture of {float16['side']}² pixels with fresh noise passes once through {where.en}. "
        "Figures: norm of the weight ± its spread (mean of the output ± its spread).",
        f"在训练噪声 {float16['of']} 级中的 {float16['levels']} 级上测量：每级把一幅 {float16['side']}² 像素的画重新加噪，通过{where.zh}一次。数字：权重范数 ± 标准差（输出均值 ± 标准差）。",
    )
    # At least half of the claimed excess counts as reproduced.
    halfway = [1 + (c - 1) / 2 for c in CLAIMED_SPREADS]
    holds = all(ratio >= least for ratio, least in zip(ratios, halfway, strict=True))
    outcome = UNDECIDED if any(math.isnan(r) for r in ratios) else holds
    return [conclude(rows, "C7", outcome, figure, [method, _explain_weights(float16), summary], summary)]


def _spread_ratio(float16: Row, bfloat16: Row) -> float:
    """How many times as far a layer's mean spreads over the levels in float16 as in bfloat16."""
    ours, theirs = spread(float16["mean"])[1], spread(bfloat16["mean"])[1]
    return ours / theirs if theirs else math.nan


def _explain_weights(float16: Row) -> Text:
    moved = [name for name, notes in float16["layers"].items() if spread(notes["weight"])[1] != 0]
    if moved:
        return Text(
            f"The weights of {join_names(moved)} changed during the measurement.",
            f"{join_names(moved)} 的权重在测量中发生了变化。",
        )
    return Text(
        "No weight's norm changed: weights do not depend on the noise level, so the claimed spread can only be that of activations.",
        "权重的范数没有变化：权重与噪声级别无关，所称的起伏只可能来自激活值。",
    )


def _describe_layers(float16: Row) -> Text:
    """Whether the layers are those of the claim."""
    names = join_names(float16["layers"])
    if float16["named"]:
        return Text(
            f"the UNet, measured on the layers that the claim names ({names})",
            f" UNet（测的就是所称的三层：{names}）",
        )
    if float16["unet"]:
        return Text(
            f"the UNet, which lacks the layers that the claim names and is measured on their counterparts ({names})",
            f" UNet（没有所称的三层，测的是相应的层：{names}）",
        )
    return Text(
        f"the transformer, which has no such layers and is measured on their counterparts ({names})",
        f"变换器（没有这样的层，测的是相应的层：{names}）",
    )


def _format_layer(notes: dict[str, list[Any]]) -> str:
    weight, weight_spread = spread(notes["weight"])
    mean, mean_spread = spread(notes["mean"])
    weights = f"{format_number(weight)}±{format_number(weight_spread, 1)}"
    return f"{weights} ({format_number(mean, 2)}±{format_number(mean_spread, 2)})"
