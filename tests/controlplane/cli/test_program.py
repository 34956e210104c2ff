"""The program itself: help at once, one line an error, exit codes, contexts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controlplane.cli.__main__ import program_name
from controlplane.cli.program import COMMANDS
from controlplane.home import Home, identity_of, initialise
from tests.controlplane.cli.conftest import Foedus
from treaty.cli.program import lazy_group
from treaty.exit_codes import ExitCode
from treaty.names import spiffe_id
from treaty.wire.certificates import issue_client, new_ca

AGENT = "from node_agent.cli.__main__ import run; run_it = lambda: run(['status', '--home', HOME])"
COORDINATOR = """
from controlplane.__main__ import app
from treaty.cli.ending import run_app
run_it = lambda: run_app(app, ['serve', '--home', HOME], name='foedus-coordinator', extra='coordinator')
"""
HEAVY = ("grpc", "cryptography", "rich", "google.protobuf", "sqlalchemy", "numpy", "yaml", "flwr")


def test_help_and_completion_import_nothing_heavy() -> None:
    program = (
        "import sys\nfrom controlplane.cli.__main__ import run\nrun(['--help'])\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stderr.strip().endswith("[]")
    assert "Exit codes:" in ran.stdout


def test_a_shell_completes_nouns_verbs_and_kinds() -> None:
    def completed(words: str) -> list[str]:
        program = "import sys\nfrom controlplane.cli.__main__ import run\nrun([])"
        variables = {"_FOEDUS_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        ran = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=variables
        )
        return ran.stdout.split()

    assert completed("foedus ro") == ["rollout"]
    assert completed("foedus rollout s") == ["status"]
    assert completed("foedus get fe") == ["federatedruns"]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_with_an_example(foedus: Foedus, name: str) -> None:
    group = lazy_group("controlplane.cli.commands", COMMANDS)(name="foedus")
    command = group.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    verbs = getattr(command, "commands", {name: command})
    for verb in verbs.values():
        assert verb.help, verb.name
        assert "Example:  foedus" in (verb.epilog or ""), verb.name
    shown = foedus(name, "--help")
    assert shown.code == 0
    assert "..." not in shown.out.partition("\n")[2], "a verb's line in the help of its noun is cut off"


@pytest.mark.parametrize(
    ("start", "library", "extra"),
    [
        (AGENT, "numpy", "agent"),
        (COORDINATOR, "sqlalchemy", "coordinator"),
    ],
)
def test_a_library_that_this_installation_leaves_out_is_named_with_its_extra(
    tmp_path: Path, start: str, library: str, extra: str
) -> None:
    initialise(Home(tmp_path), identity_of("EU", "BE", "treaty.example", ["localhost"]), datetime.now(UTC))
    program = f"import sys\nHOME = {str(tmp_path)!r}\nsys.modules[{library!r}] = None\n{start}\nsys.exit(run_it())"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == ExitCode.PRECONDITION
    assert ran.stderr == f"error: {library} is not installed here\n  pip install 'foedus[{extra}]'\n"


@pytest.mark.parametrize("program", ["controlplane.cli", "controlplane", "node_agent.cli"])
def test_every_program_says_its_version(program: str) -> None:
    ran = subprocess.run([sys.executable, "-m", program, "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"foedus(-agent|-coordinator)? [1-9]?\d*\.\d+\.\d+\n", ran.stdout)


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["nope"], 2, "error: no such command 'nope'"),
        (["get"], 2, "error: missing argument 'KIND'"),
        (["get", "gadgets"], 2, "error: no such kind; one of nations, nodeagents"),
        (["get", "nations", "-o", "xml"], 2, "error: invalid value for '--output'"),
        (["get", "nations"], 7, "error: no coordinator to talk to: coordinator, cert, key, ca not set"),
        (["--context", "eu", "get", "nations"], 3, "error: there is no context 'eu'"),
        (["charter", "digest", "missing.json"], 3, "error: there is no charter missing.json"),
        (["model", "publish", "--name", "a", "--version", "1.0.0", "--key", "k"], 2, "error: either a folder or a run"),
        (["audit", "verify"], 7, "error: no charter to believe"),
        (["apply", "-f", "missing.yaml"], 3, "error: there is no file missing.yaml"),
    ],
)
def test_an_error_is_one_line_and_a_number(foedus: Foedus, arguments: list[str], code: int, line: str) -> None:
    said = foedus(*arguments)
    assert said.code == code
    assert said.err.startswith(line)
    assert said.out == ""
    assert len(said.err.strip().split("\n")) <= 2


@pytest.mark.parametrize(
    ("coordinator", "line"),
    [
        ("noport", "error: the coordinator 'noport' is not HOST:PORT"),
        ("localhost:0", "error: the coordinator 'localhost:0' is not HOST:PORT"),
        ("localhost:1", "error: the client key"),
    ],
)
def test_what_cannot_be_dialled_is_said_before_it_is_dialled(
    foedus: Foedus, tmp_path: Path, coordinator: str, line: str
) -> None:
    path = tmp_path / "not.pem"
    path.write_text("not PEM")
    said = foedus("--coordinator", coordinator, "--cert", path, "--key", path, "--ca", path, "get", "nations")
    assert said.code == 2
    assert said.err.startswith(line)
    assert len(said.err.strip().split("\n")) == 1


DOMAIN = "treaty.example"
NOW = datetime.now(UTC)


def issue(folder: Path, name: str, *, ago: timedelta = timedelta(0)) -> None:
    """A client's key and certificate for an hour, and its CA, made that long ago."""
    ca = new_ca("coordinator", DOMAIN, NOW - ago)
    who = spiffe_id(f"spiffe://coordinator.{DOMAIN}/operator/{name}", DOMAIN)
    own = issue_client(ca, who, NOW - ago, timedelta(hours=1))
    (folder / f"{name}.key").write_bytes(own.key_pem())
    (folder / f"{name}.pem").write_bytes(own.certificate_pem())
    (folder / f"{name}-ca.pem").write_bytes(ca.certificate_pem())


@pytest.mark.parametrize(
    ("cert", "key", "ca", "code", "line"),
    [
        ("a.pem", "a.key", "a-ca.pem", 0, ""),
        ("a.pem", "b.key", "a-ca.pem", 2, "the client key {}/b.key is not the key of the client certificate {}/a.pem"),
        ("a.pem", "a.key", "b-ca.pem", 2, "the coordinator's CA {}/b-ca.pem did not issue the client certificate {}/a"),
        ("old.pem", "old.key", "old-ca.pem", 7, "the client certificate {}/old.pem ended at "),
        ("new.pem", "new.key", "new-ca.pem", 7, "the client certificate {}/new.pem begins at "),
        ("a.key", "a.key", "a-ca.pem", 2, "the client certificate {}/a.key is not PEM, or is locked by a password"),
        ("a.pem", "a.pem", "a-ca.pem", 2, "the client key {}/a.pem is not PEM, or is locked by a password"),
        ("a.pem", "a.key", "a.key", 2, "the coordinator's CA {}/a.key is not PEM, or is locked by a password"),
        ("gone.pem", "a.key", "a-ca.pem", 3, "there is no client certificate {}/gone.pem"),
    ],
)
def test_the_file_that_does_not_fit_is_named_before_a_context_holds_it(
    foedus: Foedus, tmp_path: Path, cert: str, key: str, ca: str, code: int, line: str
) -> None:
    for name, days in (("a", 0), ("b", 0), ("old", 1), ("new", -1)):
        issue(tmp_path, name, ago=timedelta(days=days))
    files = ("--cert", tmp_path / cert, "--key", tmp_path / key, "--ca", tmp_path / ca)
    said = foedus("config", "set-context", "eu", "--coordinator", "hub:7443", *files)
    assert said.code == code, said.err
    assert said.err.startswith(f"error: {line.format(tmp_path, tmp_path)}" if line else "")
    assert (tmp_path / "config.yaml").exists() == (code == 0)
    if code:
        called = foedus("--coordinator", "localhost:1", *files, "get", "nations")
        assert (called.code, called.err) == (code, said.err)


def test_a_context_whose_address_or_charter_is_none_is_not_set(foedus: Foedus, tmp_path: Path) -> None:
    said = foedus("config", "set-context", "eu", "--coordinator", "hub")
    assert (said.code, said.err) == (2, "error: the coordinator 'hub' is not HOST:PORT\n")
    said = foedus("config", "set-context", "eu", "--charter", tmp_path / "charter.json")
    assert (said.code, said.err.splitlines()[0]) == (3, f"error: there is no charter {tmp_path / 'charter.json'}")
    assert not (tmp_path / "config.yaml").exists()


def test_contexts_are_set_used_and_listed(foedus: Foedus, tmp_path: Path) -> None:
    issue(tmp_path, "op")
    for name in ("eu", "nato"):
        said = foedus("config", "set-context", name, "--coordinator", f"{name}:7443", "--cert", tmp_path / "op.pem")
        assert said.code == 0
    assert foedus("config", "use-context", "nato").out == "current context is nato\n"
    listed = foedus("config", "get-contexts").out.split("\n")
    assert listed[0] == "CURRENT   NAME   COORDINATOR   CERTIFICATE"
    assert listed[2].split()[:3] == ["*", "nato", "nato:7443"]
    assert json.loads(foedus("config", "get-contexts", "-o", "json").out)["current"] == "nato"
    assert foedus("config", "use-context", "un").code == 3


def test_a_misspelt_field_of_the_configuration_is_refused(foedus: Foedus, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("contexts: {eu: {coordinater: hub:1}}\ncurrent-context: eu\n")
    said = foedus("get", "nations")
    assert said.code == 2
    assert "context 'eu' has an unknown field 'coordinater'" in said.err


def test_the_program_is_called_as_people_call_it() -> None:
    assert program_name("/usr/bin/kubectl-foedus") == "kubectl foedus"
    assert program_name("/usr/bin/foedus") == "foedus"
    assert program_name("controlplane/cli/__main__.py") == "foedus"
