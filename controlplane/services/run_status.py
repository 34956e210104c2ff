"""What a run's resource and its follower are told: conditions at the end, a view while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from controlplane.domain.agents import ProgressReport
from controlplane.domain.run import Finish
from controlplane.services.ports import RunView
from controlplane.services.run_planning import Run
from treaty.names import Digest, PartyCode
from treaty.resources.meta import Condition, ConditionStatus, is_true, set_condition
from treaty.resources.runs import (
    RUN_CANCELLED,
    RUN_PROGRESSING,
    RUN_SUCCEEDED,
    FederatedRunStatus,
    NationRefusal,
    RoundDone,
)
from treaty.strict_json import JsonObject, JsonValue, canonical


def is_ended(status: FederatedRunStatus) -> bool:
    """Succeeded, failed or cancelled: `Progressing` is False and stays so."""
    return any(c.type == RUN_PROGRESSING and c.status is ConditionStatus.FALSE for c in status.conditions)


def finished(run: Run, move: Finish, result: Digest | None, refusals: Sequence[NationRefusal], now: datetime) -> Run:
    """The run as it stands at its end."""
    succeeded = ConditionStatus.TRUE if move.has_succeeded else ConditionStatus.FALSE
    message = move.message[:1024]
    generation = run.metadata.generation
    conditions = run.status.conditions
    for condition in (
        Condition(RUN_SUCCEEDED, succeeded, move.reason, message, observed_generation=generation),
        Condition(RUN_PROGRESSING, ConditionStatus.FALSE, move.reason, "", observed_generation=generation),
    ):
        conditions = set_condition(conditions, condition, now)
    if run.spec.cancelled:
        cancelled = Condition(RUN_CANCELLED, ConditionStatus.TRUE, move.reason, message, observed_generation=generation)
        conditions = set_condition(conditions, cancelled, now)
    status = replace(
        run.status,
        conditions=conditions,
        result_arrays_digest=result,
        refusals=(*run.status.refusals, *refusals)[:256],
        observed_generation=generation,
    )
    return replace(run, status=status)


def view(run: Run, progress: Mapping[PartyCode, ProgressReport]) -> RunView:
    """What a person who follows the run sees now."""
    is_finished = is_ended(run.status)
    nations: JsonObject = {
        nation: {
            "round": report.round,
            "stage": str(report.stage),
            "steps_done": report.steps_done,
            "steps_total": report.steps_total,
        }
        for nation, report in sorted(progress.items())
    }
    conditions: list[JsonValue] = [
        {"type": c.type, "status": str(c.status), "reason": c.reason, "message": c.message}
        for c in run.status.conditions
    ]
    document: JsonObject = {
        "name": run.name,
        "round": run.status.round,
        "rounds": run.spec.rounds,
        "nations": nations,
        "rounds_done": [_round(done) for done in run.status.rounds_done],
        "conditions": conditions,
        "has_succeeded": is_true(run.status.conditions, RUN_SUCCEEDED),
    }
    return RunView(canonical(document), is_finished)


def _round(done: RoundDone) -> JsonValue:
    metrics: JsonObject = {entry.nation: dict(entry.values) for entry in done.metrics}
    return {
        "round": done.round,
        "nations": list(done.nations),
        "aggregate_digest": done.aggregate_digest,
        "arrays_digest": done.arrays_digest,
        "metrics": metrics,
    }
