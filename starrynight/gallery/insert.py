"""Hanging a picture: the file first, then its row, in one transaction.

Killed between the two, the file stays behind whole and without a row: ``verify`` finds it, ``rebuild`` gives it one.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import Connection, Insert, Table, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from starrynight.gallery.database import Database
from starrynight.gallery.files import Files
from starrynight.gallery.rows import Facts, tell
from starrynight.gallery.schema import pictures, recipes, tombstones

Also = Callable[..., None]  # (connection, *, picture: its id)
LAST_MOMENT = 253_402_300_799.0  # the end of the year 9999; a file may claim any date


def keep(
    database: Database,
    files: Files,
    data: bytes,
    facts: Facts,
    made_at: float | None = None,
    also: Also | None = None,
) -> bool:
    """Hang the file; whether it is new here. One that hangs already stays one, one in the trash comes back.

    ``made_at``: seconds since 1970, now when left out. ``also`` writes in the same transaction. Raises ``StorageError``,
    and then there is no row.
    """
    name = files.name(facts.columns["id"], facts.columns["format"])
    files.put(name, data)
    if made_at is not None:
        made_at = min(max(made_at, 0.0), LAST_MOMENT)
        files.date(name, made_at)
    with database.writing() as connection:
        new = enter(connection, facts, time.time() if made_at is None else made_at)
        # Somebody may have emptied the trash of this very picture since we looked; see trash.py.
        connection.execute(delete(tombstones).where(tombstones.c.id == facts.columns["id"]))
        if not files.exists(name):
            files.put(name, data)
        if also:
            also(connection, picture=facts.columns["id"])
    return new


def enter(connection: Connection, facts: Facts, made_at: float) -> bool:
    """The row for a file that is there; whether there was none."""
    columns = facts.columns | {"made_at": int(made_at * 1000), "hung_at": int(time.time() * 1000)}
    insert = insert_new(connection, pictures).values(**columns).returning(pictures.c.number)
    number = connection.execute(insert).scalar()
    if number is None:
        connection.execute(update(pictures).where(pictures.c.id == columns["id"]).values(trashed_at=None))
        return False
    connection.execute(
        recipes.insert().values(number=number, recipe=facts.recipe, words=tell(columns, facts.recipe))
    )
    return True


def insert_new(connection: Connection, table: Table) -> Insert:
    """INSERT that leaves alone what is there already."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


def number_of(connection: Connection, picture: str) -> int | None:
    return connection.execute(select(pictures.c.number).where(pictures.c.id == picture)).scalar()
