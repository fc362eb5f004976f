"""Import pictures from folders (ours and those of A1111, ComfyUI and InvokeAI, byte for byte) and export them
as a zip.

Every imported file is untrusted. A file that is not a valid picture is refused with the reason, and the
import goes on. Names from outside never become paths in the gallery, and exported names stay inside their
folder.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from starrynight.errors import BadFile, BadRequest, MissingFile, StarryError
from starrynight.gallery import wall
from starrynight.gallery.database import Database
from starrynight.gallery.files import Files, slug
from starrynight.gallery.insert import ParsedFile, add_picture, parse_file
from starrynight.gallery.schema import Row
from starrynight.i18n import Text
from starrynight.metadata.files import read_bytes
from starrynight.picture import SUFFIXES
from starrynight.progress import OnProgress, ProgressCounter
from starrynight.storage import open_atomic, storing
from starrynight.text import clean

# The first and the last time that the zip format can store.
_FIRST_DATE, _LAST_DATE = (1980, 1, 1, 0, 0, 0), (2107, 12, 31, 23, 59, 58)
_RECIPE_FIELDS = (
    *("id", "tool", "prompt", "negative_prompt", "style", "model", "precision", "verdict", "seed", "steps"),
    *("guidance", "sampler", "width", "height", "starred", "note"),
)


@dataclass(frozen=True)
class ImportResult:
    """``refused``: for each refused file its path below the folder, cleaned for display, and the reason."""

    added: int
    already_present: int
    refused: tuple[tuple[str, StarryError], ...]


@dataclass(frozen=True)
class ExportResult:
    """``unreadable``: ids of pictures that are not in the zip because their file could not be read."""

    pictures: int
    unreadable: tuple[str, ...]


def import_pictures(
    database: Database, files: Files, source: Path, bare: bool, on_progress: OnProgress | None
) -> ImportResult:
    """Add every .png, .jpg and .webp below a folder, or one file. See ``Gallery.import_pictures``."""
    added, already_present, refused = 0, 0, []
    paths = list(_picture_paths(source))
    progress = ProgressCounter(on_progress, len(paths))
    for path in paths:
        name = _display_name(path, source)
        try:
            data, parsed, made_at = _parse(path, bare)
        except StarryError as error:
            refused.append((name, error))
        else:
            # A StorageError ends the import, because the next file would meet the same full disk.
            new = add_picture(database, files, data, parsed, made_at)
            added, already_present = added + new, already_present + (not new)
        progress.advance(Text(name, name))
    return ImportResult(added, already_present, tuple(refused))


def export_zip(
    files: Files,
    rows: Iterable[tuple[Row, dict[str, Any]]],
    total: int,
    to: Path | BinaryIO,
    on_progress: OnProgress | None = None,
    lang: str = "en",
) -> ExportResult:
    """Write a zip of ``total`` pairs of a row and its recipe. See ``Gallery.export``."""
    progress = ProgressCounter(on_progress, total)
    if not isinstance(to, Path):
        return _write_zip(files, rows, to, progress, lang)
    if to.exists():
        raise BadRequest(f"{to} is already there; choose another name.", f"{to} 已经存在；请换个名字。")
    with storing(to), open_atomic(to, overwrite=True) as part:
        return _write_zip(files, rows, part.file, progress, lang)


def _picture_paths(source: Path) -> Iterator[Path]:
    if source.is_file():
        yield source
        return
    if not source.is_dir():
        raise MissingFile(
            f"There is no folder {source}; check the path.", f"没有文件夹 {source}；请检查路径。"
        )
    for folder, subfolders, names in os.walk(source):  # os.walk does not follow links
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(folder, name)


def _display_name(path: Path, source: Path) -> str:
    """The path below ``source`` without control characters and invalid text, safe to print on a terminal."""
    relative = path.name if path == source else str(path.relative_to(source))
    return clean(relative.encode("utf-8", "replace").decode()) or "?"


def _parse(path: Path, bare: bool) -> tuple[bytes, ParsedFile, float]:
    if path.is_symlink():
        raise BadFile(
            "It is a link to a file elsewhere; copy the file itself.",
            "这是指向别处文件的链接；请复制文件本身。",
        )
    _, data = read_bytes(path)
    return data, parse_file(data, bare=bare), path.stat().st_mtime


def _write_zip(
    files: Files,
    rows: Iterable[tuple[Row, dict[str, Any]]],
    to: BinaryIO,
    progress: ProgressCounter,
    lang: str,
) -> ExportResult:
    count, unreadable, frames = 0, [], []
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for row, recipe in rows:
            progress.advance(Text(row.id, row.id))
            try:
                data = files.read(files.name(row.id, row.format))
            except StarryError:
                unreadable.append(row.id)
                continue
            count += 1
            name = f"{count:05}-{slug(row.prompt)}-{row.id[:8]}"
            date = min(max(row.made_at.timetuple()[:6], _FIRST_DATE), _LAST_DATE)
            picture = zipfile.ZipInfo(f"pictures/{name}{Path(files.name(row.id, row.format)).suffix}", date)
            frames.append(wall.frame(data, picture.filename, lang))
            archive.writestr(picture, data, zipfile.ZIP_STORED)  # picture formats are compressed already
            sidecar = json.dumps(_sidecar(row, recipe), ensure_ascii=False, indent=2)
            archive.writestr(zipfile.ZipInfo(f"recipes/{name}.json", date), sidecar, zipfile.ZIP_DEFLATED)
        index = zipfile.ZipInfo("index.html", _FIRST_DATE)
        archive.writestr(index, wall.page(frames, lang), zipfile.ZIP_DEFLATED)
    return ExportResult(count, tuple(unreadable))


def _sidecar(row: Row, recipe: dict[str, Any]) -> dict[str, object]:
    """The JSON file beside an exported picture."""
    values = {name: getattr(row, name) for name in _RECIPE_FIELDS}
    return {**values, "made_at": row.made_at.isoformat(), "tags": list(row.tags), "recipe": recipe}
