"""Who calls: the client certificate, its key and the coordinator's CA, read and held against each other.

gRPC says of a file that it cannot use, of a key that is another certificate's and of a CA that is another coordinator's
the same: nothing answers. So each is looked at here, before anything is dialled, and the file that is wrong is named.
That the certificate is believed at the other end is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from controlplane.cli.settings import Context
from treaty.errors import InvalidInput, PreconditionFailed
from treaty.fields import timestamp_text
from treaty.files import read_file

_MAX_PEM_BYTES: Final = 256 * 1024
_NEW_ONE: Final = "have one issued: foedus-coordinator certificate"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Identity:
    """PEM, as it lies in the files; empty for a file that is not set."""

    key: bytes
    certificate: bytes
    ca: bytes


def check_address(text: str) -> None:
    """Raises InvalidInput: not HOST:PORT."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidInput(f"the coordinator {text!r} is not HOST:PORT")


def read_identity(settings: Context) -> Identity:
    """Read key, certificate and CA, and hold those that are set against each other.

    Raises: NotFound, InvalidInput, naming the file. PreconditionFailed: the certificate is not valid now.
    """
    key_pem, key = _pem(settings.key, "client key", lambda data: load_pem_private_key(data, None))
    leaf_pem, leaf = _pem(settings.cert, "client certificate", x509.load_pem_x509_certificate)
    ca_pem, cas = _pem(settings.ca, "coordinator's CA", x509.load_pem_x509_certificates)
    if key is not None and leaf is not None and key.public_key() != leaf.public_key():
        raise InvalidInput(
            f"the client key {settings.key} is not the key of the client certificate {settings.cert}",
            remedy="pass --cert and --key of one pair together",
        )
    if cas and leaf is not None and not any(_issued(ca, leaf) for ca in cas):
        raise InvalidInput(
            f"the coordinator's CA {settings.ca} did not issue the client certificate {settings.cert}",
            remedy="one of the two is another coordinator's; ca.pem lies beside the certificate where it was issued",
        )
    if leaf is not None:
        _check_time(leaf, settings.cert, datetime.now(UTC))
    return Identity(key_pem, leaf_pem, ca_pem)


def _pem(path: str, what: str, read: Callable[[bytes], T]) -> tuple[bytes, T | None]:
    if not path:
        return b"", None
    data = read_file(Path(path), what, _MAX_PEM_BYTES)
    try:
        return data, read(data)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as err:
        raise InvalidInput(f"the {what} {path} is not PEM, or is locked by a password") from err


def _issued(ca: x509.Certificate, leaf: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _check_time(leaf: x509.Certificate, path: str, now: datetime) -> None:
    if now >= leaf.not_valid_after_utc:
        ended = timestamp_text(leaf.not_valid_after_utc)
        raise PreconditionFailed(f"the client certificate {path} ended at {ended}", remedy=_NEW_ONE)
    if now < leaf.not_valid_before_utc:
        begins = timestamp_text(leaf.not_valid_before_utc)
        raise PreconditionFailed(
            f"the client certificate {path} begins at {begins}", remedy="set this machine's clock by NTP"
        )
