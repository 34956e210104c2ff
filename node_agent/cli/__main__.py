"""Entry point of `foedus-agent`: run one command, end with one line and one number.

    python -m node_agent.cli status

Whatever fails on purpose is one line on standard error that begins with `error:`, and beneath it what to do next, where
that is known. Exit codes are those of `treaty.exit_codes`, also listed by `--help`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

import click
import typer

from node_agent.cli.program import app
from node_agent.settings import silence_grpc
from treaty.errors import FoedusError
from treaty.exit_codes import ExitCode, error_lines, exit_code
from treaty.extras import not_installed

EXTRA: Final = "agent"
INTERRUPTED: Final = 130
"""128 + SIGINT, as shells have it."""


def main() -> None:
    silence_grpc()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; the exit code."""
    command = typer.main.get_command(app)
    try:
        ended = command.main(args=list(arguments), prog_name="foedus-agent", standalone_mode=False)
    except FoedusError as err:
        typer.echo(error_lines(err), err=True)
        return exit_code(err)
    except ModuleNotFoundError as err:
        refused = not_installed(err, EXTRA)
        typer.echo(error_lines(refused), err=True)
        return exit_code(refused)
    except click.ClickException as err:
        return _usage(err)
    except (click.Abort, KeyboardInterrupt):
        typer.echo("error: interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough (`… | head`); keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    return ended if isinstance(ended, int) else ExitCode.OK


def _usage(error: click.ClickException) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        typer.echo(error.format_message(), err=True)
        return ExitCode.USAGE
    message = error.format_message().replace("\n", " ").rstrip(".")
    line = f"error: {message[:1].lower()}{message[1:]}"
    context = error.ctx if isinstance(error, click.UsageError) else None
    typer.echo(f"{line}\n  {context.command_path} --help" if context else line, err=True)
    return ExitCode.USAGE


if __name__ == "__main__":
    main()
