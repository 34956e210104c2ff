"""The listening side of the process: four ports, each for who may be on it.

grpc      mutual TLS: Session, Artifacts, Updates, Operator, all behind the gate
reach     server-authenticated TLS: Reach, rate-limited
metrics   Prometheus over plain HTTP, loopback by default
health    gRPC health without TLS, loopback by default
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from prometheus_client import start_http_server

from controlplane.api.artifacts import ArtifactsServicer
from controlplane.api.gate import Gate
from controlplane.api.metrics import REGISTRY
from controlplane.api.operator import OperatorServicer
from controlplane.api.reach import ReachServicer
from controlplane.api.session import SessionServicer
from controlplane.api.tls import ServerCertificate
from controlplane.api.updates import UpdatesServicer
from controlplane.settings import Settings
from treaty.errors import Unavailable
from treaty.wire.credentials import mutual_server_credentials, plain_server_credentials
from treaty.wire.limits import server_options
from treaty.wire.v1 import operator_pb2_grpc, reach_pb2_grpc, session_pb2_grpc, transfer_pb2_grpc

MAX_CALLS: Final = 1024
MAX_REACH_CALLS: Final = 64
GRACE_SECONDS: Final = 5


@dataclass(frozen=True, slots=True)
class Servicers:
    gate: Gate
    session: SessionServicer
    artifacts: ArtifactsServicer
    updates: UpdatesServicer
    operator: OperatorServicer
    reach: ReachServicer


class Servers:
    """The running servers. `endpoints` says where, by the names of the module's docstring.

    What is dialled by the certificate's DNS name stands there so, and beside it, as `grpc_bound` and `reach_bound`, the
    address that this machine listens on: a name says nothing of whether anybody else can reach it.
    """

    def __init__(self, settings: Settings, certificate: ServerCertificate, dns_name: str) -> None:
        self._settings = settings
        self._certificate = certificate
        self._dns_name = dns_name
        self._running: list[grpc.aio.Server] = []
        self._health = health.aio.HealthServicer()
        self.endpoints: dict[str, str] = {}

    async def start(self, servicers: Servicers) -> None:
        """Listen on every port. Raises Unavailable: an address is taken."""
        await self._start_mutual(servicers)
        await self._start_reach(servicers)
        await self._start_health()
        await asyncio.to_thread(self._start_metrics)
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)

    async def stop(self) -> None:
        """Say that we are going, let unary calls finish for a moment, and close."""
        await self._health.enter_graceful_shutdown()
        await asyncio.gather(*(server.stop(GRACE_SECONDS) for server in self._running))

    async def _start_mutual(self, servicers: Servicers) -> None:
        server = grpc.aio.server(
            interceptors=[servicers.gate],
            options=server_options(max_connection_age_seconds=self._settings.connection_age_seconds),
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        session_pb2_grpc.add_SessionServicer_to_server(servicers.session, server)
        transfer_pb2_grpc.add_UpdatesServicer_to_server(servicers.updates, server)
        operator_pb2_grpc.add_OperatorServicer_to_server(servicers.operator, server)
        server.add_generic_rpc_handlers((servicers.artifacts.handler(),))
        credentials = mutual_server_credentials(self._certificate.fetch)
        await self._listen("grpc", server, self._settings.grpc_address, credentials)

    async def _start_reach(self, servicers: Servicers) -> None:
        server = grpc.aio.server(
            options=server_options(max_connection_age_seconds=60), maximum_concurrent_rpcs=MAX_REACH_CALLS
        )
        reach_pb2_grpc.add_ReachServicer_to_server(servicers.reach, server)
        credentials = plain_server_credentials(self._certificate.fetch)
        await self._listen("reach", server, self._settings.reach_address, credentials)

    async def _start_health(self) -> None:
        server = grpc.aio.server(maximum_concurrent_rpcs=MAX_REACH_CALLS)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        await self._listen("health", server, self._settings.health_address, None)

    async def _listen(
        self, name: str, server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None
    ) -> None:
        try:
            if credentials is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, credentials)
        except RuntimeError as err:
            raise Unavailable(f"cannot listen on {address}", remedy=f"set {name}_address in settings.yaml") from err
        await server.start()
        self._running.append(server)
        bound = f"{address.rpartition(':')[0]}:{port}"
        self.endpoints[name] = bound if credentials is None else f"{self._dns_name}:{port}"
        if credentials is not None:
            self.endpoints[f"{name}_bound"] = bound

    def _start_metrics(self) -> None:
        host, _, port = self._settings.metrics_address.rpartition(":")
        try:
            server, _ = start_http_server(int(port), addr=host, registry=REGISTRY)
        except OSError as err:
            raise Unavailable(
                f"cannot listen on {self._settings.metrics_address}", remedy="set metrics_address in settings.yaml"
            ) from err
        self.endpoints["metrics"] = f"{host}:{server.server_port}"
