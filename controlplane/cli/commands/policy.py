"""`foedus policy`: sign a policy as its authority; put the treaty's in force."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.options import (
    ForceOption,
    KeysOption,
    Output,
    OutputOption,
    PassphraseOption,
    signing_keys,
)
from controlplane.cli.program import invocation
from controlplane.cli.settings import Invocation
from treaty.cli.program import noun

app = noun("Sign policy bundles; put the treaty's in force.")

DEFAULT_DAYS = 365


@app.command(
    short_help="Build a policy and sign it.",
    epilog="Example:  foedus policy sign policies/overlays/fr --authority nation.FR --revision 3 --key ana.key -o out/",
)
def sign(
    key: KeysOption,
    directory: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Folder of Rego and data; needs OPA.")
    ] = None,
    bundle: Annotated[Path | None, typer.Option(metavar="FILE", help="A bundle that is built already.")] = None,
    authority: Annotated[str, typer.Option(help="treaty, or nation.XX; the bundle must be that one's.")] = "treaty",
    revision: Annotated[int, typer.Option(help="Never lower than one that was in force. 0: as the bundle says.")] = 0,
    library: Annotated[
        list[Path], typer.Option(metavar="DIR", help="Rego to build with; default for an overlay: the wheel's library.")
    ] = [],  # noqa: B006
    opa: Annotated[str, typer.Option(help="The OPA to build with.")] = "opa",
    valid_days: Annotated[int, typer.Option(help="Days until the bundle may no longer be taken up.")] = DEFAULT_DAYS,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for bundle and envelope.")] = Path(),
    passphrase_file: PassphraseOption = None,
    force: ForceOption = False,
) -> None:
    """Build a policy and sign it: AUTHORITY-REVISION.tar.gz and .json in the folder given."""
    from controlplane.cli import policy_signing
    from controlplane.cli.files import write_file
    from treaty.errors import InvalidInput

    source = directory or bundle
    if source is None or (directory and bundle):
        raise InvalidInput("either a folder or a built bundle is signed", remedy="pass DIR or --bundle FILE")
    request = policy_signing.Request(source, directory is None, authority, revision, tuple(library), opa)
    packed, found = policy_signing.bundle_of(request)
    envelope = policy_signing.envelope_of(packed, signing_keys(key, passphrase_file), valid_days)
    stem = f"{found.authority}-{found.revision}"
    write_file(out / f"{stem}.tar.gz", packed, force=force)
    write_file(out / f"{stem}.json", envelope, force=force)
    typer.echo(f"{out / stem}.tar.gz\n{out / stem}.json")


@app.command(
    "add-signature",
    short_help="Add another key's signature, where several are needed.",
    epilog="Example:  foedus policy add-signature treaty-3.json --key policy-2.key",
)
def add_signature(
    envelope: Annotated[Path, typer.Argument(help="The envelope that 'policy sign' wrote.")],
    key: KeysOption,
    passphrase_file: PassphraseOption = None,
) -> None:
    """Add another key's signature, where the authority needs several; changes the file."""
    from controlplane.cli import policy_signing
    from controlplane.cli.files import write_file
    from treaty.files import about, read_file

    with about(envelope):
        signed = policy_signing.with_signatures(read_file(envelope, "envelope"), signing_keys(key, passphrase_file))
    write_file(envelope, signed, force=True)
    typer.echo(str(envelope))


@app.command(
    short_help="Put the treaty's bundle in force everywhere.",
    epilog="Example:  foedus policy push treaty-3.tar.gz treaty-3.json",
)
def push(
    ctx: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="The bundle.")],
    envelope: Annotated[Path, typer.Argument(help="Its envelope.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Put the treaty's bundle in force: at the coordinator, then at every agent. Overlays are each nation's own."""
    asyncio.run(_push(invocation(ctx), bundle, envelope, output))


async def _push(invoked: Invocation, bundle: Path, envelope: Path, output: Output) -> None:
    from controlplane.cli.calls import client_of
    from controlplane.cli.output import print_resource
    from controlplane.cli.policy_signing import require_envelope
    from treaty.files import about, read_file
    from treaty.policy.bundle import read_bundle

    packed, signed = read_file(bundle, "bundle"), read_file(envelope, "envelope")
    with about(envelope):
        require_envelope(signed)
    with about(bundle):
        read_bundle(packed)
    async with client_of(invoked) as client:
        print_resource(await client.push_policy(packed, signed), output)
