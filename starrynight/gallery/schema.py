"""The tables as they are now. How they became so is told in ``migrations/``, which is what makes them in a database.

``pictures`` is slim, because the wall reads many of its rows; the long texts lie in ``recipes``. ``number`` says in
which order pictures were hung and is never used twice; ``id`` comes from the file's bytes and outlives the database.
Times are milliseconds since 1970, UTC. Knows nothing of files or of how a row is found.
"""

from __future__ import annotations

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

NUMBER = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows itself only in an INTEGER column

# The wall shows what hangs, so its indexes hold that alone: counting and grouping then need no row.
INDEXED = ("style", "model", "precision", "verdict", "tool", "starred", "made_at")
HANGING, THROWN = "trashed_at IS NULL", "trashed_at IS NOT NULL"

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
    Column("seed", String(20)),  # other tools draw seeds of 64 bits, which no signed integer holds
    Column("steps", BigInteger),
    Column("guidance", Float),
    Column("sampler", Text),
    Column("starred", Boolean, nullable=False, default=False),
    Column("note", Text, nullable=False, default=""),
    Column("trashed_at", BigInteger),
    Column("hash", BigInteger),
    Column("colours", LargeBinary),
    *(Index(f"pictures_by_{name}", name, **_only(HANGING)) for name in INDEXED),
    Index("pictures_thrown", "trashed_at", **_only(THROWN)),
    sqlite_autoincrement=True,
)  # fmt: skip

recipes = Table(
    "recipes", metadata,
    _picture(primary_key=True),
    Column("recipe", Text, nullable=False),  # JSON, as the file carries it
    Column("words", Text, nullable=False),  # what the search reads; see words.py
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

tombstones = Table(
    "tombstones", metadata,
    Column("id", String(32), primary_key=True),  # of a picture thrown away for good whose file may still be there
    Column("format", String(8), nullable=False),
)  # fmt: skip
