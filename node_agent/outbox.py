"""What must reach the coordinator although streams come and go: submissions, results, refusals of rounds.

A message is written here before it is first sent and sent again on every new stream until the coordinator confirms it
(`Recorded`), refuses it, or the run that it belongs to has moved on. Each is idempotent for the coordinator: by the
digest of its statement, or by its run and round.
"""

from __future__ import annotations

from dataclasses import dataclass
from sqlite3 import Connection
from typing import Final

from node_agent.database import Database
from treaty.errors import ResourceExhausted
from treaty.names import Digest
from treaty.wire.v1 import session_pb2

MAX_WAITING: Final = 10_000
MAX_CONFIRMED: Final = 2_000
ROUNDS: Final = "round/"
"""Subjects of what need not be said once a run has moved on begin with this."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """`digest` is what `Recorded` will name; for a refusal of a round it only tells it apart."""

    digest: Digest
    subject: str
    message: session_pb2.AgentMessage


@dataclass(frozen=True, slots=True)
class Confirmed:
    log_index: int
    refusal: str
    """The coordinator's code; empty: it is in the log at `log_index`."""


class Outbox:
    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, digest: Digest, subject: str, message: session_pb2.AgentMessage) -> None:
        """Keep `message` until it is confirmed. Idempotent by digest; what was refused before is sent once more.

        Where too many wait, what was said longest ago about a round goes: its run has hardly waited for it.
        Raises: ResourceExhausted: too many statements wait already.
        """
        with self._database.writing() as connection:
            _make_room(connection)
            connection.execute(
                "INSERT INTO outbox (digest, subject, message, log_index, refusal) VALUES (?, ?, ?, NULL, '')"
                " ON CONFLICT (digest) DO UPDATE SET message = excluded.message, refusal = ''",
                (digest, subject, message.SerializeToString()),
            )

    def waiting(self) -> list[Waiting]:
        """What is not confirmed, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT digest, subject, message FROM outbox WHERE log_index IS NULL AND refusal = '' ORDER BY position"
            ).fetchall()
        return [Waiting(Digest(row[0]), row[1], session_pb2.AgentMessage.FromString(row[2])) for row in rows]

    def confirm(self, digest: Digest, log_index: int, refusal: str) -> None:
        """The coordinator's word on one statement. Unknown digests are ignored: it may say it twice."""
        with self._database.writing() as connection:
            connection.execute(
                "UPDATE outbox SET log_index = ?, refusal = ? WHERE digest = ?",
                (None if refusal else log_index, refusal, digest),
            )
            connection.execute(
                "DELETE FROM outbox WHERE (log_index IS NOT NULL OR refusal <> '') AND position NOT IN"
                " (SELECT position FROM outbox ORDER BY position DESC LIMIT ?)",
                (MAX_CONFIRMED,),
            )

    def confirmed(self, digest: Digest) -> Confirmed | None:
        with self._database.reading() as connection:
            row = connection.execute("SELECT log_index, refusal FROM outbox WHERE digest = ?", (digest,)).fetchone()
        if row is None or (row[0] is None and not row[1]):
            return None
        return Confirmed(row[0] if row[0] is not None else -1, row[1])

    def submission(self, digest: Digest) -> bytes | None:
        """The envelope that was handed in under this statement's digest; None where none was."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT message FROM outbox WHERE digest = ?", (digest,)).fetchone()
        return (session_pb2.AgentMessage.FromString(row[0]).submission.envelope or None) if row else None

    def drop(self, subject: str) -> None:
        """Forget what waits for `subject`: it has moved on and would not be listened to."""
        with self._database.writing() as connection:
            connection.execute(
                "DELETE FROM outbox WHERE subject = ? AND log_index IS NULL AND refusal = ''", (subject,)
            )


def _make_room(connection: Connection) -> None:
    (waiting,) = connection.execute("SELECT count(*) FROM outbox WHERE log_index IS NULL AND refusal = ''").fetchone()
    if waiting < MAX_WAITING:
        return
    evicted = connection.execute(
        "DELETE FROM outbox WHERE position = (SELECT min(position) FROM outbox"
        " WHERE log_index IS NULL AND refusal = '' AND subject LIKE ?)",
        (f"{ROUNDS}%",),
    ).rowcount
    if not evicted:
        raise ResourceExhausted(f"{waiting} statements wait for the coordinator", remedy="reconnect first")
