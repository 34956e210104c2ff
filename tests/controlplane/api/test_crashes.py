"""A coordinator that died between a commit and what follows from it: the next start does what is missing.

Each test leaves behind what a kill at that point leaves, in the store, in the record or in both, and starts again.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.home import Home
from policies import compiled
from tests.builders.charters import CharterBuilder
from tests.controlplane.api.test_submissions import BER, PAR, dataset, revocation, submitted
from tests.controlplane.api.world import failure, home_of, load_charter, serving
from treaty import statement
from treaty.dataset import sign_notice
from treaty.keys import new_signing_key
from treaty.names import PartyCode, digest_of
from treaty.policy.bundle import read_bundle, sign
from treaty.resources import DATASET
from treaty.resources.meta import find_condition, is_true
from treaty.resources.models import POLICY_BUNDLE
from treaty.resources.nations import NODE_AGENT
from treaty.revocation import parse_revocation
from treaty.statement import StatementKind

TREATY = PartyCode("TREATY")


@pytest.fixture
async def left(tmp_path: Path) -> tuple[Home, CharterBuilder]:
    """A coordinator that served and let two agents in."""
    home, charters = home_of(tmp_path)
    await load_charter(home, charters.signed())
    async with serving(home, charters) as before:
        for who in (PAR, BER):
            await before.accept(who)
    return home, charters


async def test_a_nations_revocation_that_was_recorded_and_not_carried_out_is_in_force_after_the_start(
    left: tuple[Home, CharterBuilder],
) -> None:
    async with serving(*left) as before:
        await before.coordinator.core.record.append(revocation(str(PAR), new_signing_key()))
        assert str(PAR) not in before.coordinator.core.trust.revoked
    async with serving(*left) as after:
        assert (await failure(after.connect(PAR))).details() == "REVOKED"
        await after.connect(BER)
        known = await after.coordinator.core.store.resources.get(NODE_AGENT, "fr-par-1")
        assert is_true(known.status.conditions, "Revoked")
        assert PAR not in after.coordinator.core.nations.accepted()


async def test_an_operators_revocation_that_was_stored_alone_is_recorded_and_shown_after_the_start(
    left: tuple[Home, CharterBuilder],
) -> None:
    async with serving(*left) as before:
        await before.coordinator.core.trust.revoke(str(PAR), reason="stolen", by="operator/one")
        known = await before.coordinator.core.store.resources.get(NODE_AGENT, "fr-par-1")
        assert not is_true(known.status.conditions, "Revoked")
    for _ in range(2):  # and once, however often it starts
        async with serving(*left) as after:
            core = after.coordinator.core
            (recorded,) = core.record.of_kind(StatementKind.REVOCATION)
            word = parse_revocation(statement.unverified(recorded))
            assert (word.subject, word.reason, word.by) == (str(PAR), "stolen", "operator/one")
            known = await core.store.resources.get(NODE_AGENT, "fr-par-1")
            assert is_true(known.status.conditions, "Revoked")
            assert core.nations.accepted() == (BER,)


async def test_a_revocation_while_the_record_takes_nothing_is_in_force_and_keeps_no_coordinator_from_starting(
    left: tuple[Home, CharterBuilder],
) -> None:
    async with serving(*left) as before:
        await before.coordinator.core.store.epochs.halt("restored")
        await before.coordinator.core.trust.revoke(str(PAR), reason="stolen", by="operator/one")
    async with serving(*left) as halted:
        assert (await failure(halted.connect(PAR))).details() == "REVOKED"
        assert list(halted.coordinator.core.record.of_kind(StatementKind.REVOCATION)) == []
        await halted.coordinator.core.store.epochs.take(2, "recovered")
    async with serving(*left) as recovered:
        assert len(list(recovered.coordinator.core.record.of_kind(StatementKind.REVOCATION))) == 1


async def test_a_coordinator_that_died_as_it_halted_says_so_on_its_agents_after_the_start(
    left: tuple[Home, CharterBuilder],
) -> None:
    async with serving(*left) as before:
        await before.coordinator.core.store.epochs.halt("an agent verified more")
    async with serving(*left) as after:
        known = await after.coordinator.core.store.resources.get(NODE_AGENT, "fr-par-1")
        condition = find_condition(known.status.conditions, "Directed")
        assert condition is not None
        assert (condition.status, condition.reason, condition.message) == (
            "False", "CoordinatorBehind", "an agent verified more",
        )  # fmt: skip


async def test_a_policy_that_was_stored_and_not_shown_is_a_resource_after_the_start(
    left: tuple[Home, CharterBuilder],
) -> None:
    home, charters = left
    bundle = compiled("treaty")
    envelope = sign(
        bundle, charters.policy[:1], not_before=charters.issued_at, not_after=charters.issued_at + timedelta(days=9)
    )
    known = read_bundle(bundle)
    async with serving(home, charters) as before:
        await before.coordinator.core.store.trust.add_bundle(
            TREATY, known.revision, digest=known.digest, bundle=bundle, envelope=envelope
        )
    async with serving(home, charters) as after:
        shown = await after.coordinator.core.store.resources.get(POLICY_BUNDLE, f"treaty-{known.revision}")
        assert is_true(shown.status.conditions, "Ready")


async def test_a_statement_that_was_recorded_and_not_acted_on_is_acted_on_when_the_agent_hands_it_in_again(
    left: tuple[Home, CharterBuilder],
) -> None:
    async with serving(*left) as before:
        envelope = sign_notice(dataset(), before.agent_keys.setdefault(PAR, new_signing_key()))
        index = await before.coordinator.core.record.append(envelope)
        keys = before.agent_keys
    async with serving(*left) as after:
        after.agent_keys.update(keys)
        again = await submitted(await after.connect(PAR), envelope)
        assert (again.HasField("refusal"), again.log_index) == (False, index)
        assert len((await after.coordinator.core.store.resources.list(DATASET)).items) == 1


async def test_what_an_agent_refused_and_the_end_of_its_grants_are_one_commit(
    left: tuple[Home, CharterBuilder],
) -> None:
    async with serving(*left) as there:
        core = there.coordinator.core
        async with core.store.transaction() as change:
            number = await change.directives.next_number(str(PAR))
            await change.directives.issue(str(PAR), number, "run/r1", b"go")
        before = core.store._runner.commits.count  # type: ignore[attr-defined]
        await core.fleet.acknowledged(PAR, number, ("BRAKE_ON",))
        assert core.store._runner.commits.count == before + 1  # type: ignore[attr-defined]
        assert await core.fleet.refusal(PAR, number) == ("BRAKE_ON",)


async def test_a_charter_that_nothing_follows_yet_is_adopted_at_the_next_look(
    left: tuple[Home, CharterBuilder],
) -> None:
    home, charters = left
    async with serving(home, charters) as there:
        parties, core = there.coordinator.services.parties, there.coordinator.core
        assert not parties.is_behind
        envelope = charters.signed(charters.charter(version=2))
        await core.trust.publish(envelope)
        assert parties.is_behind
        digest = digest_of(statement.unverified(envelope).payload())
        async with asyncio.timeout(20):
            while core.record.known(digest) is None or parties.is_behind:
                await core.store._runner.commits.wait(core.store._runner.commits.count, 0.5)  # type: ignore[attr-defined]
