"""Updates: a nation's update on a connection of its own, opening first, then chunks in order.

The stream has a deadline, each piece a bound and each agent one update at a time; what an update may be, and whether it
counts, is the run's question (`Runs.accept_update`). The answer comes when it is whole, verified, durable and recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, TypeAlias

import structlog

from controlplane.api import messages_in
from controlplane.api.calls import current_call
from controlplane.api.metrics import UPDATE_BYTES
from controlplane.services.ports import Runs
from treaty.errors import InvalidInput, LimitExceeded, ResourceExhausted, Unavailable
from treaty.names import AgentId
from treaty.wire.limits import CHUNK_BYTES, UPDATE_DEADLINE_SECONDS
from treaty.wire.v1 import transfer_pb2, transfer_pb2_grpc

log = structlog.get_logger(__name__)

FRAME_SECONDS: Final = 60
"""A chunk of 4 MiB within a minute: 70 kB/s, slower than any link that is worth training over."""

Context: TypeAlias = Any


class UpdatesServicer(transfer_pb2_grpc.UpdatesServicer):
    """Takes updates and hands them to the runs."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._sending: set[AgentId] = set()

    async def Send(self, request_iterator: Any, context: Context) -> transfer_pb2.UpdateAccepted:  # noqa: N802
        """The generated name."""
        agent = current_call().caller
        if agent in self._sending:
            raise ResourceExhausted("an agent sends one update at a time")
        self._sending.add(agent)
        try:
            async with asyncio.timeout(UPDATE_DEADLINE_SECONDS) as timer:
                opening = messages_in.update_opening(await _opening(context))
                received = await self._runs.accept_update(agent, opening, _chunks(context, agent))
        except TimeoutError as err:
            if not timer.expired():
                raise
            raise Unavailable(f"the update took longer than {UPDATE_DEADLINE_SECONDS} s") from err
        finally:
            self._sending.discard(agent)
        log.info("update accepted", agent=str(agent), run=opening.run, round=opening.round, update=received.digest)
        return transfer_pb2.UpdateAccepted(
            update_digest=received.digest,
            log_index=received.log_index,
            was_known=received.was_known,
            salt=received.salt,
            receipt=received.receipt,
        )


async def _opening(context: Context) -> transfer_pb2.UpdateOpening:
    frame = await _frame(context)
    if frame is None or frame.WhichOneof("body") != "opening":
        raise InvalidInput("the first frame of an update is its opening")
    return frame.opening


async def _chunks(context: Context, agent: AgentId) -> AsyncIterator[bytes]:
    while (frame := await _frame(context)) is not None:
        if frame.WhichOneof("body") != "chunk":
            raise InvalidInput("after its opening an update has chunks only")
        if not 0 < len(frame.chunk) <= CHUNK_BYTES:
            raise LimitExceeded(f"a chunk has 1 to {CHUNK_BYTES} bytes")
        UPDATE_BYTES.labels(agent.nation).inc(len(frame.chunk))
        yield frame.chunk


async def _frame(context: Context) -> transfer_pb2.UpdateFrame | None:
    """The next frame, None at the end of the stream. Raises Unavailable: none came in time."""
    try:
        async with asyncio.timeout(FRAME_SECONDS) as timer:
            frame: transfer_pb2.UpdateFrame | object = await context.read()
    except TimeoutError as err:
        if not timer.expired():
            raise
        raise Unavailable(f"no frame of the update came within {FRAME_SECONDS} s") from err
    return frame if isinstance(frame, transfer_pb2.UpdateFrame) else None  # gRPC's EOF
