"""Ports for servers that a test starts itself."""

from __future__ import annotations

import errno
import socket


def free_port() -> int:
    """A port that is free on every address of `localhost`.

    A server that asks for "localhost:0" gets a port of one address family; where another process has the same number
    in the other family, half of all clients would speak with that one.
    """
    while True:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port: int = listening.getsockname()[1]
            if _is_free_in_ipv6(port):
                return port


def _is_free_in_ipv6(port: int) -> bool:
    """Also where there is no IPv6."""
    try:
        with socket.create_server(("::1", port), family=socket.AF_INET6):
            return True
    except OSError as err:
        if err.errno == errno.EADDRINUSE:
            return False
        if err.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            return True
        raise
