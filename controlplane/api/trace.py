"""One trace id from an operator's command to the agent's receipt.

It travels as W3C trace context (`traceparent` metadata) to the coordinator, as a directive's `trace_id` to the agent.
Source: W3C Trace Context level 1, section 3.2.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable

TRACEPARENT = "traceparent"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}\Z")


def trace_id_of(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The caller's trace id where it sent a valid one, a fresh one otherwise: 32 hexadecimal digits."""
    for key, value in metadata:
        found = _TRACEPARENT.match(value) if key == TRACEPARENT and isinstance(value, str) else None
        if found and found[1] != "0" * 32:
            return found[1]
    return secrets.token_hex(16)
