"""What a sense says of each picture: an object of sentences and facts, and a vector that texts can be compared with.

The gallery only stores and finds them; ``starrynight/senses`` makes them.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Text, cast, column, delete, exists, func, select
from sqlalchemy.dialects.postgresql import JSONB

from starrynight.errors import BadRequest
from starrynight.gallery.database import Database
from starrynight.gallery.schema import descriptions, pictures
from starrynight.text import excerpt

_AT_ONCE = 500  # parameters of a statement
FACTS = (
    "hour",
    "weather",
    "kind",
    "thing",
)  # that pictures are filtered by; the style is a column of its own


@dataclass(frozen=True)
class Seen:
    """``by``: what saw the picture. ``content``: see ``senses/describe.py``. ``vector``: float [D], and ``vector_by``, the model
    that made it; both None where there is none.
    """

    by: str
    content: dict[str, Any]
    vector: np.ndarray | None = None
    vector_by: str | None = None


class Descriptions:
    """Reads and writes what was seen in the pictures of one database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def write(self, picture: str, seen: Seen) -> bool:
        """Store what was seen in the picture with this id, in place of what was; False if it hangs no longer."""
        vector = None if seen.vector is None else np.asarray(seen.vector, "<f2").tobytes()
        values = {
            "by": seen.by, "content": json.dumps(seen.content, ensure_ascii=False, allow_nan=False), "vector_by": seen.vector_by,
            "vector": vector,
        }  # fmt: skip
        with self.database.writing() as connection:
            number = connection.execute(select(pictures.c.number).where(pictures.c.id == picture)).scalar()
            if number is None:
                return False
            connection.execute(delete(descriptions).where(descriptions.c.number == number))
            connection.execute(descriptions.insert().values(number=number, **values))
        return True

    def missing(self, by: str, limit: int) -> list[str]:
        """The ids of up to ``limit`` pictures outside the trash that ``by`` has not seen, the newest first."""
        seen = select(descriptions.c.number).where(descriptions.c.by == by)
        statement = select(pictures.c.id).where(
            pictures.c.trashed_at.is_(None), pictures.c.number.not_in(seen)
        )
        with self.database.reading() as connection:
            newest = statement.order_by(pictures.c.number.desc()).limit(limit)
            return list(connection.execute(newest).scalars())


def contents(connection: Connection, numbers: Iterable[int]) -> dict[int, dict[str, Any]]:
    """The objects of the pictures with these numbers, by number."""
    wanted, found = list(numbers), dict[int, dict[str, Any]]()
    c = descriptions.c
    for start in range(0, len(wanted), _AT_ONCE):
        statement = select(c.number, c.content).where(c.number.in_(wanted[start : start + _AT_ONCE]))
        found |= {number: json.loads(content) for number, content in connection.execute(statement)}
    return found


def shows(connection: Connection, fact: str) -> ColumnElement[bool]:
    """The condition that eyes saw a fact, "hour.night" or "thing.moon". Raises BadRequest for a kind that is not in ``FACTS``."""
    kind, _, value = fact.partition(".")
    if kind not in FACTS or not value:
        raise BadRequest(
            f"shows is “{excerpt(fact)}”; write a kind and a value, such as hour.night or thing.moon.",
            f"shows 是“{excerpt(fact)}”；请写类别与取值，例如 hour.night 或 thing.moon。",
            "shows",
        )
    c, mine = descriptions.c, descriptions.c.number == pictures.c.number
    if connection.dialect.name != "sqlite":
        wanted = {"facts": {"things": [value]} if kind == "thing" else {kind: value}}
        return exists().where(mine, cast(c.content, JSONB).contains(wanted))
    if kind != "thing":
        return exists().where(mine, func.json_extract(c.content, f"$.facts.{kind}") == value)
    things = func.json_each(c.content, "$.facts.things").table_valued(column("value", Text), name="thing")
    return exists().select_from(descriptions.join(things, mine)).where(things.c.value == value)


def counted(connection: Connection) -> dict[str, int]:
    """Every fact that eyes saw in pictures outside the trash, "thing.moon", with the number of its pictures, most frequent first."""
    found: Counter[str] = Counter()
    statement = select(descriptions.c.content).join(pictures).where(pictures.c.trashed_at.is_(None))
    for content in connection.execute(statement).scalars():
        facts = json.loads(content).get("facts", {})
        found.update(f"{kind}.{facts[kind]}" for kind in FACTS if facts.get(kind))
        found.update(f"thing.{name}" for name in facts.get("things", ()))
    return dict(found.most_common())


class VectorCache:
    """The vectors that one model made of all pictures, in memory; each query first reads what was written since.

    A picture that is seen anew by the same model gets the same vector, so an entry stays valid. What was deleted stays here and
    is left out of results by the numbers that match in the database.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by = ""
        self._numbers, self._vectors = np.empty(0, np.int64), np.empty((0, 0), np.float32)

    def cosines(self, connection: Connection, vector: np.ndarray, by: str) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of all pictures with a vector of the model ``by``, int64 [N], and their cosines with ``vector``, float32
        [N].
        """
        with self._lock:
            if by != self._by:
                self._by, self._numbers = by, np.empty(0, np.int64)
                self._vectors = np.empty((0, len(vector)), np.float32)
            self._read_new(connection)
            numbers, vectors = self._numbers, self._vectors
        return numbers, vectors @ vector.astype(np.float32)

    def _read_new(self, connection: Connection) -> None:
        """Read the vectors of pictures that are not here yet. A picture may be seen long after it was added, so the numbers in
        the database are compared, not only the last one.
        """
        c = descriptions.c
        all_numbers = set(connection.execute(select(c.number).where(c.vector_by == self._by)).scalars())
        new = sorted(all_numbers - set(self._numbers.tolist()))
        for start in range(0, len(new), _AT_ONCE):
            statement = select(c.number, c.vector).where(c.number.in_(new[start : start + _AT_ONCE]))
            rows = connection.execute(statement.order_by(c.number)).all()
            read = [np.frombuffer(packed, "<f2").astype(np.float32) for _, packed in rows]
            self._numbers = np.concatenate(
                [self._numbers, np.array([number for number, _ in rows], np.int64)]
            )
            self._vectors = np.concatenate([self._vectors, np.stack(read)])
