"""Pictures, their recipes and annotations (stars, notes, tags, collections), and the full-text index."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
INDEXED = ("style", "model", "precision", "verdict", "tool", "starred", "made_at")
HANGING, THROWN = sa.text("trashed_at IS NULL"), sa.text("trashed_at IS NOT NULL")

# FTS5 indexes a column of another table ("external content"), and triggers keep the index up to date:
# https://sqlite.org/fts5.html#external_content_tables
# The tokenizer `ascii` treats every non-ASCII character as a letter, because tokens.py has already split the text.
FTS5 = (
    "CREATE VIRTUAL TABLE concordance USING fts5(words, content='recipes', content_rowid='number', tokenize='ascii', prefix='1 2')",
    "CREATE TRIGGER concordance_come AFTER INSERT ON recipes BEGIN"
    " INSERT INTO concordance(rowid, words) VALUES (new.number, new.words); END",
    "CREATE TRIGGER concordance_go AFTER DELETE ON recipes BEGIN"
    " INSERT INTO concordance(concordance, rowid, words) VALUES ('delete', old.number, old.words); END",
    "CREATE TRIGGER concordance_change AFTER UPDATE OF words ON recipes BEGIN"
    " INSERT INTO concordance(concordance, rowid, words) VALUES ('delete', old.number, old.words);"
    " INSERT INTO concordance(rowid, words) VALUES (new.number, new.words); END",
)
GIN = "CREATE INDEX recipes_by_words ON recipes USING gin (array_to_tsvector(string_to_array(words, ' ')))"


def picture(primary_key: bool = False) -> sa.Column[int]:
    return sa.Column(
        "number", NUMBER, sa.ForeignKey("pictures.number", ondelete="CASCADE"), primary_key=primary_key
    )


def upgrade() -> None:
    make_pictures()
    op.create_table(
        "recipes", picture(primary_key=True),
        sa.Column("recipe", sa.Text, nullable=False), sa.Column("words", sa.Text, nullable=False),
    )  # fmt: skip
    op.create_table("tags", picture(primary_key=True), sa.Column("name", sa.String(64), primary_key=True))
    op.create_index("tags_by_name", "tags", ["name"])
    op.create_table(
        "collections",
        sa.Column("collection", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("name", sa.String(100), nullable=False, unique=True),
    )
    collection = sa.ForeignKey("collections.collection", ondelete="CASCADE")
    op.create_table(
        "collected", sa.Column("collection", NUMBER, collection, primary_key=True), picture(primary_key=True)
    )
    op.create_index("collected_by_number", "collected", ["number"])
    for statement in FTS5 if op.get_bind().dialect.name == "sqlite" else (GIN,):
        op.execute(statement)


def make_pictures() -> None:
    op.create_table(
        "pictures",
        sa.Column("number", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(32), nullable=False, unique=True),
        sa.Column("format", sa.String(8), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("made_at", sa.BigInteger, nullable=False),
        sa.Column("hung_at", sa.BigInteger, nullable=False),
        sa.Column("tool", sa.Text, nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("negative_prompt", sa.Text, nullable=False),
        sa.Column("style", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("precision", sa.Text),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("seed", sa.String(20)),
        sa.Column("steps", sa.BigInteger),
        sa.Column("guidance", sa.Float),
        sa.Column("sampler", sa.Text),
        sa.Column("starred", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("note", sa.Text, nullable=False, server_default=""),
        sa.Column("trashed_at", sa.BigInteger),
        sqlite_autoincrement=True,
    )
    for name in INDEXED:
        op.create_index(
            f"pictures_by_{name}", "pictures", [name], sqlite_where=HANGING, postgresql_where=HANGING
        )
    op.create_index(
        "pictures_thrown", "pictures", ["trashed_at"], sqlite_where=THROWN, postgresql_where=THROWN
    )
