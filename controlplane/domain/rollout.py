"""What a rollout should do next: intent and inventory in, a plan out. No clock, no I/O, no await.

Rules:
1. waves go in order; in a wave at most `concurrency` nations move at a time;
2. a nation counts as serving when it reports so *and* observes this very digest; nobody else's word counts;
3. unreachable is not failed: a silent nation holds its wave up, and the plan says so; the deadline runs only while
   the agent is there, and never while a person is being waited for;
4. a refusal is a nation's right: the wave goes on without it, and it costs no failure budget;
5. more failures than the budget abort the rollout: every nation that was directed is told to return;
6. after its last nation a wave soaks; a failure during the soak counts like any other;
7. paused: nothing new starts. In a freeze window: nothing starts in that nation. Ended: nothing ever starts again.

Planning again from the same inventory gives the same plan; executing a step twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeAlias

from controlplane.domain.agents import RolloutReport, RolloutState
from controlplane.domain.nation_state import FAILED_STATES, IN_PROGRESS, SETTLED, TRANSITIONS, Move, NationState
from treaty.names import AgentId, Digest, DirectiveNumber, PartyCode
from treaty.resources.meta import Condition, ConditionStatus, is_true, set_condition
from treaty.resources.rollouts import (
    ROLLOUT_ABORTED,
    ROLLOUT_PAUSED,
    ROLLOUT_PROGRESSING,
    ROLLOUT_SUCCEEDED,
    NationProgress,
    RolloutSpec,
    RolloutStatus,
    Wave,
)


@dataclass(frozen=True, slots=True)
class NationView:
    """What the coordinator knows of one nation now. `frozen_by` names a freeze window that holds."""

    agent: AgentId | None = None
    is_connected: bool = False
    report: RolloutReport | None = None
    serving: Digest | None = None
    frozen_by: str = ""


@dataclass(frozen=True, slots=True)
class DirectDeploy:
    nation: PartyCode
    agent: AgentId


@dataclass(frozen=True, slots=True)
class DirectAbort:
    nation: PartyCode
    agent: AgentId
    deploy_number: DirectiveNumber


Step: TypeAlias = DirectDeploy | DirectAbort


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """Steps to carry out, then the status to store. A step's number is filled in by who carries it out."""

    steps: tuple[Step, ...]
    status: RolloutStatus


@dataclass(slots=True)
class _Draft:
    """One planning in progress: the nations' progress by code, in wave order, and the steps found so far."""

    spec: RolloutSpec
    views: Mapping[PartyCode, NationView]
    now: datetime
    nations: dict[PartyCode, NationProgress]
    steps: list[Step] = field(default_factory=list)

    def view(self, nation: PartyCode) -> NationView:
        return self.views.get(nation, NationView())

    def move(self, nation: PartyCode, state: NationState, reason: str, **more: object) -> None:
        old = self.nations[nation]
        since = old.since if old.state == state else self.now
        self.nations[nation] = replace(old, state=state, reason=reason or None, since=since, **more)  # type: ignore[arg-type]


def initial_status(spec: RolloutSpec) -> RolloutStatus:
    """Every nation pending, in wave order."""
    nations = tuple(
        NationProgress(nation=nation, state=NationState.PENDING, wave=wave.name)
        for wave in spec.waves
        for nation in wave.nations
    )
    return RolloutStatus(nations=nations)


def is_finished(status: RolloutStatus) -> bool:
    return is_true(status.conditions, ROLLOUT_SUCCEEDED) or is_true(status.conditions, ROLLOUT_ABORTED)


def plan(spec: RolloutSpec, status: RolloutStatus, views: Mapping[PartyCode, NationView], now: datetime) -> RolloutPlan:
    """Compute the next steps and the status that goes with them, by the rules in the module's docstring."""
    known = status if status.nations else replace(initial_status(spec), conditions=status.conditions)
    draft = _Draft(spec, views, now, {PartyCode(entry.nation): entry for entry in known.nations})
    for nation in draft.nations:
        _fold(draft, nation)
    if is_true(status.conditions, ROLLOUT_SUCCEEDED):
        return _finish(draft, known, known.current_wave, known.soaking_since, known.conditions)
    failed = [code for code, entry in draft.nations.items() if NationState(entry.state) in FAILED_STATES]
    is_aborted = is_true(status.conditions, ROLLOUT_ABORTED)
    if is_aborted or spec.aborted or len(failed) > spec.failure_budget:
        return _abort(draft, known, failed)
    return _progress(draft, known)


def _fold(draft: _Draft, nation: PartyCode) -> None:
    """Take the agent's newest report into the nation's state (rules 2 and 3)."""
    entry, view = draft.nations[nation], draft.view(nation)
    state = NationState(entry.state)
    report = view.report
    if report is not None and entry.directive_number is not None and report.number >= entry.directive_number:
        state = TRANSITIONS[state].get(report.state, state)
        reason = report.codes[0] if report.codes else ""
        if state is NationState.SERVING and view.serving != draft.spec.manifest_digest:
            state, reason = NationState.STARTING, "DigestNotObserved"
        # A condition's reason knows no dashes; the codes as the nation says them are in the message.
        codes = ", ".join(report.codes)
        more = {"observed_digest": view.serving, "metrics": _metrics(report), "message": codes}
        draft.move(nation, state, _word(reason), **more)
    elif state in IN_PROGRESS and not view.is_connected:
        draft.move(nation, state, "Unreachable")
    if _is_late(draft, nation):
        draft.move(nation, TRANSITIONS[state].get(Move.DEADLINE_PASSED, state), "DeadlineExceeded")


def _is_late(draft: _Draft, nation: PartyCode) -> bool:
    entry, view = draft.nations[nation], draft.view(nation)
    state = NationState(entry.state)
    if state not in IN_PROGRESS or Move.DEADLINE_PASSED not in TRANSITIONS[state] or not view.is_connected:
        return False
    return entry.since is not None and draft.now - entry.since > timedelta(seconds=draft.spec.deadline_seconds)


def _progress(draft: _Draft, known: RolloutStatus) -> RolloutPlan:
    index, soaking_since = known.current_wave, known.soaking_since
    while index < len(draft.spec.waves):
        wave = draft.spec.waves[index]
        if not _is_settled(draft, wave):
            if not draft.spec.paused:
                _start_nations(draft, wave)
            return _finish(draft, known, index, None, _waiting(draft, known, wave))
        soaking_since = soaking_since or draft.now
        if draft.now - soaking_since < timedelta(seconds=draft.spec.soak_seconds):
            condition = _condition(ROLLOUT_PROGRESSING, ConditionStatus.TRUE, "Soaking", f"wave {wave.name} soaks")
            return _finish(draft, known, index, soaking_since, _with(known, condition, draft.now))
        if missing := _missing_approval(draft.spec, index):
            message = f"wave {missing} waits for an operator: foedus rollout resume --wave {missing}"
            condition = _condition(ROLLOUT_PROGRESSING, ConditionStatus.TRUE, "AwaitingApproval", message)
            return _finish(draft, known, index, soaking_since, _with(known, condition, draft.now))
        index, soaking_since = index + 1, None
    return _finish(draft, known, len(draft.spec.waves), None, _succeeded(draft, known))


def _is_settled(draft: _Draft, wave: Wave) -> bool:
    return all(
        NationState(draft.nations[PartyCode(nation)].state) in SETTLED | FAILED_STATES for nation in wave.nations
    )


def _missing_approval(spec: RolloutSpec, index: int) -> str:
    """Name of the next wave if it needs an operator's word and has none."""
    if not spec.gates.approval or index + 1 >= len(spec.waves):
        return ""
    following = spec.waves[index + 1].name
    return "" if following in spec.approved_waves else following


def _start_nations(draft: _Draft, wave: Wave) -> None:
    """Direct pending nations while the wave's concurrency allows it (rules 1 and 7)."""
    states = {nation: NationState(draft.nations[PartyCode(nation)].state) for nation in wave.nations}
    moving = sum(state in IN_PROGRESS for state in states.values())
    for nation in map(PartyCode, wave.nations):
        view = draft.view(nation)
        if states[nation] is not NationState.PENDING:
            continue
        if view.agent is None:
            draft.move(nation, NationState.PENDING, "NoAgentAccepted")
        elif view.frozen_by:
            draft.move(nation, NationState.PENDING, "Frozen", message=f"freeze window {view.frozen_by}")
        elif moving < wave.concurrency:
            moving += 1
            draft.steps.append(DirectDeploy(nation, view.agent))
            draft.move(nation, NationState.DIRECTED, "", agent=str(view.agent), message="")
        else:
            draft.move(nation, NationState.PENDING, "WaitingForSlot")


def _abort(draft: _Draft, known: RolloutStatus, failed: Sequence[PartyCode]) -> RolloutPlan:
    """Tell every directed nation to return; those that did are left alone (rule 5)."""
    for nation, entry in draft.nations.items():
        state, view = NationState(entry.state), draft.view(nation)
        is_out = state in IN_PROGRESS or state is NationState.SERVING or state is NationState.FAILED
        if is_out and entry.directive_number is not None and view.agent is not None:
            draft.steps.append(DirectAbort(nation, view.agent, entry.directive_number))
    if failed:
        first = draft.nations[failed[0]]
        reason, message = "FailureBudgetSpent", f"{len(failed)} failed, {first.nation} with {first.reason or 'no code'}"
    else:
        reason, message = "OperatorAborted", "aborted by an operator"
    conditions = set_condition(
        known.conditions, _condition(ROLLOUT_ABORTED, ConditionStatus.TRUE, reason, message), draft.now
    )
    if is_true(known.conditions, ROLLOUT_ABORTED):
        conditions = known.conditions
    stopped = _condition(ROLLOUT_PROGRESSING, ConditionStatus.FALSE, "Aborted", "")
    return _finish(draft, known, known.current_wave, None, set_condition(conditions, stopped, draft.now))


def _waiting(draft: _Draft, known: RolloutStatus, wave: Wave) -> tuple[Condition, ...]:
    open_nations = [
        f"{nation}: {entry.reason or entry.state}"
        for nation in wave.nations
        if NationState((entry := draft.nations[PartyCode(nation)]).state) not in SETTLED | FAILED_STATES
    ]
    reason = "Paused" if draft.spec.paused else "WaveInProgress"
    message = f"wave {wave.name} waits for {', '.join(open_nations)}"[:256]
    return _with(known, _condition(ROLLOUT_PROGRESSING, ConditionStatus.TRUE, reason, message), draft.now)


def _succeeded(draft: _Draft, known: RolloutStatus) -> tuple[Condition, ...]:
    refused = [code for code, entry in draft.nations.items() if entry.state == NationState.REFUSED]
    failed = [code for code, entry in draft.nations.items() if NationState(entry.state) in FAILED_STATES]
    reason = "AllServing" if not refused and not failed else "ServingButSome"
    message = "; ".join(
        f"{what}: {', '.join(codes)}" for what, codes in (("refused", refused), ("failed", failed)) if codes
    )
    done = _condition(ROLLOUT_SUCCEEDED, ConditionStatus.TRUE, reason, message)
    stopped = _condition(ROLLOUT_PROGRESSING, ConditionStatus.FALSE, "Succeeded", "")
    return set_condition(set_condition(known.conditions, done, draft.now), stopped, draft.now)


def _finish(
    draft: _Draft,
    known: RolloutStatus,
    wave: int,
    soaking_since: datetime | None,
    conditions: Sequence[Condition],
) -> RolloutPlan:
    paused = ConditionStatus.TRUE if draft.spec.paused else ConditionStatus.FALSE
    with_pause = set_condition(
        conditions, _condition(ROLLOUT_PAUSED, paused, "ByOperator" if draft.spec.paused else "Running", ""), draft.now
    )
    status = replace(
        known,
        nations=tuple(draft.nations.values()),
        current_wave=wave,
        soaking_since=soaking_since,
        conditions=tuple(with_pause),
    )
    return RolloutPlan(tuple(draft.steps), status)


def _with(known: RolloutStatus, condition: Condition, now: datetime) -> tuple[Condition, ...]:
    return set_condition(known.conditions, condition, now)


def _condition(type_: str, status: ConditionStatus, reason: str, message: str) -> Condition:
    return Condition(type_, status, reason, message)


def _metrics(report: RolloutReport) -> dict[str, int]:
    figures = {
        "pulled_bytes": report.pulled_bytes,
        "total_bytes": report.total_bytes,
        "heldout_loss_micro_before": report.heldout_loss_micro_before,
        "heldout_loss_micro_after": report.heldout_loss_micro_after,
    }
    return {name: value for name, value in figures.items() if value}


def _word(code: str) -> str:
    """A code (`DE-001`, `GATE_WORSE`) as a condition's reason, which knows no dashes."""
    return code.replace("-", "").replace("_", "")


__all__ = [
    "DirectAbort",
    "DirectDeploy",
    "NationView",
    "RolloutPlan",
    "RolloutState",
    "Step",
    "initial_status",
    "is_finished",
    "plan",
]
