"""`foedus agent`: an operator lets a nation's agent in, or cuts it off."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from controlplane.cli.options import Output, OutputOption, YesOption
from controlplane.cli.program import invocation
from controlplane.cli.settings import Invocation
from treaty.cli.program import noun

app = noun("Accept and revoke nations' agents.")


@app.command(epilog="Example:  foedus agent accept spiffe://fr.treaty.example/agent/par-1")
def accept(
    ctx: typer.Context,
    agent: Annotated[str, typer.Argument(metavar="SPIFFE-ID", help="Of an agent that has tried to connect.")],
    output: OutputOption = Output.NAME,
) -> None:
    """Let an agent in. Its nation's certificate alone does not suffice, nor does your word alone."""
    asyncio.run(_accept(invocation(ctx), agent, output))


@app.command(
    short_help="Cut an agent, or all that a CA has issued, off for good.",
    epilog="Example:  foedus agent revoke spiffe://fr.treaty.example/agent/par-1 --reason 'host stolen'",
)
def revoke(
    ctx: typer.Context,
    subject: Annotated[
        str, typer.Argument(metavar="SPIFFE-ID|CA-DIGEST", help="An agent, or the digest of a nation's CA.")
    ],
    reason: Annotated[str, typer.Option(help="Why, in one line; kept in the record.")],
    yes: YesOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Cut an agent, or everything that a CA has issued, off: live streams too, for good.

    Asks on a terminal. An id of a party that has never connected is revoked in advance.
    """
    if not yes and sys.stdin.isatty():
        what = f"everything that the CA {subject} issued" if subject.startswith("sha256:") else subject
        typer.confirm(f"Cut off {what}? It cannot be taken back.", abort=True, err=True)
    asyncio.run(_revoke(invocation(ctx), subject, reason, output))


async def _accept(invoked: Invocation, agent: str, output: Output) -> None:
    from controlplane.cli.calls import client_of
    from controlplane.cli.output import print_resource

    async with client_of(invoked) as client:
        print_resource(await client.accept_agent(agent), output)


async def _revoke(invoked: Invocation, subject: str, reason: str, output: Output) -> None:
    from controlplane.cli.calls import client_of
    from controlplane.cli.output import print_outcome

    async with client_of(invoked) as client:
        known = await client.revoke(subject, reason)
    is_agent = "/agent/" in subject or not subject.startswith(("spiffe:", "sha256:"))
    is_early = is_agent and known is None
    line = f"{subject} is not known here yet; revoked in advance" if is_early else f"{subject} revoked"
    print_outcome(line, {"subject": subject, "reason": reason, "inAdvance": is_early}, output, name=subject)
