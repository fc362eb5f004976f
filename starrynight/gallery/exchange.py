"""Import pictures from folders (ours and those of other tools, byte for byte) and export them as a zip.

Every imported file is untrusted. A file that is not a valid picture is refused with the reason, and the
import goes on. Names from outside never become paths in the gallery, and exported names stay inside their
folder.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from starrynight.errors import BadFile, BadRequest, StarryError, StorageError
from starrynight.gallery import wall
from starrynight.gallery.database import Database
from starrynight.gallery.files import Files, id_of, slug
from starrynight.gallery.find import find_pictures
from starrynight.gallery.insert import ParsedFile, add_picture, known_picture, parse_file
from starrynight.gallery.schema import Row
from starrynight.i18n import Text
from starrynight.metadata.files import FORMATS, read_bytes
from starrynight.metadata.kinds import begins_as
from starrynight.metadata.pixels import as_png
from starrynight.progress import OnProgress, ProgressCounter
from starrynight.storage import open_atomic, storing
from starrynight.text import clean, printed_json

# The first and the last time that the zip format can store.
_FIRST_DATE, _LAST_DATE = (1980, 1, 1, 0, 0, 0), (2107, 12, 31, 23, 59, 58)
_RECIPE_FIELDS = (
    *("id", "tool", "prompt", "negative_prompt", "style", "model", "precision", "verdict", "seed", "steps"),
    *("guidance", "sampler", "width", "height", "starred", "note"),
)


@dataclass(frozen=True)
class ImportResult:
    """Each list holds a file's path below the folder, cleaned for display, and the reason.

    ``refused``: pictures that are not in the gallery. ``passed``: other files and folders that were not looked
    into. ``unread``: pictures that hang without their recipe, which cannot be read. ``converted``:
    pictures of other formats, which hang as PNG.
    """

    added: int
    already_present: int
    refused: tuple[tuple[str, StarryError], ...]
    passed: tuple[tuple[str, Text], ...] = ()
    unread: tuple[tuple[str, StarryError], ...] = ()
    converted: tuple[tuple[str, Text], ...] = ()


@dataclass(frozen=True)
class ImportedFile:
    """``notes``: how it was converted, and that its recipe cannot be read."""

    id: str
    new: bool
    notes: tuple[Text, ...] = ()


@dataclass(frozen=True)
class ExportResult:
    """``unreadable``: ids of pictures that are not in the zip because their file could not be read."""

    pictures: int
    unreadable: tuple[str, ...]


def import_pictures(
    database: Database, files: Files, source: Path, bare: bool, on_progress: OnProgress | None
) -> ImportResult:
    """Add every picture below a folder, or one file. See ``Gallery.import_pictures``."""
    added, already_present = 0, 0
    refused: list[tuple[str, StarryError]] = []
    unread: list[tuple[str, StarryError]] = []
    converted: list[tuple[str, Text]] = []
    walk = find_pictures(source)
    progress = ProgressCounter(on_progress, len(walk.pictures))
    for path in walk.pictures:
        name = _display_name(path, source)
        try:
            data = _read(path)
            # A StorageError of the gallery ends the import, because the next file would meet the same full disk.
            if begins_as(data) not in FORMATS:
                data, note = as_png(data)
                converted.append((name, note))
            known = known_picture(database, files, data)
            parsed, made_at = (None, 0.0) if known else _parse(path, data, bare)
        except BadFile as error:
            refused.append((name, error))
        except StorageError as error:
            if _can_read(path):
                raise
            refused.append((name, error))
        else:
            new = parsed is not None and add_picture(database, files, data, parsed, made_at)
            added, already_present = added + new, already_present + (not new)
            if parsed is not None and parsed.unread:
                unread.append((name, parsed.unread))
        progress.advance(Text(name, name))
    no = {name for name, _ in refused}
    hung = [(name, note) for name, note in converted if name not in no]
    passed = tuple((_display_name(path, source), why) for path, why in walk.passed)
    return ImportResult(added, already_present, tuple(refused), passed, tuple(unread), tuple(hung))


def import_file(database: Database, files: Files, data: bytes) -> ImportedFile:
    """Add one picture's file. See ``Gallery.add_file``."""
    notes = []
    if begins_as(data) not in FORMATS:
        data, note = as_png(data)
        notes.append(note)
    if known_picture(database, files, data):
        return ImportedFile(id_of(data), False, tuple(notes))
    parsed = parse_file(data)
    if parsed.unread:
        notes.append(Text(parsed.unread.en, parsed.unread.zh))
    new = add_picture(database, files, data, parsed)
    return ImportedFile(parsed.columns["id"], new, tuple(notes))


def _can_read(path: Path) -> bool:
    try:
        read_bytes(path)
    except StarryError:
        return False
    return True


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


def _display_name(path: Path, source: Path) -> str:
    """The path below ``source`` without control characters and invalid text, safe to print on a terminal."""
    relative = path.name if path == source else str(path.relative_to(source))
    return clean(relative.encode("utf-8", "replace").decode()) or "?"


def _parse(path: Path, data: bytes, bare: bool) -> tuple[ParsedFile, float]:
    return parse_file(data, bare=bare), path.stat().st_mtime


def _read(path: Path) -> bytes:
    if path.is_symlink():
        raise BadFile(
            "It is a link to a file elsewhere; copy the file itself.",
            "这是指向别处文件的链接；请复制文件本身。",
        )
    return read_bytes(path)[1]


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
            sidecar = printed_json(_sidecar(row, recipe))
            archive.writestr(zipfile.ZipInfo(f"recipes/{name}.json", date), sidecar, zipfile.ZIP_DEFLATED)
        index = zipfile.ZipInfo("index.html", _FIRST_DATE)
        archive.writestr(index, wall.page(frames, lang), zipfile.ZIP_DEFLATED)
    return ExportResult(count, tuple(unreadable))


def _sidecar(row: Row, recipe: dict[str, Any]) -> dict[str, object]:
    """The JSON file beside an exported picture."""
    values = {name: getattr(row, name) for name in _RECIPE_FIELDS}
    return {**values, "made_at": row.made_at.isoformat(), "tags": list(row.tags), "recipe": recipe}
