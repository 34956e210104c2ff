"""TLS credentials for both ends, made so that what has ended cannot come back.

The server hands out a *fresh* configuration at every handshake: with a cached one, TLS session resumption lets an
expired client certificate back in. The fetcher runs on a foreign thread. Where it raises, gRPC would silently go on
with the old credentials; instead we log and hand out roots that nobody's certificate verifies under: fail closed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc
import structlog

from treaty.errors import FoedusError
from treaty.wire.certificates import Issued, new_ca
from treaty.wire.limits import ChannelOptions, client_options

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """What a server shows, and the CAs whose clients it lets begin to speak. All PEM."""

    key: bytes
    certificate: bytes
    client_cas: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """What a client shows. PEM."""

    key: bytes
    certificate: bytes

    @classmethod
    def of(cls, issued: Issued) -> ClientIdentity:
        return cls(issued.key_pem(), issued.certificate_pem())


def mutual_server_credentials(fetch: Callable[[], ServerIdentity]) -> grpc.ServerCredentials:
    """Server credentials that require a client certificate; `fetch` is asked at every handshake."""
    nobody = new_ca("nobody", "invalid.example", datetime.now(UTC)).certificate_pem()
    last = fetch()

    def configuration() -> grpc.ServerCertificateConfiguration:
        nonlocal last
        try:
            last = fetch()
            roots = b"".join(last.client_cas) or nobody
        except (FoedusError, OSError):
            log.exception("server identity not available, refusing every handshake")
            roots = nobody
        return grpc.ssl_server_certificate_configuration([(last.key, last.certificate)], roots)

    return grpc.dynamic_ssl_server_credentials(configuration(), configuration, require_client_authentication=True)


def plain_server_credentials(fetch: Callable[[], ServerIdentity]) -> grpc.ServerCredentials:
    """Server-authenticated TLS for Reach: no client certificate is asked."""

    def configuration() -> grpc.ServerCertificateConfiguration:
        identity = fetch()
        return grpc.ssl_server_certificate_configuration([(identity.key, identity.certificate)])

    return grpc.dynamic_ssl_server_credentials(configuration(), configuration, require_client_authentication=False)


def mutual_channel(
    target: str, server_ca_pem: bytes, identity: ClientIdentity, options: ChannelOptions = ()
) -> grpc.aio.Channel:
    """A channel of its own to `target` (`host:port`), verified against `server_ca_pem` by DNS name."""
    credentials = grpc.ssl_channel_credentials(server_ca_pem, identity.key, identity.certificate)
    return grpc.aio.secure_channel(target, credentials, options=[*client_options(), *options])


def plain_channel(target: str, server_ca_pem: bytes) -> grpc.aio.Channel:
    """A channel to Reach, which asks for no certificate."""
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(server_ca_pem), options=client_options())
