"""The asynchronous front: one sync for many, in order, bounded, and honest when it stops or fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from controlplane.record import GroupCommit, LogFiles
from tests.controlplane.record.builders import KEY, ORIGIN, entry, opened
from treaty.errors import ResourceExhausted, Unavailable
from treaty.log import Entry


class SlowLog(LogFiles):
    """A real log that says when it begins to append and waits for leave."""

    begun: threading.Event
    leave: threading.Event

    def append(self, entries: Sequence[Entry]) -> list[int]:
        self.begun.set()
        self.leave.wait()
        return super().append(entries)


class CountingLog(LogFiles):
    """A real log that notes the size of each group, and can be out of room."""

    groups: list[int]
    is_full = False

    def append(self, entries: Sequence[Entry]) -> list[int]:
        if self.is_full:
            raise ResourceExhausted("no room left to append to the log")
        self.groups = [*getattr(self, "groups", []), len(entries)]
        return super().append(entries)


async def stopped(writer: asyncio.Task[None]) -> None:
    writer.cancel()
    await asyncio.wait([writer])
    assert writer.cancelled()


async def test_many_submissions_share_few_syncs_and_keep_their_order(tmp_path: Path) -> None:
    with CountingLog.open(tmp_path, ORIGIN, KEY) as log:
        front = GroupCommit(log, max_group=64)
        writer = asyncio.create_task(front.run())
        indices = await asyncio.gather(*(front.submit(entry(number)) for number in range(200)))
        assert indices == list(range(200))
        assert isinstance(log, CountingLog)
        assert sum(log.groups) == 200
        assert max(log.groups) <= 64
        assert len(log.groups) <= 8
        await stopped(writer)
    with opened(tmp_path) as log:
        assert [log.entry(index).statement for index in range(200)] == [entry(n).statement for n in range(200)]


async def test_an_index_is_durable_and_can_be_published_and_forgotten_through_the_front(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        front = GroupCommit(log)
        writer = asyncio.create_task(front.run())
        assert await front.submit(entry(0)) == 0
        assert log.size == 1
        assert (await front.publish()).checkpoint.size == 1
        await front.forget(0)
        assert log.entry(0).is_forgotten
        await stopped(writer)


async def test_a_failed_group_is_told_to_each_submitter_and_the_next_one_may_succeed(tmp_path: Path) -> None:
    with CountingLog.open(tmp_path, ORIGIN, KEY) as log:
        assert isinstance(log, CountingLog)
        front = GroupCommit(log)
        writer = asyncio.create_task(front.run())
        log.is_full = True
        refused = await asyncio.gather(*(front.submit(entry(n)) for n in range(3)), return_exceptions=True)
        assert [str(err) for err in refused] == ["no room left to append to the log"] * 3
        log.is_full = False
        assert await front.submit(entry(0)) == 0
        await stopped(writer)


async def test_a_group_keeps_to_its_bytes_and_nothing_is_lost_between_groups(tmp_path: Path) -> None:
    large = [Entry(number.to_bytes(32, "big"), bytes([65 + number]) * (1024 * 1024)) for number in range(20)]
    with CountingLog.open(tmp_path, ORIGIN, KEY) as log:
        assert isinstance(log, CountingLog)
        front = GroupCommit(log)
        submissions = [asyncio.create_task(front.submit(one)) for one in large]
        await asyncio.sleep(0)  # let them queue up before the writer starts
        writer = asyncio.create_task(front.run())
        assert await asyncio.gather(*submissions) == list(range(20))
        assert log.groups == [16, 4]
        await stopped(writer)


async def test_a_stopped_writer_finishes_its_group_and_refuses_what_waits(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        front = GroupCommit(log, max_group=1, max_waiting=2)
        submissions = [asyncio.create_task(front.submit(entry(number))) for number in range(6)]
        writer = asyncio.create_task(front.run())
        while not any(submission.done() for submission in submissions):
            await asyncio.wait(submissions, return_when=asyncio.FIRST_COMPLETED)
        await stopped(writer)
        outcomes = await asyncio.gather(*submissions, return_exceptions=True)
        recorded = [outcome for outcome in outcomes if isinstance(outcome, int)]
        refused = [outcome for outcome in outcomes if isinstance(outcome, Unavailable)]
        assert recorded == list(range(log.size))
        assert len(recorded) + len(refused) == 6
        with pytest.raises(Unavailable, match="the log's writer has stopped"):
            await front.submit(entry(9))


async def test_a_writer_is_not_done_before_the_disk_is(tmp_path: Path) -> None:
    with SlowLog.open(tmp_path, ORIGIN, KEY) as log:
        assert isinstance(log, SlowLog)
        log.begun, log.leave = threading.Event(), threading.Event()
        front = GroupCommit(log)
        submission = asyncio.create_task(front.submit(entry(0)))
        writer = asyncio.create_task(front.run())
        await asyncio.to_thread(log.begun.wait)
        writer.cancel()
        done, _ = await asyncio.wait([writer, submission], timeout=0.05)
        assert not done
        log.leave.set()
        assert await submission == 0
        await asyncio.wait([writer])
        assert log.size == 1


async def test_a_full_queue_makes_submitters_wait_and_loses_none(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        front = GroupCommit(log, max_group=4, max_waiting=4)
        writer = asyncio.create_task(front.run())
        indices = await asyncio.gather(*(front.submit(entry(number)) for number in range(50)))
        assert sorted(indices) == list(range(50))
        await stopped(writer)


async def test_a_submitter_that_gave_up_while_waiting_leaves_nothing_behind(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        front = GroupCommit(log)
        given_up = asyncio.create_task(front.submit(entry(0)))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait([given_up])
        writer = asyncio.create_task(front.run())
        assert await front.submit(entry(1)) == 0
        assert log.entry(0).statement == entry(1).statement
        await stopped(writer)
