"""The words between the agent's loop and its state: what can happen (events) and what can be done (instructions).

The loop turns what arrives into events and carries instructions out, in order; `node_agent.state` decides. Neither
event nor instruction holds anything that awaits.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from node_agent.directives import Directive, Question
from treaty.names import Digest, DirectiveNumber, RunId

# --- events -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connected:
    """The coordinator welcomed us on a stream; also when a new stream takes the place of the old one."""

    epoch: int
    charter_digest: Digest
    heartbeat: timedelta
    is_behind: bool


@dataclass(frozen=True, slots=True)
class Disconnected:
    pass


@dataclass(frozen=True, slots=True)
class Heard:
    """A heartbeat, or any other sign of life."""


@dataclass(frozen=True, slots=True)
class DirectiveReceived:
    directive: Directive


@dataclass(frozen=True, slots=True)
class DirectiveUnreadable:
    number: DirectiveNumber
    code: str


@dataclass(frozen=True, slots=True)
class Admitted:
    directive: Directive


@dataclass(frozen=True, slots=True)
class NotAdmitted:
    number: DirectiveNumber
    codes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JobEnded:
    number: DirectiveNumber


@dataclass(frozen=True, slots=True)
class LeftOnOwnAccord:
    """The agent went back to the fallback: this number is refused from now on."""

    number: DirectiveNumber


@dataclass(frozen=True, slots=True)
class BrakeMoved:
    is_on: bool


@dataclass(frozen=True, slots=True)
class ReportChanged:
    pass


@dataclass(frozen=True, slots=True)
class FullReportAsked:
    pass


@dataclass(frozen=True, slots=True)
class QuestionReceived:
    question: Question


@dataclass(frozen=True, slots=True)
class LogContradicted:
    """The coordinator's log is not the one that we saw before."""


@dataclass(frozen=True, slots=True)
class Tick:
    pass


Event: TypeAlias = (
    Connected
    | Disconnected
    | Heard
    | DirectiveReceived
    | DirectiveUnreadable
    | Admitted
    | NotAdmitted
    | JobEnded
    | LeftOnOwnAccord
    | BrakeMoved
    | ReportChanged
    | FullReportAsked
    | QuestionReceived
    | LogContradicted
    | Tick
)

# --- instructions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Admit:
    """Verify what can be verified at once; answer with Admitted or NotAdmitted."""

    directive: Directive


@dataclass(frozen=True, slots=True)
class Record:
    """Write it down, durable, before anything that follows in the list."""

    directive: Directive


@dataclass(frozen=True, slots=True)
class Acknowledge:
    number: DirectiveNumber


@dataclass(frozen=True, slots=True)
class Refuse:
    number: DirectiveNumber
    codes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Start:
    """Begin the work; the work of an earlier directive of the same subject is ended first."""

    directive: Directive


@dataclass(frozen=True, slots=True)
class Stop:
    """End the work on this subject."""

    subject: str


@dataclass(frozen=True, slots=True)
class Finish:
    number: DirectiveNumber
    codes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RefuseRound:
    run: RunId
    round: int
    number: DirectiveNumber
    codes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ForgetRounds:
    """The run has moved on; what was said about earlier rounds need not be said again."""

    run: RunId


@dataclass(frozen=True, slots=True)
class SendStatus:
    sequence: int
    is_full: bool


@dataclass(frozen=True, slots=True)
class SendHeartbeat:
    epoch: int


@dataclass(frozen=True, slots=True)
class SendOutbox:
    pass


@dataclass(frozen=True, slots=True)
class Answer:
    question: Question


@dataclass(frozen=True, slots=True)
class FetchCharter:
    pass


@dataclass(frozen=True, slots=True)
class HangUp:
    """End the stream; the session dials again."""


@dataclass(frozen=True, slots=True)
class CutEgress:
    """End every update that is on its way."""


@dataclass(frozen=True, slots=True)
class HaltEgress:
    """Let no update out until a person has looked."""


Instruction: TypeAlias = (
    Admit
    | Record
    | Acknowledge
    | Refuse
    | Start
    | Stop
    | Finish
    | RefuseRound
    | ForgetRounds
    | SendStatus
    | SendHeartbeat
    | SendOutbox
    | Answer
    | FetchCharter
    | HangUp
    | CutEgress
    | HaltEgress
)
