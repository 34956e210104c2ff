"""`foedus get` and `foedus describe`: resources as the coordinator holds them."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from controlplane.cli.options import Output, OutputOption
from controlplane.cli.program import invocation
from controlplane.cli.settings import Invocation
from treaty.cli.program import verb

KINDS = (
    "nations",
    "nodeagents",
    "modelversions",
    "rollouts",
    "federatedruns",
    "policybundles",
    "consentrequests",
    "consents",
    "datasets",
    "freezewindows",
)
"""What completion offers; any name of a kind is understood (`agent`, `model`, `run`, `policy`, `freeze`)."""


def complete_kind(incomplete: str) -> list[str]:
    return [kind for kind in KINDS if kind.startswith(incomplete.lower())]


KindArgument = Annotated[
    str, typer.Argument(metavar="KIND", help=f"One of {', '.join(KINDS)}.", autocompletion=complete_kind)
]

get_app = verb()
describe_app = verb()


@get_app.command(epilog="Example:  foedus get rollouts -w")
def get(
    ctx: typer.Context,
    kind: KindArgument,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Name of one; all without.")] = "",
    output: OutputOption = Output.TABLE,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on telling what changes.")] = False,
    selector: Annotated[str, typer.Option("--selector", "-l", help="key=value pairs joined by commas.")] = "",
) -> None:
    """Show resources of a kind, or one of them."""
    asyncio.run(_get(invocation(ctx), kind, name, output, selector=selector, is_watching=watch))


@describe_app.command(epilog="Example:  foedus describe agent fr-par-1")
def describe(
    ctx: typer.Context,
    kind: KindArgument,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one resource in full: metadata, intent, what is observed and since when."""
    asyncio.run(_describe(invocation(ctx), kind, name, output))


async def _get(
    invoked: Invocation, kind_word: str, name: str, output: Output, *, selector: str, is_watching: bool
) -> None:
    from controlplane.cli.calls import client_of
    from controlplane.cli.output import print_resource, print_resources
    from controlplane.cli.watching import watch_table
    from treaty.resources.kinds import kind_meant

    kind = kind_meant(kind_word)
    async with client_of(invoked) as client:
        if name and not is_watching:
            print_resource(await client.get(kind.name, name), output)
            return
        listing = await client.list(kind.name, selector)
        if is_watching:
            await watch_table(client, kind.name, listing, output, name=name, selector=selector)
            return
        print_resources(listing.items, output)
        if not listing.items and output in (Output.TABLE, Output.WIDE):
            typer.echo(f"no {kind.plural} found", err=True)


async def _describe(invoked: Invocation, kind_word: str, name: str, output: Output) -> None:
    from controlplane.cli.calls import client_of
    from controlplane.cli.description import description
    from controlplane.cli.output import print_resource
    from treaty.resources.kinds import kind_meant

    async with client_of(invoked) as client:
        resource = await client.get(kind_meant(kind_word).name, name)
    if output is Output.TABLE:
        typer.echo(description(resource))
    else:
        print_resource(resource, output)
