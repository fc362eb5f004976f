"""The architecture of a single .safetensors file, recognised by its tensors' names, and its configurations.

Reads headers, not tensors. Imports transformers only to build CLIP's tokenizer.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starrynight.errors import Unfit
from starrynight.models.weights import header

HERE = Path(__file__).with_name("layouts")
COMFY_PREFIX = "model.diffusion_model."

# Which component a tensor of a whole checkpoint belongs to, by the beginning of its name.
CHECKPOINT_PARTS = {
    COMFY_PREFIX: "unet",
    "first_stage_model.": "vae",
    "cond_stage_model.": "text_encoder",
    "conditioner.embedders.0.": "text_encoder",
    "conditioner.embedders.1.": "text_encoder_2",
}

LORA_MARKS = (".lora_A.", ".lora_B.", ".lora_down.", ".lora_up.", ".lokr_", ".hada_")


@dataclass(frozen=True)
class Layout:
    """``marks``: prefixes of tensor names that must all occur (after ComfyUI's prefix, if ``base`` is set).

    ``base``: the catalogue model whose pipeline a lone transformer replaces the transformer of. A whole
    checkpoint has none and takes its configurations from ``folder``. ``like``: the catalogue model with the
    same defaults; ``size``, ``steps`` and ``guidance`` override them.
    """

    name: str
    marks: tuple[str, ...]
    like: str
    base: str | None = None
    folder: Path | None = None
    size: int = 1024
    steps: int | None = None
    guidance: float | None = None


LAYOUTS = (
    Layout("Z-Image transformer", ("cap_pad_token", "layers.0.adaLN_modulation.0.", "noise_refiner."),
           like="z-image-turbo", base="z-image-turbo"),
    Layout("Flux transformer", ("double_blocks.0.img_attn.", "single_blocks.0."),
           like="flux-schnell", base="flux-schnell"),
    Layout("Flux transformer", ("single_transformer_blocks.0.", "context_embedder."),
           like="flux-schnell", base="flux-schnell"),
    Layout("Stable Diffusion XL", ("conditioner.embedders.1.model.", "model.diffusion_model.input_blocks."),
           like="sdxl", folder=HERE / "sdxl"),
    Layout("Stable Diffusion 1", ("cond_stage_model.transformer.", "model.diffusion_model.input_blocks."),
           like="sdxl", folder=HERE / "sd15", size=512, guidance=7.5),
)  # fmt: skip


def recognise(path: Path) -> Layout:
    """The layout of a single file. Raises Unfit for a LoRA or an unknown layout, or as ``weights.header``."""
    keys = [key for key in header(path) if key != "__metadata__"]
    if any(mark in key for key in keys for mark in LORA_MARKS):
        raise Unfit(
            f"“{path.name}” is a LoRA, not a model; add it to a model: --lora {path.name}:0.8.",
            f"“{path.name}”是 LoRA 而不是模型；请叠加使用：--lora {path.name}:0.8。",
        )
    bare = [key.removeprefix(COMFY_PREFIX) for key in keys]
    for layout in LAYOUTS:
        if all(any(key.startswith(mark) for key in (bare if layout.base else keys)) for mark in layout.marks):
            return layout
    known = sorted({layout.name for layout in LAYOUTS})
    raise Unfit(
        f"“{path.name}” has none of the architectures that load from a single file ({', '.join(known)}); use the "
        "model's diffusers folder instead.",
        f"“{path.name}”不是可单文件加载的架构（{'、'.join(known)}）；请改用该模型的 diffusers 文件夹。",
    )


def components_of(tensor: str) -> list[str]:
    """Components that a tensor of a whole checkpoint can belong to, by its name."""
    return [part for prefix, part in CHECKPOINT_PARTS.items() if tensor.startswith(prefix)]


def clip_tokenizer(pad: str = "<|endoftext|>") -> Any:
    """CLIP's tokenizer, built from its BPE merges. SDXL's second text encoder pads with "!"."""
    from transformers import CLIPTokenizer

    lines = gzip.decompress((HERE / "clip" / "merges.txt.gz").read_bytes()).decode().splitlines()
    letters = _letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *(line.replace(" ", "") for line in lines)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    merges = [tuple(line.split()) for line in lines]
    return CLIPTokenizer(
        vocab={word: number for number, word in enumerate(words)},
        merges=merges,
        pad_token=pad,
        model_max_length=77,
    )


def _letters() -> list[str]:
    """GPT-2's 256 byte symbols in their order: printable bytes as themselves, the rest from U+0100 on."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    moved = (byte for byte in range(256) if byte not in printable)
    return [chr(byte) for byte in printable] + [chr(256 + place) for place, _ in enumerate(moved)]
