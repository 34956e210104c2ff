"""`status`: connection, lease, what is served, rollouts and why they wait, approvals with the command, brake, data."""

from __future__ import annotations

from typing import Any

import typer

from node_agent.cli.opening import opened
from node_agent.cli.output import Format, FormatOption, facts, show, table
from node_agent.cli.program import HomeOption, home_of
from treaty.cli.program import verb

app = verb()


@app.command(epilog="Example:  foedus-agent status -o json")
def status(
    ctx: typer.Context,
    output: FormatOption = Format.TABLE,
    home: HomeOption = None,
) -> None:
    """Connection, what is served, what waits and for whom."""
    from node_agent.overview import overview

    with opened(home_of(ctx, home)) as base:
        seen: dict[str, Any] = overview(base)
    if output is not Format.TABLE:
        show(seen, output)
        return
    facts(_facts(seen))
    _section("ROLLOUT", ("STATE", "WHY", "PULLED", "SINCE"), [_rollout(entry, seen) for entry in seen["rollouts"]])
    _section(
        "DATASET",
        ("PURPOSES", "CLASS", "RECORDS"),
        [
            (entry["name"], ",".join(entry["purposes"]), entry["class"], str(entry["records"]))
            for entry in seen["datasets"]
            if not entry["withdrawn"]
        ],
    )
    for approval in seen["approvals"]:
        typer.echo(f"\n{approval['model']} waits for a person ({', '.join(approval['codes'])}):")
        for line in request_lines(approval):
            typer.echo(f"  {line}")
        typer.echo(f"  {approval['command']}")


def request_lines(asked: dict[str, Any]) -> list[str]:
    """What a person decides on, one fact a line."""
    gates = asked["gates"]
    lines = [
        f"version   {asked['model']} {asked['digest']}",
        f"fallback  {asked['fallback'] or 'none: serves nothing'}",
        f"purpose   {asked['purpose']}",
    ]
    lines += [f"prompt    {prompt!r}" for prompt in gates["health_prompts"]]
    if gates["evaluation_purpose"] is not None:
        worse = gates["max_worse_ppm"] / 10_000
        lines.append(f"measured  on data for {gates['evaluation_purpose']!r}, at most {worse:g} % worse")
    return lines


def _facts(seen: dict[str, Any]) -> list[tuple[str, str]]:
    connection, charter, policies, log = seen["connection"], seen["charter"], seen["policies"], seen["log"]
    trouble = connection.get("trouble") or {}
    rows = [
        ("agent", seen["agent"]),
        ("connection", connection["state"]),
        ("coordinator", seen["coordinator"]),
        ("charter", f"{charter['treaty']} version {charter['version']}, until {charter['expires_at']}"),
        ("serving", seen["serving"] or "nothing"),
        ("policies", f"treaty revision {policies['treaty_revision']}, overlay {policies['overlay_revision']}"),
        ("brake", "ON: nothing trains, nothing leaves" if seen["brake_on"] else "off"),
        ("log", log["alarm"] or f"{log['size']} entries seen"),
    ]
    if connection.get("lease_until"):
        rows.insert(2, ("lease", f"until {connection['lease_until']}"))
    if trouble.get("message"):
        rows.insert(2, ("why", "; ".join(filter(None, (trouble["message"], trouble["remedy"])))))
    if connection.get("coordinator_is_behind"):
        rows.insert(2, ("why", "the coordinator was restored from a backup and directs nothing until it is recovered"))
    if connection.get("metrics"):
        rows.append(("metrics", f"http://{connection['metrics']}/metrics"))
    rows += [(f"  {name}", str(text)) for name, text in seen["conditions"].items() if text]
    return rows


def _rollout(entry: dict[str, Any], seen: dict[str, Any]) -> tuple[str, ...]:
    why = seen["waiting"].get(f"rollout/{entry['rollout']}") or ",".join(entry["codes"])
    pulled = f"{entry['pulled_bytes']}/{entry['total_bytes']}" if entry["total_bytes"] else ""
    return entry["rollout"], entry["state"], why, pulled, entry["since"]


def _section(first: str, others: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    if rows:
        typer.echo()
        table((first, *others), rows)
