"""`foedus-coordinator`: the program of whoever runs the coordinator's machine.

What operators do from elsewhere is `foedus` (controlplane.cli). Heavy imports happen in the commands that need them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import sys
import time
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import typer.core

from controlplane.cli.options import Output, OutputOption
from controlplane.home import Home, identity_of, initialise
from treaty.cli.ending import run_app
from treaty.cli.program import silence_grpc, version_option
from treaty.errors import InvalidInput
from treaty.keys import write_new
from treaty.names import COORDINATOR_HOST, SpiffeId, SpiffeRole, treaty_domain

EPILOG: Final = """\b
Exit codes:
  0  done
  1  refused or failed              read the line on stderr
  2  bad usage or malformed input   change the command or the file
  3  not found                      check the name, or run 'init' first
  4  untrusted                      stop; somebody's bytes or identity could not be believed
  6  unavailable                    a port or a store did not answer; try again
  7  conflict or precondition       do the named step first, then repeat
  130  interrupted

\b
Example:
  foedus-coordinator init --home /srv/hub --party EU --host BE --domain treaty.example --dns hub.example
  foedus-coordinator charter --home /srv/hub charter-1.json
  foedus-coordinator certificate --home /srv/hub --role operator --name op-1 --out op-1
  foedus-coordinator serve --home /srv/hub
"""

# Help is plain text; typer would still escape its brackets for rich, and readers would see the backslashes.
typer.core.HAS_RICH = False

app = typer.Typer(
    help="Runs the coordinator: what operators do from elsewhere is 'foedus'.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
HomeOption = Annotated[
    Path, typer.Option("--home", metavar="DIR", help="The coordinator's directory.", file_okay=False)
]


class PersonRole(StrEnum):
    """Whom this CA names: nations' agents are named by their nations' own."""

    OPERATOR = SpiffeRole.OPERATOR
    PUBLISHER = SpiffeRole.PUBLISHER
    AUDITOR = SpiffeRole.AUDITOR


@app.callback()
def root(_version: Annotated[bool, version_option("foedus-coordinator")] = False) -> None:
    pass


@app.command(
    short_help="Make keys, CA and the descriptor.",
    epilog="Example:  foedus-coordinator init --home /srv/hub --party EU --host BE "
    "--domain treaty.example --dns hub.example",
)
def init(
    home: HomeOption,
    party: Annotated[str, typer.Option(help="The party that runs the coordinator, e.g. EU.")],
    host: Annotated[str, typer.Option(help="The nation it sits in, e.g. BE.")],
    domain: Annotated[str, typer.Option(help="The treaty's domain, e.g. treaty.example.")],
    dns: Annotated[list[str], typer.Option(help="A DNS name that agents dial; may be repeated.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Make keys, CA and the descriptor that the founders put into the charter."""
    from controlplane.cli.output import print_outcome

    where = Home(home)
    initialise(where, identity_of(party, host, domain, dns), datetime.now(UTC))
    facts = {"descriptor": str(where.descriptor), "settings": str(where.settings)}
    print_outcome(f"descriptor: {where.descriptor}", facts, output, name=str(where.descriptor))


@app.command(
    short_help="Load a charter version.", epilog="Example:  foedus-coordinator charter --home /srv/hub charter-1.json"
)
def charter(
    home: HomeOption,
    file: Annotated[Path, typer.Argument(help="The signed charter.", exists=True, dir_okay=False)],
    output: OutputOption = Output.TABLE,
) -> None:
    """Load a charter version; a coordinator that serves this home takes it over within seconds."""
    from controlplane.cli.output import print_outcome

    version, digest = _run(_load_charter(Home(home), file))
    facts = {"version": version, "digest": digest}
    print_outcome(f"charter version {version} is in force: {digest}", facts, output, name=digest)


@app.command(epilog="Example:  foedus-coordinator certificate --home /srv/hub --role operator --name op-1 --out op-1")
def certificate(
    home: HomeOption,
    role: Annotated[PersonRole, typer.Option(help="What the holder may call.")],
    name: Annotated[str, typer.Option(help="Who holds it, e.g. op-1; a label, not a person's name.")],
    out: Annotated[Path, typer.Option(help="Folder for NAME.key, NAME.pem and ca.pem.", file_okay=False)],
    days: Annotated[int, typer.Option(min=1, max=366)] = 30,
    output: OutputOption = Output.TABLE,
) -> None:
    """Issue a client certificate for a person at the coordinator."""
    from controlplane.cli.output import print_outcome
    from treaty.wire.certificates import issue_client

    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name):
        raise InvalidInput("a name is lower-case letters, digits and '-', at most 63")
    where = Home(home)
    identity = SpiffeId(COORDINATOR_HOST, treaty_domain(where.identity().domain), SpiffeRole(role), name)
    issued = issue_client(where.ca(), identity, datetime.now(UTC), timedelta(days=days))
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_new(out / f"{name}.key", issued.key_pem(), mode=0o600)
    write_new(out / f"{name}.pem", issued.certificate_pem(), mode=0o644)
    (out / "ca.pem").write_bytes(where.ca_pem.read_bytes())
    files = {"certificate": out / f"{name}.pem", "key": out / f"{name}.key", "ca": out / "ca.pem"}
    facts = {"identity": str(identity), **{what: str(path) for what, path in files.items()}}
    print_outcome(f"{identity}: {files['certificate']}", facts, output, name=str(identity))


@app.command(epilog="Example:  foedus-coordinator serve --home /srv/hub")
def serve(home: HomeOption) -> None:
    """Serve until SIGTERM. Where it listens is written to HOME/endpoints.json."""
    where = Home(home)
    where.identity()  # before the heavy imports: a wrong --home is told at once

    from controlplane.bootstrap import serve as run_forever
    from controlplane.logs import configure
    from controlplane.settings import read_settings

    configure(read_settings(where.settings).log_level)
    _run(run_forever(where))


@app.command(
    short_help="Direct again after a restore, under a higher epoch.",
    epilog="Example:  foedus-coordinator recover --home /srv/hub --record evidence/ --reason 'disk replaced'",
)
def recover(
    home: HomeOption,
    reason: Annotated[str, typer.Option(help="Why; it stays in the store.")],
    epoch: Annotated[int, typer.Option(help="Epoch to take; 0: the next one.", min=0)] = 0,
    record: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Restore what is missing here from an export ('foedus audit export')."),
    ] = None,
) -> None:
    """Let a coordinator that was restored from a backup direct again, under a higher epoch.

    \b
    1. stop the coordinator;
    2. get the newest export of the log that an auditor, an operator or a nation kept ('foedus audit export'): an agent
       that verified more would refuse this log, and halt it again with the checkpoint that proves it;
    3. run this with --record: the export is verified against this coordinator's log key and its own record, which must
       be the beginning of it; the missing entries are appended, charter versions and revocations among them put in
       force; then it takes the next epoch, so that no directive number of the lost past is given out again. If it is
       interrupted, run it again;
    4. serve again: each agent is sent what it lacks. Policies, models and runs of the lost time are published anew.

    Prints the epoch taken, why the coordinator was halted (empty where it was not), and what was restored.
    """
    from controlplane.cli.log_export import read_export
    from controlplane.recovery import recover as run_recovery

    progress = _Progress()
    export = read_export(record, progress) if record else None
    done = _run(run_recovery(Home(home), epoch=epoch, reason=reason, export=export, tell=progress))
    typer.echo(json.dumps(dataclasses.asdict(done)))


class _Progress:
    """Tells a person how far it is, once it takes over two seconds, and then once a second."""

    def __init__(self) -> None:
        self._next = time.monotonic() + 2

    def __call__(self, what: str, done: int, total: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 1
            typer.echo(f"{what} {done} of {total} entries", err=True)


async def _load_charter(home: Home, file: Path) -> tuple[int, str]:
    from controlplane.cli.charter_drafts import parse
    from controlplane.core import utc_now
    from controlplane.home import check_own
    from controlplane.services.trust import Trust
    from controlplane.settings import read_settings
    from controlplane.store import open_store
    from treaty.files import read_file
    from treaty.wire.certificates import check_authorities

    envelope = read_file(file, "charter")
    offered = parse(envelope, file)
    check_own(home, offered)
    check_authorities(offered)
    store = await open_store(read_settings(home.settings).store_url or home.store_url, clock=utc_now)
    try:
        trust = Trust(store, utc_now, changed=lambda: None)
        await trust.load()
        loaded = await trust.publish(envelope)
    finally:
        await store.close()
    return loaded.version, loaded.digest


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def main() -> None:
    silence_grpc()
    sys.exit(run_app(app, sys.argv[1:], name="foedus-coordinator", extra="coordinator"))


if __name__ == "__main__":
    main()
