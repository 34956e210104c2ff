"""What an admin decides about one agent: read once at start, checked whole, passed down by value.

HOME/settings.yaml holds the fields of `Settings`; an unknown key is an error, a missing one takes the default shown
here. The environment is read in this file and nowhere else: FOEDUS_AGENT_HOME names the default home, and the proxy
variables are shown by `foedus-agent check`, because they change where a connection goes. GRPC_VERBOSITY is set to NONE
where nobody set it.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from treaty import names
from treaty.errors import InvalidInput, NotFound
from treaty.label import Classification

MAX_SETTINGS_BYTES: Final = 64 * 1024
INITIAL_ADDRESS_RANGES: Final = "127.0.0.0/8, ::1/128, 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fc00::/7"
DEFAULT_HOME: Final = "~/.local/share/foedus-agent"
_PROXIES: Final = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "no_proxy", "no_grpc_proxy")


class Sandbox(StrEnum):
    REQUIRED = "required"
    NONE = "none"


class PolicyEngine(StrEnum):
    EMBEDDED = "embedded"
    OPA = "opa"


@dataclass(frozen=True, slots=True)
class Settings:
    nation: str
    """ISO 3166-1 alpha-2, upper case; written by `init`."""
    domain: str
    """The treaty's DNS domain; written by `init`."""
    agent: str
    """This agent's name within the nation, for example par-1; written by `init`."""

    certificate_lifetime_seconds: int = 8 * 3600
    """Of the leaf that the agent issues to itself; renewed at half. Below four hours only in tests: a coordinator that
    is down, or a clock that is off, must not strand the agent. 10 to 86400."""
    reconnect_max_seconds: int = 15
    """Longest pause between two attempts to reach the coordinator. 1 to 300."""
    tally_seconds: int = 300
    """How often the counts of what left are signed and submitted. 1 to 86400."""
    metrics_address: str = "127.0.0.1:0"
    """Where Prometheus metrics and HTTP health are served, host:port; port 0 takes a free one, shown by `status`;
    empty: nowhere."""
    health_address: str = "127.0.0.1:0"
    """Where gRPC health (grpc.health.v1) is served to probes; as `metrics_address`. Services: `node_agent.health`."""
    log_level: str = "info"
    """debug, info, warning or error."""
    tap: str = ""
    """A file to which the plain bytes of everything that leaves are appended; empty: none. For inspection: it grows."""

    region: str = ""
    """Where the cluster stands, as the treaty's register of accredited regions names it; empty: the nation's first, for
    example fr-1."""
    clearance: str = "public"
    """What the agent's own health and evaluation prompts may see: a classification of the treaty."""
    address_ranges: str = ""
    """CIDRs, separated by commas, from which this nation's agents call. `init` writes loopback and the private ranges
    (RFC 1918, RFC 4193): narrow them to your own. Empty: policies are told of none, and a treaty that asks (AGT-005)
    denies."""

    keep_versions: int = 3
    """Model versions that stay on this agent's disk after a rollout succeeded; what is served, its fallback, their
    bases and what is under way stay in any case. 1 to 64."""

    sandbox: Sandbox = Sandbox.REQUIRED
    """`none` lets training run where the kernel offers no confinement; the receipt then says so."""
    policy_engine: PolicyEngine = PolicyEngine.EMBEDDED
    """`opa`: a sidecar at `opa_url`."""
    opa_url: str = "http://127.0.0.1:8181"
    """Only used with `policy_engine: opa`."""

    min_heldout_pairs: int = 16
    """Held-out pairs below which this agent measures nothing for the coordinator: a loss over fewer says something of
    single records. 1 to 4096."""
    min_examples_per_round: int = 32
    """Examples below which this agent does not train a round: an update of fewer says something of single records.
    1 to 2560000."""

    trainer_program: str = ""
    """Absolute path of a Python file with `main(pipe)` that takes the place of our trainer, inside the same layers and
    believed no more than ours; empty: ours."""
    trainer_threads: int = 1
    """CPU threads of one trainer. 1 to 256."""
    trainer_memory_bytes: int = 4 * 2**30
    """Limit of a trainer's private memory. 64 MiB to 16 TiB."""
    trainer_cpu_seconds: int = 24 * 3600
    """CPU time of one warm trainer over its life, of which a run has at least half. 1 to 2592000."""
    trainer_idle_seconds: int = 60
    """How long a trainer stays after a run, for another on the same base and the same dataset. 0 to 3600."""
    slots_directory: str = ""
    """Folder of lock files by which all agents of one machine take turns at training; empty: one in the system's
    temporary folder."""
    trainer_slots: int = 0
    """Trainers that may compute at once on this machine; 0: cores divided by `trainer_threads`."""


_BOUNDS: Final[Mapping[str, tuple[int, int]]] = {
    "certificate_lifetime_seconds": (10, 86_400),
    "reconnect_max_seconds": (1, 300),
    "tally_seconds": (1, 86_400),
    "min_heldout_pairs": (1, 4096),
    "min_examples_per_round": (1, 2_560_000),
    "keep_versions": (1, 64),
    "trainer_threads": (1, 256),
    "trainer_memory_bytes": (64 * 2**20, 16 * 2**40),
    "trainer_cpu_seconds": (1, 2_592_000),
    "trainer_idle_seconds": (0, 3600),
    "trainer_slots": (0, 1024),
}
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "log_level": ("debug", "info", "warning", "error"),
    "sandbox": tuple(Sandbox),
    "clearance": tuple(Classification),
    "policy_engine": tuple(PolicyEngine),
}


def read_settings(path: Path) -> Settings:
    """Read and check HOME/settings.yaml.

    Raises: NotFound: `init` was never run here. InvalidInput: the first thing that is wrong, by its key.
    """
    import yaml  # costs 15 ms, which `--help` need not pay

    try:
        text = path.read_bytes()
    except FileNotFoundError as err:
        raise NotFound(f"no settings at {path}", remedy="run 'foedus-agent init' first, or pass --home") from err
    if len(text) > MAX_SETTINGS_BYTES:
        raise InvalidInput(f"{path} has more than {MAX_SETTINGS_BYTES} bytes")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as err:
        raise InvalidInput(f"{path} is not YAML") from err
    if not isinstance(value, dict):
        raise InvalidInput(f"{path} does not hold settings (key: value)")
    return parse_settings(value, str(path))


def parse_settings(value: Mapping[object, object], where: str) -> Settings:
    """Check settings that were read from `where`."""
    known = {field.name: field for field in dataclasses.fields(Settings)}
    if unknown := sorted(str(key) for key in value if key not in known):
        raise InvalidInput(f"{where}: unknown setting {unknown[0]!r}", remedy=f"known are: {', '.join(known)}")
    required = [name for name, field in known.items() if field.default is dataclasses.MISSING]
    if missing := [name for name in required if name not in value]:
        raise InvalidInput(f"{where}: {missing[0]!r} is missing", remedy="'foedus-agent init' writes it")
    arguments: dict[str, Any] = {}
    for name, field in known.items():
        if name in value:
            arguments[name] = _checked(name, value[name], field.default, where)
    address_ranges(arguments.get("address_ranges", ""), where)
    names.nation_code(arguments["nation"])
    names.treaty_domain(arguments["domain"])
    names.agent_id(names.PartyCode(arguments["nation"]), arguments["domain"], arguments["agent"])
    return Settings(**arguments)


def _checked(name: str, value: object, default: object, where: str) -> object:
    if name in _BOUNDS:
        low, high = _BOUNDS[name]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise InvalidInput(f"{where}: {name!r} is not an integer between {low} and {high}")
        return value
    if not isinstance(value, str) or len(value) > 4096:
        raise InvalidInput(f"{where}: {name!r} is not a text")
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise InvalidInput(f"{where}: {name!r} is not one of {', '.join(_CHOICES[name])}")
        return type(default)(value) if isinstance(default, StrEnum) else value
    return value


def address_ranges(text: str, where: str = "settings") -> tuple[str, ...]:
    """The CIDRs in `text`. Raises: InvalidInput: one of them is none."""
    ranges = tuple(part.strip() for part in text.split(",") if part.strip())
    for cidr in ranges:
        try:
            ipaddress.ip_network(cidr)
        except ValueError as err:
            raise InvalidInput(
                f"{where}: {cidr[:64]!r} in 'address_ranges' is not a CIDR", remedy="write 10.1.0.0/16, 10.2.0.0/16"
            ) from err
    return ranges


def settings_text(nation: str, domain: str, agent: str) -> str:
    """What `init` writes: the three that have no default and whence agents call; every other key commented out."""
    from treaty.settings import keys_of, settings_yaml  # reads source text, which running need not

    written = {"nation": nation, "domain": domain, "agent": agent, "address_ranges": INITIAL_ADDRESS_RANGES}
    return settings_yaml("Settings of this node agent.", keys_of(Settings), written)


def default_home() -> Path:
    return Path(os.environ.get("FOEDUS_AGENT_HOME", DEFAULT_HOME)).expanduser()


def proxy_environment() -> dict[str, str]:
    """Proxy variables that are set, which gRPC would follow."""
    wanted = (*_PROXIES, *(name.upper() for name in _PROXIES))
    return {name: os.environ[name] for name in wanted if os.environ.get(name)}
