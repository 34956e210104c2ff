"""`-w`: the table first, then a line for each change; with `-o json` a document for each."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

import typer

from controlplane.cli import tables
from controlplane.cli.client import Client, Listing
from controlplane.cli.options import Output
from controlplane.cli.output import resource_name
from treaty.resources import codec
from treaty.resources.meta import AnyResource


async def watch_table(
    client: Client, kind: str, listing: Listing, output: Output, *, name: str = "", selector: str = ""
) -> None:
    """Show what is there, then every change, until interrupted. Changes are filtered as the listing was."""
    wanted = _labels(selector)
    shown = [item for item in listing.items if not name or item.name == name]
    widths = _show(shown, output, [], with_header=True)
    async for change, resource in client.watch(kind, listing.resource_version):
        labels = resource.metadata.labels
        is_wanted = (not name or resource.name == name) and all(labels.get(k) == v for k, v in wanted.items())
        if is_wanted:
            widths = _show([resource], output, widths, with_header=not widths, change=change.value)


def _show(
    resources: list[AnyResource], output: Output, widths: list[int], *, with_header: bool, change: str = ""
) -> list[int]:
    if output is Output.NAME:
        for resource in resources:
            typer.echo(resource_name(resource))
    elif output in (Output.JSON, Output.YAML):
        for resource in resources:
            document = codec.to_json(resource)
            typer.echo(json.dumps({"type": change or "ADDED", "object": document}, ensure_ascii=False))
    elif resources:
        rows = tables.resource_rows(resources, is_wide=output is Output.WIDE, now=datetime.now(UTC))
        widths = widths or tables.column_widths(rows)
        if change == "DELETED":
            rows[1][-1] = "deleted"
        typer.echo(tables.text_of(rows if with_header else rows[1:], sys.stdout, widths))
    return widths


def _labels(selector: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in selector.split(",") if "=" in pair)
