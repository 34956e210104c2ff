"""Names of the classes under which anything leaves a nation: the agent's table and the auditor's agree on them here.

None of them has room for a record of the nation's data (`node_agent.outbound` bounds each). A tally that counts
messages of any other class says that something crossed which this version cannot vouch for.
"""

from __future__ import annotations

from typing import Final

UPDATE_OPENING: Final = "update-opening"
UPDATE_CHUNK: Final = "update-chunk"
ROUND_RESULT: Final = "round-result"

CLASSES: Final = frozenset(
    {
        "hello",
        "acknowledgement",
        "status",
        "heartbeat",
        "answer",
        "submission",
        "progress",
        "proof-request",
        "round-refusal",
        ROUND_RESULT,
        "fetch",
        UPDATE_OPENING,
        UPDATE_CHUNK,
        "greet",
        "fetch-charter",
        "diagnose",
    }
)
