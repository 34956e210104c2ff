"""What agents report, as the coordinator's services read it.

Everything here arrived from a nation and was parsed at the edge: bounded, typed, codes instead of texts. None of it is
believed beyond what it is: an agent speaks for its own nation, and what must be proved (a consent, a receipt) is a
signed statement beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from treaty.names import Digest, DirectiveNumber, RunId


class RolloutState(StrEnum):
    AWAITING_CONSENT = "AwaitingConsent"
    PULLING = "Pulling"
    STARTING = "Starting"
    EVALUATING = "Evaluating"
    SERVING = "Serving"
    REFUSED = "Refused"
    FAILED = "Failed"
    RETURNED = "Returned"


class RoundStage(StrEnum):
    WAITING_FOR_SLOT = "WaitingForSlot"
    PULLING = "Pulling"
    TRAINING = "Training"
    EVALUATING = "Evaluating"
    SENDING = "Sending"
    DONE = "Done"
    FAILED = "Failed"


class Verdict(StrEnum):
    ALLOW = "allow"
    DENY = "deny"
    NEEDS_APPROVAL = "needs_approval"


@dataclass(frozen=True, slots=True)
class RolloutReport:
    """How far one rollout got in one nation."""

    rollout: str
    number: DirectiveNumber
    state: RolloutState
    codes: tuple[str, ...] = ()
    manifest_digest: Digest | None = None
    pulled_bytes: int = 0
    total_bytes: int = 0
    since: datetime | None = None
    heldout_loss_micro_before: int = 0
    heldout_loss_micro_after: int = 0


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """Latest wins, by `sequence`. `is_full`: a rollout that it does not name is unknown to the agent."""

    sequence: int
    is_full: bool
    serving_digest: Digest | None = None
    rollouts: tuple[RolloutReport, ...] = ()
    brake_on: bool = False
    treaty_policy_revision: int = 0
    overlay_revision: int = 0
    held_digests: tuple[Digest, ...] = ()


@dataclass(frozen=True, slots=True)
class NationAnswer:
    """What a nation would decide now, under both policies. It binds nobody: the agent asks again before it acts."""

    verdict: Verdict
    codes: tuple[str, ...]
    ask_digest: Digest
    decision_digest: Digest
    treaty_revision: int
    overlay_revision: int
    estimated_bytes_out: int = 0


@dataclass(frozen=True, slots=True)
class RoundReport:
    """The end of a round where no update is sent: a result with its receipt, or a refusal by code.

    `codes` empty: a result; `metrics` are canonical bytes of `values`, and `receipt` an envelope that covers them.
    """

    run: RunId
    round: int
    number: DirectiveNumber
    codes: tuple[str, ...] = ()
    metrics: bytes = b""
    values: Mapping[str, int] = field(default_factory=dict)
    receipt: bytes = b""


@dataclass(frozen=True, slots=True)
class ProgressReport:
    """Lossy, latest wins, never stored."""

    run: RunId
    round: int
    stage: RoundStage
    steps_done: int = 0
    steps_total: int = 0


@dataclass(frozen=True, slots=True)
class UpdateOpening:
    """What comes before an update's chunks: header and metrics as canonical bytes, the receipt's envelope."""

    run: RunId
    round: int
    number: DirectiveNumber
    header: bytes
    receipt: bytes
    metrics: bytes


@dataclass(frozen=True, slots=True)
class UpdateReceived:
    """`was_known`: this very update was accepted before and was not counted twice."""

    digest: Digest
    log_index: int
    was_known: bool
    salt: bytes
    """Of the receipt's leaf."""
    receipt: bytes
    """As it was counted, where that is another one of this update; empty: the one that came."""
