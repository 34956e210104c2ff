"""What a nation says of a dataset: its metadata, signed by the agent; never a path, a column or a record.

The predicate is the resource's spec and whether it is withdrawn; the subject is the digest of that predicate. A later
statement about the same dataset takes the place of the earlier one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from treaty import statement
from treaty.delegation import Delegation, Power, verify_by_power
from treaty.errors import IdentityRefused, InvalidInput
from treaty.fields import Fields, timestamp_text
from treaty.keys import SigningKey
from treaty.names import Digest, PartyCode
from treaty.resources import codec
from treaty.resources.nations import DatasetSpec
from treaty.statement import Statement, StatementKind


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """A dataset as registered, or, with `is_withdrawn`, no longer there."""

    spec: DatasetSpec
    issued_at: datetime
    is_withdrawn: bool = False

    def statement(self) -> Statement:
        return statement.document(
            StatementKind.DATASET,
            f"{self.spec.nation}/{self.spec.dataset_id}",
            {
                "dataset": codec.dump(self.spec),
                "issued_at": timestamp_text(self.issued_at),
                "withdrawn": self.is_withdrawn,
            },
        )


def sign_dataset(entry: DatasetEntry, key: SigningKey) -> bytes:
    return statement.sign(entry.statement(), [key])


def parse_dataset(claimed: Statement) -> DatasetEntry:
    """Read an entry strictly. Says nothing about who signed it."""
    if claimed.kind is not StatementKind.DATASET:
        raise InvalidInput(f"expected a dataset, got a {claimed.kind}")
    fields = Fields(claimed.predicate, "dataset")
    entry = DatasetEntry(
        spec=codec.load(DatasetSpec, fields.value("dataset"), "dataset"),
        issued_at=fields.timestamp("issued_at"),
        is_withdrawn=fields.boolean("withdrawn"),
    )
    fields.done()
    return entry


def verify_dataset(
    envelope: bytes, delegations: Iterable[Delegation], *, nation: PartyCode, agent: str, now: datetime
) -> tuple[DatasetEntry, Digest]:
    """Believe an entry of `nation`, signed by its agent `agent`; the entry and the statement's digest.

    Raises: BadSignature: not that agent's key. IdentityRefused: another nation's dataset.
    """
    own = [delegation for delegation in delegations if delegation.agent == agent]
    verified, _ = verify_by_power(envelope, StatementKind.DATASET, own, nation=nation, powers=[Power.RECEIPT], now=now)
    entry = parse_dataset(verified.statement)
    if entry.spec.nation != nation:
        raise IdentityRefused(f"{nation} registered a dataset of {entry.spec.nation}", code="FOREIGN_NATION")
    return entry, verified.digest
