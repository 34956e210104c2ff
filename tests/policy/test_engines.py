"""An engine that is killed, hung, late, hostile or wrong never says yes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import policies
from tests.policy.conftest import RealOpa, believed, shipped
from tests.policy.test_nations import TRANSLATION, registers, use
from treaty.errors import Corrupt, InvalidInput, PreconditionFailed, Unavailable
from treaty.policy import archive, author, exact_json
from treaty.policy.answer import Verdict
from treaty.policy.bundle import read_bundle
from treaty.policy.decider import Decider
from treaty.policy.embedded import EmbeddedEngine
from treaty.policy.engine import Program, Rehearsed, answer
from treaty.policy.host_functions import semver_compare, semver_is_valid
from treaty.policy.opa import OpaEngine
from treaty.strict_json import JsonObject, JsonValue

PROGRAM = read_bundle(policies.compiled("fr")).program


class ScriptedEngine:
    """Answers what a test tells it to."""

    name = "scripted"

    def __init__(self, value: JsonValue | Exception) -> None:
        self._value = value

    async def load(self, program: Program, registers: JsonObject, rehearsed: Rehearsed) -> None:
        """Nothing is loaded."""

    async def set_registers(self, registers: JsonObject) -> None:
        """Nothing is kept."""

    async def query(self, slot: str, document: JsonObject) -> JsonValue:
        if isinstance(self._value, Exception):
            raise self._value
        if self._value == "never":
            await asyncio.Event().wait()
        return self._value

    async def maintain(self) -> None:
        """Nothing to maintain."""

    async def close(self) -> None:
        """Nothing to close."""


WHOLE: JsonObject = {
    "verdict": "allow",
    "required": ["OVL-001"],
    "passed": ["OVL-001"],
    "failed": [],
    "curable": [],
    "obligations": [],
    "reads": {},
    "revision": 1,
    "nation": "FR",
}


@pytest.mark.parametrize(
    ("value", "codes"),
    [
        (WHOLE, ()),
        (Unavailable("gone"), ("ENG-001",)),
        ("never", ("ENG-002",)),
        (Corrupt("trapped"), ("ENG-003",)),
        (True, ("ENG-003",)),
        ({"allow": True}, ("ENG-003",)),
        (None, ("ENG-004",)),
        (WHOLE | {"revision": 2}, ("ENG-005",)),
    ],
)
async def test_no_answer_is_no(value: JsonValue | Exception, codes: tuple[str, ...]) -> None:
    given = await answer(ScriptedEngine(value), PROGRAM, {}, deadline_seconds=0.01)
    assert given.failed == codes
    assert given.verdict is (Verdict.DENY if codes else Verdict.ALLOW)


@pytest.fixture
async def beside_opa(real_opa: RealOpa) -> AsyncIterator[Decider]:
    """A French decider over a real OPA, kept supplied while the test runs."""
    decider = Decider(real_opa.engine(), deadline_seconds=1)
    await decider.put_in_force(shipped("treaty"))
    await decider.put_in_force(shipped("fr"))
    await decider.set_registers(registers("FR"))
    async with asyncio.TaskGroup() as tasks:
        maintaining = tasks.create_task(decider.maintain())
        yield decider
        maintaining.cancel()
    await decider.close()


async def until_allowed(decider: Decider) -> None:
    async with asyncio.timeout(10):
        while await ask(decider):  # noqa: ASYNC110  asking is what finds out; nothing else announces it
            await asyncio.sleep(0)


async def ask(decider: Decider) -> tuple[str, ...]:
    return (await decider.decide(*use("FR", TRANSLATION))).codes


@pytest.mark.opa
async def test_a_killed_opa_is_a_no_and_a_restarted_one_is_fed_again(beside_opa: Decider, real_opa: RealOpa) -> None:
    assert await ask(beside_opa) == ()
    real_opa.kill()
    assert await ask(beside_opa) == ("ENG-001",)
    real_opa.start()
    await until_allowed(beside_opa)


@pytest.mark.opa
async def test_a_hung_opa_is_a_no_and_answers_again_when_it_wakes(beside_opa: Decider, real_opa: RealOpa) -> None:
    assert real_opa.process is not None
    real_opa.process.send_signal(signal.SIGSTOP)
    try:
        assert await ask(beside_opa) == ("ENG-002",)
    finally:
        real_opa.process.send_signal(signal.SIGCONT)
    await until_allowed(beside_opa)


@pytest.mark.opa
async def test_nobody_without_the_token_writes_to_opa(beside_opa: Decider, real_opa: RealOpa) -> None:
    evil = "package foedus.overlay\n\nevil := true\n"
    for headers in ({}, {"Authorization": "Bearer guess"}):
        async with aiohttp.ClientSession(headers=headers) as session:
            base = f"http://127.0.0.1:{real_opa.port}"
            async with session.put(f"{base}/v1/policies/evil", data=evil) as written:
                assert written.status == 401
            async with session.get(f"{base}/v1/data") as read:
                assert read.status == 401
            async with session.get(f"{base}/health") as alive:
                assert alive.status == 200
    assert await ask(beside_opa) == ()


def test_an_opa_that_is_not_on_loopback_is_refused() -> None:
    with pytest.raises(InvalidInput, match="must be on loopback"):
        OpaEngine(host="192.0.2.1")


HOSTILE = {
    "an endless loop": "count([x | numbers.range(1, 3000)[x]; numbers.range(1, 3000)[_]; input.nation]) == 0",
    "a memory bomb": "count([y | numbers.range(1, 100000)[x]; y := [x, x, x, x, x, x, x, x]]) == 0",
}


@pytest.mark.opa
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_policy_that_does_not_end_is_stopped_and_refused(opa_program: Path, tmp_path: Path, body: str) -> None:
    built = EmbeddedEngine()
    decider = Decider(built)
    await decider.put_in_force(shipped("fr"))
    packed = author.build(written(tmp_path, body), 2, opa=opa_program, libraries=[policies.OVERLAY_LIBRARY])
    with pytest.raises(Corrupt, match="failed inside its sandbox"):
        await decider.put_in_force(believed(packed, "fr"))
    assert decider.revisions == {"nation.FR": 1}
    assert await built.query("overlay", {}) is not None
    await decider.close()


@pytest.mark.opa
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("data.foedus.treaty.registers.limits", "the policy reads data.foedus.treaty.registers.limits"),
        ("passes", "recursive"),
        ("nonsense(", "'opa check' refuses the policy"),
        ("unused := 1", "refuses the policy"),
    ],
)
def test_the_author_is_told_why_a_policy_is_refused(opa_program: Path, tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(PreconditionFailed, match=message):
        author.build(written(tmp_path, body), 2, opa=opa_program, libraries=[policies.OVERLAY_LIBRARY])


@pytest.mark.opa
@pytest.mark.parametrize("call", ['http.send({"url": input.nation, "method": "get"})', "time.now_ns() > 0"])
async def test_a_policy_that_reaches_outside_is_not_loaded(opa_program: Path, tmp_path: Path, call: str) -> None:
    packed = author.build(written(tmp_path, call), 2, opa=opa_program, libraries=[policies.OVERLAY_LIBRARY])
    decider = Decider(EmbeddedEngine())
    with pytest.raises(InvalidInput, match=r"calls (http\.send|time\.now_ns), which is not allowed"):
        await decider.put_in_force(believed(packed, "fr"))
    await decider.close()


async def test_wasm_that_is_none_is_refused() -> None:
    files = archive.unpack(policies.compiled("fr"))
    files[archive.WASM] = b"\0asm\x01\0\0\0"
    decider = Decider(EmbeddedEngine())
    with pytest.raises(InvalidInput, match=r"the compiled policy of nation\.FR cannot be run"):
        await decider.put_in_force(believed(archive.pack(files), "fr"))
    await decider.close()


def written(folder: Path, body: str) -> Path:
    """France's overlay with one check more."""
    data = exact_json.parse_object((policies.source("fr") / "data.json").read_bytes(), max_bytes=1 << 20)
    (folder / "data.json").write_bytes(exact_json.dump(data))
    (folder / "vectors").mkdir()
    (folder / "vectors" / "data.json").write_bytes((policies.source("fr") / "vectors" / "data.json").read_bytes())
    (folder / "own.rego").write_text(
        "package foedus.overlay.checks.own.own\n\n"
        'code := "FR-009"\n\npoints := {"*"}\n\n'
        f"passes if {{\n\t{body}\n}}\n"
    )
    return folder


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("1.0.0", "1.0.0", 0),
        ("1.0.9", "1.0.10", -1),
        ("1.0.0-rc.1", "1.0.0", -1),
        ("1.0.0-alpha", "1.0.0-alpha.1", -1),
        ("1.0.0-2", "1.0.0-10", -1),
        ("1.0.0-9", "1.0.0-a", -1),
        ("1.0.0+build", "1.0.0", 0),
        ("2.0.0", "1.99.99", 1),
    ],
)
def test_versions_compare_as_the_specification_says(first: str, second: str, expected: int) -> None:
    assert semver_compare(first, second) == expected
    assert semver_compare(second, first) == -expected


@pytest.mark.parametrize("text", ["", "1", "1.0", "01.0.0", "1.0.0-", "1.0.0\n", "v1.0.0", "none", None, 1, "1" * 200])
def test_what_is_no_version_is_not_valid(text: Any) -> None:
    assert not semver_is_valid(text)
    with pytest.raises(ValueError, match="not a semantic version"):
        semver_compare(text, "1.0.0")
