"""The port: an engine holds programs, one for each authority, and answers questions about them. No answer is no.

`query` may fail in any of four ways (silence, lateness, nonsense, nothing); `answer` turns each into a deny with its
code, so that nothing above this file can mistake a failure for a verdict.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from treaty.errors import Corrupt, FoedusError
from treaty.policy.answer import Answer, parse_answer
from treaty.policy.exact_json import merge
from treaty.strict_json import JsonObject, JsonValue

TREATY = "treaty"
OVERLAY = "overlay"


@dataclass(frozen=True, slots=True)
class Program:
    """What an engine runs for one authority (`treaty` or `nation.FR`), out of a verified bundle.

    `slot` is `treaty` or `overlay`: the part of the policy tree that it owns, below `data.foedus`. `modules` are Rego
    sources by file name, `wasm` the same compiled, `data` what the bundle carries, rooted at `data`.
    """

    authority: str
    revision: int
    modules: Mapping[str, str]
    wasm: bytes
    data: JsonObject

    @property
    def slot(self) -> str:
        return TREATY if self.authority == TREATY else OVERLAY

    @property
    def root(self) -> str:
        return f"foedus/{self.slot}"

    @property
    def entrypoint(self) -> str:
        return f"{self.root}/decision"

    @property
    def own_data(self) -> JsonObject:
        """What the bundle says below its root; registers are merged and loaded apart from it."""
        foedus = self.data.get("foedus")
        own = foedus.get(self.slot) if isinstance(foedus, dict) else None
        return {name: value for name, value in own.items() if name != "registers"} if isinstance(own, dict) else {}

    @property
    def own_registers(self) -> JsonObject:
        foedus = self.data.get("foedus")
        own = foedus.get(self.slot) if isinstance(foedus, dict) else None
        registers = own.get("registers", {}) if isinstance(own, dict) else {}
        return registers if isinstance(registers, dict) else {}

    def document(self, registers: JsonObject) -> JsonObject:
        """All that this program's rules see as `data`."""
        return merge({"foedus": {self.slot: self.own_data}}, {"foedus": {"registers": registers}})


Query = Callable[[JsonObject], Awaitable[JsonValue]]
"""Ask a program one merged question. None means undefined."""

Rehearsal = Callable[[Query], Awaitable[None]]
"""Asks a candidate what its bundle says it must answer. Raises to refuse it."""


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """A check that a candidate passes before it is put in force, under registers of its own."""

    registers: JsonObject
    run: Rehearsal


class Engine(Protocol):
    """Runs programs. One at most for each slot; safe to ask concurrently."""

    @property
    def name(self) -> str:
        """For decision documents: `embedded` or `opa`."""

    async def load(self, program: Program, registers: JsonObject, rehearsed: Rehearsed) -> None:
        """Swap in `program` once its rehearsal passed; on any failure the one before stays in force.

        Raises: InvalidInput: the program cannot be run. Unavailable: the engine does not answer.
        """

    async def set_registers(self, registers: JsonObject) -> None:
        """What rules see as `data.foedus.registers` from the next question on; an engine that is away answers nothing
        until it has them.

        Raises: InvalidInput: larger than the engine takes; the registers before stay.
        """

    async def query(self, slot: str, document: JsonObject) -> JsonValue:
        """The value of the slot's `decision` for `document` as `input`; None where it is undefined.

        Raises: Unavailable: no answer. Corrupt: the engine answered something else, or failed inside.
        """

    async def maintain(self) -> None:
        """Keep the engine supplied with what is in force; runs as a task for as long as the process lives."""

    async def close(self) -> None:
        """Release it. Idempotent."""


async def answer(engine: Engine, program: Program, document: JsonObject, *, deadline_seconds: float) -> Answer:
    """What `program` says to `document`, or the no with the reason why it could not be asked."""
    try:
        async with asyncio.timeout(deadline_seconds):
            value = await engine.query(program.slot, document)
        if value is None:
            return Answer.refused("ENG-004", "engine")
        given = parse_answer(value, source=program.authority)
    except TimeoutError:
        return Answer.refused("ENG-002", "engine")
    except Corrupt:
        return Answer.refused("ENG-003", "engine")
    except FoedusError:
        return Answer.refused("ENG-001", "engine")
    return given if given.revision == program.revision else Answer.refused("ENG-005", "engine")
