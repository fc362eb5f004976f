"""A LoRA file as layers: which tensors belong together, whatever layout named them, and whether their numbers are sound.

Trainers name a layer's tensors ``<layer>.<part>``. The parts are the same everywhere, up to spelling: ``lora_down`` and
``lora_up`` (kohya), ``lora_A`` and ``lora_B`` (PEFT, ComfyUI), ``hada_*``, ``lokr_*`` and the rest of LyCORIS. Here each part
gets one name (``PARTS``); what a layer is called in the model is ``adapter_names``' affair, and what the parts mean
``adapter_kinds``'.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from starrynight.errors import BadFile
from starrynight.i18n import Text
from starrynight.models.weights import header, unwrapped

# PEFT writes an adapter's name between a matrix and its ".weight"; files saved by hand keep it.
_NAME = r"(?:\.default(?:_\d+)?)?"

# The spelling of a part at the end of a tensor's name → our name for it. The first that matches wins.
PARTS = tuple((re.compile(spelling + "$"), part) for spelling, part in (
    (rf"\.lora_A{_NAME}(?:\.weight)?", "down"),
    (rf"\.lora_B{_NAME}(?:\.weight)?", "up"),
    (rf"\.lora_B{_NAME}\.bias", "up_bias"),
    (r"\.lora_up\.bias", "up_bias"),
    (r"(?:[._]lora|\.lora_linear_layer)[._]down\.weight", "down"),
    (r"(?:[._]lora|\.lora_linear_layer)[._]up\.weight", "up"),
    (r"[._]lora[._]mid\.weight", "mid"),
    (r"\.dora_scale", "magnitude"),
    (rf"\.lora_magnitude_vector{_NAME}(?:\.weight)?", "magnitude"),
    (r"(?:_lora|\.lora)?\.alpha", "alpha"),
    (r"\.(hada_[wt][12](?:_[ab])?|lokr_[wt][12](?:_[ab])?|oft_blocks|rescale|diff|diff_b|w_norm|b_norm|on_input)", ""),
    (r"\.([ab][12])\.weight", ""),
))  # fmt: skip

# Parts that are recognised and not applied: what they are, for the sentence that refuses them. Bundled embeddings that the
# model's encoders read are taken out before (``adapter.read``).
REFUSED_PARTS = (
    (re.compile(r"^bundle_emb\."), Text("embeddings bundled with it", "随附的嵌入词")),
    (re.compile(r"\.(?:oft_[rRs]|boft_[RsP])\b"), Text("OFT in PEFT's form", "PEFT 形式的 OFT")),
    (re.compile(r"\.ia3_l\b"), Text("IA3 in PEFT's form", "PEFT 形式的 IA3")),
    (re.compile(r"\.lora_embedding_[AB]\b"), Text("a LoRA of an embedding table", "嵌入表上的 LoRA")),
    (re.compile(r"\.(?:lora_A|lora_down)\S*\.bias$"), Text("a bias inside the LoRA", "LoRA 内部的偏置")),
    (
        re.compile(r"\.(?:set_weight|reshape_weight)$"),
        Text("replaced or resized weights", "替换或改变尺寸的权重"),
    ),
    (re.compile(r"\.scalar$"), Text("a LyCORIS scalar", "LyCORIS 的 scalar")),
    (re.compile(r"\.vera_|(?:^|\.)lora_controlnet$"), Text("VeRA or a control LoRA", "VeRA 或 ControlLoRA")),
)


@dataclass
class AdapterLayer:
    """The tensors of one layer. ``parts``: by our names for them. ``names``: all of its tensors' names in the file.

    ``alpha``: the LoRA's scale is alpha / rank; None means alpha = rank. ``refused``: what it holds that is not applied.
    """

    stem: str
    parts: dict[str, Tensor] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    alpha: float | None = None
    rank_stabilised: bool = False
    refused: Text | None = None
    unknown: list[str] = field(default_factory=list)

    @property
    def is_zero(self) -> bool:
        """Whether it changes nothing: one of the factors of every product is zero."""
        floats = {name: tensor for name, tensor in self.parts.items() if name not in ("alpha", "on_input")}
        if "magnitude" in floats or "rescale" in floats:
            return False
        ends = ("up", "lokr_w1", "lokr_w2", "lokr_w1_a", "lokr_w2_a", "hada_w1_a", "hada_w2_a", "b1", "b2", "diff",
                "diff_b", "w_norm", "b_norm", "up_bias", "oft_blocks", "weight")  # fmt: skip
        if "up" in floats and not floats.get("down", floats["up"]).any():
            return not floats.get("up_bias", floats["up"][:0]).any()
        if {"b1", "b2", "a1", "a2"} <= floats.keys():
            return not (
                (floats["a1"].any() and floats["a2"].any()) or (floats["b1"].any() and floats["b2"].any())
            )
        product = floats.keys() & {"hada_w1_a", "lokr_w1", "lokr_w1_a"}
        zeros = [not floats[name].any() for name in ends if name in floats]
        return bool(zeros) and (any(zeros) if product else all(zeros))


def read_layers(path: Path) -> dict[str, AdapterLayer]:
    """The layers of a LoRA file by the names that the file gives them.

    Raises BadFile for a file without tensors, and for one with NaN, Inf or whole numbers, naming the tensor; and as ``weights.header``.
    """
    entries = header(path)
    metadata = entries.pop("__metadata__", {})
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {unwrapped(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError) as error:
        raise BadFile(
            f"The LoRA “{path.name}” cannot be read; download it again. ({error})",
            f"LoRA“{path.name}”无法读取；请重新下载。（{error}）",
        ) from error
    if not tensors:
        raise BadFile(
            f"The LoRA “{path.name}” holds no tensors; download it again.",
            f"LoRA“{path.name}”里没有任何张量；请重新下载。",
        )
    _check_finite(path, tensors)
    _check_floats(path, tensors)
    return layers_of(tensors, metadata)


def layers_of(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> dict[str, AdapterLayer]:
    """Tensors grouped into layers. ``metadata``: the file's, which may hold the scales of PEFT's configuration."""
    layers: dict[str, AdapterLayer] = {}
    scaled_inputs = {name.removesuffix(".on_input") for name in tensors if name.endswith(".on_input")}
    for name, tensor in tensors.items():
        stem, part = _split(name, scaled_inputs)
        layer = layers.setdefault(stem, AdapterLayer(stem))
        layer.names.append(name)
        refused = next((words for mark, words in REFUSED_PARTS if mark.search(name)), None)
        layer.refused = layer.refused or refused
        if part == "alpha" and tensor.numel() == 1:
            layer.alpha = float(tensor)
        elif part is None or part in layer.parts:
            layer.unknown.append(name)
        else:
            layer.parts[part] = tensor
    _read_peft_scales(layers, metadata or {})
    return layers


def _split(name: str, scaled_inputs: set[str]) -> tuple[str, str | None]:
    """(layer, part) of a tensor's name; the part is None where no spelling is known."""
    if name.endswith(".weight") and name.removesuffix(".weight") in scaled_inputs:
        return name.removesuffix(".weight"), "weight"
    if name.startswith("bundle_emb."):
        return ".".join(name.split(".")[:2]), None
    for spelling, part in PARTS:
        if found := spelling.search(name):
            return name[: found.start()], part or found[1]
    for mark, _ in REFUSED_PARTS:
        if found := mark.search(name):
            return name[: found.start()], None
    return name.rpartition(".")[0] or name, None


def _check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    broken = [name for name, tensor in tensors.items() if not _is_finite(tensor)]
    if broken:
        more = f" and {len(broken) - 1} more of {len(tensors)} tensors" if len(broken) > 1 else ""
        raise BadFile(
            f"The LoRA “{path.name}” holds NaN or Inf in {broken[0]}{more}, so every picture with it would break; "
            "take another version of it.",
            f"LoRA“{path.name}”的 {broken[0]} 等 {len(broken)} 个张量含有 NaN 或 Inf，用它画什么都会坏；请换一个版本。",
        )


def _check_floats(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises BadFile for numbers that are no floats: a quantised LoRA, whose scales would be passed over."""
    whole = [
        name for name, tensor in tensors.items()
        if not tensor.is_floating_point() and not name.endswith((".alpha", ".on_input")) and _split(name, set())[1]
    ]  # fmt: skip
    if whole:
        kind = str(tensors[whole[0]].dtype)[6:]
        raise BadFile(
            f"The LoRA “{path.name}” holds {whole[0]} in {kind}, which is no float that can be added to a weight; take its "
            "bfloat16, float16 or float32 version.",
            f"LoRA“{path.name}”的 {whole[0]} 以 {kind} 存储，不是可加到权重上的浮点数；请改用它的 bfloat16、float16 或 float32 版本。",
        )


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point():
        return True
    wide = tensor if tensor.element_size() > 1 else tensor.float()  # float8 has no isfinite
    return bool(torch.isfinite(wide).all())


def _read_peft_scales(layers: Mapping[str, AdapterLayer], metadata: Mapping[str, str]) -> None:
    """Alpha by layer from the configuration that diffusers keeps in a file's header (``lora_adapter_metadata``).

    The keys are ``<component>.lora_alpha``, ``.alpha_pattern`` and ``.use_rslora``, as in PEFT's LoraConfig.
    """
    config = _json(metadata.get("lora_adapter_metadata", ""))
    for layer in layers.values():
        component, _, module = layer.stem.partition(".")
        alpha = config.get(f"{component}.lora_alpha", config.get("lora_alpha"))
        pattern = config.get(f"{component}.alpha_pattern", config.get("alpha_pattern"))
        for key, value in pattern.items() if isinstance(pattern, dict) else ():
            if re.search(rf"(?:^|\.)(?:{re.escape(key)})$", module):
                alpha = value
        if layer.alpha is None and isinstance(alpha, int | float) and math.isfinite(alpha):
            layer.alpha = float(alpha)
            layer.rank_stabilised = bool(config.get(f"{component}.use_rslora", config.get("use_rslora")))


def _json(text: str) -> dict[str, Any]:
    try:
        read = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}
