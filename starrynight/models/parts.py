"""Which component of a pipeline a single file replaces: the slots of a base, and the file that fits each.

A base is a diffusers folder that may hold only its small files. Before it is here, the published facts of the catalogue's
models tell its slots, so that a wrong file is refused at once. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starrynight.errors import BadRequest, StarryError, Unfit
from starrynight.models import recognition, weights
from starrynight.models.recognition import MODEL_KINDS, FileKind, Part
from starrynight.models.weights import WeightFile

# Classes of diffusers and transformers → the family of files that hold their weights.
_FAMILIES = {
    "ZImageTransformer2DModel": "Z-Image",
    "FluxTransformer2DModel": "Flux",
    "Flux2Transformer2DModel": "Flux.2",
    "ChromaTransformer2DModel": "Chroma",
    "Lumina2Transformer2DModel": "Lumina 2",
    "QwenImageTransformer2DModel": "Qwen-Image",
    "SD3Transformer2DModel": "Stable Diffusion 3",
    "AuraFlowTransformer2DModel": "AuraFlow",
    "HiDreamImageTransformer2DModel": "HiDream",
    "SanaTransformer2DModel": "Sana",
    "PixArtTransformer2DModel": "PixArt",
    "Qwen3Model": "Qwen3",
    "Qwen3ForCausalLM": "Qwen3",
    "Qwen2Model": "Qwen2",
    "Qwen2ForCausalLM": "Qwen2",
    "Qwen2_5_VLForConditionalGeneration": "Qwen-VL",
    "Gemma2Model": "Gemma",
    "Gemma2ForCausalLM": "Gemma",
    "LlamaModel": "Llama",
    "LlamaForCausalLM": "Llama",
    "T5EncoderModel": "T5",
    "UMT5EncoderModel": "UMT5",
    "CLIPTextModel": "CLIP",
    "CLIPTextModelWithProjection": "CLIP",
    "AutoencoderKL": "AutoencoderKL",
    "AutoencoderKLWan": "Wan",
    "AutoencoderKLQwenImage": "Wan",
    "AutoencoderDC": "AutoencoderDC",
}


@dataclass(frozen=True)
class Slot:
    """A component of a base and the file that fits it. ``width`` as in ``recognition.Part``; 0: any."""

    component: str
    family: str
    width: int = 0

    @property
    def kind(self) -> str:
        return kind_of(self.component)

    @property
    def wanted(self) -> Part:
        """The file that fits, as ``recognition`` would describe it."""
        return Part(self.kind, self.family, width=self.width)

    def fits(self, part: Part) -> bool:
        family = "CLIP" if part.family == "OpenCLIP" else part.family
        return (part.kind, family) == (self.kind, self.family) and 0 in (
            self.width - part.width,
            self.width,
            part.width,
        )


def kind_of(component: str) -> str:
    """The kind of file (``recognition.KINDS``) that a component is loaded from."""
    return "text_encoder" if component.startswith("text_encoder") else component


# The catalogue's bases as published (their config.json files, read 2026-11).
_PUBLISHED = {
    "z-image-turbo": (Slot("transformer", "Z-Image"), Slot("text_encoder", "Qwen3", 2560), Slot("vae", "AutoencoderKL", 16)),
    "flux-schnell": (Slot("transformer", "Flux"), Slot("text_encoder", "CLIP", 768), Slot("text_encoder_2", "T5", 4096),
                     Slot("vae", "AutoencoderKL", 16)),
    "sdxl": (Slot("unet", "Stable Diffusion XL"), Slot("text_encoder", "CLIP", 768), Slot("text_encoder_2", "CLIP", 1280),
             Slot("vae", "AutoencoderKL", 4)),
    "sd-turbo": (Slot("unet", "Stable Diffusion 2"), Slot("text_encoder", "CLIP", 1024), Slot("vae", "AutoencoderKL", 4)),
}  # fmt: skip


def slots(name: str, folder: Path) -> tuple[Slot, ...]:
    """The slots of the base called ``name``: as its folder says, or as published while the folder is not here.

    Empty if neither tells. Raises as ``weights.read_json`` for a damaged folder.
    """
    if not (folder / "model_index.json").is_file():
        return _PUBLISHED.get(name, ())
    index = weights.components(weights.read_json(folder / "model_index.json"))
    return tuple(
        _slot(component, kind, folder / component / "config.json")
        for component, (_, kind) in index.items()
        if component in MODEL_KINDS or component.startswith(("text_encoder", "vae"))
    )


def _slot(component: str, kind: str, config: Path) -> Slot:
    facts: Mapping[str, Any] = weights.read_json(config) if config.is_file() else {}
    family = _FAMILIES.get(kind, kind)
    if kind == "UNet2DConditionModel":
        wide = facts.get("cross_attention_dim") == 1024
        family = "Stable Diffusion 2" if wide else "Stable Diffusion 1"
        family = "Stable Diffusion XL" if facts.get("addition_embed_type") == "text_time" else family
    width = facts.get("hidden_size") or facts.get("d_model") or facts.get("latent_channels") or 0
    return Slot(component, family, width if isinstance(width, int) else 0)


def match(
    base: str, places: Sequence[Slot], found: FileKind, kinds: Iterable[str], taken: Container[str] = ()
) -> dict[str, Part]:
    """The components of ``base`` that a file replaces with its parts of these ``kinds``. Components in ``taken`` are chosen
    only where no other fits.

    Raises Unfit, which names what the file is and what would fit.
    """
    fitting: dict[str, Part] = {}
    for part in found.parts:
        if part.kind not in kinds:
            continue
        fits = [slot.component for slot in places if slot.fits(part) and slot.component not in fitting]
        if not fits:
            raise _unfit(base, places, found, part)
        fitting[next((name for name in fits if name not in taken), fits[0])] = part
    return fitting


def weight_files(base: str, folder: Path, own: Mapping[str, Path]) -> dict[str, tuple[WeightFile, ...]]:
    """The summary of each part in ``own`` (component → file): of a file that holds several networks, only its own tensors.

    The files are looked at again, because they and the base may have changed since they were named. Raises Unfit.
    """
    files: dict[str, tuple[WeightFile, ...]] = {}
    places = slots(base, folder) if own else ()
    for path in dict.fromkeys(own.values()):
        names = [name for name, file in own.items() if file == path]
        held = recognition.of_file(path)
        matched = match(base, places, held, {kind_of(name) for name in names}, set(own) - set(names))
        used = [matched[name].prefix if name in matched else "" for name in names]
        other = tuple(part.prefix for part in held.parts if part.prefix not in ("", *used))
        whole = len(held.parts) == 1
        for name, prefix in zip(names, used, strict=True):
            files[name] = (weights.of_file(path, "" if whole else prefix, () if whole else other),)
    return files


def gather(
    base: str, places: Sequence[Slot], denoiser: Path | None, encoders: Iterable[Path], decoder: Path | None
) -> dict[str, Path]:
    """Component → file for a model put together from ``denoiser``, text ``encoders`` and autoencoder ``decoder``.

    A denoiser's file that is a whole checkpoint brings its encoders and decoder too, where no other file is named for them.
    Raises Unfit for a file that does not belong where it was given, BadRequest for two files in one place, and as
    ``recognition.of_file``.
    """
    given: list[tuple[Path, tuple[str, ...]]] = [(path, ("text_encoder",)) for path in encoders]
    given += [(decoder, ("vae",))] if decoder else []
    given += [(denoiser, MODEL_KINDS)] if denoiser else []
    named: dict[str, Path] = {}
    for path, kinds in given:
        found = _in_place(path, kinds)
        for component in match(base, places, found, kinds, named):
            if component in named:
                raise BadRequest(
                    f"“{named[component].name}” and “{path.name}” are both the {component} of {base}; give one of them.",
                    f"“{named[component].name}”和“{path.name}”都是 {base} 的 {component}；请只给一个。",
                )
            named[component] = path
        if kinds == MODEL_KINDS:
            named = dict.fromkeys(match(base, places, found, recognition.NETWORKS), path) | named
    return named


def _in_place(path: Path, kinds: tuple[str, ...]) -> FileKind:
    """What ``path`` holds. Raises Unfit if it holds no network of these ``kinds``."""
    recognition.check_is_file(path)
    found = recognition.of_file(path)
    if not any(part.kind in kinds for part in found.parts):
        raise misplaced(found, kinds)
    return found


def misplaced(found: FileKind, kinds: tuple[str, ...]) -> Unfit:
    """The error for a file that holds no network of the ``kinds`` it was given for."""
    option = "transformer" if kinds == MODEL_KINDS else kinds[0].replace("_", "-")
    (en, zh), name = found.title, found.path.name
    right = {
        "text_encoder": "text-encoder",
        "vae": "vae",
        "transformer": "transformer",
        "unet": "transformer",
    }
    next_en, next_zh = "Give a file of that kind.", "请给出该种类的文件。"
    if slot := right.get(found.kind):
        next_en, next_zh = f"Give it as --{slot}.", f"请以 --{slot} 给出。"
    elif found.kind == "lora":
        next_en, next_zh = (
            f"Add it when you paint: --lora {name}:0.8.",
            f"请在作画时叠加：--lora {name}:0.8。",
        )
    return Unfit(
        f"“{name}” is {en}, not what --{option} takes. {next_en}",
        f"“{name}”是{zh}，不能用作 --{option}。{next_zh}",
    )


def _unfit(base: str, places: Sequence[Slot], found: FileKind, part: Part) -> StarryError:
    fitting = [slot.wanted.title for slot in places if slot.kind == part.kind]
    (en, zh), name = part.title, found.path.name
    if not fitting:
        return Unfit(
            f"“{name}” is {en}, and {base} has no such part.", f"“{name}”是{zh}，而 {base} 没有这一部分。"
        )
    return Unfit(
        f"“{name}” is {en}; {base} takes {' and '.join(dict.fromkeys(one.en for one in fitting))}.",
        f"“{name}”是{zh}；{base} 需要的是{'和'.join(dict.fromkeys(one.zh for one in fitting))}。",
    )
