"""Federated runs with real stores, a real policy, a real worker and Flower's strategy; the agents are played.

They answer directives with updates that the border of a real agent would send.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from controlplane.artifacts.directory_store import DirectoryStore
from controlplane.artifacts.spool import UpdateKey, UpdateSpool
from controlplane.domain.agents import RoundReport, UpdateOpening
from controlplane.domain.directives import Round
from controlplane.federation.workers import Workers
from controlplane.services.models import Models
from controlplane.services.policies import Policies
from controlplane.services.record import StatementRecord
from controlplane.services.run_arrays import RunArrays
from controlplane.services.run_closing import RoundCloser
from controlplane.services.run_driver import RunDriver
from controlplane.services.run_news import RunNews
from controlplane.services.run_planning import RunPlanner
from controlplane.services.run_reconciler import RunReconciler
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
from treaty.keys import SigningKey, new_signing_key
from treaty.label import Classification, label
from treaty.lineage import Lineage
from treaty.manifest import Description
from treaty.manifest_build import build, chunks_of
from treaty.names import AgentId, DirectiveNumber, PartyCode, SpiffeId, SpiffeRole, agent_id, digest_of, run_id
from treaty.plan import RunPlan, parse_plan, verify_plan
from treaty.policy.bundle import sign
from treaty.policy.decider import Decider
from treaty.policy.embedded import EmbeddedEngine
from treaty.receipt import Crossing, Receipt, shape_digest, sign_receipt
from treaty.resources.meta import new_resource
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
    record: Any
    runs: Runs
    reconciler: RunReconciler
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

    async def until(self, name: str, round_number: int) -> None:
        """Return when the run, driven by a loop of its own, has opened that round."""
        async for view in self.runs.follow(name):
            if parse_object(view.json, max_bytes=2**20)["round"] == round_number:
                return

    async def ended(self, name: str) -> FederatedRunStatus:
        """The run's status, when a loop has brought it to its end."""
        async for _ in self.runs.follow(name):
            pass
        return await self.status(name)

    def directive(self, nation: PartyCode, name: str = "run-1") -> Round:
        _, action = self.fleet.directed[self.fleet.agents[nation], f"run/{name}"]
        assert isinstance(action, Round)
        return action

    def opening(
        self, sender: PartyCode, seed: int, name: str = "run-1", **changes: object
    ) -> tuple[UpdateOpening, list[bytes]]:
        """What an honest agent of `sender` sends for its round."""
        action = self.directive(sender, name)
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
        receipt = self.receipt(sender, Crossing.UPDATE, action.round, name)
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

    def receipt(self, nation: PartyCode, crossing: Crossing, number: int, name: str = "run-1") -> Receipt:
        some = digest_of(b"x")
        return Receipt(
            nation, "a-1", crossing, some, some, 0, PartyCode("EU"), name, number, 0, some, some, 1_000_000,
            ("landlock",), "0" * 32, self.now,
        )  # fmt: skip

    async def send(self, nation: PartyCode, seed: int = 1, name: str = "run-1") -> bool:
        opening, chunks = self.opening(nation, seed, name)
        received = await self.runs.accept_update(self.fleet.agents[nation], opening, stream(chunks))
        assert len(received.salt) == len(SALT)
        self.counted = received.receipt
        return received.was_known

    async def report(self, nation: PartyCode, number: int, name: str = "run-1") -> None:
        metrics = {"heldout_loss_micro": 1_000_000, "heldout_pairs": 4, "heldout_tokens": 64}
        encoded = canonical(metrics)
        receipt = replace(
            self.receipt(nation, Crossing.EVALUATION, number, name),
            digest=digest_of(encoded),
            shape_digest=shape_digest([], metrics),
            size_bytes=len(encoded),
        )
        await self.runs.round_result(
            self.fleet.agents[nation],
            RoundReport(
                run_id(name),
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


@asynccontextmanager
async def run_world(tmp_path: Path, record: KeptRecord | StatementRecord | None = None) -> AsyncIterator[World]:
    """`record`: what takes the place of one that keeps statements in memory."""
    charter = CharterBuilder()
    store = await open_store("sqlite://")
    now = datetime.now(UTC).replace(microsecond=0)
    agents: dict[PartyCode, AgentId] = {nation: agent_id(nation, DOMAIN, "a-1") for nation in (FR, DE)}
    keys = {nation: new_signing_key() for nation in agents}
    fleet, record = RecordedFleet(agents), record or KeptRecord()
    workers = Workers(tmp_path / "runs")
    made = World(tmp_path, charter, store, fleet, record, None, None, keys, workers, now, charter.signed())  # type: ignore[arg-type]
    for nation, key in keys.items():
        envelope = charter.agent_delegation(nation, "a-1", key)
        fleet.known_delegations.append(verify_delegation(charter.charter(), envelope, now))
    await restart(made)
    try:
        yield made
    finally:
        await workers.close()
        await store.close()


async def restart(world: World) -> None:
    """A new coordinator over the world's store and folders, with a policy in force and one version Ready."""
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
    runs, clock = world.home / "runs", world.clock
    closer = RoundCloser(world.store, models, world.record, arrays, world.workers, key, clock)
    driver = RunDriver(
        world.store, world.fleet, models, trust, world.record, arrays, world.workers, closer, runs, key, clock
    )  # fmt: skip
    spool, news = UpdateSpool(world.home / "spool"), RunNews()
    desk = UpdateDesk(world.store, world.fleet, world.record, spool, clock)
    planner = RunPlanner(world.store, world.fleet, models, policies, trust)
    world.reconciler = RunReconciler(world.store, driver, arrays, spool, news, clock)
    world.runs = Runs(world.store, world.fleet, planner, driver, desk, arrays, world.reconciler, news, clock)


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


def keys(plan: RunPlan, number: int) -> list[UpdateKey]:
    """Where the updates of a round lie in the spool."""
    return [UpdateKey(plan.run, number, nation) for nation in plan.cohort]
