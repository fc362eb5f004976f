"""``starry fold``: write a model folded, so that any tool can run it in float16.

The folds are limited to what an ordinary checkpoint can hold (``checkpoint_constraints``). A folder is written as a folder, a
single file in its own layout. A component that no such fold brings inside float16 is written in float32, and the note says
so. Everything is written to a ``.partial`` folder first; a second run resumes there.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from starrynight import __version__
from starrynight.errors import BadRequest, StorageError, Unfit
from starrynight.folding import calibrate, single_file
from starrynight.folding.cache import CalibrationSample, Folds, folds_path
from starrynight.i18n import Text, is_chinese
from starrynight.models import weights
from starrynight.models.catalogue import LocalModel
from starrynight.models.load import load, networks
from starrynight.models.stored import are_plain, stored_format
from starrynight.models.weights import is_variant, weight_files
from starrynight.numerics.device import kind, torch_device
from starrynight.numerics.epsilons import names_epsilon
from starrynight.numerics.fold import compose, only, read_plan, write_folded
from starrynight.numerics.islands import inside
from starrynight.numerics.measured import Trace
from starrynight.numerics.modules import join, named_modules
from starrynight.numerics.solve import CheckpointConstraints, FoldPlan, Infeasible, solve_folds
from starrynight.numerics.trace import trace_modules
from starrynight.progress import OnProgress, ProgressCounter
from starrynight.storage import disk_state, make_folder

NOTE, STORY, PLAN = "FOLDED.md", "starry_fold.json", "plan.json"


@dataclass(frozen=True)
class FoldedCheckpoint:
    """What was written. ``kept``: components that stay in float32. ``single``: one file, in its own layout."""

    folder: Path
    plan: FoldPlan
    certificate: dict[str, Any]
    kept: tuple[str, ...]
    single: bool

    def message(self, lang: str) -> str:
        """A paragraph for the terminal and the note."""
        return (" " if not is_chinese(lang) else "").join(text.to(lang) for text in self._sentences())

    def _sentences(self) -> Iterator[Text]:
        tensors, keys, c = len(self.plan.parameters), len(self.plan.configs), self.certificate
        yield Text(f"{tensors} tensors folded, {keys} configuration keys rewritten.",
                   f"折叠 {tensors} 个张量，改写配置 {keys} 项。")  # fmt: skip
        if (error := c.get("float32-folded", {}).get("error")) is not None:
            same = Text("bit for bit the original", "逐位相同") if error == 0 else Text(
                f"within {error:.0e} of the original", f"相差 {error:.0e}")  # fmt: skip
            yield Text(f"Its float32 is {same.en}.", f"float32 与原模型{same.zh}。")
        float16, bfloat16 = (c.get(name, {}).get("psnr") for name in ("float16-folded", "bfloat16"))
        if float16 is not None:
            yield Text(
                f"On {c['pictures']} held-out pictures float16 is at {float16} dB PSNR from float32, bfloat16 at {bfloat16} dB.",
                f"在 {c['pictures']} 幅未参与标定的画上，float16 的 PSNR 为 {float16} dB，bfloat16 为 {bfloat16} dB。",
            )
        if not weights.certificate_holds(c):
            lacks = _what_is_missing(c)
            yield Text(
                f"{lacks.en}: the certificate does not hold, and this program will not choose float16 for it by itself.",
                f"{lacks.zh}：证书不成立（holds 为 false），本程序不会自动以 float16 使用它。",
            )
        if self.kept:
            names = ", ".join(self.kept)
            yield Text(f"{names}: no fold that an ordinary checkpoint can hold, so written in float32.",
                       f"{names} 无法以普通检查点的形式折叠，保留为 float32。")  # fmt: skip

    @property
    def loading(self) -> str:
        """How to load it: a line of Python, or a sentence for a single file."""
        if self.single:
            return "Put the file where your tool keeps its diffusion models, and let it run in float16."
        if not self.kept:
            return f'DiffusionPipeline.from_pretrained("{self.folder.name}", dtype=torch.float16)'
        kept = ", ".join(f'"{name}": torch.float32' for name in self.kept)
        return f'DiffusionPipeline.from_pretrained("{self.folder.name}", dtype={{{kept}, "default": torch.float16}})'


def _what_is_missing(certificate: Mapping[str, Any]) -> Text:
    """Why a certificate does not hold."""
    if not certificate.get("finite"):
        return Text("Folded float16 still broke on a held-out picture", "折叠后的 float16 仍有数值失效")
    if "float32-folded" not in certificate:
        return Text("Float32 did not fit into memory, so it is only known that float16 stayed finite",
                    "float32 放不进内存，只知道 float16 的数值有限")  # fmt: skip
    return Text("Folded float16 is not nearer to float32 than bfloat16, or its float32 differs",
                "折叠后的 float16 并不比 bfloat16 更接近 float32，或其 float32 有差异")  # fmt: skip


def write(model: LocalModel, out: Path, on_progress: OnProgress | None = None) -> FoldedCheckpoint:
    """Write ``model`` folded to the new folder ``out``.

    Raises BadRequest when ``out`` exists, StorageError when the disk is too small or full, Unfit when nothing can be
    folded, or when the model is a base with another encoder or decoder.
    """
    if out.exists():
        raise BadRequest(f"“{out}” exists already; name a new folder.", f"“{out}”已存在；请换一个新文件夹。")
    if model.is_folder and model.parts:
        raise Unfit(
            f"{model.spec.en} is {model.spec.base} with other parts; fold {model.spec.base} instead.",
            f"{model.spec.zh} 是换了部件的 {model.spec.base}；请改为折叠 {model.spec.base}。",
        )
    _check_stored(model)
    sources = _sources(model)
    _check_free_space(out, sources)
    partial = out.with_name(out.name + ".partial")
    folds, kept = _cached_plan(model, partial / PLAN, on_progress)
    counter = ProgressCounter(on_progress, sum(len(weights.header(path)) - 1 for path in sources))
    certificate = {
        **folds.certificate,
        "holds": weights.certificate_holds(folds.certificate),
        "float32": list(kept),
    }
    if model.is_folder:
        _write_folder(model.path, partial, folds.plan, certificate, kept, counter)
    else:
        _write_file(model, partial, folds.plan, certificate, counter)
    written = FoldedCheckpoint(out, folds.plan, folds.certificate, kept, single=not model.is_folder)
    _write_notes(model, partial, written)
    (partial / PLAN).unlink()
    partial.replace(out)
    return written


# -- the plan --------------------------------------------------------------------------------------------------------


def _cached_plan(
    model: LocalModel, cached: Path, on_progress: OnProgress | None
) -> tuple[Folds, tuple[str, ...]]:
    """The plan and its certificate, made once: a resumed run finds them in the unfinished folder."""
    stamp = folds_path(model).stem
    if cached.is_file():
        stored = json.loads(cached.read_text("utf-8"))
        if stored["stamp"] == stamp:
            return Folds.from_json(json.dumps(stored["folds"])), tuple(stored["kept"])
    folds, kept = plan_for_checkpoint(model, on_progress)
    shutil.rmtree(cached.parent, ignore_errors=True)
    make_folder(cached.parent)
    cached.write_text(
        json.dumps({"stamp": stamp, "folds": json.loads(folds.to_json()), "kept": kept}), "utf-8"
    )
    return folds, kept


def plan_for_checkpoint(
    model: LocalModel, on_progress: OnProgress | None = None
) -> tuple[Folds, tuple[str, ...]]:
    """Folds that an ordinary checkpoint can hold; components that would need an island stay unfolded in float32."""
    samples = calibrate.usual(model)
    counter = ProgressCounter(
        on_progress, sum(s.steps for s in samples) + calibrate.certificate_pictures(model)
    )
    device = calibrate.device_for(model, torch_device(kind()))
    found, constraints, names = _trace_all(model, samples, counter, device)
    try:
        plan = solve_folds(found, constraints=constraints, fixed=lambda name: not _can_be_folded(model, name))
    except Infeasible as error:
        raise Unfit(
            f"{model.spec.en} was folded before in a way that an ordinary checkpoint cannot carry ({error}); fold the original.",
            f"{model.spec.zh} 曾以普通检查点无法承载的方式折叠过（{error}）；请折叠原始模型。",
        ) from error
    kept = tuple(name for name in names if any(inside(island, (name,)) for island in plan.islands))
    for name in kept:
        plan = _without(plan, name)
    if kept and (not plan.parameters or not model.is_folder):
        stuck = ", ".join(kept)
        raise Unfit(
            f"No fold that an ordinary checkpoint can carry brings {stuck} inside float16; here it still paints: starry "
            f"paint --model {model.spec.name} --precision float16-folded.",
            f"没有普通检查点能承载的折叠可使 {stuck} 落入 float16；但在本程序中可以：starry paint --model {model.spec.name} "
            "--precision float16-folded。",
        )
    folds = Folds(plan, samples, calibrate.certify(model, plan, counter, kept, device))
    if not folds.exact:
        what = _what_changed(folds.certificate)
        raise Unfit(
            f"Folding would change what {model.spec.en} paints ({what.en}), so nothing is written; use it in bfloat16 or float32.",
            f"折叠会改变 {model.spec.zh} 的画面（{what.zh}），因此不写出；请以 bfloat16 或 float32 使用。",
        )
    return folds, kept


def _what_changed(certificate: Mapping[str, Any]) -> Text:
    """Where folded float32 first differs, or by how much."""
    step = certificate.get("step") or {}
    if step.get("changed"):
        return Text(f"its float32 differs from {step['changed']} on", f"float32 自 {step['changed']} 起不同")
    error = (certificate.get("float32-folded") or step).get("error")
    return Text(f"its float32 differs by {error}", f"float32 相差 {error}")


def _trace_all(
    model: LocalModel, samples: Sequence[CalibrationSample], counter: ProgressCounter, device: torch.device
) -> tuple[Trace, CheckpointConstraints, tuple[str, ...]]:
    """The trace of painting and encoding, what a checkpoint can hold, and the names of the networks."""
    found = calibrate.observe(model, samples, counter=counter, device=device)
    pipeline = load(model, calibrate.uniform(model, "bfloat16", device)).to(device)
    parts, picture = networks(pipeline), calibrate.first_picture(model, samples)
    if picture is None:
        picture = calibrate.paint(pipeline, model, samples[0])
    _trace_encoding(parts, picture, found)
    return found, _constraints(model, parts, pipeline.folds), tuple(parts)


def _trace_encoding(networks: dict[str, torch.nn.Module], picture: torch.Tensor, found: Trace) -> None:
    """Trace the encoder of the autoencoder, which painting does not use but other tools run in float16 as well."""
    vae: Any = networks.get("vae")
    if vae is not None and hasattr(vae, "encode"):
        vae.to(torch.bfloat16)
        pixels = (2 * picture - 1).to(vae.device, torch.bfloat16)
        films = [pixels]
        if calibrate.takes_films(
            vae
        ):  # a picture is a film of one frame; layers between frames run from the second on
            corner = pixels[:, :, None, :64, :64]
            films = [pixels[:, :, None], corner.expand(-1, -1, 2 * calibrate.FRAMES - 1, -1, -1)]
        trace_modules(networks, lambda: [vae.encode(film) for film in films], into=found)


def _constraints(
    model: LocalModel, networks: dict[str, torch.nn.Module], in_file: FoldPlan
) -> CheckpointConstraints:
    """A folder's configurations can be rewritten; other tools read none beside a single file."""
    if not model.is_folder:
        return CheckpointConstraints(header_epsilons=in_file.epsilons)
    return checkpoint_constraints(networks, in_file.epsilons)


def _can_be_folded(model: LocalModel, name: str) -> bool:
    """Whether a tensor can be folded in its file: in a single file, only what diffusers' converter maps."""
    return model.is_folder or name.split(".")[0] in single_file.parts(model)


def _without(plan: FoldPlan, component: str) -> FoldPlan:
    def drop(powers: Any) -> dict[str, int]:
        return {name: power for name, power in powers.items() if not inside(name, (component,))}

    islands = tuple(i for i in plan.islands if not inside(i, (component,)))
    return replace(plan, parameters=drop(plan.parameters), epsilons=drop(plan.epsilons), configs=drop(plan.configs),
                   islands=islands)  # fmt: skip


# -- the files -------------------------------------------------------------------------------------------------------


def _sources(model: LocalModel) -> list[Path]:
    if not model.is_folder:
        return [model.path]
    parts = weights.components(weights.read_json(model.path / "model_index.json"))
    return [path for name in parts for path in weight_files(model.path / name)]


def _check_stored(model: LocalModel) -> None:
    """Raises Unfit where the weights are not plain numbers of one file each: a fold multiplies what is stored."""
    for component, files in model.files.items():
        stored = stored_format(files)
        if not are_plain(files):
            raise Unfit(
                f"The {component} of {model.spec.en} is stored as {stored}, whose numbers a written fold cannot change; fold the "
                "model's bfloat16 or float16 file, or paint this one with --precision float16-folded.",
                f"{model.spec.zh} 的 {component} 以 {stored} 存储，写出的折叠无法改动其数值；请折叠该模型的 bfloat16 或 float16 "
                "文件，或直接以 --precision float16-folded 作画。",
            )
    for path in _sources(model):
        if weights.is_wrapped(path):
            raise Unfit(
                f"The tensors of “{path.name}” carry names of a training's wrapper (_orig_mod, _fsdp_wrapped_module); save the model "
                "without them before folding it.",
                f"“{path.name}”的张量名带有训练时的包装名（_orig_mod、_fsdp_wrapped_module）；请去掉后再折叠。",
            )
    if not model.is_folder and model.path.name.endswith(weights.INDEX):
        raise Unfit(
            f"“{model.path.name}” lists shards; a written fold takes a single file or a diffusers folder.",
            f"“{model.path.name}”是分片清单；写出折叠需要单个文件或 diffusers 文件夹。",
        )


def _check_free_space(out: Path, sources: list[Path]) -> None:
    """Twice the files' size suffices even if everything becomes float32."""
    there, free, _ = disk_state(out)
    needed = 2 * sum(path.stat().st_size for path in sources)
    if free < needed:
        raise StorageError(
            f"Writing may take {needed / 1e9:.1f} GB and {there} has {free / 1e9:.1f} GB free; name another place with -o.",
            f"写出可能需要 {needed / 1e9:.1f} GB，而 {there} 只剩 {free / 1e9:.1f} GB；请用 -o 换个位置。",
        )


def _write_folder(
    source: Path,
    target: Path,
    plan: FoldPlan,
    certificate: dict[str, Any],
    kept: tuple[str, ...],
    counter: ProgressCounter,
) -> None:
    parts = weights.components(weights.read_json(source / "model_index.json"))
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if (
            path.is_file()
            and path.suffix in (".json", ".txt", ".jinja", ".model", ".md")
            and path.name != STORY
        ):
            make_folder(place.parent)
            shutil.copyfile(path, place)
    for name in parts:
        dtype = torch.float32 if name in kept else torch.float16
        for path in weight_files(source / name):
            _write_weights(
                path, target / name / _plain_name(path.name), plan, certificate, name, dtype, counter
            )
        _rewrite_config(target / name, name, plan, dtype)


def _plain_name(name: str) -> str:
    """A variant is written under the plain file's name."""
    return name.replace(".fp16", "") if is_variant(name) else name


def _write_weights(
    path: Path, place: Path, plan: FoldPlan, certificate: dict[str, Any], name: str, dtype: torch.dtype, counter: ProgressCounter,
    rows: dict[str, torch.Tensor] | None = None,
) -> None:  # fmt: skip
    """Write one weight file, unless an earlier run has finished it."""
    if place.is_file():
        weights.header(place)
        return
    # The header lists no epsilons: whoever reads the header has read the rewritten configuration already.
    before = read_plan(path) or FoldPlan()
    total = compose(only(before, name), only(plan, name)) if name else compose(before, plan)
    total = replace(total, epsilons={})
    make_folder(place.parent)
    write_folded(path, place, plan, certificate, name, dtype, rows, total,
                 lambda tensor: counter.advance(Text(f"writing {tensor}", f"写出 {tensor}")))  # fmt: skip


def _rewrite_config(folder: Path, name: str, plan: FoldPlan, dtype: torch.dtype) -> None:
    path = folder / "config.json"
    if not path.is_file():
        return
    config = json.loads(path.read_text("utf-8"))
    for full, power in plan.configs.items():
        component, _, key = full.partition(".")
        if component == name:
            config[key] *= 2.0**power
    for key in ("dtype", "torch_dtype"):
        if key in config:
            config[key] = str(dtype).removeprefix("torch.")
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _write_file(
    model: LocalModel, target: Path, plan: FoldPlan, certificate: dict[str, Any], counter: ProgressCounter
) -> None:
    """Write a single file in its own layout."""
    rows = single_file.powers(model, plan)
    place = target / model.path.name
    _write_weights(model.path, place, plan, certificate, "", torch.float16, counter, rows)


def _write_notes(model: LocalModel, folder: Path, written: FoldedCheckpoint) -> None:
    """FOLDED.md for people, starry_fold.json for machines."""
    story = {
        "made_by": f"starry fold (Starry Night {__version__})", "from": model.spec.name, "to": "float16",
        "plan": json.loads(written.plan.to_json()), "certificate": written.certificate, "float32": list(written.kept),
    }  # fmt: skip
    (folder / STORY).write_text(
        json.dumps(story, indent=1, ensure_ascii=False, sort_keys=True) + "\n", "utf-8"
    )
    load = written.loading if written.single else f"```python\n{written.loading}\n```"
    (folder / NOTE).write_text(
        f"# {model.spec.en}, folded for float16\n\n{written.message('en')}\n\n{written.message('zh')}\n\n{load}\n\n"
        "Weights were multiplied by powers of two, so that every activation of the\n"
        f"calibration stays {written.plan.headroom_bits:.1f} bits inside float16's range. The plan is in `{STORY}` and in the header of the\n"
        "weights (`starry_fold`). Ranges were measured, not proved: a tool without a guard shows a black picture if one\n"
        "goes beyond them.\n",
        "utf-8",
    )  # fmt: skip


# -- what an ordinary checkpoint can carry ---------------------------------------------------------------------------


def checkpoint_constraints(
    networks: Mapping[str, torch.nn.Module], header_epsilons: Mapping[str, int] | None = None
) -> CheckpointConstraints:
    """Which epsilons each configuration key sets, as "network.key". ``header_epsilons``: see ``CheckpointConstraints``.

    Found by building each class twice, without memory, from two configurations that differ in one key.
    """
    keys = {}
    for name, network in networks.items():
        for key in _keys(network):
            if members := frozenset(_set_by(network, key, name)):
                keys[join(name, key)] = members
    return CheckpointConstraints(keys, header_epsilons or {})


def _keys(network: torch.nn.Module) -> list[str]:
    """The configuration's keys that are called an epsilon and hold a positive number."""
    config: Any = getattr(network, "config", None) or {}
    entries = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return [
        key for key, value in entries.items() if names_epsilon(key) and isinstance(value, float) and value > 0
    ]


def _set_by(network: torch.nn.Module, key: str, prefix: str) -> Iterator[str]:
    """The epsilons ("module.attribute") that double when the key doubles."""
    one, two = (_rebuilt(network, key, factor) for factor in (1.0, 2.0))
    if one is None or two is None:
        return
    others = dict(named_modules(two))
    for name, module in named_modules(one):
        for attribute, value in vars(module).items():
            if (
                names_epsilon(attribute)
                and isinstance(value, float)
                and vars(others[name])[attribute] == 2 * value
            ):
                yield join(prefix, name, attribute)


def _rebuilt(network: torch.nn.Module, key: str, factor: float) -> torch.nn.Module | None:
    """The same class from the same configuration with one key changed, on the meta device; None if it cannot be built."""
    config: Any = network.config
    cls: Any = type(network)
    with torch.device("meta"):
        try:
            if hasattr(config, "to_dict"):
                other = copy.deepcopy(config)
                setattr(other, key, getattr(config, key) * factor)
                return cls(other)
            # without diffusers' private entries: "_use_default_values" would restore defaults
            entries = {name: value for name, value in config.items() if not name.startswith("_")}
            return cls.from_config({**entries, key: entries[key] * factor})
        except (TypeError, ValueError, RuntimeError, NotImplementedError):
            return None
