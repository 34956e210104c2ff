"""What mutual TLS and `check_leaf` let in, over real handshakes on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.builders.charters import DOMAIN, NOW, CharterBuilder
from tests.builders.ports import free_port
from treaty.errors import BadSignature, Expired, FoedusError, IdentityRefused, Unavailable
from treaty.exit_codes import exit_code
from treaty.names import PartyCode, SpiffeId, SpiffeRole, agent_id
from treaty.wire import credentials
from treaty.wire.certificates import Issued, check_leaf, issue_client, issue_server, new_ca
from treaty.wire.peer import peer_leaf
from treaty.wire.status import error_from, grpc_status, translated

FR, DE = PartyCode("FR"), PartyCode("DE")


@asynccontextmanager
async def whoami(world: CharterBuilder) -> AsyncIterator[str]:
    """A server that answers with the caller's SPIFFE id, as the charter lets it be believed."""
    charter = world.charter()
    server_identity = issue_server(world.coordinator_ca, ["localhost"], datetime.now(UTC))

    async def answer(_request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        try:
            leaf = peer_leaf(context.auth_context())
            return str(check_leaf(leaf, charter, datetime.now(UTC))).encode()
        except FoedusError as err:
            await context.abort(*grpc_status(err))
            raise

    def identity() -> credentials.ServerIdentity:
        cas = tuple(nation.ca_pem.encode() for nation in charter.nations.values())
        return credentials.ServerIdentity(server_identity.key_pem(), server_identity.certificate_pem(), cas)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("test.Whoami", {"Ask": grpc.unary_unary_rpc_method_handler(answer)})]
    )
    port = server.add_secure_port(f"localhost:{free_port()}", credentials.mutual_server_credentials(identity))
    await server.start()
    try:
        yield f"localhost:{port}"
    finally:
        await server.stop(None)


async def ask(target: str, world: CharterBuilder, shown: Issued) -> str:
    channel = credentials.mutual_channel(
        target, world.coordinator_ca.certificate_pem(), credentials.ClientIdentity.of(shown)
    )
    async with channel, translated("the coordinator"):
        answer: bytes = await channel.unary_unary("/test.Whoami/Ask")(b"", timeout=5)
        return answer.decode()


async def test_an_agent_is_known_by_its_certificate() -> None:
    world = CharterBuilder()
    shown = issue_client(world.cas[FR], agent_id(FR, DOMAIN, "par-1"), datetime.now(UTC))
    async with whoami(world) as target:
        assert await ask(target, world, shown) == f"spiffe://fr.{DOMAIN}/agent/par-1"


async def test_a_nation_cannot_name_another() -> None:
    world = CharterBuilder()
    forged = issue_client(world.cas[FR], agent_id(DE, DOMAIN, "ber-1"), datetime.now(UTC))
    async with whoami(world) as target:
        with pytest.raises((Unavailable, IdentityRefused)):
            await ask(target, world, forged)


async def test_a_foreign_ca_and_an_expired_certificate_do_not_get_in() -> None:
    world = CharterBuilder()
    foreign = issue_client(new_ca("fr", DOMAIN, datetime.now(UTC)), agent_id(FR, DOMAIN, "par-1"), datetime.now(UTC))
    expired = issue_client(
        world.cas[FR], agent_id(FR, DOMAIN, "par-1"), datetime.now(UTC) - timedelta(hours=3), timedelta(hours=1)
    )
    async with whoami(world) as target:
        for shown in (foreign, expired):
            with pytest.raises(Unavailable, match="refused the handshake"):
                await ask(target, world, shown)


@pytest.mark.parametrize(
    ("authority", "name", "code"),
    [
        ("FR", "par-1", "MALFORMED_ID"),
        ("fr.", "par-1", "MALFORMED_ID"),
        ("fr", "Par-1", "MALFORMED_ID"),
        ("fr", "par/1", "MALFORMED_ID"),
        ("de", "ber-1", "FOREIGN_CA"),
        ("us", "was-1", "NOT_A_PARTY"),
        ("coordinator", "x", "MALFORMED_ID"),
    ],
)
def test_a_leaf_that_misspells_or_borrows_a_name_is_refused(authority: str, name: str, code: str) -> None:
    world = CharterBuilder()
    leaf = issue_client(world.cas[FR], SpiffeId(authority, DOMAIN, SpiffeRole.AGENT, name), NOW)
    with pytest.raises(IdentityRefused) as refused:
        check_leaf(leaf.certificate, world.charter(), NOW)
    assert refused.value.code == code


@pytest.mark.parametrize(("offset_hours", "code"), [(-3, "NOT_YET_VALID"), (9, "EXPIRED")])
def test_a_leaf_outside_its_validity_is_refused(offset_hours: int, code: str) -> None:
    world = CharterBuilder()
    leaf = issue_client(world.cas[FR], agent_id(FR, DOMAIN, "par-1"), NOW)
    with pytest.raises(IdentityRefused) as refused:
        check_leaf(leaf.certificate, world.charter(), NOW + timedelta(hours=offset_hours))
    assert refused.value.code == code


def test_a_server_certificate_is_no_client_and_a_fresh_one_tolerates_a_late_clock() -> None:
    world = CharterBuilder()
    server = issue_server(world.coordinator_ca, ["localhost"], NOW)
    with pytest.raises(IdentityRefused, match="not a URI"):
        check_leaf(server.certificate, world.charter(), NOW)
    leaf = issue_client(world.cas[FR], agent_id(FR, DOMAIN, "par-1"), NOW)
    assert check_leaf(leaf.certificate, world.charter(), NOW - timedelta(minutes=90)).nation == FR


@pytest.mark.parametrize(
    "error", [BadSignature("two of three"), Expired("over"), IdentityRefused("no", code="EXPIRED")]
)
def test_an_error_that_crossed_the_wire_is_the_same_error_with_the_same_exit_code(error: FoedusError) -> None:
    class Failure(grpc.RpcError):
        def code(self) -> grpc.StatusCode:
            return grpc_status(error)[0]

        def details(self) -> str:
            return grpc_status(error)[1]

    back = error_from(Failure(), peer="the coordinator")
    assert (type(back), back.code, exit_code(back)) == (type(error), error.code, exit_code(error))


def test_what_was_found_good_of_a_leaf_is_remembered_for_those_bytes_that_time_and_that_ca_alone() -> None:
    world = CharterBuilder()
    leaf = issue_client(world.cas[FR], agent_id(FR, DOMAIN, "par-1"), NOW).certificate
    charter = world.charter()
    assert check_leaf(leaf, charter, NOW) == check_leaf(leaf, charter, NOW)

    der = bytearray(leaf.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1  # in the signature
    other_ca = replace(charter.nations[FR], ca_pem=new_ca("fr", DOMAIN, NOW).certificate_pem().decode())
    elsewhere = replace(charter, nations=MappingProxyType({**charter.nations, FR: other_ca}))
    for shown, by, at, code in (
        (x509.load_der_x509_certificate(bytes(der)), charter, NOW, "FOREIGN_CA"),
        (leaf, elsewhere, NOW, "FOREIGN_CA"),
        (leaf, charter, NOW + timedelta(hours=9), "EXPIRED"),
    ):
        for _ in range(2):
            with pytest.raises(IdentityRefused) as refused:
                check_leaf(shown, by, at)
            assert refused.value.code == code


async def test_a_certificate_that_expires_speaks_no_more_even_where_tls_resumes_its_session() -> None:
    world = CharterBuilder()
    shown = issue_client(
        world.cas[FR],
        agent_id(FR, DOMAIN, "par-1"),
        datetime.now(UTC) - timedelta(hours=1),
        timedelta(hours=1, seconds=2),
    )
    async with whoami(world) as target:
        assert await ask(target, world, shown)
        while datetime.now(UTC) <= shown.certificate.not_valid_after_utc:
            with suppress(IdentityRefused, Unavailable):
                await ask(target, world, shown)
        with pytest.raises((IdentityRefused, Unavailable)):
            await ask(target, world, shown)


async def test_many_handshakes_at_once_all_succeed() -> None:
    world = CharterBuilder()
    shown = issue_client(world.cas[FR], agent_id(FR, DOMAIN, "par-1"), datetime.now(UTC))
    async with whoami(world) as target:
        answers = await asyncio.gather(*(ask(target, world, shown) for _ in range(48)))
    assert len(answers) == 48


async def test_a_fetcher_that_fails_lets_nobody_in() -> None:
    world = CharterBuilder()
    answers = [True]

    def identity() -> credentials.ServerIdentity:
        if not answers:
            raise Unavailable("the store does not answer")
        answers.pop()
        issued = issue_server(world.coordinator_ca, ["localhost"], datetime.now(UTC))
        cas = (world.cas[FR].certificate_pem(),)
        return credentials.ServerIdentity(issued.key_pem(), issued.certificate_pem(), cas)

    server = grpc.aio.server()
    port = server.add_secure_port(f"localhost:{free_port()}", credentials.mutual_server_credentials(identity))
    await server.start()
    shown = issue_client(world.cas[FR], agent_id(FR, DOMAIN, "par-1"), datetime.now(UTC))
    try:
        with pytest.raises(Unavailable):
            await ask(f"localhost:{port}", world, shown)
    finally:
        await server.stop(None)


def test_an_operator_of_the_coordinator_is_believed_by_the_coordinators_ca_only() -> None:
    world = CharterBuilder()
    operator = SpiffeId("coordinator", DOMAIN, SpiffeRole.OPERATOR, "op-1")
    assert check_leaf(issue_client(world.coordinator_ca, operator, NOW).certificate, world.charter(), NOW) == operator
    by_fr = issue_client(world.cas[FR], operator, NOW)
    with pytest.raises(IdentityRefused) as refused:
        check_leaf(by_fr.certificate, world.charter(), NOW)
    assert refused.value.code == "FOREIGN_CA"
    as_agent = issue_client(world.coordinator_ca, replace(operator, role=SpiffeRole.AGENT), NOW)
    with pytest.raises(IdentityRefused):
        check_leaf(as_agent.certificate, world.charter(), NOW)
