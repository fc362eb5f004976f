"""Search: a ``Query`` describes the pictures to find, a ``Page`` holds some of them and the cursor of the
next page.

A cursor is the last row's number, not an offset. Pictures added between two requests therefore shift nothing,
and the thousandth page costs as much as the first.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

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
from starrynight.gallery.database import Database
from starrynight.gallery.descriptions import VectorCache, contents, shows
from starrynight.gallery.schema import Row, collected, collections, pictures, recipes, tags, to_milliseconds
from starrynight.gallery.tokens import query_phrases
from starrynight.metadata import OURS

MAX_PAGE = 500  # rows
MAX_SIMILAR = 500  # results of a query by similarity or colour; later ones have little in common with it
FACETS = ("style", "model", "precision", "verdict", "tool")  # columns filtered by equality
# The FTS5 table of migration 0001, with the hidden column that FTS5 names after the table.
concordance = table("concordance", column("rowid"), column("concordance"))


@dataclass(frozen=True, kw_only=True)
class Query:
    """The conditions that a picture must fulfil, all of them; ``None`` or "" means no condition.

    ``text``: words or parts of words, Chinese or English, in prompt, style, tags and note. ``since``
    (inclusive) and ``until`` (exclusive) compare ``made_at``; a time without a zone is UTC. ``like``: a
    picture's id. ``colour``: "#1f3b73". ``shows``: a fact that eyes saw in the picture (``descriptions.FACTS``): "hour.night",
    "thing.moon". ``like`` and ``colour`` sort by distance; otherwise the picture added
    last comes first, or ``oldest_first``. ``trashed`` searches the trash instead of the gallery.
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
    shows: str | None = None
    oldest_first: bool = False
    trashed: bool = False


@dataclass(frozen=True)
class Page:
    """``next``: the cursor of the following page, or ``None`` after the last."""

    rows: tuple[Row, ...]
    next: str | None = None


class Layout(NamedTuple):
    """All pictures of a query in order: their numbers, and width / height of each. A wall of any length can be laid out
    from it, and ``numbers`` are the cursors of ``Search.page``."""

    numbers: list[int]
    ratios: list[float]


class Matches(NamedTuple):
    """The FROM clause, the number column and the WHERE conditions that select the pictures of a query."""

    source: FromClause
    number: ColumnElement[int]
    where: list[ColumnElement[bool]]


class Search:
    """Searches one database. Keeps all descriptors in memory, 208 bytes for each picture."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._descriptors, self._vectors = DescriptorCache(), VectorCache()

    def page(self, query: Query, after: str | None = None, limit: int = 60) -> Page:
        """At most ``limit`` (1 … 500) rows after the cursor ``after``.

        Raises ``BadRequest`` for an invalid cursor, and ``MissingFile`` if the picture of ``like`` does not
        exist.
        """
        limit = max(1, min(limit, MAX_PAGE))
        with self.database.reading() as connection:
            if query.like or query.colour:
                return self._page_by_distance(connection, query, after, limit)
            return self._page_by_number(connection, query, after, limit)

    def count(self, query: Query) -> int:
        """The number of pictures that match; at most ``MAX_SIMILAR`` for a query by similarity or colour."""
        with self.database.reading() as connection:
            if query.like or query.colour:
                return len(self._ranked_numbers(connection, query))
            matches = find_matches(connection, query)
            statement = select(func.count()).select_from(matches.source).where(*matches.where)
            return connection.execute(statement).scalar_one()

    def layout(self, query: Query) -> Layout:
        """The order and shapes of all results; at most ``MAX_SIMILAR`` for a query by similarity or colour."""
        c = pictures.c
        with self.database.reading() as connection:
            if query.like or query.colour:
                ranked = self._ranked_numbers(connection, query)
                statement = select(c.number, c.width, c.height).where(c.number.in_(ranked))
                shapes = {number: (width, height) for number, width, height in connection.execute(statement)}
                found = [(number, *shapes[number]) for number in ranked]
            else:
                source, number, where = find_matches(connection, query)
                order = number.asc() if query.oldest_first else number.desc()
                statement = select(c.number, c.width, c.height).select_from(source).where(*where)
                found = list(connection.execute(statement.order_by(order)).tuples())
        return Layout(
            [number for number, _, _ in found], [round(width / height, 3) for _, width, height in found]
        )

    def by_meaning(self, query: Query, vector: np.ndarray, by: str, limit: int) -> list[tuple[Row, float]]:
        """The pictures whose vectors of the model ``by`` have the largest cosines with ``vector``, float32 [D] of length 1,
        among those that fulfil ``query``; with the cosines, the largest first.
        """
        with self.database.reading() as connection:
            numbers, cosines = self._vectors.cosines(connection, vector, by)
            kept = np.isin(numbers, _matching_numbers(connection, query))
            numbers, cosines = numbers[kept], cosines[kept]
            order = np.lexsort((-numbers, -cosines))[: max(1, min(limit, MAX_PAGE))]
            found = fetch_rows(connection, ROWS.where(pictures.c.number.in_(numbers[order].tolist())))
        rows = {row.number: row for row in found}
        return [(rows[int(numbers[place])], float(cosines[place])) for place in order]

    def _page_by_number(self, connection: Connection, query: Query, after: str | None, limit: int) -> Page:
        source, number, where = find_matches(connection, query)
        if after is not None:
            last = _parse_cursor(after)
            where.append(number > last if query.oldest_first else number < last)
        order = number.asc() if query.oldest_first else number.desc()
        rows = fetch_rows(connection, ROWS.select_from(source).where(*where).order_by(order).limit(limit + 1))
        more = len(rows) > limit
        return Page(rows[:limit], str(rows[limit - 1].number) if more else None)

    def _page_by_distance(self, connection: Connection, query: Query, after: str | None, limit: int) -> Page:
        ranked = self._ranked_numbers(connection, query)
        start = 0 if after is None else _position_after(ranked, _parse_cursor(after))
        chosen = ranked[start : start + limit]
        found = fetch_rows(connection, ROWS.where(pictures.c.number.in_(chosen)))
        rows = sorted(found, key=lambda row: chosen.index(row.number))
        more = start + limit < len(ranked)
        return Page(tuple(rows), str(chosen[-1]) if more else None)

    def _ranked_numbers(self, connection: Connection, query: Query) -> list[int]:
        """The numbers of the matching pictures, nearest first, without the picture of ``like`` itself."""
        numbers, distances = self._descriptors.distances(connection, query)
        kept = np.isin(numbers, _matching_numbers(connection, query))
        numbers, distances = numbers[kept], distances[kept]
        if len(numbers) > MAX_SIMILAR:
            nearest = np.argpartition(distances, MAX_SIMILAR)[:MAX_SIMILAR]
            numbers, distances = numbers[nearest], distances[nearest]
        return numbers[
            np.lexsort((-numbers, distances))
        ].tolist()  # at equal distance the later picture is first


class DescriptorCache:
    """The descriptors of all pictures as arrays; each query first reads those of new pictures.

    An entry stays valid because numbers are never reused and files never change. Entries of deleted pictures
    remain, and ``Search`` removes them from the results by the numbers that match in the database.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = np.empty(0, np.int64)
        self._hashes = np.empty(0, np.uint64)
        self._colours = similarity.unpack(b"")

    def distances(self, connection: Connection, query: Query) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of all pictures with a descriptor, int64 [N], and their distances, float32 [N].

        ``like`` and ``colour`` contribute 0 … 1 each.
        """
        with self._lock:
            self._read_new(connection)
            numbers, hashes, colours = self._numbers, self._hashes, self._colours
        distances = np.zeros(len(numbers), np.float32)
        if query.colour:
            distances += similarity.colour_distance(similarity.parse_colour(query.colour), colours)
        if query.like:
            number, descriptor = _descriptor_of(connection, query.like)
            own_colours = similarity.unpack(descriptor.colours)
            distances += similarity.distance(descriptor.hash, own_colours, hashes, colours)
            others = numbers != number
            numbers, distances = numbers[others], distances[others]
        return numbers, distances

    def _read_new(self, connection: Connection) -> None:
        c = pictures.c
        last = int(self._numbers[-1]) if len(self._numbers) else 0
        statement = select(c.number, c.hash, c.colours).where(c.number > last, c.colours.is_not(None))
        if not (new := connection.execute(statement.order_by(c.number)).all()):
            return
        numbers, hashes, packed = zip(*new, strict=True)
        self._numbers = np.concatenate([self._numbers, np.array(numbers, np.int64)])
        self._hashes = np.concatenate([self._hashes, np.array(hashes, np.uint64)])
        self._colours = np.concatenate([self._colours, similarity.unpack(b"".join(packed))], axis=2)


def find_matches(connection: Connection, query: Query) -> Matches:
    """The pictures that fulfil every condition of ``query`` except ``like`` and ``colour``."""
    c = pictures.c
    where: list[ColumnElement[bool]] = [
        c.trashed_at.is_not(None) if query.trashed else c.trashed_at.is_(None)
    ]
    where += [c[name] == value for name in FACETS if (value := getattr(query, name)) is not None]
    if query.starred is not None:
        where.append(c.starred.is_(query.starred))
    if query.since:
        where.append(c.made_at >= to_milliseconds(query.since))
    if query.until:
        where.append(c.made_at < to_milliseconds(query.until))
    if query.tag:
        where.append(exists().where(tags.c.number == c.number, tags.c.name == query.tag))
    if query.collection:
        same_collection = collections.c.collection == collected.c.collection
        named = and_(collections.c.name == query.collection, same_collection)
        where.append(exists().where(collected.c.number == c.number, named))
    if query.shows:
        where.append(shows(connection, query.shows))
    if not (phrases := query_phrases(query.text)):
        return Matches(pictures, c.number, where)
    if connection.dialect.name == "sqlite":
        return _match_fts5(phrases, where)
    return Matches(pictures, c.number, [*where, _match_tsvector(phrases)])


def _match_fts5(phrases: list[tuple[str, ...]], where: list[ColumnElement[bool]]) -> Matches:
    """Full-text search on SQLite.

    FTS5 returns rows in the order of numbers, so a query stops when its page is full. The unary plus prevents
    SQLite from scanning ``pictures`` and asking FTS5 about every row
    (https://sqlite.org/optoverview.html#disqualifying_where_clause_terms_using_unary_). Quoting is all the
    escaping needed, because tokens contain only letters, digits and pictographs (tokens.py).
    """
    match = " ".join(f'"{" ".join(phrase)}"*' for phrase in phrases)
    source = concordance.join(pictures, pictures.c.number == literal_column("+concordance.rowid"))
    return Matches(source, concordance.c.rowid, [*where, concordance.c.concordance.op("MATCH")(match)])


def _match_tsvector(phrases: list[tuple[str, ...]]) -> ColumnElement[bool]:
    """Full-text search on Postgres: the index finds all tokens, then a string comparison checks that those of
    a phrase are adjacent."""
    tokens = " & ".join(f"'{token}':*" for phrase in phrases for token in phrase)
    vector = func.array_to_tsvector(func.string_to_array(recipes.c.words, literal_column("' '")))
    adjacent = [(" " + recipes.c.words).contains(f" {' '.join(p)}") for p in phrases if len(p) > 1]
    return pictures.c.number.in_(
        select(recipes.c.number).where(vector.op("@@")(cast(tokens, TSQUERY)), *adjacent)
    )


def _matching_numbers(connection: Connection, query: Query) -> np.ndarray:
    """The numbers of all matches, int64. Reading them as one text is many times faster than as rows."""
    matches = find_matches(connection, query)
    joined = func.aggregate_strings(cast(pictures.c.number, String), ",")
    statement = select(joined).select_from(matches.source).where(*matches.where)
    return np.fromstring(connection.execute(statement).scalar() or "", np.int64, sep=",")


ROWS = select(*(pictures.c[name] for name in Row.columns()))


def fetch_rows(connection: Connection, statement: Select[Any]) -> tuple[Row, ...]:
    """The rows of ``statement``, a restriction of ``ROWS``, with their tags and collections."""
    found = connection.execute(statement).all()
    numbers = [columns[0] for columns in found]
    of_tags = _names(connection, select(tags.c.number, tags.c.name).where(tags.c.number.in_(numbers)))
    named = select(collected.c.number, collections.c.name).join(collections)
    of_collections = _names(connection, named.where(collected.c.number.in_(numbers)))
    ours = [columns.number for columns in found if columns.tool == OURS]
    recovered = _recovered(connection, ours) if ours else set()
    seen = contents(connection, numbers)
    return tuple(
        Row.from_values(
            columns, of_tags.get(columns[0], ()), of_collections.get(columns[0], ()), columns[0] in recovered,
            seen.get(columns[0]),
        )
        for columns in found
    )  # fmt: skip


def _recovered(connection: Connection, numbers: list[int]) -> set[int]:
    """Which of our own pictures had a fault that a fallback recovered. Recipes are stored without spaces, and a quote
    within one of their texts has a backslash before it, so only ``FallbackAttempt.to_dict`` writes what is looked for."""
    c = recipes.c
    statement = select(c.number).where(c.number.in_(numbers), c.recipe.contains('"mended":true'))
    return set(connection.execute(statement).scalars())


def _names(connection: Connection, statement: Select[int, str]) -> dict[int, tuple[str, ...]]:
    """The sorted names of each picture, by its number."""
    names: dict[int, tuple[str, ...]] = {}
    for number, name in sorted(connection.execute(statement).all()):
        names[number] = (*names.get(number, ()), name)
    return names


def _descriptor_of(connection: Connection, picture: str) -> tuple[int, similarity.Descriptor]:
    c = pictures.c
    found = connection.execute(select(c.number, c.hash, c.colours).where(c.id == picture)).one_or_none()
    if found is None or found.colours is None:
        raise MissingFile(
            f"There is no picture {picture[:40]} to compare with, or its similarity data is missing; try "
            "`starry gallery rebuild`.",
            f"没有可供比较的图片 {picture[:40]}，或者缺少它的相似度数据；请试试 `starry gallery rebuild`。",
        )
    return found.number, similarity.Descriptor(found.hash, found.colours)


def _parse_cursor(after: str) -> int:
    if not (after.isascii() and after.isdecimal() and len(after) < 19):
        raise BadRequest(
            "That is not a position in this list; start again at its first page.",
            "列表里没有这个位置；请从第一页重新开始。",
        )
    return int(after)


def _position_after(ranked: list[int], last: int) -> int:
    """The position after number ``last``. If that picture is gone, the list ends; it never repeats any."""
    return ranked.index(last) + 1 if last in ranked else len(ranked)
