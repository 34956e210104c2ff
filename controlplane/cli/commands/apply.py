"""`foedus apply` and `foedus delete`: intents from files."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.commands.get import KindArgument
from controlplane.cli.options import Output, OutputOption
from controlplane.cli.program import invocation
from controlplane.cli.settings import Invocation
from treaty.cli.program import verb

apply_app = verb()
delete_app = verb()


@apply_app.command(epilog="Example:  foedus apply -f rollout.yaml --dry-run")
def apply(
    ctx: typer.Context,
    file: Annotated[Path, typer.Option("--file", "-f", help="YAML or JSON, one or several documents; '-': input.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Let the coordinator judge it; store nothing.")] = False,
    output: OutputOption = Output.NAME,
) -> None:
    """Store the intents of a file. The same file again changes nothing."""
    from controlplane.cli.documents import read_resources

    asyncio.run(_apply(invocation(ctx), read_resources(file), output, dry_run=dry_run))


@delete_app.command(epilog="Example:  foedus delete freeze winter")
def delete(
    ctx: typer.Context,
    kind: KindArgument,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Delete what apply stored. A rollout that is under way is aborted first: see 'foedus rollout abort'."""
    asyncio.run(_delete(invocation(ctx), kind, name, output))


async def _apply(invoked: Invocation, documents: list[bytes], output: Output, *, dry_run: bool) -> None:
    from controlplane.cli.calls import client_of
    from controlplane.cli.output import print_resource

    async with client_of(invoked) as client:
        for document in documents:
            print_resource(await client.apply(document, dry_run=dry_run), output)


async def _delete(invoked: Invocation, kind_word: str, name: str, output: Output) -> None:
    from controlplane.cli.calls import client_of
    from controlplane.cli.output import print_changed, resource_name
    from treaty.resources.kinds import kind_meant

    async with client_of(invoked) as client:
        deleted = await client.delete(kind_meant(kind_word).name, name)
    print_changed(f"{resource_name(deleted)} deleted", deleted, output)
