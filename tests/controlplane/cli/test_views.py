"""How things look: golden text of tables, the rollout tree, the plan, an audit; in Unicode and in ASCII."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import timedelta

import pytest

from controlplane.cli import audit_report, rollout_tree, run_plan, run_progress, tables
from controlplane.cli.client import PlannedRun
from controlplane.cli.description import description
from controlplane.cli.recomputing import Outcome, recompute_rounds
from controlplane.cli.terminal import duration, size
from tests.builders.charters import NOW
from tests.controlplane.cli.records import RecordBuilder
from treaty import audit
from treaty.errors import InvalidInput, PolicyDenied, TrustError
from treaty.names import Digest, ModelRef, PartyCode
from treaty.receipt import sign_tally
from treaty.resources.meta import Condition, ConditionStatus, ObjectMeta, Resource, new_resource, with_condition
from treaty.resources.rollouts import ROLLOUT, NationProgress, RolloutSpec, RolloutStatus, Wave
from treaty.resources.runs import (
    FEDERATED_RUN,
    FederatedRunSpec,
    FederatedRunStatus,
    NationMetrics,
    RoundDone,
    Task,
)

FR, DE, IT = PartyCode("FR"), PartyCode("DE"), PartyCode("IT")
DIGEST = Digest("sha256:" + "ab" * 32)


@pytest.fixture
def rollout() -> Resource[RolloutSpec, RolloutStatus]:
    waves = (Wave("wave-1", (FR, DE)), Wave("wave-2", (IT,)))
    spec = RolloutSpec(ModelRef("demo@1.0.0"), DIGEST, waves, soak_seconds=60)
    nations = (
        NationProgress(FR, "Serving", wave="wave-1", since=NOW - timedelta(seconds=90)),
        NationProgress(
            DE,
            "Pulling",
            wave="wave-1",
            since=NOW - timedelta(minutes=4),
            metrics={"pulled_bytes": 1_500_000, "total_bytes": 269_000_000},
        ),
        NationProgress(IT, "AwaitingConsent", wave="wave-2", since=NOW - timedelta(hours=5)),
    )
    made = new_resource(ROLLOUT, "demo-1", spec, status=RolloutStatus(nations=nations))
    made = replace(made, metadata=ObjectMeta("demo-1", creation_timestamp=NOW - timedelta(hours=5)))
    waiting = Condition("Progressing", ConditionStatus.TRUE, "WaveInProgress", "wave wave-1 waits for DE: Pulling")
    return with_condition(made, waiting, NOW)


def test_the_rollout_tree_says_why_each_nation_waits(rollout: Resource[RolloutSpec, RolloutStatus]) -> None:
    assert rollout_tree.lines(rollout, NOW, is_ascii=False) == [
        "◐ rollout demo-1  demo@1.0.0  WaveInProgress",
        "  wave wave-1 waits for DE: Pulling",
        "├─ wave-1  in progress",
        "│  ├─ ✔ FR  Serving  90s",
        "│  └─ ◐ DE  Pulling  4m   1.5 MB of 269.0 MB",
        "└─ wave-2  not begun",
        "   └─ ◷ IT  AwaitingConsent  5h  a person of the nation approves or refuses: foedus-agent approve",
    ]


def test_the_rollout_tree_has_an_ascii_fallback(rollout: Resource[RolloutSpec, RolloutStatus]) -> None:
    text = "\n".join(rollout_tree.lines(rollout, NOW, is_ascii=True))
    assert text.isascii()
    assert "|- wave-1  in progress\n|  |- + FR  Serving" in text


def test_only_what_moved_is_told_where_nobody_watches(rollout: Resource[RolloutSpec, RolloutStatus]) -> None:
    moved = replace(rollout.status.nations[1], state="Failed", reason="GATEWORSE")
    after = replace(
        rollout, status=replace(rollout.status, nations=(rollout.status.nations[0], moved, rollout.status.nations[2]))
    )
    assert list(rollout_tree.changes(rollout, after)) == ["DE Failed (GATEWORSE)"]
    assert list(rollout_tree.changes(after, after)) == []


def test_a_table_is_laid_out_without_lines(rollout: Resource[RolloutSpec, RolloutStatus]) -> None:
    rows = tables.resource_rows([rollout], is_wide=False, now=NOW)
    assert tables.text_of(rows, io.StringIO()) == (
        "NAME     MODEL        STATE            WAVE   SERVING   AGE\n"
        "demo-1   demo@1.0.0   WaveInProgress   1/2    1/3       5h"
    )
    assert tables.resource_rows([rollout], is_wide=True, now=NOW)[0][-2] == "FALLBACK"
    assert tables.resource_rows([], is_wide=False, now=NOW) == []


def test_markup_in_a_cell_is_text(rollout: Resource[RolloutSpec, RolloutStatus]) -> None:
    assert tables.text_of([["A"], ["[bold]x[/bold] :smile:"]], io.StringIO()) == "A\n[bold]x[/bold] :smile:"


def test_a_description_shows_conditions_with_reason_and_time(rollout: Resource[RolloutSpec, RolloutStatus]) -> None:
    text = description(rollout)
    assert text.startswith("Name:       demo-1\nKind:       Rollout\n")
    assert "  Progressing   True     2026-11-23T12:00:00Z   WaveInProgress   wave wave-1 waits for DE: Pulling" in text


def test_every_kind_has_columns() -> None:
    from treaty.resources.kinds import KINDS

    assert set(tables.COLUMNS) == {kind.name for kind in KINDS}


def planned(*, is_startable: bool) -> PlannedRun:
    plan = RecordBuilder().plan()
    nations = {
        "DE": {"verdict": "allow", "codes": [], "bytes_out_per_round": 1_900_000},
        "FR": {"verdict": "allow", "codes": [], "bytes_out_per_round": 1_900_000},
        "IT": {"verdict": "deny", "codes": ["DAT-003"], "bytes_out_per_round": 0},
    }
    document = {
        "plan": plan.to_json() if is_startable else None,
        "nations": nations,
        "quorum": 2 if is_startable else 3,
        "is_startable": is_startable,
    }
    return PlannedRun(document, plan.digest if is_startable else "")  # type: ignore[arg-type]


def test_a_plan_is_shown_with_every_nations_answer() -> None:
    lines = run_plan.plan_text(planned(is_startable=True), is_ascii=True).split("\n")
    assert lines[0] == "plan of tr-1: train for translation, FedAvg, 1 round"
    assert lines[1].startswith("  to EU in BE, 2 nations, quorum 2; sha256:")
    assert lines[2:] == [
        "    NATION   ANSWER   CODES     BYTES A ROUND",
        "+   DE       allow              1.9 MB",
        "+   FR       allow              1.9 MB",
        "-   IT       deny     DAT-003   -",
        "3.8 MB leave in all, at most; raw records: 0",
    ]
    run_plan.require_startable(planned(is_startable=True))


def test_a_missed_quorum_is_denied_and_names_each_nation() -> None:
    with pytest.raises(PolicyDenied, match=r"2 of 3 nations would take part, the quorum is 3 \(IT: DAT-003\)") as told:
        run_plan.require_startable(planned(is_startable=False))
    assert told.value.codes == ("DAT-003",)


def test_a_plan_under_another_digest_is_refused() -> None:
    shown = replace(planned(is_startable=True), digest=DIGEST)
    with pytest.raises(InvalidInput, match="is not that of the plan shown"):
        run_plan.read(shown)


def run_resource() -> Resource[FederatedRunSpec, FederatedRunStatus]:
    spec = FederatedRunSpec(Task.TRAIN, "translation", ModelRef("demo@1.0.0"), (DE, FR), 2, rounds=2)
    rounds = tuple(
        RoundDone(
            number,
            (DE, FR),
            metrics=tuple(
                NationMetrics(nation, {"heldout_loss_micro": loss, "heldout_pairs": 64})
                for nation, loss in ((DE, 3_852_000 - number * 10**6), (FR, 3_624_000 - number * 10**6))
            ),
        )
        for number in (1, 2, 3)
    )
    status = FederatedRunStatus(rounds_done=rounds)
    made = new_resource(FEDERATED_RUN, "tr-1", spec, status=status)
    return with_condition(made, Condition("Succeeded", ConditionStatus.TRUE, "AllRoundsDone", "2 rounds"), NOW)


def test_a_run_is_summed_up_by_perplexity_before_and_after_each_round() -> None:
    rows = run_progress.perplexity_rows(run_resource().status, is_training=True)
    assert rows == [
        ["NATION", "BEFORE", "AFTER ROUND 1", "AFTER ROUND 2"],
        ["DE", "17.32", "6.37", "2.34"],
        ["FR", "13.79", "5.07", "1.87"],
    ]
    assert run_progress.summary(run_resource()).startswith("run tr-1: train for translation on demo@1.0.0: Succeeded")


def test_progress_is_told_once_where_nobody_watches() -> None:
    seen: dict[str, str] = {}
    view = {"nations": {"FR": {"round": 1, "stage": "Training", "steps_done": 2, "steps_total": 8}}, "rounds_done": []}
    assert run_progress.moved(view, seen) == ["FR round 1 Training"]  # type: ignore[arg-type]
    assert run_progress.moved(view, seen) == []  # type: ignore[arg-type]
    (line,) = run_progress.view_lines({"name": "tr-1", "round": 1, "rounds": 2, **view}, is_ascii=True)[1:]  # type: ignore[dict-item]
    assert line == "  > FR  round 1  Training        #####............... 2/8"


def test_an_audit_shows_what_crossed_and_that_sums_are_gone() -> None:
    builder = RecordBuilder().whole()
    found = audit.verify(builder.offered(), builder.charter, None)
    sums = recompute_rounds(found.crossings.rounds, None)
    assert [check.outcome for check in sums] == [Outcome.GONE]
    text = audit_report.text(found, sums, is_ascii=True)
    assert "+ log coordinator.treaty.example/log: 9 entries" in text
    assert "DE       EU   update         receipt   1          6000" in text
    assert "receipted 11.0 kB; all messages of all classes 11.2 kB before TLS and HTTP/2; raw records: 0" in text
    assert text.endswith("- sum of tr-1 round 1: not recomputable (no --updates given)")
    document = audit_report.document(found, sums)
    assert document["raw_records"] == 0
    assert document["log"]["verified"] is True  # type: ignore[index, call-overload]
    audit_report.require_held(found, sums)


def test_an_audit_that_does_not_hold_is_refused_with_its_first_finding() -> None:
    builder = RecordBuilder().whole()
    del builder.envelopes[5]
    found = audit.verify(builder.offered(), builder.charter, None)
    with pytest.raises(TrustError, match="1 findings, the first at entry 5: round 1 of tr-1: no receipt of FR"):
        audit_report.require_held(found, [])
    assert audit_report.document(found, [])["log"]["verified"] is False  # type: ignore[index, call-overload]


def test_sizes_and_durations_are_for_people() -> None:
    assert [size(count) for count in (0, 999, 1000, 999_960, 269_000_000)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "1.0 MB",
        "269.0 MB",
    ]
    spans = [timedelta(seconds=119), timedelta(seconds=120), timedelta(hours=3), timedelta(days=3)]
    assert [duration(span) for span in spans] == ["119s", "2m", "3h", "3d"]


def test_messages_of_a_class_that_the_border_does_not_have_are_counted_as_possibly_raw() -> None:
    builder = RecordBuilder().whole()
    builder.add(sign_tally(builder.tally(FR, 2, records=(4, 900), heartbeat=(1, 30)), builder.agents[FR]))
    found = audit.verify(builder.offered(), builder.charter, None)
    assert audit_report.document(found, [])["raw_records"] == 4
    assert "raw records: 4" in audit_report.text(found, [], is_ascii=True)
