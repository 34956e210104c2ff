"""Moves the open runs, each on its own: the one writer of their status.

Rules:
1. an open run has one task at most, and so one writer; a run that waits for its worker, hangs or fails holds up no
   other. How many workers compute at once is `federation.workers`' to bound;
2. a task reads what is durable (plan, rounds, contributions), makes the moves that `controlplane.domain.run` names
   until one ends in waiting, and is over. Events and verbs only say "look now", at one run or at all; a run that is
   moving when one comes is looked at once more afterwards;
3. a run's status says what its rounds say, whenever it is looked at;
4. a refusal that comes `ATTEMPTS` times in a row is not going to pass: the run fails with it, before its first round
   and between two as well; what may pass by itself (a full disk, a worker that is not there) has `PATIENCE`, and an
   open round goes on to its deadline;
5. updates are deleted when the run has ended and the retention is over, all of a run together.

All tasks are in one group: cancelling `run` ends every one of them and waits for it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from controlplane.artifacts.spool import UpdateSpool
from controlplane.domain import run as planner
from controlplane.services.ports import NO_TRACE, TRACE_ANNOTATION, Clock
from controlplane.services.run_arrays import RunArrays
from controlplane.services.run_driver import RunDriver
from controlplane.services.run_news import RunNews, heard
from controlplane.services.run_planning import Run
from controlplane.services.run_status import finished, is_ended
from controlplane.store import Store
from treaty.errors import FoedusError, ResourceExhausted, Unavailable
from treaty.names import Digest, RunId, run_id
from treaty.resources.runs import FEDERATED_RUN

log = structlog.get_logger(__name__)

TICK = timedelta(seconds=1)
"""Deadlines pass without an event; nobody waits for one much longer than this."""
ATTEMPTS = 5
PATIENCE = timedelta(minutes=10)
"""Long enough for a person to free a disk, short enough that nobody waits a day for a run that cannot begin."""
DEFAULT_RETENTION = timedelta(days=30)


@dataclass(slots=True)
class _Failures:
    """Of one run, in a row."""

    since: datetime
    count: int = 0


class RunReconciler:
    """`run` is a task of the process; `wake` may be called from anywhere on the loop."""

    def __init__(
        self,
        store: Store,
        driver: RunDriver,
        arrays: RunArrays,
        spool: UpdateSpool,
        news: RunNews,
        clock: Clock,
        *,
        retention: timedelta = DEFAULT_RETENTION,
    ) -> None:
        self._store = store
        self._driver = driver
        self._arrays = arrays
        self._spool = spool
        self._news = news
        self._clock = clock
        self._retention = retention
        self._wake = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._moving: set[RunId] = set()
        self._again: set[RunId] = set()
        self._swept: set[RunId] = set()
        self._failures: dict[RunId, _Failures] = {}

    def wake(self) -> None:
        """Something may have changed: look at every run soon."""
        self._wake.set()

    def wake_run(self, run: RunId) -> None:
        """Something changed in this run: look at it now if it is open. A run that is not known yet, the tick finds."""
        if run in self._moving:
            self._again.add(run)
        elif self._tasks is not None and self._news.is_open(run):
            self._begin(self._tasks, run)

    async def run(self) -> None:
        """Look on every event and every tick. Never returns."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                await self._keep_looking(tasks)
            finally:
                self._tasks = None

    async def _keep_looking(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            self._wake.clear()
            try:
                await self._look(tasks)
            except FoedusError as err:
                log.warning("runs not looked at", code=err.code, exc_info=err)
            await heard(self._wake, TICK)

    async def reconcile(self) -> None:
        """Let every run move until it has to wait, and wait for all of them."""
        async with asyncio.TaskGroup() as tasks:
            await self._look(tasks)

    async def _look(self, tasks: asyncio.TaskGroup) -> None:
        """Begin a task for each run that has none and has something to do (rule 1)."""
        for resource in await self._store.resources.all(FEDERATED_RUN):
            run = run_id(resource.name)
            if run in self._moving:
                self._again.add(run)
            elif not is_ended(resource.status):
                self._news.open(run)
                self._begin(tasks, run)
            elif run not in self._swept and self._is_kept_long_enough(resource):
                self._begin(tasks, run)

    def _begin(self, tasks: asyncio.TaskGroup, run: RunId) -> None:
        self._moving.add(run)
        tasks.create_task(self._move(run), name=f"run {run}")

    async def _move(self, run: RunId) -> None:
        """One run's task (rule 2)."""
        is_moved = False
        try:
            while not is_moved:
                self._again.discard(run)
                try:
                    await self._drive(run)
                except FoedusError as err:
                    log.warning("run not driven", run=run, code=err.code, exc_info=err)
                    await self._count_failure(run, err)
                is_moved = run not in self._again
        finally:
            self._moving.discard(run)
            self._again.discard(run)

    async def _drive(self, run: RunId) -> None:
        """Make moves until one ends in waiting."""
        is_waiting = False
        while not is_waiting:
            resource = await self._observed(run)
            if is_ended(resource.status):
                await self._sweep(run, resource)
                return
            move = await self._driver.next_move(run, is_cancelled=resource.spec.cancelled)
            if isinstance(move, planner.Finish):
                await self._finish(run, resource, move)
                return
            trace_id = resource.metadata.annotations.get(TRACE_ANNOTATION, NO_TRACE)
            is_waiting = not await self._driver.make(run, move, trace_id)
            self._failures.pop(run, None)

    async def _observed(self, run: RunId) -> Run:
        """The run with a status that says what is durable (rule 3)."""
        resource = await self._store.resources.get(FEDERATED_RUN, run)
        if is_ended(resource.status):
            return resource
        status = await self._driver.observed(run, resource.status)
        return resource if status == resource.status else await self._store_status(replace(resource, status=status))

    async def _finish(self, run: RunId, resource: Run, move: planner.Finish) -> None:
        result = await self._driver.end(run, has_result=move.has_succeeded, reason=move.message)
        await self._store_end(run, resource, move, result)

    async def _store_end(self, run: RunId, resource: Run, move: planner.Finish, result: Digest | None) -> None:
        self._arrays.forget(run)
        refusals = await self._driver.refusals(run)
        await self._store_status(finished(resource, move, result, refusals, self._clock()))
        self._news.close(run)

    async def _store_status(self, changed: Run) -> Run:
        stored = await self._store.resources.update_status(changed)
        self._news.ring()
        return stored

    async def _count_failure(self, run: RunId, err: FoedusError) -> None:
        """Rule 4."""
        failures = self._failures.setdefault(run, _Failures(self._clock()))
        failures.count += 1
        may_pass = isinstance(err, ResourceExhausted | Unavailable)
        if failures.count < ATTEMPTS or (may_pass and self._clock() < failures.since + PATIENCE):
            return
        try:
            if await self._driver.is_collecting(run):
                return
            await self._give_up(run, f"{err.code}: {err.message}")
            self._failures.pop(run, None)
        except FoedusError as failed:
            log.warning("run not given up", run=run, code=failed.code, exc_info=failed)

    async def _give_up(self, run: RunId, reason: str) -> None:
        if await self._driver.give_up(run, reason):
            return  # the next move is to finish
        resource = await self._observed(run)
        failed = planner.Finish("RunFailed", reason, has_succeeded=False)
        try:
            await self._finish(run, resource, failed)
        except FoedusError as err:
            # Its plan cannot be read, or its worker cannot be ended: agents are told when they are back.
            log.warning("run not ended in order", run=run, code=err.code, exc_info=err)
            await self._store_end(run, resource, failed, None)

    def _is_kept_long_enough(self, resource: Run) -> bool:
        moments = [c.last_transition_time for c in resource.status.conditions if c.last_transition_time]
        return bool(moments) and self._clock() >= max(moments) + self._retention

    async def _sweep(self, run: RunId, resource: Run) -> None:
        """Rule 5."""
        if self._is_kept_long_enough(resource):
            await asyncio.to_thread(self._spool.delete_run, run)
            self._swept.add(run)
