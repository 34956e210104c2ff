"""Puts the coordinator together and runs it: the one place where every room is known.

Order of a start: the state (`core`), the services, the ports; `endpoints.json` is written last. Stopping is the
reverse: streams are told, unary calls get a moment, the record finishes its group.

One task group carries the process. A task that fails in a way that nobody foresaw ends the process, loudly: what must
survive is on the disk.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from controlplane.api.artifacts import ArtifactsServicer
from controlplane.api.gate import Gate
from controlplane.api.inbox import SessionParts
from controlplane.api.metrics import IS_HALTED, RECORD_SIZE
from controlplane.api.operator import OperatorParts, OperatorServicer
from controlplane.api.reach import ReachServicer
from controlplane.api.servers import GRACE_SECONDS, Servers, Servicers
from controlplane.api.session import SessionServicer
from controlplane.api.tls import ServerCertificate
from controlplane.api.updates import UpdatesServicer
from controlplane.artifacts.directory_store import DirectoryStore
from controlplane.artifacts.spool import UpdateSpool
from controlplane.core import Core, opened, utc_now
from controlplane.federation.workers import Workers
from controlplane.home import Home
from controlplane.services.catalog import Catalog, Written
from controlplane.services.drafts import expire, sweep_chunks
from controlplane.services.enrolment import Enrolment
from controlplane.services.listeners import Listeners
from controlplane.services.models import Models
from controlplane.services.parties import Parties
from controlplane.services.policies import Policies
from controlplane.services.proofs import Proofs
from controlplane.services.registry import Registry
from controlplane.services.rollouts import Rollouts
from controlplane.services.run_arrays import RunArrays
from controlplane.services.run_closing import RoundCloser
from controlplane.services.run_driver import RunDriver
from controlplane.services.run_news import RunNews
from controlplane.services.run_planning import RunPlanner
from controlplane.services.run_reconciler import RunReconciler
from controlplane.services.run_updates import UpdateDesk
from controlplane.services.runs import Runs
from controlplane.services.submissions import Submissions
from treaty.errors import FoedusError, Unavailable
from treaty.policy.decider import Decider
from treaty.policy.embedded import EmbeddedEngine
from treaty.resources.codec import narrowed
from treaty.resources.meta import AnyResource
from treaty.resources.nations import FREEZE_WINDOW
from treaty.resources.rollouts import ROLLOUT
from treaty.version import version

log = structlog.get_logger(__name__)

CHECKPOINT_SECONDS: Final = 1.0
"""How old a published checkpoint may be while the record grows; heartbeats carry the newest."""

HOUSEKEEPING_SECONDS: Final = 600
MAX_KEPT_EVENTS: Final = 10_000
"""A watcher that comes back within this many changes continues; a later one lists again."""
KEPT: Final = timedelta(days=30)
DRAFT_KEPT: Final = timedelta(days=7)
"""Publishers of several parties sign within days."""
CHUNK_SPARED: Final = timedelta(days=1)
"""Longer than any upload or round between a chunk and the manifest that lists it."""


@dataclass(frozen=True, slots=True)
class Services:
    """The verbs and the loops."""

    chunks: DirectoryStore
    models: Models
    policies: Policies
    rollouts: Rollouts
    workers: Workers
    reconciler: RunReconciler
    runs: Runs
    parties: Parties
    enrolment: Enrolment
    registry: Registry


@dataclass(frozen=True, slots=True)
class Running:
    """A coordinator that listens."""

    core: Core
    services: Services
    endpoints: Mapping[str, str]


async def serve(home: Home) -> None:
    """Run the coordinator of `home` until SIGTERM or SIGINT. Raises as `running`."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with running(home) as coordinator:
        home.write_endpoints(dict(coordinator.endpoints))
        log.info("serving", version=version(), home=str(home.root), **coordinator.endpoints)
        await stopping.wait()
        log.info("stopping")


@asynccontextmanager
async def running(home: Home) -> AsyncIterator[Running]:
    """The coordinator of `home`, listening for the length of the body.

    Raises: as `core.opened`; Unavailable: a port is taken.
    """
    async with opened(home) as core:
        services = _services(core)
        try:
            async with asyncio.TaskGroup() as tasks:
                loops = [tasks.create_task(loop(), name=name) for name, loop in _loops(core, services).items()]
                try:
                    async with _listening(core, services) as servers:
                        yield Running(core, services, servers.endpoints)
                finally:
                    for loop in loops:
                        loop.cancel()
        finally:
            # When every loop has ended: one that still gave orders would start its worker anew.
            await services.workers.close()


@asynccontextmanager
async def _listening(core: Core, services: Services) -> AsyncIterator[Servers]:
    await services.policies.load()
    await services.enrolment.load()
    await services.registry.load()
    await services.parties.adopt()
    if not core.record.is_frozen:
        await services.parties.record_revocations()
    certificate = ServerCertificate(
        core.home.ca(),
        lambda: core.trust.charter.coordinator.dns_names,
        lambda: core.trust.client_cas,
        utc_now,
        timedelta(seconds=core.settings.server_certificate_seconds),
    )
    servers = Servers(core.settings, certificate, core.trust.charter.coordinator.dns_names[0])
    try:
        await servers.start(_servicers(core, services))
        yield servers
    finally:
        core.calls.cut_streams(Unavailable("the coordinator is stopping", code="COORDINATOR_STOPPING"))
        await servers.stop()
        await core.calls.drained(GRACE_SECONDS)


def _services(core: Core) -> Services:
    store, trust, record, fleet, home = core.store, core.trust, core.record, core.fleet, core.home
    chunks = DirectoryStore(home.artifacts)
    spool = UpdateSpool(home.spool)
    models = Models(store, chunks, trust, record, utc_now, max_draft_bytes=core.settings.max_draft_bytes)
    policies = Policies(store, fleet, trust, record, Decider(EmbeddedEngine()), utc_now)
    rollouts = Rollouts(store, fleet, models, trust, record, core.log_key, utc_now)
    workers = Workers(home.runs)
    arrays = RunArrays(home.runs, store, chunks, utc_now)
    closer = RoundCloser(store, models, record, arrays, workers, core.log_key, utc_now)
    driver = RunDriver(store, fleet, models, trust, record, arrays, workers, closer, home.runs, core.log_key, utc_now)
    news = RunNews()
    reconciler = RunReconciler(store, driver, arrays, spool, news, utc_now)
    run_planner = RunPlanner(store, fleet, models, policies, trust)
    desk = UpdateDesk(store, fleet, record, spool, utc_now)
    runs = Runs(store, fleet, run_planner, driver, desk, arrays, reconciler, news, utc_now)
    enrolment = Enrolment(policies, core.nations, trust)
    parties = Parties(trust, core.nations, enrolment, record, core.log_key, charter_changed=policies.refresh_registers)
    registry = Registry(store, trust, record, utc_now)
    return Services(chunks, models, policies, rollouts, workers, reconciler, runs, parties, enrolment, registry)


def _servicers(core: Core, services: Services) -> Servicers:
    # Resources first: the planners that are woken after them read what they stored.
    listener = Listeners((services.registry, services.parties, services.policies, services.rollouts, services.runs))
    session = SessionParts(
        store=core.store,
        trust=core.trust,
        nations=core.nations,
        fleet=core.fleet,
        connections=core.connections,
        record=core.record,
        submissions=Submissions(core.trust, core.record, utc_now),
        proofs=Proofs(core.trust, core.record),
        enrolment=services.enrolment,
        listener=listener,
        clock=utc_now,
    )
    operator = OperatorParts(
        catalog=Catalog(core.store, _written(services)),
        parties=services.parties,
        record=core.record,
        models=services.models,
        policies=services.policies,
        rollouts=services.rollouts,
        runs=services.runs,
    )
    return Servicers(
        gate=Gate(core.trust, core.nations, services.enrolment, core.calls, utc_now),
        session=SessionServicer(session),
        artifacts=ArtifactsServicer(core.store, services.chunks, services.models),
        updates=UpdatesServicer(services.runs),
        operator=OperatorServicer(operator),
        reach=ReachServicer(core.trust, core.nations, services.enrolment, utc_now),
    )


def _written(services: Services) -> dict[str, Written]:
    """The kinds that an operator writes by hand, and who judges them."""

    async def admit_rollout(resource: AnyResource) -> None:
        await services.rollouts.admit(narrowed(ROLLOUT, resource).spec)

    async def admit_window(resource: AnyResource) -> None:
        narrowed(FREEZE_WINDOW, resource)

    return {
        ROLLOUT.name: Written(admit_rollout, services.rollouts.wake),
        FREEZE_WINDOW.name: Written(admit_window, services.rollouts.wake),
    }


def _loops(core: Core, services: Services) -> dict[str, Callable[[], Coroutine[None, None, None]]]:
    """The tasks of the process, by name."""
    return {
        "record": core.record.run,
        "checkpoints": lambda: _publish_checkpoints(core),
        "trust": lambda: _follow_trust(core, services),
        "housekeeping": lambda: _keep_house(core, services),
        "rollouts": services.rollouts.run,
        "runs": services.reconciler.run,
    }


async def _publish_checkpoints(core: Core) -> None:
    """Sign what grew, at most once a second."""
    signed = 0
    while True:
        await asyncio.sleep(CHECKPOINT_SECONDS)
        RECORD_SIZE.set(core.record.size)
        if core.record.size == signed:
            continue
        try:
            signed = (await core.record.publish()).checkpoint.size
        except FoedusError as err:
            log.error("checkpoint not published", code=err.code, exc_info=err)


async def _keep_house(core: Core, services: Services) -> None:
    """Bound what only grows: changes kept for watchers, superseded directives, drafts, chunks."""
    while True:
        await asyncio.sleep(HOUSEKEEPING_SECONDS)
        before = utc_now() - KEPT
        try:
            await core.store.resources.compact(MAX_KEPT_EVENTS)
            await core.store.directives.prune(before)
            dropped = await expire(core.store, created_before=utc_now() - DRAFT_KEPT)
            swept = await sweep_chunks(core.store, services.chunks, put_before=utc_now() - CHUNK_SPARED)
            log.info("house kept", dropped_drafts=len(dropped), swept_chunks=swept)
        except FoedusError as err:
            log.error("housekeeping failed", code=err.code, exc_info=err)


async def _follow_trust(core: Core, services: Services) -> None:
    """Notice what another process wrote, a charter loaded at this machine or a revocation, and a new treaty policy.

    Whom one of them refuses is cut within 5 s.
    """
    while True:
        await asyncio.sleep(core.settings.trust_refresh_seconds)
        try:
            await core.trust.refresh()
            core.record.is_frozen = await core.fleet.is_halted()
            IS_HALTED.set(core.record.is_frozen)
            if services.parties.is_behind:
                await services.parties.adopt()
            try:
                await services.enrolment.judge_again(core.calls.callers())
            finally:
                core.calls.judge(services.enrolment.check_not_denied)
        except FoedusError as err:
            log.error("trust not refreshed", code=err.code, exc_info=err)
