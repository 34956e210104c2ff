"""TLS credentials for both ends, made so that what has ended cannot come back.

A server's configuration is handed out when it changed and not otherwise: a fresh one at every handshake would end TLS
session resumption, but gRPC 1.85 frees the handshaker that another handshake still uses and the process dies
(docs/adr/0004). So resumption stays, an expired certificate can finish a *handshake* by it, and it is the check at
every call (`treaty.wire.certificates.check_leaf`) that lets nothing expired, foreign or revoked speak.

The fetcher runs on a foreign thread. Where it raises, gRPC would silently go on with the old credentials; instead we
log and hand out roots that nobody's certificate verifies under: fail closed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import cast

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
    client_cas: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """What a client shows. PEM."""

    key: bytes
    certificate: bytes

    @classmethod
    def of(cls, issued: Issued) -> ClientIdentity:
        return cls(issued.key_pem(), issued.certificate_pem())


class _Fetcher:
    """Asks for the server's identity at every handshake and says only what changed since the last answer."""

    def __init__(self, fetch: Callable[[], ServerIdentity], *, asks_for_clients: bool) -> None:
        self._fetch = fetch
        self._asks_for_clients = asks_for_clients
        self._nobody = new_ca("nobody", "invalid.example", datetime.now(UTC)).certificate_pem()
        self._told = fetch()
        self._lock = threading.Lock()

    def first(self) -> grpc.ServerCertificateConfiguration:
        return self._configuration(self._told)

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The configuration if it is not the one last told, otherwise None."""
        with self._lock:
            current = self._current()
            if current == self._told:
                return None
            self._told = current
            return self._configuration(current)

    def _current(self) -> ServerIdentity:
        try:
            return self._fetch()
        except (FoedusError, OSError):
            log.exception("server identity not available, refusing every handshake")
            return replace(self._told, client_cas=(self._nobody,))

    def _configuration(self, identity: ServerIdentity) -> grpc.ServerCertificateConfiguration:
        pair = [(identity.key, identity.certificate)]
        if not self._asks_for_clients:
            return grpc.ssl_server_certificate_configuration(pair)
        return grpc.ssl_server_certificate_configuration(pair, b"".join(identity.client_cas) or self._nobody)


def mutual_server_credentials(fetch: Callable[[], ServerIdentity]) -> grpc.ServerCredentials:
    """Server credentials that require a client certificate; `fetch` is asked at every handshake."""
    fetcher = _Fetcher(fetch, asks_for_clients=True)
    return _dynamic(fetcher, require_client_authentication=True)


def plain_server_credentials(fetch: Callable[[], ServerIdentity]) -> grpc.ServerCredentials:
    """Server-authenticated TLS for Reach: no client certificate is asked."""
    fetcher = _Fetcher(fetch, asks_for_clients=False)
    return _dynamic(fetcher, require_client_authentication=False)


def _dynamic(fetcher: _Fetcher, *, require_client_authentication: bool) -> grpc.ServerCredentials:
    # The stubs do not know that None means "no change"; grpc's own documentation says so.
    changed = cast("Callable[[], grpc.ServerCertificateConfiguration]", fetcher.changed)
    return grpc.dynamic_ssl_server_credentials(fetcher.first(), changed, require_client_authentication)


def mutual_channel(
    target: str, server_ca_pem: bytes, identity: ClientIdentity, options: ChannelOptions = ()
) -> grpc.aio.Channel:
    """A channel of its own to `target` (`host:port`), verified against `server_ca_pem` by DNS name."""
    credentials = grpc.ssl_channel_credentials(server_ca_pem, identity.key, identity.certificate)
    return grpc.aio.secure_channel(target, credentials, options=[*client_options(), *options])


def plain_channel(target: str, server_ca_pem: bytes) -> grpc.aio.Channel:
    """A channel to Reach, which asks for no certificate."""
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(server_ca_pem), options=client_options())
