"""init, delegate, and the verbs that need no coordinator: what they make, and what they refuse and how."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from node_agent import enrol, telltale
from node_agent.cli.__main__ import run
from node_agent.home import Home
from node_agent.logwatch import LogWatch
from node_agent.overview import overview
from node_agent.settings import read_settings
from tests.node_agent.core.nation import Joined, nation
from treaty import statement
from treaty.delegation import AGENT_POWERS, Delegation, Power, parse_delegation, parse_descriptor, verify_delegation
from treaty.errors import PreconditionFailed
from treaty.keys import new_signing_key, read_signing_key, write_key
from treaty.names import PartyCode
from treaty.wire.certificates import BACKDATED

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip()


def init(folder: Path, *more: str) -> int:
    arguments = ["--nation", "FR", "--domain", "treaty.example", "--agent", "par-1", *more]
    return run(["init", "--home", str(folder / "fr"), "--root-dir", str(folder / "root"), *arguments])


def test_init_makes_a_home_closed_to_others_and_leaves_the_root_outside(tmp_path: Path) -> None:
    assert init(tmp_path) == 0
    home = Home(tmp_path / "fr")
    for private in (home.agent_key, home.ca_key, tmp_path / "root" / "root.key"):
        assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
    offered = parse_descriptor(home.descriptor.read_bytes()).nation
    assert offered is not None
    assert offered.code == "FR"
    assert not list(home.root.rglob("root*"))


def test_init_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init(tmp_path)
    before = (tmp_path / "fr" / "tls" / "ca.key").read_bytes()
    capsys.readouterr()
    assert init(tmp_path) == 7
    assert said(capsys) == f"error: {tmp_path}/fr has an agent already\n  choose another --home"
    assert (tmp_path / "fr" / "tls" / "ca.key").read_bytes() == before


def test_init_refuses_a_nation_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init(tmp_path, "--nation", "fr") == 2
    assert "'fr' is not a nation code" in said(capsys)
    assert not (tmp_path / "fr" / "settings.yaml").exists()


def test_a_person_is_delegated_by_the_root_and_only_what_persons_may_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    joined = nation(tmp_path)
    key = new_signing_key()
    _, public = write_key(tmp_path / "person", "admin", key)
    common = ["--home", str(joined.home.root), "--root-dir", str(joined.root_dir), "--public-key", str(public)]
    assert run(["delegate", "person", *common, "--powers", "consent,overlay"]) == 0
    envelopes = [path.read_bytes() for path in joined.home.delegations.glob("*.json")]
    an_hour_behind = datetime.now(UTC) - timedelta(hours=1)
    found = [verify_delegation(joined.charter, envelope, an_hour_behind) for envelope in envelopes]
    (person,) = [delegation for delegation in found if delegation.agent is None]
    assert (person.key.key_id, person.powers) == (key.key_id, frozenset({Power.CONSENT, Power.OVERLAY}))
    capsys.readouterr()
    assert run(["delegate", "person", *common, "--powers", "receipt"]) == 2
    assert "a person's powers are break-glass, consent, overlay, revoke" in said(capsys)


def renewed(joined: Joined, begun: datetime) -> Delegation:
    """Renew the agent's delegation where the one in force begins at `begun`."""
    settings, root = read_settings(joined.home.settings), read_signing_key(joined.root_dir / "root.key")
    key = read_signing_key(joined.home.agent_key).verification
    held = Delegation(PartyCode("FR"), key, AGENT_POWERS, settings.agent, begun, begun + timedelta(days=1))
    (path,) = joined.home.delegations.glob("*.json")
    path.write_bytes(statement.sign(held.statement(), [root]))
    enrol.delegate_agent(joined.home, root, PartyCode("FR"), settings.agent, key, now=NOW, days=9)
    return parse_delegation(statement.unverified(path.read_bytes()))


def test_a_renewed_delegation_begins_after_the_one_that_an_earlier_version_dated_by_the_clock(tmp_path: Path) -> None:
    joined = nation(tmp_path)
    for begun in (NOW - timedelta(hours=1), NOW - BACKDATED):
        assert renewed(joined, begun).issued_at == begun + timedelta(seconds=1)
    after = renewed(joined, NOW - timedelta(days=3))
    assert (after.issued_at, after.expires_at) == (NOW - BACKDATED, NOW + timedelta(days=9))


def test_a_delegation_is_not_renewed_by_a_clock_that_is_behind_its_beginning(tmp_path: Path) -> None:
    joined = nation(tmp_path)
    with pytest.raises(PreconditionFailed) as refused:
        renewed(joined, NOW + timedelta(minutes=1))
    said = "the delegation in force begins at 2026-11-28T12:01:00Z, and it is 2026-11-28T12:00:00Z here"
    assert (refused.value.code, refused.value.message) == ("CLOCK_OFF", said)
    assert refused.value.remedy == "set this machine's clock by NTP, then delegate again"


def test_what_another_root_delegated_before_does_not_count(tmp_path: Path) -> None:
    joined = nation(tmp_path)
    (path,) = joined.home.delegations.glob("*.json")
    key = read_signing_key(joined.home.agent_key).verification
    held = Delegation(PartyCode("FR"), key, AGENT_POWERS, "par-1", NOW, NOW + timedelta(days=1))
    path.write_bytes(statement.sign(held.statement(), [new_signing_key()]))
    root = read_signing_key(joined.root_dir / "root.key")
    enrol.delegate_agent(joined.home, root, PartyCode("FR"), "par-1", key, now=NOW, days=9)
    assert parse_delegation(statement.unverified(path.read_bytes())).issued_at == NOW - BACKDATED


def test_delegating_without_the_root_s_folder_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    joined = nation(tmp_path)
    joined.root_dir.rename(tmp_path / "away")
    assert run(["delegate", "agent", "--home", str(joined.home.root), "--root-dir", str(joined.root_dir)]) == 3
    assert "no key file" in said(capsys)


def test_verbs_say_what_to_run_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--home", str(tmp_path)]) == 3
    assert "run 'foedus-agent init' first" in said(capsys)
    joined = nation(tmp_path)
    assert run(["status", "--home", str(joined.home.root)]) == 7
    assert "foedus-agent join --coordinator" in said(capsys)


def test_status_shows_the_agent_that_is_not_running(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    joined = nation(tmp_path)
    joined.join("localhost:1")
    assert run(["brake", "on", "--home", str(joined.home.root)]) == 0
    capsys.readouterr()
    assert run(["status", "--home", str(joined.home.root), "-o", "json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert seen["agent"] == "spiffe://fr.treaty.example/agent/par-1"
    assert (seen["running"], seen["connection"]["state"], seen["brake_on"]) == (False, "not running", True)
    assert seen["charter"]["digest"] == joined.charter.digest
    assert run(["status", "--home", str(joined.home.root)]) == 0
    assert "ON: nothing trains, nothing leaves" in capsys.readouterr().out


def test_a_home_whose_charter_was_exchanged_is_not_believed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    joined, other = nation(tmp_path), nation(tmp_path / "other")
    joined.join("localhost:1")
    (path,) = joined.home.charters.glob("*.json")
    path.write_bytes(other.envelope)
    assert run(["status", "--home", str(joined.home.root)]) == 4
    assert "not the pinned" in said(capsys)


def test_a_charter_with_another_ca_under_our_name_is_not_believed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    joined = nation(tmp_path)
    foreign = joined.world.charter()  # FR's entry is the builder's, not ours
    joined.charter, joined.envelope = foreign, joined.world.signed(foreign)
    joined.join("localhost:1")
    assert run(["status", "--home", str(joined.home.root)]) == 4
    assert "the charter names another root for FR than ours" in said(capsys)


STARTING = {
    "lease_until": None,
    "trouble": None,
    "coordinator_is_behind": False,
    "highest_accepted": None,
    "open": [],
    "metrics": "",
    "health": "",
    "at": None,
}
"""All but the state, while the process has said nothing yet."""


def test_two_agents_cannot_run_on_one_home(joined_home: Joined, capsys: pytest.CaptureFixture[str]) -> None:
    with joined_home.home.occupied():
        assert joined_home.home.is_occupied()
        assert run(["run", "--home", str(joined_home.home.root)]) == 7
    assert "an agent already runs" in said(capsys)
    assert not joined_home.home.is_occupied()


def test_what_an_earlier_process_said_last_is_not_taken_for_the_one_that_runs(
    joined_home: Joined, capsys: pytest.CaptureFixture[str]
) -> None:
    base = joined_home.lay()
    base.journal.note(telltale.KIND, telltale.NAME, {"pid": os.getpid() + 1, "connection": "online"})
    with joined_home.home.occupied():
        assert overview(base)["connection"] == {**STARTING, "state": "starting"}
        base.journal.note(telltale.KIND, telltale.NAME, {"pid": os.getpid(), "connection": "online"})
        assert overview(base)["connection"] == {**STARTING, "state": "online"}
    base.close()


def test_a_log_that_contradicted_itself_fails_verification_until_a_person_has_looked(
    joined_home: Joined, capsys: pytest.CaptureFixture[str]
) -> None:
    home = str(joined_home.home.root)
    assert run(["log", "verify", "--home", home]) == 0
    base = joined_home.lay()
    base.journal.set_fact("log_alarm", "CONSISTENCY_REFUSED: forked")
    base.close()
    capsys.readouterr()
    assert run(["log", "verify", "--home", home]) == 4
    assert "contradicted itself (CONSISTENCY_REFUSED: forked)" in said(capsys)
    assert run(["log", "verify", "--home", home, "--acknowledge"]) == 0
    base = joined_home.lay()
    assert LogWatch(base.journal, base.nation).alarm == ""
    base.close()


def test_receipts_of_a_fresh_nation_are_an_empty_log(joined_home: Joined, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["receipts", "--home", str(joined_home.home.root), "-o", "json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert (seen["receipts"], seen["counts"], seen["log"]["size"]) == ([], {}, 0)


def test_check_names_the_first_thing_that_stands_in_the_way(
    joined_home: Joined, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", "--home", str(joined_home.home.root), "-o", "json"]) == 7
    findings = {entry["check"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert findings["charter"]["good"]
    assert findings["delegation"]["good"]
    assert findings["coordinator"]["found"] == "nothing answers at localhost:1, the mutual TLS port"
    assert findings["tls"] == {
        "check": "tls",
        "good": False,
        "found": "no TLS server answers at localhost:1, the Reach port",
        "remedy": "check the address, the network and any proxy",
    }


def test_check_of_a_home_that_has_not_joined_names_the_step_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", "--home", str(nation(tmp_path).home.root)]) == 7
    assert said(capsys) == (
        "error: this agent has not joined a treaty\n"
        "  foedus-agent join --coordinator HOST:PORT --reach HOST:PORT --charter sha256:…"
    )


def test_check_says_when_the_agent_s_delegation_has_ended(
    joined_home: Joined, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in joined_home.home.delegations.glob("*.json"):
        path.unlink()
    run(["check", "--home", str(joined_home.home.root), "-o", "json"])
    findings = {entry["check"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert findings["delegation"]["remedy"] == "run 'foedus-agent delegate agent'"


@pytest.fixture
def joined_home(tmp_path: Path) -> Joined:
    joined = nation(tmp_path)
    joined.join("localhost:1")
    return joined


def test_an_expired_charter_lets_the_agent_start_and_check_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    joined = nation(tmp_path)
    past = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=1)
    expired = replace(joined.charter, issued_at=past - timedelta(days=1), expires_at=past)
    joined.charter, joined.envelope = expired, joined.world.signed(expired)
    joined.join("localhost:1")
    assert run(["check", "--home", str(joined.home.root), "-o", "json"]) == 7
    findings = {entry["check"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert "expired at" in findings["charter"]["found"]


def test_files_that_a_person_gives_are_named_by_what_is_wrong_with_them(
    joined_home: Joined, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = ["--home", str(joined_home.home.root)]
    bad = tmp_path / "nation.FR-1.json"
    bad.write_text("[")
    (tmp_path / "nation.FR-1.tar.gz").write_bytes(b"no bundle")
    assert run(["policy", "load", str(tmp_path / "nation.FR-1.tar.gz"), *home]) == 2
    assert said(capsys).startswith(f"error: {bad}: not a JSON text: line 1, column 2")
    assert run(["policy", "load", str(tmp_path), *home]) == 2
    assert said(capsys).startswith(f"error: the bundle {tmp_path} cannot be read")
    about = ["--purpose", "translation", "--language", "fr", "--class", "minutes"]
    assert run(["dataset", "add", "texts", str(bad), *about, *home]) == 2
    assert said(capsys) == f"error: {bad}: line 1 of the dataset is not a pair of source and target"
    assert run(["dataset", "add", "texts", str(tmp_path / "gone"), *about, *home]) == 3
    assert said(capsys) == f"error: no file {tmp_path / 'gone'}\n  check the path"
    key = write_key(tmp_path, "ana", new_signing_key())[0]
    arguments = ["--key", str(key), "--passphrase-file", str(tmp_path / "gone"), "--reason", "lost", *home]
    assert run(["revoke", "spiffe://fr.treaty.example/agent/par-1", *arguments]) == 3
    assert said(capsys) == f"error: there is no passphrase {tmp_path / 'gone'}\n  check the path"
    joined_home.home.membership.write_text("{}")
    assert run(["check", *home]) == 2
    assert said(capsys).startswith(f"error: {joined_home.home.membership}: ")


def test_what_was_done_is_told_in_json_where_it_is_asked(
    joined_home: Joined, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = ["--home", str(joined_home.home.root), "-o", "json"]
    file = tmp_path / "texts.jsonl"
    file.write_text('{"source": "a house", "target": "une maison"}\n')
    about = ["--purpose", "translation", "--language", "fr", "--class", "minutes"]
    assert run(["dataset", "add", "texts", str(file), *about, *home]) == 0
    assert json.loads(capsys.readouterr().out)["records"] == 1
    assert run(["dataset", "remove", "texts", *home]) == 0
    assert json.loads(capsys.readouterr().out)["is_withdrawn"] is True
    assert run(["log", "verify", *home]) == 0
    assert json.loads(capsys.readouterr().out) == {"origin": "coordinator.treaty.example/log", "size": 0, "root": ""}


def test_the_default_home_stands_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--help"]) == 0
    assert "default FOEDUS_AGENT_HOME, else ~/.local/share/foedus-agent" in " ".join(capsys.readouterr().out.split())


def test_unknown_verbs_and_options_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["frobnicate"]) == 2
    assert said(capsys).startswith("error: no such command 'frobnicate'")
    assert run(["brake", "sideways"]) == 2


def test_the_program_s_help_loads_neither_grpc_nor_cryptography_nor_torch() -> None:
    code = (
        "import sys; from node_agent.cli.__main__ import run; run(['--help']);"
        "print([m for m in ('grpc', 'cryptography', 'torch', 'numpy', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "Exit codes:" in done.stdout


def test_the_agent_s_process_loads_no_torch() -> None:
    code = "import sys; import node_agent.agent, node_agent.work; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
