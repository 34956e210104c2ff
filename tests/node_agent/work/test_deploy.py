"""A nation's deployments, with real children: consent before bytes, gates before service, and the way back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from node_agent.directives import AbortRollout, Gates
from node_agent.ledger import Standing
from node_agent.ports import RolloutState
from tests.builders.tiny_llama import base_shapes, build_tiny_llama
from tests.node_agent.training.conftest import tiny_recipe
from tests.node_agent.work.nation import (
    FR,
    PURPOSE,
    World,
    deploy_action,
    directive,
    governed,
    make_world,
)
from tests.treaty.model_folder import description
from treaty.adapter import adapter_files
from treaty.consent import Answer, AnsweredBy, verify_consent
from treaty.manifest import Manifest
from treaty.manifest_build import build
from treaty.names import DirectiveNumber
from treaty.recipe import initial_arrays

pytestmark = [pytest.mark.torch, pytest.mark.asyncio(loop_scope="module")]


@dataclass
class Served:
    """A world in which version 1.0.0 came into service by rollout `first`, number 1.2."""

    world: World
    base: Manifest
    envelope: bytes


def adapter(world: World, base: Manifest, version: str, scale: float) -> tuple[Path, Manifest]:
    """A version on the base whose adapter adds noise of `scale`."""
    folder = world.root / f"adapter-{version}"
    folder.mkdir()
    noise = np.random.default_rng(1)
    arrays = {
        name: value if "lora_A" in name else (scale * noise.normal(size=value.shape)).astype(np.float32)
        for name, value in initial_arrays(tiny_recipe(), base_shapes()).items()
    }
    for name, data in adapter_files(tiny_recipe(), arrays).items():
        (folder / name).write_bytes(data)
    return folder, build(folder, description(version, base=base.digest))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    world = await governed(make_world(tmp_path_factory.mktemp("nation")))
    folder = build_tiny_llama(world.root / "base")
    base = build(folder, description("1.0.0"))
    envelope = world.publish(folder, base)
    action = deploy_action(base, [envelope])
    await world.work.admit(directive(2, action))
    await world.work.deploy(directive(2, action), action)
    found = Served(world, base, envelope)
    yield found
    await found.world.work.stop()
    world.journal.close()


async def test_a_version_comes_into_service_step_by_step(served: Served) -> None:
    world, base = served.world, served.base
    first = [report for report in world.reports.rollouts if report.rollout == "first"]
    assert [str(report.state) for report in first if report.state is not RolloutState.PULLING] == [
        "STARTING",
        "EVALUATING",
        "SERVING",
    ]
    assert first[-1].pulled_bytes == first[-1].total_bytes == sum(base.chunk_bytes.values())
    assert world.reports.served[-1] == base.digest
    assert world.reports.on_shelf == (base.digest,)


async def test_the_policy_consented_with_the_agents_key_before_a_byte_came(served: Served) -> None:
    world = served.world
    envelope = next(
        e for e, kind in zip(world.border.submitted, world.border.kinds(), strict=True) if kind == "consent"
    )
    verified = verify_consent(envelope, world.nation.delegations(), world.clock.now())
    said = verified.consent
    assert (said.nation, said.answer, said.by) == (FR, Answer.YES, AnsweredBy.POLICY)
    assert (said.subject, said.fallback) == (served.base.digest, None)
    points = [entry.body["decision"]["decision_point"] for entry in world.journal.entries("decisions")]  # type: ignore[index,call-overload]
    assert points == ["model.admit", "rollout.deploy", "rollout.deploy", "infer.purpose"]


async def test_the_same_number_again_changes_nothing(served: Served) -> None:
    world, action = served.world, deploy_action(served.base, [served.envelope])
    submitted, fetched = list(world.border.submitted), list(world.border.fetched)
    await world.work.deploy(directive(2, action), action)
    assert world.reports.rollouts[-1].state is RolloutState.SERVING
    assert (world.border.submitted, world.border.fetched) == (submitted, fetched)


async def test_a_worse_version_fails_its_gate_and_the_fallback_goes_on(served: Served) -> None:
    world = served.world
    folder, broken = adapter(world, served.base, "1.1.0", scale=30.0)
    envelopes = [world.publish(folder, broken), served.envelope]
    gates = Gates((), PURPOSE, 0)
    action = deploy_action(broken, envelopes, rollout="second", fallback=served.base.digest, gates=gates)
    order = directive(3, action)
    world.journal.ledger.accept(order)
    await world.work.admit(order)
    await world.work.deploy(order, action)
    last = world.reports.rollouts[-1]
    assert [str(r.state) for r in world.reports.rollouts if r.rollout == "second"][-2:] == ["FAILED", "RETURNED"]
    assert last.codes == ("GATE_WORSE",)
    assert last.heldout_loss_micro_after > last.heldout_loss_micro_before > 0
    assert world.reports.served[-1] == served.base.digest
    standing = {entry.number: entry.standing for entry in world.journal.ledger.accepted()}
    assert standing[DirectiveNumber(1, 3)] is Standing.LEFT


async def test_an_abort_returns_to_the_consented_fallback_and_the_number_is_left(served: Served) -> None:
    world = served.world
    folder, better = adapter(world, served.base, "1.2.0", scale=0.01)
    envelopes = [world.publish(folder, better), served.envelope]
    action = deploy_action(better, envelopes, rollout="third", fallback=served.base.digest)
    order = directive(4, action)
    world.journal.ledger.accept(order)
    await world.work.deploy(order, action)
    assert world.reports.served[-1] == better.digest
    abort = AbortRollout("third", DirectiveNumber(1, 4))
    await world.work.abort(replace(directive(5, action), action=abort), abort)
    assert (world.reports.rollouts[-1].state, world.reports.rollouts[-1].codes) == (RolloutState.RETURNED, ("ABORTED",))
    assert world.reports.served[-1] == served.base.digest
    standing = {entry.number: entry.standing for entry in world.journal.ledger.accepted()}
    assert standing[DirectiveNumber(1, 4)] is Standing.LEFT


async def test_after_a_restart_the_version_is_served_with_the_coordinator_away(served: Served) -> None:
    await served.world.work.stop()
    world = served.world.restarted()
    world.border.is_away = True
    assert world.work.readiness()["serving"] is False
    seen: asyncio.Queue[object] = asyncio.Queue()
    world.reports.serving = seen.put_nowait  # type: ignore[method-assign, assignment]
    await world.work.start()
    async with asyncio.timeout(60):
        assert await seen.get() == served.base.digest
    assert world.work.readiness()["serving"] is True
    assert world.work.conditions()["treaty_policy"] == "1"
    served.world = world
