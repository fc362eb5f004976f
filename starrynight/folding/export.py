"""A model written out folded, so that any tool paints with it in float16: ``starry fold``.

The plan keeps to what an ordinary checkpoint can carry (``checkpoint_constraints``). A folder is written as a folder; a single file is
written in the layout it came in. What cannot be folded that way is written in float32, and the note beside it says so.
Everything goes into a ``.partial`` folder first, which a second run goes on with. Knows files; knows no door.
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
from starrynight.i18n import Text
from starrynight.models import weights
from starrynight.models.catalogue import LocalModel
from starrynight.models.load import load, networks
from starrynight.models.weights import is_variant, weight_files
from starrynight.numerics.fold import compose, only, read_plan, write_folded
from starrynight.numerics.islands import inside
from starrynight.numerics.modules import join, named_modules
from starrynight.numerics.solve import CheckpointConstraints, FoldPlan, Infeasible, solve_folds
from starrynight.numerics.trace import Trace, trace_modules
from starrynight.progress import OnProgress, ProgressCounter
from starrynight.storage import disk_state

NOTE, STORY, PLAN = "FOLDED.md", "starry_fold.json", "plan.json"


@dataclass(frozen=True)
class Written:
    """What was written: ``kept`` are the components that had to stay in float32; ``single``: one file, in its layout."""

    folder: Path
    plan: FoldPlan
    certificate: dict[str, Any]
    kept: tuple[str, ...]
    single: bool

    def message(self, lang: str) -> str:
        """What a reader of the terminal or of the note should know."""
        zh, c = lang.startswith("zh"), self.certificate
        half, brain = (c.get(name, {}).get("psnr") for name in ("float16-folded", "bfloat16"))
        same = c.get("float32-folded", {}).get("error")
        words = [
            f"折叠 {len(self.plan.parameters)} 个张量，改写配置 {len(self.plan.configs)} 项。" if zh else
            f"{len(self.plan.parameters)} tensors folded, {len(self.plan.configs)} configuration keys rewritten.",
        ]  # fmt: skip
        if same is not None:
            exact = same == 0
            words.append(
                f"float32 与原模型{'逐位相同' if exact else f'相差 {same:.0e}'}。" if zh else
                 f"Its float32 is {'bit for bit the original' if exact else f'within {same:.0e} of the original'}."
            )  # fmt: skip
        if half is not None:
            words.append(
                f"在 {c['pictures']} 幅未参与标定的画上，float16 的 PSNR 为 {half} dB，bfloat16 为 {brain} dB。" if zh else
                f"On {c['pictures']} held-out pictures float16 is at {half} dB PSNR from float32, bfloat16 at {brain} dB."
            )  # fmt: skip
        if not weights.certificate_holds(c):
            words.append(self._unproved(zh))
        if self.kept:
            names = ", ".join(self.kept)
            words.append(
                f"{names} 无法以普通检查点的形式折叠，保留为 float32。" if zh else
                f"{names}: no fold that an ordinary checkpoint can carry, so written in float32."
            )  # fmt: skip
        return " ".join(words)

    def _unproved(self, zh: bool) -> str:
        """What the certificate lacks, and what follows from it."""
        if not self.certificate.get("finite"):
            lacks = (
                "折叠后的 float16 仍有数值失效" if zh else "Folded float16 still broke on a held-out picture"
            )
        elif "float32-folded" not in self.certificate:
            lacks = (
                "float32 放不进内存，只知道 float16 的数值有限"
                if zh
                else "Float32 did not fit into memory, so it is only known that float16 stayed finite"
            )
        else:
            lacks = (
                "折叠后的 float16 并不比 bfloat16 更接近 float32"
                if zh
                else "Folded float16 is not nearer to float32 than bfloat16, or its float32 differs"
            )
        if zh:
            return f"{lacks}：证书不成立（holds 为 false），本程序不会自动以 float16 使用它。"
        return f"{lacks}: the certificate does not hold, and this program will not choose float16 for it by itself."

    @property
    def loading(self) -> str:
        """The line of Python that loads it."""
        if self.single:
            return "Put the file where your tool keeps its diffusion models, and let it run in float16."
        if not self.kept:
            return f'DiffusionPipeline.from_pretrained("{self.folder.name}", dtype=torch.float16)'
        kept = ", ".join(f'"{name}": torch.float32' for name in self.kept)
        return f'DiffusionPipeline.from_pretrained("{self.folder.name}", dtype={{{kept}, "default": torch.float16}})'


def write(model: LocalModel, out: Path, on_progress: OnProgress | None = None) -> Written:
    """Write ``model`` folded to the folder ``out``, which must not exist.

    Raises BadRequest when it does, StorageError when the disk is too small or full, Unfit when nothing can be folded.
    """
    if out.exists():
        raise BadRequest(f"“{out}” exists already; name a new folder.", f"“{out}”已存在；请换一个新文件夹。")
    sources = _sources(model)
    _check_room(out, sources)
    partial = out.with_name(out.name + ".partial")
    folds, kept = _planned(model, partial / PLAN, on_progress)
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
    written = Written(out, folds.plan, folds.certificate, kept, single=not model.is_folder)
    _write_notes(model, partial, written)
    (partial / PLAN).unlink()
    partial.replace(out)
    return written


# -- the plan --------------------------------------------------------------------------------------------------------


def _planned(
    model: LocalModel, kept_at: Path, on_progress: OnProgress | None
) -> tuple[Folds, tuple[str, ...]]:
    """The plan and its proof, made once: a run that was broken off finds them in the unfinished folder."""
    stamp = folds_path(model).stem
    if kept_at.is_file():
        told = json.loads(kept_at.read_text("utf-8"))
        if told["stamp"] == stamp:
            return Folds.from_json(json.dumps(told["folds"])), tuple(told["kept"])
    folds, kept = plan_plain(model, on_progress)
    shutil.rmtree(kept_at.parent, ignore_errors=True)
    kept_at.parent.mkdir(parents=True)
    kept_at.write_text(
        json.dumps({"stamp": stamp, "folds": json.loads(folds.to_json()), "kept": kept}), "utf-8"
    )
    return folds, kept


def plan_plain(model: LocalModel, on_progress: OnProgress | None = None) -> tuple[Folds, tuple[str, ...]]:
    """Folds that an ordinary checkpoint can carry; components that would need an island keep their weights."""
    samples = calibrate.usual(model)
    counter = ProgressCounter(
        on_progress, sum(s.steps for s in samples) + calibrate.certificate_pictures(model)
    )
    found, carried, names = _watch(model, samples, counter)
    try:
        plan = solve_folds(found, constraints=carried, fixed=lambda name: not _written(model, name))
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
    return Folds(plan, samples, calibrate.certify(model, plan, counter, kept)), kept


def _watch(
    model: LocalModel, samples: Sequence[CalibrationSample], counter: ProgressCounter
) -> tuple[Trace, CheckpointConstraints, tuple[str, ...]]:
    """What painting and encoding taught, what a checkpoint can carry, and the names of the networks."""
    found = calibrate.observe(model, samples, counter=counter)
    pipeline = load(model, calibrate.uniform(model, "bfloat16"))
    parts, picture = networks(pipeline), calibrate.first_picture(model, samples)
    if picture is None:
        picture = calibrate.paint(pipeline, model, samples[0])
    _trace_encoding(parts, picture, found)
    return found, _carried(model, parts, pipeline.folds), tuple(parts)


def _trace_encoding(networks: dict[str, torch.nn.Module], picture: torch.Tensor, found: Trace) -> None:
    """The half of an autoencoder that painting does not use, but other tools will run in float16 too."""
    vae: Any = networks.get("vae")
    if vae is not None and hasattr(vae, "encode"):
        vae.to(torch.bfloat16)
        trace_modules(
            networks, lambda: vae.encode((2 * picture - 1).to(vae.device, torch.bfloat16)), into=found
        )


def _carried(
    model: LocalModel, networks: dict[str, torch.nn.Module], told: FoldPlan
) -> CheckpointConstraints:
    """A folder's configuration carries its keys; a lone file has none that other tools would read."""
    if not model.is_folder:
        return CheckpointConstraints(header_epsilons=told.epsilons)
    return checkpoint_constraints(networks, told.epsilons)


def _written(model: LocalModel, name: str) -> bool:
    """Whether a tensor can be folded where it is written: in a single file, only what the converter maps."""
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


def _check_room(out: Path, sources: list[Path]) -> None:
    """Twice the files' size is enough even if all of it has to become float32."""
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
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    for name in parts:
        dtype = torch.float32 if name in kept else torch.float16
        for path in weight_files(source / name):
            _write_weights(
                path, target / name / _plain_name(path.name), plan, certificate, name, dtype, counter
            )
        _rewrite_config(target / name, name, plan, dtype)


def _plain_name(name: str) -> str:
    """What was loaded as a variant becomes the plain file."""
    return name.replace(".fp16", "") if is_variant(name) else name


def _write_weights(
    path: Path, place: Path, plan: FoldPlan, certificate: dict[str, Any], name: str, dtype: torch.dtype, counter: ProgressCounter,
    rows: dict[str, torch.Tensor] | None = None,
) -> None:  # fmt: skip
    """One weight file, unless an earlier run has finished it."""
    if place.is_file():
        weights.header(place)
        return
    # What the header says of the epsilons holds for what reads it after the configuration: nothing is left to do.
    before = read_plan(path) or FoldPlan()
    told = compose(only(before, name), only(plan, name)) if name else compose(before, plan)
    told = replace(told, epsilons={})
    place.parent.mkdir(parents=True, exist_ok=True)
    write_folded(path, place, plan, certificate, name, dtype, rows, told,
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
    """A single file, back in its own layout."""
    rows = single_file.powers(model, plan)
    place = target / model.path.name
    _write_weights(model.path, place, plan, certificate, "", torch.float16, counter, rows)


def _write_notes(model: LocalModel, folder: Path, written: Written) -> None:
    """For people and for machines."""
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
        "The same function as the original; weights were multiplied by powers of two so that every activation of the\n"
        f"calibration stays {written.plan.headroom_bits:.1f} bits inside float16's range. The plan is in `{STORY}` and in the header of the\n"
        "weights (`starry_fold`). Ranges were measured, not proved: a tool without a guard shows a black picture if one\n"
        "goes beyond them.\n",
        "utf-8",
    )  # fmt: skip


# -- what an ordinary checkpoint can carry ---------------------------------------------------------------------------


def checkpoint_constraints(
    networks: Mapping[str, torch.nn.Module], told: Mapping[str, int] | None = None
) -> CheckpointConstraints:
    """The keys of all networks, as "network.key"; ``told``: see ``CheckpointConstraints``."""
    keys = {}
    for name, network in networks.items():
        for key in _keys(network):
            if members := frozenset(_set_by(network, key, name)):
                keys[join(name, key)] = members
    return CheckpointConstraints(keys, told or {})


def _keys(network: torch.nn.Module) -> list[str]:
    """Keys of the configuration that hold a small positive number and are called an epsilon."""
    config: Any = getattr(network, "config", None) or {}
    entries = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return [key for key, value in entries.items() if "eps" in key and isinstance(value, float) and value > 0]


def _set_by(network: torch.nn.Module, key: str, prefix: str) -> Iterator[str]:
    """The epsilons ("module.attribute") that are twice as large when the key is."""
    one, two = (_rebuilt(network, key, factor) for factor in (1.0, 2.0))
    if one is None or two is None:
        return
    others = dict(named_modules(two))
    for name, module in named_modules(one):
        for attribute, value in vars(module).items():
            if "eps" in attribute and isinstance(value, float) and vars(others[name])[attribute] == 2 * value:
                yield join(prefix, name, attribute)


def _rebuilt(network: torch.nn.Module, key: str, factor: float) -> torch.nn.Module | None:
    """The same class from the same configuration but for one key, on no device; None if it cannot be built so."""
    config: Any = network.config
    cls: Any = type(network)
    with torch.device("meta"):
        try:
            if hasattr(config, "to_dict"):
                other = copy.deepcopy(config)
                setattr(other, key, getattr(config, key) * factor)
                return cls(other)
            # without its notes on itself: one of them would bring defaults back
            told = {name: value for name, value in config.items() if not name.startswith("_")}
            return cls.from_config({**told, key: told[key] * factor})
        except (TypeError, ValueError, RuntimeError, NotImplementedError):
            return None
