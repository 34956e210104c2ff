"""What a nation says about one of its datasets: metadata, signed by its agent, for the coordinator's catalogue.

The predicate is exactly a `DatasetSpec` as the resource model writes it, with the data's classification, when it was
said and whether the dataset is withdrawn. There is no field for a path, a count or a record. The word that was recorded
last counts; a withdrawal holds until the nation registers the dataset again, and no earlier word takes it back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from treaty import statement
from treaty.delegation import Delegation, Power, verify_by_power
from treaty.errors import InvalidInput
from treaty.fields import Fields, timestamp_text
from treaty.keys import SigningKey
from treaty.label import Classification
from treaty.names import digest_of
from treaty.resources.codec import dump, load
from treaty.resources.nations import DatasetSpec
from treaty.statement import Statement, StatementKind, Verified
from treaty.strict_json import JsonObject, canonical


@dataclass(frozen=True, slots=True)
class DatasetNotice:
    """One word about a dataset. The subject's digest is that of the spec, so the same metadata keeps its digest."""

    spec: DatasetSpec
    classification: Classification
    is_withdrawn: bool
    issued_at: datetime

    def statement(self) -> Statement:
        spec = dump(self.spec)
        predicate: JsonObject = {
            "dataset": spec,
            "classification": str(self.classification),
            "is_withdrawn": self.is_withdrawn,
            "issued_at": timestamp_text(self.issued_at),
        }
        name = f"{self.spec.nation}/{self.spec.dataset_id}"
        return Statement(StatementKind.DATASET, name, digest_of(canonical(spec)), predicate)


def sign_notice(notice: DatasetNotice, key: SigningKey) -> bytes:
    return statement.sign(notice.statement(), [key])


def verify_notice(envelope: bytes, delegations: Iterable[Delegation], now: datetime) -> tuple[DatasetNotice, Verified]:
    """Believe a notice because an agent of the nation that it names signed it.

    Raises: BadSignature: no agent of that nation did. InvalidInput: not a notice.
    """
    notice = parse_notice(statement.unverified(envelope))
    verified, _ = verify_by_power(
        envelope,
        StatementKind.DATASET,
        delegations,
        nation=notice.spec.nation,
        powers=[Power.RECEIPT],
        now=now,
    )
    return notice, verified


def parse_notice(claimed: Statement) -> DatasetNotice:
    """Read what a notice says. Nothing is believed."""
    if claimed.kind is not StatementKind.DATASET:
        raise InvalidInput(f"expected a dataset's notice, got a {claimed.kind}")
    fields = Fields(claimed.predicate, "notice")
    spec = fields.value("dataset")
    notice = DatasetNotice(
        spec=load(DatasetSpec, spec, "dataset"),
        classification=fields.choice("classification", Classification),
        is_withdrawn=fields.boolean("is_withdrawn"),
        issued_at=fields.timestamp("issued_at"),
    )
    fields.done()
    if claimed.subject_digest != notice.statement().subject_digest:
        raise InvalidInput("the notice's subject is not the dataset that it describes")
    return notice
