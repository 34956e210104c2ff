"""The bounds of the wire, in one place, for both sides.

Keepalive: the client pings every 25 s, also without calls; the server allows that. Proxies ignore HTTP/2 PING, so the
Session has a heartbeat of its own. Connections live less than half a certificate's life, so revocation by expiry bites.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

ChannelOptions = Sequence[tuple[str, int | str]]

MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024
"""gRPC's default of 4 MiB includes the framing, and a chunk alone has 4 MiB."""
CHUNK_BYTES: Final = 4 * 1024 * 1024
FRAME_BYTES: Final = 1024 * 1024
MAX_CHUNKS_PER_FETCH: Final = 64
MAX_HEADER_BYTES: Final = 1024 * 1024
MAX_METRICS_BYTES: Final = 16 * 1024
MAX_ASK_BYTES: Final = 64 * 1024
MAX_DELEGATIONS: Final = 64
MAX_CONCURRENT_STREAMS: Final = 64

UNARY_DEADLINE_SECONDS: Final = 30
FETCH_DEADLINE_SECONDS: Final = 600
UPDATE_DEADLINE_SECONDS: Final = 600
HEARTBEAT_SECONDS: Final = 5
LEASE_SECONDS: Final = 3 * HEARTBEAT_SECONDS
"""Three heartbeats fit in one lease, so one lost packet never costs it."""

_SIZES: Final = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 16 * 1024),
)


def server_options(*, max_connection_age_seconds: int) -> ChannelOptions:
    """Options of a server whose clients' certificates live at least twice `max_connection_age_seconds`."""
    return [
        *_SIZES,
        ("grpc.max_concurrent_streams", MAX_CONCURRENT_STREAMS),
        ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_connection_age_ms", max_connection_age_seconds * 1000),
        ("grpc.max_connection_age_grace_ms", 30_000),
        ("grpc.so_reuseport", 0),
    ]


def client_options() -> ChannelOptions:
    return [
        *_SIZES,
        ("grpc.keepalive_time_ms", 25_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.enable_retries", 0),
        # Each purpose has a connection of its own: bulk bytes never share one with control.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_reconnect_backoff_ms", 5_000),
    ]
