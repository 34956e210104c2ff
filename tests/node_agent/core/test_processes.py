"""The real coordinator and the real agent, each in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from tests.node_agent.core.nation import Joined, nation
from treaty.delegation import parse_descriptor
from treaty.version import version

AGENT = [sys.executable, "-m", "node_agent.cli"]
HUB = [sys.executable, "-m", "controlplane"]
OPERATOR = [sys.executable, "-m", "controlplane.cli"]


@contextmanager
def process(arguments: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as file:
        started = subprocess.Popen(arguments, stdout=file, stderr=file)
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def done(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run(arguments, capture_output=True, text=True, timeout=30, env=env, check=False)


class Hub:
    """A coordinator's home, with FR in its charter."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "hub"
        names = ["--party", "EU", "--host", "BE", "--domain", "treaty.example", "--dns", "localhost"]
        assert done([*HUB, "init", "--home", str(self.home), *names]).returncode == 0
        offered = parse_descriptor((self.home / "descriptor.json").read_bytes()).coordinator
        assert offered is not None
        self.joined: Joined = nation(folder)
        charter = replace(self.joined.charter, coordinator=offered)
        self.digest = charter.digest
        (folder / "charter.json").write_bytes(self.joined.world.signed(charter))
        assert done([*HUB, "charter", "--home", str(self.home), str(folder / "charter.json")]).returncode == 0
        out = ["--out", str(folder / "op")]
        assert (
            done(
                [*HUB, "certificate", "--home", str(self.home), "--role", "operator", "--name", "op-1", *out]
            ).returncode
            == 0
        )
        self.operator = {
            "FOEDUS_CERT": str(folder / "op" / "op-1.pem"),
            "FOEDUS_KEY": str(folder / "op" / "op-1.key"),
            "FOEDUS_CA": str(folder / "op" / "ca.pem"),
        }

    def addresses(self, running: subprocess.Popen[bytes]) -> dict[str, str]:
        path, deadline = self.home / "endpoints.json", time.monotonic() + 20
        while not path.exists():
            assert time.monotonic() < deadline, "the coordinator did not start"
            with suppress(subprocess.TimeoutExpired):
                running.wait(timeout=0.1)
        found: dict[str, str] = json.loads(path.read_text())
        return found


def status(joined: Joined) -> dict[str, object]:
    shown = done([*AGENT, "--home", str(joined.home.root), "status", "-o", "json"])
    return dict(json.loads(shown.stdout)["connection"]) if shown.returncode == 0 else {}


def wait_for(joined: Joined, state: str) -> dict[str, object]:
    deadline = time.monotonic() + 30
    while (seen := status(joined)).get("state") != state:
        assert time.monotonic() < deadline, seen
    return seen


def test_an_agent_joins_waits_is_accepted_connects_and_survives_being_killed(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    joined, home = hub.joined, ["--home", str(hub.joined.home.root)]
    joined.root_dir.rename(tmp_path / "away")
    with process([*HUB, "serve", "--home", str(hub.home)], tmp_path / "hub.log") as serving:
        where = hub.addresses(serving)
        hub.operator["FOEDUS_COORDINATOR"] = where["grpc"]
        targets = ["--coordinator", where["grpc"], "--reach", where["reach"], "--charter", hub.digest]
        first = done([*AGENT, *home, "join", *targets])
        assert first.returncode == 0, first.stderr
        assert "waiting: an operator must accept spiffe://fr.treaty.example/agent/par-1" in first.stderr
        assert done([*AGENT, *home, "check"]).returncode == 7

        accepted = done([*OPERATOR, "agent", "accept", "spiffe://fr.treaty.example/agent/par-1"], **hub.operator)
        assert accepted.returncode == 0, accepted.stderr
        assert done([*AGENT, *home, "check"]).returncode == 0
        with process([*AGENT, *home, "run"], tmp_path / "agent.log") as agent:
            wait_for(joined, "online")
            assert done([*AGENT, *home, "run"]).returncode == 7
            agent.send_signal(signal.SIGKILL)
            agent.wait()
            assert status(joined)["state"] == "not running"
        with process([*AGENT, *home, "run"], tmp_path / "agent.log") as agent:
            wait_for(joined, "online")
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(timeout=20) == 0
        lines = [json.loads(line) for line in (tmp_path / "agent.log").read_text().splitlines() if line[:1] == "{"]
        first_line = lines[0]
        assert first_line["event"] == "agent started"
        assert first_line["version"] == version()
        assert (first_line["home"], first_line["nation"]) == (str(joined.home.root), "FR")
        assert (first_line["coordinator"], first_line["sandbox"]) == (where["grpc"], "required")
        assert "tap" not in first_line

        revoked = done(
            [*OPERATOR, "agent", "revoke", "spiffe://fr.treaty.example/agent/par-1", "--reason", "test"], **hub.operator
        )
        assert revoked.returncode == 0, revoked.stderr
        again = done([*AGENT, *home, "join", *targets])
        assert again.returncode == 4
        assert "or this nation's CA, was revoked" in again.stderr
