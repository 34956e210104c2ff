"""The root of trust: pinned once, followed by TUF's rules, and what hangs from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.builders.charters import NOW, CharterBuilder
from treaty import charter as charters
from treaty import statement
from treaty.charter import Charter
from treaty.consent import Answer, AnsweredBy, Consent, sign_consent, verify_consent
from treaty.delegation import (
    Power,
    nation_descriptor,
    parse_descriptor,
    verify_delegation,
)
from treaty.errors import BadSignature, Expired, IdentityRefused, InvalidInput, RollbackRefused, TrustError
from treaty.keys import new_signing_key
from treaty.names import Digest, PartyCode, digest_of
from treaty.receipt import Crossing, Receipt, Tally, sign_receipt, sign_tally, verify_receipt, verify_tally
from treaty.statement import StatementKind

FR, DE = PartyCode("FR"), PartyCode("DE")


def test_a_pinned_charter_signed_by_its_founders_is_believed() -> None:
    world = CharterBuilder()
    charter = world.charter()
    assert charters.verify_first(world.signed(), charter.digest, NOW) == charter


def test_another_charter_than_the_pinned_one_is_refused_with_what_to_do() -> None:
    world = CharterBuilder()
    with pytest.raises(TrustError, match=r"not the pinned .*compare the digest with the founders"):
        charters.verify_first(world.signed(), Digest("sha256:" + "0" * 64), NOW)


def test_one_founder_is_not_enough_and_an_expired_charter_anchors_nothing() -> None:
    world = CharterBuilder()
    charter = world.charter()
    with pytest.raises(BadSignature):
        charters.verify_first(world.signed(signers=1), charter.digest, NOW)
    with pytest.raises(Expired, match="the founders sign a new version"):
        charters.verify_first(world.signed(), charter.digest, charter.expires_at)


def test_a_successor_needs_the_old_and_the_new_founders() -> None:
    world = CharterBuilder()
    newcomers = [new_signing_key() for _ in range(2)]
    successor = replace(
        world.charter(2),
        founders=charters.Role(tuple(key.verification for key in newcomers), 2),
        publishers=world.charter().publishers,
    )
    only_new = statement.sign(successor.statement(), newcomers)
    only_old = statement.sign(successor.statement(), world.founders[:2])
    both = statement.sign(successor.statement(), [*world.founders[:2], *newcomers])
    for short in (only_new, only_old):
        with pytest.raises(BadSignature):
            charters.verify_successor(world.charter(), short, NOW)
    assert charters.verify_successor(world.charter(), both, NOW) == successor


@pytest.mark.parametrize(
    ("change", "refusal", "message"),
    [
        (lambda c: replace(c, version=3), RollbackRefused, "does not follow"),
        (lambda c: replace(c, version=1), RollbackRefused, "does not follow"),
        (lambda c: replace(c, domain="other.example"), TrustError, "cannot change"),
        (lambda c: replace(c, issued_at=NOW - timedelta(days=1)), RollbackRefused, "issued before"),
        (lambda c: replace(c, expires_at=NOW), Expired, "expired"),
    ],
)
def test_a_successor_that_breaks_a_rule_is_refused(
    change: Callable[[Charter], Charter], refusal: type[Exception], message: str
) -> None:
    world = CharterBuilder()
    with pytest.raises(refusal, match=message):
        charters.verify_successor(world.charter(), world.signed(change(world.charter(2))), NOW)


def test_parties_that_share_a_key_are_refused() -> None:
    world = CharterBuilder()
    world.cas[DE] = world.cas[FR]
    with pytest.raises(InvalidInput, match="share a CA"):
        charters.parse_charter(world.charter().to_json())
    world = CharterBuilder()
    world.roots[DE] = world.roots[FR]
    with pytest.raises(InvalidInput, match="share a root key"):
        charters.parse_charter(world.charter().to_json())


def test_a_delegation_is_believed_from_the_nations_root_only() -> None:
    world = CharterBuilder()
    key = new_signing_key()
    delegation = verify_delegation(world.charter(), world.person_delegation(FR, key), NOW)
    assert (delegation.nation, delegation.key.key_id) == (FR, key.key_id)
    world.roots[FR] = world.roots[DE]
    with pytest.raises(BadSignature):
        verify_delegation(CharterBuilder().charter(), world.person_delegation(FR, key), NOW)


def test_a_delegation_that_has_not_begun_or_is_over_says_which() -> None:
    world = CharterBuilder()
    envelope = world.person_delegation(FR, new_signing_key())
    delegation = verify_delegation(world.charter(), envelope, NOW)
    for moment, said in ((delegation.issued_at - timedelta(seconds=1), "begins"), (delegation.expires_at, "ended")):
        with pytest.raises(Expired, match=f"the delegation of key .* {said} at "):
            verify_delegation(world.charter(), envelope, moment)


def test_an_agents_key_cannot_be_given_a_persons_power() -> None:
    world = CharterBuilder()
    smuggled = world._delegate(FR, new_signing_key(), frozenset({Power.CONSENT, Power.RECEIPT}), "par-1")
    with pytest.raises(InvalidInput, match="powers that this kind of key may not hold"):
        verify_delegation(world.charter(), smuggled, NOW)


def consent(nation: PartyCode = FR, by: AnsweredBy = AnsweredBy.PERSON) -> Consent:
    return Consent(nation, digest_of(b"v2"), digest_of(b"v1"), "r1", Answer.YES, by, None, NOW, NOW + timedelta(days=1))


def test_a_persons_consent_needs_a_persons_key_of_that_nation() -> None:
    world = CharterBuilder()
    person, agent, german = new_signing_key(), new_signing_key(), new_signing_key()
    delegations = [
        verify_delegation(world.charter(), envelope, NOW)
        for envelope in (
            world.person_delegation(FR, person, Power.CONSENT),
            world.agent_delegation(FR, "par-1", agent),
            world.person_delegation(DE, german, Power.CONSENT),
        )
    ]
    accepted = verify_consent(sign_consent(consent(), person), delegations, NOW)
    assert (accepted.consent, accepted.signer) == (consent(), person.key_id)
    for wrong in (agent, german, new_signing_key()):
        with pytest.raises(BadSignature, match="no key that FR delegated for this"):
            verify_consent(sign_consent(consent(), wrong), delegations, NOW)
    with pytest.raises(BadSignature):
        verify_consent(sign_consent(consent(by=AnsweredBy.POLICY), person), delegations, NOW)
    with pytest.raises(Expired):
        verify_consent(sign_consent(consent(), person), delegations, NOW + timedelta(days=2))
    no = replace(consent(), answer=Answer.NO, issued_at=NOW + timedelta(hours=3))
    for moment in (NOW, NOW + timedelta(days=2)):  # a no neither begins nor ends
        assert verify_consent(sign_consent(no, person), delegations, moment).consent == no


def receipt(nation: PartyCode = FR, agent: str = "par-1") -> Receipt:
    some = digest_of(b"x")
    return Receipt(
        nation, agent, Crossing.UPDATE, some, some, 7, PartyCode("EU"), "run-1", 1, 64, some, some, 1_000_000,
        ("landlock", "seccomp"), "0" * 32, NOW,
    )  # fmt: skip


def test_a_receipt_speaks_for_its_own_agent_only() -> None:
    world = CharterBuilder()
    key, other = new_signing_key(), new_signing_key()
    delegations = [
        verify_delegation(world.charter(), world.agent_delegation(FR, "par-1", key), NOW),
        verify_delegation(world.charter(), world.agent_delegation(FR, "par-2", other), NOW),
    ]
    assert verify_receipt(sign_receipt(receipt(), key), delegations, NOW)[0] == receipt()
    with pytest.raises(BadSignature):
        verify_receipt(sign_receipt(receipt(), other), delegations, NOW)
    with pytest.raises(BadSignature):
        verify_receipt(sign_receipt(receipt(DE), key), delegations, NOW)


def test_a_receipt_that_admits_raw_records_is_malformed() -> None:
    key = new_signing_key()
    honest = receipt().statement()
    dishonest = replace(honest, predicate={**honest.predicate, "raw_records": 1})
    with pytest.raises(InvalidInput, match="raw_records"):
        verify_receipt(statement.sign(dishonest, [key]), [], NOW)


def test_a_tally_round_trips() -> None:
    world = CharterBuilder()
    key = new_signing_key()
    delegations = [verify_delegation(world.charter(), world.agent_delegation(FR, "par-1", key), NOW)]
    tally = Tally(FR, "par-1", 1, NOW, NOW + timedelta(minutes=1), {"status": (3, 420)})
    assert verify_tally(sign_tally(tally, key), delegations, NOW)[0] == tally


def test_a_descriptor_must_be_signed_by_the_root_it_offers() -> None:
    root, other = new_signing_key(), new_signing_key()
    offered = nation_descriptor(FR, [root], 1, "PEM")
    parsed = parse_descriptor(offered)
    assert parsed.nation is not None
    assert parsed.nation.code == FR
    forged = statement.sign(statement.unverified(offered), [other])
    with pytest.raises(BadSignature):
        parse_descriptor(forged)


def test_a_party_outside_the_charter_is_named() -> None:
    with pytest.raises(IdentityRefused, match="US is not a nation of this charter"):
        CharterBuilder().charter().nation(PartyCode("US"))
    assert StatementKind.CHARTER in statement.SELF_DESCRIBING
