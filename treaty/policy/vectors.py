"""Table vectors: questions with the answer that a bundle must give. A bundle that fails one is not put in force.

A table has its own registers, named base questions, and vectors: a base, what is set and what is deleted in it
(dotted paths), the expected verdict and codes. An empty table refuses: a policy nobody wrote an expectation for is
not put in force either. The same tables run under `opa test`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

from treaty.errors import Corrupt, InvalidInput, PreconditionFailed
from treaty.fields import Fields
from treaty.policy.answer import Verdict, parse_answer
from treaty.policy.engine import Program, Query
from treaty.policy.questions import parse_merged
from treaty.policy.registers import Registers
from treaty.strict_json import JsonObject, JsonValue

MAX_VECTORS = 10_000
MAX_BASES = 256
_SHOWN_FAILURES = 5


@dataclass(frozen=True, slots=True)
class Vector:
    name: str
    question: JsonObject
    verdict: Verdict
    codes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VectorTable:
    """`registers` stand for what charter, record and nation would say."""

    registers: Registers
    vectors: tuple[Vector, ...]

    async def rehearse(self, program: Program, query: Query) -> None:
        """Ask each vector. Raises PreconditionFailed naming those that `program` answers otherwise."""
        failures = [vector.name for vector in self.vectors if not await _answers(program, query, vector)]
        if failures:
            shown = "; ".join(failures[:_SHOWN_FAILURES])
            raise PreconditionFailed(
                f"the bundle of {program.authority} fails {len(failures)} of its {len(self.vectors)} vectors: {shown}",
                remedy="run 'opa test' in the policy's folder and sign a bundle that passes",
                code="POLICY_VECTORS",
            )


def parse_table(document: JsonObject) -> VectorTable:
    """Read a table. Raises: InvalidInput: not of this shape, or a question that no engine may be asked."""
    fields = Fields(document, "vectors")
    registers = fields.mapping("registers")
    given = Registers(
        charter=_object(registers.value("charter"), "charter"),
        record=_object(registers.value("record"), "record"),
        nation=_object(registers.value("nation"), "nation"),
    )
    registers.done()
    bases = {
        name: _object(base, f"base {name!r}") for name, base in _object(fields.value("bases"), "the bases").items()
    }
    if len(bases) > MAX_BASES:
        raise InvalidInput(f"a table has at most {MAX_BASES} bases")
    vectors = fields.list_of("vectors", lambda value: _vector(value, bases), max_items=MAX_VECTORS, min_items=1)
    fields.done()
    return VectorTable(given, vectors)


async def _answers(program: Program, query: Query, vector: Vector) -> bool:
    value = await query(vector.question)
    if value is None:
        return False
    try:
        answer = parse_answer(value, source=program.authority)
    except Corrupt:
        return False
    return answer.verdict is vector.verdict and answer.failed == vector.codes


def _vector(value: JsonValue, bases: Mapping[str, JsonObject]) -> Vector:
    fields = Fields(value, "vector")
    name, base = fields.text("name", 200), fields.text("base", 100)
    if base not in bases:
        raise InvalidInput(f"vector {name!r} has no base {base!r}")
    question = copy.deepcopy(bases[base])
    for path in fields.texts("delete", max_items=64, max_chars=256):
        parent, last = _parent(question, path)
        parent.pop(last, None)
    for path, changed in _object(fields.value("set"), f"'set' of vector {name!r}").items():
        parent, last = _parent(question, path)
        parent[last] = changed
    expect = fields.mapping("expect")
    verdict = expect.choice("verdict", Verdict)
    codes = tuple(sorted(expect.texts("codes", max_items=64, max_chars=8)))
    expect.done()
    fields.done()
    parse_merged(question)
    return Vector(name, question, verdict, codes)


def _parent(question: JsonObject, path: str) -> tuple[JsonObject, str]:
    *steps, last = path.split(".")
    parent = question
    for step in steps:
        parent = _object(parent.get(step), f"{step!r} of {path!r}")
    return parent, last


def _object(value: JsonValue, what: str) -> JsonObject:
    if not isinstance(value, dict):
        raise InvalidInput(f"{what} is not an object")
    return value
