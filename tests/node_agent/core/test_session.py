"""An agent on its stream: real gRPC and TLS, a coordinator of a few lines, workers that only remember."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node_agent import telltale
from node_agent.agent import Agent
from node_agent.directives import parse_number
from node_agent.journal import SqliteJournal
from node_agent.logwatch import LogWatch
from node_agent.state import Phase
from tests.node_agent.core.clock import ManualClock
from tests.node_agent.core.coordinator import Stream, coordinator
from tests.node_agent.core.directives import deploy_message, end_message, number, round_message
from tests.node_agent.core.nation import FR, Joined, nation
from tests.node_agent.core.workers import FakeWorkers
from treaty import statement
from treaty.errors import BadSignature, FoedusError, PolicyDenied
from treaty.log import Checkpoint, Tree, leaf_hash, sign_checkpoint
from treaty.statement import StatementKind
from treaty.wire.certificates import ca_digest
from treaty.wire.v1 import session_pb2, types_pb2


@pytest.fixture
def joined(tmp_path: Path) -> Joined:
    return nation(tmp_path)


@asynccontextmanager
async def running(joined: Joined, port: int, workers: FakeWorkers) -> AsyncIterator[Agent]:
    joined.join(f"localhost:{port}")
    base = joined.lay()
    agent = Agent(base, lambda _core, _settings: workers)
    task = asyncio.ensure_future(agent.run())
    try:
        yield agent
    finally:
        agent.stop()
        async with asyncio.timeout(5):
            await task
        base.close()
        assert workers.stopped


async def test_the_hello_says_what_the_agent_has(joined: Joined) -> None:
    async with coordinator(joined) as (hub, port), running(joined, port, FakeWorkers()) as agent:
        hello = (await hub.stream()).hello
        assert (hello.protocol_min, hello.protocol_max) == (1, 1)
        assert hello.charter_digest == joined.charter.digest
        assert not hello.HasField("highest_accepted")
        assert len(hello.delegations) == 1
        assert len(hello.nonce) == 32
        assert agent.state.phase in (Phase.ONLINE, Phase.OFFLINE)


async def test_policies_are_asked_before_every_connect_and_their_no_keeps_the_agent_at_home(joined: Joined) -> None:
    workers = FakeWorkers()
    async with coordinator(joined) as (hub, port), running(joined, port, workers):
        stream = await hub.stream()
        (asked,) = workers.enrolled
        assert (asked.spiffe, asked.ip) == ("spiffe://fr.treaty.example/agent/par-1", "127.0.0.1")
        assert asked.cert is not None
        assert asked.cert.root == ca_digest(joined.charter.nations[FR].ca_pem)
        workers.enrol_error = PolicyDenied("not from here (AGT-005)", codes=["AGT-005"], remedy="name the range")
        stream.lost.set()
        with _journal(joined) as journal:
            async with asyncio.timeout(5):
                while _trouble(journal) != ("POLICY_DENIED", "not from here (AGT-005)", "name the range"):
                    await journal.changed(journal.generation)
        assert len(workers.enrolled) > 1
        assert hub.streams.empty()
        workers.enrol_error = None
        await hub.stream()


async def test_a_directive_is_journaled_acknowledged_and_worked_on(joined: Joined) -> None:
    workers = FakeWorkers()
    workers.release.clear()
    async with coordinator(joined) as (hub, port), running(joined, port, workers) as agent:
        stream = await hub.stream()
        await stream.say(directive=deploy_message(3))
        acknowledgement = await stream.next("acknowledgement")
        assert parse_number(acknowledgement.number) == number(3)
        assert not acknowledgement.HasField("refusal")
        with _journal(joined) as journal:
            assert journal.ledger.highest() == number(3)
        await workers.until(workers.begun, "Deploy 1.3")
        workers.release.set()
        await workers.until(workers.done, "Deploy 1.3")
        assert agent.state.highest == number(3)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (session_pb2.Directive(number=types_pb2.DirectiveNumber(epoch=1, counter=9)), "UNSUPPORTED"),
        (deploy_message(9, rollout="NOT A NAME"), "INVALID_INPUT"),
    ],
)
async def test_a_directive_that_cannot_be_read_is_refused_by_code(
    joined: Joined, message: session_pb2.Directive, code: str
) -> None:
    async with coordinator(joined) as (hub, port), running(joined, port, FakeWorkers()):
        stream = await hub.stream()
        await stream.say(directive=message)
        refused = await stream.next("acknowledgement")
        assert (refused.number.counter, refused.refusal.code) == (9, code)
        with _journal(joined) as journal:
            assert journal.ledger.accepted() == []


async def test_what_is_not_admitted_is_refused_by_its_code_and_not_its_text(joined: Joined) -> None:
    workers = FakeWorkers()
    workers.admission_error = BadSignature("a text that stays at home")
    async with coordinator(joined) as (hub, port), running(joined, port, workers):
        stream = await hub.stream()
        await stream.say(directive=deploy_message(1))
        refused = await stream.next("acknowledgement")
        assert refused.refusal.code == "BAD_SIGNATURE"
        assert b"stays at home" not in refused.SerializeToString()
        assert workers.begun == []


async def test_after_a_lost_stream_it_says_what_is_open_and_acknowledges_again_without_starting_again(
    joined: Joined,
) -> None:
    workers = FakeWorkers()
    workers.release.clear()
    async with coordinator(joined) as (hub, port):
        async with running(joined, port, workers):
            stream = await hub.stream()
            await stream.say(directive=deploy_message(3))
            await stream.next("acknowledgement")
            stream.lost.set()
            again = await hub.stream()
            assert [parse_number(entry) for entry in again.hello.open] == [number(3)]
            assert parse_number(again.hello.highest_accepted) == number(3)
            assert parse_number((await again.next("acknowledgement")).number) == number(3)
            await again.say(directive=deploy_message(3))
            await again.next("acknowledgement")
            assert workers.begun == ["Deploy 1.3"]


async def test_an_agent_killed_after_the_acknowledgement_takes_the_work_up_again_without_a_coordinator(
    joined: Joined,
) -> None:
    async with coordinator(joined) as (hub, port):
        first = FakeWorkers()
        first.release.clear()
        async with running(joined, port, first):
            await (stream := await hub.stream()).say(directive=deploy_message(3))
            await stream.next("acknowledgement")
    second = FakeWorkers()
    async with running(joined, 1, second):
        await second.until(second.done, "Deploy 1.3")


async def test_the_coordinator_may_come_back_on_its_port_and_the_agent_returns_by_itself(joined: Joined) -> None:
    async with coordinator(joined) as (hub, port):
        agent_running = running(joined, port, FakeWorkers())
        await agent_running.__aenter__()
        await hub.stream()
    async with coordinator(joined, port) as (hub, _):
        await hub.stream()
        await agent_running.__aexit__(None, None, None)


async def test_the_brake_ends_a_round_and_says_so_by_code(joined: Joined) -> None:
    workers = FakeWorkers()
    workers.release.clear()
    async with coordinator(joined) as (hub, port), running(joined, port, workers):
        stream = await hub.stream()
        await stream.say(directive=round_message(5))
        await workers.until(workers.begun, "Round 1.5")
        with _journal(joined) as journal:
            journal.set_brake(is_on=True)
        await workers.until(workers.cancelled, "Round 1.5")
        result = await stream.next("round_result")
        assert (result.run, result.round, result.refusal.code, result.metrics) == ("run-1", 1, "BRAKE_ON", b"")
        await _status(stream, lambda status: status.brake_on)
        await stream.say(directive=round_message(6, of=2))
        assert (await _answer(stream, 6)).refusal.code == "BRAKE_ON"


async def test_the_brake_ends_a_round_with_the_coordinator_unreachable(joined: Joined) -> None:
    workers = FakeWorkers()
    workers.release.clear()
    async with coordinator(joined) as (hub, port):
        context = running(joined, port, workers)
        await context.__aenter__()
        await (await hub.stream()).say(directive=round_message(5))
        await workers.until(workers.begun, "Round 1.5")
    with _journal(joined) as journal:
        journal.set_brake(is_on=True)
    await workers.until(workers.cancelled, "Round 1.5")
    with _journal(joined) as journal:
        assert [waiting.subject for waiting in journal.outbox.waiting()] == ["round/run-1"]
    await context.__aexit__(None, None, None)


async def test_a_round_that_fails_is_refused_by_its_codes(joined: Joined) -> None:
    workers = FakeWorkers()
    workers.work_error = PolicyDenied("no", codes=["DAT-003", "PLC-001"])
    async with coordinator(joined) as (hub, port), running(joined, port, workers):
        stream = await hub.stream()
        await stream.say(directive=round_message(5))
        result = await stream.next("round_result")
        assert (result.refusal.code, list(result.refusal.details)) == ("DAT-003", ["PLC-001"])


async def test_a_deployment_that_fails_is_reported_by_its_codes(joined: Joined) -> None:
    workers = FakeWorkers()
    workers.work_error = FoedusError("a text of this nation", code="DISK_FULL")
    async with coordinator(joined) as (hub, port), running(joined, port, workers):
        stream = await hub.stream()
        await stream.say(directive=deploy_message(5))
        status = await _status(stream, lambda status: len(status.rollouts) == 1)
        (rollout,) = status.rollouts
        assert rollout.state == session_pb2.ROLLOUT_STATE_FAILED
        assert list(rollout.codes) == ["DISK_FULL"]
        assert b"text of this nation" not in status.SerializeToString()


async def test_what_was_said_about_a_round_is_said_again_until_the_run_moved_on(joined: Joined) -> None:
    workers = FakeWorkers()
    workers.work_error = PolicyDenied("no", codes=["DAT-003"])
    async with coordinator(joined) as (hub, port), running(joined, port, workers):
        stream = await hub.stream()
        await stream.say(directive=round_message(5))
        await stream.next("round_result")
        stream.lost.set()
        again = await hub.stream()
        assert (await again.next("round_result")).refusal.code == "DAT-003"
        workers.work_error = None
        await again.say(directive=end_message(6))
        await _answer(again, 6)
        with _journal(joined) as journal:
            assert journal.outbox.waiting() == []


async def test_a_question_is_answered_and_a_failing_policy_is_silence(joined: Joined) -> None:
    workers = FakeWorkers()
    async with coordinator(joined) as (hub, port), running(joined, port, workers):
        stream = await hub.stream()
        await stream.say(question=session_pb2.Question(question_id="q1", ask=b"{}", deadline_ms=1000))
        answer = await stream.next("answer")
        assert (answer.question_id, answer.verdict, list(answer.codes)) == ("q1", "deny", ["PLC-001"])
        workers.work_error = FoedusError("the engine fell over")
        await stream.say(question=session_pb2.Question(question_id="q2", ask=b"{}", deadline_ms=1000))
        await stream.say(report_request=session_pb2.ReportRequest())
        await _status(stream, lambda status: status.is_full)
        assert not any(message.WhichOneof("body") == "answer" for message in _waiting(stream))


async def test_status_counts_by_one_and_is_full_when_asked(joined: Joined) -> None:
    async with coordinator(joined) as (hub, port), running(joined, port, FakeWorkers()):
        stream = await hub.stream()
        first = await stream.next("status")
        assert (first.sequence, first.is_full) == (stream.hello.status_sequence, True)
        await stream.say(report_request=session_pb2.ReportRequest())
        second = await stream.next("status")
        assert (second.sequence, second.is_full) == (first.sequence + 1, True)


async def test_a_statement_is_handed_in_until_it_is_recorded(joined: Joined) -> None:
    async with coordinator(joined) as (hub, port), running(joined, port, FakeWorkers()) as agent:
        envelope = statement.sign(statement.document(StatementKind.TALLY, "x", {"n": 1}), [agent._base.nation.key])
        handing_in = asyncio.ensure_future(agent._border.submit(envelope))
        await hub.stream()
        async with asyncio.timeout(5):
            assert await handing_in == 7


async def test_a_welcome_to_another_hello_is_not_believed(joined: Joined) -> None:
    async with coordinator(joined) as (hub, port):
        hub.wrong_nonce = True
        async with running(joined, port, FakeWorkers()) as agent:
            await hub.stream()
            await hub.stream()
            assert agent.state.phase is Phase.OFFLINE
            assert agent._trouble.code == "NO_WELCOME"


async def test_at_half_of_the_certificate_s_life_a_new_stream_takes_over(joined: Joined) -> None:
    async with coordinator(joined) as (hub, port):
        joined.join(f"localhost:{port}")
        base = joined.lay()
        base.nation._settings = replace(base.settings, certificate_lifetime_seconds=2)
        agent = Agent(base, lambda _core, _settings: FakeWorkers())
        task = asyncio.ensure_future(agent.run())
        streams = [await hub.stream(), await hub.stream(), await hub.stream()]
        shown = {stream.certificate for stream in streams}
        assert len(shown) == 3
        assert agent.state.phase is Phase.ONLINE
        agent.stop()
        await task
        base.close()


def _checkpoint(joined: Joined, leaves: list[bytes], known: int = 0) -> types_pb2.Checkpoint:
    tree = Tree(leaf_hash(leaf) for leaf in leaves)
    key: Ed25519PrivateKey = joined.world.log_key.private
    note = sign_checkpoint(Checkpoint(joined.charter.log_origin, tree.size, tree.root()), key).note
    proof = tree.consistency_proof(known, tree.size) if known else []
    return types_pb2.Checkpoint(note=note, consistency_proof=proof, from_size=known)


async def test_the_log_is_followed_and_named_in_the_next_hello(joined: Joined) -> None:
    async with coordinator(joined) as (hub, port), running(joined, port, FakeWorkers()):
        stream = await hub.stream()
        beat = session_pb2.Heartbeat(epoch=1, checkpoint=_checkpoint(joined, [b"a", b"b"]))
        await stream.say(heartbeat=beat)
        grown = _checkpoint(joined, [b"a", b"b", b"c"], known=2)
        await stream.say(heartbeat=session_pb2.Heartbeat(epoch=1, checkpoint=grown))
        await stream.say(report_request=session_pb2.ReportRequest())
        await stream.next("status")
        await stream.next("status")
        stream.lost.set()
        hello = (await hub.stream()).hello
        assert hello.log_size == 3
        assert hello.log_root == Tree(leaf_hash(leaf) for leaf in (b"a", b"b", b"c")).root()
        assert hello.log_checkpoint_note == grown.note


@pytest.mark.parametrize(
    ("leaves", "known"),
    [([b"a", b"X", b"c"], 2), ([b"a"], 0), ([b"a", b"X"], 0), ([b"a", b"b", b"c"], 0)],
    ids=["forked", "shrunk", "same size, other root", "no proof"],
)
async def test_a_log_that_contradicts_itself_stops_every_update(
    joined: Joined, leaves: list[bytes], known: int
) -> None:
    async with coordinator(joined) as (hub, port):
        hub.checkpoint = _checkpoint(joined, [b"a", b"b"])
        async with running(joined, port, FakeWorkers()) as agent:
            stream = await hub.stream()
            bad = _checkpoint(joined, leaves, known)
            await stream.say(heartbeat=session_pb2.Heartbeat(epoch=1, checkpoint=bad))
            await stream.say(report_request=session_pb2.ReportRequest())
            await stream.next("status")
            await stream.next("status")
            assert agent._border._halted == "LOG_INCONSISTENT"
            watch = LogWatch(agent._base.journal, agent._base.nation)
            assert watch.alarm
            last = watch.last()
            assert last is not None
            assert last.size == 2


async def test_a_coordinator_that_says_it_is_behind_may_show_a_smaller_log(joined: Joined) -> None:
    async with coordinator(joined) as (hub, port):
        hub.checkpoint = _checkpoint(joined, [b"a", b"b"])
        async with running(joined, port, FakeWorkers()) as agent:
            stream = await hub.stream()
            hub.checkpoint, hub.is_behind = _checkpoint(joined, [b"a"]), True
            stream.lost.set()
            await hub.stream()
            assert LogWatch(agent._base.journal, agent._base.nation).alarm == ""


@contextmanager
def _journal(joined: Joined) -> Iterator[SqliteJournal]:
    """As the CLI opens it, beside the running agent."""
    with closing(SqliteJournal(joined.home.journal, ManualClock())) as journal:
        yield journal


def _trouble(journal: SqliteJournal) -> tuple[object, ...]:
    document = journal.document(telltale.KIND, telltale.NAME)
    trouble = document.body["trouble"] if document is not None else None
    return (trouble["code"], trouble["message"], trouble["remedy"]) if isinstance(trouble, dict) else ()


async def _status(stream: Stream, wanted: object) -> session_pb2.Status:
    while True:
        status: session_pb2.Status = await stream.next("status")
        if wanted(status):  # type: ignore[operator]
            return status


async def _answer(stream: Stream, counter: int) -> session_pb2.Acknowledgement:
    while True:
        found: session_pb2.Acknowledgement = await stream.next("acknowledgement")
        if found.number.counter == counter:
            return found


def _waiting(stream: Stream) -> list[session_pb2.AgentMessage]:
    return [stream.received.get_nowait() for _ in range(stream.received.qsize())]
