"""gRPC health (grpc.health.v1) for probes on this machine: the only port an agent listens on beside its metrics.

The empty service name is SERVING while the process runs; `session` is SERVING while the coordinator is connected. It
answers on loopback (or a cluster's probe network) without TLS, takes nothing in and says nothing else.
"""

from __future__ import annotations

import asyncio
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_health.v1.health import aio  # type: ignore[import-untyped]

from node_agent.state import AgentState, Phase
from treaty.errors import PreconditionFailed

SESSION: Final = "session"
LOOK_SECONDS: Final = 0.5
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    def __init__(self, address: str, state: AgentState) -> None:
        self._address = address
        self._state = state
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
        """Follow the state until cancelled."""
        await self._servicer.set("", _SERVING)
        last = None
        while True:
            if self._state.phase is not last:
                last = self._state.phase
                await self._servicer.set(SESSION, _SERVING if last is Phase.ONLINE else _NOT_SERVING)
            await asyncio.sleep(LOOK_SECONDS)

    async def close(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
