"""What leaves, under which conditions, and what is on disk before it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from node_agent.agent import Foundation
from node_agent.border import BRAKE_ON, EGRESS, GrpcBorder
from node_agent.brake import JournalBrake
from node_agent.ports import Permit, UpdateOpening
from tests.node_agent.core.coordinator import Coordinator, coordinator
from tests.node_agent.core.directives import number
from tests.node_agent.core.nation import FR, Joined, nation
from treaty import statement
from treaty.delegation import verify_delegation
from treaty.errors import PolicyDenied, Unavailable
from treaty.names import PartyCode, RunId, digest_of
from treaty.receipt import Crossing, Receipt, parse_receipt, verify_receipt

HEADER = b'{"header":1}'
DECISION, ASK = digest_of(b"decision"), digest_of(b"ask")
PERMIT = Permit(EGRESS, is_allowed=True, ask_digest=ASK, decision_digest=DECISION)
OPENING = UpdateOpening(RunId("run-1"), 1, number(4), HEADER, b"{}", "ab" * 16)
RECEIPT = Receipt(
    nation=FR,
    agent="par-1",
    crossing=Crossing.UPDATE,
    digest=digest_of(HEADER),
    shape_digest=digest_of(b"shape"),
    size_bytes=8,
    destination=PartyCode("EU"),
    run="run-1",
    round=1,
    examples=64,
    decision_digest=DECISION,
    ask_digest=ASK,
    clip_norm_micro=1_000_000,
    sandbox=("landlock", "seccomp"),
    trace_id="ab" * 16,
    issued_at=datetime.now(UTC).replace(microsecond=0),
)
CHUNKS = [b"1234", b"5678"]


@dataclass
class Setting:
    joined: Joined
    base: Foundation
    border: GrpcBorder
    hub: Coordinator


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    joined = nation(tmp_path, settings=f"tap: {tmp_path / 'tap'}\n")
    async with coordinator(joined) as (hub, port):
        joined.join(f"localhost:{port}")
        base = joined.lay()
        border = GrpcBorder(base.connections, base.journal, base.nation, JournalBrake(base.journal))
        yield Setting(joined, base, border, hub)
        await base.connections.close()
        base.close()


async def test_an_update_leaves_with_a_receipt_that_is_on_disk_before_its_first_byte(setting: Setting) -> None:
    journaled: list[int] = []
    setting.hub.on_opening = lambda: journaled.append(len(setting.base.journal.crossings.receipts()))
    accepted = await setting.border.send_update(OPENING, RECEIPT, PERMIT, CHUNKS)
    assert (accepted.update_digest, accepted.log_index, accepted.was_known) == (digest_of(HEADER), 3, False)
    assert journaled == [1]
    opening, *chunks = setting.hub.frames
    assert [frame.chunk for frame in chunks] == CHUNKS
    delegation = verify_delegation(
        setting.joined.charter, setting.base.nation.delegation_envelopes()[0], datetime.now(UTC)
    )
    sent, _ = verify_receipt(opening.opening.receipt, [delegation], datetime.now(UTC))
    assert sent == RECEIPT
    (written,) = setting.base.journal.crossings.receipts()
    assert (written.envelope, written.log_index) == (opening.opening.receipt, 3)


async def test_everything_that_left_is_counted_by_class_and_stands_in_the_tap(setting: Setting, tmp_path: Path) -> None:
    await setting.border.send_update(OPENING, RECEIPT, PERMIT, CHUNKS)
    frames = [frame.SerializeToString() for frame in setting.hub.frames]
    assert (tmp_path / "tap").read_bytes() == b"".join(frames)
    assert setting.base.journal.crossings.counts() == {
        "update-opening": (1, len(frames[0])),
        "update-chunk": (2, len(frames[1]) + len(frames[2])),
    }


@pytest.mark.parametrize(
    ("permit", "receipt", "code"),
    [
        (replace(PERMIT, is_allowed=False), RECEIPT, "NO_PERMIT"),
        (replace(PERMIT, point="dataset.use"), RECEIPT, "NO_PERMIT"),
        (replace(PERMIT, decision_digest=ASK), RECEIPT, "RECEIPT_MISMATCH"),
        (PERMIT, replace(RECEIPT, digest=ASK), "RECEIPT_MISMATCH"),
        (PERMIT, replace(RECEIPT, nation=PartyCode("DE")), "RECEIPT_MISMATCH"),
        (PERMIT, replace(RECEIPT, agent="par-2"), "RECEIPT_MISMATCH"),
        (PERMIT, replace(RECEIPT, crossing=Crossing.EVALUATION), "RECEIPT_MISMATCH"),
    ],
)
async def test_without_the_right_decision_and_receipt_nothing_leaves(
    setting: Setting, permit: Permit, receipt: Receipt, code: str
) -> None:
    with pytest.raises(PolicyDenied) as refused:
        await setting.border.send_update(OPENING, receipt, permit, CHUNKS)
    assert refused.value.codes == (code,)
    assert setting.hub.frames == []
    assert setting.base.journal.crossings.receipts() == []
    assert setting.base.journal.crossings.counts() == {}


async def test_under_the_brake_nothing_leaves(setting: Setting) -> None:
    setting.base.journal.set_brake(is_on=True)
    with pytest.raises(PolicyDenied, match="the brake is on") as refused:
        await setting.border.send_update(OPENING, RECEIPT, PERMIT, CHUNKS)
    assert refused.value.codes == (BRAKE_ON,)
    assert setting.hub.frames == []


async def test_the_brake_cuts_an_update_on_its_way(setting: Setting) -> None:
    setting.hub.hold_updates.clear()
    setting.hub.on_opening = setting.border.cut
    with pytest.raises(PolicyDenied, match="the update was cut"):
        await setting.border.send_update(OPENING, RECEIPT, PERMIT, CHUNKS)
    assert len(setting.base.journal.crossings.receipts()) == 1


async def test_cancelling_whoever_sends_is_a_cancellation_and_not_the_brake(setting: Setting) -> None:
    setting.hub.hold_updates.clear()
    sending = asyncio.ensure_future(setting.border.send_update(OPENING, RECEIPT, PERMIT, CHUNKS))

    def cancel() -> None:
        sending.cancel()

    setting.hub.on_opening = cancel
    with pytest.raises(asyncio.CancelledError):
        await sending


async def test_an_update_larger_than_its_receipt_says_is_ended(setting: Setting) -> None:
    with pytest.raises(PolicyDenied, match="larger than its receipt"):
        await setting.border.send_update(OPENING, RECEIPT, PERMIT, [*CHUNKS, b"9"])
    assert all(frame.chunk != b"9" for frame in setting.hub.frames)


async def test_killed_between_receipt_and_send_the_same_receipt_is_used_again(setting: Setting) -> None:
    envelope, _ = setting.border._journal_receipt(RECEIPT)
    again = replace(RECEIPT, issued_at=datetime.now(UTC).replace(microsecond=0, year=2027))
    await setting.border.send_update(OPENING, again, PERMIT, CHUNKS)
    assert setting.hub.frames[0].opening.receipt == envelope
    assert len(setting.base.journal.crossings.receipts()) == 1


@pytest.mark.parametrize("changed", [{"destination": PartyCode("NATO")}, {"ask_digest": digest_of(b"another ask")}])
async def test_the_same_bytes_to_another_party_or_on_another_ask_have_a_receipt_of_their_own(
    setting: Setting, changed: dict[str, object]
) -> None:
    await setting.border.send_update(OPENING, RECEIPT, PERMIT, CHUNKS)
    other = replace(RECEIPT, **changed)  # type: ignore[arg-type]
    await setting.border.send_update(OPENING, other, replace(PERMIT, ask_digest=other.ask_digest), CHUNKS)
    written = setting.base.journal.crossings.receipts()
    assert [parse_receipt(statement.unverified(each.envelope)) for each in written] == [RECEIPT, other]
    sent = [frame.opening.receipt for frame in setting.hub.frames if frame.opening.receipt]
    assert sent == [each.envelope for each in written]


async def test_an_update_that_finds_no_room_waits_here_and_comes_again_under_its_receipt(setting: Setting) -> None:
    setting.hub.is_full = True
    with pytest.raises(Unavailable, match="the coordinator has no room for this update now") as refused:
        await setting.border.send_update(OPENING, RECEIPT, PERMIT, CHUNKS)
    assert refused.value.code == "RESOURCE_EXHAUSTED"
    setting.hub.is_full = False
    await setting.border.send_update(OPENING, RECEIPT, PERMIT, CHUNKS)
    (written,) = setting.base.journal.crossings.receipts()
    assert written.log_index == 3


async def test_once_the_log_contradicted_itself_no_update_leaves(setting: Setting) -> None:
    setting.border.halt("LOG_INCONSISTENT")
    with pytest.raises(PolicyDenied) as refused:
        await setting.border.send_update(OPENING, RECEIPT, PERMIT, CHUNKS)
    assert refused.value.codes == ("LOG_INCONSISTENT",)


async def test_an_update_without_a_coordinator_is_unavailable_and_keeps_its_receipt(tmp_path: Path) -> None:
    joined = nation(tmp_path)
    joined.join("localhost:1")
    base = joined.lay()
    border = GrpcBorder(base.connections, base.journal, base.nation, JournalBrake(base.journal))
    with pytest.raises(Unavailable, match="the coordinator"):
        await border.send_update(OPENING, RECEIPT, PERMIT, CHUNKS)
    assert len(base.journal.crossings.receipts()) == 1
    base.close()
