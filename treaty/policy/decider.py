"""The door to policy for the rest of the program: put bundles in force, keep registers, decide.

In a nation a decision is treaty AND overlay; at the coordinator `preflight` asks the treaty alone and promises nothing.
A bundle is put in force only once it gives, on this very engine, each answer that it ships as a vector; otherwise the
one before stays. Outside its validity a bundle still answers what only goes on serving (`infer.purpose`), and denies
everything else. A `Decider` never raises for what a policy or an engine does wrong: that is a deny, with its code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from treaty.policy import decision
from treaty.policy.answer import Answer
from treaty.policy.bundle import VerifiedBundle
from treaty.policy.decision import Decision
from treaty.policy.engine import OVERLAY, TREATY, Engine, Rehearsed, answer
from treaty.policy.questions import Ask, DecisionPoint, Observed, Question
from treaty.policy.registers import Registers
from treaty.strict_json import JsonObject

DEADLINE_SECONDS = 0.5

# What goes on whatever the age of the policy: a silent coordinator never stops a nation from serving what it has.
_SERVING = frozenset({DecisionPoint.INFER_PURPOSE})


@dataclass(frozen=True, slots=True)
class _InForce:
    verified: VerifiedBundle
    not_before_ns: int
    not_after_ns: int

    def is_current(self, now_ns: int | None) -> bool:
        return now_ns is not None and self.not_before_ns <= now_ns < self.not_after_ns


class Decider:
    """Decides by the bundles in force. One per process; used from one event loop, safe to ask concurrently."""

    def __init__(self, engine: Engine, *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        """`deadline_seconds`: how long one authority may take to answer before the answer is no."""
        self._engine = engine
        self._deadline_seconds = deadline_seconds
        self._registers = Registers()
        self._in_force: dict[str, _InForce] = {}
        self._changes = asyncio.Lock()

    @property
    def revisions(self) -> Mapping[str, int]:
        """Revision in force by authority."""
        return {held.verified.bundle.authority: held.verified.bundle.revision for held in self._in_force.values()}

    def are_both_current(self, now: datetime) -> bool:
        """Whether a bundle of each authority is in force and within its validity: without, all but serving is a no."""
        held, now_ns = [self._in_force.get(slot) for slot in (TREATY, OVERLAY)], nanoseconds(now)
        return all(each is not None and each.is_current(now_ns) for each in held)

    async def put_in_force(self, verified: VerifiedBundle) -> None:
        """Swap in a bundle that `treaty.policy.bundle.verify` believed, after its vectors passed.

        Raises: PreconditionFailed: it fails its own vectors. InvalidInput: it cannot be run, or sets registers that
        are not its own. Unavailable: the engine does not answer. In each case the bundle before stays in force.
        """
        program, vectors = verified.bundle.program, verified.bundle.vectors
        rehearsed = Rehearsed(
            vectors.registers.merged_with(program.own_registers), lambda query: vectors.rehearse(program, query)
        )
        async with self._changes:
            of_treaty = program.own_registers if program.slot == TREATY else self._treaty_registers()
            merged = self._registers.merged_with(of_treaty)
            await self._engine.load(program, merged, rehearsed)
            self._in_force[program.slot] = _InForce(
                verified, nanoseconds(verified.not_before), nanoseconds(verified.not_after)
            )
            await self._engine.set_registers(merged)

    async def set_registers(self, registers: Registers) -> None:
        """Replace what charter, record and nation say.

        Raises: InvalidInput: larger than an engine takes; those before stay.
        """
        async with self._changes:
            if registers == self._registers:
                return
            await self._engine.set_registers(registers.merged_with(self._treaty_registers()))
            self._registers = registers

    async def decide(self, ask: Ask, observed: Observed) -> Decision:
        """The nation's decision: both authorities must allow.

        Raises: InvalidInput (INP-…): the question is not of the declared types. Nothing else.
        """
        question = Question(ask, observed)
        document = question.merged()
        treaty = await self._answer(TREATY, question, document)
        overlay = await self._answer(OVERLAY, question, document) if OVERLAY in self._in_force else None
        return decision.compose(question, treaty, overlay, engine=self._engine.name)

    async def preflight(self, ask: Ask, observed: Observed) -> Decision:
        """The coordinator's view by the treaty alone; what only the nation sees is `undetermined`.

        Raises: InvalidInput (INP-…): the question is not of the declared types. Nothing else.
        """
        question = Question(ask, observed)
        treaty = await self._answer(TREATY, question, question.merged())
        registers = self._registers.merged_with(self._treaty_registers())
        return decision.preflight(question, treaty, registers, engine=self._engine.name)

    async def maintain(self) -> None:
        """Run as a task of the process: keeps an external engine supplied with what is in force."""
        await self._engine.maintain()

    async def close(self) -> None:
        await self._engine.close()

    async def _answer(self, slot: str, question: Question, document: JsonObject) -> Answer:
        while (held := self._in_force.get(slot)) is not None:
            is_current = held.is_current(question.observed.now_ns)
            if not is_current and question.ask.decision_point not in _SERVING:
                return Answer.refused("ENG-006", "engine")
            program = held.verified.bundle.program
            given = await answer(self._engine, program, document, deadline_seconds=self._deadline_seconds)
            if given.failed != ("ENG-005",) or self._in_force.get(slot) is held:
                return given
            # Another bundle came into force while this one was asked: ask that.
        return Answer.refused("ENG-001", "engine")

    def _treaty_registers(self) -> JsonObject:
        held = self._in_force.get(TREATY)
        return held.verified.bundle.program.own_registers if held is not None else {}


def nanoseconds(moment: datetime) -> int:
    """An aware moment as questions count time: nanoseconds since 1970, exact to the microsecond."""
    since = moment.astimezone(UTC) - _EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
