"""Serves model versions from a local child process, one live at a time.

    stage(version) ──► candidate: child started, confined, loaded, digest observed ──► health, evaluate (the gates)
    promote(candidate) ──► live; the former live one is stopped

Rules:
1. the digest is the child's own finding over the files that it loaded; a candidate whose finding is not the version's
   digest is ended, and the live version goes on;
2. a version is live until its successor is; a candidate that fails its gates is stopped and nothing changes;
3. what is measured is checked like a trainer's answer: declared integers on their grid.

A child that dies while serving is reported by `live` being not running; whether to start it again is the caller's.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from node_agent.shelf import Shelf
from node_agent.training import process
from node_agent.training.frames import Frame
from node_agent.training.pairs import Languages, Pair
from node_agent.training.process import ChildBreach, ChildSpec, ConfinedChild
from node_agent.training.replies import EvalResult
from node_agent.training.sandbox import Confinement, SandboxMode, SandboxReport
from treaty.errors import InvalidInput, LimitExceeded, PreconditionFailed, TrustError
from treaty.names import Digest, digest, digest_of
from treaty.recipe import Evaluation, check_metrics
from treaty.strict_json import JsonObject, JsonValue, canonical

SERVER = "node_agent.runtime.server"

_LOAD_SECONDS = 180.0
_MAX_CHILDREN = 4
"""The live one, a candidate, and what a caller has not stopped yet."""
_MAX_PAIR_CHARS = 1_000_000
_MAX_MEASURED = 8
"""Results that a version keeps: one gate asks for one, and its successor's gate for the same again."""


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """An admin's settings of local serving."""

    sandbox: SandboxMode = SandboxMode.REQUIRED
    threads: int = 1
    memory_bytes: int = 4 * 2**30
    """135 M parameters in bf16 take 0.5 GB, 0.8 GB while they are evaluated; what is mapped from files comes on top and
    is shared."""
    cpu_seconds: int = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """A version on the shelf, and its base if it is an adapter."""

    digest: Digest
    folder: Path
    """Holds `manifest.json` and `files/`."""
    base: ServedVersion | None = None

    @staticmethod
    def on(shelf: Shelf, version: Digest) -> ServedVersion:
        """Find `version` and its base. Raises: NotFound, PreconditionFailed: as `Shelf.resolve`."""
        shelf.resolve(version)
        base = shelf.manifest(version).about.base
        found = ServedVersion.on(shelf, base) if base is not None else None
        return ServedVersion(version, shelf.files(version).parent, found)


class Serving:
    """One version in one child. Made by `LocalRuntime.stage`."""

    def __init__(self, version: ServedVersion, child: ConfinedChild, observed: Digest) -> None:
        self.version = version
        self._child = child
        self._observed = observed
        self._measured: dict[Digest, EvalResult] = {}

    @property
    def is_running(self) -> bool:
        return self._child.is_running

    @property
    def observed_digest(self) -> Digest:
        """What the child found itself serving."""
        return self._observed

    @property
    def report(self) -> SandboxReport:
        return self._child.report

    async def health(self, prompt: str, *, max_tokens: int = 8, timeout_seconds: float = 60) -> str:
        """Generate a few tokens; the text stays in the nation.

        Raises:
            Unavailable: no answer in time. PreconditionFailed: what the version computes is not finite.
        """
        order = Frame("generate", {"prompt": prompt, "max_tokens": max_tokens})
        reply = await self._child.exchange(order, expect="generated", timeout_seconds=timeout_seconds)
        match reply.fields:
            case {"text": str(text), "tokens": int(tokens), **rest} if not rest and 1 <= tokens <= max_tokens:
                return text
        return await self._child.breach("FIELD_UNDECLARED", "the server answered something else than text")

    async def evaluate(
        self, evaluation: Evaluation, pairs: Sequence[Pair], languages: Languages, *, timeout_seconds: float
    ) -> EvalResult:
        """Loss on `pairs`, which the caller held out (`pairs.split`); asked again, the same is not measured again.

        Raises: as `health`; LimitExceeded.
        """
        if sum(len(pair.source) + len(pair.target) for pair in pairs) > _MAX_PAIR_CHARS:
            raise LimitExceeded(f"the held-out pairs have more than {_MAX_PAIR_CHARS} characters")
        texts: list[JsonValue] = [[pair.source, pair.target] for pair in pairs]
        fields: JsonObject = {
            "evaluation": {
                "prompt_template": evaluation.prompt_template,
                "heldout_pairs": evaluation.heldout_pairs,
                "sequence_tokens": evaluation.sequence_tokens,
            },
            "source_language": languages.source,
            "target_language": languages.target,
            "pairs": texts,
        }
        asked = digest_of(canonical(fields))
        if asked not in self._measured:
            result = await self._evaluated(Frame("evaluate", fields), timeout_seconds)
            while len(self._measured) >= _MAX_MEASURED:
                self._measured.pop(next(iter(self._measured)))
            self._measured[asked] = result
        return self._measured[asked]

    async def _evaluated(self, order: Frame, timeout_seconds: float) -> EvalResult:
        reply = await self._child.exchange(order, expect="evaluated", timeout_seconds=timeout_seconds)
        metrics = reply.fields.get("metrics")
        try:
            if set(reply.fields) != {"metrics"} or not isinstance(metrics, dict):
                raise InvalidInput("the answer's fields are not exactly its metrics", code="FIELD_UNDECLARED")
            return EvalResult(check_metrics("evaluate", metrics))
        except InvalidInput as err:
            await self.stop()
            raise ChildBreach("the server's answer holds what was not asked for", code=err.code) from err

    async def stop(self) -> None:
        """End the child. Idempotent."""
        await self._child.stop()


class LocalRuntime:
    """The agent's serving children: at most one live, and a candidate while versions change."""

    def __init__(self, settings: RuntimeSettings, home: Path, secrets: Sequence[Path]) -> None:
        """`home`: a folder of our own. `secrets`: existing files that the probe must not open."""
        self._settings = settings
        self._home = home.resolve()
        self._secrets = tuple(secrets)
        self._lanes: dict[Path, ConfinedChild] = {}
        self.live: Serving | None = None

    async def stage(self, version: ServedVersion) -> Serving:
        """Start a candidate beside the live version and believe its digest.

        Raises:
            TrustError (DIGEST_MISMATCH): the child found another digest. The candidate is gone.
            PreconditionFailed (MODEL_UNUSABLE): files are damaged, or cannot be loaded.
            SandboxUnavailable, Unavailable, ChildBreach: as in `process`.
        """
        spec = self._child_spec(version)
        child = await process.start(spec)
        self._lanes[spec.input_dir.parent] = child
        base = str(version.base.folder.resolve()) if version.base else None
        verify = Frame("verify", {"folder": str(version.folder.resolve()), "base_folder": base})
        load = Frame("load", {"threads": self._settings.threads})
        try:
            reply = await child.exchange(verify, expect="verified", timeout_seconds=_LOAD_SECONDS)
            observed = _observed(reply, version)
            await child.exchange(load, expect="serving", timeout_seconds=_LOAD_SECONDS)
        except BaseException:
            await asyncio.shield(child.stop())
            raise
        return Serving(version, child, observed)

    async def promote(self, candidate: Serving) -> None:
        """Make `candidate` the live version and stop the former one. Raises: PreconditionFailed: it has died."""
        if not candidate.is_running:
            raise PreconditionFailed("the candidate is not running")
        former, self.live = self.live, candidate
        if former is not None and former is not candidate:
            await former.stop()

    async def start(self, version: ServedVersion) -> Serving:
        """`stage` and `promote` at once, for a version whose gates were passed before."""
        candidate = await self.stage(version)
        await self.promote(candidate)
        return candidate

    async def stop(self) -> None:
        """End the live version. Idempotent. Candidates belong to whoever staged them."""
        former, self.live = self.live, None
        if former is not None:
            await former.stop()

    def _child_spec(self, version: ServedVersion) -> ChildSpec:
        lane = self._free_lane()
        for name in ("input", "scratch"):
            (lane / name).mkdir(mode=0o700, parents=True)
        folders = [version.folder] + ([version.base.folder] if version.base else [])
        confinement = Confinement(
            mode=self._settings.sandbox,
            reads=(*(folder.resolve() for folder in folders), lane / "input"),
            scratch=lane / "scratch",
            secrets=self._secrets,
            memory_bytes=self._settings.memory_bytes,
            cpu_seconds=self._settings.cpu_seconds,
            threads=self._settings.threads,
        )
        return ChildSpec(SERVER, confinement, lane / "input", lane / "server.log")

    def _free_lane(self) -> Path:
        """An empty folder that no running child has: candidates and the live version do not meet in one."""
        for lane in (self._home / f"lane-{number}" for number in range(_MAX_CHILDREN)):
            child = self._lanes.get(lane)
            if child is None or not child.is_running:
                shutil.rmtree(lane, ignore_errors=True)
                return lane
        raise PreconditionFailed(f"{_MAX_CHILDREN} serving children are running; stop one first")


def _observed(reply: Frame, version: ServedVersion) -> Digest:
    found = reply.fields.get("digest"), reply.fields.get("base_digest")
    wanted = version.digest, version.base.digest if version.base else None
    if set(reply.fields) != {"digest", "base_digest"} or found != wanted:
        raise TrustError("the server found another digest than the version's", code="DIGEST_MISMATCH")
    return digest(str(found[0]))
