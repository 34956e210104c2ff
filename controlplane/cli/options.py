"""Options that several verbs share, spelled once."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from treaty.keys import SigningKey


class Output(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


OutputOption: TypeAlias = Annotated[Output, typer.Option("--output", "-o", help="How to print it.")]
PassphraseOption: TypeAlias = Annotated[
    Path | None, typer.Option("--passphrase-file", metavar="FILE", help="File with the keys' passphrase.")
]
KeysOption: TypeAlias = Annotated[
    list[Path], typer.Option("--key", metavar="FILE", help="Private key to sign with; may be given several times.")
]
CharterOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--charter", metavar="FILE", help="The signed charter to believe; default FOEDUS_CHARTER."),
]
PinOption: TypeAlias = Annotated[
    str, typer.Option("--pin", metavar="DIGEST", help="The charter's digest, as you had it by another channel.")
]
ForceOption: TypeAlias = Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")]
YesOption: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def passphrase(file: Path | None) -> bytes | None:
    """The first line of `file`; None where none is given."""
    from treaty.files import first_line

    return None if file is None else first_line(file, "passphrase")


def signing_keys(paths: Sequence[Path], passphrase_file: Path | None) -> list[SigningKey]:
    """The keys to sign with, each once. Raises: InvalidInput: none, or one twice."""
    from treaty.errors import InvalidInput
    from treaty.keys import read_signing_key

    secret = passphrase(passphrase_file)
    keys = [read_signing_key(path, passphrase=secret) for path in paths]
    if not keys:
        raise InvalidInput("no key to sign with", remedy="pass --key FILE")
    if len({key.key_id for key in keys}) != len(keys):
        raise InvalidInput("the same key is given twice", remedy="pass each --key once")
    return keys


def comma_list(text: str) -> tuple[str, ...]:
    """`FR, DE` as its words; none for an empty text."""
    return tuple(word.strip() for word in text.split(",") if word.strip())
