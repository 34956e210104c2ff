"""The program: its table of verbs. A verb's own help is in its file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

import typer

from node_agent.home import Home
from node_agent.settings import DEFAULT_HOME, default_home
from treaty.cli.program import EXIT_CODES, SETTINGS, Command, lazy_group, version_option

EPILOG: Final = f"""{EXIT_CODES}
\b
Example:
  foedus-agent init --nation FR --domain treaty.example --agent par-1 --root-dir /media/root
  foedus-agent join --coordinator hub.example:7443 --reach hub.example:7444 --charter sha256:…
  foedus-agent run
"""

COMMANDS: Final[Mapping[str, Command]] = MappingProxyType(
    {
        "init": Command("enrol", "init_app", "Make this nation's root, CA, agent key and descriptor."),
        "delegate": Command("enrol", "delegate_app", "Let the root hand powers to a person's or an agent's key."),
        "join": Command("joining", "join_app", "Believe a charter by its pinned digest and connect."),
        "check": Command("joining", "check_app", "Find what stands in the way, from the network up."),
        "run": Command("running", "app", "Run the agent."),
        "status": Command("status", "app", "Connection, what is served, what waits and for whom."),
        "approve": Command("consent", "approve_app", "A person's yes to a rollout."),
        "refuse": Command("consent", "refuse_app", "A person's no to a rollout."),
        "revoke": Command("revocation", "app", "Put out an agent of this nation, or its CA, for ever."),
        "brake": Command("brake", "app", "Stop training and egress at once, or let them go on."),
        "dataset": Command("dataset", "app", "Register national datasets; paths never leave."),
        "policy": Command("policy", "app", "Put this nation's own policy in force."),
        "receipts": Command("receipts", "app", "What left this nation."),
        "log": Command("log", "app", "The coordinator's log, as this agent saw it."),
    }
)

HOME_HELP: Final = f"The agent's home; default FOEDUS_AGENT_HOME, else {DEFAULT_HOME}."
app = typer.Typer(
    cls=lazy_group("node_agent.cli.commands", COMMANDS),
    help="Runs one nation's node agent: verified models in, nothing out but what both policies allow.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=SETTINGS,
)


@app.callback()
def root(
    ctx: typer.Context,
    home: Annotated[Path | None, typer.Option(metavar="DIR", help=HOME_HELP, show_default=False)] = None,
    _version: Annotated[bool, version_option("foedus-agent")] = False,
) -> None:
    ctx.obj = Home((home or default_home()).expanduser().absolute())


HomeOption = Annotated[Path | None, typer.Option("--home", metavar="DIR", help=HOME_HELP, show_default=False)]
"""`--home` is understood before and after the verb."""


def home_of(ctx: typer.Context, home: Path | None) -> Home:
    found = ctx.find_object(Home)
    if home is not None:
        return Home(home.expanduser().absolute())
    return found if found is not None else Home(default_home())
