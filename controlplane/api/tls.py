"""The server's certificate: issued by the coordinator's own CA, replaced at half its life, fresh at every handshake.

Whom the server lets begin to speak is the charter's CAs of this moment, so a nation's CA comes and goes without a
restart. Called on a foreign thread, by every handshake: it takes a lock, and nothing that waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from controlplane.services.ports import Clock
from treaty.wire.certificates import Issued, issue_server
from treaty.wire.credentials import ServerIdentity


class ServerCertificate:
    """Issues what the server shows. `client_cas` are PEM, asked at every handshake."""

    def __init__(
        self,
        ca: Issued,
        dns_names: Callable[[], Sequence[str]],
        client_cas: Callable[[], Sequence[bytes]],
        clock: Clock,
        lifetime: timedelta,
    ) -> None:
        self._ca = ca
        self._dns_names = dns_names
        self._client_cas = client_cas
        self._clock = clock
        self._lifetime = lifetime
        self._lock = threading.Lock()
        self._issued: Issued | None = None
        self._names: tuple[str, ...] = ()

    def fetch(self) -> ServerIdentity:
        """What the next handshake shows."""
        issued = self._current()
        return ServerIdentity(issued.key_pem(), issued.certificate_pem(), tuple(self._client_cas()))

    def _current(self) -> Issued:
        with self._lock:
            now, wanted = self._clock(), tuple(self._dns_names())
            issued = self._issued
            if issued is None or wanted != self._names or now >= _half_life(issued, self._lifetime):
                issued = self._issued = issue_server(self._ca, wanted, now, self._lifetime)
                self._names = wanted
            return issued


def _half_life(issued: Issued, lifetime: timedelta) -> datetime:
    return issued.certificate.not_valid_after_utc - lifetime / 2
