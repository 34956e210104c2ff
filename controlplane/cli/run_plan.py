"""The plan of a run as an operator reads it before agreeing: who takes part, under what, and how many bytes each sends.

What is shown is the coordinator's answer to `PlanRun`; its digest is what `run start` names.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from controlplane.cli import tables
from controlplane.cli.client import PlannedRun
from controlplane.cli.terminal import mark, size
from treaty.errors import InvalidInput, PolicyDenied
from treaty.fields import Fields
from treaty.plan import MAX_CODES, MAX_COHORT, RunPlan, Task, parse_plan
from treaty.strict_json import JsonValue

MARKS = {"allow": "done", "deny": "refused", "needs_approval": "waiting"}


@dataclass(frozen=True, slots=True)
class NationAnswer:
    """What one nation answered; `bytes_out` is for one round."""

    nation: str
    verdict: str
    codes: tuple[str, ...]
    bytes_out: int


@dataclass(frozen=True, slots=True)
class Shown:
    """The coordinator's answer, read strictly."""

    plan: RunPlan | None
    answers: tuple[NationAnswer, ...]
    quorum: int


def read(planned: PlannedRun) -> Shown:
    """Raises: InvalidInput: not such an answer, or its digest is not the plan's."""
    fields = Fields(planned.document, "the plan")
    plan_value = fields.value("plan")
    nations = fields.value("nations")
    quorum = fields.integer("quorum", 1, MAX_COHORT)
    fields.boolean("is_startable")
    fields.done()
    if not isinstance(nations, dict):
        raise InvalidInput("the plan's nations are not an object")
    plan = None if plan_value is None else parse_plan(plan_value)
    if plan is not None and plan.digest != planned.digest:
        raise InvalidInput("the plan's digest is not that of the plan shown")
    return Shown(plan, tuple(_answer(nation, value) for nation, value in sorted(nations.items())), quorum)


def plan_text(planned: PlannedRun, *, is_ascii: bool | None = None) -> str:
    """The plan as a table with a line above and one below."""
    shown = read(planned)
    rows = [["", "NATION", "ANSWER", "CODES", "BYTES A ROUND"]]
    for answer in shown.answers:
        icon = mark(MARKS.get(answer.verdict, "failed"), is_ascii=is_ascii)
        sends = size(answer.bytes_out) if answer.verdict == "allow" else "-"
        rows.append([icon, answer.nation, answer.verdict, ", ".join(answer.codes), sends])
    return "\n".join([*_heading(shown, planned.digest), tables.text_of(rows, sys.stdout), _total(shown)])


def require_startable(planned: PlannedRun) -> None:
    """Raises: PolicyDenied: the quorum was missed; names each nation and its codes."""
    shown = read(planned)
    if shown.plan is not None:
        return
    refused = [answer for answer in shown.answers if answer.verdict != "allow"]
    agreeing = len(shown.answers) - len(refused)
    told = "; ".join(f"{answer.nation}: {', '.join(answer.codes)}" for answer in refused)
    raise PolicyDenied(
        f"{agreeing} of {len(shown.answers)} nations would take part, the quorum is {shown.quorum} ({told})",
        codes=sorted({code for answer in refused for code in answer.codes}),
        remedy="change the purpose, the nations or the quorum, and plan again",
    )


def _heading(shown: Shown, digest: str) -> list[str]:
    plan = shown.plan
    if plan is None:
        return [f"no plan: the quorum of {shown.quorum} is missed"]
    rounds = f"{plan.rounds} round{'s' if plan.rounds > 1 else ''}"
    what = f"{plan.task} for {plan.purpose}, {plan.strategy}, {rounds}"
    return [
        f"plan of {plan.run}: {what}",
        f"  to {plan.destination} in {plan.host}, {len(plan.cohort)} nations, quorum {plan.quorum}; {digest}",
    ]


def _total(shown: Shown) -> str:
    plan = shown.plan
    if plan is None:
        return "nothing is loaded and nothing leaves"
    if plan.task is Task.EVALUATE:
        return "only metrics leave; no tensor does"
    total = sum(answer.bytes_out for answer in shown.answers if answer.verdict == "allow") * plan.rounds
    return f"{size(total)} leave in all, at most; raw records: 0"


def _answer(nation: str, value: JsonValue) -> NationAnswer:
    fields = Fields(value, f"the answer of {nation[:8]}")
    answer = NationAnswer(
        nation=nation,
        verdict=fields.text("verdict", 32),
        codes=fields.texts("codes", max_items=MAX_CODES, max_chars=64),
        bytes_out=fields.integer("bytes_out_per_round"),
    )
    fields.done()
    return answer
