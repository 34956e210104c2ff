"""What a field of a resource may hold, said beside the field's type.

    nations: Annotated[tuple[NationCode, ...], Items(low=1, high=64)]

`treaty.resources.shape` reads the marks; the codec enforces them and the schema publishes them, so the two never
differ. A rule that spans several fields is not a mark: it is the dataclass's `__post_init__`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from treaty import names
from treaty.names import Digest, KeyId, ModelRef, PartyCode, RunId
from treaty.strict_json import MAX_INTEGER, JsonObject


@dataclass(frozen=True, slots=True)
class Text:
    """Bounds of a text; `parse` refuses what a pattern cannot say."""

    max_chars: int = 256
    min_chars: int = 0
    pattern: str | None = None
    parse: Callable[[str], str] | None = None


@dataclass(frozen=True, slots=True)
class Between:
    """Both ends belong to it."""

    low: int = 0
    high: int = MAX_INTEGER


@dataclass(frozen=True, slots=True)
class Items:
    """How many members a list or a map may have."""

    low: int = 0
    high: int = 256


@dataclass(frozen=True, slots=True)
class FreeForm:
    """A JSON object that another room validates; only its size and depth are bounded here."""

    max_bytes: int = 65_536
    max_depth: int = 6


@dataclass(frozen=True, slots=True)
class IntegerAsText:
    """An integer that is a text in JSON, as Kubernetes writes a resourceVersion."""


DIGEST_TEXT = Text(71, pattern="^sha256:[0-9a-f]{64}$", parse=names.digest)
NAME_TEXT = Text(63, 1, pattern="^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$", parse=names.resource_name)

BY_TYPE: dict[object, Text] = {
    Digest: DIGEST_TEXT,
    KeyId: Text(71, pattern=DIGEST_TEXT.pattern, parse=names.key_id),
    PartyCode: Text(8, 2, pattern="^[A-Z]{2,8}$", parse=names.party_code),
    ModelRef: Text(128, 3, pattern="^[^@]+@[^@]+$", parse=names.model_ref),
    RunId: Text(63, 1, pattern=NAME_TEXT.pattern, parse=names.run_id),
}
"""The marks that a named type carries by itself."""

NationCode = Annotated[PartyCode, Text(2, 2, pattern="^[A-Z]{2}$", parse=names.nation_code)]
Name = Annotated[str, NAME_TEXT]
SemanticVersion = Annotated[str, Text(64, 5, pattern=r"^[0-9]+\.[0-9]+\.[0-9]+", parse=names.semantic_version)]
SpiffeText = Annotated[str, Text(255, 16, pattern="^spiffe://[a-z0-9.-]+/[a-z]+/[a-z0-9-]+$")]
Word = Annotated[str, Text(64, 1, pattern="^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$")]
"""A purpose, a role, a task: one token of a vocabulary that the treaty's policy keeps."""

CamelWord = Annotated[str, Text(64, 1, pattern="^[A-Z][A-Za-z0-9]*$")]
Line = Annotated[str, Text(1024)]
Seconds = Annotated[int, Between(0, 31_536_000)]
"""At most a year."""

Count = Annotated[int, Between()]
LabelKey = Annotated[str, Text(128, 1, pattern="^[a-z0-9A-Z]([a-z0-9A-Z./_-]*[a-z0-9A-Z])?$")]
LabelValue = Annotated[str, Text(63, pattern="^([a-z0-9A-Z]([a-z0-9A-Z._-]*[a-z0-9A-Z])?)?$")]
MetricValues = Annotated[dict[LabelKey, Annotated[int, Between(-MAX_INTEGER, MAX_INTEGER)]], Items(high=64)]
"""Integers on a declared grid, the unit in the key: `perplexity_milli`."""

FreeObject = Annotated[JsonObject, FreeForm()]
