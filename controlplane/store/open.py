"""Opens a store by its URL, bringing its tables up to this version first."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from controlplane.store.port import Store


def _utc_now() -> datetime:
    return datetime.now(UTC)


async def open_store(url: str, *, clock: Callable[[], datetime] = _utc_now) -> Store:
    """The store at `url`: `sqlite:////path/to/file`, `sqlite://` (in memory) or `postgresql://user@host/name`.

    Tables are created or migrated under a lock, so several coordinators may open one database at once. The caller
    closes the store.

    Raises:
        InvalidInput: not a URL of a supported database.
        PreconditionFailed: the database belongs to a later version of this program.
        Unavailable: it cannot be reached or opened.
        Corrupt: it is not a database, or does not verify.
    """
    from controlplane.store.sql.store import SqlStore

    return await SqlStore.open(url, clock)
