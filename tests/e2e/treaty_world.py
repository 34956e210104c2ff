"""A small treaty, run by the real programs on loopback: one coordinator, three nations, a Llama of a few kilobytes.

    ROOT/keys                  founders, publishers, the treaty's policy
    ROOT/people                client certificates of operator, publisher and auditor
    ROOT/coordinator           the coordinator's home
    ROOT/FR/{home,root,person.key,person.pub,pairs.jsonl}   one nation's machine, its root and its person

FR and DE serve and train; IT is joined and spare, for what an agent does not survive. What people do is typed
(`foedus`, `foedus-agent`, `foedus-coordinator`); looking is by the Operator service, since a test looks often. Each
agent has a line of its own that a test can cut. The coordinator's ports stay the same over a restart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from examples.demo.programs import Done, Programs
from tests.e2e.lines import Line
from tests.e2e.processes import confined_children, eventually
from treaty.wire.v1 import operator_pb2, operator_pb2_grpc

DOMAIN, DNS = "treaty.example", "localhost"
PURPOSE = "public-administration-translation"
MODEL, DATASET = "tiny", "texts"
AGENTS = {"FR": "par-1", "DE": "ber-1", "IT": "rom-1"}
LEARNERS = ("FR", "DE")
SPARE = "IT"
LABEL = ["--licence", "Apache-2.0", "--label", "public", "--rel-to", "EU", "--architecture", "LlamaForCausalLM"]
RECIPE = {
    "rank": 2,
    "alpha": 4,
    "targets": "q_proj,v_proj",
    "steps": 2,
    "batch": 4,
    "learning_rate_micro": 3000,
    "sequence_tokens": 64,
    "precision": "float32",
    "heldout_pairs": 8,
}
CERTIFICATE_SECONDS = 10
"""Life of a certificate in the tests that outlive one: the shortest that a setting allows."""
ENDS = ("Succeeded", "Aborted", "Failed")
AGENT_SETTINGS: Mapping[str, object] = {
    "reconnect_max_seconds": 1,
    "trainer_slots": 4,
    "trainer_idle_seconds": 0,
    "address_ranges": "127.0.0.0/8,::1/128",
    "min_heldout_pairs": 1,
    "min_examples_per_round": 1,
}


@dataclass
class TreatyWorld:
    root: Path
    programs: Programs
    codes: tuple[str, ...] = tuple(AGENTS)
    lines: dict[str, Line] = field(default_factory=dict)
    charter_digest: str = ""
    clocks: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """What makes a nation's programs see another time than this machine's (`faketime.environment`)."""
    versions: int = 1
    _stub: Any = None

    # where things lie

    @property
    def coordinator_home(self) -> Path:
        return self.root / "coordinator"

    @property
    def charter(self) -> Path:
        return self.root / "charter.json"

    def home(self, code: str) -> Path:
        return self.root / code / "home"

    def agent_id(self, code: str) -> str:
        return f"spiffe://{code.lower()}.{DOMAIN}/agent/{AGENTS[code]}"

    def key(self, name: str) -> Path:
        return self.root / "keys" / f"{name}.key"

    def next_version(self) -> str:
        """A version that is newer than all before: agents refuse an older one than they serve."""
        self.versions += 1
        return f"{self.versions}.0.0"

    # what is typed

    def foedus(self, *words: object, role: str = "operator") -> Done:
        return self.programs.run("foedus", *words, env=self.identity(role))

    def foedus_refused(self, *words: object, role: str = "operator") -> Done:
        return self.programs.refused("foedus", *words, env=self.identity(role))

    def attempt(self, *words: object, role: str = "operator") -> Done:
        return self.programs.attempt("foedus", *words, env=self.identity(role))

    def coordinator(self, *words: object) -> Done:
        verb, *rest = words
        return self.programs.run("foedus-coordinator", verb, "--home", self.coordinator_home, *rest)

    def agent(self, code: str, *words: object) -> Done:
        return self.programs.run("foedus-agent", "--home", self.home(code), *words, env=self.clocks.get(code))

    def agent_attempt(self, code: str, *words: object) -> Done:
        return self.programs.attempt("foedus-agent", "--home", self.home(code), *words, env=self.clocks.get(code))

    def status(self, code: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.agent(code, "status", "-o", "json").out)
        return found

    def receipts(self, code: str, run: str) -> list[dict[str, Any]]:
        """What that nation's own account says left it for `run`."""
        said = json.loads(self.agent(code, "receipts", "-o", "json").out)["receipts"]
        return [each for each in said if each["run"] == run]

    def start_run(self, name: str, *, task: str = "train", rounds: int = 2, **changed: object) -> None:
        """Plan and start a run over FR and DE; `changed` are options by their names, or fields of the recipe."""
        words: dict[str, object] = {"quorum": 0, "seed": 7, "deadline": 300, "nations": ",".join(LEARNERS)}
        recipe = RECIPE | {name: value for name, value in changed.items() if name in RECIPE}
        words |= {name: value for name, value in changed.items() if name not in RECIPE}
        options = [word for option, value in words.items() for word in (f"--{option.replace('_', '-')}", value)]
        options += [word for option, value in recipe.items() for word in ("--set", f"{option}={value}")]
        self.foedus(
            "run", "start", name, "--task", task, "--purpose", PURPOSE, "--model", f"{MODEL}@1.0.0", "--rounds", rounds,
            "--clip-norm-micro", 20_000_000, *options, "--yes",
        )  # fmt: skip

    # what is seen

    def resource(self, kind: str, name: str) -> dict[str, Any]:
        """One resource, as an operator reads it. Raises: grpc.RpcError."""
        if self._stub is None:
            people = self.root / "people"
            shown = grpc.ssl_channel_credentials(
                (people / "ca.pem").read_bytes(), (people / "operator-1.key").read_bytes(),
                (people / "operator-1.pem").read_bytes(),
            )  # fmt: skip
            self._channel = grpc.secure_channel(self.endpoint("grpc"), shown)
            self._stub = operator_pb2_grpc.OperatorStub(self._channel)
        request = operator_pb2.GetRequest(kind=kind, name=name)
        answer = self._stub.Get(request, timeout=10, wait_for_ready=True)
        found: dict[str, Any] = json.loads(answer.json)
        return found

    def condition(self, kind: str, name: str, wanted: str) -> dict[str, Any]:
        """That condition of a resource; empty where it has none."""
        conditions = self.resource(kind, name)["status"].get("conditions", [])
        return next((each for each in conditions if each["type"] == wanted), {})

    def run_ended(self, name: str, seconds: float = 300) -> dict[str, Any]:
        """Wait for the run's end; its `Succeeded`."""

        def ended() -> bool:
            return self.condition("FederatedRun", name, "Succeeded").get("status") in ("True", "False")

        eventually(f"run {name} ends", ended, seconds)
        return self.condition("FederatedRun", name, "Succeeded")

    def rollout_ended(self, name: str, seconds: float = 300) -> dict[str, Any]:
        """Wait for the rollout's end; the condition that says how."""

        def ended() -> dict[str, Any]:
            conditions = self.resource("Rollout", name)["status"].get("conditions", [])
            ends = (each for each in conditions if each["type"] in ENDS and each["status"] == "True")
            return next(ends, {})

        return eventually(f"rollout {name} ends", ended, seconds)

    def arrays(self, run: str, number: int) -> bytes:
        """The global arrays after round `number`, as they lie with the coordinator."""
        return (self.coordinator_home / "runs" / run / "arrays" / str(number) / "arrays.safetensors").read_bytes()

    def spooled(self, run: str, number: int, code: str) -> Path:
        return self.coordinator_home / "spool" / "runs" / run / str(number) / f"{code}.update"

    def trainer(self, code: str) -> int:
        """The nation's trainer, once it is confined and before it has imported anything heavy."""
        pid = self.pid(f"agent-{code}")
        return eventually(f"{code} trains", lambda: confined_children(pid, "trainer"), 60)[-1]

    def node_agent(self, code: str) -> dict[str, Any]:
        return self.resource("NodeAgent", f"{code.lower()}-{AGENTS[code]}")

    def is_connected(self, code: str) -> bool:
        """Whether the coordinator holds that agent's stream."""
        with suppress(grpc.RpcError):
            conditions = self.node_agent(code)["status"].get("conditions", [])
            return any(each["type"] == "Connected" and each["status"] == "True" for each in conditions)
        return False

    def log_of(self, name: str) -> list[dict[str, Any]]:
        """What a program has logged, line by line; lines that are not JSON are left out."""
        found = []
        for line in (self.programs.logs / f"{name}.log").read_text("utf-8", "replace").splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
        return found

    # processes

    def pid(self, name: str) -> int:
        return self.programs.daemons[name].process.pid

    def kill(self, name: str) -> None:
        """kill -9, of that process alone."""
        process = self.programs.daemons.pop(name).process
        process.kill()
        process.wait()

    def start_coordinator(self) -> None:
        endpoints = self.coordinator_home / "endpoints.json"
        endpoints.unlink(missing_ok=True)
        daemon = self.programs.start("coordinator", "foedus-coordinator", "serve", "--home", self.coordinator_home)
        eventually("it serves", lambda: endpoints.exists() or daemon.process.poll() is not None, 30)
        assert endpoints.exists(), daemon.log.read_text()[-3000:]

    def start_agent(self, code: str, *, is_awaited: bool = True) -> None:
        words = ("--home", self.home(code), "run")
        self.programs.start(f"agent-{code}", "foedus-agent", *words, env=self.clocks.get(code))
        if is_awaited:
            self.await_connected(code)

    def await_connected(self, code: str, seconds: float = 40) -> None:
        daemon = self.programs.daemons[f"agent-{code}"]

        def settled() -> bool:
            return self.is_connected(code) or daemon.process.poll() is not None

        eventually(f"{code} is connected", settled, seconds)
        assert daemon.process.poll() is None, daemon.log.read_text("utf-8", "replace")[-3000:]

    def endpoint(self, service: str) -> str:
        where = str(json.loads((self.coordinator_home / "endpoints.json").read_text())[service])
        return f"{DNS}:{where.rpartition(':')[2]}"

    def set_agent(self, code: str, **changed: object) -> None:
        """Write that agent's settings; a running one reads them at its next start."""
        path = self.home(code) / "settings.yaml"
        kept = [line for line in path.read_text().splitlines() if line.split(":")[0] in ("nation", "domain", "agent")]
        settings = {**AGENT_SETTINGS, "slots_directory": self.root / "slots", **changed}
        path.write_text("\n".join([*kept, *(f"{name}: {value}" for name, value in settings.items())]) + "\n")

    def close(self) -> None:
        if self._stub is not None:
            self._channel.close()
        self.programs.stop_all()
        for line in self.lines.values():
            line.close()

    def identity(self, role: str) -> dict[str, str]:
        if not (self.coordinator_home / "endpoints.json").exists():
            return {}
        people = self.root / "people"
        return {
            "FOEDUS_COORDINATOR": self.endpoint("grpc"),
            "FOEDUS_CERT": str(people / f"{role}-1.pem"),
            "FOEDUS_KEY": str(people / f"{role}-1.key"),
            "FOEDUS_CA": str(people / "ca.pem"),
            "FOEDUS_CHARTER": str(self.charter),
        }


def new_world(
    root: Path, codes: tuple[str, ...] = tuple(AGENTS), clocks: Mapping[str, Mapping[str, str]] | None = None
) -> TreatyWorld:
    config = {"FOEDUS_CONFIG": str(root / "config.yaml")}
    return TreatyWorld(root, Programs(config, root / "logs"), codes, clocks=dict(clocks or {}))
