"""The agent's one event loop: what happens goes in, `AgentState` decides, and the executor does it, in order.

    session ─┐
    brake  ──┤→ inbox (bounded) → state → executor → journal, stream, border at once; admission, questions, jobs apart
    jobs   ──┤
    ticks  ──┘

Rules:
1. one task takes events from the inbox and carries out the instructions of one before it takes the next, so what was
   recorded is recorded before it is acknowledged;
2. nothing that waits for anybody is awaited there;
3. a full inbox holds back whoever fills it, the stream included;
4. an error that is not of one job ends the process: a supervisor starts it again from the journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from node_agent import events
from node_agent.brake import JournalBrake
from node_agent.events import Event
from node_agent.executor import Executor
from node_agent.journal import SqliteJournal
from node_agent.ports import Clock, Workers
from node_agent.state import AgentState

log = structlog.get_logger(__name__)

INBOX: Final = 1024
TICK_SECONDS: Final = 0.25

Service = Callable[[], Awaitable[None]]


class Inbox:
    """Events on their way to the state; bounded."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Event] = asyncio.Queue(INBOX)
        self._is_report_pending = False

    async def put(self, event: Event) -> None:
        """Waits while it is full."""
        await self._queue.put(event)

    def report_changed(self) -> None:
        """As `put(ReportChanged())`, at once; several before the first is taken count as one."""
        if not self._is_report_pending and not self._queue.full():
            self._is_report_pending = True
            self._queue.put_nowait(events.ReportChanged())

    async def take(self) -> Event:
        event = await self._queue.get()
        if isinstance(event, events.ReportChanged):
            self._is_report_pending = False
        return event


class AgentLoop:
    """Runs until `stop`. `services` are tasks that live as long as the loop (the session, tallies, metrics)."""

    def __init__(
        self,
        state: AgentState,
        inbox: Inbox,
        executor: Executor,
        journal: SqliteJournal,
        brake: JournalBrake,
        workers: Workers,
        clock: Clock,
    ) -> None:
        self._state = state
        self._inbox = inbox
        self._executor = executor
        self._journal = journal
        self._brake = brake
        self._workers = workers
        self._clock = clock
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End in order: jobs are cancelled and clean up, then children are stopped."""
        self._stopping.set()

    async def run(self, *services: Service) -> None:
        try:
            await self._workers.start()
            async with asyncio.TaskGroup() as tasks:
                own = (self._consume, self._tick, self._watch_brake, self._watch_journal)
                running = [tasks.create_task(_run(service), name=service.__name__) for service in (*own, *services)]
                running += self._executor.start(tasks)
                for instruction in self._state.begin():
                    self._executor.carry_out(instruction)
                await self._stopping.wait()
                self._executor.stop()
                for task in running:
                    task.cancel()
        finally:
            await asyncio.shield(self._workers.stop())

    async def _consume(self) -> None:
        while True:
            event = await self._inbox.take()
            for instruction in self._state.handle(event, self._clock.now()):
                self._executor.carry_out(instruction)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            await self._inbox.put(events.Tick())

    async def _watch_brake(self) -> None:
        async def moved(is_on: bool) -> None:
            log.warning("brake moved", is_on=is_on)
            if is_on:
                self._executor.cut()
            await self._inbox.put(events.BrakeMoved(is_on))

        await self._brake.watch(moved)

    async def _watch_journal(self) -> None:
        generation = self._journal.generation
        while True:
            generation = await self._journal.changed(generation)
            await self._workers.journal_changed()


async def _run(service: Service) -> None:
    await service()
