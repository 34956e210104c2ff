"""The calls that are live, so that what no longer holds can be ended while it runs.

Rules:
1. a call ends when its caller's certificate does, however long its stream was meant to be;
2. after a revocation, a new charter or a withdrawn acceptance every live call is judged again and cut if it would be
   refused now;
3. a call that is cut ends with the code why, so that the peer need not guess.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime

from treaty.errors import FoedusError, IdentityRefused
from treaty.names import SpiffeId


@dataclass(eq=False, slots=True)
class Call:
    """One live call: who calls, until when the certificate holds, and the one thread of the operator's command."""

    caller: SpiffeId
    method: str
    trace_id: str
    not_after: datetime
    is_stream: bool = False
    _timer: asyncio.Timeout | None = None
    _why: FoedusError | None = None
    _is_done: bool = field(default=False)

    def cut(self, why: FoedusError) -> None:
        """End the call now. The first reason stays."""
        if self._why is None and not self._is_done:
            self._why = why
            if self._timer is not None:
                self._timer.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def alive(self, remaining_seconds: float) -> AsyncIterator[None]:
        """Run the body until it ends, the call is cut or the certificate ends. Raises why it was ended."""
        try:
            async with asyncio.timeout(0 if self._why else remaining_seconds) as self._timer:
                yield
        except TimeoutError:
            if self._timer is None or not self._timer.expired():
                raise
            if self._why is not None:
                raise self._why from None
            raise IdentityRefused("the certificate ended during the call", code="EXPIRED") from None
        finally:
            self._is_done = True


_current: ContextVar[Call] = ContextVar("call")


def current_call() -> Call:
    """The call that is being served. Set by the interceptor; a servicer behind none is a programming error."""
    return _current.get()


class LiveCalls:
    """Every call in progress on the mutual-TLS port."""

    def __init__(self) -> None:
        self._calls: set[Call] = set()
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    @contextmanager
    def entered(self, call: Call) -> Iterator[None]:
        """Keep `call` as live, and as the current one, for the length of the body."""
        token = _current.set(call)
        self._calls.add(call)
        self._is_idle.clear()
        try:
            yield
        finally:
            self._calls.discard(call)
            if not self._calls:
                self._is_idle.set()
            _current.reset(token)

    def callers(self) -> frozenset[SpiffeId]:
        return frozenset(call.caller for call in self._calls)

    def judge(self, check: Callable[[SpiffeId], None]) -> None:
        """Cut every call whose caller `check` refuses now (rule 2)."""
        for call in tuple(self._calls):
            try:
                check(call.caller)
            except FoedusError as refusal:
                call.cut(refusal)

    def cut_streams(self, why: FoedusError) -> None:
        """Cut what answers in a stream; what answers once may finish."""
        for call in tuple(self._calls):
            if call.is_stream:
                call.cut(why)

    async def drained(self, seconds: float) -> None:
        """Wait until no call is served any more, clean-up included, but no longer than that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_idle.wait()

    def count_of(self, caller: SpiffeId) -> int:
        return sum(call.caller == caller for call in self._calls)
