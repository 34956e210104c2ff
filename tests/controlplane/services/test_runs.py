"""A federated run from intent to result, with real stores, a real policy, a real worker and Flower's strategy.

The agents are played here: they answer directives with updates that the border of a real agent would send.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from controlplane.artifacts.directory_store import DirectoryStore
from controlplane.artifacts.spool import UpdateKey, UpdateSpool
from controlplane.domain.agents import RoundReport, UpdateOpening
from controlplane.domain.directives import EndRun, Round
from controlplane.federation.aggregate import recompute
from controlplane.federation.worker import read_arrays
from controlplane.federation.workers import Workers
from controlplane.services.models import Models
from controlplane.services.policies import Policies
from controlplane.services.run_arrays import RunArrays
from controlplane.services.run_driver import RunDriver
from controlplane.services.run_planning import RunPlanner
from controlplane.services.run_updates import UpdateDesk
from controlplane.services.runs import Runs
from controlplane.services.trust import Trust
from controlplane.store import Store, open_store
from policies import compiled
from tests.builders.charters import DOMAIN, CharterBuilder
from tests.controlplane.services.fleet import SALT, KeptRecord, RecordedFleet
from tests.treaty.model_folder import model_folder, safetensors
from treaty import statement
from treaty.delegation import verify_delegation
from treaty.errors import BadSignature, FoedusError, InvalidInput, PolicyDenied, PreconditionFailed, TrustError
from treaty.keys import SigningKey, new_signing_key
from treaty.label import Classification, label
from treaty.lineage import Lineage
from treaty.manifest import Description
from treaty.manifest_build import build, chunks_of
from treaty.names import AgentId, DirectiveNumber, PartyCode, SpiffeId, SpiffeRole, agent_id, digest_of
from treaty.plan import RunPlan, parse_plan, verify_plan
from treaty.policy.bundle import sign
from treaty.policy.decider import Decider
from treaty.policy.embedded import EmbeddedEngine
from treaty.receipt import Crossing, Receipt, shape_digest, sign_receipt
from treaty.resources.meta import find_condition, is_true, new_resource
from treaty.resources.runs import FEDERATED_RUN, FederatedRunSpec, FederatedRunStatus, Task
from treaty.statement import StatementKind
from treaty.strict_json import canonical, parse_object
from treaty.update_values import build_header, chunk_bytes, clip, quantise

FR, DE = PartyCode("FR"), PartyCode("DE")
PURPOSE = "public-administration-translation"
PUBLISHER = SpiffeId("coordinator", DOMAIN, SpiffeRole.PUBLISHER, "pub-1")
RECIPE = {
    "rank": 2,
    "alpha": 4,
    "targets": ["q_proj"],
    "steps": 2,
    "batch": 4,
    "learning_rate_micro": 3000,
    "sequence_tokens": 16,
    "precision": "float32",
    "prompt_template": "{source}\n{target}",
    "heldout_pairs": 4,
}


@dataclass
class World:
    """Everything that one coordinator has, with a clock that only tests move."""

    home: Path
    charter: CharterBuilder
    store: Store
    fleet: RecordedFleet
    record: KeptRecord
    runs: Runs
    keys: dict[PartyCode, SigningKey]
    workers: Workers
    now: datetime
    signed_charter: bytes
    counted: bytes = b""
    """The receipt that the last answer showed in place of the one that came."""

    def clock(self) -> datetime:
        return self.now

    def spec(self, **changes: object) -> FederatedRunSpec:
        spec = FederatedRunSpec(
            task=Task.TRAIN, purpose=PURPOSE, model="tiny-llama@1.0.0", nations=(DE, FR), quorum=2,  # type: ignore[arg-type]
            recipe=dict(RECIPE), rounds=2, round_deadline_seconds=60, max_examples=8,
        )  # fmt: skip
        return replace(spec, **changes)  # type: ignore[arg-type]

    async def start(self, name: str = "run-1", **changes: object) -> RunPlan:
        resource = new_resource(FEDERATED_RUN, name, self.spec(**changes))
        shown, digest = await self.runs.plan(resource)
        await self.runs.start(resource, digest)  # type: ignore[arg-type]
        return parse_plan(parse_object(shown, max_bytes=2**20)["plan"])

    async def status(self, name: str = "run-1") -> FederatedRunStatus:
        return (await self.store.resources.get(FEDERATED_RUN, name)).status

    def directive(self, nation: PartyCode) -> Round:
        _, action = self.fleet.directed[self.fleet.agents[nation], "run/run-1"]
        assert isinstance(action, Round)
        return action

    def opening(self, sender: PartyCode, seed: int, **changes: object) -> tuple[UpdateOpening, list[bytes]]:
        """What an honest agent of `sender` sends for its round."""
        action = self.directive(sender)
        plan, _ = verify_plan(action.plan, self.charter.charter())
        spec = plan.update_spec(action.round, action.arrays_digest)
        rng = np.random.default_rng(seed)
        delta = {tensor.name: rng.normal(size=tensor.shape).astype(np.float32) for tensor in plan.tensors}
        chunks = quantise(clip(delta, plan.clip_norm_micro), spec)
        header = build_header(chunks, spec, nation=sender, examples=8)
        header = replace(header, **changes)  # type: ignore[arg-type]
        metrics = {"heldout_loss_micro": 2_000_000, "heldout_pairs": 4, "heldout_tokens": 64} | {
            "train_loss_micro": 2_000_000, "examples": 8, "steps": 2}  # fmt: skip
        encoded = canonical(metrics)
        receipt = self.receipt(sender, Crossing.UPDATE, action.round)
        receipt = replace(
            receipt,
            digest=header.digest,
            shape_digest=shape_digest(header.tensors, metrics),
            size_bytes=len(header.encoded) + header.value_bytes + len(encoded),
            examples=header.examples,
        )
        envelope = sign_receipt(receipt, self.keys[sender])
        number = DirectiveNumber(1, 1)
        opening = UpdateOpening(plan.run, action.round, number, header.encoded, envelope, encoded)
        return opening, [chunk_bytes(chunk) for chunk in chunks]

    def receipt(self, nation: PartyCode, crossing: Crossing, number: int) -> Receipt:
        some = digest_of(b"x")
        return Receipt(
            nation, "a-1", crossing, some, some, 0, PartyCode("EU"), "run-1", number, 0, some, some, 1_000_000,
            ("landlock",), "0" * 32, self.now,
        )  # fmt: skip

    async def send(self, nation: PartyCode, seed: int = 1) -> bool:
        opening, chunks = self.opening(nation, seed)
        received = await self.runs.accept_update(self.fleet.agents[nation], opening, stream(chunks))
        assert received.salt == SALT
        self.counted = received.receipt
        return received.was_known

    async def report(self, nation: PartyCode, number: int) -> None:
        metrics = {"heldout_loss_micro": 1_000_000, "heldout_pairs": 4, "heldout_tokens": 64}
        encoded = canonical(metrics)
        receipt = replace(
            self.receipt(nation, Crossing.EVALUATION, number),
            digest=digest_of(encoded),
            shape_digest=shape_digest([], metrics),
            size_bytes=len(encoded),
        )
        await self.runs.round_result(
            self.fleet.agents[nation],
            RoundReport(
                "run-1",  # type: ignore[arg-type]
                number,
                DirectiveNumber(1, 1),
                (),
                encoded,
                metrics,
                sign_receipt(receipt, self.keys[nation]),
            ),
        )


async def stream(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    charter = CharterBuilder()
    store = await open_store("sqlite://")
    now = datetime.now(UTC).replace(microsecond=0)
    agents: dict[PartyCode, AgentId] = {nation: agent_id(nation, DOMAIN, "a-1") for nation in (FR, DE)}
    keys = {nation: new_signing_key() for nation in agents}
    fleet, record = RecordedFleet(agents), KeptRecord()
    workers = Workers(tmp_path / "runs")
    made = World(tmp_path, charter, store, fleet, record, None, keys, workers, now, charter.signed())  # type: ignore[arg-type]
    for nation, key in keys.items():
        envelope = charter.agent_delegation(nation, "a-1", key)
        fleet.known_delegations.append(verify_delegation(charter.charter(), envelope, now))
    made.runs = await coordinator(made)
    yield made
    await workers.close()
    await store.close()


async def coordinator(world: World) -> Runs:
    """A coordinator over the world's store and folders, with a policy in force and one version Ready."""
    trust = Trust(world.store, world.clock, changed=lambda: None)
    await trust.load()
    await trust.publish(world.signed_charter)
    chunks = DirectoryStore(world.home / "artifacts")
    models = Models(world.store, chunks, trust, world.record, world.clock)
    decider = Decider(EmbeddedEngine(), deadline_seconds=10)
    policies = Policies(world.store, world.fleet, trust, world.record, decider, world.clock)
    bundle = compiled("treaty")
    year = timedelta(days=365)
    envelope = sign(bundle, world.charter.policy[:1], not_before=world.now - year, not_after=world.now + year)
    await policies.push(bundle, envelope)
    await publish(world, models)
    arrays = RunArrays(world.home / "runs", world.store, chunks, world.clock)
    key = world.charter.log_key
    driver = RunDriver(
        world.store,
        world.fleet,
        models,
        trust,
        world.record,
        arrays,
        world.workers,
        world.home / "runs",
        key,
        world.clock,
    )
    spool = UpdateSpool(world.home / "spool")
    desk = UpdateDesk(world.store, world.fleet, world.record, spool, world.clock)
    planner = RunPlanner(world.store, world.fleet, models, policies, trust)
    return Runs(world.store, world.fleet, planner, driver, desk, arrays, spool, world.record, world.clock)


async def publish(world: World, models: Models) -> None:
    folder = world.home / "model"
    if not folder.exists():
        name = "model.layers.0.self_attn.q_proj.weight"
        model_folder(folder, safetensors({name: ("F32", [6, 4], bytes(96))}))
    about = Description(
        "tiny-llama",
        "1.0.0",
        None,
        "LlamaForCausalLM",
        "Apache-2.0",
        label(Classification.PUBLIC, ["FR", "DE"]),
        Lineage(),
    )
    manifest = build(folder, about)
    said = statement.document(StatementKind.MANIFEST, manifest.ref, parse_object(manifest.encoded, max_bytes=2**20))
    await models.publish(statement.sign(said, world.charter.publishers[:2]), PUBLISHER)
    for digest, data in chunks_of(folder, manifest):
        await models.put_chunk(manifest.digest, digest, data)


async def test_a_run_goes_from_plan_to_result(world: World) -> None:
    plan = await world.start()
    for number in (1, 2):
        await world.runs.reconcile()
        assert world.directive(FR).round == number
        assert not await world.send(FR, seed=number)
        assert await world.send(FR, seed=number), "the same update again is known"
        await world.send(DE, seed=number + 10)
    await world.runs.reconcile()
    assert world.directive(FR).evaluate_only
    await world.report(FR, 3)
    await world.report(DE, 3)
    await world.runs.reconcile()
    status = await world.status()
    assert is_true(status.conditions, "Succeeded")
    assert [done.round for done in status.rounds_done] == [1, 2, 3]
    updates = [UpdateSpool(world.home / "spool").path(key) for key in _keys(plan, 2)]
    assert status.rounds_done[1].aggregate_digest == recompute(updates)
    assert status.result_arrays_digest == status.rounds_done[1].arrays_digest
    files = [path async for path, _ in world.runs.result("run-1")]
    assert files == ["arrays.safetensors"]
    kinds = [statement.unverified(envelope).kind for envelope in world.record.envelopes]
    assert kinds.count(StatementKind.RECEIPT) == 6
    assert kinds.count(StatementKind.ROUND) == 3
    assert {type(action) for _, action in world.fleet.sent[-2:]} == {EndRun}


def _keys(plan: RunPlan, number: int) -> list[UpdateKey]:
    return [UpdateKey(plan.run, number, nation) for nation in plan.cohort]


async def test_a_coordinator_that_comes_back_ends_with_the_same_arrays(world: World, tmp_path: Path) -> None:
    await world.start(strategy=replace(world.spec().strategy, name="FedAdam"))
    await world.runs.reconcile()
    await world.send(FR, 1)
    await world.send(DE, 11)
    await world.runs.reconcile()
    arrays = world.home / "runs" / "run-1" / "arrays"
    first = read_arrays(arrays / "1")
    await world.workers.close()
    world.runs = await coordinator(world)
    await world.runs.reconcile()
    await world.send(FR, 2)
    await world.send(DE, 12)
    await world.runs.reconcile()
    status = await world.status()
    assert [done.round for done in status.rounds_done] == [1, 2]
    kept, second = read_arrays(arrays / "1"), read_arrays(arrays / "2")
    assert all(np.array_equal(first[name], kept[name]) for name in first)
    assert any(not np.array_equal(first[name], second[name]) for name in first)


async def test_a_nation_that_refuses_leaves_the_quorum_short_and_nothing_is_loaded(world: World) -> None:
    world.fleet.refusing[DE] = ("DE-001",)
    resource = new_resource(FEDERATED_RUN, "run-1", world.spec())
    shown, digest = await world.runs.plan(resource)
    told = parse_object(shown, max_bytes=2**20)
    assert digest == ""
    assert told["is_startable"] is False
    assert told["nations"]["DE"] == {"verdict": "deny", "codes": ["DE-001"], "bytes_out_per_round": 0}  # type: ignore[index,call-overload]
    assert not (world.home / "runs" / "run-1").exists()
    planned = await world.runs._planner.plan(resource)
    with pytest.raises(PolicyDenied, match=r"1 of 2 nations would take part, the quorum is 2 \(DE: DE-001\)"):
        planned.require_plan()


async def test_the_treaty_refuses_an_unknown_purpose_before_any_nation_is_asked(world: World) -> None:
    resource = new_resource(FEDERATED_RUN, "run-1", world.spec(purpose="anything-goes"))
    told = parse_object((await world.runs.plan(resource))[0], max_bytes=2**20)
    assert told["nations"]["FR"]["codes"] == ["ENV-004"]  # type: ignore[index,call-overload]


async def test_only_a_plan_that_was_shown_can_be_started(world: World) -> None:
    resource = new_resource(FEDERATED_RUN, "run-1", world.spec())
    with pytest.raises(PreconditionFailed, match="not the one last shown"):
        await world.runs.start(resource, digest_of(b"another"))
    _, digest = await world.runs.plan(resource)
    other = new_resource(FEDERATED_RUN, "run-1", world.spec(rounds=9))
    with pytest.raises(PreconditionFailed):
        await world.runs.start(other, digest)  # type: ignore[arg-type]


async def test_a_round_that_misses_its_quorum_fails_the_run_and_says_who(world: World) -> None:
    await world.start()
    await world.runs.reconcile()
    await world.send(FR)
    world.now += timedelta(seconds=61)
    await world.runs.reconcile()
    found = find_condition((await world.status()).conditions, "Succeeded")
    assert found is not None
    assert found.reason == "QuorumNotMet"
    assert "DE: no answer until the deadline" in found.message


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"examples": 9}, InvalidInput),
        ({"nation": DE}, TrustError),
        ({"round": 2}, InvalidInput),
        ({"base_digest": digest_of(b"other")}, InvalidInput),
    ],
)
async def test_an_update_that_says_something_else_than_the_plan_is_refused(
    world: World, change: dict[str, object], refusal: type[FoedusError]
) -> None:
    await world.start()
    await world.runs.reconcile()
    opening, chunks = world.opening(FR, 1, **change)
    with pytest.raises(refusal):
        await world.runs.accept_update(world.fleet.agents[FR], opening, stream(chunks))
    assert not await world.store.rounds.contributions("run-1", 1)


async def test_a_receipt_of_another_key_or_for_other_bytes_is_refused(world: World) -> None:
    await world.start()
    await world.runs.reconcile()
    opening, chunks = world.opening(FR, 1)
    stolen = replace(opening, receipt=world.opening(FR, 2)[0].receipt)
    with pytest.raises(TrustError, match="not for this update"):
        await world.runs.accept_update(world.fleet.agents[FR], stolen, stream(chunks))
    world.keys[FR] = new_signing_key()
    with pytest.raises(BadSignature):
        await world.runs.accept_update(world.fleet.agents[FR], world.opening(FR, 1)[0], stream(chunks))


async def test_a_flipped_byte_in_a_chunk_leaves_nothing_behind(world: World) -> None:
    await world.start()
    await world.runs.reconcile()
    opening, chunks = world.opening(FR, 1)
    broken = [bytes([chunks[0][0] ^ 1]) + chunks[0][1:], *chunks[1:]]
    with pytest.raises(InvalidInput, match="digest"):
        await world.runs.accept_update(world.fleet.agents[FR], opening, stream(broken))
    assert not list((world.home / "spool").rglob("*.update*"))
    assert not await world.send(FR)


async def test_a_late_update_is_refused_with_its_code(world: World) -> None:
    await world.start()
    await world.runs.reconcile()
    opening, chunks = world.opening(FR, 1)
    world.now += timedelta(seconds=61)
    with pytest.raises(PreconditionFailed) as refused:
        await world.runs.accept_update(world.fleet.agents[FR], opening, stream(chunks))
    assert refused.value.code == "LATE"


async def test_nobody_weighs_more_than_the_recipe_trains_whatever_the_intent_allows(world: World) -> None:
    await world.start(max_examples=1_000_000)
    await world.runs.reconcile()
    opening, chunks = world.opening(FR, 1, examples=9)
    with pytest.raises(InvalidInput) as refused:
        await world.runs.accept_update(world.fleet.agents[FR], opening, stream(chunks))
    assert refused.value.code == "UPD-005"


async def test_what_lies_uncounted_in_the_spool_is_never_counted_as_something_else(world: World) -> None:
    plan = await world.start()
    await world.runs.reconcile()
    first, chunks = world.opening(FR, 1)
    spool = UpdateSpool(world.home / "spool")
    with spool.begin(UpdateKey(plan.run, 1, FR), first.header) as writer:
        for chunk in chunks:
            writer.append(chunk)
        writer.commit()
    other, others_chunks = world.opening(FR, 2)
    with pytest.raises(InvalidInput) as refused:
        await world.runs.accept_update(world.fleet.agents[FR], other, stream([]))
    assert refused.value.code == "UPD-015"
    received = await world.runs.accept_update(world.fleet.agents[FR], other, stream(others_chunks))
    await world.send(DE)
    await world.runs.reconcile()
    counted = await world.store.rounds.contributions("run-1", 1)
    assert {c.update_digest for c in counted if c.nation == FR} == {received.digest}
    done = (await world.status()).rounds_done
    assert done[0].aggregate_digest == recompute([spool.path(key) for key in _keys(plan, 1)])


async def test_a_cancelled_run_takes_no_update_any_more(world: World) -> None:
    await world.start()
    await world.runs.reconcile()
    opening, chunks = world.opening(FR, 1)
    await world.runs.cancel("run-1", "wrong data")
    await world.runs.reconcile()
    with pytest.raises(PreconditionFailed) as refused:
        await world.runs.accept_update(world.fleet.agents[FR], opening, stream(chunks))
    assert refused.value.code == "LATE"
    assert is_true((await world.status()).conditions, "Cancelled")


async def test_a_repeated_update_adds_nothing_to_the_record(world: World) -> None:
    await world.start()
    await world.runs.reconcile()
    await world.send(FR)
    assert world.counted == b""  # the receipt that came is the one that stands there
    before = len(world.record.envelopes)
    world.now += timedelta(seconds=1)
    assert await world.send(FR)
    assert len(world.record.envelopes) == before
    assert world.counted == world.record.envelopes[-1]  # another receipt came: the one that was counted is shown
