"""What every call on the mutual-TLS port passes, in this order, before a servicer sees it.

1. Who: the leaf that TLS saw, judged by the charter in force and the revocations; no field of any message is ever read
   as an identity;
2. what: the table of roles, where a method that is not listed is nobody's (`roles`);
3. an agent must have been accepted by an operator, and its attempt is recorded where it was not; and whatever it calls
   but Connect, a connect of it was let in by this process, and the treaty's policy in force does not refuse it;
4. the call is live and can be cut (`calls`); a unary one has a deadline; it is counted;
5. an error becomes a status: with its text for people at the coordinator, by code alone for an agent.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import grpc
import structlog
from cryptography import x509

from controlplane.api.calls import Call, LiveCalls
from controlplane.api.metrics import CALL_SECONDS, CALLS
from controlplane.api.roles import check_role
from controlplane.api.trace import trace_id_of
from controlplane.services.enrolment import Enrolment
from controlplane.services.nations import Nations
from controlplane.services.ports import Clock
from controlplane.services.trust import Trust
from treaty.errors import FoedusError, PermissionRefused, ResourceExhausted, Unavailable
from treaty.names import AgentId, SpiffeId, SpiffeRole
from treaty.wire.limits import UNARY_DEADLINE_SECONDS
from treaty.wire.peer import peer_leaf
from treaty.wire.status import grpc_status, grpc_status_code_only

log = structlog.get_logger(__name__)

CONNECT: Final = "/treaty.wire.v1.Session/Connect"
MAX_CALLS_PER_CALLER: Final = 32
"""Eight channels of a pull, a session and an update fit four times over."""

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


@dataclass(frozen=True, slots=True)
class Gate(grpc.aio.ServerInterceptor):
    """The interceptor of the mutual-TLS server."""

    trust: Trust
    nations: Nations
    enrolment: Enrolment
    calls: LiveCalls
    clock: Clock

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        return None if handler is None else self._guarded(handler, handler_call_details.method)

    def _guarded(self, handler: Handler, method: str) -> Handler:
        codec = (handler.request_deserializer, handler.response_serializer)
        if handler.response_streaming:
            inner: Any = handler.stream_stream or handler.unary_stream

            async def stream(request: Any, context: Context) -> None:
                answers = functools.partial(_forward, inner, request, context)
                await self._serve(method, context, answers, is_stream=True)

            if handler.request_streaming:
                return grpc.stream_stream_rpc_method_handler(stream, *codec)
            return grpc.unary_stream_rpc_method_handler(stream, *codec)
        behaviour: Any = handler.stream_unary or handler.unary_unary

        is_bounded = not handler.request_streaming  # a stream's servicer has a deadline of its own

        async def unary(request: Any, context: Context) -> Any:
            answer = functools.partial(behaviour, request, context)
            return await self._serve(method, context, functools.partial(_in_time, answer) if is_bounded else answer)

        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(unary, *codec)
        return grpc.unary_unary_rpc_method_handler(unary, *codec)

    async def _serve(
        self, method: str, context: Context, serve: Callable[[], Awaitable[Any]], *, is_stream: bool = False
    ) -> Any:
        """Let the call in, serve it and say how it ended."""
        started = time.monotonic()
        name = method.rpartition(".")[2]
        caller: SpiffeId | None = None
        try:
            leaf = peer_leaf({name: tuple(values) for name, values in context.auth_context().items()})
            caller = self.trust.identify(leaf)  # 1
            await self._permit(caller, method, leaf, context.peer())  # 2, 3
            trace_id = trace_id_of(context.invocation_metadata() or ())
            call = Call(caller, method, trace_id, leaf.not_valid_after_utc, is_stream)
            remaining = (call.not_after - self.clock()).total_seconds()
            with self.calls.entered(call), structlog.contextvars.bound_contextvars(trace_id=call.trace_id):
                async with call.alive(remaining):
                    answer = await serve()
            CALLS.labels(name, "OK").inc()
            CALL_SECONDS.labels(name).observe(time.monotonic() - started)
            return answer
        except FoedusError as err:
            failure = err
        except Exception:  # the boundary of one call: nothing of it may reach the peer as text
            log.exception("call failed", method=name)
            failure = FoedusError("the coordinator failed to serve this call; its log says why")
        CALLS.labels(name, failure.code).inc()
        log.warning(
            "call refused", method=name, caller=str(caller or "unknown"), code=failure.code, reason=failure.message
        )
        is_person = caller is not None and caller.role is not SpiffeRole.AGENT
        return await context.abort(*(grpc_status(failure) if is_person else grpc_status_code_only(failure)))  # 5

    async def _permit(self, caller: SpiffeId, method: str, leaf: x509.Certificate, peer: str) -> None:
        """Steps 2 and 3. Raises what refuses the caller."""
        check_role(method, caller)
        if caller.role is SpiffeRole.AGENT:
            await self._check_agent(caller, leaf, peer)
            if method != CONNECT:  # there it is asked anew, and may have become another
                await self.enrolment.check_admitted(caller)
        if self.calls.count_of(caller) >= MAX_CALLS_PER_CALLER:
            raise ResourceExhausted(f"{caller} has {MAX_CALLS_PER_CALLER} calls in progress")

    async def _check_agent(self, agent: AgentId, leaf: x509.Certificate, peer: str) -> None:
        try:
            self.nations.check_accepted(agent)
        except PermissionRefused:
            await self.enrolment.knocked(agent, leaf, peer=peer)
            raise


async def _in_time(serve: Callable[[], Awaitable[Any]]) -> Any:
    """Serve within the deadline of a unary call. Raises Unavailable: it was not enough."""
    try:
        async with asyncio.timeout(UNARY_DEADLINE_SECONDS) as timer:
            return await serve()
    except TimeoutError as err:
        if not timer.expired():
            raise
        raise Unavailable(f"the coordinator did not finish within {UNARY_DEADLINE_SECONDS} s") from err


async def _forward(behaviour: Any, request: Any, context: Context) -> None:
    """Send what a servicer yields; one that writes by itself is a coroutine and is only awaited."""
    answers = behaviour(request, context)
    if isinstance(answers, Awaitable):
        await answers
        return
    async with aclosing(answers):  # a stream that is cut must not leave its servicer half way
        async for answer in answers:
            await context.write(answer)
