"""The only store: SQL behind a port (`port`, `ports/`), SQLite on one machine and PostgreSQL in production (`sql/`).

    store = await open_store("sqlite:////var/lib/foedus/coordinator.db")

SQLAlchemy is imported when a store is opened, not with this package.
"""

from controlplane.store.open import open_store
from controlplane.store.port import Store, Transaction

__all__ = ["Store", "Transaction", "open_store"]
