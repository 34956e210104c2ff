"""Builders for the tests of policy: signed bundles, an engine of either kind, a real OPA that only we may write to."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tenacity

import policies
from tools import parts
from treaty.keys import new_signing_key
from treaty.policy import bundle
from treaty.policy.bundle import Accepted, VerifiedBundle
from treaty.policy.decider import Decider
from treaty.policy.embedded import EmbeddedEngine
from treaty.policy.engine import Engine
from treaty.policy.opa import OpaEngine
from treaty.policy.registers import Registers

# The moment that the shipped vectors speak of.
NOW = datetime(2025, 11, 24, 16, tzinfo=UTC)
NOW_NS = 1_764_000_000_000_000_000
KEY = new_signing_key()
TOKEN = "a-token-for-tests"


def authority(name: str) -> str:
    return "treaty" if name == "treaty" else f"nation.{name.upper()}"


def believed(packed: bytes, name: str, *, last: Accepted | None = None) -> VerifiedBundle:
    """A bundle signed by the tests' key and verified."""
    envelope = bundle.sign(packed, [KEY], not_before=NOW - timedelta(days=1), not_after=NOW + timedelta(days=1))
    return bundle.verify(
        packed, envelope, authority=authority(name), keys=[KEY.verification], threshold=1, last=last, now=NOW
    )


def shipped(name: str) -> VerifiedBundle:
    return believed(policies.compiled(name), name)


class RealOpa:
    """A real OPA on loopback, which only the bearer of `TOKEN` may use."""

    def __init__(self, program: Path) -> None:
        self._program = program
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        address = f"127.0.0.1:{self.port}"
        authorization = str(Path(policies.__file__).parent / "opa" / "authz.rego")
        self.process = subprocess.Popen(
            [
                *(self._program, "run", "--server", "--addr", address, "--log-level", "error", "--skip-version-check"),
                *("--authentication=token", "--authorization=basic", authorization),
            ],
            env={"FOEDUS_OPA_TOKEN_SHA256": hashlib.sha256(TOKEN.encode()).hexdigest()},
            stderr=subprocess.DEVNULL,
        )
        self._wait()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    @tenacity.retry(
        stop=tenacity.stop_after_delay(10),
        wait=tenacity.wait_fixed(0.02),
        retry=tenacity.retry_if_exception_type(OSError),
        reraise=True,
    )
    def _wait(self) -> None:
        socket.create_connection(("127.0.0.1", self.port), timeout=1).close()

    def engine(self) -> OpaEngine:
        return OpaEngine(port=self.port, token=TOKEN)


@pytest.fixture(scope="session")
def opa_program() -> Path:
    found = parts.find("opa")
    if found is None:
        line = f"no OPA: {parts.PARTS['opa'].how}"
        if os.environ.get("CI") == "true":
            pytest.fail(line)
        pytest.skip(line)
    return found


@pytest.fixture
def real_opa(opa_program: Path) -> Iterator[RealOpa]:
    opa = RealOpa(opa_program)
    opa.start()
    yield opa
    opa.kill()


@pytest.fixture(params=["embedded", pytest.param("opa", marks=pytest.mark.opa)])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    """Each of the two engines, empty."""
    built: Engine = EmbeddedEngine() if request.param == "embedded" else request.getfixturevalue("real_opa").engine()
    yield built
    await built.close()


async def nation(engine: Engine, name: str, registers: Registers) -> Decider:
    """A decider of a nation, with treaty and overlay in force."""
    decider = Decider(engine, deadline_seconds=5)
    await decider.put_in_force(shipped("treaty"))
    await decider.put_in_force(shipped(name))
    await decider.set_registers(registers)
    return decider
