"""Rounds of a run in one nation, with a real trainer: decided, trained, clipped, sent with a receipt; or refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import pytest
import pytest_asyncio

from node_agent import catalogue
from node_agent.directives import EndRun, Round
from node_agent.ports import RoundStage
from tests.builders.tiny_llama import base_shapes, build_tiny_llama
from tests.node_agent.training.conftest import tiny_recipe
from tests.node_agent.work.nation import FR, PURPOSE, World, directive, governed, make_world
from tests.treaty.model_folder import description
from treaty import statement
from treaty.adapter import ARRAYS_FILE, encode_arrays
from treaty.errors import BadSignature, InvalidInput, PolicyDenied, PreconditionFailed, Unavailable
from treaty.keys import new_signing_key
from treaty.manifest import Manifest
from treaty.manifest_build import build, chunks_of
from treaty.names import PartyCode, RunId, digest_of
from treaty.plan import NationDecision, RunPlan, Task
from treaty.policy import asks
from treaty.policy.asks import Undertaking
from treaty.receipt import Crossing, shape_digest
from treaty.recipe import adapter_shapes, initial_arrays
from treaty.strict_json import parse_object
from treaty.update import parse_header, validate_header
from treaty.update_layout import TensorSpec
from treaty.update_values import UpdateVerifier

pytestmark = [pytest.mark.torch, pytest.mark.asyncio(loop_scope="module")]

RUN = RunId("run-1")
DE = PartyCode("DE")
DIGEST = digest_of(b"somebody's")


@dataclass
class Ready:
    """A nation with a base on its shelf and a run planned."""

    world: World
    base: Manifest
    arrays: Manifest

    def plan(self, task: Task = Task.TRAIN, purpose: str = PURPOSE, run: RunId = RUN, **changes: object) -> RunPlan:
        undertaking = Undertaking(run, purpose, (DE, FR), PartyCode("EU"), PartyCode("BE"))
        ask = asks.dataset_use(FR, self.base, undertaking, "catalogues")
        tensors = tuple(TensorSpec(n, s) for n, s in adapter_shapes(tiny_recipe(), base_shapes()).items())
        decision = NationDecision(ask.digest, DIGEST, (), 1000)
        plan = RunPlan(
            run=run,
            task=task,
            purpose=purpose,
            model_digest=self.base.digest,
            recipe=tiny_recipe(),
            strategy="FedAvg",
            parameters=MappingProxyType({}),
            cohort=(DE, FR),
            quorum=2,
            rounds=2,
            round_deadline_seconds=60,
            clip_norm_micro=1_000_000,
            max_examples=1000,
            destination=PartyCode("EU"),
            host=PartyCode("BE"),
            tensors=tensors if task is Task.TRAIN else (),
            decisions=MappingProxyType({DE: decision, FR: decision}),
            refused=MappingProxyType({}),
        )
        return replace(plan, **changes)  # type: ignore[arg-type]

    def action(self, plan: RunPlan, number: int = 1, *, evaluate_only: bool = False) -> Round:
        return Round(
            run=plan.run,
            round=number,
            plan=statement.sign(plan.statement(), [self.world.nation.builder.log_key]),
            arrays_digest=self.arrays.digest,
            arrays_manifest=self.arrays.encoded,
            deadline_seconds=60,
            evaluate_only=evaluate_only,
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ready(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ready]:
    world = await governed(make_world(tmp_path_factory.mktemp("nation")))
    folder = build_tiny_llama(world.root / "base")
    base = build(folder, description("1.0.0"))
    world.place(folder, base)
    found = Ready(world, base, _arrays(world, world.root / "arrays"))
    yield found
    await found.world.work.stop()
    world.journal.close()


def _arrays(world: World, folder: Path) -> Manifest:
    folder.mkdir()
    (folder / ARRAYS_FILE).write_bytes(encode_arrays(initial_arrays(tiny_recipe(), base_shapes())))
    manifest = build(folder, description("0.0.1"))
    world.border.chunks.update(chunks_of(folder, manifest))
    return manifest


async def test_a_round_sends_exactly_the_plans_update_with_its_receipt(ready: Ready) -> None:
    border, plan = ready.world.border, ready.plan()
    border.is_away = True
    action = ready.action(plan)
    with pytest.raises(Unavailable):
        await ready.world.work.round(directive(10, action), action)
    (sent,) = border.updates
    header = parse_header(sent.opening.header)
    spec = plan.update_spec(1, ready.arrays.digest)
    validate_header(header, spec)
    verifier = UpdateVerifier(header, spec)
    for index, chunk in enumerate(sent.chunks):
        verifier.accept(index, chunk)
    verifier.finish()
    metrics = parse_object(sent.opening.metrics, max_bytes=4096)
    assert sorted(metrics) == sorted(
        ["examples", "heldout_loss_micro", "heldout_pairs", "heldout_tokens", "steps", "train_loss_micro"]
    )
    receipt = sent.receipt
    assert (receipt.nation, receipt.agent, receipt.crossing, receipt.destination) == (
        FR,
        "par-1",
        Crossing.UPDATE,
        "EU",
    )
    assert receipt.digest == header.digest
    assert receipt.shape_digest == shape_digest(plan.tensors, metrics)  # type: ignore[arg-type]
    assert receipt.size_bytes == len(sent.opening.header) + sum(map(len, sent.chunks)) + len(sent.opening.metrics)
    assert "seccomp" in receipt.sandbox
    assert (sent.permit.point, sent.permit.is_allowed) == ("egress.update", True)
    assert (receipt.decision_digest, receipt.ask_digest) == (sent.permit.decision_digest, sent.permit.ask_digest)


async def test_after_a_crash_before_the_send_the_same_bytes_leave_without_training(ready: Ready) -> None:
    before = ready.world.border.updates[-1]
    await ready.world.work.stop()
    ready.world = ready.world.restarted()
    ready.world.border.is_away = False
    await ready.world.work.start()
    action = ready.action(ready.plan())
    await ready.world.work.round(directive(10, action), action)
    again = ready.world.border.updates[-1]
    assert (again.opening, again.chunks) == (before.opening, before.chunks)
    stages = [report.stage for report in ready.world.reports.progressed]
    assert stages == [RoundStage.SENDING, RoundStage.DONE]
    assert not (ready.world.root / "agent" / "outgoing" / RUN / "1").exists()


async def test_an_evaluation_sends_metrics_and_no_tensor(ready: Ready) -> None:
    updates = len(ready.world.border.updates)
    action = ready.action(ready.plan(), 3, evaluate_only=True)
    await ready.world.work.round(directive(11, action), action)
    metrics, receipt, permit = ready.world.border.results[-1]
    assert set(parse_object(metrics, max_bytes=4096)) == {"heldout_loss_micro", "heldout_pairs", "heldout_tokens"}
    assert (receipt.crossing, receipt.digest) == (Crossing.EVALUATION, digest_of(metrics))
    assert (receipt.size_bytes, receipt.examples, receipt.clip_norm_micro) == (len(metrics), 0, 0)
    assert (permit.point, permit.is_allowed) == ("dataset.use", True)
    assert len(ready.world.border.updates) == updates


async def test_the_brake_refuses_a_round_by_code_and_nothing_is_sent(ready: Ready) -> None:
    world, action = ready.world, ready.action(ready.plan(), 2)
    sent = len(world.border.updates)
    world.journal.set_brake(is_on=True)
    await world.work.journal_changed()
    try:
        with pytest.raises(PolicyDenied, match="the brake is on"):
            await world.work.admit(directive(12, action))
        await world.work.round(directive(12, action), action)
    finally:
        world.journal.set_brake(is_on=False)
    assert world.border.refused[-1] == (RUN, 2, ("BRAKE_ON",))
    assert len(world.border.updates) == sent


async def test_a_purpose_without_a_dataset_is_refused_before_anything_is_loaded(ready: Ready) -> None:
    world = ready.world
    plan = ready.plan(purpose="law-enforcement-analytics", run=RunId("run-3"))
    fetched = list(world.border.fetched)
    action = ready.action(plan)
    await world.work.round(directive(13, action), action)
    assert world.border.refused[-1] == ("run-3", 1, ("DAT-003",))
    assert world.border.fetched == fetched


async def test_a_withdrawn_dataset_is_used_no_more(ready: Ready) -> None:
    world = ready.world
    catalogue.remove(world.journal, "catalogues")
    action = ready.action(ready.plan(), 2)
    await world.work.round(directive(14, action), action)
    assert world.border.refused[-1] == (RUN, 2, ("DAT-010",))
    world.dataset()


async def test_a_plan_is_refused_that_is_not_what_it_must_be(ready: Ready) -> None:
    work, plan = ready.world.work, ready.plan()
    good = ready.action(plan)
    forged = replace(good, plan=statement.sign(plan.statement(), [new_signing_key()]))
    with pytest.raises(BadSignature):
        await work.admit(directive(20, forged))
    with pytest.raises(InvalidInput, match="another run's"):
        await work.admit(directive(20, replace(good, run=RunId("run-2"))))
    with pytest.raises(InvalidInput, match="no such round"):
        await work.admit(directive(20, replace(good, round=4)))
    without_us = replace(plan, cohort=(DE,), quorum=1, decisions=MappingProxyType({DE: plan.decisions[DE]}))
    with pytest.raises(InvalidInput, match="FR is not in the cohort"):
        await work.admit(directive(20, ready.action(without_us)))
    with pytest.raises(PreconditionFailed, match="the run's base is not on the shelf"):
        await work.admit(directive(20, ready.action(replace(plan, model_digest=DIGEST))))
    with pytest.raises(InvalidInput, match="not the one that the directive names"):
        await work.admit(directive(20, replace(good, arrays_digest=DIGEST)))
    with pytest.raises(InvalidInput, match="the plan's tensors are not exactly the recipe's"):
        await work.admit(directive(20, ready.action(replace(plan, tensors=plan.tensors[1:]))))


async def test_another_ask_than_the_planned_one_is_refused(ready: Ready) -> None:
    plan = ready.plan()
    other = replace(plan.decisions[FR], ask_digest=DIGEST)
    changed = replace(plan, decisions=MappingProxyType({DE: other, FR: other}))
    action = ready.action(changed)
    await ready.world.work.round(directive(21, action), action)
    assert ready.world.border.refused[-1] == (RUN, 1, ("ASK_MISMATCH",))


async def test_the_end_of_a_run_stops_its_trainer(ready: Ready) -> None:
    end = EndRun(RUN)
    await ready.world.work.end_run(replace(directive(30, ready.action(ready.plan())), action=end), end)
    scratch = ready.world.core.folders.scratch
    assert not list((scratch / "trainer" / "input").iterdir())
    assert not list((scratch / "arrays" / "shelf").iterdir())
