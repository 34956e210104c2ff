"""Which role may call what: one table. A method that is not in it may be called by nobody.

Whether this agent, of all agents, may have what it asks for is decided where the call is served.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from treaty.errors import PermissionRefused
from treaty.names import SpiffeId, SpiffeRole

_PACKAGE: Final = "/treaty.wire.v1"
_AGENT: Final = frozenset({SpiffeRole.AGENT})
_OPERATOR: Final = frozenset({SpiffeRole.OPERATOR})
_PUBLISHER: Final = frozenset({SpiffeRole.PUBLISHER})
_AUDITING: Final = frozenset({SpiffeRole.OPERATOR, SpiffeRole.AUDITOR})
_PUBLISHING: Final = frozenset({SpiffeRole.OPERATOR, SpiffeRole.PUBLISHER})
_PEOPLE: Final = frozenset({SpiffeRole.OPERATOR, SpiffeRole.PUBLISHER, SpiffeRole.AUDITOR})

ROLES: Final[Mapping[str, frozenset[SpiffeRole]]] = MappingProxyType(
    {
        f"{_PACKAGE}.Session/Connect": _AGENT,
        f"{_PACKAGE}.Artifacts/Fetch": _AGENT,
        f"{_PACKAGE}.Artifacts/Missing": _PUBLISHER,
        f"{_PACKAGE}.Artifacts/PutChunk": _PUBLISHER,
        f"{_PACKAGE}.Updates/Send": _AGENT,
        f"{_PACKAGE}.Operator/Get": _PEOPLE,
        f"{_PACKAGE}.Operator/List": _PEOPLE,
        f"{_PACKAGE}.Operator/Watch": _PEOPLE,
        f"{_PACKAGE}.Operator/Apply": _OPERATOR,
        f"{_PACKAGE}.Operator/Delete": _OPERATOR,
        f"{_PACKAGE}.Operator/PublishCharter": _OPERATOR,
        f"{_PACKAGE}.Operator/AcceptAgent": _OPERATOR,
        f"{_PACKAGE}.Operator/RevokeAgent": _OPERATOR,
        f"{_PACKAGE}.Operator/PublishModel": _PUBLISHER,
        f"{_PACKAGE}.Operator/SignModel": _PUBLISHER,
        f"{_PACKAGE}.Operator/FetchManifest": _PEOPLE,
        f"{_PACKAGE}.Operator/PushPolicy": _OPERATOR,
        f"{_PACKAGE}.Operator/ControlRollout": _OPERATOR,
        f"{_PACKAGE}.Operator/PlanRun": _OPERATOR,
        f"{_PACKAGE}.Operator/StartRun": _OPERATOR,
        f"{_PACKAGE}.Operator/CancelRun": _OPERATOR,
        f"{_PACKAGE}.Operator/FollowRun": _PEOPLE,
        f"{_PACKAGE}.Operator/FetchRunResult": _PUBLISHING,
        f"{_PACKAGE}.Operator/GetCheckpoint": _PEOPLE,
        f"{_PACKAGE}.Operator/ReadLog": _AUDITING,
    }
)


def check_role(method: str, caller: SpiffeId) -> None:
    """Raises: PermissionRefused: the table does not let this role call `method`."""
    allowed = ROLES.get(method, frozenset())
    if caller.role in allowed:
        return
    name = method.rpartition("/")[2]
    others = " or ".join(sorted(allowed)) or "nobody"
    raise PermissionRefused(
        f"{caller.role} may not call {name}", remedy=f"use a certificate of role {others}" if allowed else ""
    )
