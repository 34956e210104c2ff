"""The main job from joining to audit, typed as people type it, with a Llama of a few kilobytes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.ceremonies import begin_rollout, manifest_digest, publish, ready_world
from tests.e2e.treaty_world import AGENTS, LEARNERS, MODEL, PURPOSE, TreatyWorld

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("e2e")]


@pytest.fixture(scope="module")
def treaty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TreatyWorld]:
    """A treaty of its own: what it serves, and may go back to, is what this job brought."""
    world = ready_world(tmp_path_factory.mktemp("main-job"))
    yield world
    world.close()


@pytest.fixture(scope="module")
def reference(treaty: TreatyWorld) -> bytes:
    treaty.start_run("reference")
    ended = treaty.run_ended("reference")
    assert ended["status"] == "True", ended
    return treaty.arrays("reference", 2)


def test_a_model_crosses_two_borders_and_comes_back_better_and_the_record_proves_what_crossed(
    treaty: TreatyWorld, reference: bytes
) -> None:
    treaty.start_run("baseline", task="evaluate", rounds=1)
    assert treaty.run_ended("baseline")["status"] == "True"
    for code in LEARNERS:
        assert [each["crossing"] for each in treaty.receipts(code, "baseline")] == ["evaluation"]

    rounds = treaty.resource("FederatedRun", "reference")["status"]["roundsDone"]
    assert [(done["round"], done["nations"]) for done in rounds] == [
        (1, ["DE", "FR"]),
        (2, ["DE", "FR"]),
        (3, ["DE", "FR"]),
    ]
    losses = [[entry["values"]["heldout_loss_micro"] for entry in done["metrics"]] for done in rounds]
    assert all(after < before for before, after in zip(losses[0], losses[2], strict=True))

    datasets = [word for code in LEARNERS for word in ("--dataset", f"{code}:public:EU")]
    version = treaty.next_version()
    publish(treaty, version, [], "--from-run", "reference", *datasets)
    second = manifest_digest(treaty, version)
    begin_rollout(
        treaty, "second", version, "--evaluate", f"{PURPOSE}:0", "--fallback", f"{MODEL}@1.0.0"
    )  # fmt: skip
    ended = treaty.rollout_ended("second")
    assert ended["type"] == "Succeeded", treaty.resource("Rollout", "second")["status"]
    assert [treaty.status(code)["serving"] for code in LEARNERS] == [second, second]

    spool = treaty.coordinator_home / "spool"
    audit = json.loads(treaty.foedus("audit", "verify", "--updates", spool, "-o", "json", role="auditor").out)
    assert audit["log"]["verified"] is True
    assert audit["findings"] == []
    assert audit["raw_records"] == 0
    sums = {(each["run"], each["round"]): each["outcome"] for each in audit["rounds"]}
    assert sums["reference", 1] == sums["reference", 2] == "recomputed"
    crossed = {
        (flow["nation"], flow["class"]): flow["bytes"] for flow in audit["borders"] if flow["source"] == "receipt"
    }
    for code in LEARNERS:
        own = json.loads(treaty.agent(code, "receipts", "-o", "json").out)["receipts"]
        updates = sum(each["size_bytes"] for each in own if each["crossing"] == "update")
        assert crossed[code, "update"] == updates > 0


def test_no_agent_takes_the_honest_log_for_a_contradiction(treaty: TreatyWorld) -> None:
    for code in AGENTS:
        assert treaty.status(code)["log"]["alarm"] == ""
