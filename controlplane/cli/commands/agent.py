"""`foedus agent`: an operator lets a nation's agent in, or cuts it off."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from controlplane.cli.options import Output, OutputOption
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
    reason: Annotated[str, typer.Option(help="Why; kept in the record.")] = "",
) -> None:
    """Cut an agent, or everything that a CA has issued, off: live streams too, for good."""
    asyncio.run(_revoke(invocation(ctx), subject, reason))


async def _accept(invoked: Invocation, agent: str, output: Output) -> None:
    from controlplane.cli.calls import client_of
    from controlplane.cli.output import print_resource

    async with client_of(invoked) as client:
        print_resource(await client.accept_agent(agent), output)


async def _revoke(invoked: Invocation, subject: str, reason: str) -> None:
    from controlplane.cli.calls import client_of

    async with client_of(invoked) as client:
        await client.revoke(subject, reason)
    typer.echo(f"{subject} revoked")
