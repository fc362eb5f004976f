"""``starry models add``: check the user's files, and keep which of them make up a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from starrynight.errors import BadRequest, MissingFile, Unfit
from starrynight.models import catalogue, gguf, parts, places, recognition, registry, single_file, weights
from starrynight.models.recognition import MODEL_KINDS
from starrynight.models.registry import Entry
from starrynight.models.remote import Remote, checked


def add(
    name: str,
    denoiser: Path | None,
    encoders: Sequence[Path],
    decoder: Path | None,
    base: str | None = None,
    overwrite: bool = False,
) -> Entry:
    """Keep a model called ``name``: a file with its transformer or U-Net, its text encoders, its autoencoder; any subset.

    ``base``: the model that the rest comes from; by default what ``denoiser``'s layout is made for. A file is a path, or a
    name in the places to look. Raises BadRequest for a name that is taken or no files, MissingFile, PickledFile, and Unfit for
    a file that does not belong where it was given.
    """
    registry.check_name(name)
    _check_free(name)
    if not (denoiser or encoders or decoder):
        raise BadRequest("Name at least one file: --transformer, --text-encoder or --vae.",
                         "请至少给出一个文件：--transformer、--text-encoder 或 --vae。")  # fmt: skip
    network = _file(denoiser, MODEL_KINDS) if denoiser else None
    under = catalogue.find(base or _base_of(network))
    if under.base or under.path.is_file():
        raise Unfit(f"“{under.name}” is made of single files; name a diffusers model as the base.",
                    f"“{under.name}”由单个文件构成；请以 diffusers 模型为底座。")  # fmt: skip
    slots = parts.slots(under.name, under.path)
    if not slots:
        raise MissingFile(
            f"{under.name} is not on this machine; fetch its small files first: starry models pull {under.name} --small.",
            f"本机没有 {under.name}；请先取得它的小文件：starry models pull {under.name} --small。",
        )
    texts = [_file(path, ("text_encoder",)) for path in encoders]
    found = parts.gather(under.name, slots, network, texts, _file(decoder, ("vae",)) if decoder else None)
    entry = Entry(name, under.name, found)
    registry.write(entry, overwrite=overwrite)
    return entry


def add_remote(name: str, remote: Remote, overwrite: bool = False) -> Entry:
    """Keep a model that another server paints. Raises BadRequest for a name that is taken, or what ``remote.checked`` refuses."""
    registry.check_name(name)
    _check_free(name)
    entry = Entry(name, "", {}, checked(remote))
    registry.write(entry, overwrite=overwrite)
    return entry


def _check_free(name: str) -> None:
    if name.lower() in catalogue.table_names():
        raise BadRequest(f"“{name}” is a model of the catalogue; choose another name.",
                         f"“{name}”是目录里已有的模型；请换一个名字。")  # fmt: skip


def _base_of(network: Path | None) -> str:
    """The base that a denoiser's file is made for. Raises BadRequest without a file, Unfit for one of an unknown family."""
    if network is None:
        raise BadRequest("Without --transformer, name the model that the rest comes from: --base z-image-turbo.",
                         "没有 --transformer 时，请用 --base 写明其余部分取自哪个模型，例如 --base z-image-turbo。")  # fmt: skip
    found = recognition.of_file(network)
    if found.denoiser is None:
        raise parts.misplaced(found, MODEL_KINDS)
    recognition.check_is_file(network)
    family = found.denoiser.family
    layout = next((layout for layout in single_file.LAYOUTS if layout.family == family), None)
    if layout is None:
        raise recognition.not_a_model(found, sorted({layout.name for layout in single_file.LAYOUTS}))
    return layout.base or layout.like


def _file(path: Path, kinds: tuple[str, ...]) -> Path:
    """The absolute path of a file given by path, or by its name in the places to look. A link keeps its own name."""
    try:
        here = Path(os.path.abspath(path.expanduser()))
    except RuntimeError:
        here = path
    if here.is_dir():
        return _in_folder(here)
    if here.is_file():
        return _list_of(here)
    if (placed := places.find(str(path), kinds)) and placed.is_file():
        return _list_of(placed)
    raise MissingFile(f"There is no file “{path}”.", f"找不到文件“{path}”。")


def _in_folder(folder: Path) -> Path:
    """The weights in a component's folder: its list of shards, or its only file. Raises BadRequest if neither is there."""
    found = sorted(folder.glob(f"*{weights.INDEX}")) or [
        *weights.weight_files(folder),
        *sorted(folder.glob(f"*{gguf.SUFFIX}")),
    ]
    if len(found) == 1:
        return _list_of(found[0])
    raise BadRequest(
        f"“{folder}” is a folder with {len(found) or 'no'} weight files; give a single file or a list of shards "
        f"(…{weights.INDEX}).",
        f"“{folder}”是文件夹，内有 {len(found)} 个权重文件；请给出单个文件或分片清单（…{weights.INDEX}）。",
    )


def _list_of(path: Path) -> Path:
    """The list of shards beside one of them; any other file is itself."""
    whole = path.with_name(recognition.SHARD.sub("", path.stem) + weights.INDEX)
    return whole if recognition.SHARD.search(path.stem) and whole.is_file() else path
