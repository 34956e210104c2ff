"""How a command reaches the coordinator: connect as the invocation says, tell the trace id if asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from controlplane.cli.client import Client, connected
from controlplane.cli.settings import Invocation
from controlplane.cli.terminal import say


@asynccontextmanager
async def client_of(invoked: Invocation) -> AsyncIterator[Client]:
    """A client for the body.

    Raises: PreconditionFailed: no coordinator is set. NotFound: a file of the identity is missing.
    """
    if invoked.is_verbose:
        say(f"trace {invoked.trace_id}")
    async with connected(invoked.connection(), invoked.trace_id) as client:
        yield client
