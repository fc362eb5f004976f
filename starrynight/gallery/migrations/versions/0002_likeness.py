"""Descriptors for search by similarity and colour, and tombstones, which keep deleted pictures deleted.

Pictures added before this step have no descriptor until the gallery is rebuilt.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("pictures") as pictures:
        pictures.add_column(sa.Column("hash", sa.BigInteger))
        pictures.add_column(sa.Column("colours", sa.LargeBinary))
    op.create_table(
        "tombstones",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("format", sa.String(8), nullable=False),
    )
