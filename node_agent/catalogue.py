"""The nation's datasets: what they are, what they may be used for, and where they lie; the last never leaves.

An admin registers a file of JSON lines, `{"source": …, "target": …}`; it is read whole, once, and refused at the first
line that is not a pair. What the coordinator hears is a `treaty.dataset.DatasetNotice`: purposes, class, languages and
a coarse size. The exact count stays here, for the policy (DAT-009). A dataset that is removed is withdrawn, and its
path forgotten; what was said about it before stays in the record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from node_agent.ports import Document, Journal
from node_agent.training.pairs import Languages, TextDataset, read_pairs
from treaty import names
from treaty.dataset import DatasetNotice
from treaty.errors import Corrupt, InvalidInput, NotFound
from treaty.fields import Fields
from treaty.files import about
from treaty.label import Classification
from treaty.names import Digest, PartyCode, digest_of
from treaty.policy.registers import DatasetFacts
from treaty.resources.nations import DatasetSpec, SizeBucket
from treaty.strict_json import JsonObject, canonical

KIND: Final = "dataset"
MAX_PURPOSES: Final = 32
SCHEMA_DIGEST: Final[Digest] = digest_of(canonical({"format": "json-lines", "source": "text", "target": "text"}))
"""Of the only schema there is: pairs of texts."""

LANGUAGES: Final = {
    "ar": "Arabic", "bg": "Bulgarian", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English",
    "es": "Spanish", "et": "Estonian", "fi": "Finnish", "fr": "French", "ga": "Irish", "hr": "Croatian",
    "hu": "Hungarian", "is": "Icelandic", "it": "Italian", "ja": "Japanese", "ko": "Korean", "lt": "Lithuanian",
    "lv": "Latvian", "mt": "Maltese", "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese",
    "ro": "Romanian", "sk": "Slovak", "sl": "Slovenian", "sv": "Swedish", "tr": "Turkish", "uk": "Ukrainian",
}  # fmt: skip
"""Languages by ISO 639-1 code, with the English name that stands in a prompt."""

_BUCKETS: Final = (
    (100, SizeBucket.UNDER_100),
    (1_000, SizeBucket.UNDER_1_000),
    (10_000, SizeBucket.UNDER_10_000),
    (100_000, SizeBucket.UNDER_100_000),
    (1_000_000, SizeBucket.UNDER_1_000_000),
)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A registered dataset. `records` and `path` stay at home; `path` is empty once it is withdrawn."""

    name: str
    path: str
    purposes: tuple[str, ...]
    source_language: str
    target_language: str
    data_class: str
    classification: Classification
    records: int
    is_withdrawn: bool
    registered_at: datetime

    @property
    def text(self) -> TextDataset:
        """As the training room takes it."""
        languages = Languages(LANGUAGES[self.source_language], LANGUAGES[self.target_language])
        return TextDataset(Path(self.path), languages)

    @property
    def facts(self) -> DatasetFacts:
        """As the policy looks it up."""
        return DatasetFacts(self.purposes, self.records, withdrawn=self.is_withdrawn)

    def notice(self, nation: PartyCode) -> DatasetNotice:
        """What crosses the border about it. The same registration gives the same statement."""
        spec = DatasetSpec(
            nation=nation,
            dataset_id=self.name,
            purposes=self.purposes,
            data_class=self.data_class,
            size_bucket=size_bucket(self.records),
            schema_digest=SCHEMA_DIGEST,
            languages=(self.source_language, self.target_language),
        )
        return DatasetNotice(spec, self.classification, self.is_withdrawn, self.registered_at.replace(microsecond=0))

    def to_json(self) -> JsonObject:
        return {
            "path": self.path,
            "purposes": list(self.purposes),
            "source_language": self.source_language,
            "target_language": self.target_language,
            "class": self.data_class,
            "classification": str(self.classification),
            "records": self.records,
            "is_withdrawn": self.is_withdrawn,
        }


@dataclass(frozen=True, slots=True)
class Registration:
    """What an admin says about a dataset."""

    name: str
    path: Path
    purposes: Sequence[str]
    target_language: str
    data_class: str
    classification: Classification = Classification.PUBLIC
    source_language: str = "en"


def add(journal: Journal, registration: Registration) -> Dataset:
    """Check a dataset's file and register it; an earlier registration of that name is replaced.

    Raises: InvalidInput: a line is no pair, or the description is out of bounds. NotFound: no such file.
    """
    purposes = tuple(sorted({names.resource_name(purpose) for purpose in registration.purposes}))
    if not 1 <= len(purposes) <= MAX_PURPOSES:
        raise InvalidInput(f"a dataset has 1 to {MAX_PURPOSES} purposes", remedy="pass --purpose")
    for code in (registration.source_language, registration.target_language):
        if code not in LANGUAGES:
            raise InvalidInput(
                f"{code[:16]!r} is no language that prompts know", remedy="known: " + ", ".join(LANGUAGES)
            )
    path = registration.path.resolve()
    body: JsonObject = {
        "path": str(path),
        "purposes": list(purposes),
        "source_language": registration.source_language,
        "target_language": registration.target_language,
        "class": names.resource_name(registration.data_class),
        "classification": str(registration.classification),
        "records": _count(path),
        "is_withdrawn": False,
    }
    return _dataset(journal.put(KIND, names.resource_name(registration.name), body))


def remove(journal: Journal, name: str) -> Dataset:
    """Withdraw a dataset: it is used no more, and its path is forgotten. Raises: NotFound."""
    document = journal.document(KIND, name)
    if document is None:
        raise NotFound(f"no dataset {name!r} is registered", remedy="see 'foedus-agent dataset list'")
    return _dataset(journal.put(KIND, name, {**document.body, "path": "", "is_withdrawn": True}))


def datasets(journal: Journal) -> tuple[Dataset, ...]:
    """All that were ever registered, by name, withdrawn ones included."""
    return tuple(_dataset(document) for document in journal.documents(KIND))


def for_purpose(journal: Journal, purpose: str) -> Dataset | None:
    """The first by name that may be used for `purpose`."""
    fitting = (d for d in datasets(journal) if purpose in d.purposes and not d.is_withdrawn)
    return next(fitting, None)


def size_bucket(records: int) -> SizeBucket:
    return next((bucket for bound, bucket in _BUCKETS if records < bound), SizeBucket.LARGER)


def _count(path: Path) -> int:
    try:
        with about(path):
            found = len(read_pairs(path))
    except FileNotFoundError as err:
        raise NotFound(f"no file {path}", remedy="check the path") from err
    except OSError as err:
        raise InvalidInput(f"{path} cannot be read", remedy="check its permissions") from err
    if not found:
        raise InvalidInput(f"{path} holds no pair")
    return found


def _dataset(document: Document) -> Dataset:
    try:
        fields = Fields(document.body, "dataset")
        dataset = Dataset(
            name=document.name,
            path=fields.text("path", 4096),
            purposes=fields.texts("purposes", max_items=MAX_PURPOSES, max_chars=63),
            source_language=fields.text("source_language", 8),
            target_language=fields.text("target_language", 8),
            data_class=fields.text("class", 63),
            classification=fields.choice("classification", Classification),
            records=fields.integer("records"),
            is_withdrawn=fields.boolean("is_withdrawn"),
            registered_at=document.updated_at,
        )
        fields.done()
    except InvalidInput as err:
        raise Corrupt(f"the journal's entry of dataset {document.name} cannot be read") from err
    return dataset
