"""Commands against a coordinator over real mutual TLS: what is shown, what is sent, how each refusal ends."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from tests.builders.charters import DOMAIN
from tests.controlplane.cli.conftest import Foedus, Ran
from tests.controlplane.cli.hub import Hub, serving
from tests.controlplane.cli.records import RecordBuilder, shrunk
from tests.controlplane.cli.test_views import planned, run_resource
from treaty import statement
from treaty.adapter import ARRAYS_FILE, encode_arrays, read_adapter
from treaty.keys import new_signing_key, write_key
from treaty.label import Classification, label
from treaty.lineage import Lineage
from treaty.manifest import Description, Manifest, parse_manifest
from treaty.manifest_build import build
from treaty.names import ModelRef, PartyCode, digest_of, spiffe_id
from treaty.resources.meta import new_resource
from treaty.resources.models import MODEL_VERSION, Label, ModelVersionSpec
from treaty.resources.nations import NATION, NODE_AGENT, NationSpec, NodeAgentSpec
from treaty.resources.rollouts import ROLLOUT, RolloutSpec, RolloutStatus, Wave
from treaty.statement import StatementKind
from treaty.strict_json import canonical, parse_object
from treaty.wire.certificates import issue_client, new_ca


class Calls:
    """One coordinator and a way to run commands against it."""

    def __init__(self, foedus: Foedus, hub: Hub, builder: RecordBuilder, flags: list[str], folder: Path) -> None:
        self.hub, self.builder, self.flags, self.folder = hub, builder, flags, folder
        self._foedus = foedus

    def __call__(self, *arguments: object) -> Ran:
        return self._foedus(*self.flags, *arguments)


@pytest.fixture
def calls(foedus: Foedus, tmp_path: Path) -> Iterator[Calls]:
    hub, builder = Hub(), RecordBuilder()
    (tmp_path / "charter.json").write_bytes(builder.treaty.signed(builder.charter))
    with serving(hub, builder.treaty, tmp_path) as flags:
        yield Calls(foedus, hub, builder, [*flags, "--charter", str(tmp_path / "charter.json")], tmp_path)


def test_resources_are_listed_page_by_page_in_each_form(calls: Calls) -> None:
    for code in ("FR", "DE"):
        calls.hub.put(new_resource(NATION, code.lower(), NationSpec(PartyCode(code), (PartyCode("EU"),))))
    listed = calls("get", "nations")
    assert (
        listed.out
        == "NAME   CODE   READY     MEMBER OF   AGE\nde     DE     Unknown   EU\nfr     FR     Unknown   EU\n"
    )
    assert calls("get", "nations", "-o", "name").out == "nation/de\nnation/fr\n"
    assert [item["spec"]["code"] for item in json.loads(calls("get", "nations", "-o", "json").out)["items"]] == [
        "DE",
        "FR",
    ]
    assert calls("get", "nation", "fr", "-o", "yaml").out.startswith("apiVersion: foedus.dev/v1alpha1\nkind: Nation\n")


def test_what_is_not_there_is_not_found_and_nothing_is_an_empty_list(calls: Calls) -> None:
    said = calls("get", "nation", "xx")
    assert (said.code, said.err) == (3, "error: there is no Nation xx\n")
    assert calls("get", "rollouts").err == "no rollouts found\n"


def test_the_trace_id_that_is_shown_is_the_one_that_is_sent(calls: Calls) -> None:
    calls.hub.put(new_resource(NATION, "fr", NationSpec(PartyCode("FR"))))
    said = calls("-v", "get", "nation", "fr")
    trace_id = said.err.strip().removeprefix("trace ")
    assert calls.hub.traces[0].split("-")[1] == trace_id


def test_a_coordinator_that_is_not_there_is_unavailable(calls: Calls) -> None:
    calls.flags[1] = "localhost:1"
    said = calls("get", "nations")
    assert said.code == 6
    assert said.err.startswith("error: the coordinator cannot be reached")
    assert "is it up at localhost:1?" in said.err


AGENT = "spiffe://fr.treaty.example/agent/par-1"


def test_an_agent_that_was_never_seen_is_revoked_in_advance_and_the_answer_says_so(calls: Calls) -> None:
    said = calls("agent", "revoke", AGENT, "--reason", "laptop lost")
    assert (said.code, said.out) == (0, f"{AGENT} is not known here yet; revoked in advance\n")
    calls.hub.put(new_resource(NODE_AGENT, "fr-par-1", NodeAgentSpec(AGENT, PartyCode("FR"))))
    assert calls("agent", "revoke", AGENT, "--reason", "laptop lost").out == f"{AGENT} revoked\n"
    assert calls.hub.revoked == [(AGENT, "laptop lost")] * 2


def test_a_revocation_needs_a_reason(calls: Calls) -> None:
    said = calls("agent", "revoke", AGENT)
    assert (said.code, said.err.splitlines()[0]) == (2, "error: missing option '--reason'")
    assert calls.hub.revoked == []


@pytest.mark.parametrize(("answer", "more", "is_revoked"), [("n", [], False), ("y", [], True), ("", ["--yes"], True)])
def test_a_person_at_a_terminal_is_asked_before_anything_is_revoked(
    calls: Calls, answer: str, more: list[str], is_revoked: bool
) -> None:
    keyboard, terminal = pty.openpty()
    try:
        os.write(keyboard, f"{answer}\n".encode())
        command = [sys.executable, "-m", "controlplane.cli", *calls.flags, "agent", "revoke", AGENT]
        ran = subprocess.run(
            [*command, "--reason", "stolen", *more], stdin=terminal, capture_output=True, text=True, check=False
        )
    finally:
        os.close(keyboard)
        os.close(terminal)
    assert ran.returncode == (0 if is_revoked else 130), ran.stderr
    assert (f"Cut off {AGENT}? It cannot be taken back. [y/N]" in ran.stderr) == (not more)
    assert calls.hub.revoked == ([(AGENT, "stolen")] if is_revoked else [])


def test_what_a_verb_did_is_a_line_or_the_resource_itself(calls: Calls) -> None:
    calls.hub.put(run_resource())
    calls.hub.put(new_resource(NATION, "fr", NationSpec(PartyCode("FR"))))
    assert calls("run", "cancel", "tr-1").out == "federatedrun/tr-1 cancelled\n"
    assert json.loads(calls("run", "cancel", "tr-1", "-o", "json").out)["metadata"]["name"] == "tr-1"
    assert calls("delete", "nation", "fr", "-o", "name").out == "nation/fr\n"
    said = calls("agent", "revoke", AGENT, "--reason", "lost", "-o", "json")
    assert json.loads(said.out) == {"subject": AGENT, "reason": "lost", "inAdvance": True}
    published = json.loads(calls("charter", "publish", calls.folder / "charter.json", "-o", "json").out)
    assert published["version"] == 2
    calls.hub.record = calls.builder.whole().offered()
    exported = json.loads(calls("audit", "export", calls.folder / "evidence", "-o", "json").out)
    assert exported == {"entries": 9, "directory": str(calls.folder / "evidence")}


@pytest.mark.parametrize(("verb", "said"), [("pause", "paused"), ("resume", "resumed"), ("abort", "aborted")])
def test_a_rollout_that_is_controlled_is_shown_as_it_was_asked(calls: Calls, verb: str, said: str) -> None:
    spec = RolloutSpec(ModelRef("demo@1.0.0"), digest_of(b"manifest"), (Wave("wave-1", (PartyCode("FR"),)),))
    calls.hub.put(new_resource(ROLLOUT, "demo-1", spec, status=RolloutStatus()))
    assert calls("rollout", verb, "demo-1").out == f"rollout/demo-1 {said}\n"
    assert json.loads(calls("rollout", verb, "demo-1", "-o", "json").out)["kind"] == "Rollout"


def alone(calls: Calls, *more: object) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own, whose standard error gRPC shares."""
    command = [sys.executable, "-m", "controlplane.cli", *calls.flags, *map(str, more)]
    without = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=without)


def test_another_coordinators_server_is_named_and_grpc_says_nothing(calls: Calls) -> None:
    stranger = new_ca("coordinator", DOMAIN, datetime.now(UTC))
    own = issue_client(stranger, spiffe_id(f"spiffe://coordinator.{DOMAIN}/operator/op-1", DOMAIN), datetime.now(UTC))
    (calls.folder / "cert.pem").write_bytes(own.certificate_pem())
    (calls.folder / "key.pem").write_bytes(own.key_pem())
    (calls.folder / "ca.pem").write_bytes(stranger.certificate_pem())
    said = alone(calls, "get", "nations")
    assert said.returncode == 4
    assert said.stderr == (
        f"error: the server at {calls.flags[1]} is not the coordinator of the CA {calls.folder}/ca.pem, "
        "by name, issuer or time\n  check --coordinator and --ca: foedus config get-contexts\n"
    )


def test_a_server_by_another_name_is_told(calls: Calls) -> None:
    calls.flags[1] = calls.flags[1].replace("localhost", "127.0.0.1")
    said = alone(calls, "get", "nations")
    assert said.returncode == 4
    assert said.stderr.startswith(f"error: the server at {calls.flags[1]} is not the coordinator of the CA")


def run_flags(*more: object) -> tuple[object, ...]:
    return ("tr-1", "--model", "demo@1.0.0", "--nations", "fr,de,it", "--purpose", "translation", *more)


def test_a_run_starts_from_the_plan_that_was_shown_and_is_followed(calls: Calls) -> None:
    shown = planned(is_startable=True)
    calls.hub.plan = (canonical(shown.document), shown.digest)
    calls.hub.put(run_resource())
    view = {"name": "tr-1", "nations": {"FR": {"round": 1, "stage": "Training"}}, "rounds_done": []}
    calls.hub.progress = [canonical(view), canonical({**view, "nations": {}})]
    said = calls("run", "start", *run_flags("--yes", "--follow"))
    assert said.code == 0, said.err
    assert calls.hub.started == [shown.digest]
    assert said.err == "FR round 1 Training\n"
    assert "raw records: 0" in said.out
    assert "held-out perplexity" in said.out


def test_a_run_that_nobody_agreed_to_does_not_start(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = planned(is_startable=True)
    calls.hub.plan = (canonical(shown.document), shown.digest)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _text: "n")
    said = calls("run", "start", *run_flags())
    assert said.code == 130
    assert calls.hub.started == []


def test_a_missed_quorum_ends_with_the_code_of_a_policys_no(calls: Calls) -> None:
    shown = planned(is_startable=False)
    calls.hub.plan = (canonical(shown.document), "")
    said = calls("run", "start", *run_flags("--yes", "-o", "json"))
    assert said.code == 5
    assert json.loads(said.out)["nations"]["IT"]["codes"] == ["DAT-003"]
    assert "the quorum is 3 (IT: DAT-003) [DAT-003]" in said.err
    assert calls.hub.started == []


def test_an_audit_keeps_its_checkpoint_and_refuses_a_log_that_shrank(calls: Calls) -> None:
    whole = calls.builder.whole().offered()
    seen = calls.folder / "seen.note"
    calls.hub.record = whole
    said = calls("audit", "verify", "--state", seen, "-o", "json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["raw_records"] == 0
    assert seen.read_bytes() == whole.note
    calls.hub.record = shrunk(whole, 6, calls.builder)
    refused = calls("audit", "verify", "--state", seen)
    assert refused.code == 4
    assert refused.err.startswith("error: the log has fewer than the 9 entries that were seen before")
    assert seen.read_bytes() == whole.note


def test_an_audit_that_finds_something_exits_with_untrusted_and_keeps_nothing(calls: Calls) -> None:
    builder = calls.builder.whole(FR=replace(calls.builder.receipt(PartyCode("FR")), size_bytes=1))
    calls.hub.record = builder.offered()
    said = calls("audit", "verify", "--state", calls.folder / "seen.note")
    assert said.code == 4
    assert "FR: 1 bytes receipted, 5000 received" in said.out
    assert "the record does not hold: 1 findings" in said.err
    assert not (calls.folder / "seen.note").exists()


def test_an_export_is_verified_without_the_coordinator(calls: Calls) -> None:
    calls.hub.record = calls.builder.whole().offered()
    folder = calls.folder / "evidence"
    assert calls("audit", "export", folder).code == 0
    calls.hub.record = None
    assert calls("audit", "verify", "--from", folder).code == 0
    lines = (folder / "entries.jsonl").read_text().splitlines()
    (folder / "entries.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    assert "covers 9 entries, 8 were shown" in calls("audit", "verify", "--from", folder).err


def base(folder: Path) -> Manifest:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(encode_arrays({"x": np.ones((2, 2), np.float32)}))
    about = Description(
        "demo", "1.0.0", None, "LlamaForCausalLM", "MIT", label(Classification.PUBLIC, ["EU"]), Lineage()
    )
    return build(folder, about)


def signed(manifest: Manifest, *keys: object) -> bytes:
    predicate = parse_object(manifest.encoded, max_bytes=10**6)
    return statement.sign(statement.document(StatementKind.MANIFEST, manifest.ref, predicate), keys)  # type: ignore[arg-type]


def test_a_runs_result_is_published_as_an_adapter_on_its_base(calls: Calls, tmp_path: Path) -> None:
    manifest = base(tmp_path / "base")
    key = new_signing_key()
    write_key(tmp_path, "pub", key)
    run = run_resource()
    recipe = {
        "rank": 2,
        "alpha": 4,
        "targets": ["q_proj"],
        "steps": 1,
        "batch": 1,
        "learning_rate_micro": 1,
        "sequence_tokens": 8,
        "precision": "float32",
        "prompt_template": "{source} {target}",
        "heldout_pairs": 1,
    }
    calls.hub.put(new_resource(MODEL_VERSION, "demo-2.0.0", _spec(manifest)))
    calls.hub.put(replace(run, spec=replace(run.spec, recipe=recipe)))
    calls.hub.manifests = {"demo@1.0.0": signed(manifest, key)}
    arrays = {"l.q_proj.lora_A.weight": np.full((2, 4), 0.5, np.float32)}
    calls.hub.result = {"report.json": b"{}" * 100, ARRAYS_FILE: encode_arrays(arrays)}
    said = calls(
        *("model", "publish", "--from-run", "tr-1", "--name", "demo", "--version", "2.0.0"),
        *("--key", tmp_path / "pub.key", "--keep", tmp_path / "adapter"),
    )
    assert said.code == 0, said.err
    shape, found = read_adapter(tmp_path / "adapter")
    assert (shape.rank, shape.alpha, shape.targets) == (2, 4, ("q_proj",))
    assert np.array_equal(found["l.q_proj.lora_A.weight"], arrays["l.q_proj.lora_A.weight"])
    claimed = statement.verify(calls.hub.published[0], StatementKind.MANIFEST, [key.verification], 1).statement
    about = parse_manifest(canonical(claimed.predicate)).about
    assert (about.base, about.lineage.run, about.label) == (manifest.digest, "tr-1", manifest.about.label)
    assert [evaluation.name for evaluation in about.evaluations] == ["heldout-loss-de", "heldout-loss-fr"]
    assert len(calls.hub.chunks) == len(parse_manifest(canonical(claimed.predicate)).chunk_bytes)


def _spec(manifest: Manifest) -> ModelVersionSpec:
    return ModelVersionSpec("demo", "2.0.0", manifest.digest, "MIT", Label("public"))


def test_a_version_is_verified_by_the_charters_publishers(calls: Calls, tmp_path: Path) -> None:
    manifest = base(tmp_path / "base")
    publishers = calls.builder.treaty.publishers
    calls.hub.manifests = {"demo@1.0.0": signed(manifest, *publishers[:2])}
    said = calls("model", "verify", "demo@1.0.0", "-o", "json")
    assert json.loads(said.out)["digest"] == manifest.digest
    calls.hub.manifests = {"demo@1.0.0": signed(manifest, publishers[0])}
    refused = calls("model", "verify", "demo@1.0.0")
    assert (refused.code, refused.err) == (4, "error: this manifest has 1 valid signatures of the 2 it needs\n")


def test_nobody_signs_another_version_than_was_asked_for(calls: Calls, tmp_path: Path) -> None:
    manifest = base(tmp_path / "base")
    write_key(tmp_path, "pub", new_signing_key())
    calls.hub.manifests = {"demo@1.0.1": signed(manifest), "demo@1.0.0": signed(manifest)}
    said = calls("model", "sign", "demo@1.0.1", "--key", tmp_path / "pub.key")
    assert (said.code, said.err) == (4, "error: the coordinator answered demo@1.0.0 instead of demo@1.0.1\n")
    wrong = calls("model", "sign", "demo@1.0.0", "--key", tmp_path / "pub.key", "--digest", "sha256:" + "0" * 64)
    assert wrong.code == 4
    assert "not what you were told" in wrong.err
