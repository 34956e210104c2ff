"""A person puts out an agent of the nation: policies here know it at once, the coordinator as soon as it can."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from node_agent import revocations
from tests.builders.charters import DOMAIN
from tests.node_agent.work.nation import FR, World, governed, make_world
from tests.node_agent.work.test_enrolment import subject
from treaty import statement
from treaty.errors import BadSignature, FoedusError, IdentityRefused, InvalidInput, PolicyDenied
from treaty.keys import new_signing_key
from treaty.statement import StatementKind
from treaty.wire.certificates import ca_digest

PAR = f"spiffe://fr.{DOMAIN}/agent/par-1"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.journal.close()


def revoke(world: World, what: str, reason: str = "stolen") -> None:
    revocations.revoke(world.journal, world.nation, what, reason, world.nation.person, world.clock.now())


@pytest.mark.parametrize("what", ["agent", "CA"])
async def test_what_is_revoked_here_may_no_longer_connect_and_the_coordinator_is_told_once(
    world: World, what: str
) -> None:
    await governed(world)
    await world.work.enrol(subject(world))
    named = PAR if what == "agent" else ca_digest(world.nation.charter().nations[FR].ca_pem)
    revoke(world, named)
    with pytest.raises(PolicyDenied) as refused:
        await world.work.enrol(subject(world))
    assert refused.value.codes == ("AGT-004",)
    async with asyncio.timeout(5):
        while world.journal.document(revocations.ANNOUNCED_KIND, named) is None:
            await world.journal.changed(world.journal.generation)
    (sent,) = [envelope for envelope in world.border.submitted if _is_revocation(envelope)]
    word = statement.unverified(sent)
    assert (word.subject_name, word.predicate["reason"]) == (named, "stolen")
    await revocations.announce(world.journal, world.border)
    assert len([envelope for envelope in world.border.submitted if _is_revocation(envelope)]) == 1
    await world.work.stop()


@pytest.mark.parametrize(
    ("what", "error", "text"),
    [
        (f"spiffe://de.{DOMAIN}/agent/ber-1", IdentityRefused, "FR may revoke its own agents and CA only"),
        ("sha256:" + "0" * 64, IdentityRefused, "FR may revoke its own agents and CA only"),
        ("par-1", InvalidInput, "SPIFFE"),
    ],
)
def test_what_is_not_the_nations_own_is_refused(world: World, what: str, error: type[FoedusError], text: str) -> None:
    with pytest.raises(error, match=text):
        revoke(world, what)
    assert revocations.subjects(world.journal) == []


def test_a_person_without_the_power_and_a_reason_of_two_lines_are_refused(world: World) -> None:
    with pytest.raises(BadSignature, match="no key that FR delegated for this signed the revocation"):
        revocations.revoke(world.journal, world.nation, PAR, "stolen", new_signing_key(), world.clock.now())
    with pytest.raises(InvalidInput, match="a reason is one line"):
        revoke(world, PAR, "one\ntwo")
    assert revocations.subjects(world.journal) == []


def test_a_revocation_outlives_the_delegation_that_it_was_signed_under(world: World) -> None:
    revoke(world, PAR)
    world.clock.moment += timedelta(days=3650)
    assert revocations.subjects(world.journal) == [PAR]


def _is_revocation(envelope: bytes) -> bool:
    return statement.unverified(envelope).kind is StatementKind.REVOCATION
