"""Models that the user put together from files: one small JSON file each, STARRY_HOME/models/NAME.json.

An entry names files where they lie; it copies nothing, and removing it deletes none of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starrynight.errors import BadFile, BadRequest, UnknownName
from starrynight.models import remote, weights
from starrynight.models.remote import Remote
from starrynight.settings import settings
from starrynight.storage import storing, write_atomic

VERSION = 1
# Letters of any script; no separators, so that a name is never a path or a hub id.
NAME = re.compile(r"\w[\w.+ -]{0,79}")
_FILES = (".safetensors", ".gguf", ".json", *weights.PICKLED)


@dataclass(frozen=True)
class Entry:
    """``base``: the model whose small files, and whatever ``parts`` do not replace, are used. ``parts``: component →
    file. ``remote``: instead of both, the server that paints.
    """

    name: str
    base: str
    parts: Mapping[str, Path]
    remote: Remote | None = None

    def missing(self) -> list[Path]:
        """The files that are no longer where they were."""
        return [path for path in dict.fromkeys(self.parts.values()) if not path.is_file()]


def names() -> list[str]:
    """The names of all entries that can be read."""
    return [name for name in stems() if _readable(name)]


def stems() -> list[str]:
    """The names of all entries, damaged ones too."""
    folder = settings().models
    return sorted(path.stem for path in folder.glob("*.json")) if folder.is_dir() else []


def read(name: str) -> Entry | None:
    """The entry called ``name``, in any case; None if there is none. Raises BadFile for one that cannot be read."""
    stem = next((stem for stem in stems() if stem.casefold() == name.casefold()), None)
    if stem is None:
        return None
    path = path_of(stem)
    try:
        found = weights.read_json(path)
    except BadFile:
        found = {}
    if found.get("starry_model") == VERSION and (elsewhere := remote.read(found.get("remote"))):
        return Entry(stem, "", {}, elsewhere)
    base, parts = found.get("base"), found.get("parts")
    right = found.get("starry_model") == VERSION and isinstance(base, str)
    if not (right and isinstance(parts, dict) and _are_paths(parts)):
        raise BadFile(
            f"“{path}” does not describe a model that this version knows; put it together again: starry models add {stem} "
            "--overwrite …",
            f"“{path}”不是本版本认识的模型描述；请重新拼装：starry models add {stem} --overwrite …",
        )
    return Entry(stem, str(base), {component: Path(file) for component, file in parts.items()})


def write(entry: Entry, *, overwrite: bool) -> Path:
    """Keep an entry. Raises BadRequest for a name that cannot be one or is taken, StorageError."""
    check_name(entry.name)
    taken = next((stem for stem in stems() if stem.casefold() == entry.name.casefold()), None)
    if taken and not overwrite:
        raise BadRequest(
            f"There is a model called “{taken}” already; choose another name, or replace it with --overwrite.",
            f"已有名为“{taken}”的模型；请换一个名字，或用 --overwrite 覆盖。",
        )
    path = path_of(taken or entry.name)
    content: dict[str, Any] = {
        "starry_model": VERSION,
        "base": entry.base,
        "parts": {component: str(file) for component, file in entry.parts.items()},
    }
    if entry.remote:
        content = {"starry_model": VERSION, "remote": entry.remote.to_dict()}
    with storing(path):
        return write_atomic(path, json.dumps(content, ensure_ascii=False, indent=1).encode(), overwrite=True)


def remove(name: str) -> Entry | None:
    """Delete the entry called ``name``, none of its files; return what it named, None if it could not be read.

    Raises UnknownName, StorageError.
    """
    stem = next((stem for stem in stems() if stem.casefold() == name.casefold()), None)
    if stem is None:
        hint = (
            "Only models made with `starry models add` can be removed.",
            "只能移除用 `starry models add` 建立的模型。",
        )
        raise UnknownName(("model put together from files", "由文件拼装的模型"), name, stems(), hint)
    entry = read(stem) if _readable(stem) else None
    with storing(path_of(stem)):
        path_of(stem).unlink()
    return entry


def path_of(name: str) -> Path:
    return settings().models / f"{name}.json"


def check_name(name: str) -> None:
    """Raises BadRequest for a name that could be mistaken for a path, a hub id or a file."""
    if not NAME.fullmatch(name) or name != name.strip() or Path(name).suffix.lower() in _FILES:
        raise BadRequest(
            f"“{name[:60]}” cannot be a model's name; use letters, digits, dots, hyphens and underscores, without a suffix.",
            f"“{name[:60]}”不能作为模型名；请使用文字、数字、点、连字符和下划线，不带文件后缀。",
        )


def _are_paths(parts: object) -> bool:
    return (
        isinstance(parts, dict)
        and bool(parts)
        and all(isinstance(file, str) and file for file in parts.values())
    )


def _readable(name: str) -> bool:
    try:
        return read(name) is not None
    except (BadFile, OSError):
        return False
