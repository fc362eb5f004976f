"""The queue: jobs, the outcome of each of their pictures, their newest previews, and the workers' leases."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def job(primary_key: bool = True) -> sa.Column[int]:
    return sa.Column(
        "number", NUMBER, sa.ForeignKey("jobs.number", ondelete="CASCADE"), primary_key=primary_key
    )


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("number", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(16), nullable=False, unique=True),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("work", sa.Float, nullable=False),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("place", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("deaths", sa.Integer, nullable=False, server_default="0"),
        sa.Column("worker", sa.String(32)),
        sa.Column("cancelling", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("picture", sa.Integer),
        sa.Column("step", sa.Integer),
        sa.Column("steps", sa.Integer),
        sa.Column("pace", sa.Float),
        sa.Column("submitted_at", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("error", sa.Text),
        sqlite_autoincrement=True,
    )
    op.create_index("jobs_by_state", "jobs", ["state", "place"])
    op.create_table(
        "painted", job(), sa.Column("nth", sa.Integer, primary_key=True),
        sa.Column("picture", sa.String(32)), sa.Column("error", sa.Text),
    )  # fmt: skip
    op.create_table(
        "looks", job(), sa.Column("revision", sa.BigInteger, nullable=False), sa.Column("image", sa.LargeBinary, nullable=False)
    )  # fmt: skip
    op.create_table(
        "workers",
        sa.Column("device", sa.String(200), primary_key=True),
        sa.Column("worker", sa.String(32), nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
    )
