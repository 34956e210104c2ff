"""Policy decisions: embedded, and through a real OPA beside the plainest client that asks the same of it.

    python -m bench.policy [--questions 2000] [--nations 100] [--datasets 500] [--tensors 12] [--json]

The question is an update that wants to leave, under registers of the given size. Rows: one authority asked through an
engine (event loop, thread or HTTP, parsing included), and a nation's whole decision (typed question, treaty and
overlay, decision document). The floor for OPA is `requests.Session.post` of the same document to the same OPA; floor
and contender alternate, so that a busy moment of the machine falls on both.
Targets: embedded p99 of one authority at most 2 ms and load at most 300 ms; OPA's p50 at most 1.2 times the floor's.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import socket
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import requests

import policies
from bench import rows
from bench.rows import Row, say
from tools import parts
from treaty.keys import new_signing_key
from treaty.names import PartyCode, digest_of
from treaty.policy import bundle
from treaty.policy.bundle import VerifiedBundle
from treaty.policy.decider import Decider
from treaty.policy.embedded import EmbeddedEngine
from treaty.policy.engine import Engine, Program, Query, Rehearsed
from treaty.policy.opa import OpaEngine
from treaty.policy.questions import ObservedTensor, Question, parse_merged
from treaty.policy.registers import DatasetFacts, Registers, charter_registers, nation_registers
from treaty.strict_json import JsonObject

TARGET_EMBEDDED_P99_MS = 2.0
TARGET_LOAD_MS = 300.0
TARGET_OPA_RATIO = 1.2
NOW = datetime(2025, 11, 24, 16, tzinfo=UTC)
TOKEN = "bench"  # noqa: S105  of an OPA that lives for one measurement


def main() -> None:
    parser = rows.parser(__doc__)
    parser.add_argument("--questions", type=int, default=2_000)
    parser.add_argument("--nations", type=int, default=100)
    parser.add_argument("--datasets", type=int, default=500)
    parser.add_argument("--tensors", type=int, default=12)
    arguments = parser.parse_args()
    rows.show(asyncio.run(measure(arguments)), as_json=arguments.json)


async def measure(arguments: argparse.Namespace) -> list[Row]:
    treaty, overlay = _verified("treaty", "treaty"), _verified("fr", "nation.FR")
    question, registers = _question(treaty, arguments.tensors), _registers(treaty, arguments)
    say(f"{arguments.nations} nations, {arguments.datasets} datasets, {arguments.tensors} tensors")
    measured = await _embedded(treaty, overlay, question, registers, arguments.questions)
    opa = parts.find("opa")
    if opa is None:
        say(f"OPA left out: {parts.PARTS['opa'].how}")
        return measured
    return [*measured, await _through_opa(opa, treaty, question, registers, arguments.questions)]


async def _embedded(
    treaty: VerifiedBundle, overlay: VerifiedBundle, question: Question, registers: Registers, questions: int
) -> list[Row]:
    engine = EmbeddedEngine()
    load_ms = await _load_ms(engine, treaty.bundle.program, registers)
    document = question.merged()
    asked = [await _timed(engine, document) for _ in range(questions)][questions // 10 :]
    await engine.close()
    decider = Decider(EmbeddedEngine())
    await decider.put_in_force(treaty)
    await decider.put_in_force(overlay)
    await decider.set_registers(registers)
    decided = []
    for _ in range(questions // 2):
        begun = time.perf_counter()
        decision = await decider.decide(question.ask, question.observed)
        decided.append((time.perf_counter() - begun) * 1e3)
        assert decision.is_allowed, decision.codes
    await decider.close()
    _print("embedded, one authority", asked)
    _print("embedded, whole decision", decided[questions // 20 :])
    say(f"{'embedded, load':<28}{load_ms:>9.0f} ms   this process: {_resident_mb():.0f} MB")
    worst = _percentile(asked, 99)
    return [
        Row(
            "policy decision embedded, p99",
            f"{worst:.2f} ms",
            target=f"≤ {TARGET_EMBEDDED_P99_MS} ms",
            is_met=worst <= TARGET_EMBEDDED_P99_MS,
        ),
        Row("policy load", f"{load_ms:.0f} ms", target=f"≤ {TARGET_LOAD_MS:.0f} ms", is_met=load_ms <= TARGET_LOAD_MS),
    ]


async def _through_opa(
    opa: Path, treaty: VerifiedBundle, question: Question, registers: Registers, questions: int
) -> Row:
    async with _running(opa) as port:
        engine = OpaEngine(port=port, token=TOKEN)
        await _load_ms(engine, treaty.bundle.program, registers)
        document = question.merged()
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {TOKEN}"
        url = f"http://127.0.0.1:{port}/v1/data/{treaty.bundle.program.entrypoint}"
        ours, floor = [], []
        for _ in range(questions):
            ours.append(await _timed(engine, document))
            begun = time.perf_counter()
            answered = session.post(url, json={"input": document}, timeout=5).json()
            floor.append((time.perf_counter() - begun) * 1e3)
            assert answered["result"]["verdict"] == "allow"
        session.close()
        await engine.close()
    _print("OPA, one authority", ours[questions // 10 :])
    _print("requests.Session floor", floor[questions // 10 :])
    typical, bare = (statistics.median(times[questions // 10 :]) for times in (ours, floor))
    return Row(
        "policy decision through OPA, p50",
        f"{typical:.2f} ms",
        f"requests.Session {bare:.2f} ms",
        f"{typical / bare:.2f}×",
        f"≤ {TARGET_OPA_RATIO}×",
        typical <= TARGET_OPA_RATIO * bare,
    )


async def _load_ms(engine: Engine, program: Program, registers: Registers) -> float:
    async def nothing(_query: Query) -> None:
        return None

    merged = registers.merged_with(program.own_registers)
    begun = time.perf_counter()
    await engine.load(program, merged, Rehearsed(merged, nothing))
    return (time.perf_counter() - begun) * 1e3


async def _timed(engine: Engine, document: JsonObject) -> float:
    begun = time.perf_counter()
    value = await engine.query("treaty", document)
    elapsed = (time.perf_counter() - begun) * 1e3
    assert isinstance(value, dict)
    assert value["verdict"] == "allow", value["failed"]
    return elapsed


def _verified(name: str, authority: str) -> VerifiedBundle:
    packed, key = policies.compiled(name), new_signing_key()
    envelope = bundle.sign(packed, [key], not_before=NOW, not_after=NOW + timedelta(days=1))
    return bundle.verify(
        packed, envelope, authority=authority, keys=[key.verification], threshold=1, last=None, now=NOW
    )


def _question(treaty: VerifiedBundle, tensors: int) -> Question:
    vectors = treaty.bundle.vectors.vectors
    egress = next(vector.question for vector in vectors if vector.question.get("decision_point") == "egress.update")
    question = parse_merged(egress)
    update = question.observed.update
    assert update is not None
    manifest = tuple(
        ObservedTensor(
            name=f"model.layers.{number // 2}.self_attn.q_proj.lora_{'AB'[number % 2]}.weight",
            shape=(8, 576),
            dtype="int32",
        )
        for number in range(tensors)
    )
    return replace(question, observed=replace(question.observed, update=replace(update, tensors=manifest)))


def _registers(treaty: VerifiedBundle, arguments: argparse.Namespace) -> Registers:
    """Registers as large as an alliance's; the question's own nation keeps its entries."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    codes = ["FR", "DE", *(f"X{a}" if not b else f"{b}{a}" for b in ["", *"QZVWY"] for a in letters)]
    given = treaty.bundle.vectors.registers
    nations = {PartyCode(code): ([digest_of(code.encode())], f"{code.lower()}.foedus.example") for code in codes}
    datasets = {
        f"dataset-{n}": DatasetFacts(["public-administration-translation"], 1000) for n in range(arguments.datasets)
    }
    charter = charter_registers(dict(list(nations.items())[: arguments.nations]))
    return Registers(charter, given.record, nation_registers(PartyCode("FR"), datasets))


@asynccontextmanager
async def _running(opa: Path) -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    process = _start(opa, port)
    try:
        async with asyncio.timeout(10):
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    await asyncio.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _start(opa: Path, port: int) -> subprocess.Popen[bytes]:
    authorization = Path(policies.__file__).parent / "opa" / "authz.rego"
    return subprocess.Popen(
        [
            *(opa, "run", "--server", "--addr", f"127.0.0.1:{port}", "--log-level", "error", "--skip-version-check"),
            *("--authentication=token", "--authorization=basic", authorization),
        ],
        env={"FOEDUS_OPA_TOKEN_SHA256": hashlib.sha256(TOKEN.encode()).hexdigest()},
        stderr=subprocess.DEVNULL,
    )


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _percentile(values: Sequence[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def _print(name: str, values: Sequence[float]) -> None:
    say(f"{name:<28}p50 {statistics.median(values):>6.2f} ms   p99 {_percentile(values, 99):>6.2f} ms")


if __name__ == "__main__":
    main()
