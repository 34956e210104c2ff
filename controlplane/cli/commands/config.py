"""`foedus config`: contexts in the configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.options import Output, OutputOption
from controlplane.cli.program import invocation
from controlplane.cli.settings import Context, config_path, read_config, with_context, write_config
from treaty.cli.program import noun

app = noun("Contexts: which coordinator, as whom.")


def complete_context(incomplete: str) -> list[str]:
    """Names of contexts, for the shell."""
    return [name for name in read_config(config_path()).contexts if name.startswith(incomplete)]


NameArgument = Annotated[str, typer.Argument(help="Name of the context.", autocompletion=complete_context)]


@app.command(
    "set-context",
    short_help="Create a context, or change what is given of it.",
    epilog="Example:  foedus config set-context eu --coordinator hub:7443 --cert op.pem --key op.key --ca ca.pem",
)
def set_context(
    ctx: typer.Context,
    name: NameArgument,
    coordinator: Annotated[str, typer.Option(metavar="HOST:PORT")] = "",
    cert: Annotated[Path | None, typer.Option(metavar="FILE", help="Client certificate.")] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key.")] = None,
    ca: Annotated[Path | None, typer.Option(metavar="FILE", help="The coordinator's CA.")] = None,
    charter: Annotated[Path | None, typer.Option(metavar="FILE", help="The charter you compared.")] = None,
) -> None:
    """Create a context, or change what is given of it. The first one becomes the current one.

    The files are read and held against each other; what does not fit is refused.
    """
    from controlplane.cli.charter_drafts import read_charter
    from controlplane.cli.identity import check_address, read_identity

    path = config_path()
    config = read_config(path)
    files = {"cert": cert, "key": key, "ca": ca, "charter": charter}
    given = Context(coordinator=coordinator, **{name: str(file.resolve()) for name, file in files.items() if file})
    known = config.contexts.get(name, Context())
    context = given.over(invocation(ctx).flags).over(known)
    if context.coordinator:
        check_address(context.coordinator)
    read_identity(context)
    if context.charter:
        read_charter(Path(context.charter))
    write_config(path, with_context(config, name, context))
    typer.echo(f"context {name} set in {path}")


@app.command("use-context", epilog="Example:  foedus config use-context eu")
def use_context(name: NameArgument) -> None:
    """Make a context the current one."""
    from dataclasses import replace

    from treaty.errors import NotFound

    path = config_path()
    config = read_config(path)
    if name not in config.contexts:
        raise NotFound(f"there is no context {name!r}", remedy="foedus config get-contexts")
    write_config(path, replace(config, current=name))
    typer.echo(f"current context is {name}")


@app.command("get-contexts", epilog="Example:  foedus config get-contexts -o json")
def get_contexts(output: OutputOption = Output.TABLE) -> None:
    """List the contexts; the current one carries a star."""
    from dataclasses import asdict

    from controlplane.cli.output import print_document, print_table

    config = read_config(config_path())
    if output is Output.NAME:
        typer.echo("\n".join(sorted(config.contexts)))
    elif output in (Output.JSON, Output.YAML):
        contexts = {name: asdict(context) for name, context in sorted(config.contexts.items())}
        print_document({"current": config.current, "contexts": contexts}, output)
    else:
        rows = [
            ["*" if name == config.current else "", name, context.coordinator, context.cert]
            for name, context in sorted(config.contexts.items())
        ]
        print_table(["CURRENT", "NAME", "COORDINATOR", "CERTIFICATE"], rows)
