"""What survives a crash, and where the CLI and the running agent meet.

Named documents (datasets, consents, approvals), append-only series (decisions), single facts (the brake, the highest
number), and beside them, each in a file of its own, the directives (`ledger`), what left (`crossings`), what must still
be sent (`outbox`) and what the coordinator has yet to prove (`owed`). This is `ports.Journal` on `node_agent.database`.

Nothing is cached: what was read once is read again after `changed`. There is no socket between CLI and agent; a write
by either is noticed by the other within `POLL`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from sqlite3 import Connection
from typing import Final

from node_agent.crossings import Crossings
from node_agent.database import Database
from node_agent.ledger import Ledger
from node_agent.outbox import Outbox
from node_agent.owed import OwedProofs
from node_agent.ports import Clock, Document, Entry
from treaty.errors import Corrupt, InvalidInput
from treaty.names import DirectiveNumber
from treaty.strict_json import JsonObject, canonical, parse_object

POLL: Final = timedelta(milliseconds=100)
"""Half of the 200 ms within which a brake pulled by the CLI must bite."""

MAX_BODY_BYTES: Final = 4 * 2**20
MAX_ENTRIES_READ: Final = 10_000
_BRAKE = "brake"


class SqliteJournal:
    """`ports.Journal`, durable on return and safe to call from any thread."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._database = Database(path)
        self._clock = clock
        self._generation = 0
        self._looked_at = 0.0
        self.ledger = Ledger(self._database, clock)
        self.crossings = Crossings(self._database, clock)
        self.outbox = Outbox(self._database)
        self.owed = OwedProofs(self._database)

    def close(self) -> None:
        self._database.close()

    # documents ----------------------------------------------------------------------------------------------------

    def put(self, kind: str, name: str, body: JsonObject) -> Document:
        """Write a document whole; its generation grows by one."""
        document = self._put(kind, name, body, durable=True)
        self._generation += 1
        return document

    def note(self, kind: str, name: str, body: JsonObject) -> None:
        """`put` for what is only shown (liveness): survives a kill, not a power cut, and wakes nobody here."""
        self._put(kind, name, body, durable=False)

    def _put(self, kind: str, name: str, body: JsonObject, *, durable: bool) -> Document:
        now = self._clock.now()
        data = _encoded(body)
        with self._database.writing(durable=durable) as connection:
            row = connection.execute(
                "INSERT INTO documents VALUES (?, ?, ?, 1, ?) ON CONFLICT (kind, name) DO UPDATE SET"
                " body = excluded.body, generation = generation + 1, updated_at = excluded.updated_at"
                " RETURNING generation",
                (kind, name, data, now.isoformat()),
            ).fetchone()
        return Document(name, body, int(row[0]), now)

    def document(self, kind: str, name: str) -> Document | None:
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT name, body, generation, updated_at FROM documents WHERE kind = ? AND name = ?", (kind, name)
            ).fetchone()
        return None if row is None else _document(row)

    def documents(self, kind: str) -> list[Document]:
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT name, body, generation, updated_at FROM documents WHERE kind = ? ORDER BY name", (kind,)
            ).fetchall()
        return [_document(row) for row in rows]

    def remove(self, kind: str, name: str) -> bool:
        with self._database.writing() as connection:
            removed = connection.execute("DELETE FROM documents WHERE kind = ? AND name = ?", (kind, name)).rowcount
        self._generation += 1
        return removed > 0

    # series -------------------------------------------------------------------------------------------------------

    def append(self, series: str, body: JsonObject, *, keep: int | None = None) -> int:
        """`ports.Journal.append`; of a series with `keep` only the newest so many stay."""
        data = _encoded(body)
        with self._database.writing() as connection:
            last = connection.execute(
                "SELECT coalesce(max(sequence), 0) FROM entries WHERE series = ?", (series,)
            ).fetchone()[0]
            sequence = int(last) + 1
            row = (series, sequence, data, self._clock.now().isoformat())
            connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?)", row)
            if keep is not None:
                connection.execute("DELETE FROM entries WHERE series = ? AND sequence <= ?", (series, sequence - keep))
        return sequence

    def entries(self, series: str, *, after: int = 0, limit: int = 1000) -> list[Entry]:
        bounded = min(limit, MAX_ENTRIES_READ)
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT sequence, body, at FROM entries WHERE series = ? AND sequence > ? ORDER BY sequence LIMIT ?",
                (series, after, bounded),
            ).fetchall()
        return [Entry(sequence, _decoded(body), datetime.fromisoformat(at)) for sequence, body, at in rows]

    # facts --------------------------------------------------------------------------------------------------------

    def fact(self, name: str) -> str | None:
        with self._database.reading() as connection:
            row = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_fact(self, name: str, value: str) -> None:
        with self._database.writing() as connection:
            write_fact(connection, name, value)
        self._generation += 1

    def is_brake_on(self) -> bool:
        return self.fact(_BRAKE) == "on"

    def set_brake(self, *, is_on: bool) -> None:
        """Pull or release the brake; a running agent notices within 200 ms."""
        self.set_fact(_BRAKE, "on" if is_on else "off")

    # directives ---------------------------------------------------------------------------------------------------

    def finish(self, number: DirectiveNumber, codes: Sequence[str] = ()) -> None:
        self.ledger.finish(number, codes)

    def leave(self, number: DirectiveNumber, codes: Sequence[str]) -> None:
        self.ledger.leave(number, codes)

    # changes ------------------------------------------------------------------------------------------------------

    @property
    def generation(self) -> int:
        if self._database.is_changed_elsewhere():
            self._generation += 1
        return self._generation

    async def changed(self, since: int) -> int:
        while (generation := self._recent_generation()) == since:  # noqa: ASYNC110  SQLite has no event
            await asyncio.sleep(POLL.total_seconds())
        return generation

    def _recent_generation(self) -> int:
        """SQLite tells no other process what was written, so those who wait look; one look serves all of them."""
        now = time.monotonic()
        if now - self._looked_at >= POLL.total_seconds() / 2:
            self._looked_at = now
            return self.generation
        return self._generation


def write_fact(connection: Connection, name: str, value: str) -> None:
    connection.execute(
        "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", (name, value)
    )


def _encoded(body: JsonObject) -> bytes:
    data = canonical(body)
    if len(data) > MAX_BODY_BYTES:
        raise InvalidInput(f"a journal entry of {len(data)} bytes is larger than {MAX_BODY_BYTES}")
    return data


def _decoded(data: bytes) -> JsonObject:
    try:
        return parse_object(data, max_bytes=MAX_BODY_BYTES, max_depth=32)
    except InvalidInput as err:
        raise Corrupt("the agent's journal holds an entry that is not JSON") from err


def _document(row: tuple[str, bytes, int, str]) -> Document:
    name, body, generation, updated_at = row
    return Document(name, _decoded(body), generation, datetime.fromisoformat(updated_at))
