"""From files to a diffusers pipeline under a precision plan, and the few things every caller asks of a pipeline.

``model_index.json`` decides the class; no family is named here. Only safetensors are opened, after ``catalogue.resolve``
has found them whole. Nothing here reaches a network, and no code that comes with a model is ever run.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch

from starrynight.errors import Unfit
from starrynight.models import habits, single_file, tensors, weights
from starrynight.models.catalogue import LocalModel
from starrynight.models.convert import convert, empty, fill
from starrynight.models.imports import collection_paused
from starrynight.models.kept import KeptLayer, count_kept
from starrynight.models.ledger import MARKERS, Ledgers
from starrynight.models.library_errors import library_errors, translated
from starrynight.models.precision_plan import dtype_name, role
from starrynight.models.stored import holds_other_numbers
from starrynight.models.tensors import StoredTensors
from starrynight.models.weights import WeightFile, is_variant
from starrynight.numerics.device import add_up_in_float32
from starrynight.numerics.dtypes import HALVES, NARROW, cast
from starrynight.numerics.emulate import emulate_module
from starrynight.numerics.fold import compose, fold_and_cast, fold_epsilons, fold_modules, only, parse_plan
from starrynight.numerics.islands import cast_with_islands
from starrynight.numerics.precision import PrecisionPlan
from starrynight.numerics.solve import FoldPlan

LIBRARIES = ("diffusers", "transformers")


@translated
def load(
    model: LocalModel,
    plan: PrecisionPlan,
    folds: FoldPlan | None = None,
    folding_on: torch.device | None = None,
) -> Any:
    """A diffusers pipeline on the CPU, each component in the plan's format; the decoder's may differ from its encoder's.

    ``folding_on``: the device on which weights are folded, tensor by tensor, and where they then stay.

    ``folds`` names tensors by component; those of components that the plan wants folded are applied. The folds in force,
    those that the files brought along included, are the pipeline's ``folds``. Raises Unfit when the weights are not the
    architecture's, and what ``weights.read_json`` raises.
    """
    _silence_libraries()
    spec = LoadSpec(plan, folds, folding_on)
    pipeline = _assembled(model, spec, _from_files(model, spec))
    pipeline.scheduler = habits.apply(pipeline.scheduler, model.spec.habits)
    return joined(pipeline, spec)


def joined(pipeline: Any, spec: LoadSpec) -> Any:
    """``pipeline``, whose networks are ``finish``ed by ``spec``, with the casts between their formats that its plan needs."""
    if any(choice.dtype == "float16" for choice in spec.plan):
        add_up_in_float32()
    _join_formats(pipeline, spec)
    _emulate(pipeline, spec.plan)
    pipeline.folds = spec.applied  # LoRAs follow them (lora)
    pipeline.ledgers = spec.ledgers  # recorded in the recipe
    return pipeline


# -- what callers ask of a pipeline ----------------------------------------------------------------------------------


def networks(pipeline: Any) -> dict[str, torch.nn.Module]:
    """The pipeline's networks by component name."""
    return {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}


def quiet_networks(pipeline: Any) -> list[torch.nn.Module]:
    """The modules that pipelines call and that draw no noise; of an autoencoder its halves, since ``encode`` draws."""
    found = networks(pipeline)
    halves = found["vae"].children() if "vae" in found else ()
    return [*(part for name, part in found.items() if name != "vae"), *halves]


def denoiser_name(pipeline: Any) -> str:
    """ "transformer" or "unet": the network that takes the steps. Raises Unfit for a pipeline that has neither."""
    for name in ("transformer", "unet"):
        if isinstance(getattr(pipeline, name, None), torch.nn.Module):
            return name
    name = type(pipeline).__name__
    raise Unfit(
        f"{name} has neither a transformer nor a unet to paint with.", f"{name} 没有 transformer 或 unet。"
    )


def denoiser(pipeline: Any) -> Any:
    """The network that takes the steps. Raises Unfit for a pipeline that has none."""
    return getattr(pipeline, denoiser_name(pipeline))


def call_arguments(pipeline: Any, **wanted: Any) -> dict[str, Any]:
    """Those of ``wanted`` that the pipeline's signature takes and that are not None."""
    accepted = inspect.signature(pipeline.__call__).parameters
    return {name: value for name, value in wanted.items() if name in accepted and value is not None}


def is_decoding(name: str) -> bool:
    """Whether a child of an autoencoder belongs to the half that decodes."""
    return "decoder" in name or "post_quant" in name


def narrowest(modules: Sequence[torch.nn.Module]) -> torch.dtype:
    """The narrowest floating format among the parameters and what packed ones are multiplied out to; float32 if none is
    narrower.
    """
    formats = {parameter.dtype for module in modules for parameter in module.parameters()}
    formats |= {part.held for module in modules for part in module.modules() if isinstance(part, KeptLayer)}
    return next((dtype for dtype in NARROW if dtype in formats), torch.float32)


# -- loading ---------------------------------------------------------------------------------------------------------


@dataclass
class LoadSpec:
    """What the components become: their formats, the folds on offer, and the folds that were applied."""

    plan: PrecisionPlan
    folds: FoldPlan | None = None
    folding_on: torch.device | None = None
    applied: FoldPlan = field(default_factory=FoldPlan)
    ledgers: Ledgers = field(default_factory=Ledgers)

    def dtype(self, component: str) -> torch.dtype:
        """The format a component's weights end up in. An autoencoder's stay in its encoder's."""
        return getattr(torch, dtype_name(self.plan, component))

    def reading(self, component: str, files: Sequence[WeightFile]) -> torch.dtype:
        """The format to read it in: its files' own where it is yet to be folded, so that no bit is lost before."""
        folded = component != "vae" and self.folding(component) is not None
        return stored_dtype(files) if folded else self.dtype(component)

    def folding(self, component: str) -> FoldPlan | None:
        """The folds of a component whose role is to be folded."""
        roles = {"vae": ("vae_decode",)}.get(component, (role(component),))
        chosen = [choice for choice in self.plan if choice.component in roles]
        return only(self.folds, component) if self.folds and any(c.folded for c in chosen) else None

    def keeps(self, component: str) -> bool:
        """Whether its weights stay as its files store them, if its layers can."""
        return any(choice.kept for choice in self.plan if choice.component == role(component) != "vae_encode")

    def finish(
        self, component: str, network: torch.nn.Module, in_file: FoldPlan | None = None
    ) -> torch.nn.Module:
        """Fold what is to be folded. ``in_file``: folds that the weights brought with them from their file."""
        if in_file is not None:
            fold_epsilons({component: network}, in_file)
            self.applied = compose(self.applied, in_file)
        if (folds := self.folding(component)) is not None:
            if component == "vae":  # its decoder is cast later, apart from its encoder
                fold_modules({component: network}, folds)
            else:
                fold_and_cast(network, folds, self.dtype(component), component, self.folding_on)
            self.applied = compose(self.applied, folds)
        return network.eval()


def stored_dtype(files: Sequence[WeightFile]) -> torch.dtype:
    """The widest format in weight files."""
    names = {name for file in files for name in file.dtypes}
    if names <= {"F16"} or names <= {"BF16"}:
        return torch.float16 if names == {"F16"} else torch.bfloat16
    return torch.float32


def _assembled(model: LocalModel, spec: LoadSpec, ready: dict[str, torch.nn.Module]) -> Any:
    """The pipeline of ``model.folder``: ``ready`` networks as they are, the others with their own class and format."""
    import diffusers

    index = weights.read_json(model.folder / "model_index.json")
    _pipeline_class(index.get("_class_name"), model.folder)
    found = {
        name: _network(model.folder / name, kind, model.files[name], spec)
        for name, kind in weights.components(index).items()
        if name not in ready and kind[0] in LIBRARIES and model.files.get(name)
    }
    with library_errors(model.folder):
        return diffusers.DiffusionPipeline.from_pretrained(
            model.folder, use_safetensors=True, local_files_only=True, dtype=spec.dtype(""), **found, **ready,
            **(_tokenizers(model.folder, index) if model.layout and not model.layout.base else {}),
        )  # fmt: skip


def _from_files(model: LocalModel, spec: LoadSpec) -> dict[str, torch.nn.Module]:
    """The networks that single files replace in ``model.folder``. Each file is read once; every tensor of it is used or
    known to be harmless.
    """
    index = weights.read_json(model.folder / "model_index.json")
    ready: dict[str, torch.nn.Module] = {}
    for path in dict.fromkeys(model.parts.values()):
        reading = {
            name: spec.reading(name, model.files[name]) for name, file in model.parts.items() if file == path
        }
        prefixes = {name: model.files[name][0].prefix for name in reading}
        kept = {name: prefix for name, prefix in prefixes.items() if spec.keeps(name)}
        stored, used = _stored_in(path, reading, kept), set(MARKERS)
        for name, dtype in reading.items():
            kind = index.get(name)
            if not (isinstance(kind, list) and kind[0] in LIBRARIES):
                raise _not_for(path, f"{model.folder} has no {name}", f"{model.folder} 没有 {name}")
            own = stored.within(prefixes[name])
            network, sources = _filled(path, model.folder / name, kind, own, dtype)
            used |= sources
            in_file = parse_plan(model.files[name][0].fold)
            ready[name] = spec.finish(
                name, network, only(in_file, name) if in_file and len(reading) > 1 else in_file
            )
        label = path.name if len(reading) > 1 else next(iter(reading))
        # Networks of this file that the user replaced by other files, or did not ask for, are not the model's.
        asked = [
            name for name in stored.names if not name.startswith(model.files[next(iter(reading))][0].unused)
        ]
        packed = sum(count_kept(ready[name]) for name in reading)
        spec.ledgers.close(label, path, asked, used | stored.companions, packed)
    return ready


def _stored_in(path: Path, reading: dict[str, torch.dtype], kept: dict[str, str]) -> StoredTensors:
    """The tensors of a single file, scaled ones in the format that ``reading`` has for their component; packed where they are
    of a component in ``kept``, component → prefix of its names.
    """
    widest = max(reading.values(), key=lambda dtype: dtype.itemsize)

    def dtype_of(tensor: str) -> torch.dtype:
        return next((reading[name] for name in single_file.components_of(tensor) if name in reading), widest)

    def stays(tensor: str) -> bool:
        own = single_file.components_of(tensor)
        own += ["transformer"] if "unet" in own else []  # ComfyUI's prefix is that of any denoiser
        return any(tensor.startswith(prefix) and name in (own or kept) for name, prefix in kept.items())

    with library_errors(path):
        return tensors.read(path, dtype_of, stays)


def _filled(
    path: Path, folder: Path, kind: list[str], stored: StoredTensors, dtype: torch.dtype
) -> tuple[torch.nn.Module, frozenset[str]]:
    """The network that ``folder`` configures with numbers out of ``stored``, and the names of those it took."""
    with library_errors(path):
        network = empty(_class(kind), folder, stored.names)
        found = convert(network, stored.meant, stored.packed, dtype)
    if found.missing:
        raise _lacks(path, folder.name, found.missing)
    if found.misfits:
        name = found.misfits[0]
        own, wanted = (
            f"{str(tensor.dtype)[6:]} {list(tensor.shape)}"
            for tensor in (found.state[name], network.state_dict()[name])
        )
        raise _not_for(
            path,
            f"{folder.name}.{name} is {own} where it takes {wanted}",
            f"{folder.name}.{name} 为 {own}，而它需要 {wanted}",
        )
    with library_errors(path):
        return fill(network, found.state, dtype, found.packed), found.sources


def _lacks(path: Path, component: str, names: Sequence[str]) -> Unfit:
    more = f" and {len(names) - 1} more tensors" if len(names) > 1 else ""
    return _not_for(
        path,
        f"its {component} has no {names[0]}{more}",
        f"{component} 缺少 {names[0]} 等 {len(names)} 个张量",
    )


def _tokenizers(folder: Path, index: dict[str, Any]) -> dict[str, Any]:
    """The tokenizers a checkpoint lacks: CLIP's is shipped; a folder that brings its own keeps it."""
    wanted = [name for name in index if name.startswith("tokenizer") and not (folder / name).is_dir()]
    return {
        name: single_file.clip_tokenizer("!" if name == "tokenizer_2" else "<|endoftext|>") for name in wanted
    }


def _network(folder: Path, kind: list[str], files: Sequence[WeightFile], spec: LoadSpec) -> torch.nn.Module:
    """A component of a diffusers folder. 8-bit weights with scales apart are multiplied out, or kept packed where the plan says
    so; no library does either.
    """
    dtype = spec.reading(folder.name, files)
    stored = [name for file in files for name in file.names]
    if spec.keeps(folder.name) or tensors.is_scaled(stored) or holds_other_numbers(files):
        network, used = _scaled(folder, kind, files, dtype, spec.keeps(folder.name))
    else:
        found = _from_pretrained(folder, kind, files, dtype, stored)
        network, used = found or _scaled(folder, kind, files, dtype, keep=False)
    spec.ledgers.close(folder.name, folder, stored, used, count_kept(network))
    in_file = next((plan for file in files if (plan := parse_plan(file.fold)) is not None), None)
    return spec.finish(folder.name, network, only(in_file, folder.name) if in_file else None)


def _scaled(
    folder: Path, kind: list[str], files: Sequence[WeightFile], dtype: torch.dtype, keep: bool
) -> tuple[torch.nn.Module, set[str]]:
    with library_errors(folder):
        read = tensors.read([file.path for file in files], lambda _: dtype, lambda _: keep)
    network, used = _filled(folder, folder, kind, read, dtype)
    return network, set(used | read.companions)


def _from_pretrained(
    folder: Path, kind: list[str], files: Sequence[WeightFile], dtype: torch.dtype, stored: Sequence[str]
) -> tuple[torch.nn.Module, set[str]] | None:
    """The network as its library loads it, and the names used; None where a parameter finds no tensor of its name."""
    variant = "fp16" if all(is_variant(file.path.name) for file in files) else None
    options: dict[str, Any] = {
        "dtype": dtype,
        "variant": variant,
        "use_safetensors": True,
        "local_files_only": True,
    }
    with library_errors(folder):
        network, info = _class(kind).from_pretrained(folder, output_loading_info=True, **options)
    if info["missing_keys"]:
        return None
    return network, set(stored) - set(map(str, info["unexpected_keys"]))


def _class(kind: list[str]) -> Any:
    with collection_paused():
        found = getattr(importlib.import_module(kind[0]), kind[1], None)
    if found is None:
        raise Unfit(
            f"This version of {kind[0]} has no {kind[1]}; update it: pip install -U {kind[0]}.",
            f"当前版本的 {kind[0]} 没有 {kind[1]}；请升级：pip install -U {kind[0]}。",
        )
    return found


def _pipeline_class(name: Any, folder: Path) -> Any:
    """A text-to-image pipeline of the library's own; a folder that wants its own code run is refused."""
    with collection_paused():
        import diffusers

        found = getattr(diffusers, name, None) if isinstance(name, str) else None
    if found is None:
        raise _not_for(
            folder, f"its pipeline “{name}” is not diffusers' own", f"其管线“{name}”不属于 diffusers"
        )
    if "prompt" not in inspect.signature(found.__call__).parameters:
        raise _not_for(folder, f"{name} paints from no prompt", f"{name} 不是文生图管线")
    return found


# -- formats at the borders ------------------------------------------------------------------------------------------


def _join_formats(pipeline: Any, spec: LoadSpec) -> None:
    """Put the decoding half of the autoencoder into its own format, and let every part cast its inputs.

    Pipelines assume one format throughout; under a plan, latents encoded in float32 meet a 16-bit denoiser. A pipeline
    that would cast its autoencoder back and forth (``force_upcast``) would round its weights, so that is switched off.
    """
    denoiser(pipeline).register_forward_pre_hook(_cast_denoiser_inputs, with_kwargs=True)
    vae = getattr(pipeline, "vae", None)
    if vae is None:  # a family that paints pixels
        return
    if vae.config.get("force_upcast"):
        vae.register_to_config(force_upcast=False)
    islands = (spec.folding("vae") or FoldPlan()).islands
    decoder = getattr(torch, spec.plan["vae_decode"].dtype)
    for name, part in vae.named_children():
        if is_decoding(name):
            cast_with_islands(part, islands, decoder, prefix=f"vae.{name}")
        part.register_forward_pre_hook(_cast_to_own)


# Denoisers' narrowest formats while a picture is painted: to look through their modules at every step takes milliseconds.
_noted: WeakKeyDictionary[torch.nn.Module, torch.dtype] = WeakKeyDictionary()


def note_format(denoiser: torch.nn.Module) -> None:
    """Until ``forget_format``, inputs are cast to what the network holds now. Called again where a fallback changed it."""
    _noted[denoiser] = narrowest([denoiser])


def forget_format(denoiser: torch.nn.Module) -> None:
    _noted.pop(denoiser, None)


def _cast_denoiser_inputs(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Latents and 16-bit embeddings in the narrowest format the network holds, whatever a fallback has changed.

    Latents are the first argument. Timesteps stay as they are: one number a picture, which loses its meaning in 16 bits.
    """
    target = _noted.get(module) or narrowest([module])

    def fit(value: Any, latents: bool) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(fit(item, latents) for item in value)
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        return value.to(target) if latents or (value.dtype in HALVES and value.dim() > 1) else value

    return tuple(fit(arg, number == 0) for number, arg in enumerate(args)), {
        key: fit(value, key in ("hidden_states", "sample")) for key, value in kwargs.items()
    }


def _cast_to_own(module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    own = next((parameter.dtype for parameter in module.parameters()), None)
    return args if own is None else cast(args, own)


def _emulate(pipeline: Any, plan: PrecisionPlan) -> None:
    """Let the components that are to be emulated compute so. Their weights are kept wide where memory allows."""
    roles = {choice.component for choice in plan if choice.emulated}
    for name, part in networks(pipeline).items():
        if name == "vae" and "vae_decode" in roles:
            for child, half in part.named_children():
                if is_decoding(child):
                    emulate_module(half, keep=_wide_copy_fits(half))
        elif name != "vae" and role(name) in roles:
            emulate_module(part, keep=_wide_copy_fits(part))


def _wide_copy_fits(network: torch.nn.Module) -> bool:
    """Whether float32 copies of the weights leave half of the free memory."""
    import psutil

    return 4 * sum(p.numel() for p in network.parameters()) < psutil.virtual_memory().available / 2


# -- errors ----------------------------------------------------------------------------------------------------------


def _not_for(path: Path, en: str, zh: str) -> Unfit:
    return Unfit(
        f"“{path.name}” does not fit the architecture it is loaded as: {en}.",
        f"“{path.name}”与所加载的架构不符：{zh}。",
    )


def _silence_libraries() -> None:
    """The libraries draw progress bars of their own; interfaces draw ours."""
    with collection_paused():
        import diffusers
        import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()
