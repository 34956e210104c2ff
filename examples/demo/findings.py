"""What the acts found out, kept for the report."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class NationFindings:
    """One nation's figures. Perplexity: before, after round 1, after round 2."""

    records: int = 0
    heldout_perplexity: list[float] = field(default_factory=list)
    bytes_out: dict[str, int] = field(default_factory=dict)
    """By class, from the agent's signed tallies and receipts."""
    bytes_in: int = 0
    """As the relay counted them."""
    relay_bytes_out: int = 0


@dataclass(frozen=True, slots=True)
class Version:
    """`bytes`: all its files. `bytes_transferred`: what came in over one nation's border during its rollout."""

    name: str
    digest: str
    bytes: int
    bytes_transferred: int


@dataclass(frozen=True, slots=True)
class Refusal:
    nation: str
    decision_point: str
    codes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Blocked:
    channel: str
    code: str


@dataclass(frozen=True, slots=True)
class OpenChannel:
    channel: str
    bits_per_round: int


@dataclass(frozen=True, slots=True)
class Rollback:
    version: str
    wave: int
    reason: str


@dataclass(slots=True)
class Findings:
    """Filled act by act."""

    nations: dict[str, NationFindings]
    versions: list[Version] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    blocked: list[Blocked] = field(default_factory=list)
    open_channels: list[OpenChannel] = field(default_factory=list)
    rollback: Rollback | None = None
    raw_records: int | None = None
    """As the audit counted them; None before it has."""
    log_size: int = 0
    is_log_verified: bool = False
    canaries_planted: int = 0
    canaries_found_outside: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    timeline: list[tuple[str, float, float]] = field(default_factory=list)
    """Step, and when it began and ended."""
