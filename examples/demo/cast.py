"""Who plays, and where: the coordinator's machine, five nations' machines, and the people with their keys.

    RUN/founders, publishers, policy   keys of those who sign, each in a folder of its own
    RUN/people                         client certificates of operator, publisher and auditor
    RUN/coordinator                    the coordinator's home
    RUN/nations/FR/{home,data}         one nation: its agent's home and its texts
    RUN/vault/FR/{root,persons}        that nation's root and persons' keys, carried away once they have signed
    RUN/taps/FR                        the plain bytes of everything that left the agent
    RUN/logs                           what the long-running programs wrote

Each agent reaches the coordinator through a relay of its own, which counts. Nobody here shares a key or a folder.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from examples.demo import canary
from examples.demo.findings import Findings, NationFindings
from examples.demo.programs import DemoFailed, Done, Programs
from examples.demo.relay import Relay
from examples.demo.settings import CODES, DNS, NATIONS, NationSettings
from examples.demo.telling import Telling

START_SECONDS: Final = 30
AT_ONCE: Final = 3
"""Short commands at a time: each is mostly Python's own start."""


class Cast:
    """Everything that the acts share. `folder` is wiped first: each demo begins from nothing."""

    def __init__(self, folder: Path, prepared: Path, telling: Telling) -> None:
        self.folder = folder
        self.run_dir = folder / "run"
        self.prepared = prepared
        self.telling = telling
        self.findings = Findings({code: NationFindings() for code in CODES})
        self.mark = canary.new_mark()
        self.relays: dict[str, Relay] = {}
        self.charter_digest = ""
        shutil.rmtree(self.run_dir, ignore_errors=True)
        self.run_dir.mkdir(parents=True, mode=0o700)
        config = {"FOEDUS_CONFIG": str(self.run_dir / "people" / "config.yaml")}
        self.programs = Programs(config, self.run_dir / "logs")

    # Where things lie.

    @property
    def charter(self) -> Path:
        return self.run_dir / "founders" / "charter.json"

    @property
    def coordinator_home(self) -> Path:
        return self.run_dir / "coordinator"

    @property
    def people(self) -> Path:
        return self.run_dir / "people"

    def home(self, code: str) -> Path:
        return self.run_dir / "nations" / code / "home"

    def data(self, code: str) -> Path:
        return self.run_dir / "nations" / code / "data" / "pairs.jsonl"

    def vault(self, code: str) -> Path:
        return self.run_dir / "vault" / code

    def tap(self, code: str) -> Path:
        return self.run_dir / "taps" / code

    def person_key(self, code: str) -> Path:
        return self.vault(code) / "persons" / "person-1.key"

    def signing_key(self, office: str, name: str) -> Path:
        return self.run_dir / office / f"{name}.key"

    # What is typed, and as whom.

    def foedus(self, *words: object, role: str = "operator") -> Done:
        return self.programs.run("foedus", *words, env=self.identity(role))

    def foedus_refused(self, *words: object, role: str = "operator") -> Done:
        return self.programs.refused("foedus", *words, env=self.identity(role))

    def follow(self, *words: object, say: Callable[[str], None] | None = None, must_succeed: bool = True) -> Done:
        """A command whose lines are shown as they come."""
        env = self.identity("operator")
        return self.programs.follow(say or self.telling.say, "foedus", *words, env=env, must_succeed=must_succeed)

    def agent(self, code: str, *words: object) -> Done:
        return self.programs.run("foedus-agent", "--home", self.home(code), *words)

    def agent_json(self, code: str, *words: object) -> Any:
        return json.loads(self.agent(code, *words, "--output", "json").out)

    def resource(self, kind: str, name: str) -> dict[str, Any]:
        """One resource of the coordinator, as JSON."""
        found = json.loads(self.foedus("get", kind, name, "-o", "json").out)
        if not isinstance(found, dict):
            raise DemoFailed(f"'foedus get {kind} {name} -o json' printed something other than a resource")
        return found

    def identity(self, role: str) -> dict[str, str]:
        """The environment by which `foedus` knows whose certificate to show."""
        if not (self.coordinator_home / "endpoints.json").exists():
            return {}
        return {
            "FOEDUS_COORDINATOR": f"{DNS}:{self.endpoint('grpc')[1]}",
            "FOEDUS_CERT": str(self.people / f"{role}-1.pem"),
            "FOEDUS_KEY": str(self.people / f"{role}-1.key"),
            "FOEDUS_CA": str(self.people / "ca.pem"),
            "FOEDUS_CHARTER": str(self.charter),
        }

    def each_nation(self, act: Callable[[NationSettings], object]) -> None:
        """Do `act` for every nation, a few at a time; the first failure is raised."""
        self.several(act, NATIONS)

    def several(self, act: Callable[[Any], object], what: Iterable[Any]) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(act, what):
                continue

    # Processes.

    def start_coordinator(self, home: Path, name: str = "coordinator") -> None:
        """Start one and wait until it says where it listens."""
        endpoints = home / "endpoints.json"
        endpoints.unlink(missing_ok=True)
        self.programs.start(name, "foedus-coordinator", "serve", "--home", home)
        self.programs.wait_until(f"{name} writes {endpoints}", endpoints.exists, START_SECONDS)

    def endpoint(self, service: str, home: Path | None = None) -> tuple[str, int]:
        """Host and port of the coordinator's `grpc` or `reach`."""
        found = json.loads(((home or self.coordinator_home) / "endpoints.json").read_text())
        host, _, port = str(found[service]).rpartition(":")
        return host, int(port)

    def relayed(self, code: str) -> tuple[int, int]:
        """Ports of this nation's relay for the session and for Reach; opened at the first call."""
        relay = self.relays[code] = Relay()
        return relay.carry(self.endpoint("grpc")), relay.carry(self.endpoint("reach"))

    def start_agent(self, code: str) -> None:
        self.programs.start(f"agent-{code}", "foedus-agent", "run", "--home", self.home(code))

    def stop_agent(self, code: str) -> None:
        self.programs.stop(f"agent-{code}")

    def wait_connected(self, code: str) -> float:
        """Wait until the coordinator sees the agent connected; how long it took, in seconds."""
        began = time.monotonic()
        self.programs.wait_until(
            f"the agent of {code} is connected",
            lambda: self.agent_json(code, "status")["connection"]["state"] == "online",
            START_SECONDS,
        )
        return time.monotonic() - began

    def close(self) -> None:
        """Stop every program and relay. Idempotent."""
        self.programs.stop_all()
        for relay in self.relays.values():
            relay.close()
