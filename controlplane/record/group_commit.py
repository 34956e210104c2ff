"""How do many tasks get durable answers without a disk sync each?

Whoever has something to record submits it and waits; one writer task takes whatever is waiting, up to a bound, and
commits it as one group in a thread. While that group is on its way to the disk the next one gathers, so the group grows
with the load and a lone submission waits for one sync only.

Rules: an index comes back only after the sync; order of submission is order in the log; the queue is bounded, and a
full one makes submitters wait; a submitter that gives up may still find its entry recorded. Deadlines are the caller's.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from controlplane.record.log_files import MAX_GROUP_BYTES, LogFiles
from treaty.errors import FoedusError, Unavailable
from treaty.log import Entry, SignedCheckpoint

MAX_GROUP = 512
MAX_WAITING = 4096

_Waiting = tuple[Entry, "asyncio.Future[int]"]


class GroupCommit:
    """The asynchronous front of a log. `run` is a task of the process; without it nothing is recorded."""

    def __init__(self, log: LogFiles, *, max_group: int = MAX_GROUP, max_waiting: int = MAX_WAITING) -> None:
        self._log = log
        self._max_group = max_group
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue(max_waiting)
        self._left_over: _Waiting | None = None  # taken from the queue, but too large for its group
        self._is_stopped = False
        # A thread of its own: behind others' hashing in the default pool, every record would wait.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="log-writer")

    async def submit(self, entry: Entry) -> int:
        """Record an entry; returns its index once it is durable.

        Raises:
            ResourceExhausted, Corrupt: it was not recorded, and why.
            Unavailable: the writer has stopped.
        """
        self._check()
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        await self._waiting.put((entry, done))
        if self._is_stopped:  # it stopped while this entry waited for room
            self._refuse_waiting()
        return await done

    async def publish(self) -> SignedCheckpoint:
        """Sign a checkpoint of everything durable now, off the event loop."""
        self._check()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._log.publish)

    async def forget(self, index: int) -> None:
        """Delete salt and statement of a leaf (see `LogFiles.forget`), off the event loop."""
        self._check()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._log.forget, index)

    async def run(self) -> None:
        """Commit groups until cancelled. The group under way is finished first; what still waits is refused."""
        try:
            while True:
                await self._commit(await self._gather())
        finally:
            self._is_stopped = True
            self._refuse_waiting()
            self._thread.shutdown(wait=False)

    async def _gather(self) -> list[_Waiting]:
        """Everything that waits now, at least one, within the bounds of a group."""
        first = self._left_over or await self._waiting.get()
        self._left_over = None
        group, size = [first], len(first[0].statement)
        while len(group) < self._max_group and not self._waiting.empty():
            item = self._waiting.get_nowait()
            size += len(item[0].statement)
            if size > MAX_GROUP_BYTES:
                self._left_over = item
                break
            group.append(item)
        return [item for item in group if not item[1].cancelled()]

    async def _commit(self, group: list[_Waiting]) -> None:
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._log.append, [entry for entry, _ in group])
        work.add_done_callback(partial(_tell, group))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])  # one sync: the disk is already at it, and its submitters wait for the truth
            raise
        except FoedusError:
            return  # its submitters were told; the next group may find room again

    def _refuse_waiting(self) -> None:
        left_over = [self._left_over] if self._left_over else []
        self._left_over = None
        for _, done in left_over:
            _refuse(done)
        while not self._waiting.empty():
            _refuse(self._waiting.get_nowait()[1])

    def _check(self) -> None:
        if self._is_stopped:
            raise _stopped()


def _tell(group: list[_Waiting], work: asyncio.Future[list[int]]) -> None:
    error = work.exception()
    for at, (_, done) in enumerate(group):
        if done.done():
            continue  # its submitter gave up
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(work.result()[at])


def _refuse(done: asyncio.Future[int]) -> None:
    if not done.done():
        done.set_exception(_stopped())


def _stopped() -> Unavailable:
    return Unavailable("the log's writer has stopped", remedy="retry when the coordinator is up")
