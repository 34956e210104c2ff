"""A treaty of two nations on loopback, made with the real programs: what the benchmarks of whole processes run on.

One founder, publisher and policy key each; a coordinator and the agents of FR and DE, each a process with a home of its
own. Nothing is shortened: certificates, policies, receipts and the record are those of a real treaty.
"""

from __future__ import annotations

import json
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import policies
from examples.demo.programs import Daemon, DemoFailed, Done, Programs

NATIONS = {"FR": "fr", "DE": "de"}
"""Nation and the language of its texts."""
DOMAIN = "bench.example"
WAIT_SECONDS = 60
LOOK_EVERY_SECONDS = 0.005


@dataclass(frozen=True, slots=True, order=True)
class Start:
    """How long a program took to be there, and how long it was on a CPU for it."""

    seconds: float
    cpu_seconds: float


class Stage:
    """The treaty in `folder`; `close` stops every process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = Programs({"FOEDUS_CONFIG": str(folder / "config.yaml")}, folder / "logs")
        self.coordinator = folder / "coordinator"
        self._charter = folder / "charter.json"
        self._ready_ports: dict[str, int] = {}

    def close(self) -> None:
        self.programs.stop_all()

    def home(self, code: str) -> Path:
        return self.folder / code / "home"

    def key(self, name: str) -> Path:
        return self.folder / "keys" / f"{name}.key"

    def foedus(self, *words: object, role: str = "operator") -> Done:
        return self.programs.run("foedus", *words, env=self._identity(role))

    def agent(self, code: str, *words: object) -> Done:
        return self.programs.run("foedus-agent", "--home", self.home(code), *words)

    def found(self) -> None:
        """Keys, homes and a signed charter, loaded by the coordinator."""
        for name in ("founder", "publisher", "policy"):
            self.foedus("key", "new", name, "--out", self.folder / "keys")
        who = ("--party", "EU", "--host", "BE", "--domain", DOMAIN, "--dns", "localhost")
        self._run_coordinator("init", *who)
        ports = f"grpc_address: 127.0.0.1:{free_port()}\nreach_address: 127.0.0.1:{free_port()}\n"
        (self.coordinator / "settings.yaml").write_text(ports, encoding="utf-8")  # the same after a restart
        for code in NATIONS:
            root, person = self.folder / code / "root", code.lower()
            words = ("--nation", code, "--domain", DOMAIN, "--agent", f"{code.lower()}-1")
            self.agent(code, "init", "--root-dir", root, *words)
            self.foedus("key", "new", person, "--out", self.folder / "keys")
            public = ("--public-key", self.folder / "keys" / f"{person}.pub", "--powers", "consent,overlay")
            self.agent(code, "delegate", "person", "--root-dir", root, *public)
        self._sign_charter()
        for role in ("operator", "publisher"):
            self._run_coordinator("certificate", "--role", role, "--name", role, "--out", self.folder / "people")

    def _sign_charter(self) -> None:
        public = self.folder / "keys"
        words: list[object] = ["--treaty", "bench", "--domain", DOMAIN, "--founder", public / "founder.pub"]
        words += ["--publisher", public / "publisher.pub", "--treaty-policy", public / "policy.pub"]
        words += ["--coordinator", self.coordinator / "descriptor.json", "--out", self._charter]
        words += [word for code in NATIONS for word in ("--nation", self.home(code) / "descriptor.json")]
        self.foedus("charter", "init", *words, "--body", f"EU:BE:{','.join(sorted(NATIONS))}")
        self.foedus("charter", "sign", self._charter, "--key", self.key("founder"))
        self._run_coordinator("charter", self._charter)

    def join(self) -> None:
        """The agents join and are accepted; the coordinator must be running."""
        digest = self.foedus("charter", "digest", self._charter).out.strip()
        endpoints = self._endpoints()
        for code in NATIONS:
            words = ("--coordinator", _by_name(endpoints["grpc"]), "--reach", _by_name(endpoints["reach"]))
            self.agent(code, "join", *words, "--charter", digest)
            self.foedus("agent", "accept", f"spiffe://{code.lower()}.{DOMAIN}/agent/{code.lower()}-1")
            self._ready_ports[code] = port = free_port()
            with (self.home(code) / "settings.yaml").open("a", encoding="utf-8") as settings:
                settings.write(f"metrics_address: 127.0.0.1:{port}\nslots_directory: {self.folder / 'slots'}\n")
                settings.write("min_heldout_pairs: 1\nmin_examples_per_round: 1\n")  # the bench's rounds are tiny

    def put_policies_in_force(self) -> None:
        """The treaty's bundle and an overlay each; the agents must be running."""
        bundles = self.folder / "bundles"
        for authority, name, key in (
            ("treaty", "treaty", "policy"),
            *((f"nation.{code}", code.lower(), code.lower()) for code in NATIONS),
        ):
            words = ("--bundle", policies.compiled_path(name), "--authority", authority, "--out", bundles)
            self.foedus("policy", "sign", *words, "--key", self.key(key))
        self.foedus("policy", "push", bundles / "treaty-1.tar.gz", bundles / "treaty-1.json")
        for code in NATIONS:
            bundle = bundles / f"nation.{code}-1.tar.gz"
            self.agent(code, "policy", "load", bundle, "--envelope", bundles / f"nation.{code}-1.json")
        self.programs.wait_until("both policies are in force", self._decides_everywhere, WAIT_SECONDS)

    def _decides_everywhere(self) -> bool:
        shown = [json.loads(self.agent(code, "status", "--output", "json").out)["policies"] for code in NATIONS]
        return all(revisions["treaty_revision"] and revisions["overlay_revision"] for revisions in shown)

    def serve_model(self, model: Path) -> None:
        """Publish `model` as tiny@1.0.0 and let both nations serve it."""
        about = ("--licence", "Apache-2.0", "--label", "public", "--rel-to", "EU", "--architecture", "LlamaForCausalLM")
        words = ("--name", "tiny", "--version", "1.0.0", *about, "--key", self.key("publisher"))
        self.foedus("model", "publish", model, *words, role="publisher")
        waves = ("--wave", f"all={','.join(NATIONS)}", "--fallback", "none", "--health-prompt", "hello")
        self.foedus("rollout", "create", "first", "--model", "tiny@1.0.0", *waves, "--deadline", 300)
        self.programs.wait_until("both nations serve the model", lambda: self._has_ended("rollout", "first"), 120)

    def register_dataset(self, code: str, pairs: Path, purpose: str) -> None:
        words = ("--language", NATIONS[code], "--class", "administrative-text")
        self.agent(code, "dataset", "add", "texts", pairs, "--purpose", purpose, *words)

    def start_run(self, name: str, *words: object) -> None:
        """Start a federated run on the model over both nations."""
        self.foedus("run", "start", name, "--model", "tiny@1.0.0", "--nations", ",".join(NATIONS), "--yes", *words)

    def await_file(self, path: Path, seconds: float = WAIT_SECONDS) -> None:
        """Look for a file rather than ask: a command is Python's whole start, on the cores that are being measured."""
        self._wait(f"{path.name} is written", path.exists, seconds)

    def await_run(self, name: str) -> None:
        self.programs.wait_until(f"run {name} ends", lambda: self._has_ended("federatedrun", name), WAIT_SECONDS)

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time so far of each long-running program, and of its children as `NAME's children`."""
        used = {}
        for name, daemon in self.programs.daemons.items():
            used[name] = _cpu_seconds(daemon.process.pid)
            used[f"{name}'s children"] = sum(_cpu_seconds(child) for child in _children(daemon.process.pid))
        return used

    def _has_ended(self, kind: str, name: str) -> bool:
        """Raises: DemoFailed: it ended otherwise than well."""
        conditions = json.loads(self.foedus("get", kind, name, "-o", "json").out)["status"].get("conditions", [])
        ended = {each["type"]: each for each in conditions}
        if any(ended.get(bad, {}).get("status") == "True" for bad in ("Aborted", "Failed", "Cancelled")) or (
            ended.get("Succeeded", {}).get("status") == "False"
        ):
            raise DemoFailed(f"{kind} {name} did not succeed: {conditions}")
        return bool(ended.get("Succeeded", {}).get("status") == "True")

    def start_coordinator(self) -> Start:
        """Start it, until it answers on its port."""
        endpoints = self.coordinator / "endpoints.json"
        endpoints.unlink(missing_ok=True)
        began = time.perf_counter()
        daemon = self.programs.start("coordinator", "foedus-coordinator", "serve", "--home", self.coordinator)
        self._wait("the coordinator serves", lambda: endpoints.exists() and _answers(self._endpoints()["grpc"]))
        return _since(began, daemon)

    def start_agent(self, code: str) -> Start:
        """Start it, until it says that it is connected."""
        began = time.perf_counter()
        daemon = self.programs.start(code, "foedus-agent", "run", "--home", self.home(code))
        self._wait(f"{code} is connected", lambda: _is_ready(self._ready_ports[code]))
        return _since(began, daemon)

    def _wait(self, what: str, is_so: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
        """As `Programs.wait_until`, looking more often: a start takes tenths of a second."""
        deadline = time.monotonic() + seconds
        while not is_so():
            self.programs.check_alive()
            if time.monotonic() > deadline:
                raise SystemExit(f"waited {seconds:.0f} s in vain: {what}; see {self.folder / 'logs'}")
            time.sleep(LOOK_EVERY_SECONDS)

    def _endpoints(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.coordinator / "endpoints.json").read_text(encoding="utf-8"))
        return found

    def _run_coordinator(self, verb: str, *words: object) -> None:
        self.programs.run("foedus-coordinator", verb, "--home", self.coordinator, *words)

    def _identity(self, role: str) -> dict[str, str]:
        if not (self.coordinator / "endpoints.json").exists():
            return {}
        people = self.folder / "people"
        return {
            "FOEDUS_COORDINATOR": _by_name(self._endpoints()["grpc"]),
            "FOEDUS_CERT": str(people / f"{role}.pem"),
            "FOEDUS_KEY": str(people / f"{role}.key"),
            "FOEDUS_CA": str(people / "ca.pem"),
            "FOEDUS_CHARTER": str(self._charter),
        }


def _since(began: float, daemon: Daemon) -> Start:
    return Start(time.perf_counter() - began, _cpu_seconds(daemon.process.pid))


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime


def _children(pid: int) -> set[int]:
    """All processes below `pid`."""
    found: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text(encoding="ascii").split()):
            found |= {child, *_children(child)}
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _by_name(address: str) -> str:
    return f"localhost:{address.rpartition(':')[2]}"


def _answers(address: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))) == 0


def _is_ready(port: int) -> bool:
    """Whether the agent's /readyz says that it is connected."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
