"""What the acts make by themselves, without a program: a scrambled adapter, headlines, reactions told once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from examples.demo import steps_audit, steps_rollout, steps_second_version

AUDIT = """\
✔ log coordinator.treaty.example/log: 142 entries
✔ 45 receipts, 10 tallies

NATION  TO  CLASS   FROM   MESSAGES  BYTES
FR      EU  update  tally  2         900

receipted 121.8 kB; raw records: 0
✔ sum of training round 1: recomputed
✔ sum of theft round 1: recomputed
"""


def test_a_scrambled_adapter_is_well_formed_and_has_other_values(tmp_path: Path) -> None:
    source, target = tmp_path / "trained", tmp_path / "scrambled"
    source.mkdir()
    before = {"a.lora_A.weight": np.arange(12, dtype=np.float32).reshape(3, 4)}
    save_file(before, source / "adapter_model.safetensors")
    (source / "adapter_config.json").write_text("{}")
    steps_second_version.scramble(source, target)
    after = load_file(target / "adapter_model.safetensors")["a.lora_A.weight"]
    assert (after.shape, after.dtype) == ((3, 4), np.float32)
    assert sorted(after.reshape(-1) / 8) == sorted(before["a.lora_A.weight"].reshape(-1))
    assert not np.array_equal(after, before["a.lora_A.weight"])
    assert (target / "adapter_config.json").read_text() == "{}"
    assert np.array_equal(load_file(source / "adapter_model.safetensors")["a.lora_A.weight"], before["a.lora_A.weight"])


def test_an_audits_headlines_leave_out_the_table_and_the_hostile_runs_sums() -> None:
    assert steps_audit._headlines(AUDIT) == [
        "✔ log coordinator.treaty.example/log: 142 entries",
        "✔ 45 receipts, 10 tallies",
        "receipted 121.8 kB; raw records: 0",
        "✔ sum of training round 1: recomputed",
    ]


def test_a_state_that_is_told_again_is_reacted_to_once() -> None:
    seen: list[str] = []
    once = steps_rollout._once(seen.append)
    for line in ("JP AwaitingConsent\n", "KR Serving\n", "JP AwaitingConsent\n"):
        once(line)
    assert seen == ["JP AwaitingConsent", "KR Serving"]
