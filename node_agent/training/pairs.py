"""The text a nation trains on: pairs of source and target, how they are split and how a prompt is written.

A dataset is JSON lines, `{"source": …, "target": …}`. Rules:
1. a pair that occurs twice counts once;
2. the held-out pairs are the first N by the SHA-256 of their text, whatever their order in the file, so every round,
   process and restart holds out the same ones, and none of them is ever trained on;
3. the prompt is the recipe's template up to the answer, with blanks before the answer left to the answer.

Read by the child to train, and by the agent to know how many pairs there are; no torch here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from treaty.errors import InvalidInput, LimitExceeded, PreconditionFailed
from treaty.fields import Fields
from treaty.recipe import Evaluation
from treaty.strict_json import canonical, parse

MAX_DATASET_BYTES = 2**30
MAX_LINE_BYTES = 256 * 1024
MAX_PAIRS = 2_000_000
MAX_TEXT_CHARS = 100_000

_PLACE = re.compile(r"\{(source_language|target_language|source|target)\}")


@dataclass(frozen=True, slots=True)
class Pair:
    source: str
    target: str

    @property
    def rank(self) -> bytes:
        """Where the pair stands in the split."""
        return hashlib.sha256(canonical([self.source, self.target])).digest()


@dataclass(frozen=True, slots=True)
class Languages:
    """The English names that stand in the prompt, from the dataset's metadata."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class TextDataset:
    """A registered dataset as the training room needs it. The path stays in the nation."""

    path: Path
    languages: Languages


@dataclass(frozen=True, slots=True)
class Split:
    train: tuple[Pair, ...]
    heldout: tuple[Pair, ...]


def read_pairs(path: Path) -> list[Pair]:
    """Every distinct pair of a dataset, in the file's order.

    Raises: InvalidInput: a line is not a pair, or the file is beyond its limits. The message names the line, never
    its text.
    """
    if path.stat().st_size > MAX_DATASET_BYTES:
        raise LimitExceeded(f"the dataset is larger than {MAX_DATASET_BYTES} bytes")
    pairs: dict[Pair, None] = {}
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), start=1):
            if line.strip():
                pairs[_pair(line, number)] = None
            if len(pairs) > MAX_PAIRS:
                raise LimitExceeded(f"the dataset has more than {MAX_PAIRS} pairs")
    return list(pairs)


def _pair(line: bytes, number: int) -> Pair:
    try:
        fields = Fields(parse(line, max_bytes=MAX_LINE_BYTES, max_depth=2), "pair")
        pair = Pair(fields.text("source", MAX_TEXT_CHARS), fields.text("target", MAX_TEXT_CHARS))
        fields.done()
    except InvalidInput:
        raise InvalidInput(f"line {number} of the dataset is not a pair of source and target") from None
    return pair


def split(pairs: Sequence[Pair], heldout_pairs: int) -> Split:
    """Hold out the first `heldout_pairs` by digest; the rest, in digest order too, is for training.

    Raises: PreconditionFailed (DATA_TOO_SMALL): nothing would be left to train on.
    """
    if len(pairs) <= heldout_pairs:
        raise PreconditionFailed(
            f"the dataset has no more than the {heldout_pairs} pairs that are held out", code="DATA_TOO_SMALL"
        )
    ordered = sorted(pairs, key=lambda pair: pair.rank)
    return Split(tuple(ordered[heldout_pairs:]), tuple(ordered[:heldout_pairs]))


def prompt_and_answer(evaluation: Evaluation, pair: Pair, languages: Languages) -> tuple[str, str]:
    """The text before the answer, and the answer with the blanks that the template puts before it."""
    values = {
        "source_language": languages.source,
        "target_language": languages.target,
        "source": pair.source,
        "target": "",
    }
    filled = _PLACE.sub(lambda found: values[found[1]], evaluation.prompt_template)
    prompt = filled.rstrip(" ")
    return prompt, filled[len(prompt) :] + pair.target
