"""`receipts`: what left this nation, by this nation's own account."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from node_agent.cli.opening import opened_journal
from node_agent.cli.output import Format, FormatOption, say, show, table
from node_agent.cli.program import HomeOption, home_of
from treaty.cli.program import verb
from treaty.strict_json import JsonObject

app = verb()


@app.command(epilog="Example:  foedus-agent receipts --tally")
def receipts(
    ctx: typer.Context,
    output: FormatOption = Format.TABLE,
    tally: Annotated[bool, typer.Option("--tally", help="Have the running agent sign a tally now.")] = False,
    home: HomeOption = None,
) -> None:
    """Every transfer with its receipt, the counts of everything by class, and the root of this nation's own log."""
    from node_agent.tallies import REQUEST

    with opened_journal(home_of(ctx, home)) as journal:
        if tally:
            journal.set_fact(REQUEST, datetime.now(UTC).isoformat())
            say("asked for a tally")
        crossings = journal.crossings
        written, counts, (size, root) = crossings.receipts(), crossings.counts(), crossings.root()
        tallies = [envelope.decode("ascii") for envelope in crossings.tallies()]
    if output is not Format.TABLE:
        found: JsonObject = {
            "receipts": [
                {
                    "crossing": entry.crossing,
                    "digest": entry.subject,
                    "run": entry.run,
                    "round": entry.round,
                    "size_bytes": entry.size_bytes,
                    "issued_at": entry.issued_at.isoformat(),
                    "log_index": entry.log_index,
                    "envelope": entry.envelope.decode("ascii"),
                }
                for entry in written
            ],
            "counts": {name: {"messages": messages, "bytes": total} for name, (messages, total) in counts.items()},
            "tallies": [*tallies],
            "log": {"size": size, "root": root.hex()},
        }
        show(found, output)
        return
    table(
        ("CROSSING", "RUN", "ROUND", "BYTES", "RECORDED", "DIGEST"),
        [(e.crossing, e.run, str(e.round), str(e.size_bytes), _place(e.log_index), e.subject) for e in written],
    )
    typer.echo()
    table(("CLASS", "MESSAGES", "BYTES"), [(name, str(many), str(total)) for name, (many, total) in counts.items()])
    typer.echo(f"\n{size} receipts, root {root.hex()}, {len(tallies)} tallies")


def _place(log_index: int | None) -> str:
    return "not yet" if log_index is None else f"#{log_index}"
