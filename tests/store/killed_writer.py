"""A process that writes until it is killed: `python -m tests.store.killed_writer URL inside|between`.

`inside`: opens a transaction, changes everything in it, says `ready` and never commits.
`between`: commits pairs (a resource and a number) as fast as it can, saying each number after its commit.
"""

from __future__ import annotations

import asyncio
import sys

from controlplane.store import Store, open_store
from tests.store.builders import PAR, rollout


async def write_inside(store: Store) -> None:
    async with store.transaction() as change:
        await change.resources.create(rollout("lost"))
        await change.directives.next_number(PAR)
        print("ready", flush=True)
        await asyncio.Event().wait()


async def write_pairs(store: Store) -> None:
    number = 0
    while True:
        async with store.transaction() as change:
            await change.resources.create(rollout(f"r{number:05}"))
            await change.directives.next_number(PAR)
        print(number, flush=True)
        number += 1


async def main(url: str, mode: str) -> None:
    store = await open_store(url)
    await (write_inside if mode == "inside" else write_pairs)(store)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
