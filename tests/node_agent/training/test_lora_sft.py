"""The arithmetic of the recipe, beside what transformers itself computes of one example at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from node_agent.training.frames import Frame
from node_agent.training.pairs import Languages, read_pairs
from node_agent.training.trainer import Trainer
from tests.builders.tiny_llama import base_shapes, build_tiny_llama, write_pairs
from tests.node_agent.training.conftest import tiny_recipe
from treaty.adapter import AdapterShape
from treaty.recipe import Precision, initial_arrays

pytestmark = [
    pytest.mark.torch,
    # peft asks transformers by a name that is going to change; both are pinned.
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
]

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


def test_an_untrained_adapter_adds_nothing_to_the_last_bit_and_a_trained_one_does(tmp_path: Path) -> None:
    from node_agent.training import lora_sft

    base, tokenizer = lora_sft.load_base(build_tiny_llama(tmp_path / "base"), Precision.FLOAT32)
    pairs = read_pairs(write_pairs(tmp_path / "pairs.jsonl"))[:12]
    examples = [lora_sft.encode(tokenizer, RECIPE.evaluation, pair, Languages("English", "French")) for pair in pairs]
    alone = lora_sft.evaluate(base, examples)
    model = lora_sft.attach(base, AdapterShape.of(RECIPE))
    arrays = initial_arrays(RECIPE, base_shapes())
    lora_sft.write_arrays(model, arrays)
    assert lora_sft.adds_nothing(arrays)
    assert lora_sft.evaluate(model, examples) == alone
    trained = {name: array + np.float32(0.01) for name, array in arrays.items()}
    lora_sft.write_arrays(model, trained)
    assert not lora_sft.adds_nothing(trained)
    assert lora_sft.evaluate(model, examples) != alone


def test_a_base_is_measured_once_for_the_data_that_was_read_last(tmp_path: Path) -> None:
    import torch

    trainer = Trainer()
    trainer.answer(
        Frame("load", {"model_dir": str(build_tiny_llama(tmp_path / "base")), "precision": "float32", "threads": 1})
    )
    read = Frame("read", {"file": "", "source_language": "English", "target_language": "French"})
    texts = {language: str(write_pairs(tmp_path / f"{language}.jsonl", language=language)) for language in ("fr", "de")}
    evaluate = Frame("evaluate", {"recipe": RECIPE.to_json()})

    trainer.answer(replace(read, fields={**read.fields, "file": texts["fr"]}))
    measured = trainer.answer(evaluate)
    assert trainer.model is not None
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.zero_()  # were it measured again, it would be another model
    assert trainer.answer(evaluate) == measured
    trainer.answer(replace(read, fields={**read.fields, "file": texts["de"]}))
    assert trainer.answer(evaluate) != measured
