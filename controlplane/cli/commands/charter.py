"""`foedus charter`: the founders' ceremony, offline, and its publication.

`init` or `next` writes a charter with no signature, each founder adds one with `sign`, `verify` says what is still
missing, `publish` hands it to the coordinator. Every file is the DSSE envelope itself.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controlplane.cli.options import (
    ForceOption,
    KeysOption,
    Output,
    OutputOption,
    PassphraseOption,
    PinOption,
    signing_keys,
)
from controlplane.cli.program import invocation
from controlplane.cli.settings import Invocation
from treaty.cli.program import noun

if TYPE_CHECKING:
    from treaty.strict_json import JsonLike

app = noun("Write, sign, check and publish the charter.")

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The charter's envelope.")]
OutOption = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where to write it; '-': output.")]
DEFAULT_DAYS = 365


@app.command(epilog="Example:  foedus charter init --treaty demo --domain treaty.example --founder eu.pub … -o c.json")
def init(
    treaty: Annotated[str, typer.Option(help="Name of the treaty; never changes.")],
    domain: Annotated[str, typer.Option(help="Its DNS domain; never changes.")],
    founder: Annotated[list[Path], typer.Option(metavar="PUB", help="A founder's public key.")],
    publisher: Annotated[list[Path], typer.Option(metavar="PUB", help="A publisher's public key.")],
    treaty_policy: Annotated[list[Path], typer.Option(metavar="PUB", help="A key of the treaty's policy.")],
    coordinator: Annotated[Path, typer.Option(metavar="DESCRIPTOR", help="Of 'foedus-coordinator init'.")],
    out: OutOption,
    threshold: Annotated[int, typer.Option(help="How many founders must sign a charter.")] = 1,
    publishers_threshold: Annotated[int, typer.Option(help="How many publishers must sign a version.")] = 1,
    policy_threshold: Annotated[int, typer.Option(help="How many must sign the treaty's policy.")] = 1,
    nation: Annotated[list[Path], typer.Option(metavar="DESCRIPTOR", help="Of 'foedus-agent init'.")] = [],  # noqa: B006
    body: Annotated[list[str], typer.Option(metavar="EU:BE:FR,DE", help="Code, host and members.")] = [],  # noqa: B006
    expires_days: Annotated[int, typer.Option(help="Days until it ends.")] = DEFAULT_DAYS,
    force: ForceOption = False,
) -> None:
    """Write the first charter, unsigned."""
    from controlplane.cli import charter_drafts as drafts
    from controlplane.cli.files import write_file

    charter = drafts.first(
        drafts.Founding(
            treaty=treaty,
            domain=domain,
            founders=drafts.role(founder, threshold),
            publishers=drafts.role(publisher, publishers_threshold),
            treaty_policy=drafts.role(treaty_policy, policy_threshold),
            coordinator=drafts.coordinator_of(coordinator),
            nations=tuple(drafts.nation_of(path) for path in nation),
            bodies=tuple(drafts.body_of(text) for text in body),
        ),
        drafts.now(),
        expires_days,
    )
    write_file(out, drafts.unsigned(charter), force=force)
    typer.echo(f"charter {charter.treaty} version {charter.version}: {charter.digest}", err=out == Path("-"))


@app.command(
    "add-nation",
    short_help="Add nations to a charter that nobody has signed yet.",
    epilog="Example:  foedus charter add-nation draft.json fr.json de.json",
)
def add_nation(
    file: FileArgument,
    descriptor: Annotated[list[Path], typer.Argument(help="Descriptors of 'foedus-agent init'.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Add nations to a charter that nobody has signed yet; changes the file."""
    from controlplane.cli import charter_drafts as drafts
    from controlplane.cli.files import write_file
    from controlplane.cli.output import print_outcome

    charter = drafts.with_nations(drafts.read_draft(file), tuple(drafts.nation_of(path) for path in descriptor))
    write_file(file, drafts.unsigned(charter), force=True)
    nations = sorted(charter.nations)
    line = f"{len(nations)} nations: {', '.join(nations)}"
    print_outcome(line, {"nations": nations, "digest": charter.digest}, output, name=charter.digest)


@app.command("next", epilog="Example:  foedus charter next charter.json -o charter-2.json --nation kr.json")
def next_version(
    file: FileArgument,
    out: OutOption,
    nation: Annotated[list[Path], typer.Option(metavar="DESCRIPTOR", help="A nation to add or replace.")] = [],  # noqa: B006
    remove_nation: Annotated[list[str], typer.Option(metavar="CODE", help="A nation that leaves.")] = [],  # noqa: B006
    coordinator: Annotated[Path | None, typer.Option(metavar="DESCRIPTOR", help="A new coordinator's.")] = None,
    founder: Annotated[list[Path], typer.Option(metavar="PUB", help="The new founders, all of them.")] = [],  # noqa: B006
    threshold: Annotated[int, typer.Option(help="The new founders' threshold.")] = 0,
    expires_days: Annotated[int, typer.Option(help="Days until it ends.")] = DEFAULT_DAYS,
    force: ForceOption = False,
) -> None:
    """Write the version after FILE, unsigned. It needs the thresholds of the old and of the new founders."""
    from controlplane.cli import charter_drafts as drafts
    from controlplane.cli.files import write_file

    current = drafts.read_charter(file)
    charter = drafts.successor(current, drafts.now(), expires_days)
    charter = drafts.with_nations(charter, tuple(drafts.nation_of(path) for path in nation), is_replacing=True)
    charter = drafts.without_nations(charter, remove_nation)
    charter = drafts.with_roles(charter, coordinator=coordinator, founders=founder, threshold=threshold)
    write_file(out, drafts.unsigned(charter), force=force)
    typer.echo(f"charter {charter.treaty} version {charter.version}: {charter.digest}", err=out == Path("-"))


@app.command(epilog="Example:  foedus charter sign charter.json --key keys/eu-founder.key")
def sign(
    file: FileArgument,
    key: KeysOption,
    passphrase_file: PassphraseOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Add your signature; changes the file. Compare the nations' digests with their admins first."""
    from controlplane.cli import charter_drafts as drafts
    from controlplane.cli.files import write_file
    from controlplane.cli.output import print_outcome
    from treaty import statement
    from treaty.files import read_file
    from treaty.wire.certificates import check_authorities

    envelope = read_file(file, "charter")
    charter = drafts.parse(envelope, file)
    check_authorities(charter)
    signers = list(signing_keys(key, passphrase_file))
    for signer in signers:
        envelope = statement.add_signature(envelope, signer)
    write_file(file, envelope, force=True)
    founders = {known.key_id for known in charter.founders.keys}
    for stranger in [signer.key_id for signer in signers if signer.key_id not in founders]:
        typer.echo(
            f"note: {stranger} is no founder's of this version; it counts only if the one before names it", err=True
        )
    have, need = drafts.founders_signed(charter, envelope)
    facts: dict[str, JsonLike] = {"version": charter.version, "digest": charter.digest, "signed": have, "needed": need}
    line = f"charter version {charter.version}: {have} of {need} founders have signed"
    print_outcome(line, facts, output, name=charter.digest)


@app.command(
    short_help="Check that enough founders signed and nothing has expired.",
    epilog="Example:  foedus charter verify charter-2.json --follows charter.json",
)
def verify(
    file: FileArgument,
    pin: PinOption = "",
    follows: Annotated[Path | None, typer.Option(metavar="FILE", help="The version before, already believed.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Check that enough founders signed, and that nothing has expired. Exits with 4 if not."""
    from controlplane.cli import charter_drafts as drafts
    from controlplane.cli.output import print_outcome

    charter = drafts.believed(file, pin=pin, follows=follows)
    facts: dict[str, JsonLike] = {"treaty": charter.treaty, "version": charter.version, "digest": charter.digest}
    line = f"charter {charter.treaty} version {charter.version} holds: {charter.digest}"
    print_outcome(line, facts, output, name=charter.digest)


@app.command(epilog="Example:  foedus charter show charter.json")
def show(file: FileArgument, output: OutputOption = Output.TABLE) -> None:
    """Show who is a party and who signs for what. Believes nothing."""
    from controlplane.cli import charter_drafts as drafts
    from controlplane.cli.output import print_document, print_facts
    from treaty.files import read_file

    envelope = read_file(file, "charter")
    charter = drafts.parse(envelope, file)
    if output in (Output.JSON, Output.YAML):
        print_document(charter.to_json(), output)
    else:
        print_facts(drafts.summary(charter, envelope), output, name=charter.digest)


@app.command(epilog="Example:  foedus-agent join --charter $(foedus charter digest charter.json) …")
def digest(file: FileArgument, output: OutputOption = Output.TABLE) -> None:
    """Print the digest that each admin pins at join."""
    from controlplane.cli import charter_drafts as drafts
    from controlplane.cli.output import print_outcome

    found = drafts.read_charter(file)
    print_outcome(found.digest, {"version": found.version, "digest": found.digest}, output, name=found.digest)


@app.command(
    short_help="Hand a signed charter to the coordinator.", epilog="Example:  foedus charter publish charter-2.json"
)
def publish(ctx: typer.Context, file: FileArgument, output: OutputOption = Output.TABLE) -> None:
    """Hand a signed charter to the coordinator, which follows it by the founders' thresholds."""
    asyncio.run(_publish(invocation(ctx), file, output))


async def _publish(invoked: Invocation, file: Path, output: Output) -> None:
    from controlplane.cli.calls import client_of
    from controlplane.cli.charter_drafts import parse
    from controlplane.cli.output import print_outcome
    from treaty.files import read_file

    envelope = read_file(file, "charter")
    parse(envelope, file)
    async with client_of(invoked) as client:
        accepted, version = await client.publish_charter(envelope)
    facts: dict[str, JsonLike] = {"version": version, "digest": accepted}
    print_outcome(f"charter version {version} is in force: {accepted}", facts, output, name=accepted)
