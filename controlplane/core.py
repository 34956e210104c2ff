"""The coordinator's state, read back and put together: what every service stands on.

Order: settings, store, charter, record, delegations, who is accepted, the fleet. Nothing is served from here, and
nothing is made up: a state that does not verify is refused, with the step that repairs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from controlplane.api.calls import LiveCalls
from controlplane.api.messages_out import WireCodec
from controlplane.home import Home, check_own
from controlplane.record.log_files import LogFiles
from controlplane.services.connections import Connections
from controlplane.services.fleet import AgentFleet
from controlplane.services.nations import Nations
from controlplane.services.record import StatementRecord
from controlplane.services.trust import Trust
from controlplane.settings import Settings, read_settings
from controlplane.store import Store, open_store
from treaty.keys import SigningKey
from treaty.names import SpiffeId, SpiffeRole
from treaty.statement import StatementKind


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Core:
    """What is durable, and who is there."""

    home: Home
    settings: Settings
    log_key: SigningKey
    store: Store
    trust: Trust
    nations: Nations
    record: StatementRecord
    connections: Connections
    fleet: AgentFleet
    calls: LiveCalls


@asynccontextmanager
async def opened(home: Home) -> AsyncIterator[Core]:
    """The state of `home`, held by this process for the length of the body.

    Raises: NotFound: not a coordinator's home. PreconditionFailed: no charter, or another process serves it.
    Corrupt: store, charter or record do not verify.
    """
    settings = read_settings(home.settings)
    home.identity()
    log_key = home.log_key()
    async with AsyncExitStack() as stack:
        store = await open_store(settings.store_url or home.store_url, clock=utc_now)
        stack.push_async_callback(store.close)
        calls = LiveCalls()
        trust = Trust(store, utc_now, changed=lambda: calls.judge(standing))
        nations = Nations(store, trust, utc_now)

        def standing(caller: SpiffeId) -> None:
            trust.check_standing(caller)
            if caller.role is SpiffeRole.AGENT:
                nations.check_accepted(caller)

        await trust.load()
        charter = trust.charter
        check_own(home, charter)
        log = stack.enter_context(LogFiles.open(home.record, charter.log_origin, log_key.private))
        record = StatementRecord(log)
        await asyncio.to_thread(record.load)
        for envelope in await asyncio.to_thread(lambda: list(record.of_kind(StatementKind.DELEGATION))):
            trust.recall_delegation(envelope)
        await nations.load()
        for envelope in await asyncio.to_thread(lambda: list(record.of_kind(StatementKind.REVOCATION))):
            await nations.recall_revocation(envelope)
        connections = Connections()
        fleet = AgentFleet(store, trust, nations, record, connections, WireCodec())
        await fleet.load()
        yield Core(home, settings, log_key, store, trust, nations, record, connections, fleet, calls)
