"""What no consent brings about: an old version, a strange fallback, anything by a charter that has ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from node_agent.deploy import Deployer
from node_agent.directives import Deploy, Gates
from node_agent.gates import Gates as GateKeeper
from node_agent.messages import rollout_status
from node_agent.ports import RolloutReport, RolloutState
from node_agent.runtime.local import LocalRuntime, RuntimeSettings, ServedVersion, Serving
from node_agent.service import NEWEST_KIND, Service
from tests.builders.charters import NOW
from tests.node_agent.work.nation import World, bundles_action, deploy_action, directive, governed, make_world
from tests.treaty.model_folder import description, model_folder, safetensors
from treaty.errors import Expired, PreconditionFailed, RollbackRefused
from treaty.manifest import Manifest
from treaty.manifest_build import build
from treaty.names import Digest, DirectiveNumber, digest_of

NO_GATES = Gates((), None, 0)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = await governed(make_world(tmp_path))
    yield world
    await world.work.stop()
    world.journal.close()


def published(world: World, version: str, *, is_here: bool = False) -> tuple[Manifest, Deploy]:
    folder = model_folder(
        world.root / f"published-{version}", safetensors({"w": ("F32", [2], version.encode() + b"...")})
    )
    manifest = build(folder, description(version))
    envelope = world.publish(folder, manifest)
    if is_here:
        world.place(folder, manifest)
    return manifest, deploy_action(manifest, [envelope], gates=NO_GATES)


def with_fallback(world: World, version: str, fallback: Digest) -> Deploy:
    manifest, action = published(world, version)
    return deploy_action(manifest, action.manifests, gates=NO_GATES, fallback=fallback)


async def refused(world: World, action: Deploy, error: type[Exception], message: str) -> str:
    with pytest.raises(error, match=message):
        await world.work.admit(directive(5, action))
    last = world.reports.rollouts[-1]
    assert last.state is RolloutState.REFUSED
    return last.codes[0]


async def test_an_older_version_is_refused_also_when_nothing_is_served(world: World) -> None:
    _, old = published(world, "1.0.0")
    await world.work.admit(directive(5, old))
    newest: dict[str, object] = {"version": "2.0.0", "digest": digest_of(b"2.0.0")}
    world.journal.put(NEWEST_KIND, description("1.0.0").name, newest)  # type: ignore[arg-type]
    assert await refused(world, old, RollbackRefused, "1.0.0 is not newer than 2.0.0") == "ROLLBACK_REFUSED"
    _, newer = published(world, "3.0.0")
    await world.work.admit(directive(5, newer))


async def test_a_fallback_that_was_never_decided_on_is_refused(world: World) -> None:
    kept, _ = published(world, "0.9.0", is_here=True)
    action = with_fallback(world, "1.0.0", kept.digest)
    message = "the rollout's fallback is neither what is served here nor the fallback of that"
    assert await refused(world, action, PreconditionFailed, message) == "FALLBACK_NOT_SERVED"


async def test_an_expired_charter_brings_in_no_version_and_no_policy(world: World) -> None:
    _, action = published(world, "1.0.0")
    await world.work.admit(directive(5, action))
    world.clock.moment = world.nation.charter().expires_at
    assert await refused(world, action, Expired, "charter version 1 ended") == "CHARTER_EXPIRED"
    await world.work.deploy(directive(5, action), action)  # accepted before it ended
    assert world.reports.rollouts[-1].codes == ("CHARTER_EXPIRED",)
    assert not world.border.fetched
    load = bundles_action(*world.treaty_bundle())
    with pytest.raises(Expired, match="charter version 1 ended"):
        await world.work.admit(directive(6, load))
    with pytest.raises(Expired, match="charter version 1 ended"):
        await world.work.load_policy(directive(6, load), load)


def test_what_a_gate_measured_does_not_leave() -> None:
    report = RolloutReport(
        rollout="first",
        number=DirectiveNumber(1, 2),
        state=RolloutState.RETURNED,
        manifest_digest=digest_of(b"version"),
        since=NOW,
        codes=("GATE_WORSE",),
        heldout_loss_micro_before=2_000_000,
        heldout_loss_micro_after=3_000_000,
    )
    sent = rollout_status(report)
    assert (sent.heldout_loss_micro_before, sent.heldout_loss_micro_after) == (0, 0)
    assert list(sent.codes) == ["GATE_WORSE"]


class _Dies:
    """A candidate that ends between its gates and its service."""

    is_running = False

    def __init__(self, version: ServedVersion) -> None:
        self.version = version
        self.observed_digest = version.digest

    async def stop(self) -> None:
        self.is_running = False


class _Runtime(LocalRuntime):
    async def stage(self, version: ServedVersion) -> Serving:
        return cast(Serving, _Dies(version))


async def test_a_candidate_that_dies_before_it_serves_is_not_wanted_any_more(world: World) -> None:
    manifest, action = published(world, "1.0.0")
    service = Service(world.core, world.shelf, _Runtime(RuntimeSettings(), world.root / "runtime", ()))
    decisions = world.work._decisions
    gates = GateKeeper(world.core, decisions, service, world.shelf)
    deployer = Deployer(world.core, decisions, service, gates, world.shelf)
    order = directive(5, action)
    world.journal.ledger.accept(order)
    await deployer.deploy(order, action)
    assert world.reports.states[-2:] == ["FAILED", "RETURNED"]
    assert world.reports.rollouts[-1].codes == ("PRECONDITION_FAILED",)
    assert service.wanted is None
    assert service.newest(manifest.about.name) == ("1.0.0", manifest.digest)
