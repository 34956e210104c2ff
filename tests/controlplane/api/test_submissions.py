"""Statements that a nation hands in: recorded once, refused by code, and what follows from them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.services.submissions import MAX_SUBMISSION_BYTES, Submissions, check_size
from controlplane.services.trust import MAX_DELEGATIONS
from tests.builders.charters import DOMAIN
from tests.controlplane.api.world import DE, FR, Stream, World, agent, home_of, load_charter, now, serving, world
from treaty import statement
from treaty.consent import CLOCK_SKEW, Answer, AnsweredBy, Consent, sign_consent
from treaty.dataset import DatasetNotice, sign_notice
from treaty.delegation import Power
from treaty.errors import ResourceExhausted
from treaty.keys import SigningKey, new_signing_key
from treaty.label import Classification
from treaty.names import Digest, PartyCode, SpiffeId, digest_of
from treaty.receipt import MAX_CLASSES, Tally, sign_tally
from treaty.resources.meta import AnyKind, find_condition
from treaty.resources.nations import DATASET, NODE_AGENT, DatasetSpec, SizeBucket
from treaty.resources.rollouts import CONSENT, CONSENT_ACCEPTED
from treaty.statement import Statement, StatementKind
from treaty.strict_json import JsonObject
from treaty.wire.v1 import session_pb2

PAR = agent()
BER = agent(DE, "ber-1")
SUBJECT = Digest("sha256:" + "ab" * 32)


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as started:
        for who in (PAR, BER):
            await started.accept(who)
        yield started


def dataset(nation: PartyCode = FR, *, is_withdrawn: bool = False, ahead: timedelta = timedelta()) -> DatasetNotice:
    spec = DatasetSpec(nation, "catalogue", ("translation",), "public", SizeBucket.UNDER_1_000, SUBJECT)
    return DatasetNotice(spec, next(iter(Classification)), is_withdrawn, now().replace(microsecond=0) + ahead)


def tally(who: SpiffeId, sequence: int = 1) -> Tally:
    until = now().replace(microsecond=0)
    return Tally(who.nation, who.name, sequence, until - timedelta(hours=1), until, {"status": (3, 90)})


def consent(nation: PartyCode = FR, by: AnsweredBy = AnsweredBy.PERSON) -> Consent:
    issued = now().replace(microsecond=0) - timedelta(minutes=1)
    return Consent(nation, SUBJECT, None, "r1", Answer.YES, by, None, issued, issued + timedelta(days=1))


async def submitted(stream: Stream, envelope: bytes) -> session_pb2.Recorded:
    await stream.say(session_pb2.AgentMessage(submission=session_pb2.Submission(envelope=envelope)))
    return (await stream.next("recorded")).recorded


async def test_a_dataset_is_recorded_once_and_becomes_a_resource_until_it_is_withdrawn(there: World) -> None:
    stream, key = await there.connect(PAR), there.agent_keys[PAR]
    store = there.coordinator.core.store
    envelope = sign_notice(dataset(), key)
    first, again = await submitted(stream, envelope), await submitted(stream, envelope)
    assert first == again
    assert not first.HasField("refusal")
    (found,) = (await store.resources.list(DATASET)).items
    assert (found.name, found.spec.purposes, found.status.registered_by) == (
        "fr-catalogue",
        ("translation",),
        str(PAR),
    )
    await submitted(stream, sign_notice(dataset(is_withdrawn=True), key))
    assert (await store.resources.list(DATASET)).items == ()


async def test_a_persons_consent_becomes_a_resource_and_a_policys_needs_the_agents_key(there: World) -> None:
    person = new_signing_key()
    delegations = [there.delegation(PAR), there.charters.person_delegation(FR, person, Power.CONSENT)]
    stream = await there.connect(PAR, delegations=delegations)
    recorded = await submitted(stream, sign_consent(consent(), person))
    (found,) = (await there.coordinator.core.store.resources.list(CONSENT)).items
    assert found.status.log_index == recorded.log_index
    assert found.spec.statement_digest == recorded.statement_digest
    forged = await submitted(stream, sign_consent(consent(), there.agent_keys[PAR]))
    assert forged.refusal.code == "BAD_SIGNATURE"  # the agent cannot speak for its person


async def test_a_withdrawal_holds_whatever_the_clock_and_no_earlier_word_takes_it_back(tmp_path: Path) -> None:
    home, charters = home_of(tmp_path)
    await load_charter(home, charters.signed())
    async with serving(home, charters) as before:
        await before.accept(PAR)
        stream, key = await before.connect(PAR), before.agent_keys[PAR]
        early = sign_notice(dataset(ahead=timedelta(hours=2)), key)
        await submitted(stream, early)
        await submitted(stream, sign_notice(dataset(is_withdrawn=True), key))
        assert await names_of(before, DATASET) == []
        await submitted(stream, early)  # handed in again
        assert await names_of(before, DATASET) == []
    async with serving(home, charters) as after:
        stream = await after.connect(PAR, delegations=[])
        await submitted(stream, early)
        await submitted(stream, sign_notice(dataset(ahead=-timedelta(minutes=1)), key))  # held up on its way
        assert await names_of(after, DATASET) == []
        await submitted(stream, sign_notice(dataset(ahead=timedelta(minutes=1)), key))
        assert await names_of(after, DATASET) == ["fr-catalogue"]


async def names_of(there: World, kind: AnyKind) -> list[str]:
    return [each.name for each in await there.coordinator.core.store.resources.all(kind)]


async def test_a_later_no_counts_over_a_yes_whose_signers_clock_was_ahead_and_has_no_end(there: World) -> None:
    key = new_signing_key()
    delegations = [there.delegation(PAR), there.charters.person_delegation(FR, key, Power.CONSENT)]
    stream = await there.connect(PAR, delegations=delegations)
    given = consent()
    ahead = replace(given, issued_at=given.issued_at + CLOCK_SKEW)
    behind = given.issued_at - CLOCK_SKEW
    no = replace(given, answer=Answer.NO, issued_at=behind, expires_at=behind + timedelta(hours=1))
    await submitted(stream, sign_consent(ahead, key))
    recorded = await submitted(stream, sign_consent(no, key))
    assert not recorded.HasField("refusal")
    counting = [("no", "True", "by person"), ("yes", "False", f"entry {recorded.log_index} counts")]
    assert await answers(there) == counting
    await submitted(stream, sign_consent(ahead, key))  # handed in again
    assert await answers(there) == counting


async def answers(there: World) -> list[tuple[str, str, str]]:
    found = []
    for each in await there.coordinator.core.store.resources.all(CONSENT):
        accepted = find_condition(each.status.conditions, CONSENT_ACCEPTED)
        assert accepted is not None
        found.append((each.spec.decision.value, accepted.status.value, accepted.message))
    return sorted(found)


@pytest.mark.parametrize("what", ["tally", "dataset", "consent"])
async def test_another_nations_word_is_refused_though_its_own_key_signed_it(there: World, what: str) -> None:
    await there.connect(BER)
    stream, key = await there.connect(PAR), there.agent_keys[BER]
    envelope = {
        "tally": sign_tally(tally(BER), key),
        "dataset": sign_notice(dataset(DE), key),
        "consent": sign_consent(consent(DE, AnsweredBy.POLICY), key),
    }[what]
    size = there.coordinator.core.record.size
    assert (await submitted(stream, envelope)).refusal.code == "BAD_SIGNATURE"
    assert there.coordinator.core.record.size == size


async def test_an_agent_hands_in_no_tally_of_another_agent_of_its_nation(there: World) -> None:
    other = agent(FR, "lyo-1")
    await there.accept(other)
    await there.connect(other)
    stream = await there.connect(PAR)
    refused = await submitted(stream, sign_tally(tally(other), there.agent_keys[other]))
    assert refused.refusal.code == "FOREIGN_AGENT"


@pytest.mark.parametrize("kind", [StatementKind.CHARTER, StatementKind.PLAN, StatementKind.ROUND])
async def test_kinds_that_are_not_a_nations_are_refused(there: World, kind: StatementKind) -> None:
    stream = await there.connect(PAR)
    envelope = statement.sign(Statement(kind, "x", SUBJECT, {}), [there.agent_keys[PAR]])
    assert (await submitted(stream, envelope)).refusal.code == "KIND_NOT_ALLOWED"


async def test_a_flipped_byte_in_a_statement_is_refused_and_the_stream_goes_on(there: World) -> None:
    stream = await there.connect(PAR)
    envelope = bytearray(sign_tally(tally(PAR), there.agent_keys[PAR]))
    at = envelope.index(b'"sig":"') + 10
    envelope[at] = ord("A") if envelope[at] != ord("A") else ord("B")
    assert (await submitted(stream, bytes(envelope))).refusal.code == "BAD_SIGNATURE"
    recorded = await submitted(stream, sign_tally(tally(PAR), there.agent_keys[PAR]))
    assert not recorded.HasField("refusal")


async def test_what_is_no_envelope_at_all_ends_the_stream(there: World) -> None:
    stream = await there.connect(PAR)
    await stream.say(session_pb2.AgentMessage(submission=session_pb2.Submission(envelope=b"[]")))
    assert (await stream.ended()).details() == "INVALID_INPUT"


async def test_what_is_larger_than_any_honest_statement_is_not_parsed(there: World) -> None:
    stream = await there.connect(PAR)
    huge = sign_notice(dataset(), there.agent_keys[PAR]) + b" " * MAX_SUBMISSION_BYTES
    await stream.say(session_pb2.AgentMessage(submission=session_pb2.Submission(envelope=huge)))
    assert (await stream.ended()).details() == "LIMIT_EXCEEDED"


def test_the_largest_honest_statement_has_room() -> None:
    until = now().replace(microsecond=0)
    classes = {f"{number:064}": (2**53 - 1, 2**53 - 1) for number in range(MAX_CLASSES)}
    largest = sign_tally(Tally(FR, "a" * 63, 1, until, until, classes), new_signing_key())
    check_size(largest)
    assert len(largest) < MAX_SUBMISSION_BYTES // 3


def decision(predicate: JsonObject, key: SigningKey) -> bytes:
    return statement.sign(Statement(StatementKind.DECISION, "x", SUBJECT, predicate), [key])


async def test_an_agent_hands_in_no_decision_that_names_another_nation_or_agent(there: World) -> None:
    stream, key = await there.connect(PAR), there.agent_keys[PAR]
    size = there.coordinator.core.record.size
    assert (await submitted(stream, decision({"nation": "DE"}, key))).refusal.code == "FOREIGN_NATION"
    assert (await submitted(stream, decision({"agent": "lyo-1"}, key))).refusal.code == "FOREIGN_AGENT"
    assert there.coordinator.core.record.size == size
    own = await submitted(stream, decision({"nation": "FR", "agent": "par-1"}, key))
    assert not own.HasField("refusal")


async def test_another_nation_that_delegates_an_agents_key_takes_nothing_from_it(there: World) -> None:
    stream, key = await there.connect(PAR), there.agent_keys[PAR]
    stolen = there.charters.agent_delegation(DE, "ber-2", key)
    await there.connect(BER, delegations=[there.delegation(BER), stolen])
    recorded = await submitted(stream, sign_tally(tally(PAR), key))
    assert not recorded.HasField("refusal")


async def test_a_nation_keeps_a_bounded_number_of_delegations(there: World) -> None:
    trust, charters = there.coordinator.core.trust, there.charters
    for number in range(MAX_DELEGATIONS):
        trust.learn_delegation(charters.agent_delegation(FR, f"a-{number}", new_signing_key()), nation=FR)
    with pytest.raises(ResourceExhausted, match="FR has 256 delegations in force already"):
        trust.learn_delegation(charters.agent_delegation(FR, "late", new_signing_key()), nation=FR)
    assert len(trust.delegations(FR)) == MAX_DELEGATIONS
    trust.learn_delegation(charters.agent_delegation(DE, "ber-2", new_signing_key()), nation=DE)


async def test_an_agents_statements_of_one_day_are_counted(there: World) -> None:
    await there.connect(PAR)
    core, key = there.coordinator.core, there.agent_keys[PAR]
    submissions = Submissions(core.trust, core.record, now, per_day=1)
    first = sign_tally(tally(PAR), key)
    recorded = await submissions.submit(PAR, first)
    with pytest.raises(ResourceExhausted, match="handed in 1 statements today"):
        await submissions.submit(PAR, sign_tally(tally(PAR, 2), key))
    assert await submissions.submit(PAR, first) == recorded  # it costs nothing: it is recorded already


async def test_a_revocation_that_does_not_read_is_not_recorded(there: World) -> None:
    person = new_signing_key()
    delegations = [there.delegation(PAR), there.charters.person_delegation(FR, person, Power.REVOKE)]
    stream = await there.connect(PAR, delegations=delegations)
    size = there.coordinator.core.record.size
    refused = await submitted(stream, revocation(str(PAR), person, reason=7))
    assert refused.refusal.code == "INVALID_INPUT"
    refused = await submitted(stream, revocation(f"spiffe://fr.{DOMAIN}/nobody", person))
    assert refused.refusal.code == "INVALID_INPUT"
    assert there.coordinator.core.record.size == size


def revocation(subject: str, key: SigningKey, reason: str | int = "stolen") -> bytes:
    predicate = {"subject": subject, "reason": reason, "by": "person", "issued_at": "2026-11-23T18:00:00Z"}
    return statement.sign(
        Statement(StatementKind.REVOCATION, subject, digest_of(subject.encode()), dict(predicate)), [key]
    )


async def test_a_nation_revokes_its_own_agent_by_a_person_and_no_other_nations(there: World) -> None:
    lyo = agent(FR, "lyo-1")
    await there.accept(lyo)
    person = new_signing_key()
    delegations = [there.delegation(PAR), there.charters.person_delegation(FR, person, Power.REVOKE)]
    stream = await there.connect(PAR, delegations=delegations)
    lyon, berlin = await there.connect(lyo), await there.connect(BER)
    refused = await submitted(stream, revocation(str(BER), person))
    assert refused.refusal.code == "FOREIGN_NATION"
    await submitted(stream, revocation(str(lyo), person))
    assert (await lyon.ended()).details() == "REVOKED"
    await berlin.say(session_pb2.AgentMessage(status=session_pb2.Status(sequence=2)))
    await berlin.next("report_request")
    known = await there.coordinator.core.store.resources.get(NODE_AGENT, "fr-lyo-1")
    assert any(c.type == "Revoked" and c.message == "stolen" for c in known.status.conditions)


async def test_a_restarted_coordinator_believes_delegations_from_its_record(tmp_path: Path) -> None:
    home, charters = home_of(tmp_path)
    await load_charter(home, charters.signed())
    async with serving(home, charters) as before:
        await before.accept(PAR)
        stream = await before.connect(PAR)
        recorded = await submitted(stream, sign_tally(tally(PAR), before.agent_keys[PAR]))
        keys = before.agent_keys
    async with serving(home, charters) as after:
        core = after.coordinator.core
        assert [d.agent for d in core.trust.delegations(FR)] == ["par-1"]
        assert core.record.known(Digest(recorded.statement_digest)) == recorded.log_index
        again = await submitted(await after.connect(PAR, delegations=[]), sign_tally(tally(PAR, 2), keys[PAR]))
        assert not again.HasField("refusal")
