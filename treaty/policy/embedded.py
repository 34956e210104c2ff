"""The embedded engine: the policy that was compiled to WebAssembly when its bundle was signed, run by wasmtime.

Every evaluation has a wall-clock limit and a memory limit inside the sandbox; it runs on a thread of a small pool, so
the event loop never waits for it. An instance that trapped is thrown away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from opapywasm import UNDEFINED, OpaPolicyClosedError, OpaPoolTimeoutError, OpaWasmError, OpaWasmPolicy, PolicyConfig

from treaty.errors import Corrupt, InvalidInput, Unavailable
from treaty.policy import exact_json
from treaty.policy.engine import Program, Rehearsed
from treaty.policy.host_functions import HOST_FUNCTIONS
from treaty.strict_json import JsonObject, JsonValue

T = TypeVar("T")

# A real decision takes a millisecond; a quarter of a second is a policy that does not end.
EVALUATION_SECONDS = 0.25
# 16 MiB: ten times what a treaty of 100 nations and 500 datasets needs, and four instances stay under 64 MiB.
MAX_MEMORY_PAGES = 256
POOL_SIZE = 2
MAX_DATA_BYTES = 4 * 1024 * 1024


class EmbeddedEngine:
    """Implements `treaty.policy.engine.Engine` in this process."""

    name = "embedded"

    def __init__(self, *, pool_size: int = POOL_SIZE) -> None:
        self._pool_size = pool_size
        self._threads = ThreadPoolExecutor(max_workers=pool_size, thread_name_prefix="policy")
        self._running: dict[str, tuple[Program, OpaWasmPolicy]] = {}
        self._swap = asyncio.Lock()

    async def load(self, program: Program, registers: JsonObject, rehearsed: Rehearsed) -> None:
        async with self._swap:
            candidate = await self._on_thread(lambda: _instantiate(program, self._pool_size))
            try:
                await self._set_data(candidate, program, rehearsed.registers)
                await rehearsed.run(lambda document: self._evaluate(candidate, program, document))
                await self._set_data(candidate, program, registers)
            except BaseException:
                candidate.close()
                raise
            before = self._running.get(program.slot)
            self._running[program.slot] = (program, candidate)
            if before is not None:
                before[1].close()

    async def set_registers(self, registers: JsonObject) -> None:
        async with self._swap:
            for program, policy in self._running.values():
                await self._set_data(policy, program, registers)

    async def query(self, slot: str, document: JsonObject) -> JsonValue:
        while (running := self._running.get(slot)) is not None:
            program, policy = running
            try:
                return await self._evaluate(policy, program, document)
            except Unavailable:
                if self._running.get(slot) is running:
                    raise
                # Swapped while the question waited for a thread: ask the one that is in force now.
        raise Unavailable(f"no {slot} policy is loaded")

    async def maintain(self) -> None:
        """Nothing to do: what runs in this process stays loaded."""

    async def close(self) -> None:
        for _, policy in self._running.values():
            policy.close()
        self._running.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _evaluate(self, policy: OpaWasmPolicy, program: Program, document: JsonObject) -> JsonValue:
        encoded = exact_json.dump(document)
        try:
            value = await self._on_thread(lambda: policy.evaluate(encoded, program.entrypoint))
        except (OpaPolicyClosedError, OpaPoolTimeoutError) as err:
            raise Unavailable(f"the {program.slot} policy could not be asked") from err
        except OpaWasmError as err:
            raise Corrupt(f"the {program.slot} policy failed inside its sandbox") from err
        return None if value is UNDEFINED else _json(value)

    async def _set_data(self, policy: OpaWasmPolicy, program: Program, registers: JsonObject) -> None:
        encoded = exact_json.dump(program.document(registers))
        try:
            await self._on_thread(lambda: policy.set_data(encoded))
        except OpaWasmError as err:
            raise InvalidInput(f"the {program.slot} policy refuses its registers ({len(encoded)} bytes)") from err

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _instantiate(program: Program, pool_size: int) -> OpaWasmPolicy:
    config = PolicyConfig(
        pool_size=pool_size,
        borrow_timeout_seconds=EVALUATION_SECONDS,
        max_input_bytes=1024 * 1024,
        max_data_bytes=MAX_DATA_BYTES,
        max_result_bytes=256 * 1024,
        max_memory_pages=MAX_MEMORY_PAGES,
        eval_timeout_seconds=EVALUATION_SECONDS,
        parse_raw_json_input=False,  # we encode the document ourselves
    )
    try:
        policy = OpaWasmPolicy.from_wasm_bytes(program.wasm, config)
    except OpaWasmError as err:
        raise InvalidInput(f"the compiled policy of {program.authority} cannot be run") from err
    foreign = sorted(set(policy.builtins) - set(HOST_FUNCTIONS))
    if foreign or program.entrypoint not in policy.entrypoints:
        policy.close()
        lack = f"calls {foreign[0]}, which is not allowed" if foreign else f"has no entrypoint {program.entrypoint}"
        raise InvalidInput(f"the compiled policy of {program.authority} {lack}")
    for name, function in HOST_FUNCTIONS.items():
        policy.register_builtin(name, function)
    return policy


def _json(value: Any) -> JsonValue:
    decoded: JsonValue = value
    return decoded
