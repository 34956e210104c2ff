"""`init` and `delegate`: the only verbs that open the root's folder."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from node_agent.cli.output import say
from node_agent.cli.program import HomeOption, home_of
from treaty.cli.program import noun, verb

init_app = verb()
delegate_app = noun("Let the root hand powers to a person's or an agent's key.")

RootDir = Annotated[Path, typer.Option("--root-dir", metavar="DIR", help="Where the root key lies.")]


@init_app.command(
    epilog="Example:  foedus-agent init --nation FR --domain treaty.example --agent par-1 --root-dir /media/root"
)
def init(
    ctx: typer.Context,
    root_dir: RootDir,
    nation: Annotated[str, typer.Option(help="ISO 3166-1 alpha-2, e.g. FR.")],
    domain: Annotated[str, typer.Option(help="The treaty's domain.")],
    agent: Annotated[str, typer.Option(help="This agent's name in the nation, e.g. par-1.")],
    home: HomeOption = None,
) -> None:
    """Make this nation's root, CA, agent key and descriptor. Overwrites nothing."""
    from node_agent import enrol

    place = home_of(ctx, home)
    identity = enrol.init(
        place, root_dir.expanduser(), nation=nation, domain=domain, agent=agent, now=datetime.now(UTC)
    )
    say(f"made {identity}")
    say(f"  give {place.descriptor} to the founders; keep {root_dir} away from this machine")
    typer.echo(str(place.descriptor))


@delegate_app.command(
    epilog="Example:  foedus-agent delegate person --root-dir /media/root --public-key ana.pub --powers consent,overlay"
)
def person(
    ctx: typer.Context,
    root_dir: RootDir,
    public_key: Annotated[Path, typer.Option(metavar="FILE", help="The person's .pub, from 'foedus key new'.")],
    powers: Annotated[str, typer.Option(help="Of consent, overlay, break-glass, revoke; joined by commas.")],
    days: Annotated[int, typer.Option(help="How long it holds.")] = 365,
    home: HomeOption = None,
) -> None:
    """Let a person approve, sign overlays, break glass or revoke. On the wire they are a key id."""
    from node_agent import enrol

    place = home_of(ctx, home)
    place.require()
    root = enrol.read_root(root_dir.expanduser())
    wanted = [power.strip() for power in powers.split(",")]
    path = enrol.delegate_person(place, root, public_key, wanted, now=datetime.now(UTC), days=days)
    say(f"delegated {powers} for {days} days")
    typer.echo(str(path))


@delegate_app.command(
    short_help="Renew what this home's agent key may do.",
    epilog="Example:  foedus-agent delegate agent --root-dir /media/root --days 90",
)
def agent(
    ctx: typer.Context,
    root_dir: RootDir,
    days: Annotated[int, typer.Option(help="How long it holds.")] = 365,
    home: HomeOption = None,
) -> None:
    """Renew what this home's agent key may do: receipts, tallies, consents that the policy answers."""
    from node_agent import enrol
    from node_agent.settings import read_settings
    from treaty.keys import read_signing_key
    from treaty.names import nation_code

    place = home_of(ctx, home)
    settings = read_settings(place.settings)
    key = read_signing_key(place.agent_key).verification
    root = enrol.read_root(root_dir.expanduser())
    path = enrol.delegate_agent(
        place, root, nation_code(settings.nation), settings.agent, key, now=datetime.now(UTC), days=days
    )
    say(f"delegated receipts and policy-answered consents to {settings.agent} for {days} days")
    typer.echo(str(path))
