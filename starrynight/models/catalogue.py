"""The table of models, and how a hub id, a folder or a single file becomes one more row of it.

``find`` answers for names and is cheap; ``resolve`` opens a model that is here and reads its headers once. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from starrynight.errors import BadFile, MissingFile, StarryError, Unfit, UnknownName
from starrynight.models import (
    fitted,
    habits,
    parts,
    places,
    quantisation,
    recognition,
    registry,
    single_file,
    sizes,
    weights,
)
from starrynight.models.complete import completed
from starrynight.models.fingerprint import fingerprint
from starrynight.models.habits import SILENT, Habits
from starrynight.models.recognition import MODEL_KINDS, NETWORKS
from starrynight.models.registry import Entry
from starrynight.models.remote import Remote
from starrynight.models.single_file import Layout
from starrynight.models.sizes import TrainedSizes
from starrynight.models.weights import PICKLED, WeightFile, config_or_empty, fold_is_proved
from starrynight.request import HIGHEST_SIZE, LOWEST_SIZE
from starrynight.settings import settings

SHIPPED = Path(__file__).parents[1] / "weights" / "firefly"
KIND = ("model", "模型")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model by name: where it comes from, where it is stored, and the settings that suit it.

    ``hub`` and ``modelscope`` are repository ids. ``path`` is the local folder or file, which may not exist yet; ``base``
    names the pipeline of which ``parts``, single files by component, replace components. Sides are in pixels: multiples of ``multiple``, from ``smallest``
    to ``largest``. ``languages`` are those the text encoder reads; empty if unknown. ``guided`` is False where a distilled
    model ignores guidance; ``negatives`` is False where it was not trained on negative prompts, so that styles leave
    theirs out. ``habits``: what its files say (``models.habits``); ``trained``: the sizes that they name, if they do. ``flow`` separates flow matching from noise prediction. ``float32_vae``: the makers decode in float32.
    ``bytes`` is the approximate download. ``remote``: the server that paints it; nothing of it is on this machine.
    """

    name: str
    en: str
    zh: str
    licence: str = ""
    hub: str | None = None
    modelscope: str | None = None
    path: Path = Path()
    base: str | None = None
    parts: Mapping[str, Path] = field(default_factory=dict)
    size: int = 1024
    multiple: int = 16
    smallest: int = LOWEST_SIZE
    largest: int = HIGHEST_SIZE
    steps: int = 8
    guidance: float = 2.0
    max_tokens: int | None = None
    languages: tuple[str, ...] = ()
    guided: bool = True
    negatives: bool = True
    flow: bool = True
    float32_vae: bool = False
    bytes: int = 0
    habits: Habits = SILENT
    trained: TrainedSizes | None = None
    remote: Remote | None = None

    @property
    def width(self) -> int:
        return self.size

    @property
    def height(self) -> int:
        return self.size


@dataclass(frozen=True)
class LocalModel:
    """A model whose files are on this machine, with everything that is read from them before loading. Made once by
    ``resolve``; loading, precision plan and folding take it and look nothing up again.

    ``folder`` holds the model_index.json that decides the pipeline class: the model's own folder, its base's, or the
    shipped one of its layout. ``layout`` is that of a single file. ``files`` are the weight files of each component;
    ``parts`` are the single files that replace components of ``folder``; one that holds several stands under each.
    ``parameters`` counts parameters by component, all text encoders as "text_encoder". ``float16_safe``: components
    that were written folded with a certificate that holds. ``fingerprint``: see ``weights.fingerprint``.
    """

    spec: ModelSpec
    folder: Path
    layout: Layout | None
    pipeline_class: str
    files: Mapping[str, tuple[WeightFile, ...]]
    parts: Mapping[str, Path]
    parameters: Mapping[str, int]
    float16_safe: frozenset[str]
    fingerprint: str

    @property
    def path(self) -> Path:
        return self.spec.path

    @property
    def is_folder(self) -> bool:
        return self.layout is None

    @property
    def borrowed(self) -> list[str]:
        """The networks that an all-in-one file lacks and its base brings."""
        whole = self.layout is not None and len(set(self.parts.values())) == 1 and len(self.parts) > 1
        return (
            [name for name, files in self.files.items() if files and name not in self.parts] if whole else []
        )

    @property
    def lender(self) -> str:
        """The base that brings them."""
        return self.spec.base or (self.layout and self.layout.completed_by) or self.folder.name

    @property
    def lone_transformer(self) -> bool:
        """Whether it is one file that replaces the transformer of a base pipeline."""
        return self.layout is not None and self.layout.base is not None


# Ids, licences, steps and guidance as the makers' cards give them (read 2026-11); bytes are the sums of the
# diffusers-layout files as published.
MODELS = (
    ModelSpec(
        name="firefly", en="Firefly, the little painter that ships inside", zh="萤火，随包附带的小画家",
        licence="Apache-2.0", path=SHIPPED, size=256, smallest=128, largest=1024, steps=8, guidance=2.0,
        languages=("zh", "en"), negatives=False, bytes=40_000_000,
    ),
    ModelSpec(
        name="z-image-turbo", en="Z-Image-Turbo", zh="造相 Z-Image-Turbo", licence="Apache-2.0",
        hub="Tongyi-MAI/Z-Image-Turbo", modelscope="Tongyi-MAI/Z-Image-Turbo",
        # Nine steps are eight passes that matter; the card asks for guidance 0 and 512 tokens.
        smallest=256, largest=2048, steps=9, guidance=0.0, max_tokens=512, languages=("zh", "en"), guided=False, float32_vae=True,
        bytes=32_900_000_000,
    ),
    ModelSpec(
        # No hub that we could confirm carries its file (2026-11; KookYan's and RunningHub's repositories of that
        # name are described as LoRAs): whoever has it puts it at STARRY_HOME/models/kook-zimage-turbo.safetensors.
        name="kook-zimage-turbo", en="Kook Z-Image-Turbo, realistic fantasy", zh="Kook 真实幻想 Z-Image-Turbo",
        base="z-image-turbo", smallest=256, largest=2048, steps=8, guidance=2.0, max_tokens=512, languages=("zh", "en"),
        float32_vae=True, bytes=12_300_000_000,
    ),
    ModelSpec(
        name="sd-turbo", en="SD-Turbo", zh="SD-Turbo", licence="Stability AI Community",
        hub="stabilityai/sd-turbo", modelscope="AI-ModelScope/sd-turbo", size=512, multiple=8, smallest=256, largest=1024,
        steps=4, guidance=0.0, max_tokens=77, languages=("en",), guided=False, flow=False, bytes=5_200_000_000,
    ),
    ModelSpec(
        name="sdxl", en="Stable Diffusion XL 1.0", zh="Stable Diffusion XL 1.0", licence="OpenRAIL++-M",
        hub="stabilityai/stable-diffusion-xl-base-1.0", modelscope="AI-ModelScope/stable-diffusion-xl-base-1.0",
        multiple=8, smallest=256, largest=2048, steps=30, guidance=5.0, max_tokens=77, languages=("en",),
        flow=False, bytes=13_900_000_000,
    ),
    ModelSpec(
        name="flux-schnell", en="FLUX.1 schnell", zh="FLUX.1 schnell", licence="Apache-2.0",
        hub="black-forest-labs/FLUX.1-schnell", modelscope="AI-ModelScope/FLUX.1-schnell",
        smallest=256, largest=2048, steps=4, guidance=0.0, max_tokens=256, languages=("en",), guided=False, bytes=33_700_000_000,
    ),
)  # fmt: skip


def names() -> list[str]:
    """The table's models, then those that the user put together from files."""
    return [*table_names(), *registry.names()]


def table_names() -> list[str]:
    return [model.name for model in MODELS]


def default() -> str:
    """Firefly, unless a GPU is here and the large model has been pulled: nothing is ever downloaded unasked."""
    if not is_here(find("z-image-turbo")):
        return "firefly"
    import torch

    return "z-image-turbo" if torch.accelerator.is_available() else "firefly"


def find(name: str, base: str | None = None) -> ModelSpec:
    """The model called ``name``: a row of the table, a model put together from files, a local folder or .safetensors file, one
    in the places to look (``places``), or a hub id.

    Reads small JSON files and the header of a single file, never weights. ``base`` is the pipeline to lay a single-file
    transformer over; without it, the file's layout decides. Raises UnknownName, MissingFile, PickledFile, BadFile for a
    folder or file that is no model, or BadRequest for a name that several files in the places have.
    """
    for model in MODELS:
        if model.name == name.lower():
            return _as_found(_stored(model))
    if entry := registry.read(name):
        return _as_found(_registered(entry))
    path = Path(name)
    if found := weights.find(name):
        if path.suffix.lower() in PICKLED:
            raise weights.pickled(path)
        return _as_found(_local(_named(found), base))
    if not name.startswith((".", "/", "~")) and (placed := places.find(name, (*MODEL_KINDS, "folder"))):
        if placed.suffix.lower() in PICKLED and placed.is_file():
            raise weights.pickled(placed)
        return _as_found(_local(_named(placed), base))
    if path.suffix.lower() in PICKLED:
        raise weights.pickled(path)
    quantisation.refuse_suffix(path)
    if path.suffix.lower() in recognition.SUFFIXES or name.startswith((".", "/", "~")):
        raise MissingFile(f"There is no file or folder “{name}”.", f"找不到文件或文件夹“{name}”。")
    if HUB_ID.fullmatch(name):
        return _as_found(
            _stored(_like(name, ModelSpec(name=name, en=name, zh=name, hub=name, modelscope=name)))
        )
    raise UnknownName(KIND, name, names(), ("A hub id, a folder or a .safetensors file will do too.",
                                            "也可以是模型库 id、文件夹或 .safetensors 文件。"))  # fmt: skip


def is_here(model: ModelSpec) -> bool:
    """Whether it can be loaded without a network: all its parts, and of its base everything that they do not replace."""
    if model.base is None:
        whole = model.path.is_file() or (model.path / "model_index.json").is_file()
        # A folder that the user brought is judged when it is opened; a download may hold only the small files.
        return whole and (model.hub is None or not without_weights(model.path))
    if not model.parts:  # a whole checkpoint over configurations of the user's own
        return model.path.is_file() and (find(model.base).path / "model_index.json").is_file()
    return all(path.is_file() for path in model.parts.values()) and not lacking(model)


def lacking(model: ModelSpec) -> list[str]:
    """The components that neither a model's parts nor its base bring; "model_index.json" where the base is not here."""
    folder = find(model.base).path if model.base else model.path
    if not (folder / "model_index.json").is_file():
        return ["model_index.json"]
    return [name for name in without_weights(folder) if name not in model.parts]


def without_weights(folder: Path) -> list[str]:
    """The networks of a diffusers folder that have no weight files, as after ``starry models pull NAME --small``."""
    index = weights.components(config_or_empty(folder / "model_index.json"))
    return [
        name
        for name, kind in index.items()
        if weights.is_network(kind) and not weights.any_weights(folder / name)
    ]


def resolve(model: ModelSpec | str, base: str | None = None) -> LocalModel:
    """Open a model that is here: check its files and read their headers, once.

    Raises what ``find`` raises, and MissingFile, PickledFile, LfsPointer or BadFile for files that are missing, unsafe or
    damaged.
    """
    spec = find(model, base) if isinstance(model, str) else model
    if spec.remote:
        raise Unfit(
            f"“{spec.name}” is painted at {spec.remote.host}; this works with models on this machine.",
            f"“{spec.name}”在 {spec.remote.host} 作画；此功能只适用于本机上的模型。",
        )
    for path in (*spec.parts.values(), spec.path):
        if not path.exists():
            raise MissingFile(f"There is no file or folder “{path}”.", f"找不到文件或文件夹“{path}”。")
    under = find(spec.base).path if spec.base else None
    own = dict(spec.parts)
    # A U-Net alone has no layout of its own: it is a part of its base.
    is_part = spec.path.is_dir() or ("unet" in own and not single_file.is_known(spec.path))
    layout = None if is_part else single_file.recognise(spec.path)
    folder = under or (layout.folder if layout else spec.path)
    assert folder is not None, "a layout has a base or a folder"
    if layout is None or own:
        files = weights.of_folder(folder, but=own) | parts.weight_files(
            find(spec.base).name if spec.base else "", folder, own
        )
    else:
        files = weights.of_checkpoint(spec.path, single_file.CHECKPOINT_PARTS)
        own = dict.fromkeys(files, spec.path)
        usual = find(layout.completed_by).path if layout.completed_by else None
        folder, files = completed(spec.path, layout.family, folder, usual, files)
    return LocalModel(
        spec, folder, layout, str(weights.read_json(folder / "model_index.json").get("_class_name", "")), files, own,
        _counted(files), _safe_in_float16(files, own), _fingerprint(spec, under, [folder / name for name in files if files[name] and name not in own]),
    )  # fmt: skip


def _fingerprint(spec: ModelSpec, under: Path | None, borrowed: Sequence[Path]) -> str:
    """Over the files that are used. A lone transformer's is over the whole of its base, as it always was."""
    if under is None:
        return fingerprint(spec.path, *([] if spec.path.is_dir() else borrowed))
    if set(spec.parts) <= {"transformer"}:
        return fingerprint(spec.path, under)
    index = weights.components(weights.read_json(under / "model_index.json"))
    return fingerprint(
        *dict.fromkeys(spec.parts.values()), *(under / name for name in index if name not in spec.parts)
    )


def role_of(component: str) -> str:
    """A component's name in parameter counts: every text encoder is "text_encoder"."""
    return "text_encoder" if component.startswith("text_encoder") else component


def _counted(files: Mapping[str, tuple[WeightFile, ...]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for component, found in files.items():
        if found:
            role = role_of(component)
            counts[role] = counts.get(role, 0) + sum(file.parameters for file in found)
    return counts


def _safe_in_float16(files: Mapping[str, tuple[WeightFile, ...]], own: Mapping[str, Path]) -> frozenset[str]:
    """Components whose files carry a fold certificate that holds. A model of parts over a base is judged by its parts."""
    inside = {name: found for name, found in files.items() if name in own} if own else files
    return frozenset(
        role_of(name) for name, found in inside.items() if any(fold_is_proved(file.fold) for file in found)
    )


def _stored(model: ModelSpec) -> ModelSpec:
    """The spec with the place where it is, or will be, stored: STARRY_HOME/models unless it names one."""
    if model.path != Path():
        return model
    name = model.name.replace("/", "--")
    if not model.base:
        return replace(model, path=settings().models / name)
    path = settings().models / f"{name}.safetensors"
    try:
        own = _inside(path, model.base)
    except StarryError:  # it is not here, or opening it will tell what is wrong with it
        own = {"transformer": path}
    return replace(model, path=path, parts=own)


def _named(path: Path) -> Path:
    """The absolute path. A link keeps its own name: a hub's cache stores files under their hash, without a suffix."""
    return path.parent.resolve() / path.name if path.is_symlink() else path.resolve()


def _like(source: object, unknown: ModelSpec) -> ModelSpec:
    """The row whose hub id ``source`` is, with the name and place of ``unknown``; ``unknown`` itself without such a row."""
    row = next((row for row in MODELS if source and source in (row.hub, row.modelscope)), None)
    if row is None:
        return unknown
    return replace(
        row, name=unknown.name, en=unknown.en, zh=unknown.zh, path=unknown.path, hub=unknown.hub,
        modelscope=unknown.modelscope, bytes=unknown.bytes,
    )  # fmt: skip


def _local(path: Path, base: str | None) -> ModelSpec:
    if path.is_dir() and not (path / "model_index.json").is_file():
        path = recognition.only_file(path)
    listed = path.name.endswith(weights.INDEX)
    if path.is_file() and path.suffix.lower() not in recognition.SUFFIXES and not listed:
        quantisation.refuse_suffix(path)
        raise BadFile(
            f"“{path.name}” is no model; give a folder, a hub id, a .safetensors or a .gguf file.",
            f"“{path.name}”不是模型；请给出文件夹、模型库 id、.safetensors 或 .gguf 文件。",
        )
    if path.is_dir():
        native = config_or_empty(path / "vae" / "config.json").get("sample_size")
        size = max(native, LOWEST_SIZE) if isinstance(native, int) else 1024
        return _fitted_folder(path) or ModelSpec(name=str(path), en=path.name, zh=path.name, path=path, size=size)  # fmt: skip
    layout = single_file.recognise(path)
    if base is None and (spec := _fitted(path)) is not None:
        return spec
    usual = find(layout.like)
    under = base or layout.base
    spec = replace(
        usual, name=str(path), en=path.stem, zh=path.stem, licence="", hub=None, modelscope=None, path=path,
        base=under, parts=_inside(path, under) if layout.base and under else {}, size=layout.size,
        steps=layout.steps or usual.steps,
        guidance=usual.guidance if layout.guidance is None else layout.guidance, bytes=sum(shard.stat().st_size for shard in weights.shards(path)),
    )  # fmt: skip
    header = weights.header(path)
    says = replace(habits.of_file(header, usual.flow, layout.name), pipeline=_pipeline_of(layout, spec))
    return replace(spec, **habits.settings_of_file(header, says, spec.smallest, spec.largest))


def _fitted(path: Path) -> ModelSpec | None:
    """A denoiser that ``starry fit`` wrote, over the model that it was made of, with that model's settings; None for others."""
    name = fitted.base_of(path, weights.header(path).get("__metadata__", {}))
    if name is None or not (Path(name).is_absolute() or name.lower() in names() or HUB_ID.fullmatch(name)):
        return None
    base = find(name)
    component = "unet" if (base.path / "unet").is_dir() else "transformer"
    return replace(
        base, name=str(path), en=path.stem, zh=path.stem, hub=None, modelscope=None, path=path, base=base.name,
        parts={component: path}, bytes=path.stat().st_size,
    )  # fmt: skip


def _fitted_folder(path: Path) -> ModelSpec | None:
    """A folder that ``starry fit`` wrote of a model of the table, with that model's settings; None for others."""
    for file in (path / "transformer" / fitted.FILE, path / "unet" / fitted.FILE):
        note = fitted.read(weights.header(file).get("__metadata__", {})) if file.is_file() else None
        if note is not None and note.base.lower() in names():
            base = find(note.base)
            return replace(
                base, name=str(path), en=path.name, zh=path.name, hub=None, modelscope=None, path=path, base=None, parts={}, bytes=0
            )  # fmt: skip
    return None


def _pipeline_of(layout: Layout, spec: ModelSpec) -> str:
    """The pipeline class of a single file: its layout's own, or its base's if that is here."""
    folder = layout.folder or (find(spec.base).path if spec.base else None)
    return str(config_or_empty(folder / "model_index.json").get("_class_name", "")) if folder else ""


def _inside(path: Path, base: str) -> dict[str, Path]:
    """The components of ``base`` that a single file brings: its transformer, and in an all-in-one file the encoders and the
    decoder too.
    """
    under = find(base)
    found = recognition.of_file(path)
    slots = parts.slots(under.name, under.path)
    return (
        dict.fromkeys(parts.match(under.name, slots, found, NETWORKS), path)
        if slots
        else {"transformer": path}
    )


def _registered(entry: Entry) -> ModelSpec:
    """The row of a model put together from files: what its denoiser's file says of itself, else its base's habits."""
    if far := entry.remote:
        return ModelSpec(
            name=entry.name, en=f"{entry.name}, painted at {far.host}", zh=f"{entry.name}，在 {far.host} 作画", remote=far,
            path=registry.path_of(entry.name), size=far.size, steps=far.steps, guidance=far.guidance, multiple=1, negatives=False,
        )  # fmt: skip
    base = find(entry.base)
    path = next((entry.parts[kind] for kind in MODEL_KINDS if kind in entry.parts), base.path)
    usual = _local(path, entry.base) if path.is_file() and single_file.is_known(path) else base
    return replace(
        usual, name=entry.name, en=entry.name, zh=entry.name, licence="", hub=None, modelscope=None, path=path,
        base=base.name, parts=dict(entry.parts), bytes=0,
    )  # fmt: skip


def _not_here(model: ModelSpec) -> ModelSpec:
    """A model whose files are not here: a row of the table, or a hub id of which little is known."""
    if model.hub is None or any(model.hub in (row.hub, row.modelscope) for row in MODELS):
        return replace(model, habits=Habits(own_flow=model.flow))
    known = habits.before_download(model.hub, model.steps, model.guidance, model.size)
    return replace(model, multiple=8, **known)


def _as_found(model: ModelSpec) -> ModelSpec:
    """The row corrected by what the model's own folder says, where the folder is here."""
    folder = find(model.base).path if model.base else model.path
    if not (folder / "model_index.json").is_file():
        return model if model.path.is_file() else _not_here(model)
    if model.name not in names() and model.base is None:
        called = config_or_empty(folder / "model_index.json").get("_name_or_path")
        known = _like(model.hub or called, model)
        model = (
            known if known is not model else replace(model, **habits.settings_of_folder(folder, model.name))
        )
    scheduler = config_or_empty(folder / "scheduler" / "scheduler_config.json")
    multiple = sizes.multiple(folder) or model.multiple
    flow = model.flow if model.habits.prediction or not scheduler else _flows(scheduler)
    own = model.habits if model.path.is_file() else habits.of_folder(folder, flow)
    words, sides = sizes.reach(folder)
    largest = min(model.largest, sides * multiple)
    trained = sizes.read(folder, multiple, model.smallest, largest) if folder == model.path else None
    return replace(
        model,
        flow=flow,
        habits=own,
        trained=trained,
        size=trained.default if trained else model.size,
        multiple=multiple,
        largest=largest,
        max_tokens=min(model.max_tokens or words, words) if words else model.max_tokens,
    )


def _flows(scheduler: dict[str, Any]) -> bool:
    return (
        "Flow" in str(scheduler.get("_class_name", ""))
        or scheduler.get("prediction_type") == "flow_prediction"
    )
