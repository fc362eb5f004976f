"""Finding pictures: a ``Query`` says which, a ``Page`` is some of them and where the next begins.

Pages follow one another by the last row seen (never by counting off rows), so a picture hung meanwhile shifts nothing
and the thousandth page costs what the first does. Knows nothing of files.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    String,
    and_,
    cast,
    column,
    exists,
    func,
    literal_column,
    select,
    table,
)
from sqlalchemy.dialects.postgresql import TSQUERY

from starrynight.errors import BadRequest, MissingFile
from starrynight.gallery import similarity
from starrynight.gallery import tokens as words
from starrynight.gallery.database import Database
from starrynight.gallery.rows import Row
from starrynight.gallery.schema import collected, collections, pictures, recipes, tags

LONGEST_PAGE = 500
NEAR = 500  # "like this one" shows at most so many: what comes after is unlike
# The search index (see migrations/), with its hidden column of its own name.
concordance = table("concordance", column("rowid"), column("concordance"))
EXACT = ("style", "model", "precision", "verdict", "tool")  # filters that name one value


@dataclass(frozen=True, kw_only=True)
class Query:
    """What to look for; what is ``None`` or empty does not matter. All that is said must hold.

    ``text``: words or parts of words in prompt, style, tags and note, Chinese or English. ``since`` (from then on) and
    ``until`` (before then) compare ``made_at``; without a time zone they are UTC. ``like``: a picture's id; ``colour``:
    "#1f3b73"; both sort by nearness, else the last hung comes first, or ``oldest_first``. ``trashed`` looks into the trash.
    """

    text: str = ""
    style: str | None = None
    model: str | None = None
    precision: str | None = None
    verdict: str | None = None
    tool: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    starred: bool | None = None
    tag: str | None = None
    collection: str | None = None
    like: str | None = None
    colour: str | None = None
    oldest_first: bool = False
    trashed: bool = False


@dataclass(frozen=True)
class Page:
    """``next`` is what to ask with for the rows that follow; ``None`` after the last."""

    rows: tuple[Row, ...]
    next: str | None = None


class Search:
    """Over one database. Keeps in memory what the pictures look like, 208 bytes for each."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._looks = Looks()

    def page(self, query: Query, after: str | None = None, limit: int = 60) -> Page:
        """At most ``limit`` (1 … 500) rows, those after ``after`` (a ``Page.next``). Raises ``BadRequest`` for an
        ``after`` that no page gave, ``MissingFile`` if there is no picture to be like."""
        limit = max(1, min(limit, LONGEST_PAGE))
        with self.database.reading() as connection:
            if query.like or query.colour:
                return self._nearest(connection, query, after, limit)
            return self._in_order(connection, query, after, limit)

    def count(self, query: Query) -> int:
        """How many pictures there are to find (of those that are like another, at most ``NEAR``)."""
        with self.database.reading() as connection:
            if query.like or query.colour:
                return len(self._ranked(connection, query))
            place, _, where = sought(query, connection)
            return connection.execute(select(func.count()).select_from(place).where(*where)).scalar_one()

    def _in_order(self, connection: Connection, query: Query, after: str | None, limit: int) -> Page:
        place, number, where = sought(query, connection)
        if after is not None:
            last = _whole(after)
            where.append(number > last if query.oldest_first else number < last)
        order = number.asc() if query.oldest_first else number.desc()
        rows = fill(connection, ROWS.select_from(place).where(*where).order_by(order).limit(limit + 1))
        more = len(rows) > limit
        return Page(rows[:limit], str(rows[limit - 1].number) if more else None)

    def _nearest(self, connection: Connection, query: Query, after: str | None, limit: int) -> Page:
        ranked = self._ranked(connection, query)
        start = 0 if after is None else _place(ranked, _whole(after))
        chosen = ranked[start : start + limit]
        found = fill(connection, ROWS.where(pictures.c.number.in_(chosen)))
        rows = sorted(found, key=lambda row: chosen.index(row.number))
        more = start + limit < len(ranked)
        return Page(tuple(rows), str(chosen[-1]) if more else None)

    def _ranked(self, connection: Connection, query: Query) -> list[int]:
        """The numbers of the pictures that fit, nearest first; never the one they are to be like."""
        numbers, apart = self._looks.distances(connection, query)
        kept = np.isin(numbers, _numbers(connection, query))
        numbers, apart = numbers[kept], apart[kept]
        if len(numbers) > NEAR:
            near = np.argpartition(apart, NEAR)[:NEAR]
            numbers, apart = numbers[near], apart[near]
        return numbers[np.lexsort((-numbers, apart))].tolist()  # of two equally near the later hung


class Looks:
    """The looks of all pictures as arrays, extended by what was hung since the last question.

    Numbers are never used twice and a file never changes, so what was read once stays true; pictures that are gone
    drop out when the rows that fit are asked for.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = np.empty(0, np.int64)
        self._hashes = np.empty(0, np.uint64)
        self._colours = similarity.unpack(b"")

    def distances(self, connection: Connection, query: Query) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of all pictures that have a look, and how far each is from what the query names, 0 … 2."""
        with self._lock:
            self._catch_up(connection)
            numbers, hashes, colours = self._numbers, self._hashes, self._colours
        apart = np.zeros(len(numbers), np.float32)
        if query.colour:
            apart += similarity.colour_distance(similarity.parse_colour(query.colour), colours)
        if query.like:
            number, hash_, packed = _look_of(connection, query.like)
            apart += similarity.distance(hash_, similarity.unpack(packed), hashes, colours)
            apart, numbers = apart[numbers != number], numbers[numbers != number]
        return numbers, apart

    def _catch_up(self, connection: Connection) -> None:
        c = pictures.c
        last = int(self._numbers[-1]) if len(self._numbers) else 0
        statement = select(c.number, c.hash, c.colours).where(c.number > last, c.colours.is_not(None))
        if not (new := connection.execute(statement.order_by(c.number)).all()):
            return
        numbers, hashes, packed = zip(*new, strict=True)
        self._numbers = np.concatenate([self._numbers, np.array(numbers, np.int64)])
        self._hashes = np.concatenate([self._hashes, np.array(hashes, np.uint64)])
        self._colours = np.concatenate([self._colours, similarity.unpack(b"".join(packed))], axis=2)


def sought(
    query: Query, connection: Connection
) -> tuple[FromClause, ColumnElement[int], list[ColumnElement[bool]]]:
    """Where to look, the number to go by, and all that must hold there, but for likeness."""
    c = pictures.c
    where: list[ColumnElement[bool]] = [
        c.trashed_at.is_not(None) if query.trashed else c.trashed_at.is_(None)
    ]
    where += [c[name] == value for name in EXACT if (value := getattr(query, name)) is not None]
    if query.starred is not None:
        where.append(c.starred.is_(query.starred))
    if query.since:
        where.append(c.made_at >= milliseconds(query.since))
    if query.until:
        where.append(c.made_at < milliseconds(query.until))
    if query.tag:
        where.append(exists().where(tags.c.number == c.number, tags.c.name == query.tag))
    if query.collection:
        kept_in = and_(
            collections.c.name == query.collection, collections.c.collection == collected.c.collection
        )
        where.append(exists().where(collected.c.number == c.number, kept_in))
    if not (needles := words.needles(query.text)):
        return pictures, c.number, where
    if connection.dialect.name == "sqlite":
        return _in_concordance(needles, where)
    return pictures, c.number, [*where, _in_vectors(needles)]


def _in_concordance(
    needles: list[tuple[str, ...]], where: list[ColumnElement[bool]]
) -> tuple[FromClause, ColumnElement[int], list[ColumnElement[bool]]]:
    """FTS5. It finds in the order of numbers and so can stop when a page is full; the unary plus keeps SQLite from
    walking through the pictures and asking for each (https://sqlite.org/optoverview.html#disqualifying_where_clause_terms_using_unary_).
    Tokens are letters, digits and pictographs only (words.py): quoting them is all the escaping there is."""
    match = " ".join(f'"{" ".join(needle)}"*' for needle in needles)
    place = concordance.join(pictures, pictures.c.number == literal_column("+concordance.rowid"))
    return place, concordance.c.rowid, [*where, concordance.c.concordance.op("MATCH")(match)]


def _in_vectors(needles: list[tuple[str, ...]]) -> ColumnElement[bool]:
    """Postgres: all tokens by the index; that those of a phrase stand side by side, by looking."""
    tokens = " & ".join(f"'{token}':*" for needle in needles for token in needle)
    vector = func.array_to_tsvector(func.string_to_array(recipes.c.words, literal_column("' '")))
    phrases = [(" " + recipes.c.words).contains(f" {' '.join(n)}") for n in needles if len(n) > 1]
    return pictures.c.number.in_(
        select(recipes.c.number).where(vector.op("@@")(cast(tokens, TSQUERY)), *phrases)
    )


def _numbers(connection: Connection, query: Query) -> np.ndarray:
    """The numbers of all that the query finds, as one text: many times faster than a row for each."""
    place, _, where = sought(query, connection)
    joined = func.aggregate_strings(cast(pictures.c.number, String), ",")
    found = connection.execute(select(joined).select_from(place).where(*where)).scalar()
    return np.fromstring(found or "", np.int64, sep=",")


def fill(connection: Connection, statement: Select[Any]) -> tuple[Row, ...]:
    """The rows that a selection of ``ROWS`` finds, each with its tags and collections."""
    found = connection.execute(statement).all()
    numbers = [columns[0] for columns in found]
    of_tags = _names(connection, select(tags.c.number, tags.c.name).where(tags.c.number.in_(numbers)))
    named = select(collected.c.number, collections.c.name).join(collections)
    of_collections = _names(connection, named.where(collected.c.number.in_(numbers)))
    return tuple(
        Row.of(columns, of_tags.get(columns[0], ()), of_collections.get(columns[0], ())) for columns in found
    )


ROWS = select(*(pictures.c[name] for name in Row.columns()))


def _names(connection: Connection, statement: Select[int, str]) -> dict[int, tuple[str, ...]]:
    names: dict[int, tuple[str, ...]] = {}
    for number, name in sorted(connection.execute(statement).all()):
        names[number] = (*names.get(number, ()), name)
    return names


def milliseconds(when: datetime) -> int:
    """Since 1970; a time without a zone is UTC."""
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)


def _look_of(connection: Connection, picture: str) -> tuple[int, int, bytes]:
    c = pictures.c
    found = connection.execute(select(c.number, c.hash, c.colours).where(c.id == picture)).one_or_none()
    if found is None or found.colours is None:
        raise MissingFile(
            f"There is no picture {picture[:40]} to be like, or its look is not known yet; try `starry gallery rebuild`.",
            f"没有可供比较的图片 {picture[:40]}，或者还不知道它的样貌；请试试 `starry gallery rebuild`。",
        )
    return found.number, found.hash, found.colours


def _whole(after: str) -> int:
    if not (after.isascii() and after.isdecimal() and len(after) < 19):
        raise BadRequest(
            "That is not a place in this list; begin again at its first page.",
            "列表里没有这个位置；请从第一页重新开始。",
        )
    return int(after)


def _place(ranked: list[int], last: int) -> int:
    """Where to go on; a picture thrown away meanwhile has no place, and the list ends rather than repeat itself."""
    return ranked.index(last) + 1 if last in ranked else len(ranked)
