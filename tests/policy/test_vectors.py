"""Every vector that a bundle ships, on both engines; and what deleting fields from allowed questions can do."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import policies
from tests.policy.conftest import RealOpa, believed, shipped
from treaty.errors import InvalidInput, PreconditionFailed
from treaty.policy import archive, author, exact_json
from treaty.policy.answer import Verdict, parse_answer
from treaty.policy.bundle import read_bundle
from treaty.policy.decider import Decider
from treaty.policy.embedded import EmbeddedEngine
from treaty.policy.engine import Engine, Rehearsed
from treaty.strict_json import JsonObject, JsonValue

# Fields of complete, allowed questions that no check of their decision point reads, and why.
UNREAD = {
    "v": "the version of the vocabulary; there is one",
    "request_id": "names the question in the logs",
    "env.cluster": "names the cluster in the logs",
    "round.id": "names the run in the logs",
    "round.nations": "REL TO of a round's nations is not in this vocabulary yet",
    "destination.org": "names the recipient in the logs",
    "label.rel_to": "read only where the label is classified",
    "update.digest": "read only where a role has to approve",
    "update.tensors.N.dtype": "the plan fixes it; the border checks it against the plan",
    "update.tensors.N.shape": "read for lora_A only",
    "model.fallback_version": "read only where an older version is asked for",
}
# Read elsewhere, and not at this decision point.
UNREAD_AT = {
    "agent.enrol": {"label", "label.classification"},
    "dataset.use": {"label", "label.classification", "round"},
    "egress.update": {
        "label",
        "label.classification",
        "destination.kind",
    },  # a kind is asked where adequacy is the basis
    "infer.purpose": {"model.version", "model.digest"},
    "model.admit": set[str](),
    "rollout.deploy": set[str](),
}


@pytest.mark.parametrize("name", policies.NAMES)
async def test_a_shipped_bundle_gives_the_answers_it_promises(engine: Engine, name: str) -> None:
    decider = Decider(engine)
    await decider.put_in_force(shipped(name))
    assert list(decider.revisions.values()) == [1]


@pytest.mark.opa
@pytest.mark.parametrize("name", policies.NAMES)
async def test_both_engines_give_the_same_whole_answer_to_every_vector(real_opa: RealOpa, name: str) -> None:
    bundle = read_bundle(policies.compiled(name))
    registers = bundle.vectors.registers.merged_with(bundle.program.own_registers)
    answers = []
    for built in (EmbeddedEngine(), real_opa.engine()):

        async def nothing(_query: object) -> None:
            return None

        await built.load(bundle.program, registers, Rehearsed(registers, nothing))
        answers.append([await built.query(bundle.program.slot, vector.question) for vector in bundle.vectors.vectors])
        await built.close()
    embedded, opa = answers
    assert embedded == opa
    assert len(embedded) >= 20


@pytest.mark.parametrize("name", policies.NAMES)
async def test_only_fields_that_no_check_reads_can_be_left_out(name: str) -> None:
    bundle = read_bundle(policies.compiled(name))
    built = EmbeddedEngine()
    registers = bundle.vectors.registers.merged_with(bundle.program.own_registers)
    still_allowed: set[tuple[str, str]] = set()

    async def ask_without(query: object) -> None:
        assert callable(query)
        for vector in (vector for vector in bundle.vectors.vectors if vector.verdict is Verdict.ALLOW):
            point = str(vector.question["decision_point"])
            for path in paths(vector.question):
                value = await query(without(vector.question, path))
                if parse_answer(value, source=bundle.authority).verdict is Verdict.ALLOW:
                    still_allowed.add((point, re.sub(r"\.\d+\.", ".N.", path)))

    await built.load(bundle.program, registers, Rehearsed(registers, ask_without))
    await built.close()
    if name == "treaty":
        assert {(point, path) for point, path in still_allowed if path not in UNREAD_AT[point]} <= {
            (point, path) for point in UNREAD_AT for path in UNREAD
        }
    else:
        assert {path for point, path in still_allowed if point == "rollout.deploy"}.isdisjoint(
            {"nation", "purpose", "purpose.code", "approvals"}
        )


def test_a_table_that_expects_nothing_is_refused() -> None:
    files = archive.unpack(policies.compiled("fr"))
    table = exact_json.parse_object(files[archive.VECTORS], max_bytes=1 << 20)
    table["vectors"] = []
    files[archive.VECTORS] = exact_json.dump(table)
    with pytest.raises(InvalidInput, match="'vectors' has fewer than 1 entries"):
        read_bundle(archive.pack(files))


async def test_a_bundle_that_fails_a_vector_is_refused_and_the_one_before_stays(engine: Engine) -> None:
    decider = Decider(engine)
    await decider.put_in_force(shipped("fr"))
    files = archive.unpack(policies.compiled("fr"))
    table = exact_json.parse_object(files[archive.VECTORS], max_bytes=1 << 20)
    vectors = table["vectors"]
    assert isinstance(vectors, list)
    assert isinstance(vectors[0], dict)
    vectors[0]["expect"] = {"verdict": "deny", "codes": ["FR-001"]}
    files[archive.VECTORS] = exact_json.dump(table)
    data = exact_json.parse_object(files[archive.DATA], max_bytes=1 << 20)
    data["foedus"]["overlay"]["revision"] = 2  # type: ignore[index, call-overload]
    files[archive.DATA] = exact_json.dump(data)
    files[archive.MANIFEST] = files[archive.MANIFEST].replace(b'"revision":"1"', b'"revision":"2"')
    with pytest.raises(PreconditionFailed, match=r"nation\.FR fails 1 of its \d+ vectors: dataset_use"):
        await decider.put_in_force(believed(archive.pack(files), "fr"))
    assert decider.revisions == {"nation.FR": 1}
    value = await engine.query("overlay", {})
    assert isinstance(value, dict)
    assert value["revision"] == 1


@pytest.mark.opa
def test_what_is_committed_is_what_the_sources_give(opa_program: Path) -> None:
    for name in policies.NAMES:
        built = author.build(policies.source(name), 1, opa=opa_program, libraries=policies.libraries(name))
        committed = archive.inflate(policies.compiled(name))
        assert archive.inflate(built) == committed, f"run python tools/policies.py ({name})"


def paths(value: JsonValue, prefix: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, member in value.items():
            yield f"{prefix}{name}"
            yield from paths(member, f"{prefix}{name}.")
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from paths(member, f"{prefix}{index}.")


def without(question: JsonObject, path: str) -> JsonObject:
    changed = copy.deepcopy(question)
    *steps, last = path.split(".")
    parent: JsonValue = changed
    for step in steps:
        parent = parent[int(step)] if isinstance(parent, list) else parent[step]  # type: ignore[index]
    assert isinstance(parent, dict)
    del parent[last]
    return changed
