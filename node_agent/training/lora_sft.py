"""The recipe `lora-sft` in torch: load a base, put an adapter on it, train it, measure it.

Runs in the child only; torch, transformers and peft are imported here and nowhere else in the agent's training room.
The adapter's tensors go by their canonical names (treaty/recipe.py): peft's without `base_model.model.` and without
`.default`. On CPU the result depends on nothing but base, arrays, data, recipe, round and ordinal: threads are fixed,
algorithms deterministic, the optimiser starts anew each round, and examples are drawn by PCG64 seeded with (seed,
round, ordinal).
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from node_agent.training.pairs import Languages, Pair, prompt_and_answer
from treaty.adapter import AdapterShape
from treaty.errors import InvalidInput, PreconditionFailed
from treaty.recipe import B_SUFFIX, Evaluation, LoraSft, Precision

Arrays = dict[str, NDArray[np.float32]]

PART_TOKENS = 128
"""Tokens that go through the model together, whole examples end to end. More gain nothing on a CPU and cost memory: at
this size a model of 135 M parameters keeps 0.2 GB for its gradients, and attention grows with the square."""

_PREFIX, _ADAPTER = "base_model.model.", ".default"


class Tokenizer(Protocol):
    """What is used of a tokenizer."""

    eos_token_id: int | None

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> Mapping[str, list[int]]: ...

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str: ...


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids of prompt and answer; the first `prompt_tokens` are not trained on."""

    ids: tuple[int, ...]
    prompt_tokens: int

    @property
    def answer_tokens(self) -> int:
        return max(0, len(self.ids) - max(1, self.prompt_tokens))  # the first token of all is not predicted


@dataclass(frozen=True, slots=True)
class Loss:
    """Summed negative log-likelihood in nats over so many answer tokens."""

    nats: float
    tokens: int

    @property
    def mean_micro(self) -> int:
        """Mean per token in millionths of a nat; what is not finite counts as the worst that can be said."""
        mean = self.nats / max(1, self.tokens)
        return round(mean * 1e6) if math.isfinite(mean) else 2**53


def settle(threads: int) -> None:
    """Fix what results may depend on. Once per process."""
    disable_progress_bar()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)


def load_base(model_dir: Path, precision: Precision) -> tuple[torch.nn.Module, Tokenizer]:
    """A causal language model and its tokenizer from a folder of verified safetensors files; no code of the model's.

    Raises: PreconditionFailed (MODEL_UNUSABLE).
    """
    dtype = torch.float32 if precision is Precision.FLOAT32 else torch.bfloat16
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype, use_safetensors=True, **options)
        tokenizer = AutoTokenizer.from_pretrained(model_dir, **options)
    except (OSError, ValueError, KeyError, RuntimeError) as err:
        raise PreconditionFailed("the base cannot be loaded", code="MODEL_UNUSABLE") from err
    model.eval()
    gc.enable()  # the launcher disabled it for the imports
    return model, tokenizer


def attach(base: torch.nn.Module, shape: AdapterShape) -> torch.nn.Module:
    """Put an untrained adapter, in float32, on the targets. The base is frozen and kept."""
    config = LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,
        target_modules=list(shape.targets),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    model: torch.nn.Module = get_peft_model(base, config)
    return model


def detach(model: torch.nn.Module) -> torch.nn.Module:
    """The base as it was before `attach`."""
    base: torch.nn.Module = model.unload()  # type: ignore[operator]  # peft's
    return base


def in_float32(model: torch.nn.Module) -> torch.nn.Module:
    """A copy of `model` for many tokens at once: a processor without matrix units for bfloat16 computes them two to
    three times as fast so. It takes 4 bytes a parameter until it is dropped."""
    return deepcopy(model).float()


@contextmanager
def without_adapter(model: torch.nn.Module) -> Iterator[None]:
    """For the time being, the base alone."""
    with model.disable_adapter():  # type: ignore[operator]  # peft's
        yield


def parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The adapter's parameters by canonical name, sorted."""
    named = {
        name.removeprefix(_PREFIX).replace(_ADAPTER, ""): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    return dict(sorted(named.items()))


def write_arrays(model: torch.nn.Module, arrays: Mapping[str, NDArray[np.float32]]) -> None:
    """Set the adapter to `arrays`. Raises InvalidInput (ARRAYS_UNUSABLE) unless names and shapes are its own."""
    ours = parameters(model)
    if {name: value.shape for name, value in arrays.items()} != {name: tuple(p.shape) for name, p in ours.items()}:
        raise InvalidInput("the arrays are not this adapter's", code="ARRAYS_UNUSABLE")
    with torch.no_grad():
        for name, parameter in ours.items():
            parameter.copy_(torch.from_numpy(np.array(arrays[name], dtype=np.float32)))


def adds_nothing(arrays: Mapping[str, NDArray[np.float32]]) -> bool:
    """Whether the base computes the same with this adapter: there is none, or every B is zero, as before a run."""
    return not any(array.any() for name, array in arrays.items() if name.endswith(B_SUFFIX))


def delta_from(model: torch.nn.Module, arrays: Mapping[str, NDArray[np.float32]]) -> Arrays:
    """What training changed: after minus given, float32."""
    return {name: p.detach().to(torch.float32).numpy() - arrays[name] for name, p in parameters(model).items()}


def encode(tokenizer: Tokenizer, evaluation: Evaluation, pair: Pair, languages: Languages) -> Example:
    """Prompt, answer and end of text, cut at the recipe's length."""
    prompt, answer = prompt_and_answer(evaluation, pair, languages)
    start = list(tokenizer(prompt)["input_ids"])
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    ids = [*start, *tokenizer(answer, add_special_tokens=False)["input_ids"], *end]
    return Example(tuple(ids[: evaluation.sequence_tokens]), len(start))


def draw(examples: Sequence[Example], recipe: LoraSft, *, round_number: int, ordinal: int) -> Iterator[list[Example]]:
    """The round's batches: a permutation of the examples, and another one when it is used up."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([recipe.seed, round_number, ordinal])))
    order: list[int] = []
    while len(order) < recipe.examples:
        order.extend(int(place) for place in generator.permutation(len(examples)))
    for start in range(0, recipe.examples, recipe.batch):
        yield [examples[place] for place in order[start : start + recipe.batch]]


@dataclass(frozen=True, slots=True)
class Place:
    """Which round of which nation this is; `proximal_mu_micro` as in FedProx, in millionths, 0 for none."""

    round: int
    ordinal: int
    proximal_mu_micro: int = 0


def train(model: torch.nn.Module, examples: Sequence[Example], recipe: LoraSft, place: Place) -> Loss:
    """One round of local steps with AdamW; the model changes. Returns the round's loss without the proximal term.

    Raises: PreconditionFailed (DATA_UNUSABLE): no example keeps an answer within the sequence length.
    Source of the proximal term: Li et al. 2020, "Federated Optimization in Heterogeneous Networks", equation 2.
    """
    usable = [example for example in examples if example.answer_tokens]
    if not usable:
        raise PreconditionFailed("no example keeps an answer", code="DATA_UNUSABLE")
    trained = list(parameters(model).values())
    optimiser = torch.optim.AdamW(trained, lr=recipe.learning_rate_micro / 1e6)
    given = [parameter.detach().clone() for parameter in trained]
    losses = []
    torch.manual_seed(recipe.seed)
    model.train()
    for batch in draw(usable, recipe, round_number=place.round, ordinal=place.ordinal):
        # The gradient of a sum is the sum of gradients: a batch need not go through the model at once.
        tokens = sum(example.answer_tokens for example in batch)
        for part in _parts(batch):
            total = _negative_log_likelihood(model, part)
            (total / tokens).backward()  # type: ignore[no-untyped-call]
            losses.append(Loss(float(total.detach()), sum(example.answer_tokens for example in part)))
        if place.proximal_mu_micro:
            _pull_back(trained, given, place.proximal_mu_micro / 1e6)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    model.eval()
    return _sum(losses)


def evaluate(model: torch.nn.Module, examples: Sequence[Example]) -> Loss:
    """Loss over every answer token of `examples`, without change."""
    losses = []
    with torch.inference_mode():
        for part in _parts([example for example in examples if example.answer_tokens]):
            total = _negative_log_likelihood(model, part)
            losses.append(Loss(float(total), sum(example.answer_tokens for example in part)))
    return _sum(losses)


def generate(model: torch.nn.Module, tokenizer: Tokenizer, prompt: str, count: int) -> list[int]:
    """The next tokens after `prompt`, greedily, until the end of the text or `count`.

    Raises: PreconditionFailed (VALUES_NOT_FINITE): the model computes nonsense.
    """
    start = list(tokenizer(prompt)["input_ids"])
    ids = torch.tensor([start])
    new: list[int] = []
    past: object = None
    with torch.inference_mode():
        while len(new) < count:
            output = model(input_ids=ids, past_key_values=past, use_cache=True)
            scores = output.logits[0, -1].float()
            if not bool(torch.isfinite(scores).all()):
                raise PreconditionFailed("the model's scores are not finite", code="VALUES_NOT_FINITE")
            new.append(int(scores.argmax()))
            if new[-1] == tokenizer.eos_token_id:
                break
            ids, past = torch.tensor([new[-1:]]), output.past_key_values
    return new


def _pull_back(trained: Sequence[torch.nn.Parameter], given: Sequence[torch.Tensor], mu: float) -> None:
    """Add the gradient of mu/2 × the squared distance from what was given."""
    with torch.no_grad():
        for parameter, start in zip(trained, given, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(parameter - start, alpha=mu)


def _sum(losses: Iterable[Loss]) -> Loss:
    total = list(losses)
    return Loss(math.fsum(loss.nats for loss in total), sum(loss.tokens for loss in total))


def _parts(examples: Sequence[Example]) -> Iterator[list[Example]]:
    """Consecutive examples, as many as fit `PART_TOKENS`, at least one."""
    part: list[Example] = []
    for example in examples:
        if part and sum(len(known.ids) for known in part) + len(example.ids) > PART_TOKENS:
            yield part
            part = []
        part.append(example)
    if part:
        yield part


def _negative_log_likelihood(model: torch.nn.Module, part: Sequence[Example]) -> torch.Tensor:
    """Summed over the part's answer tokens, each predicted from what stands before it in its own example.

    The examples stand end to end in one row, so nothing is padded; a mask keeps them apart, and each counts its
    positions from 0. Scores over the vocabulary, a fifth of the work, are computed where an answer is predicted only.
    """
    ids = torch.tensor([[token for example in part for token in example.ids]])
    positions = torch.tensor([[place for example in part for place in range(len(example.ids))]])
    owner = torch.tensor([number for number, example in enumerate(part) for _ in example.ids])
    visible = (owner[:, None] == owner[None, :]).tril()
    predicting: list[int] = []
    wanted: list[int] = []
    start = 0
    for example in part:
        first = max(1, example.prompt_tokens)
        predicting += range(start + first - 1, start + len(example.ids) - 1)
        wanted += example.ids[first:]
        start += len(example.ids)
    scores = model(
        input_ids=ids,
        position_ids=positions,
        attention_mask=visible[None, None],
        logits_to_keep=torch.tensor(predicting),
        use_cache=False,
    ).logits[0]
    return functional.cross_entropy(scores.float(), torch.tensor(wanted), reduction="sum")
