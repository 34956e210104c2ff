"""A run under way and at its end: where each nation is, and the held-out perplexity that each round measured."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Final

from controlplane.cli import tables
from controlplane.cli.client import Client
from controlplane.cli.terminal import console, mark, say, speaks_ascii_only
from treaty.errors import FoedusError
from treaty.resources.codec import narrowed
from treaty.resources.meta import AnyResource, find_condition, is_true
from treaty.resources.runs import FEDERATED_RUN, RUN_SUCCEEDED, FederatedRunStatus, Task
from treaty.strict_json import JsonObject, JsonValue

LOSS: Final = "heldout_loss_micro"
STAGE_MARKS: Final = {"Done": "done", "Failed": "failed", "WaitingForSlot": "waiting"}
BAR_CELLS: Final = 20


async def follow(client: Client, name: str) -> None:
    """Show a run's progress until it has ended: redrawn where somebody watches, a line for each change elsewhere."""
    if not sys.stderr.isatty():
        seen: dict[str, str] = {}
        async for view in client.follow_run(name):
            for line in moved(view, seen):
                say(line)
        return
    from rich.live import Live
    from rich.text import Text

    with Live(console=console(sys.stderr), refresh_per_second=4) as live:
        async for view in client.follow_run(name):
            text = "\n".join(view_lines(view, is_ascii=speaks_ascii_only()))
            live.update(Text(text, no_wrap=True, overflow="ellipsis"))


def view_lines(view: JsonObject, *, is_ascii: bool) -> list[str]:
    """One view of a run, a line a nation."""
    told = [f"{view.get('name')}: round {view.get('round')} of {view.get('rounds')}"]
    for nation, progress in sorted(_nations(view).items()):
        stage = str(progress.get("stage"))
        done, total = _count(progress, "steps_done"), _count(progress, "steps_total")
        icon = mark(STAGE_MARKS.get(stage, "moving"), is_ascii=is_ascii)
        steps = f"{_bar(done, total, is_ascii)} {done}/{total}" if total else ""
        told.append(f"  {icon} {nation}  round {progress.get('round')}  {stage:<15} {steps}".rstrip())
    return told


def moved(view: JsonObject, seen: dict[str, str]) -> list[str]:
    """Lines for what is new in `view`; `seen` remembers what was told."""
    told = []
    for nation, progress in sorted(_nations(view).items()):
        state = f"round {progress.get('round')} {progress.get('stage')}"
        if seen.get(nation) != state:
            seen[nation] = state
            told.append(f"{nation} {state}")
    rounds = view.get("rounds_done")
    for done in rounds if isinstance(rounds, list) else []:
        key = f"round {done.get('round') if isinstance(done, dict) else ''}"
        if key not in seen and isinstance(done, dict):
            seen[key] = "done"
            told.append(f"{key} done: {_joined(done.get('nations'))}")
    return told


def summary(resource: AnyResource) -> str:
    """Several lines: the state, the nations that take part or refused, perplexity by nation and round."""
    run = narrowed(FEDERATED_RUN, resource)
    spec, status = run.spec, run.status
    told = [f"run {run.name}: {spec.task} for {spec.purpose} on {spec.model}: {tables.run_state(resource)}"]
    ended = find_condition(status.conditions, RUN_SUCCEEDED)
    if ended is not None and ended.message:
        told.append(f"  {ended.message}")
    if status.refusals:
        refused = "; ".join(f"{entry.nation}: {', '.join(entry.codes)}" for entry in status.refusals)
        told.append(f"  refused: {refused}")
    rows = perplexity_rows(status, is_training=spec.task is Task.TRAIN)
    if len(rows) > 1:
        told += ["", "held-out perplexity", tables.text_of(rows, sys.stdout)]
    for done in status.rounds_done:
        if done.aggregate_digest:
            told.append(f"round {done.round}: aggregate {done.aggregate_digest}")
    return "\n".join(told)


def perplexity_rows(status: FederatedRunStatus, *, is_training: bool) -> list[list[str]]:
    """By nation and round. A training round measures the arrays that it was given, so its first is `before`."""
    rounds = [done for done in status.rounds_done if any(LOSS in entry.values for entry in done.metrics)]
    if is_training:
        titles = ["before" if done.round == 1 else f"after round {done.round - 1}" for done in rounds]
    else:
        titles = [f"round {done.round}" for done in rounds]
    losses = [{entry.nation: entry.values.get(LOSS) for entry in done.metrics} for done in rounds]
    nations = sorted({nation for measured in losses for nation in measured})
    header = ["NATION", *(title.upper() for title in titles)]
    return [header, *([nation, *(_perplexity(measured.get(nation)) for measured in losses)] for nation in nations)]


def require_success(resource: AnyResource) -> None:
    """Raises: FoedusError: the run ended otherwise; says why."""
    conditions = narrowed(FEDERATED_RUN, resource).status.conditions
    if is_true(conditions, RUN_SUCCEEDED):
        return
    why = find_condition(conditions, RUN_SUCCEEDED)
    raise FoedusError(
        f"run {resource.name} did not succeed{f': {why.message or why.reason}' if why else ''}",
        remedy=f"foedus describe run {resource.name}",
    )


def _perplexity(loss_micro: int | None) -> str:
    return "-" if loss_micro is None else f"{math.exp(loss_micro / 1e6):.2f}"


def _nations(view: JsonObject) -> dict[str, Mapping[str, JsonValue]]:
    found = view.get("nations")
    if not isinstance(found, dict):
        return {}
    return {nation: progress for nation, progress in found.items() if isinstance(progress, dict)}


def _count(progress: Mapping[str, JsonValue], name: str) -> int:
    value = progress.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _bar(done: int, total: int, is_ascii: bool) -> str:
    full = min(BAR_CELLS, BAR_CELLS * done // total)
    filled, empty = ("#", ".") if is_ascii else ("█", "░")
    return filled * full + empty * (BAR_CELLS - full)


def _joined(value: JsonValue) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else ""
