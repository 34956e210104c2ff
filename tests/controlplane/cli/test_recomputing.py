"""Sums computed again from real spooled updates: the same, another, or honestly not to be had."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.cli.recomputing import Outcome, recompute_rounds
from controlplane.federation.aggregate import recompute
from controlplane.federation.spool_reader import SpoolReader
from tests.builders.charters import NOW
from tests.controlplane.test_aggregate import SPEC, a_delta, spool
from treaty.audit import RoundSaid
from treaty.audit_crossings import Contribution
from treaty.names import PartyCode, digest_of

NATIONS = ("DE", "FR")


@pytest.fixture
def said(tmp_path: Path) -> RoundSaid:
    """A round of two updates, lying where the coordinator keeps them, and what it stated about it."""
    folder = tmp_path / "runs" / SPEC.run_id / str(SPEC.round)
    folder.mkdir(parents=True)
    contributions = []
    for seed, nation in enumerate(NATIONS):
        path = spool(tmp_path, nation, a_delta(seed)).rename(folder / f"{nation}.update")
        with SpoolReader(path) as reader:
            digest = reader.header.digest
        contributions.append(Contribution(PartyCode(nation), digest, digest_of(b"receipt"), 16, 1))
    aggregate = recompute([folder / f"{nation}.update" for nation in NATIONS])
    plan = digest_of(b"plan")
    return RoundSaid(3, SPEC.run_id, SPEC.round, plan, aggregate, NOW, tuple(contributions))


def outcome(said: RoundSaid, updates: Path | None) -> tuple[Outcome, str]:
    (check,) = recompute_rounds([said], updates)
    return check.outcome, check.why


def test_the_sum_of_the_receipted_updates_is_the_signed_one(said: RoundSaid, tmp_path: Path) -> None:
    assert outcome(said, tmp_path) == (Outcome.RECOMPUTED, "")


def test_another_aggregate_than_the_signed_one_differs(said: RoundSaid, tmp_path: Path) -> None:
    found, why = outcome(replace(said, aggregate=digest_of(b"a lie")), tmp_path)
    assert found is Outcome.DIFFERS
    assert why == f"the updates sum to {said.aggregate}"


def test_an_update_that_is_not_the_receipted_one_differs(said: RoundSaid, tmp_path: Path) -> None:
    lying = said.contributions[1]._replace(update=digest_of(b"another update"))
    found, why = outcome(replace(said, contributions=(said.contributions[0], lying)), tmp_path)
    assert (found, why) == (Outcome.DIFFERS, "the update of FR is not the receipted one")


def test_one_flipped_byte_of_an_update_differs(said: RoundSaid, tmp_path: Path) -> None:
    path = tmp_path / "runs" / SPEC.run_id / str(SPEC.round) / "FR.update"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    found, why = outcome(said, tmp_path)
    assert found is Outcome.DIFFERS
    assert "FR.update does not verify" in why


def test_deleted_updates_are_not_recomputable_and_nothing_else(said: RoundSaid, tmp_path: Path) -> None:
    (tmp_path / "runs" / SPEC.run_id / str(SPEC.round) / "DE.update").unlink()
    assert outcome(said, tmp_path) == (Outcome.GONE, "the updates of DE are gone")
    assert outcome(said, None) == (Outcome.GONE, "no --updates given")


def test_an_evaluation_has_no_sum(said: RoundSaid, tmp_path: Path) -> None:
    assert outcome(replace(said, aggregate=None), tmp_path)[0] is Outcome.NO_SUM
