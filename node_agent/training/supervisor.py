"""One warm trainer: started confined, given its data, asked round by round, ended by deadline or brake.

    none ──prepare──► starting ─probe holds─► confined ─load, copy, read─► warm ──train, evaluate──► warm
      ▲                                                       ▲              │
      │                                                    prepare          rest
      │                                                       └── resting ◄──┤
      └──── stop, brake, timeout, breach, another base, `idle_seconds` ──────┘

Rules:
1. data is copied, never linked, into a folder that was empty until the probe had passed; it is emptied when the run is
   over, so nothing of the nation's text lies beside a process that nobody watches. What a resting trainer still has in
   its memory ends with it: it is used again for the same base and the same data only;
2. the base, the dataset and the adapter's shape are the agent's to say; the trainer only answers;
3. a trainer that answers what it must not is ended and its answer is dropped: `ChildBreach` carries the code;
4. one exchange at a time; a machine-wide slot is held while the trainer works, not while it waits;
5. processor time is bounded over a trainer's life and not for each run, so none rests that may have spent half of it:
   the run that took it up would be ended by what runs before it had spent.

Whether this nation takes part at all is decided before (policies, plan); clipping and what leaves, after (`privacy`,
the border).
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from node_agent.training import process, replies
from node_agent.training.frames import Arrays, Frame, Limits
from node_agent.training.pairs import TextDataset
from node_agent.training.process import ChildBreach, ChildSpec, ConfinedChild
from node_agent.training.replies import EvalResult, TrainResult
from node_agent.training.sandbox import Confinement, SandboxMode, SandboxReport
from node_agent.training.slots import TrainerSlots, default_slots
from treaty.errors import FoedusError, InvalidInput, PreconditionFailed, Unavailable
from treaty.recipe import LoraSft, Precision, adapter_shapes
from treaty.safetensors_header import read_header
from treaty.strict_json import JsonObject

R = TypeVar("R")

TRAINER = "node_agent.training.trainer"

_HEADER_BYTES = 4 * 2**20
_LOAD_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class TrainerSettings:
    """An admin's settings of the training room."""

    sandbox: SandboxMode = SandboxMode.REQUIRED
    program: str = TRAINER
    """The trainer: ours, or the absolute path of a Python file of the admin's with `main(pipe)`. It runs inside the
    same layers and is believed no more than ours."""
    threads: int = 1
    memory_bytes: int = 4 * 2**30
    """135 M parameters with steps of 8 × 64 tokens take 1.4 GB in float32, 0.9 GB in bfloat16 (and no longer); what is
    mapped from files comes on top and is shared."""
    cpu_seconds: int = 24 * 3600
    """Over the life of one warm trainer. A run has at least half of it, whatever runs the trainer served before."""
    idle_seconds: int = 60
    """How long a trainer rests after its run, for another on the same base and data; 0: it ends at once."""
    slots: TrainerSlots | None = None
    """None: cores ÷ threads, in a folder of the user's."""


@dataclass(frozen=True, slots=True)
class TrainOrder:
    """What tells one round of one nation from another."""

    recipe: LoraSft
    round: int
    ordinal: int
    """The nation's place in the plan's sorted cohort; the seed depends on it."""
    proximal_mu_micro: int = 0
    """FedProx's pull towards the arrays given, in millionths; 0 for every other strategy."""


@dataclass(slots=True)
class _Warm:
    child: ConfinedChild
    base: Path
    dataset: TextDataset | None
    """What is in its reach; None while it rests."""
    read: TextDataset | None
    """What it was given to read, and may still remember."""
    precision: Precision
    base_shapes: Mapping[str, tuple[int, ...]]
    since: float
    """When it was started, on the loop's clock."""
    ending: asyncio.TimerHandle | None = None
    """Ends a resting trainer."""


class TrainerSupervisor:
    """The agent's one trainer. Not to be shared between event loops."""

    def __init__(self, settings: TrainerSettings, home: Path, secrets: Sequence[Path]) -> None:
        """`home`: a folder of our own (input, scratch, log). `secrets`: existing files that the probe must not open."""
        self._settings = settings
        self._home = home
        self._secrets = tuple(secrets)
        self._slots = settings.slots or default_slots(settings.threads)
        self._busy = asyncio.Lock()
        self._warm: _Warm | None = None

    @property
    def report(self) -> SandboxReport:
        """The layers around the trainer that is running. Raises PreconditionFailed when none is."""
        if self._warm is None:
            raise PreconditionFailed("no trainer is running")
        return self._warm.child.report

    async def prepare(
        self,
        base: Path,
        dataset: TextDataset,
        precision: Precision,
        *,
        slot_timeout_seconds: float = _LOAD_SECONDS,
    ) -> SandboxReport:
        """Have a warm trainer for this base (a folder of verified files) and this dataset. Idempotent.

        Raises:
            SandboxUnavailable: the machine cannot confine it, or a probe got through; no data was in its reach.
            PreconditionFailed: base or dataset cannot be read.
            Unavailable, ChildBreach: as in `process`.
        """
        async with self._busy:
            warm = self._warm
            if warm and warm.child.is_running and (warm.base, warm.precision) == (base, precision):
                if warm.dataset == dataset:
                    return warm.child.report
                if warm.dataset is None and warm.read == dataset:
                    return await self._taken_up(warm, dataset, slot_timeout_seconds)
            await self._end()
            async with self._slots.hold(timeout_seconds=slot_timeout_seconds):
                return await self._start(base, dataset, precision)

    async def train(self, order: TrainOrder, arrays: Arrays, *, timeout_seconds: float) -> TrainResult:
        """One round of local training from `arrays`, after measuring their held-out loss.

        Raises:
            ChildBreach: the trainer answered what it must not; its code says what. The trainer is gone.
            Unavailable: no slot or no answer in time, or the brake was pulled.
            PreconditionFailed, ResourceExhausted: the trainer said why it cannot.
        """
        recipe = order.recipe
        shapes = self._shapes(recipe)
        replies.check_arrays(arrays, shapes)
        fields: JsonObject = {
            "recipe": recipe.to_json(),
            "round": order.round,
            "ordinal": order.ordinal,
            "proximal_mu_micro": order.proximal_mu_micro,
        }
        reply = await self._exchange(
            Frame("train", fields, arrays), "delta", timeout_seconds, replies.body_bytes(shapes)
        )
        return await self._believe(lambda: replies.train_result(reply, recipe, shapes))

    async def evaluate(self, recipe: LoraSft, arrays: Arrays | None, *, timeout_seconds: float) -> EvalResult:
        """Held-out loss with the adapter `arrays`, or of the base alone. Raises: as `train`."""
        if arrays is not None:
            replies.check_arrays(arrays, self._shapes(recipe))
        frame = Frame("evaluate", {"recipe": recipe.to_json()}, arrays or {})
        reply = await self._exchange(frame, "evaluated", timeout_seconds, 0)
        return await self._believe(lambda: replies.eval_result(reply, recipe))

    def brake(self) -> None:
        """End the trainer now, whatever it is doing; who waits for it gets Unavailable. Does not wait."""
        if self._warm is not None:
            self._warm.child.kill()

    async def rest(self) -> None:
        """The run is over: the copy of its data goes, and the trainer ends unless another run takes it up in time.
        Idempotent."""
        async with self._busy:
            warm = self._warm
            if warm is None or not warm.child.is_running or not self._may_rest(warm):
                await self._end()
            elif warm.dataset is not None:
                warm.dataset = None
                warm.ending = asyncio.get_running_loop().call_later(self._settings.idle_seconds, warm.child.kill)
                await asyncio.to_thread(_empty, self._input, self._scratch)

    def _may_rest(self, warm: _Warm) -> bool:
        """Rule 5, by the most that it can have computed since it was started: on all its threads, all the time."""
        most_spent = (asyncio.get_running_loop().time() - warm.since) * self._settings.threads
        return self._settings.idle_seconds > 0 and most_spent < self._settings.cpu_seconds / 2

    async def stop(self) -> None:
        """End the trainer and empty its folders. Idempotent."""
        self.brake()
        async with self._busy:
            await self._end()

    async def _start(self, base: Path, dataset: TextDataset, precision: Precision) -> SandboxReport:
        base_shapes = await asyncio.to_thread(read_base_shapes, base)
        since = asyncio.get_running_loop().time()
        child = await process.start(self._child_spec(base))
        self._warm = warm = _Warm(child, base, None, None, precision, base_shapes, since)
        fields: JsonObject = {"model_dir": str(base), "precision": precision, "threads": self._settings.threads}
        try:
            await child.exchange(Frame("load", fields), expect="loaded", timeout_seconds=_LOAD_SECONDS)
        except BaseException:
            await asyncio.shield(self._end())
            raise
        return await self._feed(warm, dataset)

    async def _taken_up(self, warm: _Warm, dataset: TextDataset, slot_timeout_seconds: float) -> SandboxReport:
        """Have a resting trainer for another run: from now on it rests no more, however long a slot takes to come."""
        if warm.ending is not None:
            warm.ending.cancel()
            warm.ending = None
        try:
            async with self._slots.hold(timeout_seconds=slot_timeout_seconds):
                return await self._feed(warm, dataset)
        except BaseException:
            await asyncio.shield(self._end())
            raise

    async def _feed(self, warm: _Warm, dataset: TextDataset) -> SandboxReport:
        """Copy the data into reach of a confined trainer and have it read."""
        copy = self._input / "pairs.jsonl"
        languages: JsonObject = {
            "file": str(copy),
            "source_language": dataset.languages.source,
            "target_language": dataset.languages.target,
        }
        warm.read = dataset
        try:
            await asyncio.to_thread(_copy, dataset.path, copy)
            await warm.child.exchange(Frame("read", languages), expect="read", timeout_seconds=_LOAD_SECONDS)
        except BaseException:
            await asyncio.shield(self._end())
            raise
        warm.dataset = dataset
        return warm.child.report

    async def _exchange(self, frame: Frame, expect: str, timeout_seconds: float, body_bytes: int) -> Frame:
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        async with self._busy, self._slots.hold(timeout_seconds=timeout_seconds):
            left = deadline - asyncio.get_running_loop().time()
            if self._warm is None or self._warm.dataset is None or not self._warm.child.is_running:
                raise Unavailable("the trainer is not running", code="CHILD_ENDED")
            if left <= 0:
                raise Unavailable("the trainer was busy until the deadline", code="TRAINER_BUSY")
            child, limits = self._warm.child, Limits(_HEADER_BYTES, body_bytes)
            try:
                return await child.exchange(frame, expect=expect, timeout_seconds=left, limits=limits)
            except FoedusError:
                if not child.is_running:
                    await self._end()
                raise

    async def _believe(self, check: Callable[[], R]) -> R:
        """`check` a reply; end the trainer that sent a refused one."""
        try:
            return check()
        except InvalidInput as err:
            await self.stop()
            raise ChildBreach("the trainer's answer holds what was not asked for", code=err.code) from err

    def _shapes(self, recipe: LoraSft) -> dict[str, tuple[int, int]]:
        if self._warm is None:
            raise PreconditionFailed("no trainer is running", remedy="prepare one first")
        return adapter_shapes(recipe, self._warm.base_shapes)

    def _child_spec(self, base: Path) -> ChildSpec:
        program = self._settings.program
        program_file = (Path(program),) if program.startswith("/") else ()
        confinement = Confinement(
            mode=self._settings.sandbox,
            reads=(base.resolve(), self._input, *program_file),
            scratch=self._scratch,
            secrets=self._secrets,
            memory_bytes=self._settings.memory_bytes,
            cpu_seconds=self._settings.cpu_seconds,
            threads=self._settings.threads,
        )
        return ChildSpec(program, confinement, self._input, self._home / "trainer.log")

    async def _end(self) -> None:
        warm, self._warm = self._warm, None
        if warm is not None:
            if warm.ending is not None:
                warm.ending.cancel()
            await warm.child.stop()
        await asyncio.to_thread(_empty, self._input, self._scratch)

    @property
    def _input(self) -> Path:
        return (self._home / "input").resolve()

    @property
    def _scratch(self) -> Path:
        return (self._home / "scratch").resolve()


def read_base_shapes(base: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the base's tensors, from its files' headers.

    Raises: PreconditionFailed: it holds no readable safetensors file.
    """
    files = sorted(path for path in base.glob("*.safetensors") if not path.name.startswith("adapter"))
    try:
        shapes = {tensor.name: tensor.shape for path in files for tensor in read_header(path).tensors}
    except (OSError, InvalidInput) as err:
        raise PreconditionFailed("the base's files cannot be read", code="MODEL_UNUSABLE") from err
    if not shapes:
        raise PreconditionFailed("the base holds no safetensors file", code="MODEL_UNUSABLE")
    return shapes


def _copy(source: Path, target: Path) -> None:
    """A copy of its own inode: a link would open to the child what its ruleset closes."""
    try:
        shutil.copyfile(source, target)
        target.chmod(0o400)
    except OSError as err:
        raise PreconditionFailed("the dataset cannot be copied", code="DATA_UNUSABLE") from err


def _empty(*folders: Path) -> None:
    """Make `folders` exist, private and empty. They stay the same folders: rulesets hold on to them."""
    for folder in folders:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
