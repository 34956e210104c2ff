"""The first tables: resources, directives, outbox, rounds, trust, artifacts.

A migration is frozen once it is released: it says what the tables were, `controlplane.store.sql.tables` what they are.
"""

import time

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _text(name: str, *, nullable: bool = False, server_default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, _TEXT, nullable=nullable, server_default=server_default)


def _number(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), autoincrement=False, nullable=nullable)


def _bytes(name: str, *, nullable: bool = False) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary(), nullable=nullable)


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), nullable=False)


def upgrade() -> None:
    _create_tables()
    counters = sa.table("counters", sa.column("name"), sa.column("value"))
    op.bulk_insert(counters, [{"name": name, "value": 0} for name in ("resource_version", "compacted")])
    epochs = sa.table("epochs", sa.column("number"), sa.column("started_at"), sa.column("reason"))
    op.bulk_insert(epochs, [{"number": 1, "started_at": time.time_ns() // 1000, "reason": "first start"}])


def _create_tables() -> None:
    op.create_table(
        "agent_checkpoints",
        _text("agent"),
        _number("size"),
        _text("root"),
        _bytes("note"),
        _number("seen_at"),
        sa.PrimaryKeyConstraint("agent", name="pk_agent_checkpoints"),
    )
    op.create_table(
        "agent_numbers",
        _text("agent"),
        _number("epoch"),
        _number("counter"),
        sa.PrimaryKeyConstraint("agent", name="pk_agent_numbers"),
    )
    op.create_table(
        "charters",
        _number("version"),
        _text("digest"),
        _bytes("envelope"),
        _number("added_at"),
        sa.PrimaryKeyConstraint("version", name="pk_charters"),
    )
    op.create_table("counters", _text("name"), _number("value"), sa.PrimaryKeyConstraint("name", name="pk_counters"))
    op.create_table(
        "directives",
        _text("agent"),
        _number("epoch"),
        _number("counter"),
        _text("subject"),
        _bytes("payload"),
        _text("state"),
        _flag("is_superseded"),
        _text("reason", server_default=""),
        _number("created_at"),
        _number("answered_at", nullable=True),
        sa.PrimaryKeyConstraint("agent", "epoch", "counter", name="pk_directives"),
    )
    op.create_index(
        "ix_directives_agent_subject_is_superseded", "directives", ["agent", "subject", "is_superseded"], unique=False
    )
    op.create_table(
        "epochs",
        _number("number"),
        _number("started_at"),
        _text("reason"),
        _text("halted_because", server_default=""),
        sa.PrimaryKeyConstraint("number", name="pk_epochs"),
    )
    op.create_table(
        "manifests",
        _text("digest"),
        _bytes("manifest"),
        _text("owner"),
        _flag("is_ready"),
        _number("created_at"),
        sa.PrimaryKeyConstraint("digest", name="pk_manifests"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        _text("topic"),
        _text("key"),
        _bytes("payload"),
        _number("attempts"),
        _number("created_at"),
        _number("held_until"),
        _flag("is_done"),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
    )
    op.create_index("ix_outbox_topic_is_done_id", "outbox", ["topic", "is_done", "id"], unique=False)
    op.create_index("uq_outbox_topic_key", "outbox", ["topic", "key"], unique=True)
    op.create_table(
        "policy_bundles",
        _text("authority"),
        _number("revision"),
        _text("digest"),
        _bytes("bundle"),
        _bytes("envelope"),
        _number("added_at"),
        sa.PrimaryKeyConstraint("authority", "revision", name="pk_policy_bundles"),
    )
    op.create_table(
        "resource_events",
        _number("resource_version"),
        _text("kind"),
        _text("type"),
        _bytes("document"),
        sa.PrimaryKeyConstraint("resource_version", name="pk_resource_events"),
    )
    op.create_table(
        "resources",
        _text("kind"),
        _text("namespace"),
        _text("name"),
        _text("uid"),
        _number("resource_version"),
        _bytes("document"),
        sa.PrimaryKeyConstraint("kind", "namespace", "name", name="pk_resources"),
    )
    op.create_table(
        "revocations",
        _text("kind"),
        _text("subject"),
        _text("reason"),
        _text("revoked_by"),
        _number("revoked_at"),
        sa.PrimaryKeyConstraint("kind", "subject", name="pk_revocations"),
    )
    op.create_table(
        "rounds",
        _text("run"),
        _number("round"),
        _text("state"),
        _text("plan_digest"),
        _number("deadline_at"),
        _text("arrays_digest", nullable=True),
        _text("aggregate_digest", nullable=True),
        _text("result_digest", nullable=True),
        _bytes("strategy_state", nullable=True),
        _text("reason", server_default=""),
        _number("started_at"),
        _number("finished_at", nullable=True),
        sa.PrimaryKeyConstraint("run", "round", name="pk_rounds"),
    )
    op.create_table(
        "contributions",
        _text("run"),
        _number("round"),
        _text("nation"),
        _text("agent"),
        _text("state"),
        _text("update_digest", nullable=True),
        _text("spool_path", nullable=True),
        _number("examples"),
        _number("bytes"),
        _text("receipt_digest", nullable=True),
        _bytes("metrics"),
        _bytes("codes"),
        sa.ForeignKeyConstraint(
            ["run", "round"], ["rounds.run", "rounds.round"], name="fk_contributions_rounds", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run", "round", "nation", name="pk_contributions"),
    )
    op.create_table(
        "grants",
        _text("agent"),
        _text("subject"),
        _text("manifest"),
        sa.ForeignKeyConstraint(["manifest"], ["manifests.digest"], name="fk_grants_manifests", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("agent", "subject", "manifest", name="pk_grants"),
    )
    op.create_table(
        "manifest_chunks",
        _text("manifest"),
        _text("chunk"),
        _number("bytes"),
        sa.ForeignKeyConstraint(
            ["manifest"], ["manifests.digest"], name="fk_manifest_chunks_manifests", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("manifest", "chunk", name="pk_manifest_chunks"),
    )
    op.create_index("ix_manifest_chunks_chunk", "manifest_chunks", ["chunk"], unique=False)
    op.create_table(
        "manifest_signatures",
        _text("manifest"),
        _text("key_id"),
        _bytes("envelope"),
        sa.ForeignKeyConstraint(
            ["manifest"], ["manifests.digest"], name="fk_manifest_signatures_manifests", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("manifest", "key_id", name="pk_manifest_signatures"),
    )
    op.create_table(
        "resource_labels",
        _text("kind"),
        _text("namespace"),
        _text("name"),
        _text("key"),
        _text("value"),
        sa.ForeignKeyConstraint(
            ["kind", "namespace", "name"],
            ["resources.kind", "resources.namespace", "resources.name"],
            name="fk_resource_labels_resources",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("kind", "namespace", "name", "key", name="pk_resource_labels"),
    )
