"""Alembic's entry point. It runs the steps in the transaction that ``gallery/database.py`` has begun."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
