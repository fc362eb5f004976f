"""The architecture of a single .safetensors file, recognised by its tensors' names, and its configurations.

Reads headers, not tensors. Imports transformers only to build CLIP's tokenizer.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starrynight.errors import StarryError
from starrynight.models import recognition
from starrynight.models.weights import check_format

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


@dataclass(frozen=True)
class Layout:
    """``marks``: prefixes of tensor names that must all occur (after the network's prefix, if ``base`` is set).

    ``base``: the catalogue model whose pipeline a lone transformer replaces the transformer of. A whole
    checkpoint has none and takes its configurations from ``folder``. ``like``: the catalogue model with the
    same defaults; ``size``, ``steps`` and ``guidance`` override them. ``completed_by``: the catalogue model that brings the
    networks that a whole checkpoint lacks.
    """

    name: str
    marks: tuple[str, ...]
    like: str
    base: str | None = None
    folder: Path | None = None
    size: int = 1024
    steps: int | None = None
    guidance: float | None = None
    completed_by: str | None = None

    @property
    def family(self) -> str:
        """The family of its denoiser (``recognition.Part``)."""
        return self.name.removesuffix(" transformer")


LAYOUTS = (
    Layout("Z-Image transformer", ("cap_pad_token", "layers.0.adaLN_modulation.0.", "noise_refiner."),
           like="z-image-turbo", base="z-image-turbo"),
    Layout("Flux transformer", ("double_blocks.0.img_attn.", "single_blocks.0."),
           like="flux-schnell", base="flux-schnell"),
    Layout("Flux transformer", ("single_transformer_blocks.0.", "context_embedder."),
           like="flux-schnell", base="flux-schnell"),
    Layout("Stable Diffusion XL", ("conditioner.embedders.1.model.", "model.diffusion_model.input_blocks."),
           like="sdxl", folder=HERE / "sdxl", completed_by="sdxl"),
    Layout("Stable Diffusion 1", ("cond_stage_model.transformer.", "model.diffusion_model.input_blocks."),
           like="sdxl", folder=HERE / "sd15", size=512, guidance=7.5),
)  # fmt: skip


def recognise(path: Path) -> Layout:
    """The layout of a single file. Raises Unfit for a file that is no model, one of another family or a single shard, or as
    ``weights.header``.
    """
    recognition.check_is_file(path)
    check_format(path, [path])
    shapes = recognition.shapes_of(path)
    keys, found = list(shapes), recognition.of_shapes(path, shapes)
    prefix = found.denoiser.prefix if found.denoiser else COMFY_PREFIX
    bare = [key.removeprefix(prefix) for key in keys]
    family = found.denoiser.family if found.denoiser else None
    for layout in LAYOUTS:
        names = bare if layout.base else keys
        marked = all(any(key.startswith(mark) for key in names) for mark in layout.marks)
        if marked and layout.family == family:
            return layout
    raise recognition.not_a_model(found, sorted({layout.name for layout in LAYOUTS}))


def is_known(path: Path) -> bool:
    """Whether a file that is here has a layout."""
    try:
        recognise(path)
    except StarryError:
        return False
    return True


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
