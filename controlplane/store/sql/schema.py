"""Brings a database's tables up to this version, under the writer's lock, in one transaction.

Alembic is loaded only where there is something to do: it would cost a third of a coordinator's start.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from treaty.errors import PreconditionFailed

HEAD = "0002"
"""The newest migration. A test compares it with the folder."""

MIGRATIONS = Path(__file__).parent.parent / "migrations"


def migrate(connection: Connection) -> None:
    """Idempotent. Raises PreconditionFailed: the database belongs to a later version of this program."""
    found = _revision(connection)
    if found == HEAD:
        return
    if found is not None and not any(MIGRATIONS.glob(f"versions/{found}_*.py")):
        raise PreconditionFailed(
            "the database belongs to a later version of this program",
            remedy="install that version, or restore a backup",
        )
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return None if found is None else str(found)
