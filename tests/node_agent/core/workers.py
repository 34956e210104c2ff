"""Workers that do nothing but remember, for tests of the core."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from node_agent.directives import AbortRollout, Deploy, Directive, EndRun, LoadTreatyPolicy, Question, Round
from node_agent.ports import NationAnswer
from treaty.errors import FoedusError
from treaty.names import digest_of
from treaty.policy.questions import ObservedSubject


class FakeWorkers:
    """`done` is what ended by itself, `cancelled` what did not; work lasts until `release` is set."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.done: list[str] = []
        self.cancelled: list[str] = []
        self.release = asyncio.Event()
        self.release.set()
        self.admission_error: FoedusError | None = None
        self.work_error: FoedusError | None = None
        self.enrolled: list[ObservedSubject] = []
        self.enrol_error: FoedusError | None = None
        self.changes = 0
        self.stopped = False
        self.moved = asyncio.Event()

    async def start(self) -> None: ...

    async def stop(self) -> None:
        self.stopped = True

    async def admit(self, directive: Directive) -> None:
        if self.admission_error is not None:
            raise self.admission_error

    async def _work(self, directive: Directive) -> None:
        name = f"{type(directive.action).__name__} {directive.number}"
        self.begun.append(name)
        self.moved.set()
        try:
            await self.release.wait()
            if self.work_error is not None:
                raise self.work_error
        except asyncio.CancelledError:
            self.cancelled.append(name)
            self.moved.set()
            raise
        self.done.append(name)
        self.moved.set()

    async def until(self, seen: list[str], name: str) -> None:
        """Wait until `name` stands in one of the lists above."""
        async with asyncio.timeout(5):
            while name not in seen:
                self.moved.clear()
                await self.moved.wait()

    async def deploy(self, directive: Directive, action: Deploy) -> None:
        await self._work(directive)

    async def abort(self, directive: Directive, action: AbortRollout) -> None:
        await self._work(directive)

    async def round(self, directive: Directive, action: Round) -> None:
        await self._work(directive)

    async def end_run(self, directive: Directive, action: EndRun) -> None:
        await self._work(directive)

    async def load_policy(self, directive: Directive, action: LoadTreatyPolicy) -> None:
        await self._work(directive)

    async def answer(self, question: Question) -> NationAnswer:
        if self.work_error is not None:
            raise self.work_error
        return NationAnswer("deny", ("PLC-001",), digest_of(question.ask), digest_of(b"decision"), 1, 2)

    async def enrol(self, subject: ObservedSubject) -> None:
        self.enrolled.append(subject)
        if self.enrol_error is not None:
            raise self.enrol_error

    async def journal_changed(self) -> None:
        self.changes += 1

    def readiness(self) -> Mapping[str, bool]:
        return {"policy": True, "serving": True, "training": True}

    def conditions(self) -> Mapping[str, str]:
        return {}
