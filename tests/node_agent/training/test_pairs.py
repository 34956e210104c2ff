from __future__ import annotations

import json
from pathlib import Path

import pytest

from node_agent.training.pairs import Languages, Pair, prompt_and_answer, read_pairs, split
from treaty.errors import InvalidInput, PreconditionFailed
from treaty.recipe import Evaluation

PAIRS = [Pair(f"source {n}", f"target {n}") for n in range(20)]


def test_a_dataset_is_read_line_by_line_and_a_repeat_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    line = json.dumps({"source": "a", "target": "ä"}, ensure_ascii=False)
    path.write_text(f"{line}\n\n{line}\n", encoding="utf-8")
    assert read_pairs(path) == [Pair("a", "ä")]


@pytest.mark.parametrize("line", ['{"source": "a"}', '{"source": "a", "target": 1}', "secret", '["a", "b"]'])
def test_a_line_that_is_no_pair_is_named_by_number_without_its_text(tmp_path: Path, line: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"source": "a", "target": "b"}\n' + line + "\n")
    with pytest.raises(InvalidInput) as refused:
        read_pairs(path)
    assert str(refused.value) == "line 2 of the dataset is not a pair of source and target"


def test_the_split_does_not_depend_on_the_order_and_keeps_the_parts_apart() -> None:
    parts = split(PAIRS, 6)
    assert split(list(reversed(PAIRS)), 6) == parts
    assert (len(parts.heldout), len(parts.train)) == (6, 14)
    assert not set(parts.heldout) & set(parts.train)


def test_more_pairs_keep_most_of_the_held_out_ones_held_out() -> None:
    grown = split([*PAIRS, Pair("new", "neu")], 6)
    assert len(set(grown.heldout) & set(split(PAIRS, 6).heldout)) >= 5


def test_a_dataset_with_nothing_left_to_train_on_is_refused() -> None:
    with pytest.raises(PreconditionFailed, match="no more than the 20 pairs that are held out") as refused:
        split(PAIRS, 20)
    assert refused.value.code == "DATA_TOO_SMALL"


def test_the_blank_before_the_answer_belongs_to_the_answer() -> None:
    prompt, answer = prompt_and_answer(
        Evaluation(), Pair("Save {target}", "Enregistrer"), Languages("English", "French")
    )
    assert prompt == "English: Save {target}\nFrench:"
    assert answer == " Enregistrer"
