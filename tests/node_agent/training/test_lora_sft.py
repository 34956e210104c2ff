"""The arithmetic of the recipe, beside what transformers itself computes of one example at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from node_agent.training.pairs import Languages, read_pairs
from tests.builders.tiny_llama import build_tiny_llama, write_pairs
from tests.node_agent.training.conftest import tiny_recipe
from treaty.recipe import Precision

pytestmark = pytest.mark.torch

RECIPE = tiny_recipe()


def test_examples_that_go_through_together_are_measured_as_each_alone(tmp_path: Path) -> None:
    import torch

    from node_agent.training import lora_sft

    model, tokenizer = lora_sft.load_base(build_tiny_llama(tmp_path / "base"), Precision.FLOAT32)
    pairs = read_pairs(write_pairs(tmp_path / "pairs.jsonl"))[:12]
    examples = [lora_sft.encode(tokenizer, RECIPE.evaluation, pair, Languages("English", "French")) for pair in pairs]
    alone = 0.0
    for example in examples:
        labels = [-100] * example.prompt_tokens + list(example.ids[example.prompt_tokens :])
        with torch.inference_mode():
            mean = model(input_ids=torch.tensor([example.ids]), labels=torch.tensor([labels])).loss
        alone += float(mean) * example.answer_tokens
    together = lora_sft.evaluate(model, examples)
    assert len({len(example.ids) for example in examples}) > 1
    assert sum(len(example.ids) for example in examples) > lora_sft.PART_TOKENS
    assert together.tokens == sum(example.answer_tokens for example in examples)
    assert together.nats == pytest.approx(alone, rel=1e-5)


def test_an_example_longer_than_a_part_is_measured_whole(tmp_path: Path) -> None:
    from node_agent.training import lora_sft

    model, _ = lora_sft.load_base(build_tiny_llama(tmp_path / "base"), Precision.FLOAT32)
    long = lora_sft.Example(tuple(1 + number % 50 for number in range(lora_sft.PART_TOKENS + 8)), 3)
    assert lora_sft.evaluate(model, [long]).tokens == lora_sft.PART_TOKENS + 5
