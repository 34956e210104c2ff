"""Where a model version comes from and how it was measured, as its manifest states it.

Parents are manifests, datasets are known by nation and label only (their names and paths stay at home), and a
measurement is an integer in millionths, so that signed documents hold no fractions.
"""

from __future__ import annotations

from dataclasses import dataclass

from treaty.errors import InvalidInput
from treaty.fields import Fields
from treaty.label import Label, parse_label
from treaty.names import Digest, PartyCode, RunId, digest, nation_code, resource_name, run_id
from treaty.strict_json import MAX_INTEGER, JsonLike, JsonValue

MAX_PARENTS = 16
MAX_DATASETS = 256


@dataclass(frozen=True, slots=True)
class DatasetClass:
    """Data of one nation that went into a version: its label, nothing that identifies it."""

    nation: PartyCode
    label: Label

    def to_json(self) -> dict[str, JsonLike]:
        return {"nation": self.nation, "label": self.label.to_json()}


@dataclass(frozen=True, slots=True)
class Lineage:
    """`parents` are manifest digests; `run` is the federated run that made the version, if one did."""

    parents: tuple[Digest, ...] = ()
    run: RunId | None = None
    datasets: tuple[DatasetClass, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.parents)) != len(self.parents):
            raise InvalidInput("a parent is named twice")

    def to_json(self) -> dict[str, JsonLike]:
        return {
            "parents": self.parents,
            "run": self.run,
            "datasets": [dataset.to_json() for dataset in self.datasets],
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One measurement: `value_micro` millionths of the unit that `name` implies, over `examples` examples."""

    name: str
    value_micro: int
    examples: int

    def __post_init__(self) -> None:
        resource_name(self.name)
        if abs(self.value_micro) > MAX_INTEGER or not 0 < self.examples <= MAX_INTEGER:
            raise InvalidInput(f"evaluation {self.name!r} has a number out of range")

    def to_json(self) -> dict[str, JsonLike]:
        return {"name": self.name, "value_micro": self.value_micro, "examples": self.examples}


def parse_lineage(value: JsonValue) -> Lineage:
    fields = Fields(value, "the lineage")
    run = fields.optional_text("run", 63)
    lineage = Lineage(
        parents=tuple(digest(text) for text in fields.texts("parents", max_items=MAX_PARENTS, max_chars=71)),
        run=None if run is None else run_id(run),
        datasets=fields.list_of("datasets", _parse_dataset, max_items=MAX_DATASETS),
    )
    fields.done()
    return lineage


def parse_evaluation(value: JsonValue) -> Evaluation:
    fields = Fields(value, "an evaluation")
    evaluation = Evaluation(
        name=fields.text("name", 63),
        value_micro=fields.integer("value_micro", -MAX_INTEGER),
        examples=fields.integer("examples", 1),
    )
    fields.done()
    return evaluation


def _parse_dataset(value: JsonValue) -> DatasetClass:
    fields = Fields(value, "a dataset class")
    found = DatasetClass(nation_code(fields.text("nation", 2)), parse_label(fields.value("label")))
    fields.done()
    return found
