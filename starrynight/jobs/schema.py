"""The queue's tables: jobs, the outcome of each of their pictures, the newest preview of each, and the workers.

They are stored in the gallery's database, so that one transaction records a picture and its place in a job. The
gallery's migrations create them (step 0003). Times are milliseconds since 1970, UTC.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from starrynight.gallery.schema import NUMBER, metadata

jobs = Table(
    "jobs", metadata,
    Column("number", NUMBER, primary_key=True, autoincrement=True),
    Column("id", String(16), nullable=False),
    Column("request", Text, nullable=False),  # PaintRequest.canonical()
    Column("model", Text, nullable=False),
    Column("count", Integer, nullable=False),
    Column("work", Float, nullable=False),  # of one picture: steps × millions of pixels
    Column("state", String(12), nullable=False),
    Column("place", BigInteger, nullable=False),  # waiting jobs are painted in ascending order of place
    Column("revision", BigInteger, nullable=False, default=0),  # incremented by every change
    Column("attempts", Integer, nullable=False, default=0),
    Column("deaths", Integer, nullable=False, default=0),
    Column("worker", String(32)),
    Column("cancelling", Boolean, nullable=False, default=False),
    Column("picture", Integer),
    Column("step", Integer),
    Column("steps", Integer),
    Column("pace", Float),  # measured seconds per unit of work
    Column("submitted_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("error", Text),
    UniqueConstraint("id"),
    Index("jobs_by_state", "state", "place"),
    sqlite_autoincrement=True,
)  # fmt: skip


def _job() -> Column[int]:
    return Column("number", NUMBER, ForeignKey("jobs.number", ondelete="CASCADE"), primary_key=True)


painted = Table(
    "painted", metadata,
    _job(),
    Column("nth", Integer, primary_key=True),
    Column("picture", String(32)),  # no foreign key: the entry outlives a picture that is deleted
    Column("error", Text),  # JSON, of a refused picture
)  # fmt: skip

previews = Table(
    "looks", metadata,
    _job(),
    Column("revision", BigInteger, nullable=False),
    Column("image", LargeBinary, nullable=False),  # WebP; only the newest preview, removed when the job ends
)  # fmt: skip

workers = Table(
    "workers", metadata,
    Column("device", String(200), primary_key=True),  # machine and device; one worker for each
    Column("worker", String(32), nullable=False),
    Column("until", BigInteger, nullable=False),  # when the lease ends
)  # fmt: skip
