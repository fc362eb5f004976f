"""What Alembic runs: the steps, on the connection and in the transaction that ``gallery/database.py`` hands over."""

from alembic import context

from starrynight.gallery.schema import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
