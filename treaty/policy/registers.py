"""The facts that rules look up, and who may set which: no source can write another's.

    treaty   in the signed treaty bundle        charter  derived from the pinned charter, by nobody else
    record   derived from the verified log      nation   the nation's own, at home only

Rules see one merged document as `data.foedus.registers`. A register that nobody set is absent there, and what reads
it fails in the nation and is `undetermined` at the coordinator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from treaty.errors import InvalidInput
from treaty.names import Digest, PartyCode
from treaty.policy import exact_json
from treaty.strict_json import JsonLike, JsonObject, JsonValue

_TREATY = frozenset(
    {"nations", "classification", "decision_points", "purposes", "licences", "limits", "approvals", "freezes"}
)
_CHARTER = frozenset({"nations", "bodies"})
_RECORD = frozenset({"models", "revoked"})
_NATION = frozenset({"nations", "datasets"})

# Several sources speak about a nation; each member of its entry has one owner all the same.
_CHARTER_SAYS_OF_A_NATION = frozenset({"trust_roots", "spiffe_host"})
_NATION_SAYS_OF_ITSELF = frozenset({"cidrs"})


@dataclass(frozen=True, slots=True)
class Registers:
    """What the decider itself knows, beside the treaty's own registers. Replaced as a whole when anything changes."""

    charter: JsonObject = field(default_factory=dict)
    record: JsonObject = field(default_factory=dict)
    nation: JsonObject = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_owner("charter", self.charter, _CHARTER, _CHARTER_SAYS_OF_A_NATION)
        _check_owner("record", self.record, _RECORD, frozenset())
        _check_owner("nation", self.nation, _NATION, _NATION_SAYS_OF_ITSELF)

    def merged_with(self, treaty: JsonObject) -> JsonObject:
        """The document that rules see. `treaty` comes out of a verified bundle.

        Raises: InvalidInput (INP-005): a source sets what is not its own.
        """
        check_treaty(treaty)
        merged = exact_json.merge(treaty, self.charter)
        merged = exact_json.merge(merged, self.record)
        return exact_json.merge(merged, self.nation)


def check_treaty(registers: JsonObject) -> None:
    """Refuse a treaty bundle that sets what the charter, the record or a nation says."""
    nations = registers.get("nations", {})
    for code, entry in nations.items() if isinstance(nations, dict) else ():
        foreign = sorted((_CHARTER_SAYS_OF_A_NATION | _NATION_SAYS_OF_ITSELF) & set(_object(entry, f"nations.{code}")))
        if foreign:
            raise InvalidInput(f"the treaty bundle sets {foreign[0]!r} of nation {code}, not its own", code="INP-005")
    _check_owner("treaty", registers, _TREATY, None)


def charter_registers(nations: Mapping[PartyCode, tuple[Sequence[Digest], str]]) -> JsonObject:
    """Registers derived from the charter: for each nation the digests of its CA certificates and its SPIFFE host."""
    entries: JsonObject = {}
    for code, (trust_roots, host) in nations.items():
        roots: list[JsonValue] = list(trust_roots)
        entries[code] = {"trust_roots": roots, "spiffe_host": host}
    return {"nations": entries, "bodies": {}}


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the record says about one model: `versions` to manifest digests, `labels` to (classification, REL TO)."""

    licence: str
    versions: Mapping[str, Digest]
    labels: Mapping[str, tuple[str, Sequence[str]]]


def record_registers(models: Mapping[str, ModelFacts], revoked: Sequence[str]) -> JsonObject:
    """Registers derived from the record. `revoked`: SPIFFE ids, digests of CA certificates, serials."""
    return _plain(
        {
            "models": {
                name: {
                    "licence": facts.licence,
                    "versions": dict(facts.versions),
                    "labels": {
                        version: {"classification": classification, "rel_to": list(rel_to)}
                        for version, (classification, rel_to) in facts.labels.items()
                    },
                }
                for name, facts in models.items()
            },
            "revoked": list(revoked),
        }
    )


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """What the nation says about one dataset. `compatible`: purposes to the moment (ns) at which they lapse."""

    purposes: Sequence[str]
    records: int
    withdrawn: bool = False
    compatible: Mapping[str, int] = field(default_factory=dict)


def nation_registers(
    nation: PartyCode, datasets: Mapping[str, DatasetFacts], cidrs: Sequence[str] | None = None
) -> JsonObject:
    """The nation's own registers. `cidrs`: the address ranges its agents call from."""
    document: dict[str, JsonLike] = {
        "datasets": {
            name: {
                "nation": nation,
                "purposes": list(facts.purposes),
                "compatible": [
                    {"purpose": purpose, "expires_ns": expires_ns} for purpose, expires_ns in facts.compatible.items()
                ],
                "records": facts.records,
                "withdrawn": facts.withdrawn,
            }
            for name, facts in datasets.items()
        }
    }
    if cidrs is not None:
        document["nations"] = {nation: {"cidrs": list(cidrs)}}
    return _plain(document)


def _plain(document: Mapping[str, JsonLike]) -> JsonObject:
    """A copy that nobody else holds."""
    encoded = exact_json.dump(document)
    return exact_json.parse_object(encoded, max_bytes=len(encoded))


def _check_owner(source: str, document: JsonObject, own: frozenset[str], of_a_nation: frozenset[str] | None) -> None:
    foreign = sorted(set(document) - own)
    if foreign:
        raise InvalidInput(f"the {source} registers set {foreign[0]!r}, which is not theirs to set", code="INP-005")
    if of_a_nation is None:
        return
    for code, entry in _object(document.get("nations", {}), "nations").items():
        foreign = sorted(set(_object(entry, f"nations.{code}")) - of_a_nation)
        if foreign:
            raise InvalidInput(f"the {source} registers set {foreign[0]!r} of nation {code}", code="INP-005")


def _object(value: JsonValue, what: str) -> JsonObject:
    if not isinstance(value, dict):
        raise InvalidInput(f"the register {what} is not an object", code="INP-003")
    return value
