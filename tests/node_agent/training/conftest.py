"""A nation's training room on disk: a tiny base, a dataset, a key that nobody may read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from node_agent.training.pairs import Languages, TextDataset
from node_agent.training.slots import TrainerSlots
from node_agent.training.supervisor import TrainerSettings, TrainerSupervisor
from tests.builders.tiny_llama import build_tiny_llama, write_pairs
from treaty.recipe import DEFAULT_TEMPLATE, LoraSft, Precision

ENGLISH_FRENCH = Languages("English", "French")


@dataclass(frozen=True)
class Room:
    """Where everything lies."""

    root: Path
    base: Path
    dataset: TextDataset
    secrets: Sequence[Path]

    def supervisor(self, **settings: object) -> TrainerSupervisor:
        chosen = {"slots": TrainerSlots(self.root / "slots", 1), **settings}
        return TrainerSupervisor(TrainerSettings(**chosen), self.root / "agent" / "trainer", self.secrets)  # type: ignore[arg-type]


def make_room(root: Path) -> Room:
    key = root / "agent" / "keys" / "agent.key"
    key.parent.mkdir(parents=True)
    key.write_text("secret")
    base = build_tiny_llama(root / "base")
    dataset = TextDataset(write_pairs(root / "pairs.jsonl"), ENGLISH_FRENCH)
    return Room(root, base, dataset, (key,))


def tiny_recipe(**changes: object) -> LoraSft:
    fields: dict[str, object] = {
        "rank": 4,
        "alpha": 8,
        "targets": ("q_proj", "v_proj"),
        "steps": 4,
        "batch": 8,
        "learning_rate_micro": 30_000,
        "seed": 7,
        "sequence_tokens": 96,
        "precision": Precision.FLOAT32,
        "prompt_template": DEFAULT_TEMPLATE,
        "heldout_pairs": 8,
    }
    return LoraSft(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return make_room(tmp_path)
