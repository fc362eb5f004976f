"""LoRAs: find one by name or path, account for its layers, apply it for a request, remove it.

A file of plain LoRA layers is applied by PEFT, through diffusers' LoRA mixins, where what they load is checked to be what the
file says. Every other file, and every layout that diffusers reads in part, is merged: ``adapter_kinds`` computes what each
layer adds to a weight, and the sum is added in float32 and rounded once. On a folded model a LoRA is folded like the weight
it adds to. After its LoRAs are removed, a model paints the same bytes as before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from starrynight.errors import MissingFile, UnknownName
from starrynight.models import places, weights
from starrynight.models.weights import PICKLED, header
from starrynight.request import Lora
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
    is_path = path.suffix.lower() in {".safetensors", *PICKLED} and len(path.parts) > 1
    stem = path.stem if path.suffix.lower() in {".safetensors", *PICKLED} else path.name
    folder = settings().loras
    for found in sorted(folder.rglob("*.safetensors")) if folder.is_dir() and not is_path else ():
        if found.stem == stem:
            header(found)
            return found
    if (placed := places.find(name, ("lora",))) and placed.is_file():
        header(placed)
        return placed
    if is_path:
        raise MissingFile(f"There is no LoRA file “{name}”.", f"找不到 LoRA 文件“{name}”。")
    raise UnknownName(KIND, name, names(), (f"LoRAs live in {folder}.", f"LoRA 放在 {folder}。"))


@contextmanager
def applied(
    pipeline: Any,
    loras: Sequence[Lora],
    model: str,
    place: Callable[[], None] | None = None,
    partial_fit: bool = False,
) -> Iterator[tuple[Any, ...]]:
    """Apply ``loras``, name or path with weight, for as long as the context lasts; yields a ``Fit`` for each.

    ``model`` is the model's name, for messages. ``place`` offloads the pipeline's weights again, if they are offloaded:
    LoRAs are loaded and removed while all weights are in their modules, because an offloaded layer has no numbers to fold,
    and diffusers would restore the hooks for its own choice of device. ``partial_fit`` takes a LoRA of which under half of
    the layers fit. Raises Unfit for one that does not fit or is of a kind that is not applied, and what
    ``adapter_file.read_layers`` raises.
    """
    from starrynight.models.adapter import read
    from starrynight.models.adapter_merge import merged

    if not loras:
        yield ()
        return
    adapters = [read(pipeline, find(lora[0]), lora, model, partial_fit) for lora in loras]
    with _without_offloading(pipeline, place), ExitStack() as undo:
        loaded = [_by_peft(pipeline, adapter, number, undo) for number, adapter in enumerate(adapters)]
        if chosen := [name for name in loaded if name]:
            scales = [adapter.weights[1] for adapter, name in zip(adapters, loaded, strict=True) if name]
            pipeline.set_adapters(chosen, scales)
        rest = [adapter for adapter, name in zip(adapters, loaded, strict=True) if not name]
        fits = tuple(
            adapter.fit if loaded[number] else adapter.merged_fit() for number, adapter in enumerate(adapters)
        )
        undo.enter_context(merged(pipeline, rest))
        back = undo.pop_all()
    try:
        yield fits
    finally:
        with _without_offloading(pipeline, place), back:
            pass


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


def _by_peft(pipeline: Any, adapter: Any, number: int, undo: ExitStack) -> str | None:
    """Load a file of plain LoRA layers into PEFT under the name returned; None where it has to be merged.

    Merged is a file that diffusers refuses, or loads otherwise than the file says: other layers, another scale.
    """
    from starrynight.models.load import networks
    from starrynight.numerics.fold import fold_adapter

    if not adapter.is_plain or not hasattr(pipeline, "load_lora_weights"):
        return None
    name = f"{number}_{re.sub(r'[^0-9a-zA-Z]+', '_', adapter.path.stem)}"
    undo.callback(pipeline.unload_lora_weights)
    try:
        pipeline.load_lora_weights(
            str(adapter.path.parent), weight_name=adapter.path.name, adapter_name=name, local_files_only=True
        )
    except (ValueError, KeyError, RuntimeError, IndexError, AttributeError, TypeError) as error:
        if "out of memory" in str(error).lower():
            raise
        return None
    if not adapter.is_loaded_as(name, networks(pipeline)):
        pipeline.delete_adapters([name])
        return None
    for component, part in networks(pipeline).items():
        fold_adapter(part, name, pipeline.folds, component)
    return name
