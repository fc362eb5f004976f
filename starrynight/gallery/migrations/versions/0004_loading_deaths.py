"""Workers that died while they loaded a job's model are counted apart from those that died while painting it."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("loading_deaths", sa.Integer, nullable=False, server_default="0"))
