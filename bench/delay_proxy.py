"""A TCP proxy that makes loopback a long line: a round trip time and a rate shared by all its connections.

Both ends run over it in the same measurement, so its own cost falls on both. It keeps order within a connection and
holds at most 64 MiB for each direction of one, which is twice what 1 Gbit/s has under way in 230 ms.
"""

from __future__ import annotations

import argparse
import asyncio

READ_BYTES = 256 * 1024
HELD_READS = 256


class Line:
    """One direction of the long line."""

    def __init__(self, one_way_seconds: float, bytes_per_second: float) -> None:
        self._one_way_seconds = one_way_seconds
        self._bytes_per_second = bytes_per_second
        self._free_at = 0.0

    def arrival(self, size: int, now: float) -> float:
        """When `size` bytes handed over `now` reach the other end."""
        self._free_at = max(now, self._free_at) + size / self._bytes_per_second
        return self._free_at + self._one_way_seconds


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: Line) -> None:
    loop = asyncio.get_running_loop()
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(HELD_READS)

    async def take() -> None:
        data = b"begin"
        while data:
            try:
                data = await reader.read(READ_BYTES)
            except ConnectionError:
                data = b""
            await under_way.put((line.arrival(len(data), loop.time()), data))

    async def give() -> None:
        while True:
            arrival, data = await under_way.get()
            await asyncio.sleep(max(0.0, arrival - loop.time()))
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(take())
            tasks.create_task(give())
    except* ConnectionError:
        writer.close()


async def serve(target_port: int, round_trip_seconds: float, bytes_per_second: float) -> None:
    """Proxy a free port to `target_port` until cancelled; prints the port."""
    up, down = (Line(round_trip_seconds / 2, bytes_per_second) for _ in range(2))

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", target_port, limit=READ_BYTES)
        await asyncio.gather(_carry(reader, back, up), _carry(there, writer, down))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=READ_BYTES)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target_port", type=int)
    parser.add_argument("round_trip_milliseconds", type=int)
    parser.add_argument("--megabits-per-second", type=int, default=1000)
    chosen = parser.parse_args()
    asyncio.run(serve(chosen.target_port, chosen.round_trip_milliseconds / 1000, chosen.megabits_per_second * 1e6 / 8))
