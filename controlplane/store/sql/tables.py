"""What is kept, table by table. The migrations create it; a test holds the two together.

Timestamps are microseconds since the epoch and numbers are 64-bit, so both databases order and compare them alike.
Nothing is kept as the database's own JSON type: bytes are canonical JSON, written and read by the codec alone.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
    }
)

# Compared byte by byte, as SQLite does, whatever language the database server speaks.
_Text = Text().with_variant(Text(collation="C"), "postgresql")


def _text(name: str, *, default: bool = False) -> Column[str]:
    return Column(name, _Text, nullable=False, server_default="" if default else None)


def _number(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _key(name: str) -> Column[str]:
    return Column(name, _Text, primary_key=True)


def _number_key(name: str) -> Column[int]:
    return Column(name, BigInteger, primary_key=True, autoincrement=False)


def _bytes(name: str) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=False)


def _flag(name: str) -> Column[bool]:
    return Column(name, Boolean(create_constraint=False), nullable=False)


counters = Table("counters", metadata, _key("name"), _number("value"))
"""`resource_version`: the last one given. `compacted`: changes up to it are no longer kept."""

resources = Table(
    "resources",
    metadata,
    _key("kind"),
    _key("namespace"),
    _key("name"),
    _text("uid"),
    _number("resource_version"),
    _bytes("document"),
)
resource_labels = Table(
    "resource_labels",
    metadata,
    _key("kind"),
    _key("namespace"),
    _key("name"),
    _key("key"),
    _text("value"),
    ForeignKeyConstraint(
        ["kind", "namespace", "name"],
        ["resources.kind", "resources.namespace", "resources.name"],
        ondelete="CASCADE",
    ),
)
resource_events = Table(
    "resource_events",
    metadata,
    _number_key("resource_version"),
    _text("kind"),
    _text("type"),
    _bytes("document"),
)

epochs = Table(
    "epochs",
    metadata,
    _number_key("number"),
    _number("started_at"),
    _text("reason"),
    _text("halted_because", default=True),
)
agent_numbers = Table("agent_numbers", metadata, _key("agent"), _number("epoch"), _number("counter"))
"""The highest number reserved for an agent: outlives the directives."""

directives = Table(
    "directives",
    metadata,
    _key("agent"),
    _number_key("epoch"),
    _number_key("counter"),
    _text("subject"),
    _bytes("payload"),
    _text("state"),
    _flag("is_superseded"),
    _text("reason", default=True),
    _number("created_at"),
    Column("answered_at", BigInteger),
    Index(None, "agent", "subject", "is_superseded"),
)
rounds = Table(
    "rounds",
    metadata,
    _key("run"),
    _number_key("round"),
    _text("state"),
    _text("plan_digest"),
    _number("deadline_at"),
    Column("arrays_digest", _Text),
    Column("aggregate_digest", _Text),
    Column("result_digest", _Text),
    Column("strategy_state", LargeBinary),
    _text("reason", default=True),
    _number("started_at"),
    Column("finished_at", BigInteger),
)
contributions = Table(
    "contributions",
    metadata,
    _key("run"),
    _number_key("round"),
    _key("nation"),
    _text("agent"),
    _text("state"),
    Column("update_digest", _Text),
    Column("spool_path", _Text),
    _number("examples"),
    _number("bytes"),
    Column("receipt_digest", _Text),
    _bytes("metrics"),
    _bytes("codes"),
    ForeignKeyConstraint(["run", "round"], ["rounds.run", "rounds.round"], ondelete="CASCADE"),
)

charters = Table("charters", metadata, _number_key("version"), _text("digest"), _bytes("envelope"), _number("added_at"))
revocations = Table(
    "revocations", metadata, _key("kind"), _key("subject"), _text("reason"), _text("revoked_by"), _number("revoked_at")
)
policy_bundles = Table(
    "policy_bundles",
    metadata,
    _key("authority"),
    _number_key("revision"),
    _text("digest"),
    _bytes("bundle"),
    _bytes("envelope"),
    _number("added_at"),
)
manifests = Table(
    "manifests",
    metadata,
    _key("digest"),
    _bytes("manifest"),
    _text("owner"),
    _flag("is_ready"),
    _number("created_at"),
)
_of_manifest = ("manifests.digest",)
manifest_signatures = Table(
    "manifest_signatures",
    metadata,
    _key("manifest"),
    _key("key_id"),
    _bytes("envelope"),
    ForeignKeyConstraint(["manifest"], _of_manifest, ondelete="CASCADE"),
)
manifest_chunks = Table(
    "manifest_chunks",
    metadata,
    _key("manifest"),
    _key("chunk"),
    _number("bytes"),
    ForeignKeyConstraint(["manifest"], _of_manifest, ondelete="CASCADE"),
    Index(None, "chunk"),
)
grants = Table(
    "grants",
    metadata,
    _key("agent"),
    _key("subject"),
    _key("manifest"),
    ForeignKeyConstraint(["manifest"], _of_manifest, ondelete="CASCADE"),
)
