"""What a federated run should do next: its plan and its durable rounds in, one move out. No clock, no I/O.

    no round ──Prepare──▶ Open(1) ──▶ round 1 ──all in, or quorum at the deadline──▶ Aggregate ──▶ Open(2) … ──▶
    round N ──Aggregate──▶ Open(N+1), evaluate only: measures the result ──▶ Finish

Rules:
1. a round ends when every nation of the cohort has answered, or at its deadline; it counts if the quorum of
   contributions was accepted whole, and fails the run otherwise, with the codes of those that refused;
2. an evaluation has one round and aggregates nothing;
3. a cancelled run makes no further move but Finish;
4. what is durable decides: planning again after a crash gives the same move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from controlplane.store.ports.rounds import ContributionState, RoundState, StoredContribution, StoredRound
from treaty.names import PartyCode
from treaty.plan import RunPlan, Task


@dataclass(frozen=True, slots=True)
class Prepare:
    """Make the first global arrays."""


@dataclass(frozen=True, slots=True)
class Open:
    """Begin a round. `evaluate_only`: nothing is trained and no tensor leaves."""

    round: int
    evaluate_only: bool


@dataclass(frozen=True, slots=True)
class Collect:
    """Wait, and make sure that each of `missing` has the round's directive."""

    round: StoredRound
    missing: tuple[PartyCode, ...]
    evaluate_only: bool


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Close the round over `nations`; an evaluation is closed without a sum."""

    round: StoredRound
    nations: tuple[PartyCode, ...]
    evaluate_only: bool


@dataclass(frozen=True, slots=True)
class Finish:
    """The run has ended. `reason` is a condition's; `has_result`: the last round's arrays are the run's."""

    reason: str
    message: str
    has_succeeded: bool


Move: TypeAlias = Prepare | Open | Collect | Aggregate | Finish


def last_round(plan: RunPlan) -> int:
    """A training run measures its result in one more round."""
    return plan.rounds + 1 if plan.task is Task.TRAIN else 1


def evaluates_only(plan: RunPlan, number: int) -> bool:
    return plan.task is Task.EVALUATE or number > plan.rounds


def next_move(
    plan: RunPlan,
    rounds: Sequence[StoredRound],
    contributions: Sequence[StoredContribution],
    *,
    has_first_arrays: bool,
    is_cancelled: bool,
    now: datetime,
) -> Move:
    """The one thing to do now. `contributions` are those of the newest round."""
    if is_cancelled:
        return Finish("Cancelled", "cancelled by an operator", has_succeeded=False)
    if not rounds:
        return Open(1, evaluates_only(plan, 1)) if has_first_arrays else Prepare()
    newest = rounds[-1]
    evaluate_only = evaluates_only(plan, newest.round)
    accepted = tuple(sorted(c.nation for c in contributions if c.state is ContributionState.ACCEPTED))
    if newest.state is RoundState.FAILED:
        # A round that is short is failed before the run ends: whoever comes back in between says the same of it.
        reason = "RoundFailed" if len(accepted) >= plan.quorum else "QuorumNotMet"
        return Finish(reason, newest.reason, has_succeeded=False)
    if newest.state is RoundState.DONE:
        if newest.round >= last_round(plan):
            return Finish("AllRoundsDone", f"{plan.rounds} rounds", has_succeeded=True)
        return Open(newest.round + 1, evaluates_only(plan, newest.round + 1))
    if newest.state is RoundState.AGGREGATING:
        return Aggregate(newest, accepted, evaluate_only)
    answered = {c.nation for c in contributions}
    missing = tuple(nation for nation in plan.cohort if nation not in answered)
    if not missing or now >= newest.deadline_at:
        if len(accepted) >= plan.quorum:
            return Aggregate(newest, accepted, evaluate_only)
        return Finish("QuorumNotMet", _why_short(plan, newest, contributions, len(accepted)), has_succeeded=False)
    return Collect(newest, missing, evaluate_only)


def _why_short(plan: RunPlan, newest: StoredRound, contributions: Sequence[StoredContribution], accepted: int) -> str:
    refused = {c.nation: ", ".join(c.codes) or c.state.value for c in contributions}
    others = [
        f"{nation}: {refused.get(nation, 'no answer until the deadline')}"
        for nation in plan.cohort
        if not any(c.nation == nation and c.state is ContributionState.ACCEPTED for c in contributions)
    ]
    return f"round {newest.round} reached {accepted} of its quorum of {plan.quorum} ({'; '.join(others)})"
