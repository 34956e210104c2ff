"""The program: its verbs by name, each loaded when it is used, so that help and completion stay instant.

Importing this module costs what typer costs: no gRPC, no cryptography. The table below is what `--help` lists; a verb's
own help is in its file.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, NamedTuple

import click
import typer
import typer.core
from typer.core import TyperGroup

from node_agent.home import Home
from node_agent.settings import DEFAULT_HOME, default_home
from treaty.version import version

EPILOG: Final = """\b
Exit codes:
  0  done
  1  refused or failed              read the line on stderr
  2  bad usage or malformed input   change the command or the file
  3  not found                      check the name
  4  untrusted                      stop; somebody's bytes or identity could not be believed
  5  denied by a policy             change the request, or the policy
  6  unavailable                    the other side did not answer; try again
  7  conflict or precondition       re-read, do the named step first, then repeat
  8  not permitted                  this identity may not do it; use another role
  130  interrupted

\b
Example:
  foedus-agent init --nation FR --domain treaty.example --agent par-1 --root-dir /media/root
  foedus-agent join --coordinator hub.example:7443 --reach hub.example:7444 --charter sha256:…
  foedus-agent run
"""


class Command(NamedTuple):
    """Where a command lives (a module of `commands`, the name of its typer there) and its line in the help."""

    module: str
    app: str
    help: str


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
SETTINGS: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class LazyGroup(TyperGroup):
    """Commands by name; their modules are imported when one is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = COMMANDS.get(cmd_name)
        if found is None:
            return None
        module = import_module(f"node_agent.cli.commands.{found.module}")
        command = typer.main.get_command(getattr(module, found.app))
        command.name = cmd_name
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in COMMANDS.items()])


# Help is plain text; typer would still escape its brackets for rich, and readers would see the backslashes.
typer.core.HAS_RICH = False

app = typer.Typer(
    cls=LazyGroup,
    help="Runs one nation's node agent: verified models in, nothing out but what both policies allow.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=SETTINGS,
)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"foedus-agent {version()}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    home: Annotated[Path | None, typer.Option(metavar="DIR", help=HOME_HELP, show_default=False)] = None,
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    ctx.obj = Home((home or default_home()).expanduser().absolute())


HomeOption = Annotated[Path | None, typer.Option("--home", metavar="DIR", help=HOME_HELP, show_default=False)]
"""`--home` is understood before and after the verb."""


def home_of(ctx: typer.Context, home: Path | None) -> Home:
    found = ctx.find_object(Home)
    if home is not None:
        return Home(home.expanduser().absolute())
    return found if found is not None else Home(default_home())


def noun(help_text: str) -> typer.Typer:
    """A group of verbs."""
    group = typer.Typer(
        help=help_text,
        no_args_is_help=True,
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings=SETTINGS,
    )
    group.callback()(_nothing)
    return group


def verb() -> typer.Typer:
    """A single command of its own."""
    return typer.Typer(
        rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False, context_settings=SETTINGS
    )


def _nothing() -> None:
    """A group does nothing by itself; without a callback a group of one verb would collapse into it."""
