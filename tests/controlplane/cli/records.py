"""A small record of a real run's shape: charter, delegation, plan, receipts, a round and tallies, signed and salted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MappingProxyType

from tests.builders.charters import NOW, CharterBuilder
from treaty import statement
from treaty.audit import Entry, Offered
from treaty.charter import Charter
from treaty.fields import timestamp_text
from treaty.keys import SigningKey, new_signing_key
from treaty.log import Checkpoint, Tree, leaf_hash, new_entry, sign_checkpoint
from treaty.log.leaf import leaf_data
from treaty.names import Digest, PartyCode, RunId, digest_of
from treaty.plan import NationDecision, RunPlan, Task
from treaty.receipt import Crossing, Receipt, Tally, sign_receipt, sign_tally
from treaty.recipe import DEFAULT_TEMPLATE, LoraSft, Precision
from treaty.statement import Statement, StatementKind
from treaty.update_layout import TensorSpec

FR, DE = PartyCode("FR"), PartyCode("DE")
RUN = RunId("tr-1")
AGGREGATE = digest_of(b"the sum")
RECIPE = LoraSft(8, 16, ("q_proj",), 8, 8, 3000, 0, 64, Precision.BFLOAT16, DEFAULT_TEMPLATE, 64)
SIZES = {FR: 5000, DE: 6000}


@dataclass
class RecordBuilder:
    """Statements in order; `offered` signs a checkpoint over whatever is there."""

    treaty: CharterBuilder = field(default_factory=CharterBuilder)
    agents: dict[PartyCode, SigningKey] = field(default_factory=lambda: {FR: new_signing_key(), DE: new_signing_key()})
    envelopes: list[bytes] = field(default_factory=list)
    charter: Charter = field(init=False)

    def __post_init__(self) -> None:
        self.charter = self.treaty.charter()

    def plan(self) -> RunPlan:
        decision = NationDecision(digest_of(b"ask"), digest_of(b"decision"), (), 6000)
        return RunPlan(
            run=RUN,
            task=Task.TRAIN,
            purpose="translation",
            model_digest=digest_of(b"base"),
            recipe=RECIPE,
            strategy="FedAvg",
            parameters=MappingProxyType({}),
            cohort=(DE, FR),
            quorum=2,
            rounds=1,
            round_deadline_seconds=60,
            clip_norm_micro=1_000_000,
            max_examples=64,
            destination=PartyCode("EU"),
            host=PartyCode("BE"),
            tensors=(TensorSpec("layer.lora_A.weight", (8, 64)),),
            decisions=MappingProxyType({DE: decision, FR: decision}),
            refused=MappingProxyType({}),
        )

    def receipt(self, nation: PartyCode) -> Receipt:
        return Receipt(
            nation=nation,
            agent="one",
            crossing=Crossing.UPDATE,
            digest=update_of(nation),
            shape_digest=digest_of(b"shape"),
            size_bytes=SIZES[nation],
            destination=PartyCode("EU"),
            run=RUN,
            round=1,
            examples=64,
            decision_digest=digest_of(b"decision"),
            ask_digest=digest_of(b"ask"),
            clip_norm_micro=1_000_000,
            sandbox=("landlock",),
            trace_id="0" * 32,
            issued_at=NOW + timedelta(minutes=5),
        )

    def tally(self, nation: PartyCode, sequence: int = 1, **classes: tuple[int, int]) -> Tally:
        since = NOW + timedelta(minutes=10 * (sequence - 1))
        counted = {name.replace("_", "-"): value for name, value in classes.items()}
        return Tally(nation, "one", sequence, since, since + timedelta(minutes=10), MappingProxyType(counted))

    def round(self, receipts: list[Receipt], aggregate: Digest | None = AGGREGATE) -> Statement:
        nations = [
            {
                "nation": receipt.nation,
                "update": receipt.digest,
                "receipt": digest_of(receipt.statement().payload()),
                "examples": receipt.examples,
                "bytes": SIZES[receipt.nation],
            }
            for receipt in receipts
        ]
        predicate = {
            "run": RUN,
            "round": 1,
            "plan": self.plan().digest,
            "arrays_before": digest_of(b"before"),
            "arrays_after": digest_of(b"after"),
            "aggregate": aggregate,
            "nations": nations,
            "started_at": timestamp_text(NOW),
        }
        return Statement(StatementKind.ROUND, f"{RUN}/1", aggregate or digest_of(b"before"), predicate)  # type: ignore[arg-type]

    def add(self, *envelopes: bytes) -> RecordBuilder:
        self.envelopes += envelopes
        return self

    def by_log(self, said: Statement) -> bytes:
        return statement.sign(said, [self.treaty.log_key])

    def whole(self, **changed: Receipt) -> RecordBuilder:
        """Everything an honest run leaves; `FR=` or `DE=` puts another receipt in place."""
        receipts = [changed.get(nation, self.receipt(nation)) for nation in (DE, FR)]
        self.add(self.treaty.signed(self.charter))
        self.add(*(self.treaty.agent_delegation(nation, "one", self.agents[nation]) for nation in (FR, DE)))
        self.add(self.by_log(self.plan().statement()))
        self.add(*(sign_receipt(receipt, self.agents[receipt.nation]) for receipt in receipts))
        self.add(self.by_log(self.round([self.receipt(DE), self.receipt(FR)] if not changed else receipts)))
        for nation in (FR, DE):
            told = self.tally(nation, heartbeat=(3, 90), update_chunk=(1, SIZES[nation] + 20))
            self.add(sign_tally(told, self.agents[nation]))
        return self

    def offered(self) -> Offered:
        entries = []
        for index, envelope in enumerate(self.envelopes):
            salted = new_entry(envelope)
            hashed = leaf_hash(leaf_data(salted.salt, salted.statement))
            entries.append(Entry(index, hashed, salted.salt, salted.statement))
        return self.sealed(entries)

    def sealed(self, entries: list[Entry]) -> Offered:
        """A checkpoint over these leaves, whatever they show."""
        tree = Tree(entry.leaf_hash for entry in entries)
        head = Checkpoint(self.charter.log_origin, tree.size, tree.root())
        return Offered(sign_checkpoint(head, self.treaty.log_key.private).note, entries)


def update_of(nation: PartyCode) -> Digest:
    return digest_of(f"update of {nation}".encode())


def shrunk(offered: Offered, size: int, builder: RecordBuilder) -> Offered:
    return builder.sealed(list(offered.entries[:size]))


def with_entry(offered: Offered, index: int, **changed: object) -> Offered:
    entries = list(offered.entries)
    entries[index] = replace(entries[index], **changed)  # type: ignore[arg-type]
    return replace(offered, entries=entries)
