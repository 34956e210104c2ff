"""What a person or a script sees: tables for the one, JSON and YAML for the other, one line for what was done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, TypeAlias

import typer

from treaty.strict_json import JsonValue


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


FormatOption: TypeAlias = Annotated[Format, typer.Option("--output", "-o", help="table, json or yaml.")]


def say(line: str) -> None:
    """Tell the person something about the work; standard output stays for data."""
    typer.echo(line, err=True)


def show(value: JsonValue, form: Format) -> None:
    """Print `value` whole, for a script."""
    if form is Format.YAML:
        import yaml

        typer.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)
    else:
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_if_asked(value: JsonValue, form: Format) -> None:
    """What a verb did, for a script that asked for it; a person has been told in a line."""
    if form is not Format.TABLE:
        show(value, form)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need to be, two spaces apart."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def facts(rows: Sequence[tuple[str, str]]) -> None:
    """Names and values, one a line, aligned."""
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        typer.echo(f"{name.ljust(width)}  {text}".rstrip())
