"""The gallery's tables, which ``migrations/`` creates, and ``Row``, one picture as read from them.

``pictures`` has short columns only, because a page of the gallery reads many of its rows; the long texts are
in ``recipes``. ``number`` is the order in which pictures were added and is never reused; ``id`` is derived
from the file's bytes, so it survives the loss of the database. Times are milliseconds since 1970, UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from starrynight.metadata import OURS

NUMBER = BigInteger().with_variant(Integer, "sqlite")  # SQLite assigns row numbers only in an INTEGER column

# These indexes are partial: they hold only pictures outside the trash, so counting and grouping read no table row.
INDEXED = ("style", "model", "precision", "verdict", "tool", "starred", "made_at")
OUTSIDE_TRASH, IN_TRASH = "trashed_at IS NULL", "trashed_at IS NOT NULL"

metadata = MetaData()


def _only(condition: str) -> dict[str, Any]:
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


def _picture(primary_key: bool = False) -> Column[int]:
    return Column(
        "number", NUMBER, ForeignKey("pictures.number", ondelete="CASCADE"), primary_key=primary_key
    )


pictures = Table(
    "pictures", metadata,
    Column("number", NUMBER, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("format", String(8), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("made_at", BigInteger, nullable=False),
    Column("hung_at", BigInteger, nullable=False),
    Column("tool", Text, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("negative_prompt", Text, nullable=False),
    Column("style", Text),
    Column("model", Text),
    Column("precision", Text),
    Column("verdict", String(16), nullable=False),
    Column("seed", String(20)),  # text: other tools use unsigned 64-bit seeds, too large for a signed integer
    Column("steps", BigInteger),
    Column("guidance", Float),
    Column("sampler", Text),
    Column("starred", Boolean, nullable=False, default=False),
    Column("note", Text, nullable=False, default=""),
    Column("trashed_at", BigInteger),
    Column("hash", BigInteger),
    Column("colours", LargeBinary),
    *(Index(f"pictures_by_{name}", name, **_only(OUTSIDE_TRASH)) for name in INDEXED),
    Index("pictures_thrown", "trashed_at", **_only(IN_TRASH)),
    sqlite_autoincrement=True,
)  # fmt: skip

recipes = Table(
    "recipes", metadata,
    _picture(primary_key=True),
    Column("recipe", Text, nullable=False),  # JSON, as stored in the file
    Column("words", Text, nullable=False),  # search tokens; see tokens.py
)  # fmt: skip

tags = Table(
    "tags", metadata,
    _picture(primary_key=True),
    Column("name", String(64), primary_key=True),
    Index("tags_by_name", "name"),
)  # fmt: skip

collections = Table(
    "collections", metadata,
    Column("collection", NUMBER, primary_key=True, autoincrement=True),
    Column("name", String(100), nullable=False),
    UniqueConstraint("name"),
)  # fmt: skip

collected = Table(
    "collected", metadata,
    Column("collection", NUMBER, ForeignKey("collections.collection", ondelete="CASCADE"), primary_key=True),
    _picture(primary_key=True),
    Index("collected_by_number", "number"),
)  # fmt: skip

descriptions = Table(
    "descriptions", metadata,
    _picture(primary_key=True),
    Column("by", String(200), nullable=False),  # what saw the picture
    Column("content", Text, nullable=False),  # JSON; see senses/describe.py
    Column("vector_by", String(64)),  # the model whose vectors can be compared with this one
    Column("vector", LargeBinary),  # float16
)  # fmt: skip

tombstones = Table(
    "tombstones", metadata,
    Column("id", String(32), primary_key=True),  # of a deleted picture whose file may still exist; see trash.py
    Column("format", String(8), nullable=False),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """One picture. ``number``: order of adding. ``id``: 32 hex digits of the file's hash. ``size``: bytes.

    ``mark``: what a visitor should know of its numbers: "refuse", "uniform", "unchecked" (painted here and not checked in
    full) or "recovered" (a fallback of the guard made them finite). None: nothing, or another tool painted it.

    ``seen``: what a sense says of the picture, the object of ``senses.describe``; None until one has looked at it.

    ``made_at`` is the file's date for imported pictures, otherwise the time of adding, ``hung_at``. ``None``
    means that the file does not contain the value.
    """

    number: int
    id: str
    format: str
    size: int
    width: int
    height: int
    made_at: datetime
    hung_at: datetime
    tool: str
    prompt: str
    negative_prompt: str
    style: str | None
    model: str | None
    precision: str | None
    verdict: str
    seed: int | None
    steps: int | None
    guidance: float | None
    sampler: str | None
    starred: bool
    note: str
    trashed_at: datetime | None
    tags: tuple[str, ...] = ()
    collections: tuple[str, ...] = ()
    mark: str | None = None
    seen: dict[str, Any] | None = field(default=None, hash=False)

    @classmethod
    def columns(cls) -> list[str]:
        """The fields that are columns of ``pictures``, in order; ``number`` is the first."""
        return [one.name for one in fields(cls) if one.name not in ("tags", "collections", "mark", "seen")]

    @classmethod
    def from_values(
        cls,
        values: Sequence[Any],
        tags: tuple[str, ...],
        collections: tuple[str, ...],
        recovered: bool = False,
        seen: dict[str, Any] | None = None,
    ) -> Row:
        """``values`` are in the order of ``columns``."""
        found = dict(zip(cls.columns(), values, strict=True))
        for name in ("made_at", "hung_at", "trashed_at"):
            found[name] = None if found[name] is None else from_milliseconds(found[name])
        found["seed"] = None if found["seed"] is None else int(found["seed"])
        mark = "recovered" if recovered and found["verdict"] == "hang" else None
        if found["verdict"] in ("refuse", "uniform") or (
            found["verdict"] != "hang" and found["tool"] == OURS
        ):
            mark = found["verdict"]
        return cls(**found, tags=tags, collections=collections, mark=mark, seen=seen)


def from_milliseconds(milliseconds: int) -> datetime:
    """The UTC time of a stored number of milliseconds since 1970."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def to_milliseconds(when: datetime) -> int:
    """Milliseconds since 1970; a time without a zone is read as UTC."""
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)
