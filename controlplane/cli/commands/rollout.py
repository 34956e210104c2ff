"""`foedus rollout`: bring a model version to nations in waves; watch it; stop it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from controlplane.cli.options import Output, OutputOption
from controlplane.cli.program import invocation
from controlplane.cli.settings import Invocation
from treaty.cli.program import noun

if TYPE_CHECKING:
    from controlplane.cli.rollout_intent import Intent

app = noun("Bring a model version to nations, in waves.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The rollout's name.")]
ReasonOption = Annotated[str, typer.Option(help="Why; kept with the rollout.")]


@app.command(
    epilog="Example:  foedus rollout create demo-1 --model demo@1.0.0 --wave fr,de --wave it --wave jp,kr --soak 5 "
    "--health-prompt 'Bonjour' --evaluate public-administration-translation:0 --fallback none"
)
def create(
    ctx: typer.Context,
    name: NameArgument,
    model: Annotated[str, typer.Option(metavar="NAME@VERSION", help="A Ready version.")],
    wave: Annotated[list[str], typer.Option(metavar="[NAME=]CODES", help="Nations that move together, in order.")],
    concurrency: Annotated[int, typer.Option(help="How many of a wave move at a time.")] = 1,
    soak: Annotated[int, typer.Option(metavar="SECONDS", help="How long a wave serves before the next begins.")] = 0,
    deadline: Annotated[
        int, typer.Option(metavar="SECONDS", help="For one nation; a person's consent is not counted.")
    ] = 3600,
    health_prompt: Annotated[list[str], typer.Option(metavar="TEXT", help="The version must answer it.")] = [],  # noqa: B006
    evaluate: Annotated[
        str, typer.Option(metavar="PURPOSE:PPM", help="Held-out loss may be worse than the fallback's by PPM at most.")
    ] = "",
    approval: Annotated[bool, typer.Option("--approval", help="Each wave after the first waits for you.")] = False,
    failure_budget: Annotated[int, typer.Option(help="How many nations may fail before all return.")] = 0,
    fallback: Annotated[
        str, typer.Option(metavar="REF|none", help="Where nations return to: a version, or serving nothing.")
    ] = "none",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Let the coordinator judge it; store nothing.")] = False,
    output: OutputOption = Output.NAME,
) -> None:
    """Create a rollout. Each nation still consents or refuses for itself."""
    from controlplane.cli.rollout_intent import Intent

    intent = Intent(
        name=name,
        model=model,
        waves=tuple(wave),
        concurrency=concurrency,
        soak_seconds=soak,
        deadline_seconds=deadline,
        health_prompts=tuple(health_prompt),
        evaluate=evaluate,
        needs_approval=approval,
        failure_budget=failure_budget,
        fallback=fallback,
    )
    asyncio.run(_create(invocation(ctx), intent, output, dry_run=dry_run))


@app.command(epilog="Example:  foedus rollout pause demo-1 --reason 'holiday in wave 2'")
def pause(
    ctx: typer.Context, name: NameArgument, reason: ReasonOption = "", output: OutputOption = Output.TABLE
) -> None:
    """Start nothing new; what is under way in a nation goes on."""
    asyncio.run(_control(invocation(ctx), name, "PAUSE", reason, "paused", output))


@app.command(epilog="Example:  foedus rollout resume demo-1 --wave wave-2")
def resume(
    ctx: typer.Context,
    name: NameArgument,
    wave: Annotated[str, typer.Option(help="Let this wave begin, where each waits for you.")] = "",
    reason: ReasonOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Go on after a pause; with --wave, approve a wave."""
    control, said = ("APPROVE_WAVE", f"{wave} approved") if wave else ("RESUME", "resumed")
    asyncio.run(_control(invocation(ctx), name, control, wave or reason, said, output))


@app.command(epilog="Example:  foedus rollout abort demo-1 --reason 'wrong version'")
def abort(
    ctx: typer.Context, name: NameArgument, reason: ReasonOption = "", output: OutputOption = Output.TABLE
) -> None:
    """End it: every nation returns to the fallback that it consented to."""
    asyncio.run(_control(invocation(ctx), name, "ABORT", reason, "aborted", output))


@app.command(
    short_help="Show waves and nations, and what each waits for.", epilog="Example:  foedus rollout status demo-1 -w"
)
def status(
    ctx: typer.Context,
    name: NameArgument,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until it has ended.")] = False,
    output: OutputOption = Output.TABLE,
) -> int:
    """Show waves and nations: how far each is, what it waits for and since when.

    With --watch it ends with 1 where the rollout was aborted.
    """
    return asyncio.run(_status(invocation(ctx), name, output, is_watching=watch))


async def _create(invoked: Invocation, intent: Intent, output: Output, *, dry_run: bool) -> None:
    from controlplane.cli.calls import client_of
    from controlplane.cli.output import print_resource
    from controlplane.cli.rollout_intent import rollout_of
    from treaty.resources import codec

    async with client_of(invoked) as client:
        rollout = await rollout_of(client, intent)
        print_resource(await client.apply(codec.to_bytes(rollout), dry_run=dry_run), output)


async def _control(invoked: Invocation, name: str, control: str, reason: str, said: str, output: Output) -> None:
    from controlplane.cli.calls import client_of
    from controlplane.cli.output import print_changed
    from treaty.wire.v1 import operator_pb2

    async with client_of(invoked) as client:
        wanted = operator_pb2.RolloutControl.Value(f"ROLLOUT_CONTROL_{control}")
        rollout = await client.control_rollout(name, wanted, reason)
    print_changed(f"rollout/{name} {said}", rollout, output)


async def _status(invoked: Invocation, name: str, output: Output, *, is_watching: bool) -> int:
    from controlplane.cli.calls import client_of
    from controlplane.cli.output import print_resource
    from controlplane.cli.rollout_tree import print_tree, watch_tree
    from treaty.exit_codes import ExitCode
    from treaty.resources.meta import is_true
    from treaty.resources.rollouts import ROLLOUT, ROLLOUT_ABORTED

    async with client_of(invoked) as client:
        if is_watching and output is Output.TABLE:
            seen = await watch_tree(client, name)
            is_aborted = is_true(seen.status.conditions, ROLLOUT_ABORTED)
            return ExitCode.FAILED if is_aborted else ExitCode.OK
        resource = await client.get(ROLLOUT.name, name)
    if output is Output.TABLE:
        print_tree(resource)
    else:
        print_resource(resource, output)
    return ExitCode.OK
