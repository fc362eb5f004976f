"""Read out of a broken database what no picture's file holds: annotations, and the queue's jobs.

SQLite ends a query at the first damaged page, so a table is read from both ends, and what lies between is looked up row
by row. What was read may still be wrong: a value is kept only if its column can hold it. Tombstones are left: a
picture whose deletion was cut short comes back rather than that a damaged page deletes one.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Table, select, update

from starrynight.gallery.annotations import MAX_COLLECTION, MAX_NOTE, MAX_TAG, update_search_tokens
from starrynight.gallery.database import Database
from starrynight.gallery.insert import find_number, insert_or_ignore
from starrynight.gallery.schema import collected, collections, pictures, tags
from starrynight.gallery.snapshot import Snapshot
from starrynight.text import clean

MAX_GAP = 1_000_000  # rows looked up one by one between two readable ends of a table
_JSON = ("request", "error")  # columns of the queue that hold a JSON object

Values = dict[str, Any]


@dataclass(frozen=True)
class Salvaged:
    """What came out of the broken database, which is kept as ``path``. ``jobs``: state → number of jobs.
    ``lost_jobs``: ids of jobs that an index still names and nothing else. ``annotated``: pictures that got their star,
    note, tags, collections or place in the trash. ``complete``: every page of these tables could be read."""

    path: str
    jobs: dict[str, int]
    lost_jobs: tuple[str, ...]
    annotated: int
    complete: bool


def restore(database: Database, path: str) -> Salvaged:
    """Read the broken database at ``path`` and write its annotations and jobs into ``database``."""
    snapshot = Snapshot(Path(path))
    try:
        with contextlib.closing(sqlite3.connect(snapshot.path, isolation_level=None)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            source = _Source(connection)
            with database.writing() as target:
                annotated = _restore_annotations(source, target)
                jobs, lost = _restore_jobs(source, target)
    finally:
        snapshot.close()
    return Salvaged(path, jobs, lost, annotated, source.complete)


class _Source:
    """The broken database. ``complete``: nothing that was read so far met a damaged page or an impossible value."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection, self.complete = connection, True

    def rows(self, table: Table, *names: str) -> Iterator[Values]:
        """The rows of a table, or its columns ``names``, that can be read and that the columns can hold, in order."""
        for values in self._read(table.name, list(names) or [column.name for column in table.columns]):
            if all(_holds(table.c[name], value) for name, value in values.items()):
                yield values
            else:
                self.complete = False

    def ids(self, table: str) -> dict[int, str]:
        """Number → id, from the index of ids, which may be whole where the table is not."""
        found: dict[int, str] = {}
        for order in ("ASC", "DESC"):
            with contextlib.suppress(sqlite3.Error):
                statement = f"SELECT _rowid_, id FROM {table} ORDER BY id {order}"  # our own names  # nosec B608
                found |= self.connection.execute(statement)
        return {number: name for number, name in found.items() if isinstance(name, str)}

    def _read(self, table: str, wanted: list[str]) -> list[Values]:
        try:
            there = [row[1] for row in self.connection.execute(f"PRAGMA table_info({table})")]
        except sqlite3.Error:
            self.complete = False
            return []
        names = [name for name in wanted if name in there]  # an older version has fewer
        found: dict[int, Values] = {}

        def read(where: str, *given: int) -> bool:
            statement = (
                f"SELECT _rowid_, {', '.join(names)} FROM {table} NOT INDEXED {where}"  # our own names  # nosec B608
            )
            try:
                for number, *values in self.connection.execute(statement, given):
                    found[number] = dict(zip(names, values, strict=True))
            except sqlite3.Error:
                return False
            return True

        if names and not read("ORDER BY _rowid_"):
            self.complete = False
            low = max(found, default=0)
            read("ORDER BY _rowid_ DESC")
            high = min((number for number in found if number > low), default=self._last(table))
            for number in range(low + 1, min(high, low + MAX_GAP) + 1):
                read("WHERE _rowid_ = ?", number)
        return [found[number] for number in sorted(found)]

    def _last(self, table: str) -> int:
        """The highest number that the table has given out."""
        try:
            statement = "SELECT seq FROM sqlite_sequence WHERE name = ?"
            return int(self.connection.execute(statement, [table]).fetchone()[0])
        except (sqlite3.Error, TypeError, ValueError):
            return 0


def _restore_annotations(source: _Source, target: Connection) -> int:
    """Write them to the pictures that are in the new database; return the number of these."""
    old = source.ids("pictures")
    chosen: set[int] = set()
    now = int(time.time() * 1000)
    for values in source.rows(pictures, "number", "id", "starred", "note", "trashed_at"):
        old[values["number"]] = values["id"]
        number = find_number(target, values["id"])
        thrown = values["trashed_at"] is not None
        if number is not None and (values["starred"] or values["note"] or thrown):
            # Thrown now, not then: a wrong time would delete the picture at once.
            changed = {"starred": bool(values["starred"]), "note": clean(values["note"])[:MAX_NOTE]}
            changed |= {"trashed_at": now} if thrown else {}
            target.execute(update(pictures).where(pictures.c.number == number).values(**changed))
            chosen.add(number)

    def new(number: int) -> int | None:
        return find_number(target, old[number]) if number in old else None

    for values in source.rows(tags):
        name, number = clean(values["name"])[:MAX_TAG], new(values["number"])
        if name and number is not None:
            target.execute(insert_or_ignore(target, tags).values(number=number, name=name))
            chosen.add(number)
    names = {row["collection"]: clean(row["name"])[:MAX_COLLECTION] for row in source.rows(collections)}
    keys = {key: _collection(target, name) for key, name in names.items() if name}
    for values in source.rows(collected):
        key, number = keys.get(values["collection"]), new(values["number"])
        if key is not None and number is not None:
            target.execute(insert_or_ignore(target, collected).values(collection=key, number=number))
            chosen.add(number)
    update_search_tokens(target, chosen)
    return len(chosen)


def _restore_jobs(source: _Source, target: Connection) -> tuple[dict[str, int], tuple[str, ...]]:
    """The number of jobs by state, and the ids of those that cannot be read. A job that was being painted is
    taken up by the next worker, because nobody renews its lease."""
    jobs, painted = (Table(name, sa.MetaData(), autoload_with=target) for name in ("jobs", "painted"))
    found: dict[int, int] = {}
    states: Counter[str] = Counter()
    known = set()
    for values in source.rows(jobs):
        old = values.pop("number")
        insert = insert_or_ignore(target, jobs).values(**values).returning(jobs.c.number)
        known.add(values["id"])
        if (number := target.execute(insert).scalar()) is not None:
            found[old] = number
            states[values["state"]] += 1
    for values in source.rows(painted):
        if (number := found.get(values["number"])) is not None:
            target.execute(insert_or_ignore(target, painted).values(**values | {"number": number}))
    return dict(states), tuple(sorted(set(source.ids("jobs").values()) - known))


def _collection(target: Connection, name: str) -> int:
    target.execute(insert_or_ignore(target, collections).values(name=name))
    return target.execute(select(collections.c.collection).where(collections.c.name == name)).scalar_one()


def _holds(column: sa.Column[Any], value: object) -> bool:
    kind = column.type.python_type
    if value is None:
        return bool(column.nullable)
    if kind is bool:
        return value in (0, 1)
    if not isinstance(value, (int, float) if kind is float else kind):
        return False
    if column.name in _JSON and isinstance(value, str):
        try:
            return isinstance(json.loads(value), dict)
        except (ValueError, RecursionError):
            return False
    return True
