"""Where one nation stands in one rollout: the table of legal moves.

    Pending ──Directed──▶ Directed ──reports──▶ AwaitingConsent, Pulling, Starting, Evaluating ──▶ Serving
                                          └────▶ Refused (its word, not a failure)   └─▶ Failed ──▶ Returned

A missing key is an illegal move. Agents report levels, not edges, so any state in progress may follow any other; what
has ended stays ended: after Refused, Failed and Returned only a new rollout moves the nation again.
"""

from __future__ import annotations

from enum import StrEnum

from controlplane.domain.agents import RolloutState
from treaty.errors import InvalidTransition


class NationState(StrEnum):
    PENDING = "Pending"
    DIRECTED = "Directed"
    AWAITING_CONSENT = "AwaitingConsent"
    PULLING = "Pulling"
    STARTING = "Starting"
    EVALUATING = "Evaluating"
    SERVING = "Serving"
    REFUSED = "Refused"
    FAILED = "Failed"
    RETURNED = "Returned"


class Move(StrEnum):
    """What can happen to a nation that is not a report of its agent."""

    DIRECTED = "directed"
    DEADLINE_PASSED = "deadline passed"


IN_PROGRESS = frozenset(
    {
        NationState.DIRECTED,
        NationState.AWAITING_CONSENT,
        NationState.PULLING,
        NationState.STARTING,
        NationState.EVALUATING,
    }
)
FAILED_STATES = frozenset({NationState.FAILED, NationState.RETURNED})
SETTLED = frozenset({NationState.SERVING, NationState.REFUSED})
"""A wave whose nations are all here may soak; Refused is a nation's right, not a fault."""

_REPORTS: dict[RolloutState | Move, NationState] = {
    RolloutState.AWAITING_CONSENT: NationState.AWAITING_CONSENT,
    RolloutState.PULLING: NationState.PULLING,
    RolloutState.STARTING: NationState.STARTING,
    RolloutState.EVALUATING: NationState.EVALUATING,
    RolloutState.SERVING: NationState.SERVING,
    RolloutState.REFUSED: NationState.REFUSED,
    RolloutState.FAILED: NationState.FAILED,
    RolloutState.RETURNED: NationState.RETURNED,
}

_MOVING: dict[RolloutState | Move, NationState] = {**_REPORTS, Move.DEADLINE_PASSED: NationState.FAILED}

TRANSITIONS: dict[NationState, dict[RolloutState | Move, NationState]] = {
    NationState.PENDING: {Move.DIRECTED: NationState.DIRECTED},
    **{state: {**_MOVING, Move.DIRECTED: NationState.DIRECTED} for state in IN_PROGRESS},
    # A waiting person is not late: consent has an end of its own.
    NationState.AWAITING_CONSENT: {**_REPORTS, Move.DIRECTED: NationState.DIRECTED},
    # An agent that restarts starts what it served again.
    NationState.SERVING: {
        RolloutState.SERVING: NationState.SERVING,
        RolloutState.STARTING: NationState.STARTING,
        RolloutState.FAILED: NationState.FAILED,
        RolloutState.RETURNED: NationState.RETURNED,
    },
    NationState.REFUSED: {RolloutState.REFUSED: NationState.REFUSED},
    NationState.FAILED: {RolloutState.FAILED: NationState.FAILED, RolloutState.RETURNED: NationState.RETURNED},
    NationState.RETURNED: {RolloutState.RETURNED: NationState.RETURNED},
}


def after(state: NationState, event: RolloutState | Move) -> NationState:
    """The state that follows. Raises: InvalidTransition: the table has no such move."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise InvalidTransition(state, event) from None
