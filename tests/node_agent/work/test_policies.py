"""What is in force here, what is answered to the coordinator, and which manifests come in at all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

import policies
from node_agent import bundles
from node_agent.directives import LoadTreatyPolicy, Question
from node_agent.ports import RolloutState
from tests.builders.charters import NOW
from tests.node_agent.work.nation import FR, PURPOSE, World, deploy_action, directive, governed, make_world
from tests.treaty.model_folder import description, model_folder, safetensors
from treaty.errors import (
    BadSignature,
    InvalidInput,
    PermissionRefused,
    PreconditionFailed,
    TrustError,
)
from treaty.keys import new_signing_key
from treaty.label import Classification, label
from treaty.manifest import Manifest
from treaty.manifest_build import build
from treaty.names import PartyCode, RunId, digest_of
from treaty.policy import asks
from treaty.policy import bundle as policy_bundle
from treaty.policy.asks import Undertaking
from treaty.strict_json import canonical


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await governed(make_world(tmp_path))
    yield made
    await made.work.stop()
    made.journal.close()


def version(world: World, number: str = "1.0.0") -> tuple[Path, Manifest]:
    folder = model_folder(world.root / f"published-{number}", safetensors({"w": ("F32", [2], bytes(8))}))
    return folder, build(folder, description(number))


def question(manifest: Manifest, nation: PartyCode = FR, purpose: str = PURPOSE) -> Question:
    undertaking = Undertaking(RunId("run-1"), purpose, (PartyCode("DE"), FR), PartyCode("EU"), PartyCode("BE"))
    ask = asks.dataset_use(nation, manifest, undertaking, "catalogues")
    return Question("q-1", canonical(ask.to_json()), 1000)


async def test_health_says_what_ended_policies_and_the_brake_keep_from_being_done(world: World) -> None:
    assert world.work.readiness() == {"policy": True, "serving": True, "training": True}
    world.journal.set_brake(is_on=True)
    assert world.work.readiness() == {"policy": True, "serving": True, "training": False}
    world.journal.set_brake(is_on=False)
    world.clock.moment = NOW + timedelta(days=9)
    assert world.work.readiness() == {"policy": False, "serving": True, "training": False}


async def test_one_authority_alone_decides_nothing(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.overlay()
    await world.work.start()
    assert world.work.readiness()["policy"] is False
    await world.work.stop()
    world.journal.close()


async def test_a_question_is_answered_with_verdict_codes_digests_and_revisions(world: World) -> None:
    _, manifest = version(world)
    asked = question(manifest)
    answer = await world.work.answer(asked)
    assert (answer.verdict, answer.codes) == ("allow", ())
    assert answer.ask_digest == digest_of(asked.ask)
    assert (answer.treaty_revision, answer.overlay_revision) == (1, 1)
    logged = world.journal.entries("answers")[-1].body["decision"]
    assert digest_of(canonical(logged)) == answer.decision_digest


async def test_another_purpose_is_denied_by_its_codes_and_another_nations_question_refused(world: World) -> None:
    _, manifest = version(world)
    denied = await world.work.answer(question(manifest, purpose="law-enforcement-analytics"))
    assert (denied.verdict, denied.codes) == ("deny", ("DAT-003",))
    with pytest.raises(PermissionRefused, match="for another nation"):
        await world.work.answer(question(manifest, nation=PartyCode("DE")))
    with pytest.raises(InvalidInput):
        await world.work.answer(Question("q-2", b"{", 1000))


async def test_what_is_in_force_survives_a_restart_even_when_it_has_expired(world: World) -> None:
    await world.work.stop()
    world.clock.moment += timedelta(days=30)
    again = world.restarted()
    await again.work.start()
    try:
        assert again.reports.revisions == (1, 1)
        _, manifest = version(again)
        answer = await again.work.answer(question(manifest))
        assert (answer.verdict, answer.codes) == ("deny", ("ENG-006",))
    finally:
        await again.work.stop()


async def test_a_treaty_bundle_is_believed_by_the_charters_role_only(world: World) -> None:
    packed, good = world.treaty_bundle()
    until = NOW + timedelta(days=9)
    forged = policy_bundle.sign(packed, [new_signing_key()], not_before=NOW, not_after=until)
    with pytest.raises(BadSignature):
        await world.work.admit(directive(9, LoadTreatyPolicy(1, packed, forged)))
    with pytest.raises(InvalidInput, match="another revision"):
        await world.work.admit(directive(9, LoadTreatyPolicy(2, packed, good)))
    assert world.reports.revisions == (1, 1)


def test_an_overlay_is_a_persons_and_this_nations(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    packed, until = policies.compiled("fr"), NOW + timedelta(days=9)
    offer = (world.journal, world.core.folders.policies, world.nation)
    by_agent = policy_bundle.sign(packed, [world.nation.key], not_before=NOW, not_after=until)
    with pytest.raises(BadSignature):
        bundles.offer_overlay(*offer, packed, by_agent, world.clock.now())
    german = policies.compiled("de")
    foreign = policy_bundle.sign(german, [world.nation.person], not_before=NOW, not_after=until)
    with pytest.raises(TrustError, match=r"not the one of nation\.FR"):
        bundles.offer_overlay(*offer, german, foreign, world.clock.now())
    assert world.journal.document(bundles.OFFER_KIND, "overlay") is None
    world.journal.close()


async def test_without_an_overlay_every_answer_is_no(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.dataset()
    await world.work.start()
    packed, envelope = world.treaty_bundle()
    await world.work.load_policy(directive(1, load := LoadTreatyPolicy(1, packed, envelope)), load)
    _, manifest = version(world)
    answer = await world.work.answer(question(manifest))
    assert (answer.verdict, answer.codes) == ("deny", ("OVL-001",))
    await world.work.stop()
    world.journal.close()


async def test_a_manifest_must_be_signed_whole_released_and_the_one_that_is_named(world: World) -> None:
    folder, manifest = version(world)
    good = world.publish(folder, manifest)
    action = deploy_action(manifest, [good])
    await world.work.admit(directive(3, action))
    with pytest.raises(BadSignature):
        await world.work.admit(directive(3, replace(action, manifests=(world.sign_manifest(manifest, 1),))))
    with pytest.raises(TrustError, match="another version than its manifest"):
        await world.work.admit(directive(3, replace(action, manifest_digest=digest_of(b"other"))))
    with pytest.raises(InvalidInput, match="exactly the version's base"):
        await world.work.admit(directive(3, replace(action, manifests=(good, good))))
    with pytest.raises(PreconditionFailed, match="fallback is neither what is served here"):
        await world.work.admit(directive(3, replace(action, fallback=digest_of(b"other"))))
    german = label(Classification.PUBLIC, ["DE"])
    kept = build(folder, replace(description("1.0.1"), label=german))
    with pytest.raises(PermissionRefused, match=r"tiny-llama@1\.0\.1 is not releasable to FR"):
        await world.work.admit(directive(4, deploy_action(kept, [world.sign_manifest(kept)], rollout="other")))
    last = world.reports.rollouts[-1]
    assert (last.state, last.codes, last.rollout) == (RolloutState.REFUSED, ("NOT_RELEASABLE",), "other")


async def test_a_denied_deployment_is_refused_with_codes_a_signed_no_and_no_byte(world: World) -> None:
    folder, manifest = version(world, "1.0.0-rc.1")
    action = deploy_action(manifest, [world.publish(folder, manifest)])
    await world.work.deploy(directive(5, action), action)
    last = world.reports.rollouts[-1]
    assert (last.state, last.codes) == (RolloutState.REFUSED, ("MOD-005",))
    assert world.border.kinds()[-1] == "consent"
    assert not world.border.fetched
