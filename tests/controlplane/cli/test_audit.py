"""The verifier on a small honest record, and on the same record after each kind of tampering."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.builders.charters import NOW
from tests.controlplane.cli.records import AGGREGATE, DE, FR, RUN, SIZES, RecordBuilder, shrunk, with_entry
from treaty import audit, statement
from treaty.audit import Offered
from treaty.dataset import DatasetNotice, sign_notice
from treaty.errors import BadSignature, RollbackRefused, TrustError
from treaty.keys import new_signing_key
from treaty.label import Classification
from treaty.log import Checkpoint, sign_checkpoint
from treaty.names import PartyCode
from treaty.receipt import sign_receipt, sign_tally
from treaty.resources.nations import DatasetSpec, SizeBucket


@pytest.fixture
def builder() -> RecordBuilder:
    return RecordBuilder()


def codes(found: audit.Audit) -> list[str]:
    return [finding.code for finding in found.findings]


def test_an_honest_record_holds_and_says_what_crossed(builder: RecordBuilder) -> None:
    found = audit.verify(builder.whole().offered(), builder.charter, None)
    assert found.holds
    assert found.kinds == {"charter": 1, "delegation": 2, "plan": 1, "receipt": 2, "round": 1, "tally": 2}
    assert found.crossings.uncounted == 0
    (said,) = found.crossings.rounds
    assert (said.run, said.round, said.aggregate) == (RUN, 1, AGGREGATE)
    receipted = {(f.nation, f.destination, f.name, f.bytes) for f in found.crossings.flows if f.source == "receipt"}
    assert receipted == {("FR", "EU", "update", SIZES[FR]), ("DE", "EU", "update", SIZES[DE])}
    assert ("FR", "EU", "heartbeat", "tally", 3, 90) in found.crossings.flows


def test_one_flipped_byte_in_a_statement_is_refused(builder: RecordBuilder) -> None:
    offered = builder.whole().offered()
    said = offered.entries[4].statement
    assert said is not None
    flipped = said[:100] + bytes([said[100] ^ 1]) + said[101:]
    with pytest.raises(TrustError, match="entry 4 is not what the log committed to"):
        audit.verify(with_entry(offered, 4, statement=flipped), builder.charter, None)


def test_one_flipped_byte_in_a_leaf_hash_is_refused(builder: RecordBuilder) -> None:
    offered = builder.whole().offered()
    hashed = offered.entries[2].leaf_hash
    flipped = with_entry(offered, 2, leaf_hash=bytes([hashed[0] ^ 1]) + hashed[1:], salt=None, statement=None)
    with pytest.raises(TrustError, match="do not give the checkpoint's root"):
        audit.verify(flipped, builder.charter, None)


def test_one_flipped_byte_in_the_checkpoint_is_refused(builder: RecordBuilder) -> None:
    offered = builder.whole().offered()
    note = offered.note.replace(b"\n9\n", b"\n8\n")
    assert note != offered.note
    with pytest.raises(BadSignature, match="does not verify"):
        audit.verify(replace(offered, note=note), builder.charter, None)


def test_a_checkpoint_of_another_key_is_refused(builder: RecordBuilder) -> None:
    offered = builder.whole().offered()
    head = audit.known_checkpoint(offered.note, builder.charter)
    forged = sign_checkpoint(head, new_signing_key().private).note
    with pytest.raises(BadSignature, match="no signature by the key of log"):
        audit.verify(replace(offered, note=forged), builder.charter, None)


def test_a_missing_entry_is_refused(builder: RecordBuilder) -> None:
    offered = builder.whole().offered()
    cut = replace(offered, entries=[entry for entry in offered.entries if entry.index != 3])
    with pytest.raises(TrustError, match="covers 9 entries, 8 were shown"):
        audit.verify(cut, builder.charter, None)


def test_an_entry_in_the_place_of_another_is_refused(builder: RecordBuilder) -> None:
    offered = builder.whole().offered()
    entries = [*offered.entries[:3], offered.entries[4], offered.entries[3], *offered.entries[5:]]
    with pytest.raises(TrustError, match="entry 3 is missing, 4 stands there"):
        audit.verify(replace(offered, entries=entries), builder.charter, None)


def test_a_log_that_shrank_is_refused(builder: RecordBuilder) -> None:
    offered = builder.whole().offered()
    known = audit.known_checkpoint(offered.note, builder.charter)
    with pytest.raises(RollbackRefused, match="has 7 leaves; this reader has already seen 9"):
        audit.verify(shrunk(offered, 7, builder), builder.charter, known)


def test_another_history_of_the_same_length_is_refused(builder: RecordBuilder) -> None:
    known = audit.known_checkpoint(builder.whole().offered().note, builder.charter)
    with pytest.raises(TrustError, match="do not extend the checkpoint that was kept"):
        audit.verify(builder.offered(), builder.charter, known)  # salted anew: other leaves


def test_a_log_that_grew_extends_what_was_kept(builder: RecordBuilder) -> None:
    offered = builder.whole().offered()
    known = audit.known_checkpoint(shrunk(offered, 6, builder).note, builder.charter)
    assert audit.verify(offered, builder.charter, known).known_size == 6


def test_a_wrong_consistency_proof_is_refused_though_the_leaves_agree(builder: RecordBuilder) -> None:
    offered = builder.whole().offered()
    known = audit.known_checkpoint(shrunk(offered, 6, builder).note, builder.charter)
    with pytest.raises(TrustError, match=r"does not extend|too short|too long"):
        audit.verify(replace(offered, proof=(b"x" * 32,)), builder.charter, known)


def test_a_receipt_of_an_unknown_key_is_a_finding(builder: RecordBuilder) -> None:
    forged = sign_receipt(builder.receipt(FR), new_signing_key())
    found = audit.verify(builder.whole().add(forged).offered(), builder.charter, None)
    assert [(f.index, f.kind, f.code) for f in found.findings] == [(9, "receipt", "BAD_SIGNATURE")]


def test_a_receipt_in_another_nations_name_is_a_finding(builder: RecordBuilder) -> None:
    forged = sign_receipt(replace(builder.receipt(FR), run="other"), builder.agents[DE])
    found = audit.verify(builder.whole().add(forged).offered(), builder.charter, None)
    assert codes(found) == ["BAD_SIGNATURE"]


def test_a_delegation_that_the_nations_root_did_not_sign_is_a_finding(builder: RecordBuilder) -> None:
    stranger = new_signing_key()
    builder.treaty.roots[FR] = new_signing_key()
    builder.whole().add(builder.treaty.agent_delegation(FR, "two", stranger))
    found = audit.verify(builder.offered(), builder.charter, None)
    assert "BAD_SIGNATURE" in codes(found)
    assert found.kinds["delegation"] == 1  # Germany's alone


def test_a_receipt_that_states_fewer_bytes_than_arrived_is_a_finding(builder: RecordBuilder) -> None:
    found = audit.verify(builder.whole(FR=replace(builder.receipt(FR), size_bytes=1)).offered(), builder.charter, None)
    assert codes(found) == ["RECEIPT_BYTES"]
    assert "FR: 1 bytes receipted, 5000 received" in found.findings[0].message


def test_a_round_without_a_nations_receipt_is_a_finding(builder: RecordBuilder) -> None:
    builder.whole()
    del builder.envelopes[5]  # France's receipt
    found = audit.verify(builder.offered(), builder.charter, None)
    assert codes(found) == ["RECEIPT_MISSING"]


def test_a_receipt_for_another_destination_is_a_finding(builder: RecordBuilder) -> None:
    elsewhere = replace(builder.receipt(FR), destination=PartyCode("NATO"))
    found = audit.verify(builder.whole(FR=elsewhere).offered(), builder.charter, None)
    assert codes(found) == ["RECEIPT_DESTINATION"]


def test_a_round_that_the_coordinators_log_key_did_not_sign_is_a_finding(builder: RecordBuilder) -> None:
    builder.whole()
    builder.envelopes[6] = statement.sign(statement.unverified(builder.envelopes[6]), [new_signing_key()])
    found = audit.verify(builder.offered(), builder.charter, None)
    assert codes(found) == ["BAD_SIGNATURE"]
    assert found.crossings.uncounted == 2


def test_a_gap_in_an_agents_tallies_is_a_finding(builder: RecordBuilder) -> None:
    third = sign_tally(builder.tally(FR, 3, heartbeat=(1, 30)), builder.agents[FR])
    found = audit.verify(builder.whole().add(third).offered(), builder.charter, None)
    assert codes(found) == ["TALLY_GAP"]
    assert "FR's tally 2 is missing" in found.findings[0].message


def test_a_tally_below_what_was_receipted_is_a_finding(builder: RecordBuilder) -> None:
    builder.whole()
    builder.envelopes[7] = sign_tally(builder.tally(FR, heartbeat=(1, 30)), builder.agents[FR])
    late = replace(
        builder.receipt(FR), round=2, digest=AGGREGATE, issued_at=builder.receipt(FR).issued_at + timedelta(minutes=1)
    )
    second = builder.round([late])
    second.predicate["round"] = 2
    builder.add(sign_receipt(late, builder.agents[FR]), builder.by_log(second))
    found = audit.verify(builder.offered(), builder.charter, None)
    assert codes(found) == ["TALLY_BYTES"]
    assert "FR tallied 0 bytes of update, its receipts say 5000" in found.findings[0].message


def test_two_different_updates_of_one_nation_in_one_round_are_a_finding(builder: RecordBuilder) -> None:
    other = sign_receipt(replace(builder.receipt(FR), digest=AGGREGATE), builder.agents[FR])
    found = audit.verify(builder.whole().add(other).offered(), builder.charter, None)
    assert codes(found) == ["RECEIPT_TWICE"]


def test_a_forgotten_entry_keeps_the_proof(builder: RecordBuilder) -> None:
    offered = with_entry(builder.whole().offered(), 8, salt=None, statement=None)
    found = audit.verify(offered, builder.charter, None)
    assert found.holds
    assert found.forgotten == 1


def test_an_empty_record_holds(builder: RecordBuilder) -> None:
    found = audit.verify(builder.offered(), builder.charter, None)
    assert found.holds
    assert found.checkpoint == Checkpoint(builder.charter.log_origin, 0, found.checkpoint.root)
    assert isinstance(builder.offered(), Offered)


def notice(nation: PartyCode) -> DatasetNotice:
    spec = DatasetSpec(nation, "texts", ("translation",), "catalogue", SizeBucket.UNDER_10_000, AGGREGATE)
    return DatasetNotice(spec, Classification.PUBLIC, False, NOW - timedelta(days=1))


def test_a_notice_may_state_a_time_before_its_key_was_delegated(builder: RecordBuilder) -> None:
    builder.whole().add(sign_notice(notice(FR), builder.agents[FR]))
    assert audit.verify(builder.offered(), builder.charter, None).holds


def test_a_notice_about_another_nations_dataset_is_a_finding(builder: RecordBuilder) -> None:
    builder.whole().add(sign_notice(notice(FR), builder.agents[DE]))
    assert codes(audit.verify(builder.offered(), builder.charter, None)) == ["BAD_SIGNATURE"]
