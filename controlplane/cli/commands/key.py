"""`foedus key`: Ed25519 keys of founders, publishers, policy authorities and persons. Offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.options import Output, OutputOption, PassphraseOption, passphrase
from treaty.cli.program import noun

app = noun("Make and show signing keys.")


@app.command(epilog="Example:  foedus key new eu-founder --out keys/")
def new(
    name: Annotated[str, typer.Argument(help="Name of the two files: NAME.key and NAME.pub.")],
    out: Annotated[Path, typer.Option(help="Folder for them; made with mode 0700.")] = Path(),
    passphrase_file: PassphraseOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a signing key. Never overwrites one."""
    from controlplane.cli.output import print_facts
    from treaty import keys, names

    key = keys.new_signing_key()
    private, public = keys.write_key(out, names.resource_name(name), key, passphrase=passphrase(passphrase_file))
    print_facts({"keyId": key.key_id, "private": str(private), "public": str(public)}, output, name=str(public))


@app.command(epilog="Example:  foedus key show keys/eu-founder.pub")
def show(
    file: Annotated[Path, typer.Argument(help="A .pub or a .key file.")],
    passphrase_file: PassphraseOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show a key's id and its public half."""
    from controlplane.cli.output import print_facts
    from treaty import keys

    if file.suffix == ".key":
        key = keys.read_signing_key(file, passphrase=passphrase(passphrase_file)).verification
    else:
        key = keys.read_verification_key(file)
    print_facts({"keyId": key.key_id, "publicKey": key.pem()}, output, name=key.key_id)
