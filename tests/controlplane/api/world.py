"""A real coordinator in this process, on loopback, over mutual TLS, and agents and people to call it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc

from controlplane.bootstrap import Running, running
from controlplane.home import Home, Identity, initialise
from controlplane.services.trust import Trust
from controlplane.store import open_store
from tests.builders.charters import DOMAIN, CharterBuilder
from treaty.keys import SigningKey, new_signing_key
from treaty.names import Digest, PartyCode, SpiffeId, SpiffeRole, agent_id
from treaty.wire.certificates import Issued, issue_client
from treaty.wire.credentials import ClientIdentity, mutual_channel, plain_channel
from treaty.wire.v1 import operator_pb2, operator_pb2_grpc, session_pb2, session_pb2_grpc, types_pb2

FR = PartyCode("FR")
DE = PartyCode("DE")
NONCE = bytes(range(32))


def now() -> datetime:
    return datetime.now(UTC)


def agent(nation: PartyCode = FR, name: str = "par-1") -> SpiffeId:
    return agent_id(nation, DOMAIN, name)


def person(role: SpiffeRole, name: str = "one") -> SpiffeId:
    return SpiffeId("coordinator", DOMAIN, role, name)


@dataclass
class World:
    """The running coordinator and the keys of everybody in its charter."""

    coordinator: Running
    charters: CharterBuilder
    stack: AsyncExitStack
    agent_keys: dict[SpiffeId, SigningKey] = field(default_factory=dict)

    @property
    def charter_envelope(self) -> bytes:
        """The first charter as it was loaded; a builder's next one is dated anew."""
        return self.coordinator.core.trust.charter_envelopes[0]

    @property
    def charter_digest(self) -> Digest:
        return self.coordinator.core.trust.charter.digest

    def certificate(
        self, who: SpiffeId, *, lifetime: timedelta = timedelta(hours=1), ca: Issued | None = None
    ) -> Issued:
        own = self.charters.cas[who.nation] if who.role is SpiffeRole.AGENT else self.charters.coordinator_ca
        return issue_client(ca or own, who, now(), lifetime)

    def channel(self, who: SpiffeId, certificate: Issued | None = None) -> grpc.aio.Channel:
        shown = ClientIdentity.of(certificate or self.certificate(who))
        ca = self.charters.coordinator_ca.certificate_pem()
        channel = mutual_channel(self.coordinator.endpoints["grpc"], ca, shown)
        self.stack.push_async_callback(channel.close)
        return channel

    def reach(self) -> grpc.aio.Channel:
        channel = plain_channel(self.coordinator.endpoints["reach"], self.charters.coordinator_ca.certificate_pem())
        self.stack.push_async_callback(channel.close)
        return channel

    def operator(self, role: SpiffeRole = SpiffeRole.OPERATOR) -> Any:
        return operator_pb2_grpc.OperatorStub(self.channel(person(role)))

    def delegation(self, who: SpiffeId) -> bytes:
        key = self.agent_keys.setdefault(who, new_signing_key())
        return self.charters.agent_delegation(who.nation, who.name, key)

    def hello(self, who: SpiffeId, **fields: Any) -> session_pb2.AgentMessage:
        said: dict[str, Any] = {
            "protocol_min": 1,
            "protocol_max": 1,
            "agent_version": "0.1.0",
            "charter_digest": self.charter_digest,
            "delegations": [self.delegation(who)],
            "nonce": NONCE,
            "status_sequence": 1,
        }
        return session_pb2.AgentMessage(hello=session_pb2.Hello(**{**said, **fields}))

    async def accept(self, who: SpiffeId) -> None:
        """Knock, and let the operator accept."""
        refused = await failure(self.connect(who))
        assert refused.details() == "NOT_ACCEPTED"
        await self.operator().AcceptAgent(operator_pb2.AcceptAgentRequest(agent=str(who)))

    async def connect(self, who: SpiffeId, *, certificate: Issued | None = None, **fields: Any) -> Stream:
        """Open the agent's stream and read its welcome."""
        call = session_pb2_grpc.SessionStub(self.channel(who, certificate)).Connect()
        stream = Stream(call)
        await stream.say(self.hello(who, **fields))
        stream.welcome = (await stream.next("welcome")).welcome
        return stream


@dataclass
class Stream:
    """An agent's end of its session."""

    call: Any
    welcome: session_pb2.Welcome = field(default_factory=session_pb2.Welcome)

    async def say(self, message: session_pb2.AgentMessage) -> None:
        await self.call.write(message)

    async def next(self, kind: str) -> session_pb2.CoordinatorMessage:
        """The next message of this kind; heartbeats in between are passed over."""
        async with asyncio.timeout(5):
            while True:
                message = await self.call.read()
                if message is grpc.aio.EOF:
                    # Reading past the end tells how the call ended.
                    raise AssertionError(f"ended with {await self.call.code()}: {await self.call.details()}")
                if message.WhichOneof("body") == kind:
                    return message  # type: ignore[no-any-return]

    async def ended(self) -> grpc.aio.AioRpcError:
        """How the coordinator ended the stream."""
        async with asyncio.timeout(8):
            try:
                while await self.call.read() is not grpc.aio.EOF:
                    pass
            except grpc.aio.AioRpcError as err:
                return err
        raise AssertionError("the stream ended without an error")

    async def acknowledge(self, number: types_pb2.DirectiveNumber, code: str = "") -> None:
        word = session_pb2.Acknowledgement(number=number)
        if code:
            word.refusal.code = code
        await self.say(session_pb2.AgentMessage(acknowledgement=word))


async def failure(awaitable: Any) -> grpc.aio.AioRpcError:
    """The error that a call ends with."""
    try:
        await awaitable
    except grpc.aio.AioRpcError as err:
        return err
    raise AssertionError("the call was not refused")


def home_of(folder: Path) -> tuple[Home, CharterBuilder]:
    """An initialised home, and the keys of a charter that names it."""
    home = Home(folder / "home")
    home.root.mkdir()
    initialise(home, Identity(PartyCode("EU"), PartyCode("BE"), DOMAIN, ("localhost",)), now())
    charters = CharterBuilder(issued_at=now().replace(microsecond=0) - timedelta(minutes=1), log_key=home.log_key())
    charters.coordinator_ca = home.ca()
    return home, charters


async def load_charter(home: Home, envelope: bytes) -> Digest:
    store = await open_store(home.store_url)
    try:
        trust = Trust(store, now, changed=lambda: None)
        await trust.load()
        return (await trust.publish(envelope)).digest
    finally:
        await store.close()


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    home, charters = home_of(folder)
    await load_charter(home, charters.signed())
    async with serving(home, charters) as served:
        yield served


@asynccontextmanager
async def serving(home: Home, charters: CharterBuilder) -> AsyncIterator[World]:
    async with running(home) as coordinator, AsyncExitStack() as stack:
        yield World(coordinator, charters, stack)
