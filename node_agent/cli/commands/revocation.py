"""`revoke`: put out one of this nation's own agents, or its CA, for ever."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from node_agent.cli.commands.consent import KeyFile, Passphrase
from node_agent.cli.opening import opened
from node_agent.cli.output import say
from node_agent.cli.program import HomeOption, home_of
from treaty.cli.program import verb

app = verb()


@app.command(
    epilog="Example:  foedus-agent revoke spiffe://fr.treaty.example/agent/par-1 --key ana.key --reason 'host stolen'"
)
def revoke(
    ctx: typer.Context,
    subject: Annotated[str, typer.Argument(metavar="SPIFFE|CA-DIGEST", help="An agent's id, or sha256:… of the CA.")],
    key: KeyFile,
    reason: Annotated[str, typer.Option(help="Why, in one line; it goes into the record.")],
    passphrase_file: Passphrase = None,
    home: HomeOption = None,
) -> None:
    """Put out an agent of this nation, or its CA. Final: it cannot be taken back.

    The key's person needs the power 'revoke'. Policies here know it at once; the coordinator cuts the agent's streams
    as soon as this nation's agent has handed it in.
    """
    from node_agent import revocations
    from treaty.files import first_line
    from treaty.keys import read_signing_key

    passphrase = first_line(passphrase_file, "passphrase") if passphrase_file else None
    signer = read_signing_key(key, passphrase=passphrase)
    with opened(home_of(ctx, home)) as base:
        now = datetime.now(UTC).replace(microsecond=0)
        revocations.revoke(base.journal, base.nation, subject, reason, signer, now)
    say(f"{subject} is revoked here; the running agent hands it to the coordinator")
