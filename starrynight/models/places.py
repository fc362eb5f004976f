"""Folders of other programs that are searched for models and LoRAs by name: ComfyUI's, A1111's and Forge's, InvokeAI's, or
any folder. Nothing is ever written there.

They are named in STARRY_MODEL_PATHS, or kept in STARRY_HOME/places.json by ``starry models places add``. Imports no torch.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starrynight.errors import BadFile, BadRequest, MissingFile, StarryError, UnknownName
from starrynight.models import recognition, weights
from starrynight.models.recognition import SUFFIXES, FileKind
from starrynight.models.weights import PICKLED
from starrynight.settings import settings
from starrynight.storage import storing, write_atomic

KIND = ("place", "位置")
# A scan ends after so many entries, or so deep, whatever the folder is: someone may name "/".
MAX_ENTRIES, MAX_DEPTH = 200_000, 12
MAX_YAML = 1 << 20  # bytes

# Folders inside "models" by which a program's own folder is told from a folder of models.
_KNOWN = frozenset(
    {
        "diffusion_models",
        "unet",
        "checkpoints",
        "text_encoders",
        "text_encoder",
        "clip",
        "vae",
        "loras",
        "lora",
    }
    | {"stable-diffusion", "controlnet", "any", "main", "sd-1", "sdxl", "flux", "z-image"}
)
EMBEDDINGS = ("embeddings", "embedding")
_NOT_MODELS = frozenset({"base_path", "is_default", "custom_nodes", "download_model_base"})


@dataclass(frozen=True)
class Place:
    """``path``: a folder, or an extra_model_paths.yaml. ``kept``: in places.json, not in STARRY_MODEL_PATHS."""

    path: Path
    kept: bool

    @property
    def is_there(self) -> bool:
        return self.path.exists()


@dataclass(frozen=True)
class Found:
    """A weight file, or a diffusers folder, below a place. ``relative``: its path below the folder that was searched."""

    path: Path
    relative: str
    is_folder: bool = False

    @property
    def name(self) -> str:
        return self.path.name if self.is_folder else self.path.stem

    @property
    def is_pickle(self) -> bool:
        return self.path.suffix.lower() in PICKLED and not self.is_folder


@dataclass(frozen=True)
class Survey:
    """What lies below the places. ``skipped``: folders that could not be read, or where a limit ended the scan."""

    found: tuple[Found, ...]
    skipped: tuple[Path, ...]


# -- the list of places ----------------------------------------------------------------------------------------------


def all_places() -> list[Place]:
    """The places of STARRY_MODEL_PATHS, then those kept. Raises BadFile if places.json cannot be read."""
    known = [Place(path, kept=False) for path in settings().model_paths]
    return known + [Place(path, kept=True) for path in _kept() if path not in settings().model_paths]


def add(name: str) -> Path:
    """Keep a folder, or an extra_model_paths.yaml, as a place. Returns its absolute path.

    Raises MissingFile, BadFile for a file that is no such YAML, StorageError.
    """
    path = _absolute(name)
    try:
        there = path.exists()
    except OSError:  # a name that no file system takes
        there = False
    if not there:
        raise MissingFile(f"There is no folder “{path}”.", f"找不到文件夹“{path}”。")
    roots(path)
    kept = _kept()
    if path not in kept:
        _keep([*kept, path])
    return path


def remove(name: str) -> Path:
    """Forget a place; its files stay as they are. Raises UnknownName, StorageError."""
    path, kept = _absolute(name), _kept()
    if path not in kept:
        raise UnknownName(KIND, name, map(str, kept))
    _keep([place for place in kept if place != path])
    return path


def _absolute(name: str) -> Path:
    try:
        return Path(os.path.abspath(Path(name).expanduser()))
    except (RuntimeError, ValueError):
        raise MissingFile(f"There is no folder “{name[:200]}”.", f"找不到文件夹“{name[:200]}”。") from None


def _file() -> Path:
    return settings().home / "places.json"


def _kept() -> list[Path]:
    if not _file().is_file():
        return []
    try:
        listed = weights.read_json(_file()).get("places")
    except BadFile:
        listed = None
    if not (isinstance(listed, list) and all(isinstance(path, str) and path for path in listed)):
        raise BadFile(
            f"“{_file()}” does not list places; delete it and add them again: starry models places add FOLDER.",
            f"“{_file()}”不是位置列表；请删除它并重新添加：starry models places add 文件夹。",
        )
    return [Path(path) for path in listed]


def _keep(paths: Iterable[Path]) -> None:
    with storing(_file()):
        content = json.dumps({"places": [str(path) for path in paths]}, ensure_ascii=False, indent=1)
        write_atomic(_file(), content.encode(), overwrite=True)


# -- what a place means ----------------------------------------------------------------------------------------------


def roots(place: Path) -> list[Path]:
    """The folders to search for a place, in order; those that do not exist are left out.

    Of a program's own folder only its "models", and what its extra_model_paths.yaml names. Raises BadFile for a YAML that
    cannot be read.
    """
    if place.is_file():
        return _of_yaml(place)
    if not place.is_dir():
        return []
    inside = place / "models"
    if not (inside.is_dir() and any(name.casefold() in _KNOWN for name in _names(inside))):
        return [place]
    extra, beside = (
        place / "extra_model_paths.yaml",
        place / "embeddings",
    )  # A1111 and Forge keep it beside their models
    return [inside, *([beside] if beside.is_dir() else []), *(_of_yaml(extra) if extra.is_file() else [])]


def embedding_folders() -> list[Path]:
    """The folders of textual inversions in the places: those called embeddings (ComfyUI, A1111, Forge, SwarmUI) or embedding
    (InvokeAI), at most two folders deep, and those that an extra_model_paths.yaml names so. Raises as ``all_places``.
    """
    found: list[Path] = []
    for place in all_places():
        for root in dict.fromkeys((place.path, *roots(place.path))):
            inner = [root, *_folders(root)]
            inner += [folder for each in inner[1:] for folder in _folders(each)]
            found += [folder for folder in inner if folder.name.casefold() in EMBEDDINGS]
        if place.path.is_file():
            found += _of_yaml(place.path, only=EMBEDDINGS)
    return list(dict.fromkeys(found))


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as listing:
            return sorted(Path(entry.path) for entry in listing if entry.is_dir())
    except OSError:
        return []


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _of_yaml(path: Path, only: Container[str] | None = None) -> list[Path]:
    """The folders that an extra_model_paths.yaml names (under the keys in ``only``), read as ComfyUI reads it
    (``utils/extra_config.py``).
    """
    import yaml

    if path.suffix.lower() not in (".yaml", ".yml"):
        raise _not_yaml(
            path,
            "a place is a folder or an extra_model_paths.yaml",
            "位置应为文件夹或 extra_model_paths.yaml",
        )
    try:
        if path.stat().st_size > MAX_YAML:
            raise _not_yaml(path, "it is too long", "文件过长")
        sections = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise _not_yaml(path, reason, reason) from error
    if sections is None:
        return []
    if not isinstance(sections, dict) or not all(isinstance(one, dict | None) for one in sections.values()):
        raise _not_yaml(path, "it has no sections with folders in them", "其中没有列出文件夹的小节")
    found = (pair for section in sections.values() if section for pair in _of_section(path, section))
    folders = [folder for key, folder in found if only is None or key in only]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _of_section(path: Path, section: dict[Any, Any]) -> Iterator[tuple[str, Path]]:
    """The keys of a section and the folders below each."""
    base = Path(
        os.path.abspath(path.parent),
        os.path.expandvars(os.path.expanduser(str(section.get("base_path") or ""))),
    )
    for key, value in section.items():
        if key in _NOT_MODELS or value is None:
            continue
        if not isinstance(value, str):
            raise _not_yaml(path, f"“{key}” is not the name of a folder", f"“{key}”不是文件夹名")
        for line in value.splitlines():
            folder = re.sub(
                r"\s#.*", "", line
            ).strip()  # ComfyUI's own example carries a comment in a block of text
            if folder:
                yield str(key), Path(os.path.normpath(base / folder))


def _not_yaml(path: Path, en: str, zh: str) -> BadFile:
    return BadFile(f"“{path}” names no places: {en}.", f"“{path}”没有给出位置：{zh}。")


# -- searching -------------------------------------------------------------------------------------------------------


def survey(places: Iterable[Place] | None = None) -> Survey:
    """Everything below the places (all by default), each file once. Raises as ``all_places`` and ``roots``."""
    found: dict[Path, Found] = {}
    skipped: list[Path] = []
    visited: set[tuple[int, int]] = set()
    for place in all_places() if places is None else places:
        for root in roots(place.path):
            for one in _scan(root, visited, skipped):
                found.setdefault(one.path, one)
    return Survey(tuple(found.values()), tuple(skipped))


def _scan(root: Path, visited: set[tuple[int, int]], skipped: list[Path]) -> Iterator[Found]:
    """Weight files and diffusers folders below ``root``. Links are followed; each folder is entered once, so that a link
    upwards does not loop.
    """
    waiting, seen = [(root, 0)], 0
    while waiting:
        folder, depth = waiting.pop()
        try:
            status = folder.stat()
            key = (status.st_dev, status.st_ino)
            if key in visited:
                continue
            visited.add(key)
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            skipped.append(folder)
            continue
        if (seen := seen + len(entries)) > MAX_ENTRIES or depth > MAX_DEPTH:
            skipped.append(folder)
            continue
        if any(entry.name == "model_index.json" for entry in entries):
            yield Found(folder, folder.relative_to(root).as_posix(), is_folder=True)
            continue
        for entry in entries:
            path = Path(entry.path)
            try:
                is_file, is_folder = entry.is_file(), entry.is_dir()
            except OSError:  # a link to itself
                skipped.append(path)
                continue
            if is_file and path.suffix.lower() in (*SUFFIXES, *PICKLED):
                yield Found(path, path.relative_to(root).as_posix())
            elif is_folder and not entry.name.startswith("."):
                waiting.append((path, depth + 1))


def find(name: str, kinds: Iterable[str]) -> Path | None:
    """The file or folder called ``name`` below the places: by its name without suffix, its file name, or the end of its
    path. None if there is none.

    Where several have the name, those that hold one of ``kinds`` (``recognition.KINDS``) come first. Raises BadRequest that
    names the candidates where that leaves more than one, and what ``survey`` raises.
    """
    wanted = name.replace("\\", "/").casefold()
    named = wanted.endswith((*SUFFIXES, *PICKLED))
    matching = [one for one in survey().found if _is_called(one, wanted, named)] if all_places() else []
    candidates = list({one.path.resolve(): one for one in matching}.values())
    if not named and any(not one.is_pickle for one in candidates):
        candidates = [one for one in candidates if not one.is_pickle]
    if len(candidates) > 1:
        candidates = [one for one in candidates if _holds(one, kinds)] or candidates
    if len(candidates) > 1:
        paths = [f"“{one.path}”" for one in sorted(candidates, key=lambda one: one.path)[:6]]
        raise BadRequest(
            f"“{name}” could be {' or '.join(paths)}; give the path.",
            f"“{name}”可能是{'、'.join(paths)}；请给出路径。",
        )
    return candidates[0].path if candidates else None


def _is_called(one: Found, wanted: str, named: bool) -> bool:
    """Whether a lower-case name means this file. Without a suffix, a name with a separator in it is a hub id, not a path."""
    if named:
        return f"/{one.relative.casefold()}".endswith(f"/{wanted}")
    return one.name.casefold() == wanted


def _holds(one: Found, kinds: Iterable[str]) -> bool:
    if one.is_folder:
        return "folder" in kinds
    try:
        return any(part.kind in kinds for part in recognition.of_file(one.path).parts)
    except StarryError:
        return False


def contains(path: Path) -> bool:
    """Whether ``path`` lies below a place, links resolved."""
    try:
        searched = [root.resolve() for place in all_places() for root in roots(place.path)]
    except StarryError:
        return False
    return any(path.resolve().is_relative_to(root) for root in searched)


def by_kind(found: Iterable[Found]) -> dict[str, list[tuple[Found, FileKind | StarryError | None]]]:
    """Everything found, by kind: "folder", "pickle", "damaged", "checkpoint" or a kind of ``recognition.KINDS``; with what
    the file holds, or the error of one that cannot be read.
    """
    kinds: dict[str, list[tuple[Found, FileKind | StarryError | None]]] = {}
    for one in found:
        if one.is_folder or one.is_pickle:
            kinds.setdefault("folder" if one.is_folder else "pickle", []).append((one, None))
            continue
        try:
            kind = recognition.of_file(one.path)
        except (StarryError, OSError) as error:
            unread = error if isinstance(error, StarryError) else None
            kinds.setdefault("damaged", []).append((one, unread))
            continue
        kinds.setdefault(kind.kind, []).append((one, kind))
    return kinds
