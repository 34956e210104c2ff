"""`join` and `check`: believing a charter, reaching a coordinator, and finding what stands in the way."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from node_agent.cli.output import Format, FormatOption, say, show, show_if_asked, table
from node_agent.cli.program import HomeOption, home_of
from node_agent.home import Home
from treaty.cli.program import verb
from treaty.strict_json import JsonObject

join_app = verb()
check_app = verb()


@join_app.command(
    epilog="Example:  foedus-agent join --coordinator hub.example:7443 --reach hub.example:7444 --charter sha256:…"
)
def join(
    ctx: typer.Context,
    coordinator: Annotated[str, typer.Option(metavar="HOST:PORT", help="Its mutual TLS port.")],
    reach: Annotated[str, typer.Option(metavar="HOST:PORT", help="Its Reach port.")],
    charter: Annotated[str, typer.Option(metavar="SHA256:…", help="The charter's digest, had by another channel.")],
    output: FormatOption = Format.TABLE,
    home: HomeOption = None,
) -> None:
    """Believe a charter by its pinned digest, check our own entry in it, and connect.

    Ends with 0 when connected, and when all that is missing is an operator's accept; with 4 when anything could not be
    believed.
    """
    from node_agent import agent as agents
    from node_agent import joining
    from node_agent.charters import Membership, target
    from node_agent.customs import Customs
    from node_agent.journal import SqliteJournal
    from treaty import names

    place, clock = home_of(ctx, home), agents.SystemClock()
    place.require()
    membership = Membership(target(coordinator), target(reach), names.digest(charter))

    async def learn() -> None:
        journal = SqliteJournal(place.journal, clock)
        try:
            believed = await joining.learn(place, membership, Customs(journal.crossings), clock)
        finally:
            journal.close()
        say(f"joined {believed.treaty}, charter version {believed.version}")

    async def connect() -> None:
        base = agents.lay(place, clock)
        try:
            refusal = await joining.try_connection(base)
        finally:
            base.close()
        if refusal is None:
            say(f"connected as {base.nation.agent_id}")
        elif refusal.code == "NOT_ACCEPTED":
            say(f"waiting: {refusal}")
        else:
            raise refusal
        say(f"next: {run_command(place)}")
        known = base.nation.charter()
        found: JsonObject = {
            "treaty": known.treaty,
            "charter_version": known.version,
            "agent": str(base.nation.agent_id),
        }
        found |= {"agent": str(base.nation.agent_id), "is_accepted": refusal is None, "next": run_command(place)}
        show_if_asked(found, output)

    with place.occupied():
        asyncio.run(learn())
        asyncio.run(connect())


def run_command(home: Home) -> str:
    """How to run the agent of `home`."""
    from node_agent.settings import default_home

    return "foedus-agent run" if home.root == default_home() else f"foedus-agent --home {home.root} run"


@check_app.command(epilog="Example:  foedus-agent check")
def check(
    ctx: typer.Context,
    output: FormatOption = Format.TABLE,
    home: HomeOption = None,
) -> int:
    """Find what stands in the way, from the network up. Ends with 7 where something does."""
    from node_agent import agent as agents
    from node_agent.checkup import check as findings_of
    from node_agent.joining import Finding
    from treaty.exit_codes import ExitCode

    base = agents.lay(home_of(ctx, home), agents.SystemClock())

    async def collect() -> list[Finding]:
        return [finding async for finding in findings_of(base)]

    try:
        findings = asyncio.run(collect())
    finally:
        base.close()
    if output is Format.TABLE:
        table(("RESULT", "CHECK", "FOUND"), [(found.result, found.name, found.text) for found in findings])
        for found in findings:
            if found.result != "ok":
                kind = "note" if found.is_good else "error"
                say(f"{kind}: {found.name}: {found.text}\n  {found.remedy}")
    else:
        show(
            [
                {"check": found.name, "good": found.is_good, "found": found.text, "remedy": found.remedy}
                for found in findings
            ],
            output,
        )
    return ExitCode.OK if all(found.is_good for found in findings) else ExitCode.PRECONDITION
