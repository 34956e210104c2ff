"""A federated run from flags or a file. What flags leave open is a recipe that trains a small adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from controlplane.cli.documents import parse_resources
from treaty import names
from treaty.errors import InvalidInput
from treaty.files import read_file
from treaty.recipe import DEFAULT_TEMPLATE, LORA_SFT, parse_recipe
from treaty.resources.codec import narrowed
from treaty.resources.meta import Resource, new_resource
from treaty.resources.runs import FEDERATED_RUN, FederatedRunSpec, FederatedRunStatus, StrategySpec, Task
from treaty.strict_json import JsonObject, JsonValue

Run = Resource[FederatedRunSpec, FederatedRunStatus]

RECIPE: Final = MappingProxyType[str, JsonValue](
    {
        "rank": 8,
        "alpha": 16,
        "targets": ["q_proj", "v_proj"],
        "steps": 8,
        "batch": 8,
        "learning_rate_micro": 3000,
        "sequence_tokens": 64,
        "precision": "float32",
        "prompt_template": DEFAULT_TEMPLATE,
        "heldout_pairs": 64,
    }
)
"""About one per cent of a small model's parameters, a few minutes a round on two cores."""


@dataclass(frozen=True, slots=True)
class RunFlags:
    """What was typed."""

    name: str
    task: str
    purpose: str
    model: str
    nations: tuple[str, ...]
    quorum: int
    rounds: int
    deadline_seconds: int
    recipe: tuple[str, ...]
    strategy: str
    parameters: tuple[str, ...]
    clip_norm_micro: int
    seed: int


def run_of(flags: RunFlags, file: Path | None) -> Run:
    """The run in `file`, or the one that the flags describe. Raises: InvalidInput: neither, both or malformed."""
    if file is not None:
        return _from_file(flags, file)
    missing = [
        flag
        for flag, value in (
            ("NAME", flags.name),
            ("--purpose", flags.purpose),
            ("--model", flags.model),
            ("--nations", flags.nations),
        )
        if not value
    ]
    if missing:
        raise InvalidInput(f"a run needs {', '.join(missing)}", remedy="or pass -f FILE")
    nations = tuple(names.nation_code(code.upper()) for code in flags.nations)
    spec = FederatedRunSpec(
        task=_task(flags.task),
        purpose=flags.purpose,
        model=names.model_ref(flags.model),
        nations=nations,
        quorum=flags.quorum or len(nations),
        recipe=recipe(flags.recipe, flags.seed),
        strategy=StrategySpec(flags.strategy, {name: _integer(name, text) for name, text in _pairs(flags.parameters)}),
        rounds=flags.rounds,
        round_deadline_seconds=flags.deadline_seconds,
        clip_norm_micro=flags.clip_norm_micro,
        seed=flags.seed,
    )
    return new_resource(FEDERATED_RUN, names.run_id(flags.name), spec)


def recipe(settings: Sequence[str], seed: int) -> JsonObject:
    """The default recipe with `NAME=VALUE` settings over it. Raises: InvalidInput: it has no such field."""
    members: JsonObject = dict(RECIPE)
    for name, text in _pairs(settings):
        if name not in RECIPE:
            raise InvalidInput(f"the recipe has no {name[:64]!r}", remedy=f"one of {', '.join(RECIPE)}")
        members[name] = _value(RECIPE[name], name, text)
    # Judged here as well, so that a mistake is told before anybody is asked.
    parse_recipe({"recipe": LORA_SFT, "seed": seed, **members})
    return members


def _from_file(flags: RunFlags, file: Path) -> Run:
    if flags.purpose or flags.model or flags.nations or flags.recipe:
        raise InvalidInput("a run comes from a file or from flags, not from both", remedy="leave the flags out")
    documents = parse_resources(read_file(file, "file"), str(file))
    if len(documents) != 1:
        raise InvalidInput(f"{file} holds {len(documents)} documents instead of one run")
    run = narrowed(FEDERATED_RUN, documents[0])
    if flags.name and flags.name != run.name:
        raise InvalidInput(f"the run in {file} is {run.name}, not {flags.name}")
    return run


def _value(default: JsonValue, name: str, text: str) -> JsonValue:
    if isinstance(default, int):
        return _integer(name, text)
    if isinstance(default, list):
        return [*sorted(word.strip() for word in text.split(","))]
    return text


def _integer(name: str, text: str) -> int:
    if not text.removeprefix("-").isdecimal() or len(text) > 16:
        raise InvalidInput(f"{name} is not an integer", remedy="units are in the name: *_micro counts millionths")
    return int(text)


def _pairs(settings: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise InvalidInput(f"{setting[:80]!r} is not NAME=VALUE")
        pairs.append((name.strip(), text.strip()))
    return pairs


def _task(text: str) -> Task:
    try:
        return Task(text)
    except ValueError:
        raise InvalidInput(f"{text[:32]!r} is no task", remedy="train or evaluate") from None
