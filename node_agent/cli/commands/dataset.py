"""`dataset add|list|remove`: what this nation lets be used, and for which purposes. Paths never leave."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from node_agent.cli.opening import opened_journal
from node_agent.cli.output import Format, FormatOption, say, show, show_if_asked, table
from node_agent.cli.program import HomeOption, home_of
from treaty.cli.program import noun

app = noun("Register national datasets; paths never leave.")


@app.command(
    epilog="Example:  foedus-agent dataset add texts texts.jsonl --purpose translation --language fr --class minutes"
)
def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The dataset's name on the wire.")],
    path: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines of pairs; stays where it is.")],
    purpose: Annotated[list[str], typer.Option(help="A purpose it may be used for; repeat for more.")],
    language: Annotated[str, typer.Option(help="ISO 639-1 code of the answers, e.g. fr.")],
    data_class: Annotated[str, typer.Option("--class", help="What kind of data it is.")],
    source_language: Annotated[str, typer.Option(help="ISO 639-1 code of the questions.")] = "en",
    classification: Annotated[str, typer.Option(help="Its marking.")] = "public",
    output: FormatOption = Format.TABLE,
    home: HomeOption = None,
) -> None:
    """Check a dataset's file and register it. Name, purposes, class, size bucket and languages cross the border."""
    from node_agent import catalogue
    from treaty.errors import InvalidInput
    from treaty.label import Classification

    try:
        marking = Classification(classification.lower())
    except ValueError:
        known = ", ".join(Classification)
        raise InvalidInput(f"{classification[:40]!r} is no classification", remedy=f"known are: {known}") from None
    registration = catalogue.Registration(name, path, purpose, language, data_class, marking, source_language)
    with opened_journal(home_of(ctx, home)) as journal:
        dataset = catalogue.add(journal, registration)
    say(f"registered {dataset.name}: {dataset.records} records for {', '.join(dataset.purposes)}")
    show_if_asked({"name": dataset.name, **dataset.to_json()}, output)


@app.command("list", epilog="Example:  foedus-agent dataset list -o json")
def list_datasets(
    ctx: typer.Context,
    output: FormatOption = Format.TABLE,
    home: HomeOption = None,
) -> None:
    """What is registered here."""
    from node_agent import catalogue

    with opened_journal(home_of(ctx, home)) as journal:
        found = catalogue.datasets(journal)
    if output is Format.TABLE:
        rows = [
            (d.name, ",".join(d.purposes), d.data_class, str(d.records), "withdrawn" if d.is_withdrawn else d.path)
            for d in found
        ]
        table(("NAME", "PURPOSES", "CLASS", "RECORDS", "PATH"), rows)
    else:
        show([{"name": dataset.name, **dataset.to_json()} for dataset in found], output)


@app.command(epilog="Example:  foedus-agent dataset remove texts")
def remove(ctx: typer.Context, name: str, output: FormatOption = Format.TABLE, home: HomeOption = None) -> None:
    """Withdraw a dataset: it is used no more."""
    from node_agent import catalogue

    with opened_journal(home_of(ctx, home)) as journal:
        dataset = catalogue.remove(journal, name)
    say(f"withdrew {name}")
    show_if_asked({"name": dataset.name, **dataset.to_json()}, output)
