"""The registry of kinds: by name in a document, by any of its names on a command line."""

from __future__ import annotations

from treaty.errors import InvalidInput
from treaty.resources.meta import AnyKind
from treaty.resources.models import MODEL_VERSION, POLICY_BUNDLE
from treaty.resources.nations import DATASET, FREEZE_WINDOW, NATION, NODE_AGENT
from treaty.resources.rollouts import CONSENT, CONSENT_REQUEST, ROLLOUT
from treaty.resources.runs import FEDERATED_RUN

KINDS: tuple[AnyKind, ...] = (
    NATION,
    NODE_AGENT,
    MODEL_VERSION,
    ROLLOUT,
    FEDERATED_RUN,
    POLICY_BUNDLE,
    CONSENT_REQUEST,
    CONSENT,
    DATASET,
    FREEZE_WINDOW,
)

_BY_NAME: dict[str, AnyKind] = {kind.name: kind for kind in KINDS}
_BY_ANY_NAME: dict[str, AnyKind] = {
    word: kind for kind in KINDS for word in (kind.name.lower(), kind.plural, *kind.short_names)
}


def kind_named(name: str) -> AnyKind:
    """The kind with exactly this name (`Rollout`), as documents and the wire say it."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise InvalidInput(f"no such kind; one of {', '.join(_BY_NAME)}") from None


def kind_meant(word: str) -> AnyKind:
    """The kind that a person means by `rollout`, `rollouts`, `Rollout` or a short name."""
    try:
        return _BY_ANY_NAME[word.lower()]
    except KeyError:
        raise InvalidInput(f"no such kind; one of {', '.join(kind.plural for kind in KINDS)}") from None
