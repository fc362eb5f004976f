"""From files to a pipeline under a precision plan. ``model_index.json`` decides the class; no family is named here.

Only safetensors are opened, after ``files`` has found them whole. Nothing here reaches a network (``hub`` does)
and no code that comes with a model is ever run.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from starrynight.errors import Unfit
from starrynight.numerics.fold import fold_epsilons, only, read_plan
from starrynight.numerics.precision import PrecisionPlan
from starrynight.painting import files, layouts
from starrynight.painting.catalogue import Model, resolve
from starrynight.painting.plans import dtype_name, is_variant, weight_files

LIBRARIES = ("diffusers", "transformers")


def load(model: Model, plan: PrecisionPlan) -> Any:
    """A diffusers pipeline on the CPU, each component in the plan's format, the decoder's too.

    Raises MissingFile, BadFile, PickledFile, LfsPointer, or Unfit when the weights are not the architecture's.
    """
    _quiet()
    place = model.place
    if place.is_dir():
        pipeline = _from_folder(place, plan)
    elif layouts.recognise(place).base:
        pipeline = _over_base(place, resolve(model.base or "").place, plan)
    else:
        pipeline = _from_checkpoint(place, Path(model.base) if model.base else None, plan)
    _join_formats(pipeline, getattr(torch, plan["vae_decode"].dtype))
    return pipeline


def _from_folder(folder: Path, plan: PrecisionPlan, **ready: Any) -> Any:
    """Every network with its own class and format; ``ready`` components are taken as they are."""
    import diffusers

    files.check_folder(folder)
    index = files.read_json(folder / "model_index.json")
    _pipeline_class(index.get("_class_name"), folder)
    networks = {
        name: _network(folder / name, kind, _dtype(plan, name))
        for name, kind in files.components(index).items()
        if name not in ready and kind[0] in LIBRARIES and weight_files(folder / name)
    }
    with _as_unfit(folder):
        return diffusers.DiffusionPipeline.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, dtype=_dtype(plan, ""), **networks, **ready
        )


def _over_base(file: Path, folder: Path, plan: PrecisionPlan) -> Any:
    """A transformer of its own, in diffusers' or the makers' layout, in place of the base's."""
    kind = files.read_json(folder / "model_index.json").get("transformer")
    if not (isinstance(kind, list) and kind[0] in LIBRARIES):
        raise _not_for(file, f"{folder} has no transformer", f"{folder} 没有 transformer")
    dtype = _dtype(plan, "transformer")
    with _as_unfit(file):
        transformer = _class(kind).from_single_file(
            str(file), config=str(folder), subfolder="transformer", dtype=dtype, local_files_only=True
        )
    unfilled = [name for name, parameter in transformer.named_parameters() if parameter.is_meta]
    if unfilled:
        raise _not_for(file, f"it has no {unfilled[0]}", f"缺少 {unfilled[0]}")
    return _from_folder(folder, plan, transformer=transformer)


def _from_checkpoint(file: Path, shapes: Path | None, plan: PrecisionPlan) -> Any:
    """A whole checkpoint in its makers' layout. ``shapes`` is a folder of configs; without it, the shipped one."""
    shapes = shapes or layouts.recognise(file).folder
    assert shapes is not None
    index = files.read_json(shapes / "model_index.json")
    with _as_unfit(file):
        pipeline = _pipeline_class(index["_class_name"], shapes).from_single_file(
            str(file),
            config=str(shapes),
            local_files_only=True,
            dtype=_dtype(plan, "vae"),
            **_tokenizers(shapes, index),
        )
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            if any(parameter.is_meta for parameter in part.parameters()):
                raise _not_for(file, f"its {name} is incomplete", f"{name} 不完整")
            part.to(_dtype(plan, name))
    return pipeline


def _tokenizers(shapes: Path, index: dict[str, Any]) -> dict[str, Any]:
    """The tokenizers a checkpoint lacks: CLIP's is shipped; a folder that brings its own keeps it."""
    wanted = [name for name in index if name.startswith("tokenizer") and not (shapes / name).is_dir()]
    return {
        name: layouts.clip_tokenizer("!" if name == "tokenizer_2" else "<|endoftext|>") for name in wanted
    }


def _network(folder: Path, kind: list[str], dtype: torch.dtype) -> torch.nn.Module:
    variant = "fp16" if all(is_variant(path.name) for path in weight_files(folder)) else None
    with _as_unfit(folder):
        network, info = _class(kind).from_pretrained(
            folder, dtype=dtype, use_safetensors=True, variant=variant, output_loading_info=True,
            local_files_only=True,
        )  # fmt: skip
    missing = sorted(str(key) for key in info["missing_keys"])
    if missing:
        more = f" and {len(missing) - 1} more tensors" if len(missing) > 1 else ""
        raise _not_for(folder, f"it has no {missing[0]}{more}", f"缺少 {missing[0]} 等 {len(missing)} 个张量")
    for path in weight_files(folder):
        if (told := read_plan(path)) is not None:  # folded in its file, where epsilons cannot travel
            fold_epsilons({folder.name: network}, only(told, folder.name))
    return network.eval()


def _class(kind: list[str]) -> Any:
    found = getattr(importlib.import_module(kind[0]), kind[1], None)
    if found is None:
        raise Unfit(
            f"This version of {kind[0]} has no {kind[1]}; update it: pip install -U {kind[0]}.",
            f"当前版本的 {kind[0]} 没有 {kind[1]}；请升级：pip install -U {kind[0]}。",
        )
    return found


def _pipeline_class(name: Any, folder: Path) -> Any:
    """A text-to-image pipeline of the library's own; a folder that wants its own code run is refused."""
    import diffusers

    found = getattr(diffusers, name, None) if isinstance(name, str) else None
    if found is None:
        raise _not_for(
            folder, f"its pipeline “{name}” is not diffusers' own", f"其管线“{name}”不属于 diffusers"
        )
    if "prompt" not in inspect.signature(found.__call__).parameters:
        raise _not_for(folder, f"{name} paints from no prompt", f"{name} 不是文生图管线")
    return found


def _dtype(plan: PrecisionPlan, component: str) -> torch.dtype:
    return getattr(torch, dtype_name(plan, component))


def denoiser(pipeline: Any) -> Any:
    """The network that takes the steps. Raises Unfit for a pipeline that has none we know."""
    for name in ("transformer", "unet"):
        if isinstance(found := getattr(pipeline, name, None), torch.nn.Module):
            return found
    name = type(pipeline).__name__
    raise Unfit(
        f"{name} has neither a transformer nor a unet to paint with.", f"{name} 没有 transformer 或 unet。"
    )


def _join_formats(pipeline: Any, decoder: torch.dtype) -> None:
    """Put the half of the autoencoder that decodes into its own format, and let every part cast what it is given.

    Pipelines assume one format throughout; under a plan, latents encoded in float32 meet a 16-bit denoiser. A
    pipeline that would cast its autoencoder to and fro (``force_upcast``) rounds its weights away: not any more.
    """
    denoiser(pipeline).register_forward_pre_hook(_cast_latents, with_kwargs=True)
    vae = getattr(pipeline, "vae", None)
    if vae is None:  # a family that paints pixels
        return
    if vae.config.get("force_upcast"):
        vae.register_to_config(force_upcast=False)
    for name, part in vae.named_children():
        if "decoder" in name or "post_quant" in name:
            part.to(decoder)
        part.register_forward_pre_hook(_cast_to_own)


def _cast_to_own(module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    own = next((parameter.dtype for parameter in module.parameters()), None)
    return args if own is None else tuple(_cast(arg, own) for arg in args)


def _cast_latents(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """Only the latents, which come first: times and positions lose their meaning in 16 bits."""
    if args:
        return (_cast(args[0], module.dtype), *args[1:]), kwargs
    return args, {
        k: _cast(v, module.dtype) if k in ("hidden_states", "sample") else v for k, v in kwargs.items()
    }


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value


@contextmanager
def _as_unfit(path: Path) -> Iterator[None]:
    """What the libraries say of weights that do not fit, as one sentence."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError, TypeError, AssertionError) as error:
        if "out of memory" in str(error).lower():
            raise
        reason = " ".join(str(error).split())[:300] or "its configuration contradicts itself"
        raise _not_for(path, reason, reason) from error


def _not_for(path: Path, en: str, zh: str) -> Unfit:
    return Unfit(
        f"“{path.name}” does not fit the architecture it is loaded as: {en}.",
        f"“{path.name}”与所加载的架构不符：{zh}。",
    )


def _quiet() -> None:
    """The libraries draw bars of their own; doors draw ours."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()
