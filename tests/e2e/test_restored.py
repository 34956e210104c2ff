"""A coordinator restored from yesterday: found out by its agents, and silent until an export makes its record whole."""

from __future__ import annotations

import json
import shutil

import pytest

from examples.demo.programs import DemoFailed
from tests.e2e.ceremonies import push_policy
from tests.e2e.processes import eventually
from tests.e2e.treaty_world import TreatyWorld

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("e2e")]

NATION = "DE"


def test_yesterdays_coordinator_directs_nothing_until_it_is_recovered(joined: TreatyWorld) -> None:
    home = joined.coordinator_home
    joined.programs.stop("coordinator")
    shutil.copytree(home, joined.root / "yesterday")
    joined.start_coordinator()
    joined.await_connected(NATION)
    seen = log_size(joined)
    push_policy(joined, 2)
    eventually("revision 2 is in force", lambda: revision(joined) == 2)
    eventually("its agent has seen today's record", lambda: log_size(joined) > seen)
    accepted = joined.status(NATION)["connection"]["highest_accepted"]
    evidence = joined.root / "evidence"
    joined.foedus("audit", "export", evidence)  # what an auditor keeps
    joined.programs.stop("coordinator")

    home.rename(joined.root / "today")
    shutil.copytree(joined.root / "yesterday", home)
    joined.start_coordinator()
    joined.await_connected(NATION)
    halted = eventually("it knows that it is behind", lambda: is_behind(joined))
    assert halted["status"] == "False"
    assert " log entries, the record has " in halted["message"]
    eventually("its agent says so", lambda: joined.status(NATION)["connection"]["coordinator_is_behind"])
    with pytest.raises(DemoFailed, match="was restored from a backup, and adds nothing to its record"):
        push_policy(joined, 3)
    assert joined.status(NATION)["connection"]["highest_accepted"] == accepted
    assert revision(joined) == 2

    joined.programs.stop("coordinator")
    # The record is made whole first; without that the nations would refuse this log.
    taken = json.loads(joined.coordinator("recover", "--record", evidence, "--reason", "disk replaced").out)
    assert taken["epoch"] == 2
    assert taken["was_halted_because"] == halted["message"]
    assert taken["restored_entries"] > 0
    joined.start_coordinator()
    joined.await_connected(NATION)
    joined.foedus("policy", "push", joined.root / "bundles/treaty-3.tar.gz", joined.root / "bundles/treaty-3.json")
    eventually("revision 3 is in force", lambda: revision(joined) == 3)
    exported = len((evidence / "entries.jsonl").read_text().splitlines())
    eventually("its agent believes what was recorded since", lambda: log_size(joined) > exported)
    status = joined.status(NATION)
    assert status["connection"]["highest_accepted"].startswith("2.")
    assert status["connection"]["coordinator_is_behind"] is False
    assert status["log"]["alarm"] == ""

    joined.agent(NATION, "receipts", "--tally")
    eventually("the agent has its tally proved in the record", lambda: proofs_asked(joined) > 0 and is_proved(joined))


def revision(world: TreatyWorld) -> int:
    """Of the treaty's policy, as the nation has it in force."""
    return int(world.status(NATION)["policies"]["treaty_revision"])


def log_size(world: TreatyWorld) -> int:
    """Of the last checkpoint that the nation's agent believed."""
    return int(world.status(NATION)["log"]["size"])


def proofs_asked(world: TreatyWorld) -> int:
    counts = json.loads(world.agent(NATION, "receipts", "-o", "json").out)["counts"]
    return int(counts.get("proof-request", {"messages": 0})["messages"])


def is_proved(world: TreatyWorld) -> bool:
    log = world.status(NATION)["log"]
    return log["unproved"] == 0 and log["alarm"] == ""


def is_behind(world: TreatyWorld) -> dict[str, str]:
    """What the coordinator says of itself on that agent; nothing while it directs."""
    conditions = world.node_agent(NATION)["status"]["conditions"]
    return next((each for each in conditions if each["reason"] == "CoordinatorBehind"), {})
