"""What survives a crash, and what the CLI and the agent see of each other."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from node_agent.crossings import Since
from node_agent.journal import SqliteJournal
from node_agent.ledger import MAX_CLOSED, Standing
from tests.node_agent.core.clock import ManualClock
from tests.node_agent.core.directives import deploy_message, number, parsed, round_message
from treaty.errors import Corrupt, InvalidInput, PreconditionFailed, ResourceExhausted
from treaty.names import DirectiveNumber, digest_of
from treaty.receipt import Crossing, Receipt
from treaty.wire.v1 import session_pb2

CLOCK = ManualClock()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqliteJournal]:
    opened = SqliteJournal(tmp_path / "journal.db", CLOCK)
    yield opened
    opened.close()


def reopened(journal: SqliteJournal, tmp_path: Path) -> SqliteJournal:
    """As another process, or as this one after it was killed."""
    return SqliteJournal(tmp_path / "journal.db", CLOCK)


def test_a_document_is_there_for_another_process_and_its_generation_grows(
    journal: SqliteJournal, tmp_path: Path
) -> None:
    assert journal.put("dataset", "pairs", {"n": 1}).generation == 1
    assert journal.put("dataset", "pairs", {"n": 2}).generation == 2
    other = reopened(journal, tmp_path)
    seen = other.document("dataset", "pairs")
    assert seen is not None
    assert (seen.body, seen.generation) == ({"n": 2}, 2)
    assert other.documents("consent") == []
    assert journal.remove("dataset", "pairs") is True
    assert journal.remove("dataset", "pairs") is False
    other.close()


def test_a_series_counts_from_one_without_gaps(journal: SqliteJournal) -> None:
    assert [journal.append("decision", {"n": n}) for n in range(3)] == [1, 2, 3]
    assert journal.append("other", {}) == 1
    assert [entry.body["n"] for entry in journal.entries("decision", after=1)] == [1, 2]


def test_a_document_beyond_the_bound_is_refused_and_nothing_is_written(journal: SqliteJournal) -> None:
    with pytest.raises(InvalidInput, match="is larger than"):
        journal.put("dataset", "huge", {"text": "x" * (5 * 2**20)})
    assert journal.document("dataset", "huge") is None


async def test_a_write_by_the_cli_wakes_the_agent(journal: SqliteJournal, tmp_path: Path) -> None:
    generation = journal.generation
    waiting = asyncio.ensure_future(journal.changed(generation))
    await asyncio.sleep(0)
    cli = reopened(journal, tmp_path)
    cli.set_brake(is_on=True)
    cli.close()
    async with asyncio.timeout(2):
        assert await waiting != generation
    assert journal.is_brake_on()


async def test_counting_what_leaves_wakes_nobody(journal: SqliteJournal) -> None:
    generation = journal.generation
    journal.crossings.count("heartbeat", 20)
    journal.note("agent", "now", {})
    assert journal.generation == generation


def test_the_highest_number_survives_and_never_goes_down(journal: SqliteJournal, tmp_path: Path) -> None:
    assert journal.ledger.highest() == DirectiveNumber(0, 0)
    for counter in (3, 10, 9):
        journal.ledger.accept(parsed(deploy_message(counter)))
    other = reopened(journal, tmp_path)
    assert other.ledger.highest() == number(10)
    assert [directive.number for directive in other.ledger.open()] == [number(3), number(9), number(10)]
    other.close()


def test_an_open_directive_is_read_back_as_it_arrived(journal: SqliteJournal) -> None:
    directive = parsed(round_message(1))
    journal.ledger.accept(directive)
    (again,) = journal.ledger.open()
    assert again == directive
    assert again.content_digest == directive.content_digest


def test_what_was_left_stays_left_when_it_is_finished_too(journal: SqliteJournal) -> None:
    journal.ledger.accept(parsed(deploy_message(1)))
    journal.leave(number(1), ["EVALUATION_WORSE"])
    journal.finish(number(1))
    assert [entry.standing for entry in journal.ledger.accepted()] == [Standing.LEFT]
    assert journal.ledger.open() == []


def test_of_finished_directives_only_the_newest_are_kept(journal: SqliteJournal) -> None:
    with journal._database.writing() as connection:
        rows = [(1, n, "s", digest_of(b""), b"", "done", "", "") for n in range(MAX_CLOSED + 50)]
        connection.executemany("INSERT INTO directives VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    journal.ledger.accept(parsed(deploy_message(MAX_CLOSED + 60)))
    journal.finish(number(MAX_CLOSED + 60))
    assert len(journal.ledger.accepted()) == MAX_CLOSED


def a_receipt(round_number: int = 1, size: int = 10) -> Receipt:
    digest = digest_of(f"update {round_number}".encode())
    return Receipt(
        nation="FR",  # type: ignore[arg-type]
        agent="par-1",
        crossing=Crossing.UPDATE,
        digest=digest,
        shape_digest=digest,
        size_bytes=size,
        destination="EU",  # type: ignore[arg-type]
        run="run-1",
        round=round_number,
        examples=8,
        decision_digest=digest,
        ask_digest=digest,
        clip_norm_micro=1,
        sandbox=("landlock",),
        trace_id="",
        issued_at=CLOCK.now(),
    )


def test_receipts_keep_their_order_and_their_root_shows_what_was_taken_out(
    journal: SqliteJournal, tmp_path: Path
) -> None:
    for n in (1, 2, 3):
        journal.crossings.write_receipt(digest_of(bytes([n])), a_receipt(n), f"envelope {n}".encode())
    assert journal.crossings.holds_receipt(b"envelope 2")
    size, root = journal.crossings.root()
    journal.crossings.recorded(digest_of(bytes([2])), 77)
    assert [(w.round, w.log_index) for w in journal.crossings.receipts()] == [(1, None), (2, 77), (3, None)]
    assert journal.crossings.root() == (size, root)
    with journal._database.writing() as connection:
        connection.execute("DELETE FROM receipts WHERE round = 2")
    assert journal.crossings.root()[1] != root


def test_tallies_cover_everything_once_and_count_from_one(journal: SqliteJournal) -> None:
    seen: list[Since] = []

    def sign(since: Since) -> bytes:
        seen.append(since)
        return b"signed"

    crossings = journal.crossings
    assert crossings.tally(sign) is None
    crossings.count("status", 100)
    crossings.count("status", 50)
    CLOCK.forward(seconds=60)
    assert crossings.tally(sign) == b"signed"
    crossings.count("heartbeat", 20)
    assert crossings.tally(sign) == b"signed"
    assert [(since.sequence, dict(since.classes)) for since in seen] == [
        (1, {"status": (2, 150)}),
        (2, {"heartbeat": (1, 20)}),
    ]
    assert seen[0].until == seen[1].since
    assert crossings.counts() == {"heartbeat": (1, 20), "status": (2, 150)}


def test_a_tally_that_could_not_be_signed_uses_no_number(journal: SqliteJournal) -> None:
    def fail(_since: Since) -> bytes:
        raise InvalidInput("no key")

    journal.crossings.count("status", 1)
    with pytest.raises(InvalidInput):
        journal.crossings.tally(fail)
    assert journal.crossings.tallies() == []
    assert journal.crossings.tally(lambda since: str(since.sequence).encode()) == b"1"


def test_the_outbox_keeps_a_statement_until_it_is_confirmed(journal: SqliteJournal, tmp_path: Path) -> None:
    digest = digest_of(b"statement")
    message = session_pb2.AgentMessage(submission=session_pb2.Submission(envelope=b"x"))
    journal.outbox.put(digest, "record", message)
    journal.outbox.put(digest, "record", message)
    other = reopened(journal, tmp_path)
    assert [waiting.message for waiting in other.outbox.waiting()] == [message]
    assert other.outbox.confirmed(digest) is None
    other.outbox.confirm(digest, 0, "")
    assert other.outbox.waiting() == []
    confirmed = journal.outbox.confirmed(digest)
    assert confirmed is not None
    assert confirmed.log_index == 0
    other.close()


def test_a_refused_statement_is_not_sent_again_by_itself_but_can_be_handed_in_again(journal: SqliteJournal) -> None:
    digest = digest_of(b"statement")
    message = session_pb2.AgentMessage(submission=session_pb2.Submission(envelope=b"x"))
    journal.outbox.put(digest, "record", message)
    journal.outbox.confirm(digest, 0, "BAD_SIGNATURE")
    assert journal.outbox.waiting() == []
    refused = journal.outbox.confirmed(digest)
    assert refused is not None
    assert refused.refusal == "BAD_SIGNATURE"
    journal.outbox.put(digest, "record", message)
    assert len(journal.outbox.waiting()) == 1


def test_a_full_disk_is_said_so_and_what_was_there_stays(journal: SqliteJournal) -> None:
    journal.put("dataset", "small", {"n": 1})
    with journal._database.writing() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    with journal._database.reading() as connection:
        connection.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(ResourceExhausted, match="no room to write the agent's journal"):
        journal.put("dataset", "large", {"text": "x" * 2**20})
    assert journal.document("dataset", "large") is None
    assert journal.document("dataset", "small") is not None


def test_a_journal_of_a_later_version_is_refused(journal: SqliteJournal, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "later.db") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(PreconditionFailed, match="of version 99; this program knows 2"):
        SqliteJournal(tmp_path / "later.db", CLOCK)


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(Corrupt, match="cannot be read or written"):
        SqliteJournal(tmp_path / "journal.db", CLOCK)


def test_a_journal_of_the_version_before_is_brought_forward_with_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    before = SqliteJournal(path, CLOCK)
    before.put("dataset", "pairs", {"n": 1})
    before.close()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE owed")
        connection.execute("PRAGMA user_version=1")
    connection.close()
    after = SqliteJournal(path, CLOCK)
    assert after.document("dataset", "pairs") is not None
    assert after.owed.open() == []
    after.owed.add(digest_of(b"said"), 3, b"h" * 32)
    after.close()
    again = SqliteJournal(path, CLOCK)
    assert [owed.log_index for owed in again.owed.open()] == [3]
    again.close()
