"""The production engine: a real OPA beside us on loopback, fed by us from verified bytes and by nobody else.

OPA's own bundle download is not used: its signatures neither expire nor refuse an older bundle. We write the Rego and
data of what we verified, under a lock, and ask nothing meanwhile. An OPA that restarted is empty, and one that somebody
else wrote to answers with another revision: both show in the next answer, which is then a no, and `maintain` feeds it
again.

Traps that shape this file: the client answers `{}` for undefined; it rewrites policy text unless told not to; it does
not quote paths, so ids are ours and never come from a bundle; it retries by default. Whoever can take OPA's port on
this host can answer in its place: the token keeps others from writing to OPA, not from being it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from ipaddress import ip_address

import aiohttp
from opa_client import AsyncOpaClient
from opa_client.errors import DeletePolicyError, RegoParseError

from treaty.errors import Corrupt, FoedusError, InvalidInput, Unavailable
from treaty.names import digest_of
from treaty.policy.engine import OVERLAY, TREATY, Program, Rehearsed
from treaty.policy.gate import Gate
from treaty.strict_json import JsonObject, JsonValue

REQUEST_SECONDS = 2.0
RETRY_SECONDS = 0.2
SLOTS = (TREATY, OVERLAY)
_FAILURES = (aiohttp.ClientError, TimeoutError, OSError)


class OpaEngine:
    """Implements `treaty.policy.engine.Engine` over OPA's REST API. Used from one event loop."""

    name = "opa"

    def __init__(self, *, host: str = "127.0.0.1", port: int = 8181, token: str | None = None) -> None:
        """`token`: the bearer token that OPA's own authorization policy lets write.

        Raises: InvalidInput: `host` is not a loopback address.
        """
        if not ip_address(host).is_loopback:
            raise InvalidInput("the policy engine must be on loopback", remedy="run OPA as a sidecar of this process")
        self._client = AsyncOpaClient(host=host, port=port, token=token, retries=0, timeout=REQUEST_SECONDS)
        self._session = AsyncExitStack()
        self._connected = False
        self._in_force: dict[str, Program] = {}
        self._registers: JsonObject = {}
        self._fed: dict[str, set[str]] = {}  # names of the modules that we wrote, by slot
        self._gate = Gate()
        self._suspect = asyncio.Event()

    async def load(self, program: Program, registers: JsonObject, rehearsed: Rehearsed) -> None:
        async with self._gate.changing():
            try:
                await self._feed_registers(rehearsed.registers)
                await self._feed_modules(program.slot, program.modules.values())
                await self._feed_data(program.root, program.own_data)
                await rehearsed.run(lambda document: self._ask(program, document))
                await self._feed_registers(registers)
            except BaseException:
                # What is in OPA now is not what is in force: no answers until it is.
                self._suspect.set()
                with suppress(FoedusError):
                    await self._feed_all()
                raise
            self._in_force[program.slot] = program
            self._registers = registers

    async def set_registers(self, registers: JsonObject) -> None:
        async with self._gate.changing():
            self._registers = registers
            was_suspect = self._suspect.is_set()
            self._suspect.set()  # no answers under the old ones, should this fail half way
            with suppress(Unavailable):
                await self._feed_registers(registers)
                if not was_suspect:
                    self._suspect.clear()

    async def query(self, slot: str, document: JsonObject) -> JsonValue:
        async with self._gate.asking():  # never between two writes of a swap
            program = self._in_force.get(slot)
            if program is None or self._suspect.is_set():
                raise Unavailable(f"no {slot} policy is loaded in OPA")
            try:
                value = await self._ask(program, document)
            except Unavailable:
                self._suspect.set()
                raise
        if not isinstance(value, dict) or value.get("revision") != program.revision:
            self._suspect.set()
        return value

    async def maintain(self) -> None:
        """Feed OPA again whenever it forgot, restarted or answered with what we did not give it."""
        while True:
            await self._suspect.wait()
            try:
                async with self._gate.changing():
                    await self._feed_all()
            except FoedusError:
                await asyncio.sleep(RETRY_SECONDS)

    async def close(self) -> None:
        await self._session.aclose()
        self._connected = False

    async def _feed_all(self) -> None:
        """Write everything that is in force, onto nothing of what we or an earlier process wrote before."""
        self._fed.clear()
        await self._feed_registers(self._registers)
        for slot in SLOTS:
            program = self._in_force.get(slot)
            await self._feed_modules(slot, program.modules.values() if program is not None else ())
            if program is not None:
                await self._feed_data(program.root, program.own_data)
        self._suspect.clear()

    async def _feed_modules(self, slot: str, sources: Iterable[str]) -> None:
        """Make these the slot's modules: each is named by its digest, so one that stays is not written again."""
        wanted = {f"foedus-{slot}-{digest_of(source.encode()).removeprefix('sha256:')}": source for source in sources}
        async with self._translated():
            present = {name for name in await self._client.get_policies_list() if name.startswith(f"foedus-{slot}-")}
            ours = self._fed[slot] = self._fed.get(slot, set()) & present
            for name in sorted(present - (ours & set(wanted))):
                with suppress(DeletePolicyError):
                    await self._client.delete_policy(name)
                ours.discard(name)
            for name in sorted(set(wanted) - ours):
                await self._client.update_policy_from_string(wanted[name], name, rego_compat=False)
                ours.add(name)

    async def _feed_data(self, root: str, data: JsonObject) -> None:
        async with self._translated():
            await self._client.update_or_create_data(data, root)

    async def _feed_registers(self, registers: JsonObject) -> None:
        await self._feed_data("foedus/registers", registers)

    async def _ask(self, program: Program, document: JsonObject) -> JsonValue:
        async with self._translated():
            response: JsonValue = await self._client.query_rule(document, program.root, "decision")
        if not isinstance(response, dict):
            raise Corrupt("OPA answered with something that is not an object")
        return response.get("result")

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        if not self._connected:
            await self._session.enter_async_context(self._client)
            self._connected = True
        try:
            yield
        except RegoParseError as err:
            raise InvalidInput("OPA refuses the policy's text") from err
        except _FAILURES as err:
            raise Unavailable("OPA does not answer", remedy="see whether it runs, then 'foedus-agent check'") from err
        except ValueError as err:
            raise Corrupt("OPA's answer is not JSON") from err
