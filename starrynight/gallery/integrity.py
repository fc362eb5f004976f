"""Check that rows and files agree (``verify``), and make the index again from the files (``rebuild``).

Neither deletes a picture: both report what does not agree, and the user decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, exc, func, select, text, update

from starrynight.errors import BadFile, MissingFile, StarryError, StorageError
from starrynight.gallery.annotations import update_search_tokens
from starrynight.gallery.database import Database
from starrynight.gallery.files import Files, id_of
from starrynight.gallery.insert import ParsedFile, find_number, insert_row, parse_file
from starrynight.gallery.salvage import Salvaged
from starrynight.gallery.schema import pictures, recipes, tombstones
from starrynight.i18n import Text
from starrynight.progress import OnProgress, ProgressCounter

READING = Text("reading", "正在读取")


@dataclass(frozen=True)
class IntegrityReport:
    """``missing``: ids of rows whose file does not exist. ``orphans``: files without a row. ``corrupt``:
    files whose content does not match their name. ``unknown``: other files in the store, which do no harm.
    """

    pictures: int
    missing: tuple[str, ...]
    orphans: tuple[str, ...]
    corrupt: tuple[str, ...]
    unknown: tuple[str, ...]
    index_ok: bool

    @property
    def ok(self) -> bool:
        return self.index_ok and not (self.missing or self.orphans or self.corrupt)


@dataclass(frozen=True)
class RebuildResult:
    """``updated``: rows written again from their file. ``adopted``: files that had no row. ``refused``:
    (file, reason). ``salvaged``: what came out of a broken database, if there was one."""

    updated: int
    adopted: int
    refused: tuple[tuple[str, StarryError], ...]
    salvaged: Salvaged | None = None


def verify(database: Database, files: Files, on_progress: OnProgress | None = None) -> IntegrityReport:
    """Read every file and compare it with its name and its row. Pictures may be added meanwhile."""
    found = {picture: name for picture, _, name in files.all()}
    with database.checking() as connection:
        rows = dict(connection.execute(select(pictures.c.id, pictures.c.format)).tuples().all())
        index_ok = _check_index(connection)
    progress = ProgressCounter(on_progress, len(found))
    corrupt = []
    for picture, name in found.items():
        if _is_corrupt(files, picture, name):
            corrupt.append(name)
        progress.advance(READING)
    unlisted = {p: files.name(p, rows[p]) for p in rows.keys() - found.keys()}
    absent = [p for p, name in unlisted.items() if not files.exists(name)]
    # What exists and was not listed was added meanwhile, or lies behind a link.
    corrupt += [name for p, name in unlisted.items() if p not in absent and _is_corrupt(files, p, name)]
    no_row = _without_row(database, {*absent, *(found.keys() - rows.keys())})
    return IntegrityReport(
        pictures=len(rows),
        missing=tuple(sorted(picture for picture in absent if picture not in no_row)),
        orphans=tuple(sorted(name for picture, name in found.items() if picture in no_row)),
        corrupt=tuple(corrupt),
        unknown=tuple(files.unknown()),
        index_ok=index_ok,
    )


def rebuild(database: Database, files: Files, on_progress: OnProgress | None = None) -> RebuildResult:
    """Read every file, oldest first, and update or insert its row.

    Annotations of existing rows are kept. A row whose file does not exist is kept too, because the disk may
    only be unmounted.
    """
    files.remove_stale_parts()
    if database.is_sqlite:  # first: triggers update the search index, and a broken one rejects every update
        with database.writing() as connection:
            connection.execute(text("INSERT INTO concordance(concordance) VALUES ('rebuild')"))
    found = sorted(files.all(), key=lambda file: files.modified(file[2]))
    progress = ProgressCounter(on_progress, len(found))
    updated, adopted, refused = 0, 0, []
    with database.reading() as connection:
        deleted = set(connection.execute(select(tombstones.c.id)).scalars())
    for picture, _, name in found:
        if picture not in deleted:
            parsed = _parse(files, picture, name)
            if isinstance(parsed, StarryError):
                refused.append((name, parsed))
            else:
                new = _write_row(database, parsed, files.modified(name))
                updated, adopted = updated + (not new), adopted + new
        progress.advance(READING)
    return RebuildResult(updated, adopted, tuple(refused))


def _parse(files: Files, picture: str, name: str) -> ParsedFile | StarryError:
    """Parse the file, or return the error: one unreadable file must not end the rebuild."""
    try:
        data = files.read(name)
        return parse_file(data) if id_of(data) == picture else _corrupt(name)
    except StarryError as error:
        return error


def _write_row(database: Database, parsed: ParsedFile, made_at: float) -> bool:
    """Update or insert the row of a file; return whether it is new."""
    with database.writing() as connection:
        number = find_number(connection, parsed.columns["id"])
        if number is None:
            return insert_row(connection, parsed, made_at)
        connection.execute(update(pictures).where(pictures.c.number == number).values(**parsed.columns))
        connection.execute(update(recipes).where(recipes.c.number == number).values(recipe=parsed.recipe))
        update_search_tokens(connection, [number])
    return False


def _is_corrupt(files: Files, picture: str, name: str) -> bool:
    try:
        return id_of(files.read(name)) != picture
    except MissingFile:  # deleted since it was listed
        return False
    except (BadFile, StorageError):  # a link or a device in its place, or the disk cannot read it
        return True


def _without_row(database: Database, candidates: Iterable[str]) -> set[str]:
    """The candidates that have neither a row nor a tombstone now: since they were listed, a new picture may
    have received its row, or a row may have been deleted."""
    with database.reading() as connection:
        deleted = set(connection.execute(select(tombstones.c.id)).scalars())
        return {p for p in candidates if p not in deleted and find_number(connection, p) is None}


def _check_index(connection: Connection) -> bool:
    """Whether every picture has search tokens, and SQLite's own checks of the file and of the search index
    pass."""
    count = select(func.count())
    complete = (
        connection.execute(count.select_from(pictures)).scalar()
        == connection.execute(count.select_from(recipes)).scalar()
    )
    if connection.dialect.name != "sqlite":
        return complete
    try:
        # rank 1 also compares the index with the texts (https://sqlite.org/fts5.html#the_integrity_check_command)
        connection.execute(text("INSERT INTO concordance(concordance, rank) VALUES ('integrity-check', 1)"))
        return complete and connection.execute(text("PRAGMA quick_check")).scalar() == "ok"
    except exc.DatabaseError as error:
        if "CORRUPT" in getattr(error.orig, "sqlite_errorname", ""):
            return False
        raise


def _corrupt(name: str) -> BadFile:
    return BadFile(
        f"{name} was changed after it was added: its content no longer matches its name. Restore it from a backup, or "
        "paint it again.",
        f"{name} 存入画廊之后被改动过：内容与名字不符。请从备份恢复，或者重新画一幅。",
    )
