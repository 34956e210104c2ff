"""What the coordinator said it recorded and has not shown yet: index and leaf's hash of each, and how long it waits.

Rules:
1. written before the coordinator's word is taken as an answer, so that none is taken on its word alone;
2. the first word on a statement holds until it is proved: another index for it does not replace it;
3. a proved one goes, for every later checkpoint that is believed extends the one it was proved in; one that failed
   stays with its reason until a person has looked.

What a proof is, and when to ask for it, is `node_agent.inclusion`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from node_agent.database import Database
from treaty.names import Digest

MAX_OWED: Final = 10_000
"""As many as an agent hands in within a day; no honest coordinator owes as many at once."""


@dataclass(frozen=True, slots=True)
class Owed:
    digest: Digest
    log_index: int
    leaf_hash: bytes
    """32 bytes."""
    waits: int
    """How often it was looked at on a stream, covered by the believed checkpoint, and was not proved."""
    growths: int
    """How often that checkpoint had grown since the last look and still did not cover it."""


class OwedProofs:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, digest: Digest, log_index: int, leaf_hash: bytes) -> None:
        """Keep the coordinator's word; on disk when this returns. Idempotent (rule 2). Nothing beyond the bound."""
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO owed SELECT ?, ?, ?, 0, 0, '' WHERE (SELECT count(*) FROM owed) < ?"
                " ON CONFLICT (digest) DO NOTHING",
                (digest, log_index, leaf_hash, MAX_OWED),
            )

    def open(self) -> list[Owed]:
        """What is neither proved nor failed, the oldest index first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT digest, log_index, leaf_hash, waits, growths FROM owed WHERE failure = '' ORDER BY log_index"
            ).fetchall()
        return [Owed(Digest(row[0]), *row[1:]) for row in rows]

    def waited(self, log_size: int, *, has_grown: bool) -> None:
        """Everything open was looked at once more, under a believed checkpoint of `log_size`."""
        with self._database.writing(durable=False) as connection:
            connection.execute(
                "UPDATE owed SET waits = waits + (log_index < ?1), growths = growths + (log_index >= ?1 AND ?2)"
                " WHERE failure = ''",
                (log_size, has_grown),
            )

    def settle(self, digest: Digest) -> None:
        """It is proved."""
        with self._database.writing() as connection:
            connection.execute("DELETE FROM owed WHERE digest = ?", (digest,))

    def fail(self, digest: Digest, why: str) -> None:
        with self._database.writing() as connection:
            connection.execute("UPDATE owed SET failure = ? WHERE digest = ?", (why, digest))

    def forget_failed(self) -> None:
        """A person has looked."""
        with self._database.writing() as connection:
            connection.execute("DELETE FROM owed WHERE failure <> ''")
