"""One agent, put together from its home and run until it is told to stop.

Everything is built here once, from values; nothing below reads the environment or finds another part by itself.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from node_agent import health, messages, reach
from node_agent.border import GrpcBorder
from node_agent.brake import JournalBrake
from node_agent.charters import Membership, host_of, read_membership
from node_agent.connections import Connections, is_listening, reach_line
from node_agent.customs import Customs
from node_agent.enrolment import local_address
from node_agent.executor import Executor, ExecutorParts
from node_agent.home import Home
from node_agent.identity import NationIdentity, load_identity
from node_agent.inclusion import InclusionWatch
from node_agent.journal import SqliteJournal
from node_agent.logwatch import LOG_INCONSISTENT, LogWatch
from node_agent.loop import AgentLoop, Inbox
from node_agent.observe import Endpoint
from node_agent.ports import Clock, Core, Workers
from node_agent.progress import ProgressLine
from node_agent.reporting import ReportBook
from node_agent.session import Session, SessionParts
from node_agent.settings import Settings, read_settings
from node_agent.state import AgentState, Phase
from node_agent.tallies import TallyKeeper
from node_agent.telltale import Telltale, Trouble
from treaty.errors import FoedusError, ResourceExhausted, Unavailable
from treaty.version import version
from treaty.wire.credentials import ClientIdentity
from treaty.wire.v1 import session_pb2

log = structlog.get_logger(__name__)

ASK_REACH_EVERY = timedelta(seconds=5)

WorkersFactory = Callable[[Core, Settings], Workers]


class SystemClock:
    """`ports.Clock`."""

    def now(self) -> datetime:
        return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Foundation:
    """What both the running agent and the CLI verbs that connect stand on."""

    home: Home
    settings: Settings
    membership: Membership
    journal: SqliteJournal
    nation: NationIdentity
    customs: Customs
    connections: Connections
    clock: Clock

    def close(self) -> None:
        self.journal.close()


def lay(home: Home, clock: Clock) -> Foundation:
    """Read and verify the home of an agent that has joined.

    Raises: NotFound: no home. PreconditionFailed: not joined. InvalidInput, TrustError: what lies there is not good.
    """
    home.require()
    settings = read_settings(home.settings)
    membership = read_membership(home)
    nation = load_identity(home, settings, membership, clock)
    journal = SqliteJournal(home.journal, clock)
    customs = Customs(journal.crossings, Path(settings.tap) if settings.tap else None)
    connections = Connections(
        membership.coordinator,
        lambda: nation.charter().coordinator.ca_pem,
        lambda: ClientIdentity.of(nation.leaf().issued),
        customs,
    )
    return Foundation(home, settings, membership, journal, nation, customs, connections, clock)


class Agent:
    """A built agent; `run` it once."""

    def __init__(self, foundation: Foundation, make_workers: WorkersFactory) -> None:
        self._base = foundation
        journal, nation, clock = foundation.journal, foundation.nation, foundation.clock
        self._brake = JournalBrake(journal)
        self._border = GrpcBorder(foundation.connections, journal, nation, self._brake)
        self._book = ReportBook(journal)
        self._logwatch = LogWatch(journal, nation)
        core = Core(nation, journal, self._border, self._book, self._brake, clock, foundation.home.folders())
        self._workers = make_workers(core, foundation.settings)
        ledger = journal.ledger
        self.state = AgentState.resumed(nation.charter().digest, ledger.highest(), ledger.accepted(), ledger.open())
        self._trouble = Trouble()
        self._asked_at: datetime | None = None
        self._telltale = Telltale(self.state, self._trouble, self._workers, journal, clock)
        self._inbox = Inbox()
        self._book.on_change = self._inbox.report_changed
        self._session = Session(self._session_parts())
        self._book.on_progress = ProgressLine(lambda report: self._session.say(messages.progress(report))).tell
        self._loop = AgentLoop(
            self.state, self._inbox, Executor(self._executor_parts()), journal, self._brake, self._workers, clock
        )

    def stop(self) -> None:
        self._loop.stop()

    async def run(self) -> None:
        """Until `stop`. Raises: FoedusError, or a group of what failed."""
        log.info("agent started", **started(self._base))
        if alarm := self._logwatch.alarm:
            log.error("the coordinator's log contradicted itself: no update leaves", alarm=alarm)
            self._border.halt(LOG_INCONSISTENT)
        endpoint = Endpoint(self._base.settings.metrics_address, self.state, self._base.journal)
        tallies = TallyKeeper(self._base.journal, self._border, self._base.nation, self._base.settings.tally_seconds)
        probed = health.Health(self._base.settings.health_address, self._holds)
        try:
            self._telltale.metrics, self._telltale.health = await endpoint.open(), await probed.open()
            await self._loop.run(self._session.run, self._telltale.run, tallies.run, probed.run)
        finally:
            tallies.sign()
            await endpoint.close()
            await probed.close()
            await self._base.connections.close()

    def _holds(self) -> dict[str, bool]:
        """What a probe is told, by service (`node_agent.health`)."""
        seen = {health.SESSION: self.state.phase is Phase.ONLINE, health.LOG: not self._logwatch.alarm}
        return {**seen, **self._workers.readiness()}

    def _session_parts(self) -> SessionParts:
        base = self._base
        return SessionParts(
            connections=base.connections,
            border=self._border,
            outbox=base.journal.outbox,
            nation=base.nation,
            logwatch=self._logwatch,
            inclusion=InclusionWatch(base.journal, self._logwatch),
            clock=base.clock,
            hello=self._hello,
            emit=self._inbox.put,
            explain=self._explain,
            enrol=self._enrol,
            pause_max_seconds=base.settings.reconnect_max_seconds,
        )

    def _executor_parts(self) -> ExecutorParts:
        return ExecutorParts(
            journal=self._base.journal,
            border=self._border,
            book=self._book,
            workers=self._workers,
            session=self._session,
            clock=self._base.clock,
            emit=self._inbox.put,
            is_brake_on=lambda: self._brake.is_on,
            follow_charter=self._follow_charter,
        )

    def _hello(self, nonce: bytes) -> session_pb2.AgentMessage:
        return messages.hello(
            nonce=nonce,
            version=version(),
            charter_digest=self.state.charter_digest,
            highest=self.state.highest,
            open_numbers=list(self.state.open),
            checkpoint=self._logwatch.last(),
            note=self._logwatch.kept_note(),
            treaty_revision=self._book.treaty_revision,
            delegations=self._base.nation.delegation_envelopes(),
            status_sequence=self.state.status_sequence + 1,
        )

    async def _enrol(self) -> None:
        coordinator = self._base.membership.coordinator
        ip = await local_address(host_of(coordinator), int(coordinator.rpartition(":")[2]))
        await self._workers.enrol(replace(self._base.nation.shown(), agent_version=version(), ip=ip))

    async def _explain(self, error: FoedusError) -> None:
        """Note why there is no stream; where TLS does not say, ask Reach, which many agents share: not too often."""
        found, now = reach.explained(error, self._base.nation.agent_id), self._base.clock.now()
        if isinstance(error, Unavailable):
            if self._asked_at is not None and now - self._asked_at < ASK_REACH_EVERY:
                return
            self._asked_at = now
            try:
                found = await diagnosis(self._base) or error
            except ResourceExhausted:
                return
            except FoedusError:
                found = Unavailable(
                    f"neither {self._base.membership.coordinator} nor its Reach answers",
                    remedy="run 'foedus-agent check'; this agent keeps trying",
                )
        if (found.code, found.message) != (self._trouble.code, self._trouble.message):
            log.warning("not connected", code=found.code, reason=found.message, remedy=found.remedy)
        self._trouble.note(found)

    async def _follow_charter(self) -> None:
        base = self._base
        async with reach_line(base.membership.reach, base.nation.charter().coordinator.ca_pem, base.customs) as line:
            envelopes = await reach.fetch_charter(line)
        if base.nation.follow(envelopes, base.membership):
            self.state.charter_digest = base.nation.charter().digest
            log.info("charter followed", version=base.nation.charter().version)
            self._session.hang_up()


def started(base: Foundation) -> dict[str, object]:
    """What the first line of a log says: which program runs for whom, and the settings that decide what may happen."""
    settings = base.settings
    return {
        "version": version(),
        "home": str(base.home.root),
        "nation": base.nation.code,
        "agent": str(base.nation.agent_id),
        "charter": base.nation.charter().version,
        "coordinator": base.membership.coordinator,
        "reach": base.membership.reach,
        **{
            name: str(getattr(settings, name))
            for name in ("sandbox", "policy_engine", "region", "clearance", "address_ranges", "tap")
            if getattr(settings, name)
        },
        "min_heldout_pairs": settings.min_heldout_pairs,
        "min_examples_per_round": settings.min_examples_per_round,
    }


async def diagnosis(base: Foundation) -> FoedusError | None:
    """Why mutual TLS failed, from Reach and from the port itself; None where neither says. Raises: Unavailable."""
    async with reach_line(base.membership.reach, base.nation.charter().coordinator.ca_pem, base.customs) as line:
        code = await reach.diagnose(line, base.nation.leaf().issued)
    if not await is_listening(base.membership.coordinator):
        return Unavailable(
            f"nothing answers at {base.membership.coordinator}, the mutual TLS port; Reach at "
            f"{base.membership.reach} does",
            remedy="check --coordinator of 'join', and firewalls on the way",
        )
    return None if code == reach.ACCEPTED else reach.refusal(code, base.nation.agent_id)


async def run_until_signalled(agent: Agent) -> None:
    """Run `agent`; SIGTERM and SIGINT end it in order."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stop)
    await agent.run()
