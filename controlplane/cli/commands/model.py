"""`foedus model`: what a publisher does. A version is a draft until the charter's publishers have signed it, k of n."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controlplane.cli.options import (
    CharterOption,
    KeysOption,
    Output,
    OutputOption,
    PassphraseOption,
    PinOption,
    comma_list,
    signing_keys,
)
from controlplane.cli.program import invocation
from controlplane.cli.settings import Invocation
from treaty.cli.program import noun

if TYPE_CHECKING:
    from controlplane.cli.publishing import Draft
    from treaty.keys import SigningKey
    from treaty.strict_json import JsonLike

app = noun("Publish, sign and verify model versions.")

RefArgument = Annotated[str, typer.Argument(metavar="NAME@VERSION", help="A model version, or a manifest's digest.")]


@dataclass(frozen=True, slots=True)
class _Publication:
    """What was asked for, before anything is read."""

    draft: Draft
    directory: Path | None
    run: str
    keep: Path | None
    wait_seconds: int


@app.command(
    epilog="Example:  foedus model publish out/model --name demo --version 1.0.0 --licence Apache-2.0 "
    "--label public --rel-to EU,JP,KR --architecture LlamaForCausalLM --key keys/pub-1.key"
)
def publish(
    ctx: typer.Context,
    name: Annotated[str, typer.Option(help="Name of the model.")],
    version: Annotated[str, typer.Option(help="MAJOR.MINOR.PATCH, later than those that are Ready.")],
    key: KeysOption,
    directory: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="Folder of the version's files.")] = None,
    licence: Annotated[str, typer.Option(help="SPDX identifier; default: the base's.")] = "",
    label: Annotated[str, typer.Option(help="public, restricted, confidential or secret; default: derived.")] = "",
    rel_to: Annotated[str, typer.Option(metavar="CODES", help="Parties it may be released to; default: derived.")] = "",
    architecture: Annotated[str, typer.Option(help="Class name; default: the base's.")] = "",
    base: Annotated[str, typer.Option(metavar="REF", help="The version that this one adapts.")] = "",
    from_run: Annotated[str, typer.Option(metavar="RUN", help="Publish a run's result on its base.")] = "",
    dataset: Annotated[
        list[str], typer.Option(metavar="FR:LABEL:CODES", help="A nation's data that went in, by label.")
    ] = [],  # noqa: B006
    keep: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep the adapter made of a run here.")] = None,
    wait_seconds: Annotated[int, typer.Option(help="Wait this long for the other signatures.")] = 0,
    passphrase_file: PassphraseOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Publish a model version: manifest, signature, chunks. The same command again goes on where it was."""
    from controlplane.cli.publishing import Draft
    from treaty.errors import InvalidInput

    if (directory is None) == (not from_run):
        raise InvalidInput("either a folder or a run is published", remedy="pass DIR or --from-run RUN")
    draft = Draft(name, version, licence, label, comma_list(rel_to), architecture, base, tuple(dataset))
    publication = _Publication(draft, directory, from_run, keep, wait_seconds)
    asyncio.run(_publish(invocation(ctx), publication, signing_keys(key, passphrase_file), output))


@app.command(epilog="Example:  foedus model sign demo@1.0.0 --key keys/pub-2.key --digest sha256:…")
def sign(
    ctx: typer.Context,
    ref: RefArgument,
    key: KeysOption,
    digest: Annotated[str, typer.Option(help="The manifest's digest, as the publisher told you.")] = "",
    passphrase_file: PassphraseOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Add your signature to a draft."""
    asyncio.run(_sign(invocation(ctx), ref, digest, signing_keys(key, passphrase_file), output))


@app.command(epilog="Example:  foedus model verify demo@1.0.0 --charter charter.json")
def verify(
    ctx: typer.Context,
    ref: RefArgument,
    charter: CharterOption = None,
    pin: PinOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Check a version's signatures against the charter, and its base's. Exits with 4 if they do not hold."""
    asyncio.run(_verify(invocation(ctx), ref, invocation(ctx).charter_path(charter), pin, output))


async def _publish(invoked: Invocation, asked: _Publication, keys: list[SigningKey], output: Output) -> None:
    from contextlib import ExitStack

    from controlplane.cli import publishing
    from controlplane.cli.calls import client_of
    from controlplane.cli.output import print_resource

    with ExitStack() as stack:
        async with client_of(invoked) as client:
            if asked.directory is not None:
                folder, about = asked.directory, await publishing.describe(client, asked.draft)
            else:
                folder, about = await publishing.adapter_of_run(client, asked.run, asked.draft, asked.keep, stack)
            version = await publishing.publish(client, folder, about, keys)
            if asked.wait_seconds:
                version = await publishing.wait_ready(client, version, asked.wait_seconds)
    print_resource(version, output)
    publishing.say_what_is_missing(version)


async def _sign(invoked: Invocation, ref: str, digest: str, keys: list[SigningKey], output: Output) -> None:
    from controlplane.cli import publishing
    from controlplane.cli.calls import client_of
    from controlplane.cli.output import print_resource
    from treaty import statement

    async with client_of(invoked) as client:
        envelope = await client.manifest(ref)
        publishing.read_manifest(envelope, ref, digest)
        for key in keys:
            envelope = statement.add_signature(envelope, key)
        version = await client.sign_model(envelope)
    print_resource(version, output)
    publishing.say_what_is_missing(version)


async def _verify(invoked: Invocation, ref: str, charter_path: Path, pin: str, output: Output) -> None:
    from controlplane.cli import charter_drafts, publishing
    from controlplane.cli.calls import client_of
    from controlplane.cli.output import print_facts

    charter = charter_drafts.believed(charter_path, pin=pin)
    async with client_of(invoked) as client:
        manifest, signers = publishing.verified(await client.manifest(ref), charter, ref)
        if manifest.about.base is not None:
            publishing.verified(await client.manifest(manifest.about.base), charter, manifest.about.base)
    facts: dict[str, JsonLike] = {
        "model": manifest.ref,
        "digest": manifest.digest,
        "signedBy": sorted(signers),
        "threshold": charter.publishers.threshold,
        "base": manifest.about.base,
        "licence": manifest.about.licence,
        "label": f"{manifest.about.label.classification} REL TO {', '.join(manifest.about.label.rel_to) or 'nobody'}",
        "bytes": manifest.total_bytes,
        "parents": list(manifest.about.lineage.parents),
        "run": manifest.about.lineage.run,
    }
    print_facts(facts, output, name=manifest.digest)
