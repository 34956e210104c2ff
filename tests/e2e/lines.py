"""A nation's line to the coordinator that a test can cut, stall and mend: loopback TCP, bytes passed on unread.

A cut line drops what is connected and every new connection at once, as a firewall that resets does. A stalled one lets
a number of bytes through and then nothing, in either direction, as a route that swallows packets does. One that holds
answers carries all that the agent says, and from some point of a connection on nothing back. Ports stay.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

BUFFER_BYTES = 16 * 1024
LOOPBACK = "127.0.0.1"


class Line:
    """Listens on one port for each target and carries connections on to it until it is closed."""

    def __init__(self, *targets: int) -> None:
        self._listeners = [socket.create_server((LOOPBACK, 0)) for _ in targets]
        self._live: set[socket.socket] = set()
        self._changed = threading.Condition()
        self._is_cut = False
        self._allowance: int | None = None
        self._answered_bytes: int | None = None
        self._said: dict[socket.socket, int] = {}
        self.passed = 0
        """Bytes so far, both directions together."""
        for listener, target in zip(self._listeners, targets, strict=True):
            threading.Thread(target=self._accept, args=(listener, target), daemon=True).start()

    @property
    def ports(self) -> list[int]:
        return [int(listener.getsockname()[1]) for listener in self._listeners]

    @property
    def is_stalled(self) -> bool:
        """Whether the allowance of `stall_after` is spent."""
        with self._changed:
            return self._allowance is not None and self._allowance <= 0

    def cut(self) -> None:
        with self._changed:
            self._is_cut = True
            dropped, self._live = self._live, set()
            self._changed.notify_all()
        for each in dropped:
            _shut(each)

    def stall_after(self, count: int) -> None:
        """Pass `count` more bytes, give or take one read, and then nothing."""
        with self._changed:
            self._allowance = count

    def hold_answers_after(self, count: int) -> None:
        """On each connection opened from now on: once the agent has said `count` bytes, nothing comes back to it."""
        with self._changed:
            self._answered_bytes = count

    def mend(self) -> None:
        """Let everything through again. What was held back of a connection that still lives comes now."""
        with self._changed:
            self._is_cut, self._allowance, self._answered_bytes = False, None, None
            self._said.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """Idempotent."""
        self.cut()
        for listener in self._listeners:
            _shut(listener)

    def _accept(self, listener: socket.socket, target: int) -> None:
        while True:
            try:
                agent, _ = listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._carry, args=(agent, target), daemon=True).start()

    def _carry(self, agent: socket.socket, target: int) -> None:
        if self._is_cut:
            _shut(agent)
            return
        try:
            coordinator = socket.create_connection((LOOPBACK, target))
        except OSError:
            _shut(agent)  # nobody there: the agent sees what it would see without a line
            return
        ends = {agent, coordinator}
        with self._changed:
            is_cut = self._is_cut
            if not is_cut:
                self._live |= ends
                if self._answered_bytes is not None:
                    self._said[agent] = 0
        if not is_cut:
            back = threading.Thread(target=self._pump, args=(coordinator, agent), daemon=True)
            back.start()
            self._pump(agent, coordinator)
            back.join()
        with self._changed:
            self._live -= ends
            self._said.pop(agent, None)
        for end in ends:
            _shut(end)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        """Carry one direction until its end, then close that half only."""
        try:
            while data := source.recv(BUFFER_BYTES):
                self._await_leave(len(data), source, sink)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            _shut(source)
            _shut(sink)

    def _await_leave(self, count: int, source: socket.socket, sink: socket.socket) -> None:
        """Wait until bytes from `source` may go on to `sink`. Raises ConnectionAbortedError: the line was cut."""
        with self._changed:
            if source in self._said:  # counted before the coordinator sees it: no answer to it can be quicker
                self._said[source] += count
            self._changed.wait_for(lambda: source not in self._live or self._may_pass(sink))
            if source not in self._live:
                raise ConnectionAbortedError
            if self._allowance is not None:
                self._allowance -= count
            self.passed += count

    def _may_pass(self, sink: socket.socket) -> bool:
        is_stalled = self._allowance is not None and self._allowance <= 0
        is_answer_held = self._answered_bytes is not None and self._said.get(sink, 0) >= self._answered_bytes
        return not (is_stalled or is_answer_held)


def _shut(opened: socket.socket) -> None:
    with suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)
    opened.close()
