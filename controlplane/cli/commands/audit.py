"""`foedus audit`: what an auditor needs to believe nobody: the record, verified here, from the charter alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controlplane.cli.options import CharterOption, ForceOption, Output, OutputOption, PinOption
from controlplane.cli.program import invocation
from controlplane.cli.settings import Invocation
from treaty.cli.program import noun

if TYPE_CHECKING:
    from treaty.audit import Offered
    from treaty.charter import Charter
    from treaty.strict_json import JsonLike

app = noun("Prove what crossed which border.")


@app.command(
    short_help="Verify the whole record; show bytes across each border.",
    epilog="Example:  foedus audit verify --charter charter.json --state seen.note --updates /srv/hub/spool",
)
def verify(
    ctx: typer.Context,
    charter: CharterOption = None,
    pin: PinOption = "",
    updates: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The coordinator's spool: recompute each round's sum from it.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keeps the checkpoint seen last; a log must only grow.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="Verify an export instead of asking the coordinator.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Verify the whole record, and show bytes across each border by class. Exits with 4 if anything does not hold."""
    from controlplane.cli import charter_drafts, log_export

    invoked = invocation(ctx)
    believed = charter_drafts.believed_at(invoked.charter_path(charter), pin)
    known = log_export.read_state(state, believed)
    offered = log_export.read_export(export) if export else asyncio.run(_offered(invoked, known.size if known else 0))
    _audit(offered, believed, state, updates, output)


@app.command(
    short_help="Copy the record, as far as this role may see it.", epilog="Example:  foedus audit export evidence/"
)
def export(
    ctx: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for checkpoint and entries.")],
    force: ForceOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Copy the record: its signed checkpoint, and every entry with salt and statement as this role may see them."""
    from controlplane.cli import log_export
    from controlplane.cli.output import print_outcome

    offered = asyncio.run(_offered(invocation(ctx), 0))
    log_export.write_export(directory, offered, force=force)
    line = f"{len(offered.entries)} entries in {directory}; verify: foedus audit verify --from {directory}"
    facts: dict[str, JsonLike] = {"entries": len(offered.entries), "directory": str(directory)}
    print_outcome(line, facts, output, name=str(directory))


async def _offered(invoked: Invocation, from_size: int) -> Offered:
    from controlplane.cli.calls import client_of
    from controlplane.cli.log_reading import read_log

    async with client_of(invoked) as client:
        return await read_log(client, from_size)


def _audit(offered: Offered, charter: Charter, state: Path | None, updates: Path | None, output: Output) -> None:
    """Verify, recompute, show, remember. Raises: TrustError: something does not hold."""
    from controlplane.cli import log_export
    from controlplane.cli.audit_report import document, require_held, text
    from controlplane.cli.output import print_document
    from controlplane.cli.recomputing import recompute_rounds
    from treaty import audit

    found = audit.verify(offered, charter, log_export.read_state(state, charter))
    sums = recompute_rounds(found.crossings.rounds, updates)
    if output in (Output.JSON, Output.YAML):
        print_document(document(found, sums), output)
    else:
        typer.echo(text(found, sums))
    require_held(found, sums)
    if state is not None:
        log_export.write_state(state, offered.note)
