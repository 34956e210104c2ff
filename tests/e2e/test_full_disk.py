"""A disk that takes no more, at the agent and at the coordinator: told by its code, nothing lost, and it goes on after.

The kernel's limit on a file's size stands for the full disk: it refuses the same calls, with an error of the same sort.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.builders.tiny_llama import build_tiny_llama
from tests.e2e.ceremonies import begin_rollout, manifest_digest, padded, publish, sign_version
from tests.e2e.processes import eventually, full_disk, hold, release
from tests.e2e.treaty_world import LABEL, LEARNERS, MODEL, TreatyWorld
from treaty.exit_codes import ExitCode

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("e2e")]

LARGEST_FILE_BYTES = 3 * 2**20
"""Room for journals, logs and a store; less than a chunk of the padded version."""


def restart_coordinator(treaty: TreatyWorld) -> None:
    treaty.programs.stop("coordinator")
    treaty.start_coordinator()
    for code in LEARNERS:
        treaty.await_connected(code)


def test_a_coordinator_without_room_refuses_the_chunks_and_takes_them_later(treaty: TreatyWorld) -> None:
    version, folder = treaty.next_version(), padded(build_tiny_llama(treaty.root / "model-large", seed=5))
    words = ("model", "publish", folder, "--name", MODEL, "--version", version, *LABEL, "--key", treaty.key("pub-1"))
    restart_coordinator(treaty)  # the store's write-ahead log, which has grown to more than a chunk, begins anew
    with full_disk(treaty.pid("coordinator"), LARGEST_FILE_BYTES):
        refused = treaty.attempt(*words, role="publisher")
    assert refused.code == ExitCode.FAILED
    assert "error: no space left while storing a chunk" in refused.err
    assert "Traceback" not in refused.err
    treaty.foedus(*words, role="publisher")
    sign_version(treaty, version)
    treaty.foedus("model", "verify", f"{MODEL}@{version}")


def test_a_coordinator_without_room_for_its_record_counts_nothing_until_there_is(
    treaty: TreatyWorld, reference: bytes
) -> None:
    treaty.start_run("no-record")
    slow, quick = treaty.trainer("DE"), treaty.trainer("FR")  # DE keeps the round open
    hold(slow)
    hold(quick)
    try:
        segment = max((treaty.coordinator_home / "record" / "segments").glob("*.segment"))
        rotate(treaty.programs.logs / "coordinator.log")  # what it says must find room where its record finds none
        with full_disk(treaty.pid("coordinator"), segment.stat().st_size):
            release(quick)
            eventually("FR's update is refused", lambda: refused_for_room(treaty))
            assert treaty.receipts("FR", "no-record")[0]["log_index"] is None
        eventually("it came again", lambda: treaty.receipts("FR", "no-record")[0]["log_index"] is not None)
    finally:
        release(quick)
        release(slow)
    assert treaty.run_ended("no-record")["reason"] == "AllRoundsDone"
    assert treaty.arrays("no-record", 2) == reference
    of_round_1 = [each for each in treaty.receipts("FR", "no-record") if each["round"] == 1]
    assert len(of_round_1) == 1


def rotate(log: Path) -> None:
    """Begin a log anew under its writer, as `copytruncate` does."""
    shutil.copy(log, log.with_suffix(".log.1"))
    os.truncate(log, 0)


def refused_for_room(treaty: TreatyWorld) -> bool:
    said = {"event": "call refused", "method": "Updates/Send", "code": "RESOURCE_EXHAUSTED"}
    return any(said.items() <= each.items() for each in treaty.log_of("coordinator"))


def test_an_agent_without_room_says_so_keeps_serving_and_takes_the_version_later(treaty: TreatyWorld) -> None:
    version = treaty.next_version()
    publish(treaty, version, [padded(build_tiny_llama(treaty.root / "model-larger", seed=6), seed=1)], *LABEL)
    before = treaty.status("FR")["serving"]
    with full_disk(treaty.pid("agent-FR"), LARGEST_FILE_BYTES):
        begin_rollout(treaty, "no-room", version, "--fallback", f"{MODEL}@1.0.0")
        ended = treaty.rollout_ended("no-room")
    assert ended["type"] == "Aborted"
    status = treaty.status("FR")
    [entry] = [each for each in status["rollouts"] if each["rollout"] == "no-room"]
    assert entry["codes"] == ["RESOURCE_EXHAUSTED"]
    assert status["serving"] == before
    assert list((treaty.home("FR") / "staging").iterdir()) == []
    states = {each["nation"]: each["state"] for each in treaty.resource("Rollout", "no-room")["status"]["nations"]}
    assert states["DE"] == "Pending"
    begin_rollout(treaty, "room-again", version, "--fallback", f"{MODEL}@1.0.0")
    assert treaty.rollout_ended("room-again")["type"] == "Succeeded"
    wanted = manifest_digest(treaty, version)
    assert [treaty.status(code)["serving"] for code in LEARNERS] == [wanted, wanted]
