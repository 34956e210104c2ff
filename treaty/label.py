"""How sensitive something is and to whom it may be released; what follows for things made from it.

A label is a classification and an explicit list of parties. Combining can only tighten: the highest classification,
the intersection of the releasabilities. There is no wildcard, so a party that joins later is not covered until
somebody says so. Codes of bodies (`EU`) are resolved to members by whoever asks, with the charter in hand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from treaty.errors import InvalidInput
from treaty.fields import Fields
from treaty.names import PartyCode, party_code
from treaty.strict_json import JsonLike, JsonValue

MAX_PARTIES = 256


class Classification(StrEnum):
    """In rising order, as declared."""

    PUBLIC = "public"
    RESTRICTED = "restricted"
    CONFIDENTIAL = "confidential"
    SECRET = "secret"  # noqa: S105  a level, not a password

    @property
    def level(self) -> int:
        return list(Classification).index(self)

    def at_least(self, floor: Classification) -> bool:
        return self.level >= floor.level


@dataclass(frozen=True, slots=True)
class Label:
    """`rel_to` is sorted and without repetition; empty means that nobody may have it."""

    classification: Classification
    rel_to: tuple[PartyCode, ...]

    def __post_init__(self) -> None:
        if list(self.rel_to) != sorted(set(self.rel_to)):
            raise InvalidInput("a label's parties are not sorted or repeat")

    def is_at_least(self, floor: Label) -> bool:
        """True if this is as strict as `floor`: no lower classification, nobody added."""
        return self.classification.at_least(floor.classification) and set(self.rel_to) <= set(floor.rel_to)

    def is_releasable_to(
        self, nation: PartyCode, members: Mapping[PartyCode, Collection[PartyCode]] | None = None
    ) -> bool:
        """True if `nation` is named, or is a member of a body that is (`members` comes from the charter)."""
        bodies = members or {}
        return nation in self.rel_to or any(nation in bodies.get(party, ()) for party in self.rel_to)

    def to_json(self) -> dict[str, JsonLike]:
        return {"classification": self.classification.value, "rel_to": list(self.rel_to)}


def label(classification: Classification, rel_to: Iterable[str]) -> Label:
    """A label with its parties parsed, sorted and each once."""
    return Label(classification, tuple(sorted({party_code(code) for code in rel_to})))


def parse_label(value: JsonValue) -> Label:
    fields = Fields(value, "a label")
    classification = fields.choice("classification", Classification)
    rel_to = tuple(party_code(code) for code in fields.texts("rel_to", max_items=MAX_PARTIES, max_chars=8))
    fields.done()
    return Label(classification, rel_to)


def derived_label(parents: Iterable[Label], datasets: Iterable[Label]) -> Label:
    """The loosest label that something made from all of these may carry.

    Raises: InvalidInput: from nothing nothing follows.
    """
    sources = [*parents, *datasets]
    if not sources:
        raise InvalidInput("a label is derived from at least one parent or dataset")
    highest = max((source.classification for source in sources), key=lambda found: found.level)
    shared = set(sources[0].rel_to).intersection(*(source.rel_to for source in sources[1:]))
    return Label(highest, tuple(sorted(shared)))
