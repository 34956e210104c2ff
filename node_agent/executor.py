"""Does what the state said, without deciding: journal, stream and border at once, everything that waits in a worker.

Rules:
1. `carry_out` never waits: what is durable is on disk when it returns, what is sent is queued;
2. admission is one worker, so directives are accepted in the order in which they came;
3. a question that finds the queue full, or comes faster than they are answered, is not, and no answer is a no;
4. a round that failed is refused by its codes and a rollout that failed is reported, whatever the worker left undone;
   where the journal does not take it, that is logged and the agent goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from node_agent import events, messages
from node_agent.border import GrpcBorder, moved_on
from node_agent.directives import AbortRollout, Deploy, Directive, EndRun, LoadTreatyPolicy, Question, Round
from node_agent.events import Event, Instruction
from node_agent.jobs import Jobs
from node_agent.journal import SqliteJournal
from node_agent.ledger import Standing
from node_agent.logwatch import LOG_INCONSISTENT
from node_agent.pace import Pace
from node_agent.ports import Clock, RolloutReport, RolloutState, Workers
from node_agent.reporting import ReportBook, stored_rollouts
from node_agent.session import Session
from treaty.errors import FoedusError, PolicyDenied
from treaty.names import DirectiveNumber, RunId

log = structlog.get_logger(__name__)

ADMISSIONS: Final = 64
QUESTIONS: Final = 64
MAX_QUESTION_SECONDS: Final = 30.0
QUESTIONS_PER_SECOND: Final = 20
"""Each is decided and journaled, durable; a plan asks a handful."""


@dataclass(frozen=True, slots=True)
class ExecutorParts:
    journal: SqliteJournal
    border: GrpcBorder
    book: ReportBook
    workers: Workers
    session: Session
    clock: Clock
    emit: Callable[[Event], Awaitable[None]]
    is_brake_on: Callable[[], bool]
    follow_charter: Callable[[], Awaitable[None]]


class Executor:
    """The hands of the loop."""

    def __init__(self, parts: ExecutorParts) -> None:
        self._parts = parts
        self._admissions: asyncio.Queue[Directive] = asyncio.Queue(ADMISSIONS)
        self._questions: asyncio.Queue[Question] = asyncio.Queue(QUESTIONS)
        self._charter_wanted = asyncio.Event()
        self._pace = Pace(parts.clock, QUESTIONS_PER_SECOND, burst=QUESTIONS)

    def start(self, tasks: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Begin the workers. Called once, before `carry_out`."""
        self._jobs = Jobs(tasks, self._work, self._job_ended)
        workers = (self._admit, self._answer, self._follow_charter)
        return [tasks.create_task(worker(), name=worker.__name__) for worker in workers]

    def stop(self) -> None:
        self._jobs.stop_all()

    def cut(self) -> None:
        """The brake: end what is on its way out, before anything else is done."""
        self._parts.border.cut()

    def carry_out(self, instruction: Instruction) -> None:
        """Rule 1."""
        parts, say = self._parts, self._parts.session.say
        match instruction:
            case events.Admit(directive=directive):
                self._admissions.put_nowait(directive)  # state admits fewer at once than there is room for
            case events.Record(directive=directive):
                parts.journal.ledger.accept(directive)
            case events.Acknowledge(number=number):
                say(messages.acknowledgement(number))
            case events.Refuse(number=number, codes=codes):
                log.warning("directive refused", number=str(number), codes=codes)
                say(messages.acknowledgement(number, codes))
            case events.Start(directive=directive):
                self._jobs.start(directive)
            case events.Stop(subject=subject):
                self._jobs.stop(subject)
            case events.Finish(number=number, codes=codes):
                parts.journal.finish(number, codes)
            case events.RefuseRound(run=run, round=round_number, number=number, codes=codes):
                self._refuse_round(run, round_number, number, codes)
            case events.ForgetRounds(run=run):
                parts.journal.outbox.drop(moved_on(run))
            case events.SendStatus(sequence=sequence, is_full=is_full):
                say(parts.book.status(sequence, is_full=is_full, is_brake_on=parts.is_brake_on()))
            case events.SendHeartbeat(epoch=epoch):
                say(messages.heartbeat(epoch, parts.clock.now()))
            case events.SendOutbox():
                parts.border.outbox_grew.set()
            case events.Answer(question=question):
                self._ask(question)
            case events.FetchCharter():
                self._charter_wanted.set()
            case events.HangUp():
                parts.session.hang_up()
            case events.CutEgress():
                parts.border.cut()
            case events.HaltEgress():
                parts.border.halt(LOG_INCONSISTENT)

    def _refuse_round(self, run: RunId, round_number: int, number: DirectiveNumber, codes: tuple[str, ...]) -> None:
        try:
            self._parts.border.refuse_round(run, round_number, number, codes)
        except FoedusError as err:
            log.exception("refusal of a round not kept", run=run, round=round_number, code=err.code)  # 4

    def _ask(self, question: Question) -> None:
        if self._questions.full() or not self._pace.take():
            log.warning("question not answered: too many at once")  # 3
            return
        self._questions.put_nowait(question)

    # workers ------------------------------------------------------------------------------------------------------

    async def _admit(self) -> None:
        while True:
            directive = await self._admissions.get()
            try:
                await self._parts.workers.admit(directive)
            except FoedusError as err:
                log.warning("directive not admitted", number=str(directive.number), code=err.code, exc_info=err)
                await self._parts.emit(events.NotAdmitted(directive.number, _codes(err)))
            except Exception:  # the boundary of one directive: others go on
                log.exception("directive not admitted", number=str(directive.number))
                await self._parts.emit(events.NotAdmitted(directive.number, ("INTERNAL",)))
            else:
                await self._parts.emit(events.Admitted(directive))

    async def _answer(self) -> None:
        while True:
            question = await self._questions.get()
            seconds = min(question.deadline_ms / 1000 or MAX_QUESTION_SECONDS, MAX_QUESTION_SECONDS)
            try:
                async with asyncio.timeout(seconds):
                    given = await self._parts.workers.answer(question)
            except (FoedusError, TimeoutError) as err:
                log.warning("question not answered", code=getattr(err, "code", "LATE"), exc_info=err)
            except Exception:  # the boundary of one question: no answer is a no
                log.exception("question not answered")
            else:
                self._parts.session.say(messages.answer(question.question_id, given))

    async def _follow_charter(self) -> None:
        while True:
            await self._charter_wanted.wait()
            self._charter_wanted.clear()
            try:
                await self._parts.follow_charter()
            except FoedusError as err:
                log.warning("the coordinator's charter is not followed", code=err.code, exc_info=err)
            except Exception:  # the boundary of one charter: the one in force stays
                log.exception("the coordinator's charter is not followed")

    # jobs ---------------------------------------------------------------------------------------------------------

    async def _work(self, directive: Directive) -> None:
        workers = self._parts.workers
        match directive.action:
            case Deploy() as action:
                await workers.deploy(directive, action)
            case AbortRollout() as action:
                await workers.abort(directive, action)
            case Round() as action:
                await workers.round(directive, action)
            case EndRun() as action:
                await workers.end_run(directive, action)
            case LoadTreatyPolicy() as action:
                await workers.load_policy(directive, action)

    async def _job_ended(self, directive: Directive, codes: tuple[str, ...]) -> None:
        if codes:
            self._report_failure(directive, codes)
        left = {entry.number for entry in self._parts.journal.ledger.accepted() if entry.standing is Standing.LEFT}
        for number in sorted(left):
            await self._parts.emit(events.LeftOnOwnAccord(number))
        await self._parts.emit(events.JobEnded(directive.number))

    def _report_failure(self, directive: Directive, codes: tuple[str, ...]) -> None:
        """Rule 4."""
        parts = self._parts
        match directive.action:
            case Round(run=run, round=round_number):
                self._refuse_round(run, round_number, directive.number, codes)
            case Deploy(rollout=rollout, manifest_digest=manifest):
                known = {report.rollout: report for report in stored_rollouts(parts.journal)}.get(rollout)
                over = (RolloutState.REFUSED, RolloutState.FAILED, RolloutState.RETURNED)
                if known is None or known.number != directive.number or known.state not in over:
                    now = parts.clock.now()
                    self._report(RolloutReport(rollout, directive.number, RolloutState.FAILED, manifest, now, codes))
            case AbortRollout() | EndRun() | LoadTreatyPolicy():
                pass

    def _report(self, report: RolloutReport) -> None:
        try:
            self._parts.book.rollout(report)
        except FoedusError as err:
            log.exception("failure of a rollout not reported", rollout=report.rollout, code=err.code)  # 4


def _codes(error: FoedusError) -> tuple[str, ...]:
    return error.codes if isinstance(error, PolicyDenied) and error.codes else (error.code,)
