"""Model versions: what becomes Ready, what is refused, and what nobody is told. And rollouts carried out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controlplane.artifacts.directory_store import DirectoryStore
from controlplane.domain.agents import AgentStatus, RolloutReport, RolloutState
from controlplane.domain.directives import AbortRollout, Deploy
from controlplane.services.drafts import expire, sweep_chunks
from controlplane.services.models import Models
from controlplane.services.ports import RolloutVerb
from controlplane.services.rollouts import Rollouts
from controlplane.services.trust import Trust
from controlplane.store import open_store
from tests.builders.charters import DOMAIN, CharterBuilder
from tests.controlplane.services.fleet import KeptRecord, RecordedFleet
from tests.treaty.model_folder import description, model_folder, safetensors
from treaty import statement
from treaty.errors import (
    BadSignature,
    ConflictError,
    FoedusError,
    NotFound,
    PreconditionFailed,
    ResourceExhausted,
    RollbackRefused,
    TrustError,
)
from treaty.keys import new_signing_key
from treaty.label import Classification, label
from treaty.manifest import Description, Manifest
from treaty.manifest_build import build, chunks_of
from treaty.names import PartyCode, SpiffeId, SpiffeRole, agent_id, model_ref
from treaty.resources.meta import find_condition, is_true, new_resource
from treaty.resources.models import MODEL_VERSION
from treaty.resources.rollouts import ROLLOUT, RolloutSpec, Wave
from treaty.statement import StatementKind
from treaty.strict_json import canonical, parse_object

FR, DE = PartyCode("FR"), PartyCode("DE")
PUBLISHER = SpiffeId("coordinator", DOMAIN, SpiffeRole.PUBLISHER, "pub-1")
WEIGHTS = safetensors({"a": ("F32", [4], bytes(16)), "b": ("U8", [3], b"abc")})


@dataclass
class Publishing:
    home: Path
    world: CharterBuilder
    models: Models
    rollouts: Rollouts
    fleet: RecordedFleet
    record: KeptRecord
    trust: Trust

    def build(self, about: Description, weights: bytes = WEIGHTS, folder: str = "m") -> tuple[Path, Manifest]:
        path = self.home / folder
        if not path.exists():
            model_folder(path, weights)
        return path, build(path, about)

    def sign(self, manifest: Manifest, *signers: int) -> bytes:
        content = parse_object(manifest.encoded, max_bytes=2**20)
        said = statement.document(StatementKind.MANIFEST, manifest.ref, content)
        return statement.sign(said, [self.world.publishers[index] for index in signers])

    async def publish(self, about: Description, weights: bytes = WEIGHTS, folder: str = "m") -> Manifest:
        path, manifest = self.build(about, weights, folder)
        await self.models.publish(self.sign(manifest, 0, 1), PUBLISHER)
        for digest, data in chunks_of(path, manifest):
            await self.models.put_chunk(manifest.digest, digest, data)
        return manifest

    async def condition(self, name: str = "tiny-llama-1.0.0") -> str:
        resource = await self.rollouts._store.resources.get(MODEL_VERSION, name)
        found = find_condition(resource.status.conditions, "Ready")
        assert found is not None
        return f"{found.status} {found.reason}: {found.message}"


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Publishing]:
    world, store, record = CharterBuilder(), await open_store("sqlite://"), KeptRecord()
    trust = Trust(store, lambda: datetime.now(UTC), changed=lambda: None)
    await trust.publish(world.signed())
    models = Models(store, DirectoryStore(tmp_path / "chunks"), trust, record, lambda: datetime.now(UTC))
    fleet = RecordedFleet({nation: agent_id(nation, DOMAIN, "a-1") for nation in (FR, DE)})
    rollouts = Rollouts(store, fleet, models, trust, record, world.log_key, lambda: datetime.now(UTC))
    yield Publishing(tmp_path, world, models, rollouts, fleet, record, trust)
    await store.close()


async def test_a_draft_is_ready_at_the_threshold_and_with_all_its_chunks(desk: Publishing) -> None:
    path, manifest = desk.build(description())
    await desk.models.publish(desk.sign(manifest, 0), PUBLISHER)
    assert await desk.condition() == "False MissingSignatures: 1 of 2 signatures"
    with pytest.raises(PreconditionFailed, match="is a draft"):
        await desk.models.ready(manifest.digest)
    await desk.models.sign(desk.sign(manifest, 2), PUBLISHER)
    assert (await desk.condition()).startswith("False MissingChunks")
    assert set(await desk.models.missing(manifest.digest)) == set(manifest.chunk_bytes)
    assert not desk.record.envelopes
    for digest, data in chunks_of(path, manifest):
        await desk.models.put_chunk(manifest.digest, digest, data)
    assert await desk.condition() == "True Signed: 2 of 2 signatures"
    assert await desk.models.ready(manifest.digest) == manifest
    assert len(desk.record.envelopes) == 1
    envelope = await desk.models.manifest("tiny-llama@1.0.0")
    assert len(statement.claimed_signers(envelope)) == 2


async def test_a_version_is_ready_in_the_manifests_and_in_its_resource_by_one_commit(desk: Publishing) -> None:
    path, manifest = desk.build(description())
    await desk.models.publish(desk.sign(manifest, 0, 1), PUBLISHER)
    *first, last = chunks_of(path, manifest)
    for digest, data in first:
        await desk.models.put_chunk(manifest.digest, digest, data)
    commits = desk.rollouts._store._runner.commits  # type: ignore[attr-defined]
    before = commits.count
    await desk.models.put_chunk(manifest.digest, *last)
    assert await desk.condition() == "True Signed: 2 of 2 signatures"
    assert commits.count == before + 1


async def test_what_a_publisher_puts_under_anothers_key_does_not_spoil_the_version(desk: Publishing) -> None:
    path, manifest = desk.build(description())
    foreign = statement.sign(statement.document(StatementKind.MANIFEST, "other", {}), [desk.world.publishers[2]])
    (garbage,) = json.loads(foreign)["signatures"]
    forged = json.loads(desk.sign(manifest, 0))
    forged["signatures"] = sorted([*forged["signatures"], garbage], key=lambda signature: str(signature["keyid"]))
    await desk.models.publish(canonical(forged), PUBLISHER)
    assert await desk.condition() == "False MissingSignatures: 1 of 2 signatures"
    await desk.models.sign(desk.sign(manifest, 2), PUBLISHER)
    for digest, data in chunks_of(path, manifest):
        await desk.models.put_chunk(manifest.digest, digest, data)
    publishers = desk.world.charter().publishers
    publishers.verify(await desk.models.manifest(manifest.digest), StatementKind.MANIFEST)
    (recorded,) = desk.record.envelopes
    publishers.verify(recorded, StatementKind.MANIFEST)


async def test_a_publisher_that_the_charter_no_longer_names_does_not_count(desk: Publishing) -> None:
    path, manifest = desk.build(description())
    await desk.models.publish(desk.sign(manifest, 0), PUBLISHER)
    desk.world.publishers = [new_signing_key(), *desk.world.publishers[1:]]
    await desk.trust.publish(desk.world.signed(desk.world.charter(version=2)))
    for digest, data in chunks_of(path, manifest):
        await desk.models.put_chunk(manifest.digest, digest, data)
    await desk.models.sign(desk.sign(manifest, 1), PUBLISHER)
    assert await desk.condition() == "False MissingSignatures: 1 of 2 signatures"
    assert not desk.record.envelopes


async def test_a_manifest_that_no_publisher_signed_does_not_enter(desk: Publishing) -> None:
    _, manifest = desk.build(description())
    content = parse_object(manifest.encoded, max_bytes=2**20)
    stranger = statement.sign(statement.document(StatementKind.MANIFEST, manifest.ref, content), [new_signing_key()])
    with pytest.raises(BadSignature, match="has 0 valid signatures"):
        await desk.models.publish(stranger, PUBLISHER)
    with pytest.raises(NotFound):
        await desk.models.missing(manifest.digest)


async def test_a_name_means_one_manifest_and_versions_only_grow(desk: Publishing) -> None:
    await desk.publish(description("1.1.0"))
    _, other = desk.build(description("1.1.0"), safetensors({"a": ("F32", [1], bytes(4))}), "other")
    with pytest.raises(ConflictError, match="is another manifest already"):
        await desk.models.publish(desk.sign(other, 0, 1), PUBLISHER)
    _, older = desk.build(description("1.0.0"))
    with pytest.raises(RollbackRefused, match=r"1\.0\.0 is not newer than 1\.1\.0"):
        await desk.models.publish(desk.sign(older, 0, 1), PUBLISHER)


async def test_a_derived_version_cannot_be_labelled_more_loosely_than_its_base(desk: Publishing) -> None:
    base = await desk.publish(replace(description(), label=label(Classification.RESTRICTED, ["FR"])))
    looser = replace(description("2.0.0", base=base.digest), label=label(Classification.PUBLIC, ["FR", "DE"]))
    _, derived = desk.build(looser)
    with pytest.raises(TrustError, match="label it restricted REL TO FR, or stricter"):
        await desk.models.publish(desk.sign(derived, 0, 1), PUBLISHER)


async def test_a_draft_that_is_not_ready_in_time_goes_with_its_chunks_and_a_ready_one_stays(desk: Publishing) -> None:
    store, chunks = desk.rollouts._store, DirectoryStore(desk.home / "chunks")
    ready = await desk.publish(description("1.0.0"))
    path, draft = desk.build(description("1.0.1"), safetensors({"c": ("F32", [1], bytes(4))}), "other")
    await desk.models.publish(desk.sign(draft, 0), PUBLISHER)
    for digest, data in chunks_of(path, draft):
        await desk.models.put_chunk(draft.digest, digest, data)
    later = datetime.now(UTC) + timedelta(days=8)
    assert await expire(store, created_before=datetime.now(UTC) - timedelta(days=7)) == ()
    assert await expire(store, created_before=later) == (draft.digest,)
    with pytest.raises(NotFound):
        await store.resources.get(MODEL_VERSION, "tiny-llama-1.0.1")
    only_drafts = set(draft.chunk_bytes) - set(ready.chunk_bytes)
    assert await sweep_chunks(store, chunks, put_before=datetime.now(UTC) - timedelta(days=1)) == 0
    assert await sweep_chunks(store, chunks, put_before=later) == len(only_drafts) > 0
    assert {digest for digest, _ in chunks.stored()} == set(ready.chunk_bytes)
    await desk.models.publish(desk.sign(draft, 0), PUBLISHER)
    assert only_drafts <= set(await desk.models.missing(draft.digest))


async def test_the_drafts_of_one_publisher_have_a_bound(desk: Publishing) -> None:
    _, first = desk.build(description("1.0.0"))
    _, second = desk.build(description("1.0.1"))
    desk.models._max_draft_bytes = 2 * first.total_bytes - 1
    await desk.models.publish(desk.sign(first, 0), PUBLISHER)
    await desk.models.publish(desk.sign(first, 1), PUBLISHER)  # the same one again
    with pytest.raises(ResourceExhausted, match=r"the drafts of spiffe://.*/publisher/pub-1 would have more than"):
        await desk.models.publish(desk.sign(second, 0), PUBLISHER)
    await desk.models.publish(desk.sign(second, 0), replace(PUBLISHER, name="pub-2"))


async def test_a_chunk_of_another_draft_counts_as_missing(desk: Publishing) -> None:
    path, first = desk.build(description("1.0.0"))
    await desk.models.publish(desk.sign(first, 0), PUBLISHER)
    for digest, data in chunks_of(path, first):
        await desk.models.put_chunk(first.digest, digest, data)
    _, second = desk.build(description("1.0.1"))
    await desk.models.publish(desk.sign(second, 0), PUBLISHER)
    assert set(await desk.models.missing(second.digest)) == set(second.chunk_bytes)


def spec(manifest: Manifest, **changes: object) -> RolloutSpec:
    waves = (Wave("one", (FR,)), Wave("two", (DE,)))
    return replace(RolloutSpec(model_ref(manifest.ref), manifest.digest, waves), **changes)  # type: ignore[arg-type]


async def test_a_rollout_goes_wave_by_wave_on_what_agents_observe(desk: Publishing) -> None:
    manifest = await desk.publish(description())
    store = desk.rollouts._store
    await desk.rollouts.admit(spec(manifest))
    await store.resources.create(new_resource(ROLLOUT, "r1", spec(manifest)))
    await desk.rollouts.reconcile()
    fr, de = desk.fleet.agents[FR], desk.fleet.agents[DE]
    assert [agent for agent, _ in desk.fleet.sent] == [fr]
    action = desk.fleet.sent[0][1]
    assert isinstance(action, Deploy)
    assert statement.unverified(action.manifests[0]).subject_digest == manifest.digest
    steps = [e for e in desk.record.envelopes if statement.unverified(e).kind is StatementKind.ROLLOUT_STEP]
    assert len(steps) == 1
    number, _ = desk.fleet.directed[fr, "rollout/r1"]
    report = RolloutReport("r1", number, RolloutState.SERVING)
    desk.fleet.statuses[fr] = AgentStatus(1, True, manifest.digest, (report,))
    await desk.rollouts.reconcile()
    assert [agent for agent, _ in desk.fleet.sent] == [fr, de]
    await desk.rollouts.reconcile()
    assert len(desk.fleet.sent) == 2, "planning again directs nothing twice"


async def test_an_operators_abort_returns_every_directed_nation(desk: Publishing) -> None:
    manifest = await desk.publish(description())
    await desk.rollouts._store.resources.create(new_resource(ROLLOUT, "r1", spec(manifest)))
    await desk.rollouts.reconcile()
    await desk.rollouts.control("r1", RolloutVerb.ABORT, "wrong version")
    await desk.rollouts.reconcile()
    assert isinstance(desk.fleet.sent[-1][1], AbortRollout)
    ended = await desk.rollouts._store.resources.get(ROLLOUT, "r1")
    assert is_true(ended.status.conditions, "Aborted")
    with pytest.raises(PreconditionFailed, match="has ended"):
        await desk.rollouts.control("r1", RolloutVerb.PAUSE, "")


@pytest.mark.parametrize(
    ("change", "refusal", "message"),
    [
        ({"waves": (Wave("one", (PartyCode("US"),)),)}, FoedusError, "US is not a nation of this charter"),
        ({"fallback_digest": "sha256:" + "1" * 64}, NotFound, "manifest"),
    ],
)
async def test_an_intent_that_cannot_be_carried_out_is_refused(
    desk: Publishing, change: dict[str, object], refusal: type[FoedusError], message: str
) -> None:
    manifest = await desk.publish(description())
    with pytest.raises(refusal, match=message):
        await desk.rollouts.admit(spec(manifest, **change))


async def test_a_version_does_not_go_where_its_label_does_not_let_it(desk: Publishing) -> None:
    manifest = await desk.publish(replace(description(), label=label(Classification.PUBLIC, ["FR"])))
    with pytest.raises(PreconditionFailed, match="is not releasable to DE"):
        await desk.rollouts.admit(spec(manifest))
