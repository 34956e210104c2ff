"""`foedus-coordinator`: the program of whoever runs the coordinator's machine.

What operators do from elsewhere is `foedus` (controlplane.cli). Heavy imports happen in the commands that need them.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from controlplane.home import Home, identity_of, initialise
from treaty.errors import FoedusError, InvalidInput
from treaty.keys import write_new
from treaty.names import COORDINATOR_HOST, SpiffeId, SpiffeRole, treaty_domain

app = typer.Typer(name="foedus-coordinator", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
HomeOption = Annotated[Path, typer.Option("--home", help="The coordinator's directory.", file_okay=False)]
PEOPLE = (SpiffeRole.OPERATOR, SpiffeRole.PUBLISHER, SpiffeRole.AUDITOR)


@app.command()
def init(
    home: HomeOption,
    party: Annotated[str, typer.Option(help="The party that runs the coordinator, e.g. EU.")],
    host: Annotated[str, typer.Option(help="The nation it sits in, e.g. BE.")],
    domain: Annotated[str, typer.Option(help="The treaty's domain, e.g. treaty.example.")],
    dns: Annotated[list[str], typer.Option(help="A DNS name that agents dial; may be repeated.")],
) -> None:
    """Make keys, CA and the descriptor that the founders put into the charter."""
    where = Home(home)
    initialise(where, identity_of(party, host, domain, dns), datetime.now(UTC))
    typer.echo(f"descriptor: {where.descriptor}")


@app.command()
def charter(
    home: HomeOption, file: Annotated[Path, typer.Argument(help="The signed charter.", exists=True, dir_okay=False)]
) -> None:
    """Load a charter version; a coordinator that serves this home takes it over within seconds."""
    version, digest = _run(_load_charter(Home(home), file.read_bytes()))
    typer.echo(f"charter version {version} is in force: {digest}")


@app.command()
def certificate(
    home: HomeOption,
    role: Annotated[SpiffeRole, typer.Option(help="operator, publisher or auditor.")],
    name: Annotated[str, typer.Option(help="Who holds it, e.g. op-1; a label, not a person's name.")],
    out: Annotated[Path, typer.Option(help="Folder for NAME.key, NAME.pem and ca.pem.", file_okay=False)],
    days: Annotated[int, typer.Option(min=1, max=366)] = 30,
) -> None:
    """Issue a client certificate for a person at the coordinator."""
    from treaty.wire.certificates import issue_client

    if role not in PEOPLE:
        raise InvalidInput(f"this CA issues certificates for {', '.join(PEOPLE)}, not for an {role}")
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name):
        raise InvalidInput("a name is lower-case letters, digits and '-', at most 63")
    where = Home(home)
    identity = SpiffeId(COORDINATOR_HOST, treaty_domain(where.identity().domain), role, name)
    issued = issue_client(where.ca(), identity, datetime.now(UTC), timedelta(days=days))
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_new(out / f"{name}.key", issued.key_pem(), mode=0o600)
    write_new(out / f"{name}.pem", issued.certificate_pem(), mode=0o644)
    (out / "ca.pem").write_bytes(where.ca_pem.read_bytes())
    typer.echo(f"{identity}: {out / f'{name}.pem'}")


@app.command()
def serve(home: HomeOption) -> None:
    """Serve until SIGTERM. Where it listens is written to HOME/endpoints.json."""
    where = Home(home)
    where.identity()  # before the heavy imports: a wrong --home is told at once

    from controlplane.bootstrap import serve as run_forever
    from controlplane.logs import configure
    from controlplane.settings import read_settings

    configure(read_settings(where.settings).log_level)
    _run(run_forever(where))


@app.command()
def recover(
    home: HomeOption,
    reason: Annotated[str, typer.Option(help="Why; it stays in the store.")],
    epoch: Annotated[int, typer.Option(help="Epoch to take; 0: the next one.", min=0)] = 0,
) -> None:
    """Let a coordinator that was restored from a backup direct again, under a higher epoch.

    Restore the missing entries of the record first: afterwards agents that verified more refuse this log.
    """
    taken, halted = _run(_take_epoch(Home(home), epoch, reason))
    typer.echo(json.dumps({"epoch": taken, "was_halted_because": halted}))


async def _load_charter(home: Home, envelope: bytes) -> tuple[int, str]:
    from controlplane.core import utc_now
    from controlplane.home import check_own
    from controlplane.services.trust import Trust
    from controlplane.settings import read_settings
    from controlplane.store import open_store
    from treaty import statement
    from treaty.charter import parse_charter

    home.identity()
    offered = parse_charter(statement.unverified(envelope).predicate).coordinator
    check_own(home, offered.ca_pem, offered.log)
    store = await open_store(read_settings(home.settings).store_url or home.store_url, clock=utc_now)
    try:
        trust = Trust(store, utc_now, changed=lambda: None)
        await trust.load()
        loaded = await trust.publish(envelope)
    finally:
        await store.close()
    return loaded.version, loaded.digest


async def _take_epoch(home: Home, epoch: int, reason: str) -> tuple[int, str]:
    from controlplane.core import opened

    async with opened(home) as core:
        current = await core.store.epochs.current()
        taken = await core.store.epochs.take(epoch or current.number + 1, reason)
        await core.fleet.load()
        return taken.number, current.halted_because


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def main() -> None:
    """Exit 0, or 1 with one line on standard error that says what to do next."""
    try:
        app()
    except FoedusError as err:
        _fail(err)
    except ExceptionGroup as group:
        ours = group.subgroup(FoedusError)
        if ours is None:
            raise
        _fail(ours)


def _fail(error: BaseException) -> None:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
