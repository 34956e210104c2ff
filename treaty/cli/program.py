"""Puts a program together: nouns and verbs by name, each loaded when it is used; help and completion stay instant.

Importing this module costs what typer costs: no gRPC, no cryptography, no rich.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final, NamedTuple

import click
import typer
import typer.core
from typer.core import TyperGroup

from treaty.exit_codes import TABLE

EXIT_CODES: Final = f"\b\n{TABLE}"
"""For the end of a program's help."""

SETTINGS: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

# Help is plain text; typer would still escape its brackets for rich, and readers would see the backslashes.
typer.core.HAS_RICH = False


class Command(NamedTuple):
    """Where a command lives (a module of the program's `commands`, the name of its typer there) and its help's line."""

    module: str
    app: str
    help: str


def lazy_group(package: str, commands: Mapping[str, Command]) -> type[TyperGroup]:
    """A group of `commands`, whose modules in `package` are imported when one of them is used."""

    class LazyGroup(TyperGroup):
        def list_commands(self, ctx: click.Context) -> list[str]:
            return list(commands)

        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            found = commands.get(cmd_name)
            if found is None:
                return None
            module = import_module(f"{package}.{found.module}")
            command = typer.main.get_command(getattr(module, found.app))
            command.name = cmd_name
            return command

        def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            with formatter.section("Commands"):
                formatter.write_dl([(name, command.help) for name, command in commands.items()])

        def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
            """Names from the table: completing a noun loads nothing."""
            from click.shell_completion import CompletionItem

            found = [CompletionItem(n, help=c.help) for n, c in commands.items() if n.startswith(incomplete)]
            return found or super().shell_complete(ctx, incomplete)

    return LazyGroup


def silence_grpc() -> None:
    """Let gRPC print nothing of its own beside our lines. To be called before anything imports it."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def version_option(program: str) -> Any:
    """`--version`: print the program's name and version, and end."""

    def show(is_wanted: bool) -> None:
        if is_wanted:
            from treaty.version import version

            typer.echo(f"{program} {version()}")
            raise typer.Exit

    return typer.Option("--version", is_eager=True, callback=show, help="Show the version and exit.")


def noun(help_text: str, *, epilog: str = "") -> typer.Typer:
    """A group of verbs."""
    group = typer.Typer(
        help=help_text,
        epilog=epilog or None,
        no_args_is_help=True,
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings=SETTINGS,
    )
    group.callback()(_nothing)
    return group


def verb() -> typer.Typer:
    """A single command of its own, like `get`."""
    return typer.Typer(
        rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False, context_settings=SETTINGS
    )


def _nothing() -> None:
    """A group does nothing by itself; without a callback a group of one verb would collapse into it."""
