"""Pictures from other places, and to them: folders of A1111's, ComfyUI's and InvokeAI's pictures come in byte for byte;
what a query finds goes out as a zip, each picture with its recipe beside it.

Everything that comes in is a stranger's: a file that is not what it claims is refused by itself, with the reason, and
the rest goes on. No name from outside becomes a path here, and none that goes out leaves its folder.
"""

from __future__ import annotations

import json
import os
import secrets
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from starrynight.errors import BadFile, BadRequest, MissingFile, StarryError
from starrynight.gallery import wall
from starrynight.gallery.database import Database
from starrynight.gallery.files import Files
from starrynight.gallery.folder import slug
from starrynight.gallery.insert import keep
from starrynight.gallery.rows import Facts, Row, describe
from starrynight.metadata.files import read_bytes
from starrynight.picture import SUFFIXES
from starrynight.storage import PART_SUFFIX, storage_error
from starrynight.text import clean

_FIRST_DAY, _LAST_DAY = (1980, 1, 1, 0, 0, 0), (2107, 12, 31, 23, 59, 58)  # that a zip can name


@dataclass(frozen=True)
class Gathered:
    """How an import went. ``refused``: (name below the folder, cleaned for showing; the reason)."""

    hung: int
    already: int
    refused: tuple[tuple[str, StarryError], ...]


@dataclass(frozen=True)
class Exported:
    """``lost``: ids of pictures whose file could not be read; they are not in the zip."""

    pictures: int
    lost: tuple[str, ...]


def gather(
    database: Database, files: Files, source: Path, bare: bool, on_file: Callable[[str], None] | None
) -> Gathered:
    """Take in every .png, .jpg and .webp of a folder and those below it (or one file). See ``Gallery.gather``."""
    hung, already, refused = 0, 0, []
    for path in _pictures_in(source):
        name = _shown(path, source)
        if on_file:
            on_file(name)
        try:
            data, facts, made_at = _read(path, bare)
        except StarryError as error:
            refused.append((name, error))
            continue
        # A full disk ends the import: the next file would fare no better.
        if keep(database, files, data, facts, made_at):
            hung += 1
        else:
            already += 1
    return Gathered(hung, already, tuple(refused))


def export(
    files: Files,
    rows: Iterable[tuple[Row, dict[str, Any]]],
    to: Path | BinaryIO,
    on_picture: Callable[[str], None] | None = None,
    lang: str = "en",
) -> Exported:
    """Write a zip of (row, its recipe). See ``Gallery.export``."""
    if not isinstance(to, Path):
        return _zip(files, rows, to, on_picture, lang)
    if to.exists():
        raise BadRequest(f"{to} is already there; choose another name.", f"{to} 已经存在；请换个名字。")
    part = to.parent / f".{secrets.token_hex(8)}{PART_SUFFIX}"
    try:
        with open(part, "xb") as file:
            exported = _zip(files, rows, file, on_picture, lang)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, to)
    except OSError as error:
        raise storage_error(to, error) from error
    finally:
        part.unlink(missing_ok=True)
    return exported


def _pictures_in(source: Path) -> Iterator[Path]:
    if source.is_file():
        yield source
        return
    if not source.is_dir():
        raise MissingFile(
            f"There is no folder {source}; check the path.", f"没有文件夹 {source}；请检查路径。"
        )
    for folder, below, names in os.walk(source):  # does not follow links
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(folder, name)


def _shown(path: Path, source: Path) -> str:
    """The path below ``source``, without what would drive a terminal or is no text."""
    below = path.name if path == source else str(path.relative_to(source))
    return clean(below.encode("utf-8", "replace").decode()) or "?"


def _read(path: Path, bare: bool) -> tuple[bytes, Facts, float]:
    if path.is_symlink():
        raise BadFile(
            "It is a link to a file elsewhere; copy the file itself.",
            "这是指向别处文件的链接；请复制文件本身。",
        )
    _, data = read_bytes(path)
    return data, describe(data, bare=bare), path.stat().st_mtime


def _zip(
    files: Files,
    rows: Iterable[tuple[Row, dict[str, Any]]],
    to: BinaryIO,
    on_picture: Callable[[str], None] | None,
    lang: str,
) -> Exported:
    count, lost, frames = 0, [], []
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for row, recipe in rows:
            if on_picture:
                on_picture(row.id)
            try:
                data = files.read(files.name(row.id, row.format))
            except StarryError:
                lost.append(row.id)
                continue
            count += 1
            name = f"{count:05}-{slug(row.prompt)}-{row.id[:8]}"
            date = min(max(row.made_at.timetuple()[:6], _FIRST_DAY), _LAST_DAY)
            picture = zipfile.ZipInfo(f"pictures/{name}{Path(files.name(row.id, row.format)).suffix}", date)
            frames.append(wall.frame(data, picture.filename, lang))
            archive.writestr(picture, data, zipfile.ZIP_STORED)  # is packed already
            told = json.dumps(_told(row, recipe), ensure_ascii=False, indent=2)
            archive.writestr(zipfile.ZipInfo(f"recipes/{name}.json", date), told, zipfile.ZIP_DEFLATED)
        look = zipfile.ZipInfo("index.html", _FIRST_DAY)
        archive.writestr(look, wall.page(frames, lang), zipfile.ZIP_DEFLATED)
    return Exported(count, tuple(lost))


def _told(row: Row, recipe: dict[str, Any]) -> dict[str, object]:
    """What the gallery knows of a picture, in words that JSON has."""
    said = {name: getattr(row, name) for name in _COLUMNS}
    return {**said, "made_at": row.made_at.isoformat(), "tags": list(row.tags), "recipe": recipe}


_COLUMNS = (
    *("id", "tool", "prompt", "negative_prompt", "style", "model", "precision", "verdict", "seed", "steps"),
    *("guidance", "sampler", "width", "height", "starred", "note"),
)
