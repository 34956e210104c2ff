"""Alembic migrations of the store, run by `controlplane.store.sql.schema` when a store is opened."""
