"""How a program ends: one line and one number, whatever happened.

What fails on purpose is one line on standard error that begins with `error:`, and beneath it what to do next, where
that is known. Exit codes are those of `treaty.exit_codes`, also listed by `--help`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

import click
import typer

from treaty.errors import FoedusError
from treaty.exit_codes import ExitCode, error_lines, exit_code
from treaty.extras import not_installed

INTERRUPTED: Final = 130
"""128 + SIGINT, as shells have it."""


def run_app(app: typer.Typer, arguments: Sequence[str], *, name: str, extra: str) -> int:
    """Run one command of `app`; the exit code. A library that is not installed is a matter of the extra `extra`."""
    command = typer.main.get_command(app)
    try:
        ended = command.main(args=list(arguments), prog_name=name, standalone_mode=False)
    except FoedusError as err:
        return _failed(err)
    except ModuleNotFoundError as err:
        return _failed(not_installed(err, extra))
    except ExceptionGroup as group:
        # A program that serves runs in a task group; what is not ours in it is a bug and is shown whole.
        ours, other = group.split(FoedusError)
        if ours is None or other is not None:
            raise
        return _failed(_first(ours))
    except click.ClickException as err:
        return _usage(err)
    except (click.Abort, KeyboardInterrupt):
        typer.echo("error: interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough (`foedus get … | head`); keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    return ended if isinstance(ended, int) else ExitCode.OK


def _failed(error: FoedusError) -> int:
    typer.echo(error_lines(error), err=True)
    return exit_code(error)


def _first(error: BaseException) -> FoedusError:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, FoedusError):
        raise error
    return error


def _usage(error: click.ClickException) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        typer.echo(error.format_message(), err=True)
        return ExitCode.USAGE
    message = error.format_message().replace("\n", " ").rstrip(".")
    line = f"error: {message[:1].lower()}{message[1:]}"
    context = error.ctx if isinstance(error, click.UsageError) else None
    typer.echo(f"{line}\n  {context.command_path} --help" if context else line, err=True)
    return ExitCode.USAGE
