"""Which directives did this agent accept, which are still open, and which number is the highest ever?

Rules:
1. a directive is written here, durable, before it is acknowledged;
2. the highest number never goes down, whatever is finished, left or deleted;
3. a directive is `open` until it is `done`; one that the agent left on its own (a failed gate) is `left` and is refused
   if it ever comes again;
4. the message is kept as it arrived while open, so that work goes on after a restart without asking the coordinator.
   Of what is done only number and digest stay, and of those the newest `MAX_CLOSED`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from google.protobuf.message import DecodeError

from node_agent.database import Database
from node_agent.directives import Directive, parse_directive
from node_agent.ports import Clock
from treaty.errors import Corrupt, InvalidInput
from treaty.names import Digest, DirectiveNumber
from treaty.wire.v1 import session_pb2

MAX_CLOSED: Final = 1000


class Standing(StrEnum):
    OPEN = "open"
    DONE = "done"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A directive that was acknowledged once."""

    number: DirectiveNumber
    content_digest: Digest
    standing: Standing


class Ledger:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def accept(self, directive: Directive) -> None:
        """Write an accepted directive and raise the highest number, in one durable transaction. Idempotent."""
        number = directive.number
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO directives VALUES (?, ?, ?, ?, ?, ?, '', ?) ON CONFLICT DO NOTHING",
                (
                    number.epoch,
                    number.counter,
                    directive.subject,
                    directive.content_digest,
                    directive.message,
                    Standing.OPEN,
                    self._clock.now().isoformat(),
                ),
            )
            highest = connection.execute("SELECT value FROM facts WHERE name = 'highest_accepted'").fetchone()
            if highest is None or number > _number(highest[0]):
                connection.execute(
                    "INSERT INTO facts VALUES ('highest_accepted', ?)"
                    " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                    (str(number),),
                )

    def highest(self) -> DirectiveNumber:
        with self._database.reading() as connection:
            row = connection.execute("SELECT value FROM facts WHERE name = 'highest_accepted'").fetchone()
        return DirectiveNumber(0, 0) if row is None else _number(row[0])

    def accepted(self) -> list[Accepted]:
        """Everything still remembered, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT epoch, counter, content_digest, state FROM directives ORDER BY epoch, counter"
            ).fetchall()
        return [Accepted(DirectiveNumber(row[0], row[1]), Digest(row[2]), Standing(row[3])) for row in rows]

    def open(self) -> list[Directive]:
        """What is accepted and not done, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT message FROM directives WHERE state = ? ORDER BY epoch, counter", (Standing.OPEN,)
            ).fetchall()
        return [_stored(row[0]) for row in rows]

    def finish(self, number: DirectiveNumber, codes: Sequence[str] = ()) -> None:
        """Idempotent; what was left stays left."""
        self._close(number, Standing.DONE, codes)

    def leave(self, number: DirectiveNumber, codes: Sequence[str]) -> None:
        self._close(number, Standing.LEFT, codes)

    def _close(self, number: DirectiveNumber, standing: Standing, codes: Sequence[str]) -> None:
        with self._database.writing() as connection:
            connection.execute(
                "UPDATE directives SET state = ?, codes = ?, message = x''"
                " WHERE epoch = ? AND counter = ? AND state <> ?",
                (standing, " ".join(codes), number.epoch, number.counter, Standing.LEFT),
            )
            connection.execute(
                "DELETE FROM directives WHERE state = ? AND (epoch, counter) NOT IN (SELECT epoch, counter"
                " FROM directives WHERE state = ? ORDER BY epoch DESC, counter DESC LIMIT ?)",
                (Standing.DONE, Standing.DONE, MAX_CLOSED),
            )


def _number(text: str) -> DirectiveNumber:
    epoch, _, counter = text.partition(".")
    return DirectiveNumber(int(epoch), int(counter))


def _stored(data: bytes) -> Directive:
    try:
        return parse_directive(session_pb2.Directive.FromString(data))
    except (DecodeError, InvalidInput) as err:
        raise Corrupt("the agent's journal holds a directive that cannot be read") from err
