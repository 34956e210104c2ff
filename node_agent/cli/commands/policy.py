"""`policy load`: put this nation's overlay in force."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from node_agent.cli.opening import opened
from node_agent.cli.output import Format, FormatOption, say, show_if_asked
from node_agent.cli.program import HomeOption, home_of
from treaty.cli.program import noun

app = noun("Put this nation's own policy in force.")


@app.command(
    short_help="Verify the nation's overlay and put it in force.",
    epilog="Example:  foedus-agent policy load nation.FR-2.tar.gz",
)
def load(
    ctx: typer.Context,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The compiled bundle, from 'foedus policy sign'.")],
    envelope: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its signed statement; BUNDLE, but .json, by default."),
    ] = None,
    output: FormatOption = Format.TABLE,
    home: HomeOption = None,
) -> None:
    """Verify an overlay signed by this nation's person and hand it to the agent, which puts it in force."""
    from node_agent import bundles
    from treaty import statement
    from treaty.files import about, read_file

    signed = envelope or bundle.with_name(f"{bundle.name.removesuffix('.tar.gz')}.json")
    packed, word = read_file(bundle, "bundle"), read_file(signed, "envelope")
    with about(signed):
        statement.unverified(word)
    with opened(home_of(ctx, home)) as base, about(bundle):
        policies, now = base.home.folders().policies, datetime.now(UTC)
        verified = bundles.offer_overlay(base.journal, policies, base.nation, packed, word, now)
    say(f"overlay revision {verified.accepted.revision} is with the agent ({verified.accepted.digest})")
    show_if_asked({"revision": verified.accepted.revision, "digest": verified.accepted.digest}, output)
