"""From a model's files to a precision plan: counts its parameters from headers and asks ``numerics.precision``.

Knows where a component's weights lie and which role of the plan it plays; decides nothing about formats itself.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from starrynight.models.catalogue import ModelSpec, resolve
from starrynight.models.single_file import COMFY_PREFIX, recognise
from starrynight.models.weights import components, header, read_json
from starrynight.numerics import precision
from starrynight.numerics.precision import PrecisionPlan
from starrynight.settings import settings
from starrynight.storage import write_cache

# Where a written fold tells of itself (numerics.fold.HEADER, which needs torch to be imported).
FOLD_HEADER = "starry_fold"

# Whose weights a tensor of a whole single-file checkpoint is, by the beginning of its name.
CHECKPOINT_PARTS = {
    COMFY_PREFIX: "unet",
    "first_stage_model.": "vae",
    "cond_stage_model.": "text_encoder",
    "conditioner.": "text_encoder",
}


def choose(model: ModelSpec, device: str | None, asked: str) -> PrecisionPlan:
    """The plan for ``model`` on ``device`` (None: the best back end here). Raises BadRequest as ``precision`` does."""
    return decide(model, _probed(_kind(device)), asked)


def decide(model: ModelSpec, here: precision.Device, asked: str) -> PrecisionPlan:
    """The plan for ``model`` on a device of which all is known.

    Folds can be made for any model (``folding``): they are offered where they are asked for, and where float16 is
    fast and bfloat16 is not to be had.
    """
    counts = parameters(model)
    safe = folded_in_file(model) if asked != "float16-folded" else frozenset()
    wanted = asked == "float16-folded" or (asked == "auto" and here.native == {"float16"})
    record = precision.ModelProfile(
        family=family(model),
        parameters=counts,
        folded=frozenset(counts) - safe if wanted else frozenset(),
        float16_safe=safe,
        float32_vae=model.float32_vae,
    )
    return precision.choose(here, record, asked)


def processor() -> precision.Device:
    """The computer's own processor, measured."""
    return _probed("cpu")


def folded_in_file(model: ModelSpec) -> frozenset[str]:
    """Components whose weights were folded for float16 when they were written, with a certificate that holds.

    Of a lone transformer that is laid over a base, only itself: the base's own files say what they are.
    """
    if not model.place.is_dir():
        inside = {"transformer"} if recognise(model.place).base else set(parameters(model))
        return frozenset(inside) if _holds(model.place) else frozenset()
    found = set()
    for component in components(read_json(model.place / "model_index.json")):
        if any(_holds(path) for path in weight_files(model.place / component)):
            found.add("text_encoder" if component.startswith("text_encoder") else component)
    return frozenset(found)


def _holds(path: Path) -> bool:
    """Whether a weight file tells of folds that were proved."""
    told = json.loads(header(path).get("__metadata__", {}).get(FOLD_HEADER, "{}"))
    return bool(told.get("certificate", {}).get("holds"))


def stores(device: str) -> frozenset[str]:
    """The 16-bit formats whose results are right on a torch device, fast or not."""
    from starrynight.numerics import device as machine

    return machine.probe(_kind(device), measure=False).stores


@cache
def _probed(kind: str | None) -> precision.Device:
    """This machine. A CPU's rates are measured once and kept under STARRY_HOME/cache: on a busy day they would come
    out otherwise, and the same request must not choose another format tomorrow.
    """
    from starrynight.numerics import device as machine

    here = machine.probe(kind, measure=False)
    if here.kind != "cpu":  # elsewhere facts decide, not rates
        return here
    import torch

    kept = settings().cache / "rates.json"
    key = f"torch {torch.__version__}, {here.name}, {torch.get_num_threads()} threads"
    known = _read_rates(kept)
    if key not in known:
        known[key] = machine.matmul_rates(machine.torch_device("cpu"))
        write_cache(kept, json.dumps(known, indent=1).encode())
    return replace(here, rates=known[key])


def _read_rates(path: Path) -> dict[str, dict[str, float]]:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _kind(device: str | None) -> str | None:
    """precision's word for a torch device: "cuda:1" is cuda, or rocm on an AMD build."""
    if device is None:
        return None
    import torch

    kind = device.split(":")[0]
    return "rocm" if kind == "cuda" and torch.version.hip else kind


def role(component: str) -> str:
    """Which entry of a plan a component's weights follow. An autoencoder is kept in its encoder's format."""
    if component == "vae":
        return "vae_encode"
    return "text_encoder" if component.startswith("text_encoder") else component


def dtype_name(plan: PrecisionPlan, component: str) -> str:
    """The torch dtype's name for a component; one the plan has no entry for follows the denoiser, its first."""
    entries = {choice.component: choice.dtype for choice in plan}
    return entries.get(role(component)) or next(iter(entries.values()))


def family(model: ModelSpec) -> str:
    """The pipeline's class name, from model_index.json."""
    return str(read_json(_pipeline_folder(model) / "model_index.json").get("_class_name", ""))


def _pipeline_folder(model: ModelSpec) -> Path:
    """The folder whose model_index.json decides the class: the model's own, its base's, or the shipped layout's."""
    if model.place.is_dir():
        return model.place
    layout = recognise(model.place)
    if model.base:
        return resolve(model.base).place
    assert layout.folder is not None
    return layout.folder


def parameters(model: ModelSpec) -> dict[str, int]:
    """How many parameters each component has: the denoiser, "text_encoder" (all of them) and "vae"."""
    counts: dict[str, int] = {}
    for component, entries in _tensors(model):
        part = "text_encoder" if component.startswith("text_encoder") else component
        counts[part] = counts.get(part, 0) + sum(prod(entry["shape"]) for entry in entries)
    return counts


def _tensors(model: ModelSpec) -> list[tuple[str, list[Any]]]:
    """(component, header entries), file by file."""
    place = model.place
    if place.is_dir():
        return _in_folder(place)
    entries = {name: entry for name, entry in header(place).items() if name != "__metadata__"}
    if recognise(place).base:
        base = resolve(model.base or "").place
        return [
            *((name, e) for name, e in _in_folder(base) if name != "transformer"),
            ("transformer", [*entries.values()]),
        ]
    return [
        (part, [entry])
        for name, entry in entries.items()
        for prefix, part in CHECKPOINT_PARTS.items()
        if name.startswith(prefix)
    ]


def _in_folder(folder: Path) -> list[tuple[str, list[Any]]]:
    return [
        (name, [entry for tensor, entry in header(path).items() if tensor != "__metadata__"])
        for name in components(read_json(folder / "model_index.json"))
        for path in weight_files(folder / name)
    ]


def weight_files(folder: Path) -> list[Path]:
    """The weight files a component loads: the plain ones, or the fp16 variant where there is nothing else."""
    files = sorted(folder.glob("*.safetensors"))
    return [path for path in files if not is_variant(path.name)] or files


def is_variant(name: str) -> bool:
    """Whether a weight file is a variant beside the plain one: model.fp16.safetensors, …fp16-00001-of-00002…"""
    return any(mark in name for mark in (".fp16.", ".fp16-", ".bf16.", ".bf16-", ".non_ema.", ".non_ema-"))
