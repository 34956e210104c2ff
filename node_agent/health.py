"""gRPC health (grpc.health.v1) for probes on this machine: the only port an agent listens on beside its metrics.

| service | SERVING while |
|---|---|
| (empty) | the process serves its loop; one whose journal cannot be written ends, and this port with it |
| `session` | the coordinator is connected |
| `policy` | treaty bundle and overlay are in force and within their validity; without, all but serving is refused |
| `serving` | the version that is to be served runs, or none is to be |
| `training` | `policy`, and the brake is off: a round is not refused at once |
| `log` | the coordinator's log has not contradicted itself; otherwise no update leaves until a person has looked |

A restart mends none of these but the first, which alone is for a liveness probe. It answers on loopback (or a cluster's
probe network) without TLS, takes nothing in and says nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_health.v1.health import aio  # type: ignore[import-untyped]

from treaty.errors import FoedusError, PreconditionFailed

log = structlog.get_logger(__name__)

SESSION: Final = "session"
LOG: Final = "log"
LOOK_SECONDS: Final = 0.5
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    def __init__(self, address: str, look: Callable[[], Mapping[str, bool]]) -> None:
        """`look` says what holds now, by service; what it cannot say (`FoedusError`) does not hold."""
        self._address = address
        self._look = look
        self._servicer = aio.HealthServicer()
        self._server: grpc.aio.Server | None = None

    async def open(self) -> str:
        """Listen; the address that was taken, empty where the admin wants none.

        Raises: PreconditionFailed: the address is taken or not ours.
        """
        if not self._address:
            return ""
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
        try:
            port = server.add_insecure_port(self._address)
        except RuntimeError as err:
            remedy = "set health_address to a free address, or to an empty text"
            raise PreconditionFailed(f"cannot listen on {self._address}", remedy=remedy) from err
        await server.start()
        self._server = server
        return f"{self._address.rpartition(':')[0]}:{port}"

    async def run(self) -> None:
        """Follow what holds until cancelled."""
        await self._servicer.set("", _SERVING)
        last: dict[str, bool] = {}
        while True:
            now = self._seen(last)
            for service in sorted(now):
                if last.get(service) is not now[service]:
                    if service in last:
                        log.info("health changed", service=service, is_serving=now[service])
                    await self._servicer.set(service, _SERVING if now[service] else _NOT_SERVING)
            last = now
            await asyncio.sleep(LOOK_SECONDS)

    def _seen(self, last: Mapping[str, bool]) -> dict[str, bool]:
        try:
            return dict(self._look())
        except FoedusError as err:
            if any(last.values()):
                log.warning("health cannot be told", code=err.code, exc_info=err)
            return dict.fromkeys(last, False)

    async def close(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
