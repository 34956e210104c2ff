"""The trainer: the last code in the child. Answers frames until the agent closes the pipe.

| frame | fields | answer |
|---|---|---|
| `load` | model_dir, precision, threads | `loaded` |
| `read` | file, source_language, target_language | `read` |
| `train` | recipe, round, ordinal, proximal_mu_micro; the adapter given | `delta` with metrics; after − given |
| `evaluate` | recipe; arrays: the adapter, or none for the base alone | `evaluated` with metrics |

What fails is answered by a code of `process.CHILD_CODES`; the text of the failure goes to standard error, which stays
in the nation.
"""

from __future__ import annotations

import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from node_agent.training.frames import Arrays, Frame, PipeEnd
from node_agent.training.pairs import Languages, Pair, Split, read_pairs, split
from treaty.adapter import AdapterShape
from treaty.errors import FoedusError, InvalidInput, PreconditionFailed
from treaty.fields import Fields
from treaty.recipe import METRICS, Evaluation, LoraSft, Precision, parse_recipe
from treaty.strict_json import JsonObject

if TYPE_CHECKING:
    import torch

    from node_agent.training.lora_sft import Example, Loss, Tokenizer


@dataclass(slots=True)
class Trainer:
    """What stays warm between rounds: the base, the adapter of the last recipe, the pairs."""

    base: torch.nn.Module | None = None
    tokenizer: Tokenizer | None = None
    model: torch.nn.Module | None = None
    recipe: LoraSft | None = None
    pairs: tuple[Pair, ...] = ()
    languages: Languages = field(default_factory=lambda: Languages("", ""))
    encoded: dict[tuple[Evaluation, bool], list[Example]] = field(default_factory=dict)
    """Of the pairs that were read last, by how they are asked and whether they are held out."""
    base_loss: dict[Evaluation, Loss] = field(default_factory=dict)
    """Of the base alone on the pairs that were read last: it changes with neither rounds nor runs."""

    def answer(self, frame: Frame) -> Frame:
        """Carry out one frame. Raises FoedusError with a declared code."""
        given = Fields(frame.fields, frame.type)
        match frame.type:
            case "load":
                return self._load(given)
            case "read":
                return self._read(given)
            case "train":
                return self._train(given, frame)
            case "evaluate":
                return self._evaluate(given, frame)
            case _:
                raise InvalidInput("an unknown frame", code="TRAINER_FAILED")

    def _load(self, given: Fields) -> Frame:
        from node_agent.training import lora_sft

        lora_sft.settle(given.integer("threads", 1, 1024))
        precision = given.choice("precision", Precision)
        self.base, self.tokenizer = lora_sft.load_base(Path(given.text("model_dir", 4096)), precision)
        self.base_loss.clear()
        given.done()
        return Frame("loaded")

    def _read(self, given: Fields) -> Frame:
        path = Path(given.text("file", 4096))
        self.languages = Languages(given.text("source_language", 64), given.text("target_language", 64))
        given.done()
        self.encoded.clear()
        self.base_loss.clear()
        try:
            self.pairs = tuple(read_pairs(path))
        except (OSError, InvalidInput) as err:
            raise PreconditionFailed("the dataset cannot be read", code="DATA_UNUSABLE") from err
        return Frame("read")

    def _train(self, given: Fields, frame: Frame) -> Frame:
        from node_agent.training import lora_sft

        recipe = parse_recipe(given.value("recipe"))
        place = lora_sft.Place(given.integer("round"), given.integer("ordinal"), given.integer("proximal_mu_micro"))
        given.done()
        parts, model = split(self.pairs, recipe.heldout_pairs), self._adapted(recipe)
        before = self._measured(recipe, parts, model, frame.arrays)
        lora_sft.write_arrays(model, frame.arrays)
        trained = lora_sft.train(model, self._encoded(recipe, parts, is_heldout=False), recipe, place)
        metrics = _heldout(before, parts) | {
            "train_loss_micro": trained.mean_micro,
            "examples": recipe.examples,
            "steps": recipe.steps,
        }
        return Frame("delta", {"metrics": _rounded("train", metrics)}, lora_sft.delta_from(model, frame.arrays))

    def _evaluate(self, given: Fields, frame: Frame) -> Frame:
        recipe = parse_recipe(given.value("recipe"))
        given.done()
        parts, model = split(self.pairs, recipe.heldout_pairs), self._adapted(recipe)
        loss = self._measured(recipe, parts, model, frame.arrays)
        return Frame("evaluated", {"metrics": _rounded("evaluate", _heldout(loss, parts))})

    def _measured(self, recipe: LoraSft, parts: Split, model: torch.nn.Module, arrays: Arrays) -> Loss:
        """Held-out loss with the adapter that is given; of the base alone, which a first round measures too, once."""
        from node_agent.training import lora_sft

        heldout = self._encoded(recipe, parts, is_heldout=True)
        if not lora_sft.adds_nothing(arrays):
            lora_sft.write_arrays(model, arrays)
            return lora_sft.evaluate(model, heldout)
        if recipe.evaluation not in self.base_loss:
            with lora_sft.without_adapter(model):
                self.base_loss[recipe.evaluation] = lora_sft.evaluate(model, heldout)
        return self.base_loss[recipe.evaluation]

    def _adapted(self, recipe: LoraSft) -> torch.nn.Module:
        """The base with an adapter of this recipe's shape; kept while the shape stays."""
        from node_agent.training import lora_sft

        if self.base is None:
            raise PreconditionFailed("no base is loaded", code="MODEL_UNUSABLE")
        last = self.recipe
        shape = AdapterShape.of(recipe)
        if self.model is None or last is None or shape != AdapterShape.of(last):
            if self.model is not None:
                self.base = lora_sft.detach(self.model)
            self.model = lora_sft.attach(self.base, shape)
        self.recipe = recipe
        return self.model

    def _encoded(self, recipe: LoraSft, parts: Split, *, is_heldout: bool) -> list[Example]:
        """One part of the pairs as tokens; kept, since every round asks for the same ones."""
        from node_agent.training import lora_sft

        if self.tokenizer is None:
            raise PreconditionFailed("no base is loaded", code="MODEL_UNUSABLE")
        asked = recipe.evaluation, is_heldout
        if asked not in self.encoded:
            pairs = parts.heldout if is_heldout else parts.train
            self.encoded[asked] = [
                lora_sft.encode(self.tokenizer, recipe.evaluation, pair, self.languages) for pair in pairs
            ]
        return self.encoded[asked]


def _heldout(loss: Loss, parts: Split) -> dict[str, int]:
    return {
        "heldout_loss_micro": loss.mean_micro,
        "heldout_pairs": len(parts.heldout),
        "heldout_tokens": loss.tokens,
    }


def _rounded(task: str, metrics: dict[str, int]) -> JsonObject:
    return {name: METRICS[task][name].rounded(value) for name, value in metrics.items()}


class Answering(Protocol):
    """Something that carries out frames: a trainer, a server."""

    def answer(self, frame: Frame) -> Frame: ...


def serve(pipe: PipeEnd, program: Answering) -> None:
    """Answer until the pipe closes; a failure is a code, and the next frame is still answered."""
    while (frame := pipe.receive()) is not None:
        try:
            answer = program.answer(frame)
        except FoedusError as err:
            answer = _failure(err.code)
        except MemoryError:
            answer = _failure("OUT_OF_MEMORY")
        except Exception as err:  # noqa: BLE001 - the process's boundary: whatever fails leaves as a code
            # torch says "DefaultCPUAllocator: can't allocate memory" in a RuntimeError, as it says everything else.
            answer = _failure("OUT_OF_MEMORY" if "allocate memory" in str(err) else "TRAINER_FAILED")
        pipe.send(answer)


def _failure(code: str) -> Frame:
    traceback.print_exc(file=sys.stderr)
    return Frame("error", {"code": code})


def main(pipe: PipeEnd) -> None:
    serve(pipe, Trainer())
