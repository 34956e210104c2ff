"""Whose call this is, as TLS saw it: the leaf certificate and nothing else.

gRPC's auth context also holds the chain that the peer chose to send, which can contain a decoy; it is never read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cryptography import x509

from treaty.errors import IdentityRefused, InvalidInput
from treaty.wire.certificates import load_certificate


def peer_leaf(auth_context: Mapping[str, Sequence[bytes]]) -> x509.Certificate:
    """The peer's leaf from a servicer context's `auth_context()`.

    Raises: IdentityRefused: the connection shows no certificate, or more than one leaf.
    """
    leaves = auth_context.get("x509_pem_cert", ())
    if len(leaves) != 1:
        raise IdentityRefused("the connection shows no certificate", code="MALFORMED_ID")
    try:
        return load_certificate(bytes(leaves[0]))
    except InvalidInput as err:
        raise IdentityRefused(err.message, code="MALFORMED_ID") from err
