"""What must an agent do about what just happened? Events in, instructions out; no clock, no I/O, nothing awaited.

    OFFLINE ──Connected──► ONLINE ──Disconnected──► OFFLINE

Rules:
1. a directive is admitted (what can be verified at once holds), then recorded, then acknowledged, then started, in this
   order; the same number with the same content again is acknowledged again and nothing else happens;
2. a number that is not above the highest ever accepted is refused (ROLLBACK_REFUSED), one that comes back with other
   content too (NUMBER_REUSED), one that the agent left on its own too (LEFT); the highest never goes down;
3. of one subject only the newest directive lives: starting it ends its predecessor;
4. the brake ends and refuses rounds and cuts what is on its way out, whether the coordinator is there or not;
5. status is latest-wins under a sequence that grows by one; a full one follows every connection and every request;
6. silence of three heartbeats ends the stream; the session dials again. What was started goes on meanwhile;
7. a number leaps neither over the epoch that the coordinator welcomed us with nor far beyond the highest: one
   directive must not use up the numbers of all later ones (EPOCH_UNANNOUNCED, NUMBER_LEAPS);
8. while the coordinator is behind (restored from a backup) its directives are refused by number, as any old one is.

`node_agent.loop` carries the instructions out, in order. The words are in `node_agent.events`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from node_agent import events
from node_agent.directives import Directive, EndRun, Round
from node_agent.events import Event, Instruction
from node_agent.ledger import MAX_CLOSED, Accepted, Standing
from treaty.names import Digest, DirectiveNumber

MAX_OPEN: Final = 32
"""Directives that one agent works on at once; more is refused, so a hostile coordinator cannot pile up work."""

SILENCE_HEARTBEATS: Final = 3
STATUS_INTERVAL: Final = timedelta(milliseconds=200)
"""Changes within this time share one status."""

BRAKE_ON: Final = "BRAKE_ON"
NEVER: Final = DirectiveNumber(0, 0)
MAX_EPOCH_LEAP: Final = 1_000
MAX_COUNTER_LEAP: Final = 1_000_000
"""Wider than any coordinator counts between two contacts; narrow enough for nine thousand million leaps."""


class Phase(StrEnum):
    OFFLINE = "offline"
    ONLINE = "online"


@dataclass(slots=True)
class AgentState:
    """What the agent knows about itself. `handle` is the only way it changes."""

    charter_digest: Digest
    highest: DirectiveNumber = NEVER
    """Highest number ever accepted; never decreases."""
    accepted: dict[DirectiveNumber, Accepted] = field(default_factory=dict)
    open: dict[DirectiveNumber, Directive] = field(default_factory=dict)
    admitting: dict[DirectiveNumber, Directive] = field(default_factory=dict)
    is_brake_on: bool = False
    phase: Phase = Phase.OFFLINE
    epoch: int = 0
    is_behind: bool = False
    """The coordinator said that it was restored from a backup."""
    status_sequence: int = 0
    is_report_dirty: bool = False
    heartbeat: timedelta = timedelta(seconds=5)
    heard_at: datetime | None = None
    beat_at: datetime | None = None
    """When our last heartbeat was sent."""
    reported_at: datetime | None = None

    @classmethod
    def resumed(
        cls,
        charter_digest: Digest,
        highest: DirectiveNumber,
        accepted: Iterable[Accepted],
        open_directives: Iterable[Directive],
    ) -> AgentState:
        """The state as the journal tells it after a start."""
        return cls(
            charter_digest,
            highest,
            {entry.number: entry for entry in accepted},
            {directive.number: directive for directive in open_directives},
        )

    def begin(self) -> list[Instruction]:
        """What was open before goes on, with or without the coordinator. Called once, before any event."""
        return [events.Start(directive) for directive in self.open.values()]

    def handle(self, event: Event, now: datetime) -> list[Instruction]:
        """Fold one event into the state and say what must be done about it."""
        match event:
            case events.Connected():
                return self._connected(event, now)
            case events.Disconnected():
                self.phase = Phase.OFFLINE
                return []
            case events.Heard():
                self.heard_at = now
                return []
            case events.DirectiveReceived(directive=directive):
                self.heard_at = now
                return self._received(directive)
            case events.DirectiveUnreadable(number=number, code=code):
                self.heard_at = now
                return [events.Refuse(number, (code,))]
            case events.Admitted(directive=directive):
                return self._admitted(directive)
            case events.NotAdmitted(number=number, codes=codes):
                self.admitting.pop(number, None)
                return [events.Refuse(number, codes)]
            case events.JobEnded(number=number):
                return self._ended(number, Standing.DONE)
            case events.LeftOnOwnAccord(number=number):
                return self._ended(number, Standing.LEFT)
            case events.BrakeMoved(is_on=is_on):
                return self._braked(is_on)
            case events.ReportChanged():
                self.is_report_dirty = True
                return self._report_if_due(now)
            case events.FullReportAsked():
                self.heard_at = now
                return self._report(now, is_full=True)
            case events.QuestionReceived(question=question):
                self.heard_at = now
                return [events.Answer(question)]
            case events.LogContradicted():
                return [events.HaltEgress(), events.CutEgress()]
            case events.Tick():
                return self._tick(now)

    def _connected(self, event: events.Connected, now: datetime) -> list[Instruction]:
        self.phase = Phase.ONLINE
        self.epoch, self.is_behind, self.heartbeat = event.epoch, event.is_behind, event.heartbeat
        self.heard_at = self.beat_at = now
        instructions: list[Instruction] = []
        if event.charter_digest != self.charter_digest:
            instructions.append(events.FetchCharter())
        # An answer may have been lost with the last stream, and the hello already says that these are open.
        instructions += [events.Acknowledge(number) for number in sorted(self.open)]
        return [*instructions, *self._report(now, is_full=True), events.SendOutbox()]

    def _received(self, directive: Directive) -> list[Instruction]:
        number = directive.number
        known = self.accepted.get(number)
        if known is not None:
            return [self._said_again(directive, known)]
        waiting = self.admitting.get(number)
        if waiting is not None:
            same = waiting.content_digest == directive.content_digest
            return [] if same else [events.Refuse(number, ("NUMBER_REUSED",))]
        if number <= max([self.highest, *self.admitting]):
            return [events.Refuse(number, ("ROLLBACK_REFUSED",))]
        if number.epoch > self.epoch:
            return [events.Refuse(number, ("EPOCH_UNANNOUNCED",))]
        if self._leaps(number):
            return [events.Refuse(number, ("NUMBER_LEAPS",))]
        if self.is_brake_on and isinstance(directive.action, Round):
            return [events.Refuse(number, (BRAKE_ON,))]
        if len(self.open) + len(self.admitting) >= MAX_OPEN:
            return [events.Refuse(number, ("RESOURCE_EXHAUSTED",))]
        self.admitting[number] = directive
        return [events.Admit(directive)]

    def _leaps(self, number: DirectiveNumber) -> bool:
        start = self.highest.counter if number.epoch == self.highest.epoch else 0
        return number.epoch - self.highest.epoch > MAX_EPOCH_LEAP or number.counter - start > MAX_COUNTER_LEAP

    def _said_again(self, directive: Directive, known: Accepted) -> Instruction:
        if known.content_digest != directive.content_digest:
            return events.Refuse(directive.number, ("NUMBER_REUSED",))
        if known.standing is Standing.LEFT:
            return events.Refuse(directive.number, ("LEFT",))
        return events.Acknowledge(directive.number)

    def _admitted(self, directive: Directive) -> list[Instruction]:
        number = directive.number
        self.admitting.pop(number, None)
        if number <= self.highest:
            return [events.Refuse(number, ("ROLLBACK_REFUSED",))]
        if self.is_brake_on and isinstance(directive.action, Round):
            return [events.Refuse(number, (BRAKE_ON,))]
        superseded = [old for old in self.open.values() if old.subject == directive.subject]
        self.highest = number
        self.accepted[number] = Accepted(number, directive.content_digest, Standing.OPEN)
        self._forget_old()
        self.open[number] = directive
        instructions: list[Instruction] = [events.Record(directive)]
        instructions.extend(self._finish(old.number, ("SUPERSEDED",)) for old in superseded)
        if isinstance(directive.action, Round | EndRun):
            instructions.append(events.ForgetRounds(directive.action.run))
        return [*instructions, events.Acknowledge(number), events.Start(directive)]

    def _forget_old(self) -> None:
        """As the ledger does: of what is done the newest stay."""
        if len(self.accepted) > 2 * MAX_CLOSED:
            done = sorted(known.number for known in self.accepted.values() if known.standing is Standing.DONE)
            for number in done[:-MAX_CLOSED]:
                del self.accepted[number]

    def _finish(self, number: DirectiveNumber, codes: tuple[str, ...]) -> Instruction:
        self._close(number, Standing.DONE)
        return events.Finish(number, codes)

    def _close(self, number: DirectiveNumber, standing: Standing) -> None:
        self.open.pop(number, None)
        known = self.accepted.get(number)
        if known is not None and known.standing is not Standing.LEFT:
            self.accepted[number] = Accepted(number, known.content_digest, standing)

    def _ended(self, number: DirectiveNumber, standing: Standing) -> list[Instruction]:
        was_open = number in self.open
        self._close(number, standing)
        return [events.Finish(number, ())] if was_open and standing is Standing.DONE else []

    def _braked(self, is_on: bool) -> list[Instruction]:
        if is_on == self.is_brake_on:
            return []
        self.is_brake_on = is_on
        self.is_report_dirty = True
        if not is_on:
            return []
        instructions: list[Instruction] = [events.CutEgress()]
        for directive in tuple(self.open.values()):
            if isinstance(action := directive.action, Round):
                instructions += [
                    events.Stop(directive.subject),
                    events.RefuseRound(action.run, action.round, directive.number, (BRAKE_ON,)),
                    self._finish(directive.number, (BRAKE_ON,)),
                ]
        return instructions

    def _tick(self, now: datetime) -> list[Instruction]:
        if self.phase is Phase.OFFLINE:
            return []
        if self.heard_at is not None and now - self.heard_at >= SILENCE_HEARTBEATS * self.heartbeat:
            self.phase = Phase.OFFLINE
            return [events.HangUp()]
        instructions = self._report_if_due(now)
        if self.beat_at is None or now - self.beat_at >= self.heartbeat:
            self.beat_at = now
            instructions.append(events.SendHeartbeat(self.epoch))
        return instructions

    def _report_if_due(self, now: datetime) -> list[Instruction]:
        is_due = self.reported_at is None or now - self.reported_at >= STATUS_INTERVAL
        return self._report(now, is_full=False) if self.is_report_dirty and is_due else []

    def _report(self, now: datetime, *, is_full: bool) -> list[Instruction]:
        if self.phase is Phase.OFFLINE:
            return []
        self.status_sequence += 1
        self.is_report_dirty = False
        self.reported_at = now
        return [events.SendStatus(self.status_sequence, is_full)]
