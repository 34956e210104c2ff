"""Every byte that leaves passes here, one message at a time: held to the table, counted, tapped.

`node_agent.connections` sends nothing but what `Customs.clear` returned; no serializer runs inside gRPC.
"""

from __future__ import annotations

from pathlib import Path

from node_agent.crossings import Crossings
from node_agent.outbound import Leaving, clear
from treaty.errors import PolicyDenied


class Customs:
    """The one gate. `tap` is a file that gets the plain bytes of everything; it is for inspection and grows."""

    def __init__(self, crossings: Crossings, tap: Path | None = None) -> None:
        self._crossings = crossings
        self._tap = tap

    def clear(self, message: Leaving) -> bytes:
        """The exact bytes of `message`, which may now leave; counted before they do.

        Raises: PolicyDenied: not listed, or its receipt is not in the journal. LimitExceeded: beyond its class's cap.
        """
        cleared = clear(message)
        if cleared.receipt and not self._crossings.holds_receipt(cleared.receipt):
            raise PolicyDenied("the receipt of this transfer is not in the journal", codes=["RECEIPT_MISSING"])
        self._crossings.count(cleared.name, len(cleared.data))
        if self._tap is not None:
            with self._tap.open("ab") as file:
                file.write(cleared.data)
        return cleared.data
