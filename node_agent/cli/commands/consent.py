"""`approve` and `refuse`: a person's word, signed with their own key and handed to the agent by the journal."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node_agent.cli.opening import opened
from node_agent.cli.output import Format, FormatOption, say, show_if_asked
from node_agent.cli.program import HomeOption, home_of
from treaty.cli.program import verb

if TYPE_CHECKING:
    from node_agent.consents import ConsentRequest

approve_app = verb()
refuse_app = verb()

Rollout = Annotated[str, typer.Argument(help="The rollout that waits; see 'foedus-agent status'.")]
KeyFile = Annotated[Path, typer.Option("--key", metavar="FILE", help="The person's private key.")]
Passphrase = Annotated[Path | None, typer.Option("--passphrase-file", metavar="FILE", help="Its passphrase.")]
Version = Annotated[
    str | None, typer.Option("--version", metavar="DIGEST|NAME@VERSION", help="What you mean, as 'status' shows it.")
]
Days = Annotated[int, typer.Option(min=1, max=3650, help="How long the word holds.")]


@approve_app.command(epilog="Example:  foedus-agent approve demo-1 --version demo@1.0.0 --key ana.key")
def approve(
    ctx: typer.Context,
    rollout: Rollout,
    key: KeyFile,
    passphrase_file: Passphrase = None,
    version: Version = None,
    days: Days = 30,
    output: FormatOption = Format.TABLE,
    home: HomeOption = None,
) -> None:
    """A person's yes to exactly the version and the fallback that the rollout asks for."""
    _answer(ctx, home, rollout, key, passphrase_file, version=version, days=days, output=output, is_yes=True)


@refuse_app.command(epilog="Example:  foedus-agent refuse demo-1 --version demo@1.0.0 --key ana.key")
def refuse(
    ctx: typer.Context,
    rollout: Rollout,
    key: KeyFile,
    passphrase_file: Passphrase = None,
    version: Version = None,
    days: Days = 30,
    output: FormatOption = Format.TABLE,
    home: HomeOption = None,
) -> None:
    """A person's no to a rollout."""
    _answer(ctx, home, rollout, key, passphrase_file, version=version, days=days, output=output, is_yes=False)


def _answer(
    ctx: typer.Context,
    home: HomeOption,
    rollout: str,
    key_file: Path,
    passphrase_file: Path | None,
    *,
    version: str | None,
    days: int,
    output: Format,
    is_yes: bool,
) -> None:
    from node_agent import consents
    from treaty.fields import timestamp_text
    from treaty.files import first_line
    from treaty.keys import read_signing_key

    passphrase = first_line(passphrase_file, "passphrase") if passphrase_file else None
    key = read_signing_key(key_file, passphrase=passphrase)
    give = consents.approve if is_yes else consents.refuse
    now = datetime.now(UTC).replace(microsecond=0)
    with opened(home_of(ctx, home)) as base:
        request = consents.pending(base.journal, rollout)
        _require_seen(request, version, "approve" if is_yes else "refuse")
        consent = give(base.journal, base.nation, request, key, now, valid_for=timedelta(days=days))
    say(f"{consent.answer} to {consent.subject} in rollout {rollout}, until {consent.expires_at:%Y-%m-%d}")
    found = {"answer": str(consent.answer), "subject": consent.subject, "rollout": rollout}
    show_if_asked({**found, "expires_at": timestamp_text(consent.expires_at)}, output)


def _require_seen(request: ConsentRequest, version: str | None, verb: str) -> None:
    """A word is given to what its person saw. Raises: ConflictError, InvalidInput; Abort where the person says no."""
    from node_agent.cli.commands.status import request_lines
    from treaty.errors import ConflictError, InvalidInput

    command = f"foedus-agent {request.command(verb)}"
    if version is not None:
        if not request.is_about(version):
            raise ConflictError(
                f"rollout {request.rollout} is not about {version}", remedy=f"read status, then: {command}"
            )
        return
    if not sys.stdin.isatty():
        raise InvalidInput("which version is meant is not said", remedy=f"read status, then: {command}")
    shown = {**request.to_json(), "digest": request.manifest_digest}
    for line in request_lines(shown):
        say(line)
    typer.confirm(f"{verb} this?", abort=True, err=True)
