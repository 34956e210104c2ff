"""The program as whoever runs its machine sees it: a real process, its exit codes, its one line when it refuses."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from controlplane.home import Home
from tests.controlplane.api.world import home_of, load_charter
from treaty.exit_codes import ExitCode
from treaty.names import PartyCode
from treaty.version import version
from treaty.wire.certificates import new_ca
from treaty.wire.credentials import plain_channel
from treaty.wire.v1 import reach_pb2, reach_pb2_grpc

PROGRAM = (sys.executable, "-m", "controlplane")
START_SECONDS = 30


def told(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, check=False, timeout=START_SECONDS)


class Served:
    """`serve` as a child process."""

    def __init__(self, home: Home) -> None:
        home.endpoints.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [*PROGRAM, "serve", "--home", str(home.root)], stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.line: dict[str, str] = json.loads(line)
            if self.line["event"] == "serving":
                break
        self.endpoints: dict[str, str] = json.loads(home.endpoints.read_text())

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        _, _ = self.process.communicate(timeout=START_SECONDS)
        return self.process.returncode


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made, charters = home_of(tmp_path)
    asyncio.run(load_charter(made, charters.signed()))
    return made


def test_it_serves_every_port_stops_cleanly_and_starts_again_after_a_kill(home: Home) -> None:
    first = Served(home)
    with urlopen(f"http://{first.endpoints['metrics']}/metrics") as page:
        assert b"foedus_coordinator_record_entries" in page.read()
    with grpc.insecure_channel(first.endpoints["health"]) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    for service in ("grpc", "reach"):
        port = first.endpoints[service].removeprefix("localhost:")
        assert first.endpoints[f"{service}_bound"] == f"127.0.0.1:{port}"
    assert (first.line["home"], first.line["grpc_bound"]) == (str(home.root), first.endpoints["grpc_bound"])
    assert first.line["version"] == version()
    digest = asyncio.run(greeted(home, first.endpoints["reach"]))
    second_server = told("serve", "--home", str(home.root))
    assert second_server.returncode == ExitCode.PRECONDITION
    assert second_server.stderr.splitlines()[-2:] == [
        "error: another process has the log open",
        "  stop the other coordinator",
    ]
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    again = Served(home)
    assert asyncio.run(greeted(home, again.endpoints["reach"])) == digest
    assert again.end(signal.SIGTERM) == 0


async def greeted(home: Home, endpoint: str) -> str:
    async with plain_channel(endpoint, home.ca_pem.read_bytes()) as channel:
        stub: Any = reach_pb2_grpc.ReachStub(channel)
        digest: str = (await stub.Greet(reach_pb2.GreetRequest(), wait_for_ready=True, timeout=5)).charter_digest
        return digest


def test_each_missing_step_is_named_in_one_line(tmp_path: Path) -> None:
    home = str(tmp_path / "eu")
    not_made = told("serve", "--home", home)
    assert (not_made.returncode, not_made.stderr) == (
        ExitCode.NOT_FOUND,
        f"error: {home} is not a coordinator's home\n  run 'foedus-coordinator init' first\n",
    )
    made = ("init", "--home", home, "--party", "EU", "--host", "BE", "--domain", "treaty.example", "--dns", "localhost")
    assert told(*made).returncode == 0
    assert told(*made).stderr == f"error: {home} is a coordinator already\n  choose another --home\n"
    no_charter = told("serve", "--home", home)
    assert no_charter.stderr.splitlines()[-2:] == [
        "error: the coordinator has no charter",
        "  load one with 'foedus-coordinator charter --home DIR FILE'",
    ]


def test_help_is_plain_and_a_wrong_option_is_one_line_with_the_way_to_help() -> None:
    shown = told("--help")
    assert shown.returncode == 0
    assert "Exit codes:" in shown.stdout
    assert "\\" not in shown.stdout
    assert "\x1b" not in shown.stdout
    for verb in ("init", "charter", "certificate", "serve", "recover"):
        assert "Example:" in told(verb, "--help").stdout
    wrong = told("serve")
    assert (wrong.returncode, wrong.stderr) == (
        ExitCode.USAGE,
        "error: missing option '--home'\n  foedus-coordinator serve --help\n",
    )


def test_its_ca_names_people_and_never_an_agent(home: Home, tmp_path: Path) -> None:
    common = ("certificate", "--home", str(home.root), "--out", str(tmp_path / "out"))
    assert told(*common, "--role", "auditor", "--name", "aud-1").returncode == 0
    assert (tmp_path / "out" / "aud-1.key").stat().st_mode & 0o777 == 0o600
    refused = told(*common, "--role", "agent", "--name", "par-1")
    assert refused.returncode == ExitCode.USAGE
    assert refused.stderr.startswith(
        "error: invalid value for '--role': 'agent' is not one of 'operator', 'publisher', 'auditor'\n"
    )
    assert "[operator|publisher|auditor]" in told("certificate", "--help").stdout
    again = told(*common, "--role", "auditor", "--name", "aud-1")
    assert "exists already" in again.stderr


def test_what_is_made_is_told_in_json_where_it_is_asked(tmp_path: Path) -> None:
    home, charters = home_of(tmp_path)
    file = tmp_path / "charter.json"
    file.write_bytes(charters.signed())
    loaded = told("charter", "--home", str(home.root), str(file), "-o", "json")
    assert json.loads(loaded.stdout)["version"] == 1
    out = tmp_path / "out"
    common = ("--home", str(home.root), "--out", str(out), "--role", "operator", "--name", "op-1")
    issued = json.loads(told("certificate", *common, "-o", "json").stdout)
    assert issued["identity"] == "spiffe://coordinator.treaty.example/operator/op-1"
    assert {issued[what] for what in ("certificate", "key", "ca")} == {str(path) for path in out.iterdir()}


def test_a_file_that_is_no_charter_is_named(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "notes.json"
    file.write_text("{nothing}")
    refused = told("charter", "--home", str(home.root), str(file))
    assert refused.stderr == f"error: {file}: not a JSON text: line 1, column 2\n"


def test_a_database_that_does_not_answer_is_named_without_its_password(home: Home) -> None:
    home.settings.write_text("store_url: postgresql://foedus:secret@127.0.0.1:1/treaty\n")
    refused = told("serve", "--home", str(home.root))
    assert refused.returncode == ExitCode.UNAVAILABLE
    assert refused.stderr.splitlines()[-2:] == [
        "error: the database could not be used now: PostgreSQL at 127.0.0.1:1, database treaty",
        "  is it up, and reached from here? it is store_url of settings.yaml",
    ]


def test_a_charter_that_names_another_coordinator_is_refused(home: Home, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    _, others = home_of(tmp_path / "other")
    file = tmp_path / "charter.json"
    file.write_bytes(others.signed())
    refused = told("charter", "--home", str(home.root), str(file))
    assert refused.stderr == (
        "error: the charter names another CA for the coordinator\n  serve from the home it was made in\n"
    )


def test_a_charter_of_another_domain_than_the_homes_is_refused(home: Home, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    _, others = home_of(tmp_path / "other")
    file = tmp_path / "charter.json"
    file.write_bytes(others.signed(replace(others.charter(), domain="other.example")))
    refused = told("charter", "--home", str(home.root), str(file))
    assert refused.stderr == (
        "error: the charter is of the domain other.example, and this coordinator of treaty.example\n"
        "  draft the charter for the domain of 'foedus-coordinator init'\n"
    )


def test_a_charter_with_a_nations_ca_of_another_domain_is_not_loaded(tmp_path: Path) -> None:
    home, charters = home_of(tmp_path)
    charters.cas[PartyCode("FR")] = new_ca("fr", "other.example", datetime.now(UTC))
    file = tmp_path / "charter.json"
    file.write_bytes(charters.signed())
    refused = told("charter", "--home", str(home.root), str(file))
    assert refused.returncode == ExitCode.USAGE
    assert refused.stderr.startswith("error: the CA of FR is constrained to fr.other.example, and this charter needs")
    assert "no charter" in told("serve", "--home", str(home.root)).stderr


def test_the_coordinators_process_never_loads_flower_or_torch() -> None:
    script = (
        "import sys, controlplane.bootstrap, controlplane.store.sql.store\n"
        "print(sorted({'flwr', 'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
