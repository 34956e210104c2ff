"""`foedus run`: federated runs. The plan is shown first; what was shown is what is started."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controlplane.cli.options import Output, OutputOption, YesOption, comma_list
from controlplane.cli.program import invocation
from controlplane.cli.settings import Invocation
from treaty.cli.program import noun

if TYPE_CHECKING:
    from controlplane.cli.client import PlannedRun
    from controlplane.cli.run_intent import RunFlags
    from treaty.resources.meta import AnyResource

app = noun("Plan, start and follow federated runs.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The run's name.")]
OptionalName = Annotated[str, typer.Argument(metavar="[NAME]", help="The run's name; a file has its own.")]
FileOption = Annotated[Path | None, typer.Option("--file", "-f", help="The run as YAML or JSON, instead of flags.")]
TaskOption = Annotated[str, typer.Option(help="train or evaluate.")]
PurposeOption = Annotated[str, typer.Option(help="What for; each nation decides by it which data may be used.")]
ModelOption = Annotated[str, typer.Option(metavar="NAME@VERSION", help="The base, a version that stands alone.")]
NationsOption = Annotated[str, typer.Option(metavar="CODES", help="Nations to ask, joined by commas.")]
QuorumOption = Annotated[int, typer.Option(help="How many a round needs; 0: all of them.")]
RoundsOption = Annotated[int, typer.Option(help="Training rounds.")]
DeadlineOption = Annotated[int, typer.Option(metavar="SECONDS", help="For one round.")]
SetOption = Annotated[
    list[str],
    typer.Option("--set", metavar="NAME=VALUE", help="A field of the recipe: rank, alpha, targets, steps, batch, …"),
]
StrategyOption = Annotated[str, typer.Option(help="A Flower strategy by its name.")]
ParameterOption = Annotated[
    list[str], typer.Option("--parameter", metavar="NAME=INTEGER", help="Of the strategy, the unit in its name.")
]
ClipOption = Annotated[int, typer.Option(help="Bound of an update's L2 norm, in millionths.")]
SeedOption = Annotated[int, typer.Option(help="Seed of the recipe.")]


@app.command(
    epilog="Example:  foedus run plan tr-1 --task train --model demo@1.0.0 --nations FR,DE "
    "--purpose public-administration-translation"
)
def plan(
    ctx: typer.Context,
    name: OptionalName = "",
    file: FileOption = None,
    task: TaskOption = "train",
    purpose: PurposeOption = "",
    model: ModelOption = "",
    nations: NationsOption = "",
    quorum: QuorumOption = 0,
    rounds: RoundsOption = 1,
    deadline: DeadlineOption = 3600,
    recipe: SetOption = [],  # noqa: B006
    strategy: StrategyOption = "FedAvg",
    parameter: ParameterOption = [],  # noqa: B006
    clip_norm_micro: ClipOption = 1_000_000,
    seed: SeedOption = 0,
    output: OutputOption = Output.TABLE,
) -> None:
    """Ask every nation, and show what would happen. Nothing is stored and nothing is loaded."""
    flags = _flags(
        name,
        task,
        purpose,
        model,
        nations,
        quorum=quorum,
        rounds=rounds,
        deadline=deadline,
        recipe=recipe,
        strategy=strategy,
        parameter=parameter,
        clip_norm_micro=clip_norm_micro,
        seed=seed,
    )
    asyncio.run(_plan(invocation(ctx), _document(flags, file), output))


@app.command(
    epilog="Example:  foedus run start tr-1 --task train --model demo@1.0.0 --nations FR,DE,IT --quorum 2 "
    "--purpose public-administration-translation --rounds 2 --set rank=8 --set steps=8 --follow"
)
def start(
    ctx: typer.Context,
    name: OptionalName = "",
    file: FileOption = None,
    task: TaskOption = "train",
    purpose: PurposeOption = "",
    model: ModelOption = "",
    nations: NationsOption = "",
    quorum: QuorumOption = 0,
    rounds: RoundsOption = 1,
    deadline: DeadlineOption = 3600,
    recipe: SetOption = [],  # noqa: B006
    strategy: StrategyOption = "FedAvg",
    parameter: ParameterOption = [],  # noqa: B006
    clip_norm_micro: ClipOption = 1_000_000,
    seed: SeedOption = 0,
    yes: YesOption = False,
    follow: Annotated[bool, typer.Option("--follow", help="Show its progress until it has ended.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Plan, show the plan, ask, and start exactly that. Exits with 5 where too few nations would take part."""
    flags = _flags(
        name,
        task,
        purpose,
        model,
        nations,
        quorum=quorum,
        rounds=rounds,
        deadline=deadline,
        recipe=recipe,
        strategy=strategy,
        parameter=parameter,
        clip_norm_micro=clip_norm_micro,
        seed=seed,
    )
    document = _document(flags, file)
    asyncio.run(_start(invocation(ctx), document, output, is_agreed=yes, is_following=follow))


@app.command(short_help="End a run.", epilog="Example:  foedus run cancel tr-1 --reason 'wrong base'")
def cancel(
    ctx: typer.Context,
    name: NameArgument,
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """End a run; what the nations have sent is deleted by the retention rule."""
    asyncio.run(_cancel(invocation(ctx), name, reason, output))


@app.command(
    short_help="Show rounds, perplexity by nation, and who refused why.",
    epilog="Example:  foedus run status tr-1 --follow",
)
def status(
    ctx: typer.Context,
    name: NameArgument,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until it has ended.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show a run: rounds, held-out perplexity by nation, who refused and why."""
    asyncio.run(_status(invocation(ctx), name, output, is_following=follow))


def _flags(
    name: str,
    task: str,
    purpose: str,
    model: str,
    nations: str,
    *,
    quorum: int,
    rounds: int,
    deadline: int,
    recipe: list[str],
    strategy: str,
    parameter: list[str],
    clip_norm_micro: int,
    seed: int,
) -> RunFlags:
    from controlplane.cli.run_intent import RunFlags

    return RunFlags(
        name=name,
        task=task,
        purpose=purpose,
        model=model,
        nations=comma_list(nations),
        quorum=quorum,
        rounds=rounds,
        deadline_seconds=deadline,
        recipe=tuple(recipe),
        strategy=strategy,
        parameters=tuple(parameter),
        clip_norm_micro=clip_norm_micro,
        seed=seed,
    )


def _document(flags: RunFlags, file: Path | None) -> bytes:
    from controlplane.cli.run_intent import run_of
    from treaty.resources import codec

    return codec.to_bytes(run_of(flags, file))


async def _plan(invoked: Invocation, document: bytes, output: Output) -> None:
    from controlplane.cli.calls import client_of
    from controlplane.cli.run_plan import require_startable

    async with client_of(invoked) as client:
        planned = await client.plan_run(document)
    _show(planned, output)
    require_startable(planned)


async def _start(invoked: Invocation, document: bytes, output: Output, *, is_agreed: bool, is_following: bool) -> None:
    from controlplane.cli.calls import client_of
    from controlplane.cli.output import print_resource
    from controlplane.cli.run_plan import require_startable
    from controlplane.cli.run_progress import follow
    from treaty.resources.runs import FEDERATED_RUN

    async with client_of(invoked) as client:
        planned = await client.plan_run(document)
        is_document = output in (Output.JSON, Output.YAML)
        if not is_document or not planned.digest:
            _show(planned, output)
        require_startable(planned)
        if not is_agreed:
            await asyncio.to_thread(typer.confirm, "Start this run?", abort=True, err=True)
        run = await client.start_run(document, planned.digest)
        if is_following:
            await follow(client, run.name)
            run = await client.get(FEDERATED_RUN.name, run.name)
    if is_document:
        print_resource(run, output)
    else:
        _tell(run, is_following=is_following)
    _require_success(run, is_following)


async def _cancel(invoked: Invocation, name: str, reason: str, output: Output) -> None:
    from controlplane.cli.calls import client_of
    from controlplane.cli.output import print_changed

    async with client_of(invoked) as client:
        run = await client.cancel_run(name, reason)
    print_changed(f"federatedrun/{name} cancelled", run, output)


async def _status(invoked: Invocation, name: str, output: Output, *, is_following: bool) -> None:
    from controlplane.cli.calls import client_of
    from controlplane.cli.output import print_resource
    from controlplane.cli.run_progress import follow
    from treaty.resources.runs import FEDERATED_RUN

    async with client_of(invoked) as client:
        if is_following:
            await follow(client, name)
        run = await client.get(FEDERATED_RUN.name, name)
    if output is Output.TABLE:
        _tell(run, is_following=True)
    else:
        print_resource(run, output)
    _require_success(run, is_following)


def _show(planned: PlannedRun, output: Output) -> None:
    from controlplane.cli.output import print_document
    from controlplane.cli.run_plan import plan_text

    if output in (Output.JSON, Output.YAML):
        print_document({**planned.document, "plan_digest": planned.digest or None}, output)
    else:
        typer.echo(plan_text(planned))


def _tell(run: AnyResource, *, is_following: bool) -> None:
    from controlplane.cli.run_progress import summary

    if is_following:
        typer.echo(summary(run))
    else:
        typer.echo(f"federatedrun/{run.name} started; see: foedus run status {run.name} --follow")


def _require_success(run: AnyResource, is_following: bool) -> None:
    """A run that was followed to its end decides the exit code."""
    from controlplane.cli.run_progress import require_success

    if is_following:
        require_success(run)
