"""Values on standard output: facts of one thing, resources of a kind, in the form that was asked for.

`-o json` and `-o yaml` are the value itself; `-o name` is what another command takes; tables are for people.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import typer

from controlplane.cli import tables
from controlplane.cli.options import Output
from treaty.resources import codec
from treaty.resources.meta import AnyResource
from treaty.strict_json import JsonLike


def print_facts(facts: Mapping[str, JsonLike], output: Output, *, name: str) -> None:
    """One thing's facts by name; `name` is what `-o name` prints."""
    if output is Output.NAME:
        typer.echo(name)
    elif output in (Output.JSON, Output.YAML):
        print_document(facts, output)
    else:
        lines = [(tables.words(key), _fact(value)) for key, value in facts.items()]
        typer.echo(tables.pairs([(name, text) for name, text in lines if text]))


def print_outcome(line: str, facts: Mapping[str, JsonLike], output: Output, *, name: str) -> None:
    """What a verb did, in a line; its facts where a form is asked for."""
    if output in (Output.TABLE, Output.WIDE):
        typer.echo(line)
    else:
        print_facts(facts, output, name=name)


def print_changed(line: str, resource: AnyResource, output: Output) -> None:
    """What a verb did to a resource, in a line; the resource itself where a form is asked for."""
    if output is Output.TABLE:
        typer.echo(line)
    else:
        print_resource(resource, output)


def print_document(value: JsonLike, output: Output) -> None:
    """A value as JSON or YAML."""
    typer.echo(document_text(value, output))


def document_text(value: JsonLike, output: Output) -> str:
    if output is Output.YAML:
        import yaml

        return str(yaml.safe_dump(json.loads(json.dumps(value)), sort_keys=False, allow_unicode=True)).rstrip("\n")
    return json.dumps(value, indent=2, ensure_ascii=False)


def print_resource(resource: AnyResource, output: Output) -> None:
    """One resource: a table of one line, or its document."""
    if output in (Output.JSON, Output.YAML):
        print_document(codec.to_json(resource), output)
    else:
        print_resources([resource], output)


def print_resources(resources: Sequence[AnyResource], output: Output, *, with_header: bool = True) -> None:
    """Resources of one kind."""
    match output:
        case Output.JSON | Output.YAML:
            items = [codec.to_json(resource) for resource in resources]
            print_document({"apiVersion": "v1", "kind": "List", "items": items}, output)
        case Output.NAME:
            for resource in resources:
                typer.echo(resource_name(resource))
        case Output.TABLE | Output.WIDE:
            rows = tables.resource_rows(resources, is_wide=output is Output.WIDE, now=datetime.now(UTC))
            _print_table(rows if with_header else rows[1:])


def resource_name(resource: AnyResource) -> str:
    """`rollout/demo-1`, as kubectl says it."""
    return f"{resource.kind.lower()}/{resource.name}"


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    _print_table([list(header), *map(list, rows)])


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    text = tables.text_of(rows, sys.stdout)
    if text:
        typer.echo(text)


def _fact(value: JsonLike) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | int) or value is None:
        return "" if value is None else str(value)
    if isinstance(value, Sequence):
        return ", ".join(_fact(member) for member in value)
    return json.dumps(value, ensure_ascii=False)
