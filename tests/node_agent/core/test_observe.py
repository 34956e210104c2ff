"""What probes and Prometheus see of an agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from node_agent.health import SESSION, Health
from node_agent.journal import SqliteJournal
from node_agent.observe import Endpoint
from node_agent.state import AgentState, Phase
from tests.node_agent.core.clock import ManualClock
from treaty.errors import Corrupt, FoedusError, PreconditionFailed
from treaty.names import digest_of

CHARTER = digest_of(b"charter")


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[AgentState, SqliteJournal, str]]:
    state, journal = AgentState(CHARTER), SqliteJournal(tmp_path / "journal.db", ManualClock())
    endpoint = Endpoint("127.0.0.1:0", state, journal)
    yield state, journal, await endpoint.open()
    await endpoint.close()
    journal.close()


async def asked(address: str, request: bytes) -> str:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer.decode()


async def test_metrics_count_what_left_by_class(served: tuple[AgentState, SqliteJournal, str]) -> None:
    state, journal, address = served
    journal.crossings.count("status", 40)
    state.phase = Phase.ONLINE
    answer = await asked(address, b"GET /metrics HTTP/1.1\r\n\r\n")
    assert answer.startswith("HTTP/1.1 200 OK\r\n")
    assert 'foedus_agent_outbound_bytes_total{class="status"} 40\n' in answer
    assert "foedus_agent_connected 1\n" in answer


async def test_ready_means_connected(served: tuple[AgentState, SqliteJournal, str]) -> None:
    state, _, address = served
    assert (await asked(address, b"GET /readyz HTTP/1.1\r\n\r\n")).startswith("HTTP/1.1 503")
    state.phase = Phase.ONLINE
    assert (await asked(address, b"GET /readyz HTTP/1.1\r\n\r\n")).startswith("HTTP/1.1 200")


@pytest.mark.parametrize("request_line", [b"POST /metrics HTTP/1.1\r\n\r\n", b"GET /secrets HTTP/1.1\r\n\r\n", b"\r\n"])
async def test_nothing_else_is_answered(served: tuple[AgentState, SqliteJournal, str], request_line: bytes) -> None:
    assert (await asked(served[2], request_line)).startswith("HTTP/1.1 40")


async def test_grpc_health_follows_what_holds_by_service() -> None:
    holds = {SESSION: False, "policy": True}
    health = Health("127.0.0.1:0", lambda: holds)
    address = await health.open()
    following = asyncio.ensure_future(health.run())
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watching = stub.Watch(health_pb2.HealthCheckRequest(service=SESSION))
        seen = []
        async with asyncio.timeout(5):
            async for answer in watching:
                seen.append(answer.status)
                if answer.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                    holds[SESSION] = True
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    break
        for service in ("", "policy"):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert seen[-2:] == [health_pb2.HealthCheckResponse.NOT_SERVING, health_pb2.HealthCheckResponse.SERVING]
    following.cancel()
    await health.close()


async def test_what_health_cannot_look_at_does_not_hold() -> None:
    failures: list[FoedusError] = []

    def look() -> dict[str, bool]:
        if failures:
            raise failures[0]
        return {"serving": True}

    health = Health("127.0.0.1:0", look)
    address = await health.open()
    following = asyncio.ensure_future(health.run())
    async with grpc.aio.insecure_channel(address) as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="serving"))
        async with asyncio.timeout(5):
            async for answer in watching:
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    failures.append(Corrupt("the journal's entry cannot be read"))
                if answer.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                    break
    following.cancel()
    await health.close()


async def test_an_address_that_is_taken_is_said_so(served: tuple[AgentState, SqliteJournal, str]) -> None:
    state, journal, address = served
    with pytest.raises(PreconditionFailed, match="cannot listen on"):
        await Endpoint(address, state, journal).open()
    with pytest.raises(PreconditionFailed, match="cannot listen on"):
        await Health(address, dict).open()
