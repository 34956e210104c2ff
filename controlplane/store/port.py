"""What the coordinator's services hold: a store, and a transaction of it.

    async with store.transaction() as change:
        rollout = await change.resources.update(rollout)
        number = await change.directives.next_number(agent)
        await change.directives.issue(agent, number, f"rollout/{rollout.name}", payload)

Rules:
1. a verb called on the store is a transaction of its own, durable when it returns;
2. the verbs of a transaction become visible and durable together when its block ends, or not at all when it raises;
3. one transaction writes at a time; its block awaits nothing slow and nothing but its own verbs. Writing through the
   store itself inside the block is refused, for it would wait for itself;
4. what must happen outside the database follows from what is in it: whoever does it finds it again by reading, at the
   next look or the next start, and doing it twice is doing it once. There is no queue of things to do beside the state
   (docs/adr/0007).

Only errors of `treaty.errors` come out: ConflictError (re-read), NotFound, RollbackRefused, PreconditionFailed,
ResourceExhausted (disk), Unavailable (retry), Corrupt (stop and recover).
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from controlplane.store.ports.artifacts import Artifacts
from controlplane.store.ports.directives import Directives, Epochs
from controlplane.store.ports.resources import Resources, Watches
from controlplane.store.ports.rounds import Rounds
from controlplane.store.ports.trust import Trust


class Transaction(Protocol):
    """The nouns. Their verbs are described in `controlplane.store.ports`."""

    @property
    def resources(self) -> Resources: ...

    @property
    def directives(self) -> Directives: ...

    @property
    def epochs(self) -> Epochs: ...

    @property
    def rounds(self) -> Rounds: ...

    @property
    def trust(self) -> Trust: ...

    @property
    def artifacts(self) -> Artifacts: ...


class Store(Transaction, Watches, Protocol):
    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Several verbs that are committed together."""
        ...

    async def close(self) -> None:
        """Finish what is running and let go of the database. Idempotent."""
        ...
