"""The coordinator killed with -9 in the middle of a rollout and of a publication: back again, it goes on from there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.builders.tiny_llama import build_tiny_llama
from tests.e2e.ceremonies import begin_rollout, manifest_digest, publish, sign_version
from tests.e2e.lines import Line
from tests.e2e.processes import confined_children, eventually, hold, release
from tests.e2e.treaty_world import DNS, LABEL, LEARNERS, MODEL, TreatyWorld
from treaty.exit_codes import ExitCode

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("e2e")]


def test_a_rollout_goes_on_where_the_coordinator_was_killed(treaty: TreatyWorld) -> None:
    version = treaty.next_version()
    publish(treaty, version, [build_tiny_llama(treaty.root / "model-hub-killed", seed=1)], *LABEL)
    served = set(confined_children(treaty.pid("agent-FR"), "serving"))
    begin_rollout(treaty, "hub-killed", version, "--fallback", f"{MODEL}@1.0.0")
    agent = treaty.pid("agent-FR")
    candidate = eventually("FR stages the version", lambda: set(confined_children(agent, "serving")) - served).pop()
    hold(candidate)
    treaty.kill("coordinator")
    treaty.start_coordinator()
    release(candidate)
    ended = treaty.rollout_ended("hub-killed")
    assert ended["type"] == "Succeeded", treaty.resource("Rollout", "hub-killed")["status"]
    wanted = manifest_digest(treaty, version)
    for code in LEARNERS:
        status = treaty.status(code)
        assert status["serving"] == wanted
        assert [each["state"] for each in status["rollouts"] if each["rollout"] == "hub-killed"] == ["SERVING"]


def test_a_publication_that_lost_its_coordinator_is_no_version_and_can_be_sent_again(treaty: TreatyWorld) -> None:
    version, folder = treaty.next_version(), build_tiny_llama(treaty.root / "model-lost", seed=2)
    words = (
        "model", "publish", folder, "--name", MODEL, "--version", version, *LABEL, "--key", treaty.key("pub-1"),
    )  # fmt: skip
    line = Line(int(treaty.endpoint("grpc").rpartition(":")[2]))
    line.stall_after(40_000)
    try:
        env = {**treaty.identity("publisher"), "FOEDUS_COORDINATOR": f"{DNS}:{line.ports[0]}"}
        with ThreadPoolExecutor(1) as pool:
            publishing = pool.submit(lambda: treaty.programs.attempt("foedus", *words, env=env))
            eventually("half of it is there", lambda: line.is_stalled)
            treaty.kill("coordinator")
            line.cut()
            lost = publishing.result()
    finally:
        line.close()
    treaty.start_coordinator()
    assert lost.code == ExitCode.UNAVAILABLE
    assert "error: the coordinator " in lost.err
    assert "Traceback" not in lost.err
    too_early = (
        "rollout",
        "create",
        "too-early",
        "--model",
        f"{MODEL}@{version}",
        "--wave",
        "FR",
        "--fallback",
        "none",
    )
    refused = treaty.foedus_refused(*too_early)
    assert "is a draft" in refused.err
    treaty.foedus(*words, role="publisher")
    sign_version(treaty, version)
    treaty.foedus("model", "verify", f"{MODEL}@{version}")
