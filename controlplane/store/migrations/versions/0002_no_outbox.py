"""Drop what nothing writes: the outbox and the agents' checkpoints.

Neither was ever filled: no message can be lost. Why no outbox is needed is in docs/adr/0007.
"""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.drop_table("outbox")
    op.drop_table("agent_checkpoints")
