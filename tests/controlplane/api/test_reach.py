"""Reach: what an agent learns before mutual TLS lets it speak, and how little a stranger can do with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from controlplane.api.reach import (
    BUCKET_CALLS,
    MAX_BUCKETS,
    MAX_NONCES,
    NONCE_LIFETIME,
    PROOF_PREFIX,
    Buckets,
    Nonces,
    ReachServicer,
    _address,
)
from tests.builders.charters import DOMAIN, NOW
from tests.controlplane.api.world import World, agent, failure, now, world
from treaty.errors import ResourceExhausted
from treaty.wire.certificates import Issued, issue_client, new_ca
from treaty.wire.v1 import operator_pb2, reach_pb2, reach_pb2_grpc

PAR = agent()


class Broken:
    """A part that fails in a way that nobody foresaw."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError("a secret")


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as started:
        yield started


async def diagnosed(there: World, shown: Issued, *, signer: Issued | None = None) -> str:
    stub: Any = reach_pb2_grpc.ReachStub(there.reach())
    nonce = (await stub.Greet(reach_pb2.GreetRequest())).nonce
    signature = (signer or shown).key.sign(PROOF_PREFIX + nonce, ec.ECDSA(hashes.SHA256()))
    request = reach_pb2.DiagnoseRequest(
        certificate=shown.certificate.public_bytes(Encoding.DER), nonce=nonce, signature=signature
    )
    code: str = (await stub.Diagnose(request)).code
    again = await stub.Diagnose(request)
    assert again.code == "BAD_PROOF"  # a nonce is good once
    return code


async def test_greeting_tells_clock_charter_and_a_nonce(there: World) -> None:
    stub: Any = reach_pb2_grpc.ReachStub(there.reach())
    greeting = await stub.Greet(reach_pb2.GreetRequest())
    assert greeting.charter_digest == there.charter_digest
    assert len(greeting.nonce) == 32
    assert abs(greeting.server_time.ToSeconds() - now().timestamp()) < 5


async def test_the_charter_is_given_to_anyone_signed_as_it_was_loaded(there: World) -> None:
    stub: Any = reach_pb2_grpc.ReachStub(there.reach())
    envelopes = (await stub.FetchCharter(reach_pb2.FetchCharterRequest())).envelopes
    assert list(envelopes) == [there.charter_envelope]


async def test_an_agent_learns_why_it_is_refused_and_when_it_no_longer_is(there: World) -> None:
    stranger = new_ca("fr", DOMAIN, now())
    long_ago = issue_client(there.charters.cas[PAR.nation], PAR, now() - timedelta(hours=3), timedelta(hours=1))
    too_soon = issue_client(there.charters.cas[PAR.nation], PAR, now() + timedelta(hours=3), timedelta(hours=1))
    good = there.certificate(PAR)
    assert await diagnosed(there, there.certificate(PAR, ca=stranger)) == "FOREIGN_CA"
    assert await diagnosed(there, long_ago) == "EXPIRED"
    assert await diagnosed(there, too_soon) == "NOT_YET_VALID"
    assert await diagnosed(there, good, signer=long_ago) == "BAD_PROOF"
    assert await diagnosed(there, good) == "NOT_ACCEPTED"


async def test_a_certificate_of_an_unknown_curve_proves_nothing(there: World) -> None:
    stub: Any = reach_pb2_grpc.ReachStub(there.reach())
    nonce = (await stub.Greet(reach_pb2.GreetRequest())).nonce
    prime256v1, unknown = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d030105")
    shown = there.certificate(PAR).certificate.public_bytes(Encoding.DER).replace(prime256v1, unknown)
    answer = await stub.Diagnose(reach_pb2.DiagnoseRequest(certificate=shown, nonce=nonce, signature=b"x"))
    assert answer.code == "BAD_PROOF"


async def test_a_failure_that_nobody_foresaw_tells_a_stranger_nothing(there: World) -> None:
    servicer = ReachServicer(Broken(), Broken(), Broken(), now)  # type: ignore[arg-type]

    class Context:
        def peer(self) -> str:
            return "ipv4:10.0.0.1:4711"

        async def abort(self, code: grpc.StatusCode, details: str) -> None:
            raise AssertionError((code, details))

    with pytest.raises(AssertionError, match="INTERNAL") as failed:
        await servicer.FetchCharter(reach_pb2.FetchCharterRequest(), Context())
    assert failed.value.args[0] == (grpc.StatusCode.INTERNAL, "INTERNAL")


async def test_asking_why_is_knocking_and_the_answer_follows_the_operator(there: World) -> None:
    good = there.certificate(PAR)
    assert await diagnosed(there, good) == "NOT_ACCEPTED"
    await there.operator().AcceptAgent(operator_pb2.AcceptAgentRequest(agent=str(PAR)))
    assert await diagnosed(there, good) == "ACCEPTED"
    await there.operator().RevokeAgent(operator_pb2.RevokeAgentRequest(subject=str(PAR), reason="lost"))
    assert await diagnosed(there, good) == "REVOKED"


async def test_an_address_that_asks_too_often_is_told_to_wait(there: World) -> None:
    stub: Any = reach_pb2_grpc.ReachStub(there.reach())
    for _ in range(BUCKET_CALLS):
        await stub.Greet(reach_pb2.GreetRequest())
    refusals = [await failure(stub.Greet(reach_pb2.GreetRequest())) for _ in range(1)]
    assert refusals[0].code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refusals[0].details() == "RATE_LIMITED"


def test_a_bucket_refills_and_the_table_of_buckets_is_bounded() -> None:
    buckets = Buckets()
    for _ in range(BUCKET_CALLS):
        buckets.take("a", NOW)
    with pytest.raises(ResourceExhausted, match="too many calls from this address"):
        buckets.take("a", NOW)
    buckets.take("b", NOW)
    buckets.take("a", NOW + timedelta(seconds=1))
    for number in range(MAX_BUCKETS * 2):
        buckets.take(str(number), NOW)
    assert len(buckets._filled) == MAX_BUCKETS


def test_a_clock_that_goes_back_gives_no_calls() -> None:
    buckets = Buckets()
    for _ in range(BUCKET_CALLS):
        buckets.take("a", NOW)
    with pytest.raises(ResourceExhausted):
        buckets.take("a", NOW - timedelta(hours=1))


def test_a_nonce_is_good_once_within_its_lifetime_and_the_oldest_make_way() -> None:
    nonces = Nonces()
    nonce = nonces.give(NOW)
    assert nonces.use(nonce, NOW)
    assert not nonces.use(nonce, NOW)
    late = nonces.give(NOW)
    assert not nonces.use(late, NOW + NONCE_LIFETIME)
    first = nonces.give(NOW)
    for _ in range(MAX_NONCES):
        nonces.give(NOW)
    assert not nonces.use(first, NOW)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.1:4711", "10.0.0.1"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:4711", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8::6%5D:4711", "2001:db8::/64"),
        ("ipv6:%5B::ffff:10.0.0.1%5D:4711", "10.0.0.1"),
        ("unix:", "unix:"),
    ],
)
def test_an_address_is_one_host_or_one_ipv6_network(peer: str, address: str) -> None:
    assert _address(peer) == address
