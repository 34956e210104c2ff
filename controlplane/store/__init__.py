"""The only store: SQL behind a port (`port`, `ports/`), SQLite on one machine and PostgreSQL in production (`sql/`).

    store = await open_store("sqlite:////var/lib/foedus/coordinator.db")

`open_store` is in `controlplane.store.open`: SQLAlchemy is imported when it is called, not with this package.
"""
