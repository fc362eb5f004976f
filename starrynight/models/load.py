"""From files to a pipeline under a precision plan. ``model_index.json`` decides the class; no family is named here.

Only safetensors are opened, after ``files`` has found them whole. Nothing here reaches a network (``hub`` does)
and no code that comes with a model is ever run.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from starrynight.errors import Unfit
from starrynight.models import single_file
from starrynight.models import weights as files
from starrynight.models.catalogue import ModelSpec, resolve
from starrynight.models.precision_plan import dtype_name, is_variant, role, weight_files
from starrynight.models.weights import header
from starrynight.numerics.emulate import emulate_module
from starrynight.numerics.fold import compose, fold_and_cast, fold_epsilons, fold_modules, only, read_plan
from starrynight.numerics.islands import cast_with_islands
from starrynight.numerics.precision import PrecisionPlan
from starrynight.numerics.solve import FoldPlan

LIBRARIES = ("diffusers", "transformers")


def load(model: ModelSpec, plan: PrecisionPlan, folds: FoldPlan | None = None) -> Any:
    """A diffusers pipeline on the CPU, each component in the plan's format, the decoder's too.

    ``folds`` names tensors by component; those of components that the plan wants folded are applied. Raises MissingFile, BadFile, PickledFile, LfsPointer, or Unfit when the weights are not the architecture's.
    """
    _quiet()
    place = model.place
    recipe = LoadSpec(plan, folds)
    if place.is_dir():
        pipeline = _from_folder(place, recipe)
    elif single_file.recognise(place).base:
        pipeline = _over_base(place, resolve(model.base or "").place, recipe)
    else:
        pipeline = _from_checkpoint(place, Path(model.base) if model.base else None, recipe)
    _join_formats(pipeline, recipe)
    _emulate(pipeline, plan)
    pipeline.folds = recipe.applied  # LoRAs follow them (adapters)
    return pipeline


@dataclass
class LoadSpec:
    """What the components become: their formats, the folds on offer, and the folds that were applied."""

    plan: PrecisionPlan
    folds: FoldPlan | None = None
    applied: FoldPlan = field(default_factory=FoldPlan)

    def dtype(self, component: str) -> torch.dtype:
        """The format a component's weights end up in. An autoencoder's stay in its encoder's."""
        return getattr(torch, dtype_name(self.plan, component))

    def reading(self, component: str, files: Sequence[Path]) -> torch.dtype:
        """The format to read it in: its files' own where it is yet to be folded, so that no bit is lost before."""
        return stored_dtype(files) if self.folding(component) is not None else self.dtype(component)

    def folding(self, component: str) -> FoldPlan | None:
        """The folds of a component whose role is to be folded."""
        roles = {"vae": ("vae_decode",)}.get(component, (role(component),))
        chosen = [choice for choice in self.plan if choice.component in roles]
        return only(self.folds, component) if self.folds and any(c.folded for c in chosen) else None

    def finish(
        self, component: str, network: torch.nn.Module, told: FoldPlan | None = None
    ) -> torch.nn.Module:
        """Fold what is to be folded. ``told``: folds that the weights brought with them from their file."""
        if told is not None:
            fold_epsilons({component: network}, told)
            self.applied = compose(self.applied, told)
        if (folds := self.folding(component)) is not None:
            if component == "vae":  # its decoder is cast later, apart from its encoder
                fold_modules({component: network}, folds)
            else:
                fold_and_cast(network, folds, self.dtype(component), component)
            self.applied = compose(self.applied, folds)
        return network.eval()


def stored_dtype(files: Sequence[Path]) -> torch.dtype:
    """The widest format in the headers of weight files."""
    entries = [entry for path in files for name, entry in header(path).items() if name != "__metadata__"]
    names = {entry["dtype"] for entry in entries}
    if names <= {"F16"} or names <= {"BF16"}:
        return torch.float16 if names == {"F16"} else torch.bfloat16
    return torch.float32


def _from_folder(folder: Path, recipe: LoadSpec, **ready: Any) -> Any:
    """Every network with its own class and format; ``ready`` components are taken as they are."""
    import diffusers

    files.check_folder(folder)
    index = files.read_json(folder / "model_index.json")
    _pipeline_class(index.get("_class_name"), folder)
    networks = {
        name: _network(folder / name, kind, recipe)
        for name, kind in files.components(index).items()
        if name not in ready and kind[0] in LIBRARIES and weight_files(folder / name)
    }
    with _as_unfit(folder):
        return diffusers.DiffusionPipeline.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, dtype=recipe.dtype(""), **networks, **ready
        )


def _over_base(file: Path, folder: Path, recipe: LoadSpec) -> Any:
    """A transformer of its own, in diffusers' or the makers' layout, in place of the base's."""
    kind = files.read_json(folder / "model_index.json").get("transformer")
    if not (isinstance(kind, list) and kind[0] in LIBRARIES):
        raise _not_for(file, f"{folder} has no transformer", f"{folder} 没有 transformer")
    dtype = recipe.reading("transformer", [file])
    with _as_unfit(file):
        transformer = _class(kind).from_single_file(
            str(file), config=str(folder), subfolder="transformer", dtype=dtype, local_files_only=True
        )
    unfilled = [name for name, parameter in transformer.named_parameters() if parameter.is_meta]
    if unfilled:
        raise _not_for(file, f"it has no {unfilled[0]}", f"缺少 {unfilled[0]}")
    return _from_folder(
        folder, recipe, transformer=recipe.finish("transformer", transformer, read_plan(file))
    )


def _from_checkpoint(file: Path, shapes: Path | None, recipe: LoadSpec) -> Any:
    """A whole checkpoint in its makers' layout. ``shapes`` is a folder of configs; without it, the shipped one."""
    shapes = shapes or single_file.recognise(file).folder
    assert shapes is not None
    index = files.read_json(shapes / "model_index.json")
    told = read_plan(file)
    with _as_unfit(file):
        pipeline = _pipeline_class(index["_class_name"], shapes).from_single_file(
            str(file),
            config=str(shapes),
            local_files_only=True,
            dtype=recipe.dtype("vae"),
            **_tokenizers(shapes, index),
        )
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            if any(parameter.is_meta for parameter in part.parameters()):
                raise _not_for(file, f"its {name} is incomplete", f"{name} 不完整")
            if recipe.folding(name) is None:
                part.to(recipe.dtype(name))
            recipe.finish(name, part, only(told, name) if told else None)
    return pipeline


def _tokenizers(shapes: Path, index: dict[str, Any]) -> dict[str, Any]:
    """The tokenizers a checkpoint lacks: CLIP's is shipped; a folder that brings its own keeps it."""
    wanted = [name for name in index if name.startswith("tokenizer") and not (shapes / name).is_dir()]
    return {
        name: single_file.clip_tokenizer("!" if name == "tokenizer_2" else "<|endoftext|>") for name in wanted
    }


def _network(folder: Path, kind: list[str], recipe: LoadSpec) -> torch.nn.Module:
    weights = weight_files(folder)
    variant = "fp16" if all(is_variant(path.name) for path in weights) else None
    dtype = recipe.reading(folder.name, weights) if folder.name != "vae" else recipe.dtype("vae")
    with _as_unfit(folder):
        network, info = _class(kind).from_pretrained(
            folder, dtype=dtype, use_safetensors=True, variant=variant, output_loading_info=True,
            local_files_only=True,
        )  # fmt: skip
    missing = sorted(str(key) for key in info["missing_keys"])
    if missing:
        more = f" and {len(missing) - 1} more tensors" if len(missing) > 1 else ""
        raise _not_for(folder, f"it has no {missing[0]}{more}", f"缺少 {missing[0]} 等 {len(missing)} 个张量")
    told = [plan for path in weights if (plan := read_plan(path)) is not None]
    return recipe.finish(folder.name, network, only(told[0], folder.name) if told else None)


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


def denoiser(pipeline: Any) -> Any:
    """The network that takes the steps. Raises Unfit for a pipeline that has none we know."""
    for name in ("transformer", "unet"):
        if isinstance(found := getattr(pipeline, name, None), torch.nn.Module):
            return found
    name = type(pipeline).__name__
    raise Unfit(
        f"{name} has neither a transformer nor a unet to paint with.", f"{name} 没有 transformer 或 unet。"
    )


def _join_formats(pipeline: Any, recipe: LoadSpec) -> None:
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
    islands = (recipe.folding("vae") or FoldPlan()).islands
    decoder = getattr(torch, recipe.plan["vae_decode"].dtype)
    for name, part in vae.named_children():
        if is_decoding(name):
            cast_with_islands(part, islands, decoder, prefix=f"vae.{name}")
        part.register_forward_pre_hook(_cast_to_own)


def is_decoding(name: str) -> bool:
    """Whether a child of an autoencoder belongs to the half that decodes."""
    return "decoder" in name or "post_quant" in name


def _emulate(pipeline: Any, plan: PrecisionPlan) -> None:
    """Let the components that are to be emulated compute so. Their weights are kept wide where memory allows."""
    roles = {choice.component for choice in plan if choice.emulated}
    for name, part in pipeline.components.items():
        if not isinstance(part, torch.nn.Module):
            continue
        if name == "vae" and "vae_decode" in roles:
            for child, half in part.named_children():
                if is_decoding(child):
                    emulate_module(half, keep=_room_for(half))
        elif name != "vae" and role(name) in roles:
            emulate_module(part, keep=_room_for(part))


def _room_for(network: torch.nn.Module) -> bool:
    """Whether float32 copies of the weights leave half of the free memory."""
    import psutil

    return 4 * sum(p.numel() for p in network.parameters()) < psutil.virtual_memory().available / 2


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
