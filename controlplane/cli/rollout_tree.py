"""A rollout as a tree: waves → nations, how far each is, why it waits and since when.

`lines` is pure: the same rollout at the same time gives the same lines, in Unicode or in ASCII.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

import typer

from controlplane.cli import tables
from controlplane.cli.client import Client
from controlplane.cli.terminal import age, console, mark, size, speaks_ascii_only
from treaty.names import PartyCode
from treaty.resources.codec import narrowed
from treaty.resources.meta import AnyResource, Resource, find_condition, is_true
from treaty.resources.rollouts import (
    ROLLOUT,
    ROLLOUT_ABORTED,
    ROLLOUT_PROGRESSING,
    ROLLOUT_SUCCEEDED,
    NationProgress,
    RolloutSpec,
    RolloutStatus,
    Wave,
)

Rollout = Resource[RolloutSpec, RolloutStatus]

NATION_MARKS: Final = {
    "Pending": "pending",
    "AwaitingConsent": "waiting",
    "Serving": "done",
    "Refused": "refused",
    "Failed": "failed",
    "Returned": "failed",
}
"""All other states are under way."""

WAITS: Final = {
    "AwaitingConsent": "a person of the nation approves or refuses: foedus-agent approve",
    "NoAgentAccepted": "no agent of the nation is accepted: foedus agent accept",
    "Unreachable": "its agent is not connected; unreachable is not failed",
    "WaitingForSlot": "another nation of the wave moves first",
}


def lines(rollout: Rollout, now: datetime, *, is_ascii: bool) -> list[str]:
    """The tree, without colour."""
    spec, status = rollout.spec, rollout.status
    known = {entry.nation: entry for entry in status.nations}
    state = tables.rollout_state(rollout)
    told = [f"{_head_mark(rollout, is_ascii)} rollout {rollout.name}  {spec.model}  {state}".rstrip()]
    if why := _why(rollout):
        told.append(f"  {why}")
    for place, wave in enumerate(spec.waves):
        told += _wave_lines(rollout, place, wave, known, now, is_ascii=is_ascii)
    return told


def is_ended(rollout: Rollout) -> bool:
    conditions = rollout.status.conditions
    return is_true(conditions, ROLLOUT_SUCCEEDED) or is_true(conditions, ROLLOUT_ABORTED)


def print_tree(resource: AnyResource) -> None:
    rollout = narrowed(ROLLOUT, resource)
    typer.echo("\n".join(lines(rollout, datetime.now(UTC), is_ascii=speaks_ascii_only())))


async def watch_tree(client: Client, name: str) -> Rollout:
    """Redraw the tree while somebody watches, tell each change as a line elsewhere, until the rollout has ended.

    Returns: the rollout as it was seen last.
    """
    listing = await client.list(ROLLOUT.name)
    current = narrowed(ROLLOUT, await client.get(ROLLOUT.name, name))
    if not sys.stdout.isatty():
        return await _tell_changes(client, current, listing.resource_version)
    from rich.live import Live
    from rich.text import Text

    def drawn(rollout: Rollout) -> Text:
        text = "\n".join(lines(rollout, datetime.now(UTC), is_ascii=speaks_ascii_only()))
        return Text(text, no_wrap=True, overflow="ellipsis")

    # Redrawn by the clock too: the ages move when nothing else does.
    with Live(
        get_renderable=lambda: drawn(current), console=console(sys.stdout), refresh_per_second=2, transient=False
    ):
        async for rollout in _changes(client, current, listing.resource_version):
            current = rollout
    return current


async def _tell_changes(client: Client, rollout: Rollout, since: int) -> Rollout:
    print_tree(rollout)
    before = rollout
    async for changed in _changes(client, rollout, since):
        for line in changes(before, changed):
            typer.echo(line)
        before = changed
    if before is not rollout:
        print_tree(before)
    return before


async def _changes(client: Client, rollout: Rollout, since: int) -> AsyncIterator[Rollout]:
    """Each state of the rollout after this one, the ended one last."""
    if is_ended(rollout):
        return
    async for _, resource in client.watch(ROLLOUT.name, since):
        if resource.name == rollout.name:
            changed = narrowed(ROLLOUT, resource)
            yield changed
            if is_ended(changed):
                return


def changes(before: Rollout, after: Rollout) -> Iterator[str]:
    """What moved, a line each."""
    known = {entry.nation: entry for entry in before.status.nations}
    for entry in after.status.nations:
        old = known.get(entry.nation)
        if old is None or (old.state, old.reason) != (entry.state, entry.reason):
            yield f"{entry.nation} {entry.state}{f' ({entry.reason})' if entry.reason else ''}"
    state = tables.rollout_state(after)
    if state != tables.rollout_state(before):
        why = _why(after)
        yield f"rollout {after.name} {state}{f': {why}' if why else ''}"


def _head_mark(rollout: Rollout, is_ascii: bool) -> str:
    if is_true(rollout.status.conditions, ROLLOUT_SUCCEEDED):
        return mark("done", is_ascii=is_ascii)
    if is_true(rollout.status.conditions, ROLLOUT_ABORTED):
        return mark("failed", is_ascii=is_ascii)
    return mark("paused" if rollout.spec.paused else "moving", is_ascii=is_ascii)


def _why(rollout: Rollout) -> str:
    """The message of the condition that explains the state."""
    for type_ in (ROLLOUT_ABORTED, ROLLOUT_SUCCEEDED):
        found = find_condition(rollout.status.conditions, type_)
        if found is not None and is_true(rollout.status.conditions, type_):
            return found.message or found.reason
    found = find_condition(rollout.status.conditions, ROLLOUT_PROGRESSING)
    return found.message if found is not None else ""


def _wave_lines(
    rollout: Rollout,
    place: int,
    wave: Wave,
    known: Mapping[PartyCode, NationProgress],
    now: datetime,
    *,
    is_ascii: bool,
) -> list[str]:
    is_last_wave = place == len(rollout.spec.waves) - 1
    arm, trunk = _arms(is_last_wave, is_ascii)
    rows = []
    for index, nation in enumerate(wave.nations):
        entry = known.get(nation) or NationProgress(nation=nation, state="Pending")
        inner, _ = _arms(index == len(wave.nations) - 1, is_ascii)
        icon = mark(NATION_MARKS.get(entry.state, "moving"), is_ascii=is_ascii)
        rows.append([f"{trunk}{inner} {icon} {nation}", entry.state, age(entry.since, now), _note(entry)])
    text = _columns(rows)
    return [f"{arm} {wave.name}  {_wave_state(rollout, place, now)}".rstrip(), *text]


def _columns(rows: list[list[str]]) -> list[str]:
    widths = tables.column_widths(rows)
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _arms(is_last: bool, is_ascii: bool) -> tuple[str, str]:
    if is_last:
        return mark("last", is_ascii=is_ascii), "   "
    return mark("branch", is_ascii=is_ascii), mark("trunk", is_ascii=is_ascii) + " "


def _wave_state(rollout: Rollout, place: int, now: datetime) -> str:
    current = rollout.status.current_wave
    if is_ended(rollout):
        return "" if place <= current else "not begun"
    if place != current:
        return "done" if place < current else "not begun"
    soaking = rollout.status.soaking_since
    return f"soaking {age(soaking, now)} of {rollout.spec.soak_seconds}s" if soaking else "in progress"


def _note(entry: NationProgress) -> str:
    """Why it waits, or how far it is."""
    total = entry.metrics.get("total_bytes", 0)
    parts = []
    if entry.state == "Pulling" and total:
        parts.append(f"{size(entry.metrics.get('pulled_bytes', 0))} of {size(total)}")
    if "heldout_loss_micro_after" in entry.metrics:
        before, after = (entry.metrics.get(f"heldout_loss_micro_{when}", 0) for when in ("before", "after"))
        parts.append(f"held-out loss from {before / 1e6:.3f} to {after / 1e6:.3f}")
    waits = WAITS.get(entry.reason or "") or WAITS.get(entry.state, "")
    why = ": ".join(text for text in (entry.reason or "", entry.message or waits) if text)
    return "; ".join([*parts, why] if why else parts)
