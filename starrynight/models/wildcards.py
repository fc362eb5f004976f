"""Wildcard files: __colour__ in a prompt is a line of colour.txt, drawn by the picture's seed.

They lie in STARRY_HOME/wildcards, or where the extensions of A1111 and ComfyUI keep theirs below the places of
``starrynight.models.places``; of two files with one name the first folder's counts. One entry a line; blank lines and lines
that begin with # are passed over. A line may begin with its share (3::red) and hold choices and other wildcards, as in
sd-dynamic-prompts; __animals/*__ draws from every file of a folder. Imports no torch.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from starrynight.errors import BadFile, BadRequest, StorageError, reason
from starrynight.i18n import Text
from starrynight.models import places
from starrynight.prompt_syntax import Filled, fill, find
from starrynight.request import MAX_TEXT
from starrynight.settings import settings
from starrynight.storage import utf8
from starrynight.text import UNPRINTABLE, excerpt

MAX_BYTES = 16 << 20  # of a file
MAX_FILES = 1000  # that a name with * draws from
# Below a program's folder: its own, those of sd-dynamic-prompts and stable-diffusion-webui-wildcards, of ComfyUI's Impact Pack.
_BELOW = (
    "wildcards",
    "extensions/*/wildcards",
    "custom_nodes/*/wildcards",
    "custom_nodes/*/custom_wildcards",
)
_TAG = re.compile(r"<\s*(?:lora|lyco|hypernet)\s*:", re.IGNORECASE)


def folders() -> list[Path]:
    """Where wildcard files are looked for, the first that counts first. Raises BadFile if places.json cannot be read."""
    found = [own()]
    for place in places.all_places():
        base = place.path.parent if place.path.is_file() or place.path.name == "models" else place.path
        for pattern in _BELOW:
            found += sorted(path for path in base.glob(pattern) if path.is_dir())
    return list(dict.fromkeys(found))


def own() -> Path:
    return settings().home / "wildcards"


def filled(text: str, seed: int) -> Filled:
    """``text`` with its wildcards drawn; those without a file stay as written.

    Raises BadRequest for wildcards that name each other without end, and where the text becomes longer than a prompt may be;
    what ``lines`` raises.
    """
    if not _names(text):
        return Filled(text)
    found = fill(text, seed, lines, MAX_TEXT)
    if len(found.text) > MAX_TEXT:
        raise BadRequest(
            f"With its wildcards the prompt is longer than {MAX_TEXT} characters; use fewer, or shorter lines.",
            f"代入通配符后，提示词超过 {MAX_TEXT} 字；请少用几个，或缩短文件里的行。",
            "prompt",
        )
    if endless := [name for name in _names(found.text) if lines(name)]:
        raise BadRequest(
            f"“__{excerpt(endless[0])}__” names itself again and again; remove it from the lines of its file.",
            f"“__{excerpt(endless[0])}__”反复引用自己；请从它的文件里删去这一行。",
            "prompt",
        )
    return found


def notes(text: str) -> tuple[Text, ...]:
    """Of every wildcard in ``text`` that has no file: where one is looked for."""
    found = []
    for name in _names(text):
        if not lines(name):
            path = excerpt_path(own() / f"{name}.txt")
            found.append(Text(f"There is no wildcard file {path}.", f"没有通配符文件 {path}。"))
    return tuple(found)


def excerpt_path(path: Path) -> str:
    """A path as a recipe may show it: without the name of the user's own folder."""
    try:
        return f"~/{path.relative_to(Path.home()).as_posix()}"
    except (ValueError, RuntimeError):
        return str(path)


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(one.body for one in find(text) if one.kind == "wildcard"))


def lines(name: str) -> tuple[str, ...]:
    """The lines of the file called ``name``, or with * of all whose names match; none without one.

    Raises BadFile for a file that is too large, no UTF-8 text or holds a LoRA tag, StorageError where the system refuses.
    """
    if ".." in name.split("/"):  # a name leads to no other folder
        return ()
    found: list[Path] = []
    for folder in folders():
        if "*" not in name:
            if (path := folder / f"{name}.txt").is_file():
                return _lines(path)
            continue
        pattern = re.sub(r"\*{2,}", "*", name)
        found += sorted(path for path in folder.glob(f"{pattern}.txt") if path.is_file())
    return tuple(line for path in found[:MAX_FILES] for line in _lines(path))


def _lines(path: Path) -> tuple[str, ...]:
    try:
        status = path.stat()
        return _read(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        en, zh = reason(error)
        raise StorageError(f"{path} cannot be read: {en}.", f"无法读取 {path}：{zh}。") from error


@lru_cache(maxsize=64)
def _read(
    path: Path, changed: int, size: int
) -> tuple[str, ...]:  # ``changed`` and ``size`` are a part of the key
    if size > MAX_BYTES:
        raise BadFile(
            f"{path} is too large for wildcards; divide it into files of {MAX_BYTES >> 20} MB.",
            f"{path} 太大，不能作通配符文件；请分成每份 {MAX_BYTES >> 20} MB 以内。",
        )
    text = utf8(path.read_bytes(), str(path), Text("the file", "它"))
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        entry = UNPRINTABLE.sub("", line).strip()
        if _TAG.search(entry) and not entry.startswith("#"):
            raise BadFile(
                f"Line {number} of {path} holds a LoRA tag, which is read from a prompt only; write it there.",
                f"{path} 第 {number} 行有 LoRA 标签，而标签只从提示词里读取；请写到提示词中。",
            )
        if entry and not entry.startswith("#"):
            found.append(entry)
    return tuple(found)
