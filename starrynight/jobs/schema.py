"""The queue's tables: jobs, the outcome of each of their pictures, their newest previews, the workers, what these have
counted, and the bearer keys of those who submit.

They are stored in the gallery's database, so that one transaction records a picture and its place in a job.
The gallery's migrations create them (from step 0003 on). Times are milliseconds since 1970, UTC.
"""

from __future__ import annotations

import time

import sqlalchemy as sa

from starrynight.gallery.schema import NUMBER, metadata

LEASE_MS = 20_000  # a worker that has not renewed for this long counts as dead; it renews every quarter of it

jobs = sa.Table(
    "jobs", metadata,
    sa.Column("number", NUMBER, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(16), nullable=False),
    sa.Column("request", sa.Text, nullable=False),  # PaintRequest.canonical()
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("work", sa.Float, nullable=False),  # of one picture: steps × millions of pixels
    sa.Column("state", sa.String(12), nullable=False),
    sa.Column("place", sa.BigInteger, nullable=False),  # waiting jobs are painted in ascending order of place
    sa.Column("revision", sa.BigInteger, nullable=False, default=0),  # incremented by every change
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("deaths", sa.Integer, nullable=False, default=0),
    sa.Column("loading_deaths", sa.Integer, nullable=False, default=0, server_default="0"),
    sa.Column("worker", sa.String(32)),
    sa.Column("cancelling", sa.Boolean, nullable=False, default=False),
    sa.Column("picture", sa.Integer),
    sa.Column("step", sa.Integer),
    sa.Column("steps", sa.Integer),
    sa.Column("pace", sa.Float),  # measured seconds per unit of work
    sa.Column("submitted_at", sa.BigInteger, nullable=False),
    sa.Column("started_at", sa.BigInteger),
    sa.Column("ended_at", sa.BigInteger),
    sa.Column("error", sa.Text),
    sa.Column("key", sa.String(8)),  # the bearer key that submitted it; none on an open server
    sa.UniqueConstraint("id"),
    sa.Index("jobs_by_state", "state", "place"),
    sqlite_autoincrement=True,
)  # fmt: skip


def _job() -> sa.Column[int]:
    return sa.Column("number", NUMBER, sa.ForeignKey("jobs.number", ondelete="CASCADE"), primary_key=True)


painted = sa.Table(
    "painted", metadata,
    _job(),
    sa.Column("nth", sa.Integer, primary_key=True),
    sa.Column("picture", sa.String(32)),  # no foreign key: the entry outlives a picture that is deleted
    sa.Column("error", sa.Text),  # JSON, of a refused picture
)  # fmt: skip

previews = sa.Table(
    "looks", metadata,
    _job(),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("image", sa.LargeBinary, nullable=False),  # WebP; only the newest preview, removed when the job ends
)  # fmt: skip

workers = sa.Table(
    "workers", metadata,
    sa.Column("device", sa.String(200), primary_key=True),  # machine and device; one worker for each
    sa.Column("worker", sa.String(32), nullable=False),
    sa.Column("until", sa.BigInteger, nullable=False),  # when the lease ends, by ``clock_ms``
    sa.Column("memory", sa.BigInteger),  # bytes resident when the lease was renewed last
    sa.Column("card_memory", sa.BigInteger),  # bytes in use on its card then, by any program; null on a CPU
)  # fmt: skip

keys = sa.Table(
    "keys", metadata,
    sa.Column("id", sa.String(8), primary_key=True),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),  # SHA-256 of the secret, which is stored nowhere
    sa.Column("rate", sa.Integer),  # requests a minute; null is no limit
    sa.Column("queue", sa.Integer),  # jobs that wait or are painted at once; null is no limit
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("revoked_at", sa.BigInteger),
)  # fmt: skip

tallies = sa.Table(
    "tallies", metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("labels", sa.Text, primary_key=True),  # a JSON object with sorted keys
    sa.Column("value", sa.Float, nullable=False),  # only ever added to
)  # fmt: skip


def clock_ms(connection: sa.Connection) -> int:
    """Milliseconds on a clock that all workers share and that nobody sets.

    SQLite's workers are on one machine: its time since it started, which goes on when the date is changed. Workers
    of a Postgres database ask its server.
    """
    if connection.dialect.name == "sqlite":
        return int(time.monotonic() * 1000)
    return connection.execute(
        sa.text("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
    ).scalar_one()


def lease_runs(now: int) -> sa.ColumnElement[bool]:
    """Whether a lease runs at ``now``. One that ends later than a lease lasts was given on another clock: before
    the machine started anew, or on another machine."""
    return workers.c.until.between(now + 1, now + LEASE_MS)
