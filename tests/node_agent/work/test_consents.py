"""A person's word in one nation (JP, whose overlay wants one): asked, waited for, verified; no model is loaded here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from node_agent import consents
from node_agent.directives import Deploy
from node_agent.ports import RolloutReport, RolloutState
from tests.node_agent.work.nation import World, deploy_action, directive, governed, make_world
from tests.treaty.model_folder import description, model_folder, safetensors
from treaty.consent import Answer, AnsweredBy, verify_consent
from treaty.errors import BadSignature, NotFound
from treaty.keys import new_signing_key
from treaty.manifest import Manifest
from treaty.manifest_build import build
from treaty.names import PartyCode


@dataclass
class Asking:
    """A deployment that waits for a person."""

    world: World
    manifest: Manifest
    deploying: asyncio.Task[None]


def offer(world: World, *, version: str = "1.0.0") -> tuple[Manifest, Deploy]:
    folder = model_folder(world.root / f"published-{version}", safetensors({"w": ("F32", [2], bytes(8))}))
    manifest = build(folder, description(version))
    return manifest, deploy_action(manifest, [world.publish(folder, manifest)])


@pytest.fixture
async def asking(tmp_path: Path) -> AsyncIterator[Asking]:
    world = await governed(make_world(tmp_path, PartyCode("JP")))
    manifest, action = offer(world)
    waiting = asyncio.Event()

    def heard(report: RolloutReport) -> None:
        if report.state is RolloutState.AWAITING_CONSENT:
            waiting.set()

    world.reports.on_rollout = heard
    order = directive(2, action)
    world.journal.ledger.accept(order)
    deploying = asyncio.create_task(world.work.deploy(order, action))
    async with asyncio.timeout(30):
        await waiting.wait()
    yield Asking(world, manifest, deploying)
    deploying.cancel()
    await asyncio.gather(deploying, return_exceptions=True)
    await world.work.stop()
    world.journal.close()


async def test_it_says_what_it_waits_for_and_nothing_crosses_meanwhile(asking: Asking) -> None:
    world = asking.world
    (request,) = consents.requests(world.journal)
    assert (request.rollout, request.manifest_digest, request.fallback) == ("first", asking.manifest.digest, None)
    assert request.codes == ("APR-001",)
    assert "foedus-agent approve first" in world.reports.waits["rollout/first"]
    assert "consent" not in world.border.kinds()
    assert not world.border.fetched


async def test_a_persons_no_is_signed_recorded_and_final(asking: Asking) -> None:
    world = asking.world
    consents.refuse(world.journal, world.nation, "first", world.nation.person, world.clock.now())
    async with asyncio.timeout(30):
        await asking.deploying
    last = world.reports.rollouts[-1]
    assert (last.state, last.codes) == (RolloutState.REFUSED, ("CONSENT_REFUSED",))
    said = verify_consent(world.border.submitted[-1], world.nation.delegations(), world.clock.now()).consent
    assert (said.answer, said.by, said.subject) == (Answer.NO, AnsweredBy.PERSON, asking.manifest.digest)
    assert not world.border.fetched
    assert not consents.requests(world.journal)


async def test_a_persons_yes_is_recorded_before_the_first_chunk_and_a_bad_chunk_ends_it(asking: Asking) -> None:
    world = asking.world
    kinds_at_fetch: list[str] = []
    world.border.before_fetch = lambda: kinds_at_fetch.extend(world.border.kinds())
    for chunk, data in list(world.border.chunks.items()):
        world.border.chunks[chunk] = bytes(len(data))
    consents.approve(world.journal, world.nation, "first", world.nation.person, world.clock.now())
    async with asyncio.timeout(30):
        await asking.deploying
    assert "consent" in kinds_at_fetch
    assert world.reports.states[-2:] == ["FAILED", "RETURNED"]
    assert world.reports.rollouts[-1].codes == ("UNTRUSTED",)
    assert world.shelf.versions() == ()


async def test_only_a_delegated_person_answers_and_only_what_was_asked(asking: Asking) -> None:
    world = asking.world
    stranger = new_signing_key()
    for key in (stranger, world.nation.key):
        with pytest.raises(BadSignature, match="no key that JP delegated"):
            consents.approve(world.journal, world.nation, "first", key, world.clock.now())
    with pytest.raises(NotFound, match="no rollout other waits for a person here"):
        consents.approve(world.journal, world.nation, "other", world.nation.person, world.clock.now())
    assert world.journal.document(consents.CONSENT_KIND, "first") is None


async def test_a_consent_to_another_fallback_or_one_that_ended_does_not_count(asking: Asking) -> None:
    world = asking.world
    now, lasting = world.clock.now(), timedelta(hours=1)
    (request,) = consents.requests(world.journal)
    nation = world.nation
    consents.approve(world.journal, nation, "first", nation.person, now, valid_for=lasting)
    given = (nation.delegations(), now)
    assert consents.given(world.journal, nation.code, request, *given) is not None
    moved = replace(request, fallback=asking.manifest.digest)
    assert consents.given(world.journal, nation.code, moved, *given) is None
    late = (nation.delegations(), now + lasting)
    assert consents.given(world.journal, nation.code, request, *late) is None
