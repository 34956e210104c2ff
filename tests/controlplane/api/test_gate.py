"""What every call must pass, over real mutual TLS: identity from the certificate alone, roles, acceptance."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from controlplane.api.roles import ROLES, check_role
from tests.builders.charters import DOMAIN
from tests.controlplane.api.world import DE, World, agent, failure, now, person, world
from treaty.errors import PermissionRefused
from treaty.names import SpiffeId, SpiffeRole
from treaty.wire.certificates import Issued, new_ca
from treaty.wire.credentials import ClientIdentity, mutual_channel
from treaty.wire.v1 import (
    operator_pb2,
    operator_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
    transfer_pb2,
    transfer_pb2_grpc,
)

PAR = agent()


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as started:
        yield started


def named(there: World, uri: str, *, ca: Issued | None = None) -> Issued:
    """A leaf with any name at all, signed by FR's CA (which is constrained to FR's host) or another."""
    signer = ca or there.charters.cas[PAR.nation]
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(signer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - timedelta(hours=1))
        .not_valid_after(now() + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(signer.key, hashes.SHA256())
    )
    return Issued(key, certificate)


async def get(stub: Any) -> Any:
    return await stub.Get(operator_pb2.GetRequest(kind="Nation", name="fr"))


async def test_each_role_reads_resources_and_the_operator_alone_lets_agents_in(there: World) -> None:
    for role in (SpiffeRole.OPERATOR, SpiffeRole.PUBLISHER, SpiffeRole.AUDITOR):
        assert b'"code":"FR"' in (await get(there.operator(role))).json
    accept = operator_pb2.AcceptAgentRequest(agent=str(PAR))
    for role in (SpiffeRole.PUBLISHER, SpiffeRole.AUDITOR):
        refused = await failure(there.operator(role).AcceptAgent(accept))
        assert refused.code() is grpc.StatusCode.PERMISSION_DENIED
        assert refused.details() == (
            f"PERMISSION_REFUSED: {role} may not call AcceptAgent; use a certificate of role operator"
        )


async def test_an_agent_calls_no_operators_method_and_learns_a_code_only(there: World) -> None:
    await there.accept(PAR)
    refused = await failure(get(operator_pb2_grpc.OperatorStub(there.channel(PAR))))
    assert refused.details() == "PERMISSION_REFUSED"


async def test_an_operator_opens_no_session(there: World) -> None:
    refused = await failure(session_pb2_grpc.SessionStub(there.channel(person(SpiffeRole.OPERATOR))).Connect().read())
    assert refused.details() == "PERMISSION_REFUSED: operator may not call Connect; use a certificate of role agent"


@pytest.mark.parametrize(
    "uri",
    [
        f"spiffe://de.{DOMAIN}/agent/par-1",
        f"spiffe://FR.{DOMAIN}/agent/par-1",
        f"spiffe://fr.{DOMAIN}./agent/par-1",
        f"spiffe://fr.{DOMAIN}/operator/par-1",
        f"spiffe://coordinator.{DOMAIN}/operator/one",
        f"spiffe://fr.{DOMAIN}/agent/par-1/more",
    ],
)
async def test_a_nations_ca_cannot_name_anyone_but_its_own_agents(there: World, uri: str) -> None:
    await there.accept(PAR)
    refused = await failure(there.connect(PAR, certificate=named(there, uri)))
    # The handshake refuses what the CA's name constraint excludes; the gate refuses what it lets by.
    assert refused.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED)
    assert refused.details() in ("MALFORMED_ID", "FOREIGN_CA") or refused.code() is grpc.StatusCode.UNAVAILABLE


async def test_certificates_that_are_shown_beside_the_leaf_make_nobody_of_it(there: World) -> None:
    """Public certificates of another nation as a decoy in the chain: the leaf alone says who calls."""
    ber = agent(DE, "ber-1")
    await there.accept(ber)
    decoy = there.certificate(ber).certificate_pem() + there.charters.cas[DE].certificate_pem()
    own = there.certificate(PAR)
    refused = await failure(fetch_with(there, ClientIdentity(own.key_pem(), own.certificate_pem() + decoy)))
    assert (refused.code(), refused.details()) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_ACCEPTED")
    for signer in (there.charters.cas[PAR.nation], new_ca("de", DOMAIN, now())):
        borrowed = named(there, str(ber), ca=signer)
        shown = ClientIdentity(borrowed.key_pem(), borrowed.certificate_pem() + decoy)
        assert (await failure(fetch_with(there, shown))).code() is grpc.StatusCode.UNAVAILABLE  # no handshake


def fetch_with(there: World, shown: ClientIdentity) -> Any:
    ca = there.charters.coordinator_ca.certificate_pem()
    channel = mutual_channel(there.coordinator.endpoints["grpc"], ca, shown)
    there.stack.push_async_callback(channel.close)
    request = transfer_pb2.FetchRequest(manifest_digest="sha256:" + "0" * 64, chunk_digests=["sha256:" + "1" * 64])
    return transfer_pb2_grpc.ArtifactsStub(channel).Fetch(request).read()


async def test_a_ca_of_another_nation_without_constraints_is_refused_at_the_gate(there: World) -> None:
    """As if TLS had believed it: the charter's CA for that very nation must have signed the leaf."""
    trust = there.coordinator.core.trust
    stranger = new_ca("de", DOMAIN, now())
    for ca in (stranger, there.charters.cas[PAR.nation]):
        leaf = named(there, f"spiffe://de.{DOMAIN}/agent/ber-1", ca=ca).certificate
        with pytest.raises(Exception, match="did not issue this certificate"):
            trust.identify(leaf)


async def test_the_identity_is_the_certificates_whatever_a_message_claims(there: World) -> None:
    await there.accept(PAR)
    await there.accept(agent(DE, "ber-1"))
    stream = await there.connect(PAR, delegations=[there.delegation(PAR)])
    consent = session_pb2.AgentMessage(submission=session_pb2.Submission(envelope=there.delegation(agent(DE, "ber-1"))))
    await stream.say(consent)
    answer = (await stream.next("recorded")).recorded
    assert answer.refusal.code == "NOT_A_PARTY"


async def test_a_method_that_is_not_in_the_table_is_nobodys() -> None:
    for role in SpiffeRole:
        host = "fr" if role is SpiffeRole.AGENT else "coordinator"
        with pytest.raises(PermissionRefused, match="may not call Shell"):
            check_role("/treaty.wire.v1.Operator/Shell", SpiffeId(host, DOMAIN, role, "x"))


def test_the_table_names_every_method_of_the_wire_and_no_other() -> None:
    found = set()
    for module in (session_pb2, transfer_pb2, operator_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            found |= {f"/{service.full_name}/{method.name}" for method in service.methods}
    assert set(ROLES) == found


async def test_revoking_a_nations_ca_ends_every_agent_of_the_nation_and_no_other(there: World) -> None:
    ber = agent(DE, "ber-1")
    await there.accept(PAR)
    await there.accept(ber)
    paris, berlin = await there.connect(PAR), await there.connect(ber)
    digest = there.coordinator.core.trust.ca_digest(PAR.nation)
    await there.operator().RevokeAgent(operator_pb2.RevokeAgentRequest(subject=digest, reason="stolen"))
    assert (await paris.ended()).details() == "REVOKED"
    await berlin.say(session_pb2.AgentMessage(status=session_pb2.Status(sequence=2)))
    await berlin.next("report_request")


async def test_an_artifact_that_was_not_granted_does_not_exist(there: World) -> None:
    await there.accept(PAR)
    await there.connect(PAR)
    stub = transfer_pb2_grpc.ArtifactsStub(there.channel(PAR))
    request = transfer_pb2.FetchRequest(manifest_digest="sha256:" + "0" * 64, chunk_digests=["sha256:" + "1" * 64])
    refused = await failure(stub.Fetch(request).read())
    assert (refused.code(), refused.details()) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
