"""Alembic's environment: runs migrations on the connection, and in the transaction, that the store hands it."""

from alembic import context

connection = context.config.attributes["connection"]
# One transaction for all: a crash in the middle leaves the old tables.
context.configure(connection=connection, transactional_ddl=True, render_as_batch=connection.dialect.name == "sqlite")
context.run_migrations()
