"""What was said to be recorded is held to the log: proofs asked for, verified, and what does not come of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from node_agent.agent import Agent, Foundation
from node_agent.inclusion import GROWTHS, MAX_ASKED, PATIENCE, InclusionWatch, recorded_leaf
from node_agent.log_thread import LogThread
from node_agent.logwatch import LOG_INCONSISTENT, LogWatch
from node_agent.overview import overview
from tests.node_agent.core.coordinator import SALT, Coordinator, Stream, coordinator
from tests.node_agent.core.nation import Joined, nation
from tests.node_agent.core.test_border import CHUNKS, OPENING, PERMIT, RECEIPT, Setting, setting
from tests.node_agent.core.test_session import running
from tests.node_agent.core.workers import FakeWorkers
from treaty import statement
from treaty.errors import BadSignature, InvalidInput, LimitExceeded, PolicyDenied, TrustError
from treaty.keys import SigningKey, new_signing_key
from treaty.log import Checkpoint, Tree, leaf_data, leaf_hash, sign_checkpoint
from treaty.names import Digest, digest_of
from treaty.receipt import sign_receipt
from treaty.statement import StatementKind
from treaty.wire.v1 import session_pb2, types_pb2

__all__ = ["setting"]

STATEMENT = digest_of(b"a statement")
OURS = leaf_hash(b"ours")


@pytest.fixture
def joined(tmp_path: Path) -> Joined:
    return nation(tmp_path)


@dataclass
class Watched:
    """An agent's watch, and the log that a coordinator shows it."""

    joined: Joined
    base: Foundation
    log: LogWatch
    watch: InclusionWatch
    tree: Tree

    def show(self, *leaves: bytes) -> None:
        """Append to the log and show the checkpoint of all of it."""
        known = self.tree.size
        self.tree.extend(leaves)
        self.log.observe(shown(self.joined, self.tree, known), is_behind=False)

    def answer(self, digest: Digest = STATEMENT, index: int = 1, **changed: object) -> session_pb2.Inclusion:
        """The honest proof of that entry in the tree as it is."""
        proof = self.tree.inclusion_proof(index, self.tree.size)
        said = {"statement_digest": digest, "log_size": self.tree.size, "proof": proof}
        return session_pb2.Inclusion(**{**said, **changed})  # type: ignore[arg-type]

    def unproved(self) -> list[Digest]:
        return [owed.digest for owed in self.log.unproved()]


@pytest.fixture
def watched(joined: Joined) -> Iterator[Watched]:
    joined.join("localhost:1")
    base = joined.lay()
    log = LogWatch(base.journal, base.nation)
    base.journal.owed.add(STATEMENT, 1, OURS)
    yield Watched(joined, base, log, InclusionWatch(base.journal, log), Tree())
    base.close()


def shown(joined: Joined, tree: Tree, known: int) -> types_pb2.Checkpoint:
    signed = sign_checkpoint(
        Checkpoint(joined.charter.log_origin, tree.size, tree.root()), joined.world.log_key.private
    )
    proof = tree.consistency_proof(known, tree.size) if 0 < known < tree.size else []
    return types_pb2.Checkpoint(note=signed.note, consistency_proof=proof, from_size=known)


def test_a_proof_is_asked_for_once_a_believed_checkpoint_covers_the_statement(watched: Watched) -> None:
    watched.show(leaf_hash(b"a"))
    assert watched.watch.look() == []
    watched.show(OURS, leaf_hash(b"c"))
    (asked,) = watched.watch.look()
    assert (asked.proof_request.statement_digest, asked.proof_request.log_size) == (STATEMENT, 3)
    assert watched.watch.look() == []  # once per stream
    watched.watch.begin()
    assert watched.watch.look() == [asked]
    watched.watch.hear(watched.answer())
    assert watched.unproved() == []
    assert watched.log.alarm == ""


def test_an_answer_is_held_to_the_checkpoint_that_it_was_asked_for_though_the_log_has_grown(watched: Watched) -> None:
    watched.show(leaf_hash(b"a"), OURS)
    watched.watch.look()
    answer = watched.answer()
    watched.show(leaf_hash(b"c"))
    watched.watch.hear(answer)
    assert watched.unproved() == []


def test_what_was_said_to_be_recorded_and_never_was_is_an_alarm_that_outlives_the_process(watched: Watched) -> None:
    watched.show(leaf_hash(b"a"), leaf_hash(b"somebody else's"))
    watched.watch.look()
    with pytest.raises(TrustError, match="contradicts what this agent saw before") as refused:
        watched.watch.hear(watched.answer())
    assert refused.value.code == LOG_INCONSISTENT
    assert watched.log.alarm == (
        f"LOG_INCLUSION: leaf 1 is not in the tree of 2 with this root (statement {STATEMENT}, entry 1)"
    )
    assert overview(watched.base)["log"] == {
        "size": 2,
        "root": watched.tree.root().hex(),
        "unproved": 0,
        "alarm": watched.log.alarm,
    }


def test_the_proof_of_another_leaf_is_no_proof(watched: Watched) -> None:
    watched.show(leaf_hash(b"a"), OURS, leaf_hash(b"c"))
    watched.watch.look()
    with pytest.raises(TrustError, match="contradicts"):
        watched.watch.hear(watched.answer(index=0))
    assert "LOG_INCLUSION" in watched.log.alarm


@pytest.mark.parametrize("part", [0, 1])
def test_one_flipped_bit_in_a_proof_is_an_alarm(watched: Watched, part: int) -> None:
    watched.show(leaf_hash(b"a"), OURS, leaf_hash(b"c"), leaf_hash(b"d"))
    watched.watch.look()
    proof = [bytearray(each) for each in watched.answer().proof]
    proof[part][31] ^= 1
    with pytest.raises(TrustError, match="contradicts"):
        watched.watch.hear(watched.answer(proof=[bytes(each) for each in proof]))
    assert "LOG_INCLUSION" in watched.log.alarm


def test_a_refusal_to_prove_is_an_alarm(watched: Watched) -> None:
    watched.show(leaf_hash(b"a"), OURS)
    watched.watch.look()
    with pytest.raises(TrustError, match="contradicts"):
        watched.watch.hear(watched.answer(proof=[], refusal=types_pb2.Refusal(code="NOT_FOUND")))
    assert watched.log.alarm.startswith("LOG_INCLUSION: the coordinator refused to prove what it said it recorded")


def test_a_proof_that_does_not_come_is_an_alarm_and_streams_that_end_do_not_put_it_off(watched: Watched) -> None:
    watched.show(leaf_hash(b"a"), OURS)
    for _ in range(PATIENCE - 1):
        watched.watch.begin()
        assert len(watched.watch.look()) == 1
        assert watched.watch.look() == []  # asked, and not answered from one look to the next
    watched.watch.begin()
    assert len(watched.watch.look()) == 1
    with pytest.raises(TrustError, match="contradicts"):
        watched.watch.look()
    assert watched.log.alarm.startswith("LOG_INCLUSION: no proof came of what the coordinator said it recorded")
    assert watched.watch.look() == []  # said once


def test_a_line_that_breaks_again_and_again_is_no_silence_but_nothing_counts_on_it(watched: Watched) -> None:
    watched.show(leaf_hash(b"a"), OURS)
    for _ in range(PATIENCE + 1):
        watched.watch.begin()
        assert len(watched.watch.look()) == 1
    assert watched.watch.is_stalled
    assert watched.log.alarm == ""
    watched.watch.hear(watched.answer())
    watched.watch.look()
    assert not watched.watch.is_stalled


def test_a_log_that_grows_and_never_reaches_the_entry_is_an_alarm(watched: Watched) -> None:
    watched.base.journal.owed.settle(STATEMENT)
    watched.base.journal.owed.add(STATEMENT, 10**9, OURS)
    watched.show(leaf_hash(b"first"))
    watched.watch.look()
    for growth in range(GROWTHS):
        watched.show(leaf_hash(b"%d" % growth))
        assert watched.watch.look() == []
    with pytest.raises(TrustError, match="contradicts"):
        watched.watch.look()


def test_a_log_that_stands_still_is_no_contradiction_but_nothing_counts_on_it(watched: Watched) -> None:
    watched.show(leaf_hash(b"a"))
    for _ in range(PATIENCE + 1):
        assert watched.watch.look() == []
    assert watched.watch.is_stalled
    assert watched.log.alarm == ""
    watched.show(OURS)
    watched.watch.look()
    watched.watch.hear(watched.answer())
    watched.watch.look()
    assert not watched.watch.is_stalled


def test_a_proof_that_nobody_asked_for_changes_nothing(watched: Watched) -> None:
    watched.show(leaf_hash(b"a"), leaf_hash(b"b"))
    watched.watch.hear(watched.answer())
    watched.watch.look()
    watched.watch.hear(watched.answer(log_size=1))
    watched.watch.hear(watched.answer(digest=digest_of(b"unknown")))
    assert watched.unproved() == [STATEMENT]
    assert watched.log.alarm == ""


def test_proofs_are_asked_for_a_few_at_a_time(watched: Watched) -> None:
    for number in range(2 * MAX_ASKED):
        watched.base.journal.owed.add(digest_of(b"%d" % number), 0, OURS)
    watched.show(OURS, OURS)
    assert len(watched.watch.look()) == MAX_ASKED
    assert watched.watch.look() == []


def test_a_later_word_on_the_same_statement_does_not_replace_the_first(watched: Watched) -> None:
    watched.base.journal.owed.add(STATEMENT, 0, leaf_hash(b"another"))
    (owed,) = watched.log.unproved()
    assert (owed.log_index, owed.leaf_hash) == (1, OURS)


def test_acknowledging_lets_go_of_what_failed_and_of_nothing_else(watched: Watched) -> None:
    other = digest_of(b"another")
    watched.base.journal.owed.add(other, 0, leaf_hash(b"a"))
    watched.show(leaf_hash(b"a"), leaf_hash(b"not ours"))
    watched.watch.look()
    with pytest.raises(TrustError):
        watched.watch.hear(watched.answer())
    watched.log.clear_alarm()
    assert watched.unproved() == [other]
    watched.watch.hear(watched.answer(digest=other, index=0))
    assert watched.log.alarm == ""


async def test_a_look_whose_stream_ended_is_over_before_the_next_stream_begins(watched: Watched) -> None:
    """Otherwise it would mark as asked, on the new stream, what nobody asked there: two minutes later an alarm."""
    watched.show(leaf_hash(b"a"), OURS)
    begun, held = threading.Event(), threading.Event()

    def slow_look() -> None:
        begun.set()
        held.wait(5)
        watched.watch.look()

    async with aclosing(LogThread()) as thread:
        ended = asyncio.ensure_future(thread.run(slow_look))
        await asyncio.to_thread(begun.wait, 5)
        ended.cancel()
        beginning = asyncio.ensure_future(thread.run(watched.watch.begin))
        assert (await asyncio.wait([beginning], timeout=0.1))[0] == set()
        held.set()
        await beginning
        (asked,) = await thread.run(watched.watch.look)
    assert asked.proof_request.statement_digest == STATEMENT


async def test_a_check_that_has_not_begun_when_its_stream_ends_never_begins(watched: Watched) -> None:
    begun, held, looks = threading.Event(), threading.Event(), list[str]()

    def first() -> None:
        begun.set()
        held.wait(5)

    async with aclosing(LogThread()) as thread:
        running = asyncio.ensure_future(thread.run(first))
        await asyncio.to_thread(begun.wait, 5)
        waiting = asyncio.ensure_future(thread.run(lambda: looks.append("begun")))
        await asyncio.wait([waiting], timeout=0)
        waiting.cancel()
        held.set()
        await running
        await thread.run(lambda: looks.append("next"))
    assert looks == ["next"]


# the coordinator's word -----------------------------------------------------------------------------------------------


def word(key: SigningKey, count: int = 1) -> tuple[bytes, Digest]:
    document = statement.document(StatementKind.TALLY, "x", {"n": count})
    return statement.sign(document, [key]), digest_of(document.payload())


async def test_a_word_that_names_no_leaf_is_no_answer(setting: Setting) -> None:
    envelope, digest = word(setting.base.nation.key)
    setting.border.submit_later(envelope)
    with pytest.raises(InvalidInput, match="does not name its leaf"):
        await setting.border.recorded(digest, 3, "", salt=b"short")
    assert setting.base.journal.outbox.confirmed(digest) is None
    await setting.border.recorded(digest, 3, "", salt=SALT)
    (owed,) = setting.base.journal.owed.open()
    assert (owed.digest, owed.log_index, owed.leaf_hash) == (digest, 3, leaf_hash(leaf_data(SALT, envelope)))


async def test_a_statement_under_other_signatures_counts_if_they_are_this_nations(setting: Setting) -> None:
    key = setting.base.nation.key
    envelope, digest = word(key)
    both = statement.sign(statement.unverified(envelope), [key, new_signing_key()])
    foreign = statement.sign(statement.unverified(envelope), [new_signing_key()])
    setting.border.submit_later(envelope)
    with pytest.raises(BadSignature):
        await setting.border.recorded(digest, 3, "", salt=SALT, shown=foreign)
    with pytest.raises(TrustError, match="shows another statement"):
        await setting.border.recorded(digest, 3, "", salt=SALT, shown=word(key, 2)[0])
    with pytest.raises(LimitExceeded, match="more than 65536 bytes"):
        recorded_leaf(envelope, SALT, b" " * 65537, setting.base.nation)
    assert setting.base.journal.outbox.confirmed(digest) is None
    await setting.border.recorded(digest, 3, "", salt=SALT, shown=both)
    (owed,) = setting.base.journal.owed.open()
    assert owed.leaf_hash == leaf_hash(leaf_data(SALT, both))


async def test_a_word_that_nobody_waits_for_is_passed_over(setting: Setting) -> None:
    await setting.border.recorded(digest_of(b"unknown"), 3, "", salt=SALT)
    assert setting.base.journal.owed.open() == []


async def test_an_accepted_update_is_to_be_proved_too(setting: Setting) -> None:
    await setting.border.send_update(OPENING, RECEIPT, PERMIT, CHUNKS)
    (written,) = setting.base.journal.crossings.receipts()
    (owed,) = setting.base.journal.owed.open()
    assert (owed.digest, owed.log_index) == (written.digest, 3)
    assert owed.leaf_hash == leaf_hash(leaf_data(SALT, written.envelope))


async def test_an_update_that_was_counted_under_an_earlier_receipt_is_held_to_that_one(setting: Setting) -> None:
    key, earlier = setting.base.nation.key, replace(RECEIPT, issued_at=RECEIPT.issued_at - timedelta(minutes=1))
    setting.hub.counted = sign_receipt(replace(earlier, digest=digest_of(b"another update")), key)
    with pytest.raises(TrustError, match="a receipt of another update"):
        await setting.border.send_update(OPENING, RECEIPT, PERMIT, CHUNKS)
    assert setting.base.journal.owed.open() == []
    setting.hub.frames.clear()
    setting.hub.counted = sign_receipt(earlier, key)
    await setting.border.send_update(OPENING, RECEIPT, PERMIT, CHUNKS)
    (owed,) = setting.base.journal.owed.open()
    assert owed.digest == digest_of(earlier.statement().payload())
    assert owed.leaf_hash == leaf_hash(leaf_data(SALT, setting.hub.counted))


async def test_an_update_whose_answer_names_no_leaf_is_not_taken_as_recorded(setting: Setting) -> None:
    setting.hub.salt = b""
    with pytest.raises(InvalidInput, match="does not name its leaf"):
        await setting.border.send_update(OPENING, RECEIPT, PERMIT, CHUNKS)
    assert [written.log_index for written in setting.base.journal.crossings.receipts()] == [None]


# on the stream --------------------------------------------------------------------------------------------------------


async def handed_in(hub: Coordinator, joined: Joined, agent: Agent, stream: Stream, leaf: bytes | None) -> None:
    """Hand in a statement; the coordinator says entry 7, and shows a log with that leaf there (None: the right one)."""
    envelope, _ = word(agent._base.nation.key)
    async with asyncio.timeout(5):
        assert await agent._border.submit(envelope) == 7
    hub.tree = Tree(leaf_hash(b"%d" % index) for index in range(7))
    hub.tree.append(leaf or leaf_hash(leaf_data(SALT, envelope)))
    hub.checkpoint = shown(joined, hub.tree, 0)
    stream.lost.set()


async def until(is_so: Callable[[], bool]) -> None:
    """The agent works in threads and tells no test: look again."""
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_an_honest_coordinator_proves_what_it_recorded(joined: Joined) -> None:
    async with coordinator(joined) as (hub, port), running(joined, port, FakeWorkers()) as agent:
        await handed_in(hub, joined, agent, await hub.stream(), None)
        stream = await hub.stream()
        await until(lambda: not agent._base.journal.owed.open())
        assert agent._border._halted == ""
        assert LogWatch(agent._base.journal, agent._base.nation).alarm == ""
        assert agent._base.journal.crossings.counts()["proof-request"][0] == 1
        assert stream.hello.log_size == 0


async def test_a_coordinator_that_says_recorded_and_never_logs_gets_no_update_any_more(joined: Joined) -> None:
    async with coordinator(joined) as (hub, port), running(joined, port, FakeWorkers()) as agent:
        await handed_in(hub, joined, agent, await hub.stream(), leaf_hash(b"another's"))
        await hub.stream()
        await until(lambda: bool(agent._border._halted))
        with pytest.raises(PolicyDenied, match="nothing leaves") as refused:
            await agent._border.send_update(OPENING, RECEIPT, PERMIT, CHUNKS)
        assert refused.value.codes == ("LOG_INCONSISTENT",)
    async with coordinator(joined) as (hub, port), running(joined, port, FakeWorkers()) as again:
        await hub.stream()
        assert again._border._halted == "LOG_INCONSISTENT"
