"""`log verify`: whether the coordinator's log is still the one that this agent saw before."""

from __future__ import annotations

from typing import Annotated

import typer

from node_agent.cli.opening import opened
from node_agent.cli.output import Format, FormatOption, say, show, show_if_asked
from node_agent.cli.program import HomeOption, home_of
from treaty.cli.program import noun

app = noun("The coordinator's log, as this agent saw it.")


@app.command(
    short_help="Check the last checkpoint, and whether the log ever lied.", epilog="Example:  foedus-agent log verify"
)
def verify(
    ctx: typer.Context,
    acknowledge: Annotated[
        bool, typer.Option("--acknowledge", help="A person has looked: let the agent go on after its next start.")
    ] = False,
    output: FormatOption = Format.TABLE,
    home: HomeOption = None,
) -> None:
    """Check the last checkpoint's signature and say whether the log ever contradicted itself. Ends with 4 if it did."""
    from node_agent.logwatch import LOG_INCONSISTENT, LogWatch, verify_by_log_key
    from treaty.errors import TrustError

    with opened(home_of(ctx, home)) as base:
        watch = LogWatch(base.journal, base.nation)
        alarm, last = watch.alarm, watch.last()
        if alarm and acknowledge:
            watch.clear_alarm()
            say(f"acknowledged: {alarm}")
            return
        if alarm:
            raise TrustError(
                f"the coordinator's log contradicted itself ({alarm})",
                code=LOG_INCONSISTENT,
                remedy="compare checkpoints with the other nations; then pass --acknowledge and start the agent again",
            )
        if last is None:
            say("no checkpoint seen yet")
            show_if_asked({"origin": base.nation.charter().log_origin, "size": 0, "root": ""}, output)
            return
        verify_by_log_key(base.nation.charter(), watch.last_note())
    say(f"{last.origin}: {last.size} entries, consistent at every contact so far")
    if output is Format.TABLE:
        typer.echo(last.root.hex())
    else:
        show({"origin": last.origin, "size": last.size, "root": last.root.hex()}, output)
