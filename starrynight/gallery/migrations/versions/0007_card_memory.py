"""The memory in use on the card of each worker."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("workers", sa.Column("card_memory", sa.BigInteger))
