"""What is seen in a picture: sentences and facts as JSON, and its vector in the space of texts, by the sense that saw it."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "descriptions",
        sa.Column("number", NUMBER, sa.ForeignKey("pictures.number", ondelete="CASCADE"), primary_key=True),
        sa.Column("by", sa.String(200), nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("vector_by", sa.String(64)),
        sa.Column("vector", sa.LargeBinary),
    )
