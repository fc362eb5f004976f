"""Which parameters of a pipeline a LoRA's layer belongs to, in every layout that trainers write.

Names are compared without their separators' difference: kohya writes ``layers_0_attention_to_q`` for
``layers.0.attention.to_q``. The makers' own names (``attention.qkv``, ``input_blocks.4.1``, ``double_blocks.0.img_attn.qkv``)
are derived from diffusers' names in the model; a fused layer becomes the rows of several. The tables are those by which
diffusers converts checkpoints (``diffusers/loaders/single_file_utils.py``, 0.42).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from starrynight.models.kept import KeptLayer, shape_of

# Prefixes of the denoiser's layers, and of text encoders', with the component's name. The longest that matches wins.
DENOISER_PREFIXES = ("base_model.model.", "diffusion_model.", "model.diffusion_model.", "transformer.", "unet.", "lora_unet_",
                     "lora_transformer_", "lora_prior_unet_", "lycoris_", "")  # fmt: skip
ENCODER_PREFIXES = {
    "text_encoder.": "text_encoder", "text_encoder_2.": "text_encoder_2", "text_encoder_3.": "text_encoder_3",
    "lora_te_": "text_encoder", "lora_te1_": "text_encoder", "lora_te2_": "text_encoder_2", "lora_te3_": "text_encoder_3",
    "te1_": "text_encoder", "te2_": "text_encoder_2", "lycoris_": "text_encoder",
    "text_encoders.clip_l.transformer.": "text_encoder", "text_encoders.clip_g.transformer.": "text_encoder_2",
    "text_encoders.t5xxl.transformer.": "text_encoder_2", "text_encoders.qwen3_4b.transformer.": "text_encoder",
    "clip_l.transformer.": "text_encoder", "clip_g.transformer.": "text_encoder_2",
}  # fmt: skip

# What DataParallel, PEFT, Lightning and DiffSynth put before the names of a whole module; and torch.compile's and FSDP's names
# in kohya's spelling, lora_unet__orig_mod_layers_0 (``weights.unwrapped`` has those between dots).
WRAPPERS = (
    "module.",
    "base_model.model.",
    "base_model.",
    "model.",
    "pipe.",
    "dit.",
    "state_dict.",
    "network.",
    "denoiser.",
)
_COMPILED = re.compile(r"(?<=_)_(?:orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module)_")

# A name in diffusers → the makers' name; "{n}" would be ambiguous, so groups are written as \1.
_ZIMAGE = (
    (r"(.*attention\.)to_out\.0", r"\1out"), (r"(.*attention\.)norm_([qk])", r"\1\2_norm"),
    (r"all_x_embedder\.\d+-\d+", "x_embedder"), (r"all_final_layer\.\d+-\d+\.(.*)", r"final_layer.\1"),
)  # fmt: skip
_FLUX = (
    (r"time_text_embed\.timestep_embedder\.linear_1", "time_in.in_layer"),
    (r"time_text_embed\.timestep_embedder\.linear_2", "time_in.out_layer"),
    (r"time_text_embed\.text_embedder\.linear_1", "vector_in.in_layer"),
    (r"time_text_embed\.text_embedder\.linear_2", "vector_in.out_layer"),
    (r"time_text_embed\.guidance_embedder\.linear_1", "guidance_in.in_layer"),
    (r"time_text_embed\.guidance_embedder\.linear_2", "guidance_in.out_layer"),
    (r"context_embedder", "txt_in"), (r"x_embedder", "img_in"), (r"proj_out", "final_layer.linear"),
    (r"transformer_blocks\.(\d+)\.norm1\.linear", r"double_blocks.\1.img_mod.lin"),
    (r"transformer_blocks\.(\d+)\.norm1_context\.linear", r"double_blocks.\1.txt_mod.lin"),
    (r"transformer_blocks\.(\d+)\.attn\.norm_q", r"double_blocks.\1.img_attn.norm.query_norm"),
    (r"transformer_blocks\.(\d+)\.attn\.norm_k", r"double_blocks.\1.img_attn.norm.key_norm"),
    (r"transformer_blocks\.(\d+)\.attn\.norm_added_q", r"double_blocks.\1.txt_attn.norm.query_norm"),
    (r"transformer_blocks\.(\d+)\.attn\.norm_added_k", r"double_blocks.\1.txt_attn.norm.key_norm"),
    (r"transformer_blocks\.(\d+)\.attn\.to_out\.0", r"double_blocks.\1.img_attn.proj"),
    (r"transformer_blocks\.(\d+)\.attn\.to_add_out", r"double_blocks.\1.txt_attn.proj"),
    (r"transformer_blocks\.(\d+)\.ff\.net\.0\.proj", r"double_blocks.\1.img_mlp.0"),
    (r"transformer_blocks\.(\d+)\.ff\.net\.2", r"double_blocks.\1.img_mlp.2"),
    (r"transformer_blocks\.(\d+)\.ff_context\.net\.0\.proj", r"double_blocks.\1.txt_mlp.0"),
    (r"transformer_blocks\.(\d+)\.ff_context\.net\.2", r"double_blocks.\1.txt_mlp.2"),
    (r"single_transformer_blocks\.(\d+)\.norm\.linear", r"single_blocks.\1.modulation.lin"),
    (r"single_transformer_blocks\.(\d+)\.attn\.norm_q", r"single_blocks.\1.norm.query_norm"),
    (r"single_transformer_blocks\.(\d+)\.attn\.norm_k", r"single_blocks.\1.norm.key_norm"),
    (r"single_transformer_blocks\.(\d+)\.proj_out", r"single_blocks.\1.linear2"),
)  # fmt: skip
_RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
           "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}  # fmt: skip
_UNET = {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
         "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
         "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}  # fmt: skip

# The first of several layers that the makers' files hold as one → its name there, and the others behind it.
_FUSED = (
    (r"(.*attention\.)to_q", r"\1qkv", (r"\1to_k", r"\1to_v")),
    (r"transformer_blocks\.(\d+)\.attn\.to_q", r"double_blocks.\1.img_attn.qkv",
     (r"transformer_blocks.\1.attn.to_k", r"transformer_blocks.\1.attn.to_v")),
    (r"transformer_blocks\.(\d+)\.attn\.add_q_proj", r"double_blocks.\1.txt_attn.qkv",
     (r"transformer_blocks.\1.attn.add_k_proj", r"transformer_blocks.\1.attn.add_v_proj")),
    (r"single_transformer_blocks\.(\d+)\.attn\.to_q", r"single_blocks.\1.linear1",
     (r"single_transformer_blocks.\1.attn.to_k", r"single_transformer_blocks.\1.attn.to_v",
      r"single_transformer_blocks.\1.proj_mlp")),
)  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """Rows ``start``:``start + rows`` of a LoRA's layer belong to rows ``at``:… of the parameters of ``module``."""

    component: str
    path: str
    module: Any
    start: int
    at: int
    rows: int

    @property
    def name(self) -> str:
        return f"{self.component}.{self.path}"


class LayerNames:
    """The layers of a pipeline's denoiser and text encoders, by every name that a LoRA may give them."""

    def __init__(self, networks: Mapping[str, nn.Module], denoiser: str) -> None:
        self.denoiser = denoiser
        self._index: dict[str, dict[str, tuple[Piece, ...]]] = {}
        for component, network in networks.items():
            if component == denoiser or component.startswith("text_encoder"):
                self._index[component] = _index(component, network)

    def find(self, stem: str) -> tuple[Piece, ...]:
        """The pieces of the layer that a LoRA calls ``stem``; none if the model has no such layer."""
        return next(filter(None, map(self._find, _unwrapped(stem))), ())

    def _find(self, stem: str) -> tuple[Piece, ...]:
        known = [(prefix, self.denoiser) for prefix in DENOISER_PREFIXES] + [*ENCODER_PREFIXES.items()]
        for prefix, component in sorted(known, key=lambda each: -len(each[0])):
            if stem.startswith(prefix) and component in self._index:
                name = _modern(stem[len(prefix) :], component != self.denoiser)
                if found := self._index[component].get(_flat(name)):
                    return found
        return ()


def _unwrapped(stem: str) -> Iterator[str]:
    """A layer's name, and without what wrappers put before or, between kohya's underscores, into it."""
    stem = _COMPILED.sub("", stem)
    yield stem
    while wrapper := next((wrapper for wrapper in WRAPPERS if stem.startswith(wrapper)), None):
        stem = stem.removeprefix(wrapper)
        yield stem


def _flat(name: str) -> str:
    return name.replace(".", "_").replace("-", "_")


def _modern(name: str, encoder: bool) -> str:
    """Names of diffusers before 0.20: attention processors, and their projections on CLIP's layers."""
    name = name.replace(".processor.", ".").removesuffix("_lora")
    if name.endswith("to_out"):
        name += "" if encoder else ".0"
    return re.sub(r"\.to_(q|k|v|out)$", r".\1_proj", name) if encoder else name


def _index(component: str, network: nn.Module) -> dict[str, tuple[Piece, ...]]:
    modules: dict[str, Any] = {
        name: module for name, module in network.named_modules()
        if name and (isinstance(module._parameters.get("weight"), nn.Parameter) or isinstance(module, KeptLayer))
    }  # fmt: skip
    found: dict[str, tuple[Piece, ...]] = {}
    for name, module in modules.items():
        whole = (_piece(component, name, module),)
        for alias in (name, *_aliases(name, network)):
            found.setdefault(_flat(alias), whole)
        if name == "norm_out.linear":  # the makers keep shift before scale
            half = shape_of(module)[0] // 2
            found["final_layer_adaLN_modulation_1"] = (
                Piece(component, name, module, half, 0, half), Piece(component, name, module, 0, half, half),
            )  # fmt: skip
        for fused, pieces in _fusions(component, name, modules):
            found.setdefault(_flat(fused), pieces)
    return found


def _piece(component: str, name: str, module: Any, start: int = 0) -> Piece:
    return Piece(component, name, module, start, 0, int(shape_of(module)[0]))


def _aliases(name: str, network: nn.Module) -> Iterator[str]:
    """The makers' names of one of diffusers' or transformers' layers."""
    for pattern, alias in (*_ZIMAGE, *_FLUX):
        if found := re.fullmatch(pattern, name):
            yield found.expand(alias)
    if hasattr(network, "down_blocks"):
        if alias_of_block := unet_alias(name, network):
            yield alias_of_block
        return
    for prefix in ("text_model.", "model.", "transformer.", "language_model."):
        yield prefix + name
        yield name.removeprefix(prefix)


def unet_alias(name: str, network: Any) -> str | None:
    """Stability's name of a layer of a ``UNet2DConditionModel`` (of its weights' module); None for one that it has not."""
    return _UNET.get(name) or _block_alias(name, network)


def _block_alias(name: str, network: Any) -> str | None:
    """A layer of a UNet's blocks as Stability's code numbers it: input_blocks, middle_block, output_blocks."""
    found = re.fullmatch(
        r"(?:(down|up)_blocks\.(\d+)|mid_block)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)",
        name,
    )
    if not found:
        return None
    way, kind, layer, rest = found[1], found[3], int(found[4]), found[5]
    rest = _RESNET.get(rest, rest) if kind == "resnets" else rest
    if way is None:
        return f"middle_block.{2 * layer if kind == 'resnets' else 1}.{rest}"
    block = int(found[2])
    layers = len(network.down_blocks[0].resnets)
    if way == "down":
        number = 1 + block * (layers + 1) + (layers if kind == "downsamplers" else layer)
        return f"input_blocks.{number}.{1 if kind == 'attentions' else 0}.{rest.replace('conv', 'op') if kind == 'downsamplers' else rest}"
    number = block * (layers + 1) + (layers if kind == "upsamplers" else layer)
    behind = 2 if getattr(network.up_blocks[block], "attentions", None) else 1
    return f"output_blocks.{number}.{ {'resnets': 0, 'attentions': 1, 'upsamplers': behind}[kind] }.{rest}"


def _fusions(
    component: str, name: str, modules: Mapping[str, nn.Module]
) -> Iterator[tuple[str, tuple[Piece, ...]]]:
    for pattern, alias, others in _FUSED:
        found = re.fullmatch(pattern, name)
        paths = [name, *(found.expand(other) for other in others)] if found else []
        if not found or not all(path in modules for path in paths):
            continue
        pieces: list[Piece] = []
        for path in paths:
            pieces.append(_piece(component, path, modules[path], sum(piece.rows for piece in pieces)))
        yield found.expand(alias), tuple(pieces)
