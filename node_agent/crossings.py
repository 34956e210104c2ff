"""What left this nation: receipts, counts by class, and the tallies that were signed over the counts.

Rules:
1. a receipt is written, durable, before the first byte that it covers leaves; one is kept for every transfer, for ever;
2. every message that leaves is counted in its class before it leaves (surviving a kill of the process);
3. tallies are numbered from 1 without gaps and cover everything counted since the last one exactly once.

The nation's own log of receipts is a Merkle tree in the order of writing; its root is shown beside them, so that a
copy taken earlier proves that nothing was taken out since.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from node_agent.database import Database
from node_agent.ports import Clock
from treaty.log import Tree, leaf_hash
from treaty.names import Digest
from treaty.receipt import Receipt


@dataclass(frozen=True, slots=True)
class Written:
    """A receipt in the journal. `digest` is its statement's; `log_index` None until the coordinator recorded it."""

    digest: Digest
    crossing: str
    subject: Digest
    run: str
    round: int
    size_bytes: int
    envelope: bytes
    issued_at: datetime
    log_index: int | None


@dataclass(frozen=True, slots=True)
class Since:
    """What a tally covers: (messages, bytes) by class, since the end of the one before."""

    sequence: int
    since: datetime
    until: datetime
    classes: Mapping[str, tuple[int, int]]


class Crossings:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._begin()

    def _begin(self) -> None:
        """The moment from which the first tally counts."""
        with self._database.reading() as connection:
            if connection.execute("SELECT 1 FROM facts WHERE name = 'counting_since'").fetchone():
                return
        moment = self._clock.now().replace(microsecond=0).isoformat()
        with self._database.writing() as connection:
            connection.execute("INSERT INTO facts VALUES ('counting_since', ?) ON CONFLICT DO NOTHING", (moment,))

    def write_receipt(self, digest: Digest, receipt: Receipt, envelope: bytes) -> None:
        """Journal a receipt; on disk when this returns. Idempotent by the statement's digest."""
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO receipts VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL) ON CONFLICT DO NOTHING",
                (
                    digest,
                    receipt.crossing,
                    receipt.digest,
                    receipt.run,
                    receipt.round,
                    receipt.size_bytes,
                    envelope,
                    receipt.issued_at.isoformat(),
                ),
            )

    def receipts_for(self, subject: Digest, crossing: str, run: str, round_number: int) -> list[Written]:
        """The receipts already journaled for these bytes in this round, the newest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT * FROM receipts WHERE subject = ? AND crossing = ? AND run = ? AND round = ?"
                " ORDER BY rowid DESC",
                (subject, crossing, run, round_number),
            ).fetchall()
        return [_written(row) for row in rows]

    def holds_receipt(self, envelope: bytes) -> bool:
        with self._database.reading() as connection:
            row = connection.execute("SELECT 1 FROM receipts WHERE envelope = ?", (envelope,)).fetchone()
        return row is not None

    def receipts(self) -> list[Written]:
        """All, in the order in which they were written."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT * FROM receipts ORDER BY rowid").fetchall()
        return [_written(row) for row in rows]

    def recorded(self, digest: Digest, log_index: int) -> None:
        """The coordinator logged this receipt."""
        with self._database.writing() as connection:
            connection.execute("UPDATE receipts SET log_index = ? WHERE digest = ?", (log_index, digest))

    def root(self) -> tuple[int, bytes]:
        """Size and root of this nation's own log of receipts (RFC 6962, leaf = the envelope)."""
        tree = Tree(leaf_hash(written.envelope) for written in self.receipts())
        return tree.size, tree.root()

    def count(self, name: str, size: int) -> None:
        """One message of `size` bytes of class `name` is about to leave."""
        with self._database.writing(durable=False) as connection:
            connection.execute(
                "INSERT INTO counts VALUES (?, 1, ?, 0, 0) ON CONFLICT (class) DO UPDATE SET"
                " messages = messages + 1, bytes = bytes + excluded.bytes",
                (name, size),
            )

    def counts(self) -> dict[str, tuple[int, int]]:
        """(messages, bytes) by class since this journal began."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT class, messages, bytes FROM counts ORDER BY class").fetchall()
        return {row[0]: (row[1], row[2]) for row in rows}

    def tally(self, sign: Callable[[Since], bytes]) -> bytes | None:
        """Close the account of what was counted since the last tally; None where nothing was.

        `sign` runs inside the transaction: a number is used only with the envelope that carries it.
        """
        until = self._clock.now().replace(microsecond=0)
        with self._database.writing() as connection:
            rows = connection.execute(
                "SELECT class, messages - tallied_messages, bytes - tallied_bytes FROM counts"
                " WHERE messages > tallied_messages ORDER BY class"
            ).fetchall()
            if not rows:
                return None
            sequence, since = connection.execute(
                "SELECT coalesce(max(sequence), 0) + 1,"
                " coalesce(max(until), (SELECT value FROM facts WHERE name = 'counting_since')) FROM tallies"
            ).fetchone()
            envelope = sign(
                Since(sequence, datetime.fromisoformat(since), until, {row[0]: (row[1], row[2]) for row in rows})
            )
            connection.execute("INSERT INTO tallies VALUES (?, ?, ?)", (sequence, envelope, until.isoformat()))
            connection.execute("UPDATE counts SET tallied_messages = messages, tallied_bytes = bytes")
        return envelope

    def tallies(self) -> list[bytes]:
        with self._database.reading() as connection:
            return [row[0] for row in connection.execute("SELECT envelope FROM tallies ORDER BY sequence")]


def _written(row: tuple[str, str, str, str, int, int, bytes, str, int | None]) -> Written:
    digest, crossing, subject, run, round_number, size, envelope, issued_at, log_index = row
    issued = datetime.fromisoformat(issued_at)
    return Written(Digest(digest), crossing, Digest(subject), run, round_number, size, envelope, issued, log_index)
