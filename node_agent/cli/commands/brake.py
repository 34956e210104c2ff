"""`brake`: an admin's stop for training and egress, with or without a coordinator or a running agent."""

from __future__ import annotations

import typer

from node_agent.cli.opening import opened_journal
from node_agent.cli.output import say
from node_agent.cli.program import HomeOption, home_of
from treaty.cli.program import noun

app = noun("Stop training and egress at once, or let them go on.")


@app.command(epilog="Example:  foedus-agent brake on")
def on(ctx: typer.Context, home: HomeOption = None) -> None:
    """Stop training and egress now. Serving goes on."""
    _set(ctx, home, is_on=True)
    say("the brake is on: nothing trains, nothing leaves")


@app.command(epilog="Example:  foedus-agent brake off")
def off(ctx: typer.Context, home: HomeOption = None) -> None:
    """Let training and egress go on."""
    _set(ctx, home, is_on=False)
    say("the brake is off")


def _set(ctx: typer.Context, home: HomeOption, *, is_on: bool) -> None:
    with opened_journal(home_of(ctx, home)) as journal:
        journal.set_brake(is_on=is_on)
