"""A model written out folded, so that any tool paints with it in float16: ``starry fold``.

The plan keeps to what an ordinary checkpoint can carry (``checkpoint_constraints``). A folder is written as a folder; a single file is
written in the layout it came in. What cannot be folded that way is written in float32, and the note beside it says so.
Everything goes into a ``.partial`` folder first, which a second run goes on with. Knows files; knows no door.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from starrynight import __version__
from starrynight.errors import BadRequest, StorageError, Unfit
from starrynight.folding import calibrate, single_file
from starrynight.folding.constraints import checkpoint_constraints
from starrynight.i18n import Text
from starrynight.models import load as loading
from starrynight.models import weights
from starrynight.models.catalogue import ModelSpec
from starrynight.models.precision_plan import is_variant, weight_files
from starrynight.numerics.fold import compose, only, read_plan, write_folded
from starrynight.numerics.islands import inside
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
        if self.kept:
            names = ", ".join(self.kept)
            words.append(
                f"{names} 无法以普通检查点的形式折叠，保留为 float32。" if zh else
                f"{names}: no fold that an ordinary checkpoint can carry, so written in float32."
            )  # fmt: skip
        return " ".join(words)

    @property
    def loading(self) -> str:
        """The line of Python that loads it."""
        if self.single:
            return "Put the file where your tool keeps its diffusion models, and let it run in float16."
        if not self.kept:
            return f'DiffusionPipeline.from_pretrained("{self.folder.name}", dtype=torch.float16)'
        kept = ", ".join(f'"{name}": torch.float32' for name in self.kept)
        return f'DiffusionPipeline.from_pretrained("{self.folder.name}", dtype={{{kept}, "default": torch.float16}})'


def write(model: ModelSpec, out: Path, on_progress: OnProgress | None = None) -> Written:
    """Write ``model`` folded to the folder ``out``, which must not exist.

    Raises BadRequest when it does, StorageError when the disk is too small or full, Unfit when nothing can be folded.
    """
    if out.exists():
        raise BadRequest(f"“{out}” exists already; name a new folder.", f"“{out}”已存在；请换一个新文件夹。")
    sources = _sources(model)
    _check_room(out, sources)
    partial = out.with_name(out.name + ".partial")
    folds, kept = _planned(model, partial / PLAN, on_progress)
    tell = ProgressCounter(on_progress, sum(len(weights.header(path)) - 1 for path in sources))
    certificate = {**folds.certificate, "holds": folds.finite, "float32": list(kept)}
    if model.place.is_dir():
        _write_folder(model.place, partial, folds.plan, certificate, kept, tell)
    else:
        _write_file(model, partial, folds.plan, certificate, tell)
    written = Written(out, folds.plan, folds.certificate, kept, single=not model.place.is_dir())
    _write_notes(model, partial, written)
    (partial / PLAN).unlink()
    partial.replace(out)
    return written


# -- the plan --------------------------------------------------------------------------------------------------------


def _planned(
    model: ModelSpec, kept_at: Path, on_progress: OnProgress | None
) -> tuple[calibrate.Folds, tuple[str, ...]]:
    """The plan and its proof, made once: a run that was broken off finds them in the unfinished folder."""
    stamp = calibrate.kept_at(model).stem
    if kept_at.is_file():
        told = json.loads(kept_at.read_text("utf-8"))
        if told["stamp"] == stamp:
            return calibrate.Folds.from_json(json.dumps(told["folds"])), tuple(told["kept"])
    folds, kept = plan_plain(model, on_progress)
    shutil.rmtree(kept_at.parent, ignore_errors=True)
    kept_at.parent.mkdir(parents=True)
    kept_at.write_text(
        json.dumps({"stamp": stamp, "folds": json.loads(folds.to_json()), "kept": kept}), "utf-8"
    )
    return folds, kept


def plan_plain(
    model: ModelSpec, on_progress: OnProgress | None = None
) -> tuple[calibrate.Folds, tuple[str, ...]]:
    """Folds that an ordinary checkpoint can carry; components that would need an island keep their weights."""
    sittings = calibrate.usual(model)
    tell = ProgressCounter(on_progress, sum(s.steps for s in sittings) + calibrate.proofs_to_paint(model))
    found, carried, names = _watch(model, sittings, tell)
    try:
        plan = solve_folds(found, constraints=carried, fixed=lambda name: not _written(model, name))
    except Infeasible as error:
        raise Unfit(
            f"{model.en} was folded before in a way that an ordinary checkpoint cannot carry ({error}); fold the original.",
            f"{model.zh} 曾以普通检查点无法承载的方式折叠过（{error}）；请折叠原始模型。",
        ) from error
    kept = tuple(name for name in names if any(inside(island, (name,)) for island in plan.islands))
    for name in kept:
        plan = _without(plan, name)
    if kept and (not plan.parameters or not model.place.is_dir()):
        stuck = ", ".join(kept)
        raise Unfit(
            f"No fold that an ordinary checkpoint can carry brings {stuck} inside float16; here it still paints: starry "
            f"paint --model {model.name} --precision float16-folded.",
            f"没有普通检查点能承载的折叠可使 {stuck} 落入 float16；但在本程序中可以：starry paint --model {model.name} "
            "--precision float16-folded。",
        )
    return calibrate.Folds(plan, sittings, calibrate.certify(model, plan, tell, kept)), kept


def _watch(
    model: ModelSpec, sittings: Sequence[calibrate.CalibrationSample], tell: ProgressCounter
) -> tuple[Trace, CheckpointConstraints, tuple[str, ...]]:
    """What painting and encoding taught, what a checkpoint can carry, and the names of the networks."""
    found = calibrate.observe(model, sittings, tell=tell)
    pipeline = loading.load(model, calibrate.uniform(model, "bfloat16"))
    networks, picture = calibrate.networks_of(pipeline), calibrate.painted(model, sittings)
    if picture is None:
        picture = calibrate.paint(pipeline, model, sittings[0])
    _trace_encoding(networks, picture, found)
    return found, _carried(model, networks, pipeline.folds), tuple(networks)


def _trace_encoding(networks: dict[str, torch.nn.Module], picture: torch.Tensor, found: Trace) -> None:
    """The half of an autoencoder that painting does not use, but other tools will run in float16 too."""
    vae: Any = networks.get("vae")
    if vae is not None and hasattr(vae, "encode"):
        vae.to(torch.bfloat16)
        trace_modules(
            networks, lambda: vae.encode((2 * picture - 1).to(vae.device, torch.bfloat16)), into=found
        )


def _carried(model: ModelSpec, networks: dict[str, torch.nn.Module], told: FoldPlan) -> CheckpointConstraints:
    """A folder's configuration carries its keys; a lone file has none that other tools would read."""
    if not model.place.is_dir():
        return CheckpointConstraints(header_epsilons=told.epsilons)
    return checkpoint_constraints(networks, told.epsilons)


def _written(model: ModelSpec, name: str) -> bool:
    """Whether a tensor can be folded where it is written: in a single file, only what the converter maps."""
    return model.place.is_dir() or name.split(".")[0] in single_file.parts(model)


def _without(plan: FoldPlan, component: str) -> FoldPlan:
    def drop(powers: Any) -> dict[str, int]:
        return {name: power for name, power in powers.items() if not inside(name, (component,))}

    islands = tuple(i for i in plan.islands if not inside(i, (component,)))
    return replace(plan, parameters=drop(plan.parameters), epsilons=drop(plan.epsilons), configs=drop(plan.configs),
                   islands=islands)  # fmt: skip


# -- the files -------------------------------------------------------------------------------------------------------


def _sources(model: ModelSpec) -> list[Path]:
    if not model.place.is_dir():
        return [model.place]
    parts = weights.components(weights.read_json(model.place / "model_index.json"))
    return [path for name in parts for path in weight_files(model.place / name)]


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
    tell: ProgressCounter,
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
            _write_weights(path, target / name / _plain_name(path.name), plan, certificate, name, dtype, tell)
        _rewrite_config(target / name, name, plan, dtype)


def _plain_name(name: str) -> str:
    """What was loaded as a variant becomes the plain file."""
    return name.replace(".fp16", "") if is_variant(name) else name


def _write_weights(
    path: Path, place: Path, plan: FoldPlan, certificate: dict[str, Any], name: str, dtype: torch.dtype, tell: ProgressCounter,
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
                 lambda tensor: tell.advance(Text(f"writing {tensor}", f"写出 {tensor}")))  # fmt: skip


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
    model: ModelSpec, target: Path, plan: FoldPlan, certificate: dict[str, Any], tell: ProgressCounter
) -> None:
    """A single file, back in its own layout."""
    rows = single_file.powers(model, plan)
    place = target / model.place.name
    _write_weights(model.place, place, plan, certificate, "", torch.float16, tell, rows)


def _write_notes(model: ModelSpec, folder: Path, written: Written) -> None:
    """For people and for machines."""
    story = {
        "made_by": f"starry fold (Starry Night {__version__})", "from": model.name, "to": "float16",
        "plan": json.loads(written.plan.to_json()), "certificate": written.certificate, "float32": list(written.kept),
    }  # fmt: skip
    (folder / STORY).write_text(
        json.dumps(story, indent=1, ensure_ascii=False, sort_keys=True) + "\n", "utf-8"
    )
    load = written.loading if written.single else f"```python\n{written.loading}\n```"
    (folder / NOTE).write_text(
        f"# {model.en}, folded for float16\n\n{written.message('en')}\n\n{written.message('zh')}\n\n{load}\n\n"
        "The same function as the original; weights were multiplied by powers of two so that every activation of the\n"
        f"calibration stays {written.plan.headroom_bits:.1f} bits inside float16's range. The plan is in `{STORY}` and in the header of the\n"
        "weights (`starry_fold`). Ranges were measured, not proved: a tool without a guard shows a black picture if one\n"
        "goes beyond them.\n",
        "utf-8",
    )  # fmt: skip
