"""The denoiser's tensors by the names of the file that is written, and where each of their rows lies in the network.

ComfyUI and stable-diffusion.cpp read the makers' names; diffusers reads both. A single file keeps its own names. Of a
diffusers folder the makers' names are made for the families below, and checked: row numbers are sent through diffusers' own
converter and must arrive where they came from. Any other class keeps diffusers' names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from starrynight.errors import Unfit
from starrynight.models import convert, tensors, weights
from starrynight.models.adapter_names import unet_alias
from starrynight.models.catalogue import LocalModel
from starrynight.models.load import denoiser, denoiser_name
from starrynight.models.single_file import COMFY_PREFIX

# ``general.architecture`` of ComfyUI-GGUF (its ``loader.py``, IMG_ARCH_LIST) by diffusers' class. Z-Image is Lumina 2's kin.
ARCHITECTURES = {
    "ZImageTransformer2DModel": "lumina2",
    "Lumina2Transformer2DModel": "lumina2",
    "FluxTransformer2DModel": "flux",
    "ChromaTransformer2DModel": "flux",
    "SD3Transformer2DModel": "sd3",
    "AuraFlowTransformer2DModel": "aura",
    "HiDreamImageTransformer2DModel": "hidream",
    "QwenImageTransformer2DModel": "qwen_image",
    "WanTransformer3DModel": "wan",
    "LTXVideoTransformer3DModel": "ltxv",
    "HunyuanVideoTransformer3DModel": "hyvid",
    "CosmosTransformer3DModel": "cosmos",
}
# Below so many numbers a tensor stays in float32, as ComfyUI-GGUF's converter leaves it.
SMALL = 1024
# A tensor of rows: its name, and the pieces of the network that it stacks, each (parameter, half): the whole of it, or the
# second and then the first half of its rows.
_Pieces = list[tuple[str, str]]


@dataclass(frozen=True)
class DenoiserLayout:
    """``rows``: name in the file → [(parameter, its rows, rows of the file's tensor)], indices as slices or tensors.

    ``shapes``: by the file's names. ``layers``: names whose format is chosen, two-dimensional weights of linear layers;
    the others are stored as they are. ``makers``: whether the names are the makers', which every tool reads.
    """

    architecture: str
    shapes: Mapping[str, tuple[int, ...]]
    rows: Mapping[str, list[tuple[str, Tensor, Tensor]]]
    layers: tuple[str, ...]
    makers: bool

    @property
    def signature(self) -> dict[str, list[int]]:
        """What two models must share for one's sensitivities to serve the other."""
        return {name: list(self.shapes[name]) for name in self.layers}

    def weight(self, network: nn.Module, name: str) -> Tensor:
        """The tensor of the file's name, out of the network's parameters, in their format."""
        state = dict(network.state_dict(keep_vars=True))
        pieces = self.rows[name]
        whole = torch.empty(
            self.shapes[name], dtype=state[pieces[0][0]].dtype, device=state[pieces[0][0]].device
        )
        for parameter, theirs, ours in pieces:
            source = state[parameter].detach()
            if whole.dim() == 0:
                return source.clone()
            whole[ours.to(whole.device)] = source[theirs.to(whole.device)].reshape(-1, *whole.shape[1:])
        return whole

    @contextmanager
    def replaced(self, network: nn.Module, instead: Mapping[str, Tensor]) -> Iterator[None]:
        """The network with the tensors of the file's names in ``instead``; its own numbers come back afterwards."""
        state = dict(network.state_dict(keep_vars=True))
        kept = {piece[0]: state[piece[0]].detach().clone() for name in instead for piece in self.rows[name]}
        try:
            with torch.no_grad():
                for name, weight in instead.items():
                    for parameter, theirs, ours in self.rows[name]:
                        to = state[parameter]
                        values = weight[ours.to(weight.device)].to(to.device, to.dtype)
                        to[theirs.to(to.device)] = values.reshape(-1, *to.shape[1:])
            yield
        finally:
            with torch.no_grad():
                for parameter, before in kept.items():
                    state[parameter].copy_(before)


def of_model(model: LocalModel, pipeline: Any) -> DenoiserLayout:
    """The layout of a loaded model's denoiser. Raises as ``of_network``."""
    return of_network(model, denoiser(pipeline), denoiser_name(pipeline))


def of_files(model: LocalModel) -> DenoiserLayout:
    """The layout of a model's denoiser from its configuration and headers, without its weights. Raises as ``of_network``."""
    import diffusers

    index = weights.components(weights.read_json(model.folder / "model_index.json"))
    component = next((name for name in ("transformer", "unet") if name in index), None)
    if component is None:
        raise Unfit(f"{model.spec.en} has neither a transformer nor a unet.", f"{model.spec.zh} 没有 transformer 或 unet。")  # fmt: skip
    names = [name for file in model.files[component] for name in file.names]
    network = convert.empty(getattr(diffusers, index[component][1]), model.folder / component, names)
    return of_network(model, network, component)


def of_network(model: LocalModel, network: nn.Module, component: str) -> DenoiserLayout:
    """The layout of a denoiser, perhaps on the meta device. Raises Unfit for a class whose architecture no table knows."""
    kind = type(network).__name__
    architecture = ARCHITECTURES.get(kind) or _of_unet(kind, network)
    if architecture is None:
        raise Unfit(
            f"No tool that reads GGUF knows the class {kind}; those known are {', '.join(ARCHITECTURES)}.",
            f"没有读取 GGUF 的工具认识 {kind} 类；已知的有：{'、'.join(ARCHITECTURES)}。",
        )
    if (path := model.parts.get(component)) is not None:
        shapes, rows = _of_file(path, network)
        return _layout(architecture, network, shapes, rows, component, makers=not _is_own(network, shapes))
    makers = MAKERS.get(kind)
    pieces = makers(network) if makers else None
    if pieces is not None and _agrees(network, pieces):
        return _layout(architecture, network, *_stacked(network, pieces), component, makers=True)
    own: dict[str, _Pieces] = {name: [(name, "")] for name in network.state_dict()}
    return _layout(architecture, network, *_stacked(network, own), component, makers=False)


def _of_unet(kind: str, network: nn.Module) -> str | None:
    if kind != "UNet2DConditionModel":
        return None
    return "sdxl" if hasattr(network, "add_embedding") else "sd1"


def _layout(
    architecture: str, network: nn.Module, shapes: dict[str, tuple[int, ...]], rows: dict[str, list[tuple[str, Tensor, Tensor]]],
    component: str, makers: bool,
) -> DenoiserLayout:  # fmt: skip
    linear = {f"{name}.weight" for name, part in network.named_modules() if isinstance(part, nn.Linear)}
    layers = tuple(
        name
        for name, shape in shapes.items()
        if len(shape) == 2 and all(piece[0] in linear for piece in rows[name]) and shape[0] * shape[1] > SMALL
    )
    if not layers:
        raise Unfit(f"The {component} has no linear layers to choose formats for.", f"{component} 没有可选格式的线性层。")  # fmt: skip
    return DenoiserLayout(architecture, shapes, rows, layers, makers)


# -- a single file ---------------------------------------------------------------------------------------------------


def _of_file(path: Any, network: nn.Module) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    """Names and rows of a single file's tensors, without ComfyUI's prefix, through the way that fills the network."""
    companions = tensors.COMPANIONS
    stored = {
        name.removeprefix(COMFY_PREFIX): torch.empty(entry["shape"], device="meta")
        for name, entry in weights.header(path).items()
        if name != "__metadata__" and name.rpartition(".")[2] not in companions
    }
    found = convert.rows_of(network, stored)
    state, rows, first = network.state_dict(), {}, 0
    owners = _owners(found, sum(_count(tensor.shape) for tensor in stored.values()), state)
    for name, tensor in stored.items():
        count = _count(tensor.shape)
        pieces = _pieces(owners, first, count, list(state))
        first += count
        if pieces:
            rows[name] = pieces
    return {name: tuple(stored[name].shape) for name in rows}, rows


def _owners(found: Mapping[str, Tensor], total: int, state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """For each row of the file: the number of the parameter that it fills (−1: none), and its row there."""
    owner, place = torch.full((total,), -1, dtype=torch.long), torch.zeros(total, dtype=torch.long)
    for number, name in enumerate(state):
        if name in found:
            rows = found[name].reshape(-1)
            owner[rows], place[rows] = number, torch.arange(len(rows))
    return owner, place


def _pieces(
    owners: tuple[Tensor, Tensor], first: int, count: int, names: list[str]
) -> list[tuple[str, Tensor, Tensor]]:
    owner, place = (part[first : first + count] for part in owners)
    numbers = [int(number) for number in owner.unique() if number >= 0]
    return [(names[n], place[owner == n], (owner == n).nonzero().reshape(-1)) for n in numbers]


def _count(shape: torch.Size | tuple[int, ...]) -> int:
    return shape[0] if len(shape) else 1


def _is_own(network: nn.Module, shapes: Mapping[str, Any]) -> bool:
    """Whether a file's names are the network's own."""
    state = network.state_dict()
    return all(name in state for name in shapes)


# -- a folder --------------------------------------------------------------------------------------------------------


def _stacked(
    network: nn.Module, pieces: Mapping[str, _Pieces]
) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    state = network.state_dict()
    shapes, rows = {}, {}
    for name, parts in pieces.items():
        first, found = 0, []
        for parameter, half in parts:
            count = _count(state[parameter].shape)
            theirs = torch.arange(count).roll(count // 2 if half == "swapped" else 0)
            found.append((parameter, theirs, torch.arange(first, first + count)))
            first += count
        shape = tuple(state[parts[0][0]].shape)
        shapes[name], rows[name] = (first, *shape[1:]) if shape else (), found
    return shapes, rows


def _agrees(network: nn.Module, pieces: Mapping[str, _Pieces]) -> bool:
    """Whether diffusers' converter takes the makers' names back to where every row came from."""
    state = network.state_dict()
    shapes, rows = _stacked(network, pieces)
    if {piece[0] for parts in pieces.values() for piece in parts} != set(state):
        return False
    found = convert.rows_of(network, {n: torch.empty(shape, device="meta") for n, shape in shapes.items()})
    numbers, first = {name: torch.zeros(_count(state[name].shape), dtype=torch.long) for name in state}, 0
    for name, shape in shapes.items():
        for parameter, theirs, ours in rows[name]:
            numbers[parameter][theirs] = first + ours
        first += _count(shape)
    return set(found) == set(state) and all(
        bool((found[name].reshape(-1) == numbers[name]).all()) for name in state
    )


def _unet(network: nn.Module) -> dict[str, _Pieces]:
    """A UNet as Stability stores it; a layer that it has no name for keeps diffusers', and ``_agrees`` refuses the whole."""
    found: dict[str, _Pieces] = {}
    for name in network.state_dict():
        layer, _, ending = name.rpartition(".")
        found[f"{unet_alias(layer, network) or layer}.{ending}"] = [(name, "")]
    return found


def _zimage(network: nn.Module) -> dict[str, _Pieces]:
    """Z-Image as its makers store it (diffusers' ``convert_z_image_transformer_checkpoint_to_diffusers``, backwards)."""
    found: dict[str, _Pieces] = {}
    for name in network.state_dict():
        if re.search(r"\.attention\.to_[kv]\.weight$", name):
            continue
        if name.endswith(".attention.to_q.weight"):
            stem = name.removesuffix("to_q.weight")
            found[f"{stem}qkv.weight"] = [(f"{stem}to_{part}.weight", "") for part in "qkv"]
            continue
        theirs = name
        for ours, makers in (("all_final_layer.2-1.", "final_layer."), ("all_x_embedder.2-1.", "x_embedder."),
                             (".attention.to_out.0.", ".attention.out."), (".attention.norm_k.", ".attention.k_norm."),
                             (".attention.norm_q.", ".attention.q_norm.")):  # fmt: skip
            theirs = theirs.replace(ours, makers)
        found[theirs] = [(name, "")]
    return found


# Flux's names in diffusers → its makers'; "+" marks parts that are stacked under one name.
_FLUX = {
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "context_embedder": "txt_in",
    "x_embedder": "img_in",
    "proj_out": "final_layer.linear",
}
_FLUX_DOUBLE = {
    "norm1.linear": "img_mod.lin", "norm1_context.linear": "txt_mod.lin", "ff.net.0.proj": "img_mlp.0", "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0", "ff_context.net.2": "txt_mlp.2", "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "attn.to_q+attn.to_k+attn.to_v": "img_attn.qkv", "attn.add_q_proj+attn.add_k_proj+attn.add_v_proj": "txt_attn.qkv",
    "attn.norm_q": "img_attn.norm.query_norm", "attn.norm_k": "img_attn.norm.key_norm",
    "attn.norm_added_q": "txt_attn.norm.query_norm", "attn.norm_added_k": "txt_attn.norm.key_norm",
}  # fmt: skip
_FLUX_SINGLE = {
    "norm.linear": "modulation.lin", "attn.to_q+attn.to_k+attn.to_v+proj_mlp": "linear1", "proj_out": "linear2",
    "attn.norm_q": "norm.query_norm", "attn.norm_k": "norm.key_norm",
}  # fmt: skip


def _flux(network: nn.Module) -> dict[str, _Pieces]:
    """Flux as its makers store it (diffusers' ``convert_flux_transformer_checkpoint_to_diffusers``, backwards)."""
    names = list(network.state_dict())
    known, found = set(names), dict[str, _Pieces]()

    def put(ours: str, theirs: str, before: str = "", after: str = "") -> None:
        for ending in ("weight", "bias"):
            parts = [f"{before}{part}.{ending}" for part in ours.split("+")]
            if all(part in known for part in parts):
                last = "scale" if theirs.endswith("_norm") else ending
                found[f"{after}{theirs}.{last}"] = [(part, "") for part in parts]

    for ours, theirs in _FLUX.items():
        put(ours, theirs)
    for ours, theirs, table in (("transformer_blocks", "double_blocks", _FLUX_DOUBLE),
                                ("single_transformer_blocks", "single_blocks", _FLUX_SINGLE)):  # fmt: skip
        numbers = {name.split(".")[1] for name in names if name.startswith(f"{ours}.")}
        for number in sorted(numbers, key=int):
            for one, other in table.items():
                put(one, other, f"{ours}.{number}.", f"{theirs}.{number}.")
    for ending in ("weight", "bias"):
        found[f"final_layer.adaLN_modulation.1.{ending}"] = [(f"norm_out.linear.{ending}", "swapped")]
    return found


MAKERS: dict[str, Callable[[nn.Module], dict[str, _Pieces]]] = {
    "ZImageTransformer2DModel": _zimage,
    "FluxTransformer2DModel": _flux,
    "UNet2DConditionModel": _unet,
}
