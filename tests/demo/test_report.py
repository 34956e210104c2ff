"""The report says exactly what was found, in the shape that programs rely on, and escapes what it shows."""

from __future__ import annotations

import json
from pathlib import Path

from examples.demo import report
from examples.demo.findings import Blocked, Findings, NationFindings, OpenChannel, Refusal, Rollback, Version


def found() -> Findings:
    fr = NationFindings(1636, [37.5, 11.3, 9.5], {"update-chunk": 1_843_200, "status": 900}, 270_000_000, 1_900_000)
    return Findings(
        nations={"FR": fr, "DE": NationFindings()},
        versions=[Version("smollm2@1.0.0", "sha256:00", 272_000_000, 272_000_000)],
        refusals=[Refusal("DE", "dataset.use", ("DE-001",))],
        blocked=[Blocked("metric-name", "METRIC_UNDECLARED"), Blocked("<script>", "X")],
        open_channels=[OpenChannel("tensor-values", 14_745_600)],
        rollback=Rollback("smollm2@3.0.0", 1, "GATE_WORSE"),
        raw_records=7,
        log_size=42,
        is_log_verified=True,
        canaries_planted=5,
        seconds={"total": 300.0},
        timeline=[("1. keys", 0.0, 4.0), ("2. join", 4.0, 9.5)],
    )


def test_the_json_has_the_agreed_shape() -> None:
    said = report.document(found())
    assert set(said) == {
        *("seconds", "nations", "versions", "refusals", "blocked", "open_channels", "rollback", "log", "canaries")
    }
    assert said["nations"]["FR"] == {
        "records": 1636,
        "heldout_perplexity": [37.5, 11.3, 9.5],
        "bytes_out": {"update-chunk": 1_843_200, "status": 900},
        "bytes_in": 270_000_000,
    }
    assert set(said["versions"][0]) == {"name", "digest", "bytes", "bytes_transferred"}
    assert said["refusals"] == [{"nation": "DE", "decision_point": "dataset.use", "codes": ["DE-001"]}]
    assert said["blocked"][0] == {"channel": "metric-name", "code": "METRIC_UNDECLARED"}
    assert said["open_channels"] == [{"channel": "tensor-values", "bits_per_round": 14_745_600}]
    assert said["rollback"] == {"version": "smollm2@3.0.0", "wave": 1, "reason": "GATE_WORSE"}
    assert said["log"] == {"size": 42, "verified": True}
    assert said["canaries"] == {"planted": 5, "found_outside": 0}


def test_both_files_are_written_and_the_page_holds_its_plots_and_no_foreign_markup(tmp_path: Path) -> None:
    page_path, json_path = report.write(found(), tmp_path)
    assert json.loads(json_path.read_text(encoding="utf-8")) == report.document(found())
    text = page_path.read_text(encoding="utf-8")
    assert text.count("<svg") == 3
    assert "GATE_WORSE" in text
    assert "Raw records that crossed: 7 by the audit of the record." in text
    assert "<td>update-chunk</td><td class=number>1,843,200</td><td class=number>0</td>" in text
    assert "<script>" not in text
    assert "http://www.w3.org" in text
    assert "src=" not in text
