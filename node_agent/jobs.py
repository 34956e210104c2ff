"""The work that directives started: at most one job per subject, the newest, each ended before the next begins.

A job that the coordinator's absence stopped is taken up again with growing pauses as long as it is the newest of its
subject; jobs are idempotent by number. A job that failed in any other way is over: its codes are reported, its texts
stay in the log of this machine.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import structlog

from node_agent.directives import Directive
from treaty.errors import FoedusError, PolicyDenied, Unavailable

log = structlog.get_logger(__name__)

FIRST_PAUSE_SECONDS: Final = 0.5
MAX_PAUSE_SECONDS: Final = 30.0

Work = Callable[[Directive], Awaitable[None]]
Ended = Callable[[Directive, tuple[str, ...]], Awaitable[None]]
"""Told when a job is over by itself; codes are empty where it succeeded. Not told of cancelled ones."""


class Jobs:
    def __init__(self, tasks: asyncio.TaskGroup, work: Work, ended: Ended) -> None:
        self._tasks = tasks
        self._work = work
        self._ended = ended
        self._running: dict[str, asyncio.Task[None]] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    def start(self, directive: Directive) -> None:
        """Begin `directive`'s job after ending the one that its subject had."""
        subject = directive.subject
        self.stop(subject)
        task = self._tasks.create_task(self._in_turn(directive), name=f"{subject} {directive.number}")
        self._running[subject] = task
        task.add_done_callback(lambda done: self._forget(subject, done))

    def stop(self, subject: str) -> None:
        if task := self._running.get(subject):
            task.cancel()

    def stop_all(self) -> None:
        for task in tuple(self._running.values()):
            task.cancel()

    @property
    def subjects(self) -> tuple[str, ...]:
        return tuple(sorted(self._running))

    def _forget(self, subject: str, task: asyncio.Task[None]) -> None:
        if self._running.get(subject) is task:
            del self._running[subject]
            self._turns.pop(subject, None)

    async def _in_turn(self, directive: Directive) -> None:
        """Wait until the predecessor has cleaned up, then work. Cancellation ends this job quietly."""
        turn = self._turns.setdefault(directive.subject, asyncio.Lock())
        with suppress(asyncio.CancelledError):
            async with turn:
                codes = await self._until_done(directive)
            try:
                await self._ended(directive, codes)
            except FoedusError as err:  # the end of one job: what is not noted is taken up again at the next start
                log.exception("the end of work was not noted", number=str(directive.number), code=err.code)

    async def _until_done(self, directive: Directive) -> tuple[str, ...]:
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                await self._work(directive)
            except Unavailable as err:
                log.info("work waits for the coordinator", subject=directive.subject, code=err.code)
                await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311  jitter, not a secret
                pause = min(2 * pause, MAX_PAUSE_SECONDS)
            except FoedusError as err:
                number = str(directive.number)
                log.warning("work failed", subject=directive.subject, number=number, code=err.code, exc_info=err)
                return err.codes if isinstance(err, PolicyDenied) and err.codes else (err.code,)
            except Exception:  # the boundary of one job: others go on
                log.exception("work failed", subject=directive.subject, number=str(directive.number))
                return ("INTERNAL",)
            else:
                return ()
