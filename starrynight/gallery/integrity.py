"""Proof that rows and files agree (``verify``), and the index made again from the files alone (``rebuild``).

Neither ever deletes a picture: what does not fit is named, and people decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, exc, func, select, text, update

from starrynight.errors import BadFile, MissingFile, StarryError, StorageError
from starrynight.gallery.annotations import reword
from starrynight.gallery.database import Database
from starrynight.gallery.files import Files, id_of
from starrynight.gallery.insert import enter, number_of
from starrynight.gallery.rows import Facts, describe
from starrynight.gallery.schema import pictures, recipes, tombstones

OnPicture = Callable[[int, int], None]  # (done, all of them)


@dataclass(frozen=True)
class Report:
    """What ``verify`` found. ``missing``: ids of rows whose file is gone; ``orphans``: files without a row;
    ``corrupt``: files that are not what their name says; ``strangers``: what else lies among the files (harmless).
    """

    pictures: int
    missing: tuple[str, ...]
    orphans: tuple[str, ...]
    corrupt: tuple[str, ...]
    strangers: tuple[str, ...]
    index_sound: bool

    @property
    def ok(self) -> bool:
        return self.index_sound and not (self.missing or self.orphans or self.corrupt)


@dataclass(frozen=True)
class Rebuilt:
    """``kept`` rows were read anew from their files, ``adopted`` files got a row, ``refused`` files have a reason."""

    kept: int
    adopted: int
    refused: tuple[tuple[str, StarryError], ...]


def verify(database: Database, files: Files, on_picture: OnPicture | None = None) -> Report:
    """Read every file and compare it with its name and its row. Pictures may be hung meanwhile."""
    found = {picture: name for picture, _, name in files.all()}
    with database.writing() as connection:  # SQLite's check of the search index is spelt INSERT
        rows = dict(connection.execute(select(pictures.c.id, pictures.c.format)).tuples().all())
        index_sound = _index_is_sound(connection)
    corrupt = []
    for done, (picture, name) in enumerate(found.items(), 1):
        if _is_corrupt(files, picture, name):
            corrupt.append(name)
        if on_picture:
            on_picture(done, len(found))
    lost = [p for p in rows.keys() - found.keys() if not files.exists(files.name(p, rows[p]))]
    gone = _without_row(database, {*lost, *(found.keys() - rows.keys())})
    return Report(
        pictures=len(rows),
        missing=tuple(sorted(picture for picture in lost if picture not in gone)),
        orphans=tuple(sorted(name for picture, name in found.items() if picture in gone)),
        corrupt=tuple(corrupt),
        strangers=tuple(files.strangers()),
        index_sound=index_sound,
    )


def rebuild(database: Database, files: Files, on_picture: OnPicture | None = None) -> Rebuilt:
    """Read every file and write its row anew, or for the first time, oldest first. Stars, notes, tags and collections
    of rows that exist stay; a row whose file is gone stays too, for the disk may only be away."""
    files.sweep()
    if database.is_sqlite:  # first, for triggers change it, and a broken one refuses any change
        with database.writing() as connection:
            connection.execute(text("INSERT INTO concordance(concordance) VALUES ('rebuild')"))
    found = sorted(files.all(), key=lambda file: files.made_at(file[2]))
    kept, adopted, refused = 0, 0, []
    with database.reading() as connection:
        buried = set(connection.execute(select(tombstones.c.id)).scalars())
    for done, (picture, _, name) in enumerate(found, 1):
        if picture not in buried:
            facts = _read(files, picture, name)
            if isinstance(facts, StarryError):
                refused.append((name, facts))
            elif _write_anew(database, facts, files.made_at(name)):
                adopted += 1
            else:
                kept += 1
        if on_picture:
            on_picture(done, len(found))
    return Rebuilt(kept, adopted, tuple(refused))


def _read(files: Files, picture: str, name: str) -> Facts | StarryError:
    """What the file says, or why it says nothing: one that cannot be read must not stop the rest."""
    try:
        data = files.read(name)
        return describe(data) if id_of(data) == picture else _corrupt(name)
    except StarryError as error:
        return error


def _write_anew(database: Database, facts: Facts, made_at: float) -> bool:
    """Whether the file had no row."""
    with database.writing() as connection:
        number = number_of(connection, facts.columns["id"])
        if number is None:
            return enter(connection, facts, made_at)
        connection.execute(update(pictures).where(pictures.c.number == number).values(**facts.columns))
        connection.execute(update(recipes).where(recipes.c.number == number).values(recipe=facts.recipe))
        reword(connection, [number])
    return False


def _is_corrupt(files: Files, picture: str, name: str) -> bool:
    try:
        return id_of(files.read(name)) != picture
    except MissingFile:  # thrown away for good since it was listed
        return False
    except StorageError:  # a disk that cannot read it back
        return True


def _without_row(database: Database, candidates: Iterable[str]) -> set[str]:
    """Those that still have neither row nor tombstone: a file comes a moment before its row, and a row may have gone
    for good since it was read."""
    with database.reading() as connection:
        buried = set(connection.execute(select(tombstones.c.id)).scalars())
        return {p for p in candidates if p not in buried and number_of(connection, p) is None}


def _index_is_sound(connection: Connection) -> bool:
    """Every picture has its words, and SQLite's own checks of the file and of the search index pass."""
    count = select(func.count())
    whole = (
        connection.execute(count.select_from(pictures)).scalar()
        == connection.execute(count.select_from(recipes)).scalar()
    )
    if connection.dialect.name != "sqlite":
        return whole
    try:
        # rank 1: compare with the texts, not only with itself (https://sqlite.org/fts5.html#the_integrity_check_command)
        connection.execute(text("INSERT INTO concordance(concordance, rank) VALUES ('integrity-check', 1)"))
        return whole and connection.execute(text("PRAGMA quick_check")).scalar() == "ok"
    except exc.DatabaseError as error:
        if "CORRUPT" in getattr(error.orig, "sqlite_errorname", ""):
            return False
        raise


def _corrupt(name: str) -> BadFile:
    return BadFile(
        f"{name} was changed since it was hung: its content no longer matches its name. Restore it from a backup, or "
        "paint it again.",
        f"{name} 挂好之后被改动过：内容与名字不符。请从备份恢复，或者重新画一幅。",
    )
