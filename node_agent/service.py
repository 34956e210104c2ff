"""What this nation serves: one version, kept running whoever is reachable, and the only place where that changes.

    wanted (journal, kind `serving`) ──keep──► live child ──observed digest──► reports

Rules:
1. the journal says what is to be served before the child is swapped, and the swap is done once the new child runs;
   killed in between, the agent starts the wanted one;
2. a child that died is started again, with growing pauses; policy's age and the coordinator's silence do not matter;
3. what is reported as served is the digest that the running child found itself, and nothing once it is gone;
4. one change at a time;
5. the newest version that ever served under a name is remembered whatever is served now.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from node_agent.ports import Core
from node_agent.runtime.local import LocalRuntime, ServedVersion, Serving
from node_agent.shelf import Shelf
from treaty.errors import Corrupt, FoedusError, InvalidInput, RollbackRefused
from treaty.fields import Fields, timestamp_text
from treaty.manifest import Manifest, check_newer
from treaty.names import Digest, DirectiveNumber
from treaty.strict_json import JsonObject

log = structlog.get_logger(__name__)

KIND: Final = "serving"
NEWEST_KIND: Final = "newest-served"
_CURRENT = "current"
LOOK_SECONDS: Final = 1.0
"""How soon a dead child is noticed."""
MAX_PAUSE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be served, and by which directive. `fallback` is what the nation consented to return to."""

    digest: Digest
    rollout: str
    number: str
    fallback: Digest | None
    since: datetime

    def to_json(self) -> JsonObject:
        return {
            "digest": self.digest,
            "rollout": self.rollout,
            "number": self.number,
            "fallback": self.fallback,
            "since": timestamp_text(self.since),
        }


class Service:
    def __init__(self, core: Core, shelf: Shelf, runtime: LocalRuntime) -> None:
        self._core = core
        self._shelf = shelf
        self._runtime = runtime
        self._turn = asyncio.Lock()
        self._observed: Digest | None = None

    @property
    def live(self) -> Serving | None:
        """The child in service, if it runs."""
        live = self._runtime.live
        return live if live is not None and live.is_running else None

    @property
    def wanted(self) -> Wanted | None:
        document = self._core.journal.document(KIND, _CURRENT)
        return None if document is None else _wanted(document.body)

    @property
    def is_as_wanted(self) -> bool:
        """Whether the version that is to be served runs; also where none is."""
        wanted, live = self.wanted, self.live
        return wanted is None or (live is not None and live.version.digest == wanted.digest)

    @property
    def running(self) -> Manifest | None:
        """The manifest of what is to be served."""
        wanted = self.wanted
        return self._shelf.manifest(wanted.digest) if wanted is not None and self._shelf.has(wanted.digest) else None

    @property
    def running_version(self) -> str | None:
        running = self.running
        return None if running is None else running.about.version

    def newest(self, name: str) -> tuple[str, Digest] | None:
        """Version and digest of the newest that ever served under `name`."""
        document = self._core.journal.document(NEWEST_KIND, name)
        if document is None:
            return None
        try:
            fields = Fields(document.body, "newest served")
            newest = fields.text("version", 64), fields.digest("digest")
            fields.done()
        except InvalidInput as err:
            raise Corrupt(f"the journal's entry of what served as {name} cannot be read") from err
        return newest

    async def stage(self, version: Digest) -> Serving:
        """A candidate beside what is served. The caller promotes or stops it. Raises: as `LocalRuntime.stage`."""
        found = await asyncio.to_thread(ServedVersion.on, self._shelf, version)
        return await self._runtime.stage(found)

    async def promote(self, candidate: Serving, rollout: str, number: DirectiveNumber, fallback: Digest | None) -> None:
        """Serve `candidate` from now on, also after a restart.

        Raises: PreconditionFailed: it has died; it is wanted all the same, until the caller returns to something else.
        """
        async with self._turn:
            self._note_newest(self._shelf.manifest(candidate.version.digest))
            self._write(Wanted(candidate.version.digest, rollout, str(number), fallback, self._core.clock.now()))
            await self._runtime.promote(candidate)
        self._tell()

    async def return_to(self, fallback: Digest | None, rollout: str, number: DirectiveNumber) -> None:
        """Serve `fallback` again, or nothing. Idempotent. Raises: as `LocalRuntime.stage`, with `fallback` wanted."""
        async with self._turn:
            if fallback is None:
                self._core.journal.remove(KIND, _CURRENT)
                await self._runtime.stop()
            else:
                known = self.wanted
                if known is None or known.digest != fallback:
                    self._write(Wanted(fallback, rollout, str(number), None, self._core.clock.now()))
                await self._start(fallback)
        self._tell()

    async def keep(self) -> None:
        """Keep what is wanted running. A task of the agent; never returns."""
        pause = LOOK_SECONDS
        while True:
            try:
                async with self._turn:
                    wanted = self.wanted
                    if wanted is not None:
                        await self._start(wanted.digest)
                pause = LOOK_SECONDS
            except FoedusError as err:
                log.error("the version in service does not start", code=err.code, exc_info=err)
                pause = min(2 * pause, MAX_PAUSE_SECONDS)
            self._tell()
            await asyncio.sleep(pause)

    async def stop(self) -> None:
        await self._runtime.stop()

    async def _start(self, version: Digest) -> None:
        live = self.live
        if live is None or live.version.digest != version:
            await self._runtime.promote(await self.stage(version))

    def _note_newest(self, manifest: Manifest) -> None:
        about, known = manifest.about, self.newest(manifest.about.name)
        try:
            if known is not None:
                check_newer(known[0], about.version)
        except RollbackRefused:
            return
        self._core.journal.put(NEWEST_KIND, about.name, {"version": about.version, "digest": manifest.digest})

    def _write(self, wanted: Wanted) -> None:
        self._core.journal.put(KIND, _CURRENT, wanted.to_json())

    def _tell(self) -> None:
        live = self.live
        observed = live.observed_digest if live is not None else None
        if observed != self._observed:
            self._observed = observed
            self._core.reports.serving(observed)


def _wanted(body: JsonObject) -> Wanted:
    try:
        fields = Fields(body, "serving")
        wanted = Wanted(
            digest=fields.digest("digest"),
            rollout=fields.text("rollout", 63),
            number=fields.text("number", 48),
            fallback=fields.optional_digest("fallback"),
            since=fields.timestamp("since"),
        )
        fields.done()
    except InvalidInput as err:
        raise Corrupt("the journal's entry of the version in service cannot be read") from err
    return wanted
