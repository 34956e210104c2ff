"""What the record shows a nation of its own statements, over a real Session, and what of others: nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.controlplane.api.test_submissions import consent, dataset, decision, revocation, submitted, tally
from tests.controlplane.api.world import DE, FR, Stream, World, agent, now, world
from treaty import statement
from treaty.consent import sign_consent
from treaty.dataset import sign_notice
from treaty.delegation import Power
from treaty.errors import TrustError
from treaty.keys import new_signing_key
from treaty.log import leaf_data, leaf_hash, verify_inclusion
from treaty.names import digest_of
from treaty.receipt import sign_tally
from treaty.wire.certificates import ca_digest
from treaty.wire.v1 import session_pb2

PAR = agent()
BER = agent(DE, "ber-1")


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as started:
        for who in (PAR, BER):
            await started.accept(who)
        yield started


async def asked(stream: Stream, digest: str, log_size: int) -> session_pb2.Inclusion:
    request = session_pb2.ProofRequest(statement_digest=digest, log_size=log_size)
    await stream.say(session_pb2.AgentMessage(proof_request=request))
    return (await stream.next("inclusion")).inclusion


async def test_a_recorded_statement_names_its_leaf_and_is_proved_in_a_signed_tree(there: World) -> None:
    stream, record = await there.connect(PAR), there.coordinator.core.record
    envelope = sign_tally(tally(PAR), there.agent_keys[PAR])
    word = await submitted(stream, envelope)
    assert word.envelope == b""
    signed = (await record.publish()).checkpoint
    answer = await asked(stream, word.statement_digest, signed.size)
    assert (answer.statement_digest, answer.log_size) == (word.statement_digest, signed.size)
    leaf = leaf_hash(leaf_data(word.salt, envelope))
    verify_inclusion(leaf, word.log_index, signed.size, list(answer.proof), signed.root)
    with pytest.raises(TrustError):
        verify_inclusion(leaf_hash(b"other"), word.log_index, signed.size, list(answer.proof), signed.root)
    assert (await submitted(stream, envelope)).salt == word.salt


async def test_every_kind_that_a_nation_hands_in_is_proved_to_it_and_to_no_other(there: World) -> None:
    person = new_signing_key()
    delegations = [there.delegation(PAR), there.charters.person_delegation(FR, person, Power.REVOKE, Power.CONSENT)]
    stream, berlin = await there.connect(PAR, delegations=delegations), await there.connect(BER)
    key, record = there.agent_keys[PAR], there.coordinator.core.record
    ca = ca_digest(there.charters.cas[FR].certificate_pem().decode())
    said = [
        sign_tally(tally(PAR), key),
        sign_notice(dataset(), key),
        sign_consent(consent(), person),
        decision({"nation": "FR", "agent": "par-1"}, key),
        revocation(str(agent(FR, "lyo-1")), person),
        there.charters.agent_delegation(FR, "lyo-2", new_signing_key()),
    ]
    for envelope in said:
        word = await submitted(stream, envelope)
        signed = (await record.publish()).checkpoint
        answer = await asked(stream, word.statement_digest, signed.size)
        leaf = leaf_hash(leaf_data(word.salt, envelope))
        verify_inclusion(leaf, word.log_index, signed.size, list(answer.proof), signed.root)
        foreign = await asked(berlin, word.statement_digest, signed.size)
        assert (foreign.refusal.code, list(foreign.proof)) == ("NOT_FOUND", [])
    own_ca = revocation(ca, person)
    index = await record.append(own_ca)  # as recorded; handed in, it would end the stream
    digest = digest_of(statement.unverified(own_ca).payload())
    assert (await asked(stream, digest, index + 1)).proof
    assert (await asked(berlin, digest, index + 1)).refusal.code == "NOT_FOUND"


async def test_what_is_not_there_or_beyond_the_log_has_no_proof(there: World) -> None:
    stream, record = await there.connect(PAR), there.coordinator.core.record
    word = await submitted(stream, sign_tally(tally(PAR), there.agent_keys[PAR]))
    assert (await asked(stream, digest_of(b"never said"), record.size)).refusal.code == "NOT_FOUND"
    assert (await asked(stream, word.statement_digest, record.size + 1)).refusal.code == "LOG_BEYOND"
    assert (await asked(stream, word.statement_digest, word.log_index)).refusal.code == "LOG_BEYOND"


@pytest.mark.parametrize(("digest", "size"), [("sha256:short", 1), ("sha256:" + "ab" * 32, 2**63)])
async def test_a_request_that_does_not_read_ends_the_stream(there: World, digest: str, size: int) -> None:
    stream = await there.connect(PAR)
    request = session_pb2.ProofRequest(statement_digest=digest, log_size=size)
    await stream.say(session_pb2.AgentMessage(proof_request=request))
    assert (await stream.ended()).details() in {"INVALID_INPUT", "LIMIT_EXCEEDED"}


async def test_the_same_payload_under_other_signatures_is_shown_as_it_stands(there: World) -> None:
    one, two = new_signing_key(), new_signing_key()
    persons = [there.charters.person_delegation(FR, key, Power.CONSENT) for key in (one, two)]
    stream = await there.connect(PAR, delegations=[there.delegation(PAR), *persons])
    yes = consent()
    first, second = sign_consent(yes, one), sign_consent(yes, two)
    word = await submitted(stream, first)
    again = await submitted(stream, second)
    assert (again.log_index, again.salt, again.envelope) == (word.log_index, word.salt, first)
    assert now() > yes.issued_at
