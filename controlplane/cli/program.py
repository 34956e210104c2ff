"""The program: its nouns and verbs by name, each loaded when it is used, so that help and completion stay instant.

Importing this module costs what typer costs: no gRPC, no cryptography, no rich. The table below is what `--help`
lists; a verb's own help is in its file.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Annotated, Any, Final, NamedTuple

import click
import typer
import typer.core
from typer.core import TyperGroup

from controlplane.cli.settings import Context, Invocation

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
  foedus get nations
  foedus rollout status demo-1 --watch
"""


class Command(NamedTuple):
    """Where a command lives (a module of `commands`, the name of its typer there) and its line in the help."""

    module: str
    app: str
    help: str


COMMANDS: Final[Mapping[str, Command]] = MappingProxyType(
    {
        "get": Command("get", "get_app", "Show resources of a kind, or one of them."),
        "describe": Command("get", "describe_app", "Show one resource in full, with what it waits for."),
        "apply": Command("apply", "apply_app", "Store the intents of a file."),
        "delete": Command("apply", "delete_app", "Delete what apply stored."),
        "key": Command("key", "app", "Make and show signing keys."),
        "charter": Command("charter", "app", "Write, sign, check and publish the charter."),
        "agent": Command("agent", "app", "Accept and revoke nations' agents."),
        "model": Command("model", "app", "Publish, sign and verify model versions."),
        "policy": Command("policy", "app", "Sign policy bundles; put the treaty's in force."),
        "rollout": Command("rollout", "app", "Bring a model version to nations, in waves."),
        "run": Command("run", "app", "Plan, start and follow federated runs."),
        "audit": Command("audit", "app", "Prove what crossed which border."),
        "config": Command("config", "app", "Contexts: which coordinator, as whom."),
    }
)


class LazyGroup(TyperGroup):
    """Commands by name; their modules are imported when one is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = COMMANDS.get(cmd_name)
        if found is None:
            return None
        module = import_module(f"controlplane.cli.commands.{found.module}")
        command = typer.main.get_command(getattr(module, found.app))
        command.name = cmd_name
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Names from the table: completing a noun loads nothing."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(n, help=c.help) for n, c in COMMANDS.items() if n.startswith(incomplete)]
        return found or super().shell_complete(ctx, incomplete)


# Help is plain text; typer would still escape its brackets for rich, and readers would see the backslashes.
typer.core.HAS_RICH = False

app = typer.Typer(
    cls=LazyGroup,
    help="Run AI across borders under a treaty: charter, model versions, rollouts, federated runs, the record.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _option(variable: str, metavar: str, help_text: str) -> Any:
    """A flag that may also come from the environment; typer would escape its own note about that."""
    return typer.Option(envvar=variable, show_envvar=False, metavar=metavar, help=f"{help_text} ({variable}).")


def version_option(program: str) -> Any:
    """`--version`: print the program's name and version, and end."""

    def show(is_wanted: bool) -> None:
        if is_wanted:
            from treaty.version import version

            typer.echo(f"{program} {version()}")
            raise typer.Exit

    return typer.Option("--version", is_eager=True, callback=show, help="Show the version and exit.")


@app.callback()
def root(
    ctx: typer.Context,
    coordinator: Annotated[str, _option("FOEDUS_COORDINATOR", "HOST:PORT", "The coordinator's address")] = "",
    cert: Annotated[str, _option("FOEDUS_CERT", "FILE", "Your client certificate")] = "",
    key: Annotated[str, _option("FOEDUS_KEY", "FILE", "Its private key")] = "",
    ca: Annotated[str, _option("FOEDUS_CA", "FILE", "The coordinator's CA")] = "",
    charter: Annotated[str, _option("FOEDUS_CHARTER", "FILE", "The charter to verify by")] = "",
    context: Annotated[str, _option("FOEDUS_CONTEXT", "NAME", "A context of the configuration")] = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the command's trace id.")] = False,
    _version: Annotated[bool, version_option("foedus")] = False,
) -> None:
    flags = Context(coordinator=coordinator, cert=cert, key=key, ca=ca, charter=charter)
    ctx.obj = Invocation(flags=flags, context=context, is_verbose=verbose)


def invocation(ctx: typer.Context) -> Invocation:
    """What the program's own flags said."""
    found = ctx.find_object(Invocation)
    return found if found is not None else Invocation()


def noun(help_text: str, *, epilog: str = "") -> typer.Typer:
    """A group of verbs."""
    group = typer.Typer(
        help=help_text,
        epilog=epilog or None,
        no_args_is_help=True,
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    group.callback()(_nothing)
    return group


def verb() -> typer.Typer:
    """A single command of its own, like `get`."""
    return typer.Typer(
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )


def _nothing() -> None:
    """A group does nothing by itself; without a callback a group of one verb would collapse into it."""
