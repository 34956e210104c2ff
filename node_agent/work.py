"""What is done about directives, put together: policies, service, deployments, rounds, the catalogue.

This is `ports.Workers`. Beside what the core calls, four tasks run from `start` to `stop`: one keeps the wanted
version in service, one feeds the policy engine, two say to the coordinator what changed in the catalogue and what was
revoked. None of them needs the coordinator; where one fails for a moment it goes on, and says so in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import structlog

from node_agent import admission, catalogue, revocations
from node_agent.admission import require_current
from node_agent.answers import Answers
from node_agent.arrays import GlobalArrays
from node_agent.assignments import Minimums
from node_agent.bundles import Bundles
from node_agent.clearing import ShelfKeeper
from node_agent.decisions import Decisions, Place
from node_agent.deploy import Deployer
from node_agent.directives import AbortRollout, Deploy, Directive, EndRun, LoadTreatyPolicy, Question, Round
from node_agent.enrolment import Enrolment
from node_agent.gates import Gates
from node_agent.home import Home
from node_agent.outgoing import OutgoingFolder
from node_agent.ports import Core, NationAnswer
from node_agent.rounds import RoundWorker
from node_agent.runtime.local import LocalRuntime, RuntimeSettings
from node_agent.service import Service
from node_agent.settings import PolicyEngine, Settings, address_ranges
from node_agent.shelf import Shelf
from node_agent.training.sandbox import SandboxMode
from node_agent.training.slots import TrainerSlots, default_slots
from node_agent.training.supervisor import TRAINER, TrainerSettings, TrainerSupervisor
from treaty.dataset import sign_notice
from treaty.errors import FoedusError, InvalidInput
from treaty.label import Classification
from treaty.names import digest_of
from treaty.plan import verify_plan
from treaty.policy.decider import Decider
from treaty.policy.embedded import EmbeddedEngine
from treaty.policy.engine import Engine
from treaty.policy.opa import OpaEngine
from treaty.policy.questions import ObservedSubject

log = structlog.get_logger(__name__)

ANNOUNCED_KIND: Final = "dataset-announced"
RETRY_SECONDS: Final = 5.0


class Work:
    """`ports.Workers`. Made by `build`."""

    def __init__(
        self,
        core: Core,
        decider: Decider,
        place: Place,
        runtime: LocalRuntime,
        trainer: TrainerSupervisor,
        minimums: Minimums,
        *,
        keep_versions: int,
    ) -> None:
        folders = core.folders
        self._core = core
        self._decider = decider
        self._shelf = Shelf(folders.shelf, folders.staging)
        self._bundles = Bundles(core, decider)
        self._decisions = Decisions(core, decider, place)
        self._service = Service(core, self._shelf, runtime)
        self._keeper = ShelfKeeper(core, self._shelf, self._service, keep_versions)
        gates = Gates(core, self._decisions, self._service, self._shelf)
        self._deployer = Deployer(core, self._decisions, self._service, gates, self._shelf)
        self._trainer = trainer
        self._rounds = RoundWorker(
            core,
            self._decisions,
            self._shelf,
            trainer,
            GlobalArrays(folders.scratch / "arrays"),
            OutgoingFolder(folders.home / "outgoing"),
            minimums,
        )
        self._answers = Answers(core, self._decisions, self._service)
        self._enrolment = Enrolment(core, self._decisions)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Take up policies and begin to serve what was served; the model loads in the background."""
        await self._bundles.restore()
        await self._bundles.take_offer()
        await self._decisions.refresh()
        self._core.reports.held(self._shelf.versions())
        for name, work in (
            ("service", self._service.keep),
            ("policy-engine", self._decider.maintain),
            ("catalogue", self._announce),
            ("revocations", self._announce_revocations),
        ):
            self._tasks.append(asyncio.create_task(_guarded(name, work), name=name))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()
        await self._trainer.stop()
        await self._service.stop()
        await self._decider.close()

    async def admit(self, directive: Directive) -> None:
        match directive.action:
            case Deploy() as action:
                await self._deployer.admit(directive, action)
            case Round() as action:
                await self._rounds.admit(action)
            case LoadTreatyPolicy() as action:
                self._require_current()
                await asyncio.to_thread(self._bundles.believed_treaty, action.revision, action.bundle, action.envelope)
            case AbortRollout() | EndRun():
                pass

    async def deploy(self, directive: Directive, action: Deploy) -> None:
        offered = await asyncio.to_thread(admission.believed, action, self._core.nation)
        versions = [*(manifest.digest for manifest in offered.all), *([action.fallback] if action.fallback else [])]
        with self._keeper.using(versions):
            await self._deployer.deploy(directive, action)
            wanted = self._service.wanted
            if wanted is not None and wanted.digest == action.manifest_digest:
                await self._keeper.clear()

    async def abort(self, directive: Directive, action: AbortRollout) -> None:
        await self._deployer.abort(action)

    async def round(self, directive: Directive, action: Round) -> None:
        plan, _ = verify_plan(action.plan, self._core.nation.charter())
        self._keeper.begin_run(action.run, plan.model_digest)
        await self._rounds.run(directive, action)

    async def end_run(self, directive: Directive, action: EndRun) -> None:
        await self._rounds.end_run(action.run)
        self._keeper.end_run(action.run)

    async def load_policy(self, directive: Directive, action: LoadTreatyPolicy) -> None:
        self._require_current()
        await self._bundles.load_treaty(action.revision, action.bundle, action.envelope)
        await self._decisions.refresh()

    async def answer(self, question: Question) -> NationAnswer:
        return await self._answers.answer(question)

    async def enrol(self, subject: ObservedSubject) -> None:
        are_both = bool(self._bundles.treaty_revision and self._bundles.overlay_revision)
        await self._enrolment.require(subject, are_both_in_force=are_both)

    async def journal_changed(self) -> None:
        if self._core.brake.is_on:
            self._rounds.brake()
        await self._bundles.take_offer()
        await self._decisions.refresh()

    def readiness(self) -> Mapping[str, bool]:
        is_decided = self._decider.are_both_current(self._core.clock.now())
        return {
            "policy": is_decided,
            "serving": self._service.is_as_wanted,
            "training": is_decided and not self._core.brake.is_on,
        }

    def conditions(self) -> Mapping[str, str]:
        live = self._service.live
        return {
            "treaty_policy": str(self._bundles.treaty_revision or "none"),
            "overlay": str(self._bundles.overlay_revision or "none"),
            "enrolment": self._enrolment.state,
            "serving": live.observed_digest if live is not None else "nothing",
            "serving_sandbox": " ".join(live.report.layers) if live is not None else "",
        }

    def _require_current(self) -> None:
        require_current(self._core.nation.charter(), self._core.clock.now())

    async def _announce_revocations(self) -> None:
        journal = self._core.journal
        while True:
            generation = journal.generation
            await revocations.announce(journal, self._core.border)
            await journal.changed(generation)

    async def _announce(self) -> None:
        """Say to the coordinator what changed in the catalogue, once for each change, whenever it is there."""
        journal = self._core.journal
        while True:
            generation = journal.generation
            for dataset in catalogue.datasets(journal):
                notice = dataset.notice(self._core.nation.code)
                digest = digest_of(notice.statement().payload())
                said = journal.document(ANNOUNCED_KIND, dataset.name)
                if said is None or said.body.get("statement") != digest:
                    await self._core.border.submit(sign_notice(notice, self._core.nation.key))
                    journal.put(ANNOUNCED_KIND, dataset.name, {"statement": digest})
            await journal.changed(generation)


def build(core: Core, settings: Settings) -> Work:
    """The workers of an agent. Its keys and journal are what every child must fail to open."""
    home = Home(core.folders.home)
    held = tuple(path for path in (home.agent_key, home.ca_key, home.journal) if path.is_file())
    sandbox = SandboxMode(settings.sandbox)
    threads, scratch = settings.trainer_threads, core.folders.scratch
    place = Place(
        region=settings.region or f"{core.nation.code.lower()}-1",
        cluster=settings.agent,
        clearance=Classification(settings.clearance),
        address_ranges=address_ranges(settings.address_ranges),
    )
    trainer = TrainerSettings(
        sandbox=sandbox,
        program=settings.trainer_program or TRAINER,
        threads=threads,
        memory_bytes=settings.trainer_memory_bytes,
        cpu_seconds=settings.trainer_cpu_seconds,
        idle_seconds=settings.trainer_idle_seconds,
        slots=_slots(settings),
    )
    return Work(
        core,
        Decider(_engine(settings)),
        place,
        LocalRuntime(RuntimeSettings(sandbox=sandbox), scratch / "serving", held),
        TrainerSupervisor(trainer, scratch / "trainer", held),
        Minimums(settings.min_heldout_pairs, settings.min_examples_per_round),
        keep_versions=settings.keep_versions,
    )


def _engine(settings: Settings) -> Engine:
    if settings.policy_engine is PolicyEngine.EMBEDDED:
        return EmbeddedEngine()
    url = urlsplit(settings.opa_url)
    if url.scheme != "http" or url.hostname is None:
        raise InvalidInput("'opa_url' is not http://127.0.0.1:PORT")
    return OpaEngine(host=url.hostname, port=url.port or 8181)


def _slots(settings: Settings) -> TrainerSlots:
    usual = default_slots(settings.trainer_threads)
    folder = Path(settings.slots_directory) if settings.slots_directory else usual.folder
    return TrainerSlots(folder, settings.trainer_slots or usual.count)


async def _guarded(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run a task that is never done; what it meets is logged, and it begins again."""
    while True:
        try:
            await work()
            return
        except FoedusError as err:
            log.warning("background work failed", task=name, code=err.code, exc_info=err)
        except Exception:  # the boundary of a task: the agent goes on serving
            log.exception("background work failed", task=name)
        await asyncio.sleep(RETRY_SECONDS)
