"""LoRAs: find one by name or path, check it, apply it for a request, remove it.

diffusers' LoRA mixins translate the layouts of ComfyUI and kohya. On a folded model a LoRA is folded like the weight it
adds to. After its LoRAs are removed, a model paints the same bytes as before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starrynight.errors import MissingFile, Unfit, UnknownName
from starrynight.models import weights
from starrynight.models.weights import PICKLED, header
from starrynight.settings import settings

KIND = ("LoRA", "LoRA")


def names() -> list[str]:
    """The LoRAs in STARRY_HOME/loras and its sub-folders, by file name without suffix."""
    folder = settings().loras
    return sorted(path.stem for path in folder.rglob("*.safetensors")) if folder.is_dir() else []


def find(name: str) -> Path:
    """The file of a name or path, checked to be whole and safe.

    Raises UnknownName, MissingFile, PickledFile, LfsPointer or BadFile.
    """
    path = Path(name)
    if (here := weights.find(name)) and here.is_file():
        header(here)
        return here
    if path.suffix.lower() in {".safetensors", *PICKLED} and len(path.parts) > 1:
        raise MissingFile(f"There is no LoRA file “{name}”.", f"找不到 LoRA 文件“{name}”。")
    stem = path.stem if path.suffix.lower() in {".safetensors", *PICKLED} else path.name
    folder = settings().loras
    for found in sorted(folder.rglob("*.safetensors")) if folder.is_dir() else ():
        if found.stem == stem:
            header(found)
            return found
    raise UnknownName(KIND, name, names(), (f"LoRAs live in {folder}.", f"LoRA 放在 {folder}。"))


@contextmanager
def applied(
    pipeline: Any, loras: Sequence[tuple[str, float]], model: str, place: Callable[[], None] | None = None
) -> Iterator[None]:
    """Apply ``loras``, pairs of name or path and weight, for as long as the context lasts.

    ``model`` is the model's name, for messages. ``place`` offloads the pipeline's weights again, if they are offloaded:
    LoRAs are loaded and removed while all weights are in their modules, because an offloaded layer has no numbers to fold,
    and diffusers would restore the hooks for its own choice of device. Raises Unfit when the family takes no LoRA or one
    fits no layer.
    """
    if not loras:
        yield
        return
    if not hasattr(pipeline, "load_lora_weights"):
        raise Unfit(f"{model} takes no LoRA.", f"{model} 不支持 LoRA。")
    try:
        with _without_offloading(pipeline, place):
            adapters = [_load(pipeline, find(name), number, model) for number, (name, _) in enumerate(loras)]
            pipeline.set_adapters(adapters, [weight for _, weight in loras])
        yield
    finally:
        with _without_offloading(pipeline, place):
            pipeline.unload_lora_weights()


@contextmanager
def _without_offloading(pipeline: Any, place: Callable[[], None] | None) -> Iterator[None]:
    """All weights are in their modules while the context lasts."""
    if place is None:
        yield
        return
    pipeline.remove_all_hooks()
    try:
        yield
    finally:
        place()


def _load(pipeline: Any, path: Path, number: int, model: str) -> str:
    """Load one LoRA under a name that PEFT allows; return that name. Raises Unfit if it reached no layer."""
    from starrynight.models.load import networks
    from starrynight.numerics.fold import fold_adapter

    adapter = f"{number}_{re.sub(r'[^0-9a-zA-Z]+', '_', path.stem)}"
    try:
        pipeline.load_lora_weights(
            str(path.parent), weight_name=path.name, adapter_name=adapter, local_files_only=True
        )
    except (ValueError, KeyError, RuntimeError, IndexError, AttributeError, TypeError) as error:
        if "out of memory" in str(error).lower():
            raise
        raise _unfit(path, model) from error
    if not any(adapter in names for names in pipeline.get_list_adapters().values()):
        raise _unfit(path, model)
    for component, part in networks(pipeline).items():
        fold_adapter(part, adapter, pipeline.folds, component)
    return adapter


def _unfit(path: Path, model: str) -> Unfit:
    return Unfit(
        f"The LoRA “{path.name}” fits no layer of {model}; it was made for another model.",
        f"LoRA“{path.name}”与 {model} 的任何一层都不匹配；它是为别的模型训练的。",
    )
