"""Add what LoRAs change to a pipeline's weights, and put the weights back exactly.

ΔW of each layer is computed against the weights as they were loaded, so the order of LoRAs means nothing, and rounded once
to the format that the weights are held in. On a folded model the weight is unfolded for that, which is exact, and ΔW is
multiplied by the weight's own power of two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from starrynight.errors import Unfit
from starrynight.models.adapter import Adapter
from starrynight.models.adapter_file import AdapterLayer
from starrynight.models.adapter_kinds import bias_difference, kind_of, weight_difference
from starrynight.models.adapter_names import Piece
from starrynight.models.kept import multiplied_out
from starrynight.numerics.dtypes import HALVES

Change = tuple[AdapterLayer, tuple[Piece, ...], float]


@contextmanager
def merged(pipeline: Any, adapters: Sequence[Adapter]) -> Iterator[None]:
    """The pipeline's weights plus what ``adapters`` add, for as long as the context lasts. Packed weights that they change
    (``kept``) are multiplied out meanwhile.

    Raises Unfit where a layer's weights are held in 8 bits or fewer. ``pipeline.merges`` holds what was added meanwhile,
    for a fallback that reads the weights from their files again (``add_merges``).
    """
    changes = [
        (layer, pieces, _weight(adapter, pieces)) for adapter in adapters for layer, pieces in adapter.layers
    ]
    touched = _touched(changes)
    kept: dict[tuple[str, str], tuple[Piece, Tensor | None]] = {}
    with multiplied_out(piece.module for piece in touched.values()):
        for adapter in adapters:
            _check_formats(adapter)
        pipeline.merges = changes
        try:
            for name, piece in touched.items():
                _merge(pipeline, name, piece, changes, kept)
            yield
        finally:
            pipeline.merges = []
            for (_, parameter), (piece, original) in kept.items():
                _put_back(piece.module, parameter, original)


def add_merges(pipeline: Any, parameters: Mapping[str, Tensor]) -> None:
    """Add to unfolded float32 ``parameters``, by component and name, what the LoRAs in force add to them."""
    changes: Sequence[Change] = getattr(pipeline, "merges", [])
    before: dict[str, Tensor] = {}
    for layer, pieces, factor in changes:
        keys = [f"{piece.name}.weight" for piece in pieces]
        if not all(key in parameters for key in keys):
            continue
        for key in keys:
            before.setdefault(key, parameters[key].clone())
        difference = weight_difference(layer, torch.cat([before[key] for key in keys]).float())
        for key, piece in zip(keys, pieces, strict=True):
            if difference is not None:
                part = difference[piece.start : piece.start + piece.rows]
                parameters[key][piece.at : piece.at + piece.rows] += factor * part


def _weight(adapter: Adapter, pieces: Sequence[Piece]) -> float:
    text, denoiser = adapter.weights
    return text if pieces[0].component.startswith("text_encoder") else denoiser


def _check_formats(adapter: Adapter) -> None:
    """The one check that the weights are numbers that a difference can be added to."""
    for _, pieces in adapter.layers:
        for piece in pieces:
            weight = piece.module._parameters.get("weight")
            if weight is None or weight.dtype not in (torch.float32, *HALVES):
                held = "another form" if weight is None else str(weight.dtype)[6:]
                raise Unfit(
                    f"The LoRA “{adapter.path.name}” has to be merged into {piece.name}, which is held in {held}; load the "
                    "model in bfloat16, float16 or float32 for it.",
                    f"LoRA“{adapter.path.name}”需要合并到 {piece.name}，而它以 {held} 保存；请以 bfloat16、float16 或 float32 载入模型。",
                )


def _touched(changes: Sequence[Change]) -> dict[str, Piece]:
    return {piece.name: piece for _, pieces, _ in changes for piece in pieces}


def _power(pipeline: Any, piece: Piece, parameter: str) -> float:
    return float(2.0 ** pipeline.folds.parameters.get(f"{piece.name}.{parameter}", 0))


def _merge(
    pipeline: Any,
    name: str,
    piece: Piece,
    changes: Sequence[Change],
    kept: dict[tuple[str, str], tuple[Piece, Tensor | None]],
) -> None:
    """Add every change of one module to its weight and bias; ``kept`` receives what they were."""
    totals: dict[str, Tensor] = {}
    for layer, pieces, factor in changes:
        own = [each for each in pieces if each.name == name]
        if own:
            for parameter, difference in _differences(pipeline, layer, pieces, kept).items():
                total = totals.setdefault(
                    parameter, torch.zeros_like(_original(own[0], parameter, kept).float())
                )
                for each in own:
                    total[each.at : each.at + each.rows] += (
                        factor * difference[each.start : each.start + each.rows]
                    )
    with torch.no_grad():
        for parameter, total in totals.items():
            original = _original(piece, parameter, kept)
            summed = original.to(total.device).float() + total * _power(pipeline, piece, parameter)
            held = piece.module._parameters.get(parameter)
            kept[name, parameter] = (piece, None if held is None else held.detach().to("cpu", copy=True))
            if held is None:
                weight = piece.module.weight
                piece.module.bias = nn.Parameter(summed.to(weight.device, weight.dtype), requires_grad=False)
            else:
                held.copy_(summed)


def _differences(
    pipeline: Any, layer: AdapterLayer, pieces: Sequence[Piece], kept: Mapping[tuple[str, str], Any]
) -> dict[str, Tensor]:
    """What a layer adds to the weight and the bias of all its pieces together, unfolded, in float32."""
    found = {}

    def whole(parameter: str) -> Tensor:
        rows = sorted(pieces, key=lambda piece: piece.start)
        return torch.cat([
            _original(piece, parameter, kept)[piece.at : piece.at + piece.rows].to(piece.module.weight.device).float()
            / _power(pipeline, piece, parameter) - pipeline.folds.offsets.get(f"{piece.name}.{parameter}", 0.0)
            for piece in rows
        ])  # fmt: skip

    with torch.no_grad():
        if kind_of(layer) != "bias" and (added := weight_difference(layer, whole("weight"))) is not None:
            found["weight"] = added
        if layer.parts.keys() & {"up_bias", "diff_b", "b_norm"}:
            added = bias_difference(layer, whole("bias"))
            assert added is not None
            found["bias"] = added
    return found


def _original(piece: Piece, parameter: str, kept: Mapping[tuple[str, str], Any]) -> Tensor:
    """A parameter as it was loaded; zeros for a bias that the layer does not have."""
    if (piece.name, parameter) in kept and kept[piece.name, parameter][1] is not None:
        original: Tensor = kept[piece.name, parameter][1]
        return original
    held = piece.module._parameters.get(parameter)
    if held is None or (piece.name, parameter) in kept:
        return torch.zeros(piece.module.weight.shape[0], device=piece.module.weight.device)
    return held.detach()


def _put_back(module: nn.Module, parameter: str, original: Tensor | None) -> None:
    if original is None:
        module._parameters[parameter] = None
        return
    held = module._parameters[parameter]
    assert held is not None
    with torch.no_grad():
        held.copy_(original) if held.dtype == original.dtype else setattr(
            held, "data", original.to(held.device)
        )
