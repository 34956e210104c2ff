"""`run`: the agent itself, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio

import typer

from node_agent.cli.program import HomeOption, home_of
from treaty.cli.program import verb

app = verb()


@app.command(epilog="Example:  foedus-agent --home /srv/foedus run")
def run(ctx: typer.Context, home: HomeOption = None) -> None:
    """Run the agent until SIGTERM or SIGINT. Safe to kill: it goes on from its journal."""
    from node_agent import agent as agents
    from node_agent import logs
    from node_agent.session import first_error
    from node_agent.settings import read_settings
    from node_agent.work import build
    from treaty.errors import FoedusError

    place = home_of(ctx, home)
    place.require()
    with place.occupied():
        logs.configure(read_settings(place.settings).log_level)
        base = agents.lay(place, agents.SystemClock())

        async def live() -> None:
            await agents.run_until_signalled(agents.Agent(base, build))

        try:
            asyncio.run(live())
        except BaseExceptionGroup as group:
            error = first_error(group)
            if isinstance(error, FoedusError):
                raise error from group
            raise
        finally:
            base.close()
