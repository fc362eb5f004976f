"""A LoRA against one model: the ledger that accounts for its layers, and whether it may be applied at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from starrynight.errors import BadFile, Unfit
from starrynight.i18n import Text
from starrynight.models import embeddings, recognition
from starrynight.models.adapter_file import AdapterLayer, layers_of, read_layers
from starrynight.models.adapter_kinds import bias_difference, kind_of, label_of, scale_of, weight_difference
from starrynight.models.adapter_names import LayerNames, Piece
from starrynight.models.fit import Fit
from starrynight.models.kept import KeptLayer, shape_of
from starrynight.models.load import denoiser_name, networks
from starrynight.numerics.dtypes import HALVES
from starrynight.request import Lora, lora_weights
from starrynight.settings import settings


@dataclass(frozen=True)
class Adapter:
    """A LoRA that may be applied: its layers with the pieces of the model that they belong to."""

    path: Path
    weights: tuple[float, float]
    layers: tuple[tuple[AdapterLayer, tuple[Piece, ...]], ...]
    fit: Fit

    @property
    def is_plain(self) -> bool:
        """Whether PEFT can hold it: LoRA alone, at one weight for all components, on linear layers and convolutions."""
        return self.weights[0] == self.weights[1] and all(
            label_of(layer) == "LoRA" and "up_bias" not in layer.parts
            and all(isinstance(piece.module, nn.Linear | nn.Conv2d) for piece in pieces)
            for layer, pieces in self.layers
        )  # fmt: skip

    def merged_fit(self) -> Fit:
        """How it fits, with the number of layers whose packed weights are multiplied out to merge it."""
        modules = {piece.module for _, pieces in self.layers for piece in pieces}
        return replace(self.fit, multiplied_out=sum(isinstance(module, KeptLayer) for module in modules))

    def is_loaded_as(self, name: str, parts: Mapping[str, nn.Module]) -> bool:
        """Whether PEFT's adapter ``name`` is on exactly these layers and maps an input as the file says."""
        wanted = {piece.module: (layer, piece) for layer, pieces in self.layers for piece in pieces}
        found: list[Any] = [
            module for part in parts.values() for module in part.modules()
            if name in getattr(module, "lora_A", ()) and name in getattr(module, "lora_B", ())
        ]  # fmt: skip
        return {id(module.base_layer) for module in found} == {id(module) for module in wanted} and all(
            _agrees(module, name, *wanted[module.base_layer]) for module in found
        )


def read(pipeline: Any, path: Path, lora: Lora, model: str, partial_fit: bool = False) -> Adapter:
    """The LoRA of a file for a pipeline. Raises Unfit as ``lora.applied``, and what ``read_layers`` raises."""
    layers = read_layers(path)
    brought = _embeddings_of(pipeline, path)
    for name in [name for name, layer in layers.items() if any(map(layer.names[0].startswith, brought))]:
        del layers[name]
    whole = len(layers)
    names = LayerNames(networks(pipeline), denoiser_name(pipeline))
    placed, left = _placed(pipeline, layers.values(), names)
    if left and (converted := _converted(pipeline, layers)) is not None:
        other, missing = _placed(pipeline, converted.values(), names)
        if not missing:
            placed, left = other, []
    fitting = whole - len(left)
    fit = Fit(
        lora[0], path.name, lora_weights(lora), fitting, whole, tuple(layer.stem for layer in left),
        tuple(sorted(Counter(label_of(layer) for layer, _ in placed).items())),
        sum(layer.is_zero for layer, _ in placed), embeddings=tuple(brought.values()),
    )  # fmt: skip
    if not fit.fit:
        raise _fits_nothing(path, fit, model, any(names.find(layer.stem) for layer in left))
    _check(fit, left, model, partial_fit)
    return Adapter(path, fit.weights, tuple(placed), fit)


def _embeddings_of(pipeline: Any, path: Path) -> dict[str, str]:
    """The textual inversions in a LoRA's file that the pipeline's encoders read: beginning of their tensors' names → name."""
    found = {}
    for source in embeddings.bundled(path):
        with suppress(Unfit, BadFile):
            embeddings.tensors_for(embeddings.read(source), embeddings.clip_encoders(networks(pipeline)), "")
            found[source.prefix] = source.name
    return found


def _placed(
    pipeline: Any, layers: Iterable[AdapterLayer], names: LayerNames
) -> tuple[list[tuple[AdapterLayer, tuple[Piece, ...]]], list[AdapterLayer]]:
    """Layers with their pieces, and those left over: unknown, of another shape, or a second time for the same rows."""
    found = [(layer, names.find(layer.stem) if kind_of(layer) else ()) for layer in layers]
    taken: set[tuple[str, int, bool]] = set()
    placed, left = [], []
    for layer, pieces in sorted(
        found, key=lambda each: len(each[1])
    ):  # a fused layer beside its parts is redundant
        biased = kind_of(layer) == "bias"
        rows = {(piece.name, piece.at, biased) for piece in pieces}
        if pieces and not rows & taken and _fits(pipeline, layer, pieces):
            taken |= rows
            placed.append((layer, pieces))
        else:
            left.append(layer)
    order = {id(layer): number for number, (layer, _) in enumerate(found)}
    placed.sort(key=lambda each: order[id(each[0])])
    return placed, left


def _fits(pipeline: Any, layer: AdapterLayer, pieces: Sequence[Piece]) -> bool:
    """Whether the formulas accept the shapes. Computes on meta tensors, which hold no numbers."""
    shapes = [shape_of(piece.module) for piece in pieces]
    rows = sum(piece.rows for piece in pieces)
    weight = torch.empty(rows, *shapes[0][1:], device="meta")
    parts = {
        name: torch.empty(part.shape, device="meta")
        for name, part in layer.parts.items()
        if name != "on_input"
    }
    if "on_input" in layer.parts:
        parts["on_input"] = layer.parts["on_input"]
    shadow = AdapterLayer(layer.stem, parts, alpha=layer.alpha)
    try:
        weight_difference(shadow, weight)
        added = bias_difference(shadow, torch.empty(rows, device="meta"))
    except (ValueError, RuntimeError, IndexError, KeyError):
        return False
    return added is None or all(takes_bias(pipeline, piece) for piece in pieces)


def takes_bias(pipeline: Any, piece: Piece) -> bool:
    """Whether a bias can be added: the layer has one, or computes with one; under folds, only the first is known exactly."""
    if piece.module._parameters.get("bias") is not None:
        return True
    folded = any(name.startswith(f"{piece.component}.") for name in pipeline.folds.parameters)
    return isinstance(piece.module, nn.Linear | nn.Conv2d) and not folded


def _check(fit: Fit, left: Sequence[AdapterLayer], model: str, partial_fit: bool) -> None:
    """Raises Unfit where the LoRA is for another model, is of a kind that is not applied, or fits too little."""
    refused = next((layer.refused for layer in left if layer.refused), None)
    if refused and not (partial_fit and fit.fit):
        raise Unfit(
            f"The LoRA “{fit.file}” holds {refused.en}, which is not applied here ({fit.fit} of {fit.layers} layers would "
            "be); paint without that part with --lora-partial, or take another version of it.",
            f"LoRA“{fit.file}”含有{refused.zh}，此处不支持（{fit.layers} 层中可用 {fit.fit} 层）；可用 --lora-partial "
            "略去该部分，或换一个版本。",
        )
    if 2 * fit.fit < fit.layers and not partial_fit:
        said = fit.message()
        raise Unfit(
            f"The LoRA “{fit.file}” hardly fits {model}: {said.en}. It was probably made for another model; to apply what "
            "fits, add --lora-partial.",
            f"LoRA“{fit.file}”与 {model} 大多不匹配：{said.zh}。它多半是为别的模型训练的；若仍要使用匹配的部分，请加 --lora-partial。",
        )


def _fits_nothing(path: Path, fit: Fit, model: str, named: bool) -> Unfit:
    """Why no layer fits: the file is no LoRA, its layers have names of the model and other parts or shapes, or other names."""
    found = recognition.of_file(path)
    if found.kind not in ("lora", "unknown"):
        en, zh = found.title
        instead = {
            "embedding": Text(
                f"put it into {settings().embeddings} and write its name in the prompt",
                f"请放进 {settings().embeddings}，再把它的名字写进提示词",
            ),
        }.get(found.kind, Text("give a LoRA, or load a model with --model", "请给出 LoRA；模型请用 --model 载入"))  # fmt: skip
        return Unfit(
            f"“{fit.file}” is {en}, not a LoRA; {instead.en}.",
            f"“{fit.file}”是{zh}，不是 LoRA；{instead.zh}。",
        )
    if named:
        return Unfit(
            f"The LoRA “{fit.file}” has layers of {model} by name, but their parts or shapes fit none of them, such as "
            f"{fit.left[0]}; it is damaged or made for another size of the model.",
            f"LoRA“{fit.file}”的层名属于 {model}，但其内容或形状无一匹配，例如 {fit.left[0]}；它已损坏，或是为另一尺寸的模型训练的。",
        )
    return Unfit(
        f"The LoRA “{fit.file}” fits no layer of {model}; it was made for another model. Its layers have names such as "
        f"{fit.left[0]}.",
        f"LoRA“{fit.file}”与 {model} 的任何一层都不匹配；它是为别的模型训练的。其层名如 {fit.left[0]}。",
    )


def _converted(pipeline: Any, layers: Mapping[str, AdapterLayer]) -> dict[str, AdapterLayer] | None:
    """Plain LoRA layers as diffusers' own converter of the pipeline's family names them; None where it drops a matrix."""
    convert = getattr(pipeline, "lora_state_dict", None)
    if convert is None or any(label_of(layer) != "LoRA" for layer in layers.values()):
        return None
    raw = {name: tensor for layer in layers.values() for name, tensor in _tensors(layer).items()}
    try:
        answer = convert(raw)
        state, alphas = answer if isinstance(answer, tuple) else (answer, {})
        found = layers_of(state)
    except Exception:  # a converter of another layout fails in any way
        return None
    for name, alpha in (alphas or {}).items():
        if (layer := found.get(name.removesuffix(".alpha"))) is not None:
            layer.alpha = float(alpha)

    def count(layers: Mapping[str, AdapterLayer]) -> int:
        return sum(layer.parts["up"].numel() for layer in layers.values() if "up" in layer.parts)

    return found if count(found) == count(layers) else None


def _tensors(layer: AdapterLayer) -> dict[str, Tensor]:
    """The tensors of a plain LoRA layer under their names in the file."""
    values = iter(layer.parts.values())
    return {
        name: torch.tensor(layer.alpha) if name.endswith(".alpha") else next(values) for name in layer.names
    }


def _agrees(module: Any, name: str, layer: AdapterLayer, piece: Piece) -> bool:
    """Whether PEFT's matrices and scale map a random input as the file's do, to the precision they are held in."""
    down, up = layer.parts["down"].flatten(1).float(), layer.parts["up"].flatten(1).float()
    probe = torch.randn(down.shape[1], generator=torch.Generator().manual_seed(0))
    wanted = up[piece.start : piece.start + piece.rows] @ (down @ probe) * scale_of(layer, down.shape[0])
    first, second = (
        part[name].weight.detach().flatten(1).float().cpu() for part in (module.lora_A, module.lora_B)
    )
    if first.shape[1] != probe.shape[0] or second.shape[0] != wanted.shape[0]:
        return False
    held = module.lora_A[name].weight.dtype
    found = second @ (first @ probe) * float(module.scaling[name])
    bound = 0.05 if held in HALVES or down.dtype in HALVES else 1e-4
    return bool((found - wanted).norm() <= bound * wanted.norm() + 1e-12)
