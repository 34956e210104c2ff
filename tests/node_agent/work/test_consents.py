"""A person's word in one nation (JP, whose overlay wants one): asked, waited for, verified; no model is loaded here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from node_agent import consents
from node_agent.cli.commands.consent import _require_seen
from node_agent.consents import ConsentRequest
from node_agent.directives import AbortRollout, Deploy, Gates
from node_agent.ports import RolloutReport, RolloutState
from tests.node_agent.work.nation import World, deploy_action, directive, governed, make_world
from tests.treaty.model_folder import description, model_folder, safetensors
from treaty.consent import CLOCK_SKEW, Answer, AnsweredBy, verify_consent
from treaty.errors import BadSignature, ConflictError, InvalidInput, NotFound, PreconditionFailed
from treaty.keys import new_signing_key
from treaty.manifest import Manifest
from treaty.manifest_build import build
from treaty.names import DirectiveNumber, PartyCode


@dataclass
class Asking:
    """A deployment that waits for a person."""

    world: World
    manifest: Manifest
    action: Deploy
    deploying: asyncio.Task[None]

    @property
    def request(self) -> ConsentRequest:
        return consents.pending(self.world.journal, "first")


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
    yield Asking(world, manifest, action, deploying)
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
    consents.refuse(world.journal, world.nation, asking.request, world.nation.person, world.clock.now())
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
    consents.approve(world.journal, world.nation, asking.request, world.nation.person, world.clock.now())
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
            consents.approve(world.journal, world.nation, asking.request, key, world.clock.now())
    with pytest.raises(NotFound, match="no rollout other waits for a person here"):
        consents.pending(world.journal, "other")
    assert world.journal.document(consents.CONSENT_KIND, "first") is None


async def test_a_consent_to_another_fallback_or_one_that_ended_does_not_count(asking: Asking) -> None:
    world = asking.world
    now, lasting = world.clock.now(), timedelta(hours=1)
    (request,) = consents.requests(world.journal)
    nation = world.nation
    consents.approve(world.journal, nation, request, nation.person, now, valid_for=lasting)
    given = (nation.delegations(), now)
    assert consents.given(world.journal, nation.code, request, *given) is not None
    moved = replace(request, fallback=asking.manifest.digest)
    assert consents.given(world.journal, nation.code, moved, *given) is None
    late = (nation.delegations(), now + lasting)
    assert consents.given(world.journal, nation.code, request, *late) is None


async def test_a_yes_to_another_directive_or_purpose_does_not_count(asking: Asking) -> None:
    world, request = asking.world, asking.request
    consents.approve(world.journal, world.nation, request, world.nation.person, world.clock.now())
    given = (world.nation.delegations(), world.clock.now())
    for moved in (replace(request, number="1.3"), replace(request, purpose="law-enforcement-analytics")):
        assert consents.given(world.journal, world.nation.code, moved, *given) is None


async def test_what_changed_since_it_was_shown_is_not_answered(asking: Asking) -> None:
    world, request = asking.world, asking.request
    consents.ask(world.journal, replace(request, gates=Gates((), None, 10**6)))
    with pytest.raises(ConflictError, match="rollout first asks something else than it did"):
        consents.approve(world.journal, world.nation, request, world.nation.person, world.clock.now())
    assert world.journal.document(consents.CONSENT_KIND, "first") is None


async def test_a_person_names_what_they_saw_and_is_shown_the_command(asking: Asking) -> None:
    request, hexadecimal = asking.request, asking.manifest.digest.removeprefix("sha256:")
    for version in (request.model, asking.manifest.digest, hexadecimal[:12]):
        assert request.is_about(version)
        _require_seen(request, version, "approve")
    for version in ("", hexadecimal[:11], "0" * 64, "tiny@9.9.9"):
        assert not request.is_about(version)
    with pytest.raises(ConflictError, match=f"approve first --version {hexadecimal[:12]} --key FILE"):
        _require_seen(request, "0" * 64, "approve")
    with pytest.raises(InvalidInput, match=f"refuse first --version {hexadecimal[:12]} --key FILE"):
        _require_seen(request, None, "refuse")  # no terminal here


async def test_a_consent_that_ends_while_it_is_recorded_brings_nothing_in(asking: Asking) -> None:
    world = asking.world
    now, asked_again = world.clock.now(), asyncio.Event()
    submit = world.border.submit

    async def slowly(envelope: bytes) -> int:
        world.clock.moment = now + timedelta(hours=2)
        return await submit(envelope)

    world.border.submit = slowly  # type: ignore[method-assign]
    world.reports.on_rollout = lambda report: (
        asked_again.set() if report.state is RolloutState.AWAITING_CONSENT else None
    )
    person = world.nation.person
    consents.approve(world.journal, world.nation, asking.request, person, now, valid_for=timedelta(hours=1))
    async with asyncio.timeout(30):
        await asked_again.wait()
    assert consents.requests(world.journal) == (asking.request,)
    assert not world.border.fetched


async def test_a_failed_rollout_spends_its_consent_and_never_brings_that_version_again(asking: Asking) -> None:
    world = asking.world
    for chunk, data in list(world.border.chunks.items()):
        world.border.chunks[chunk] = bytes(len(data))
    consents.approve(world.journal, world.nation, asking.request, world.nation.person, world.clock.now())
    async with asyncio.timeout(30):
        await asking.deploying
    assert world.journal.document(consents.CONSENT_KIND, "first") is None
    again = directive(3, asking.action)
    with pytest.raises(PreconditionFailed, match="this rollout took this version out again here") as refused:
        await world.work.admit(again)
    assert refused.value.code == "VERSION_LEFT"


async def test_an_abort_spends_the_consent_too(asking: Asking) -> None:
    world = asking.world
    consents.approve(world.journal, world.nation, asking.request, world.nation.person, world.clock.now())
    asking.deploying.cancel()
    await asyncio.gather(asking.deploying, return_exceptions=True)
    abort = AbortRollout("first", DirectiveNumber(1, 2))
    await world.work.abort(replace(directive(4, asking.action), action=abort), abort)
    assert world.journal.document(consents.CONSENT_KIND, "first") is None
    with pytest.raises(PreconditionFailed, match="took this version out again"):
        await world.work.admit(directive(5, asking.action))


async def test_a_consent_from_the_future_is_not_believed(asking: Asking) -> None:
    world, request = asking.world, asking.request
    ahead = world.clock.now() + CLOCK_SKEW
    consents.approve(world.journal, world.nation, request, world.nation.person, ahead)
    nation, now = world.nation, world.clock.now()
    assert consents.given(world.journal, nation.code, request, nation.delegations(), now) is not None
    early = now - timedelta(seconds=1)
    assert consents.given(world.journal, nation.code, request, nation.delegations(), early) is None
