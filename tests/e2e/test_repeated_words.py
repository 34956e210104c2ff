"""A nation's own agent, or who holds its certificate, that says things twice, early or late: nothing counts twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest

from tests.e2e.processes import eventually, hold, release
from tests.e2e.test_foreign_hands import channel
from tests.e2e.treaty_world import TreatyWorld
from treaty.update import parse_header
from treaty.wire.v1 import transfer_pb2, transfer_pb2_grpc

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("e2e")]

RUN = "repeated"


@dataclass(frozen=True, slots=True)
class Words:
    """An update as its agent is about to send it; `values` are its chunks, in order."""

    round: int
    header: bytes
    metrics: bytes
    receipt: bytes
    values: tuple[bytes, ...]

    def frames(self) -> Iterator[transfer_pb2.UpdateFrame]:
        yield transfer_pb2.UpdateFrame(
            opening=transfer_pb2.UpdateOpening(
                run=RUN, round=self.round, header=self.header, receipt=self.receipt, metrics=self.metrics
            )
        )
        for chunk in self.values:
            yield transfer_pb2.UpdateFrame(chunk=chunk)


def test_an_update_sent_twice_early_and_late_is_counted_once(treaty: TreatyWorld, reference: bytes) -> None:
    treaty.start_run(RUN)
    quick, slow = treaty.trainer("FR"), treaty.trainer("DE")  # DE keeps the round open
    hold(slow)
    hold(quick)
    try:
        treaty.lines["FR"].cut()
        release(quick)
        eventually("FR's receipt is journaled", lambda: treaty.receipts("FR", RUN))
        words = about_to_be_sent(treaty)

        assert refused(treaty, replace(words, round=2)) == (grpc.StatusCode.FAILED_PRECONDITION, "LATE")
        broken = refused(treaty, replace(words, values=(*words.values, words.values[0])))
        assert broken[0] is grpc.StatusCode.INVALID_ARGUMENT
        assert not treaty.spooled(RUN, 1, "FR").exists()

        first, second = sent(treaty, words), sent(treaty, words)
        assert (first.was_known, second.was_known) == (False, True)
        assert (second.log_index, second.update_digest) == (first.log_index, first.update_digest)

        treaty.lines["FR"].mend()  # and now the agent itself

        def confirmed() -> bool:
            return treaty.receipts("FR", RUN)[0]["log_index"] == first.log_index

        eventually("the agent is told the same", confirmed)
    finally:
        treaty.lines["FR"].mend()
        release(quick)
        release(slow)
    assert treaty.run_ended(RUN)["reason"] == "AllRoundsDone"
    assert treaty.arrays(RUN, 2) == reference
    assert refused(treaty, words) == (grpc.StatusCode.FAILED_PRECONDITION, "LATE")
    assert treaty.arrays(RUN, 2) == reference


def about_to_be_sent(treaty: TreatyWorld) -> Words:
    """What FR's agent keeps ready for round 1 and cannot send."""
    folder: Path = treaty.home("FR") / "outgoing" / RUN / "1"
    encoded, values = (folder / "header.json").read_bytes(), (folder / "values.bin").read_bytes()
    header, chunks, at = parse_header(encoded), [], 0
    for index in range(header.chunk_count):
        chunks.append(values[at : at + header.chunk_length(index)])
        at += len(chunks[-1])
    receipt = treaty.receipts("FR", RUN)[0]["envelope"].encode("ascii")
    return Words(1, encoded, (folder / "metrics.json").read_bytes(), receipt, tuple(chunks))


def sent(treaty: TreatyWorld, words: Words) -> transfer_pb2.UpdateAccepted:
    """The coordinator's answer to FR. Raises: grpc.RpcError."""
    with channel(treaty) as opened:
        answer: transfer_pb2.UpdateAccepted = transfer_pb2_grpc.UpdatesStub(opened).Send(words.frames(), timeout=20)
    return answer


def refused(treaty: TreatyWorld, words: Words) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as said:
        sent(treaty, words)
    return said.value.code(), said.value.details()
