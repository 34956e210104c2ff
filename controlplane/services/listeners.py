"""Tells every service what the fleet heard, so that none of them can stop another from hearing it.

A listener that fails is logged and passed over: services are level-triggered and find what they missed. What was
submitted is told once more instead, because nothing else tells it: where a service failed in a way that may pass,
`submitted` raises, and the agent is not told that its statement is done with.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence

import structlog

from controlplane.domain.agents import AgentStatus, ProgressReport, RoundReport
from controlplane.services.ports import Listener
from treaty.errors import ConflictError, FoedusError, ResourceExhausted, Unavailable
from treaty.names import AgentId, Digest, DirectiveNumber

log = structlog.get_logger(__name__)

PASSING = (Unavailable, ConflictError, ResourceExhausted)
"""Failures that are gone when the same thing is tried again later."""

Tell = Callable[[Listener], Coroutine[None, None, None]]


class SilentListener:
    """A `Listener` that does nothing: what a service does not override is none of its business."""

    async def connected(self, agent: AgentId) -> None:
        """Nothing follows."""

    async def disconnected(self, agent: AgentId) -> None:
        """Nothing follows."""

    async def acknowledged(self, agent: AgentId, number: DirectiveNumber, codes: Sequence[str]) -> None:
        """Nothing follows."""

    async def status(self, agent: AgentId, status: AgentStatus) -> None:
        """Nothing follows."""

    async def submitted(self, agent: AgentId, envelope: bytes, digest: Digest, log_index: int) -> None:
        """Nothing follows."""

    async def round_result(self, agent: AgentId, report: RoundReport) -> None:
        """Nothing follows."""

    async def progress(self, agent: AgentId, report: ProgressReport) -> None:
        """Nothing follows."""


class Listeners:
    """A `Listener` made of many, told in the order in which they were given."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)

    async def connected(self, agent: AgentId) -> None:
        await self._tell(agent, lambda listener: listener.connected(agent))

    async def disconnected(self, agent: AgentId) -> None:
        await self._tell(agent, lambda listener: listener.disconnected(agent))

    async def acknowledged(self, agent: AgentId, number: DirectiveNumber, codes: Sequence[str]) -> None:
        await self._tell(agent, lambda listener: listener.acknowledged(agent, number, codes))

    async def status(self, agent: AgentId, status: AgentStatus) -> None:
        await self._tell(agent, lambda listener: listener.status(agent, status))

    async def submitted(self, agent: AgentId, envelope: bytes, digest: Digest, log_index: int) -> None:
        """Raises: Unavailable: a service could not take it now; it must be told again."""
        failures = await self._tell(agent, lambda listener: listener.submitted(agent, envelope, digest, log_index))
        if any(isinstance(failure, PASSING) for failure in failures):
            raise Unavailable(f"what follows from {digest} was not done", code="NOT_CARRIED_OUT")

    async def round_result(self, agent: AgentId, report: RoundReport) -> None:
        await self._tell(agent, lambda listener: listener.round_result(agent, report))

    async def progress(self, agent: AgentId, report: ProgressReport) -> None:
        await self._tell(agent, lambda listener: listener.progress(agent, report))

    async def _tell(self, agent: AgentId, tell: Tell) -> list[FoedusError]:
        """Tell every one of them; the failures."""
        failures = []
        for listener in self._listeners:
            try:
                await tell(listener)
            except FoedusError as err:
                failures.append(err)
                log.warning(
                    "service did not take an agent's message",
                    agent=str(agent),
                    service=type(listener).__name__,
                    code=err.code,
                    exc_info=err,
                )
        return failures
