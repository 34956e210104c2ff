"""A certificate that has ended: refused at the handshake, and at the call where a resumed TLS session skips that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc.experimental import session_cache

from tests.controlplane.api.world import Stream, World, agent, failure, world
from treaty.wire.certificates import Issued
from treaty.wire.credentials import ClientIdentity, mutual_channel
from treaty.wire.v1 import session_pb2_grpc, transfer_pb2, transfer_pb2_grpc

PAR = agent()
LIFETIME = timedelta(seconds=6)
"""Enough to shake hands on a machine that has much else to do."""


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as started:
        yield started


class Resuming:
    """Connections with one certificate that share what TLS keeps of a session, as an agent may that wants to get in."""

    def __init__(self, there: World, shown: Issued) -> None:
        self._there = there
        self._shown = ClientIdentity.of(shown)
        self._options = [
            ("grpc.ssl_session_cache", session_cache.ssl_session_cache_lru(4)),
            ("grpc.use_local_subchannel_pool", 1),
        ]

    def channel(self) -> grpc.aio.Channel:
        ca = self._there.charters.coordinator_ca.certificate_pem()
        where = self._there.coordinator.endpoints["grpc"]
        channel = mutual_channel(where, ca, self._shown, self._options)
        self._there.stack.push_async_callback(channel.close)
        return channel


async def outlived(there: World, channel: grpc.aio.Channel) -> grpc.aio.AioRpcError:
    """Open a session on `channel` and stay until the coordinator ends it with its certificate."""
    stream = Stream(session_pb2_grpc.SessionStub(channel).Connect())
    await stream.say(there.hello(PAR))
    await stream.next("welcome")
    return await stream.ended()


async def refused_fetch(channel: grpc.aio.Channel) -> grpc.aio.AioRpcError:
    stub: Any = transfer_pb2_grpc.ArtifactsStub(channel)
    request = transfer_pb2.FetchRequest(manifest_digest="sha256:" + "0" * 64, chunk_digests=["sha256:" + "1" * 64])
    return await failure(stub.Fetch(request).read())


async def test_an_expired_certificate_is_refused_also_where_its_tls_session_is_resumed(there: World) -> None:
    await there.accept(PAR)
    leaf = there.certificate(PAR, lifetime=LIFETIME)
    resuming = Resuming(there, leaf)
    assert (await outlived(there, resuming.channel())).details() == "EXPIRED"

    resumed = await refused_fetch(resuming.channel())  # TLS let it in, as the code shows; the gate did not
    assert (resumed.code(), resumed.details()) == (grpc.StatusCode.UNAUTHENTICATED, "EXPIRED")
    anew = await refused_fetch(Resuming(there, leaf).channel())
    assert anew.code() is grpc.StatusCode.UNAVAILABLE
    renewed = await refused_fetch(there.channel(PAR))
    assert renewed.details() == "NOT_FOUND"  # it is in, and only has no such artifact
