"""Questions to a nation, and the record's proofs at each contact."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.domain.agents import Verdict
from controlplane.services.connections import MAX_QUESTIONS, MAX_QUEUED, Connection, ReportRequest
from tests.controlplane.api.world import World, agent, world
from treaty.errors import Unavailable
from treaty.log import verify_checkpoint, verify_consistency
from treaty.wire.v1 import operator_pb2, session_pb2

PAR = agent()
DIGEST = "sha256:" + "ab" * 32
SOON = timedelta(seconds=5)


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as started:
        await started.accept(PAR)
        yield started


def answer(question_id: str, verdict: str = "deny") -> session_pb2.AgentMessage:
    return session_pb2.AgentMessage(
        answer=session_pb2.Answer(
            question_id=question_id,
            verdict=verdict,
            codes=["DAT-003"],
            ask_digest=DIGEST,
            decision_digest=DIGEST,
            treaty_revision=1,
            overlay_revision=2,
        )
    )


async def test_a_nation_is_asked_and_its_answer_comes_back(there: World) -> None:
    stream = await there.connect(PAR)
    asked = asyncio.create_task(there.coordinator.core.fleet.ask(PAR, b'{"ask":1}', SOON))
    question = (await stream.next("question")).question
    assert question.ask == b'{"ask":1}'
    await stream.say(answer("nobody-asked"))
    await stream.say(answer(question.question_id))
    said = await asked
    assert (said.verdict, said.codes, said.overlay_revision) == (Verdict.DENY, ("DAT-003",), 2)


async def test_silence_and_a_lost_stream_are_no_answer(there: World) -> None:
    fleet = there.coordinator.core.fleet
    with pytest.raises(Unavailable, match="is not connected"):
        await fleet.ask(PAR, b"{}", SOON)
    stream = await there.connect(PAR)
    with pytest.raises(Unavailable, match=r"did not answer within 0\.05 s"):
        await fleet.ask(PAR, b"{}", timedelta(milliseconds=50))
    asked = asyncio.create_task(fleet.ask(PAR, b"{}", SOON))
    await stream.next("question")
    stream.call.cancel()
    with pytest.raises(Unavailable, match="disconnected"):
        await asked


async def test_an_answer_that_is_no_verdict_ends_the_stream(there: World) -> None:
    stream = await there.connect(PAR)
    await stream.say(answer("q", verdict="maybe"))
    assert (await stream.ended()).details() == "INVALID_INPUT"


async def test_questions_and_queues_are_bounded() -> None:
    cuts: list[str] = []
    connection = Connection(PAR, cuts.append)
    waiting = [asyncio.create_task(connection.ask(b"{}", SOON)) for _ in range(MAX_QUESTIONS)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="32 unanswered questions already"):
        await connection.ask(b"{}", SOON)
    for _ in range(MAX_QUEUED):
        connection.say(ReportRequest())
    assert cuts[0] == "TOO_SLOW"
    connection.end(Unavailable("over"))
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(error, Unavailable) for error in ended)


async def test_a_welcome_proves_the_record_from_where_the_agent_stood(there: World) -> None:
    core = there.coordinator.core
    origin, key = core.trust.charter.log_origin, core.log_key.verification.public
    await core.record.publish()
    first = verify_checkpoint((await there.connect(PAR)).welcome.checkpoint.note, origin, key)
    await core.record.append(there.charters.signed(there.charters.charter(version=2)))
    await core.record.publish()
    stream = await there.connect(PAR, log_size=first.size, log_root=first.root)
    checkpoint = stream.welcome.checkpoint
    second = verify_checkpoint(checkpoint.note, origin, key)
    assert (checkpoint.from_size, second.size > first.size) == (first.size, True)
    proof = list(checkpoint.consistency_proof)
    verify_consistency(first.size, second.size, proof, old_root=first.root, new_root=second.root)


async def test_the_checkpoint_that_an_operator_reads_is_the_one_that_agents_are_shown(there: World) -> None:
    read = await there.operator().GetCheckpoint(operator_pb2.GetCheckpointRequest())
    assert (await there.connect(PAR, delegations=[])).welcome.checkpoint.note == read.note
