"""The serving child: computes what it serves, loads it, and answers frames until the agent closes the pipe.

| frame | fields | answer |
|---|---|---|
| `verify` | folder, base_folder (or null) | `verified`: digest, base_digest (or null) |
| `load` | threads | `serving` |
| `generate` | prompt, max_tokens | `generated`: text, tokens |
| `evaluate` | evaluation, languages, pairs | `evaluated`: metrics |

A folder is one of the shelf's: `manifest.json` and `files/`. The digest is repeated from nowhere: it is the SHA-256
of the manifest's bytes as read here, once every file that it lists was read here and had the digest that it states,
and no other file was found beside them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from node_agent.training.frames import Frame, PipeEnd
from node_agent.training.pairs import Languages, Pair
from node_agent.training.trainer import serve
from treaty.adapter import read_adapter
from treaty.errors import InvalidInput, PreconditionFailed
from treaty.fields import Fields
from treaty.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest
from treaty.recipe import MAX_HELDOUT_PAIRS, MAX_TEMPLATE_CHARS, METRICS, Evaluation, Precision
from treaty.strict_json import JsonValue

if TYPE_CHECKING:
    import torch

    from node_agent.training.lora_sft import Tokenizer

MAX_NEW_TOKENS = 256
MAX_PROMPT_CHARS = 8192
MAX_TEXT_CHARS = 16384


class Server:
    """One version: verified, then loaded."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._base: Path | None = None
        self._model: torch.nn.Module | None = None
        self._tokenizer: Tokenizer | None = None

    def answer(self, frame: Frame) -> Frame:
        """Carry out one frame. Raises FoedusError with a declared code."""
        given = Fields(frame.fields, frame.type)
        match frame.type:
            case "verify":
                return self._verify(given)
            case "load":
                return self._load(given)
            case "generate":
                return self._generate(given)
            case "evaluate":
                return self._evaluate(given)
            case _:
                raise InvalidInput("an unknown frame", code="TRAINER_FAILED")

    def _verify(self, given: Fields) -> Frame:
        folder, base = Path(given.text("folder", 4096)), given.optional_text("base_folder", 4096)
        given.done()
        try:
            manifest = verified(folder)
            base_manifest = verified(Path(base)) if base is not None else None
        except (OSError, InvalidInput) as err:
            raise _unusable() from err
        base_digest = base_manifest.digest if base_manifest else None
        if manifest.about.base != base_digest:
            raise _unusable()
        self._folder, self._base = folder, Path(base) if base is not None else None
        return Frame("verified", {"digest": manifest.digest, "base_digest": base_digest})

    def _load(self, given: Fields) -> Frame:
        from node_agent.training import lora_sft

        lora_sft.settle(given.integer("threads", 1, 1024))
        given.done()
        if self._folder is None:
            raise _unusable()
        model, tokenizer = lora_sft.load_base((self._base or self._folder) / "files", Precision.BFLOAT16)
        if self._base is not None:
            try:
                shape, arrays = read_adapter(self._folder / "files")
                model = lora_sft.attach(model, shape)
                lora_sft.write_arrays(model, arrays)
            except (OSError, InvalidInput) as err:
                raise _unusable() from err
        self._model, self._tokenizer = model.eval(), tokenizer
        return Frame("serving")

    def _generate(self, given: Fields) -> Frame:
        from node_agent.training import lora_sft

        model, tokenizer = self._loaded()
        prompt, count = given.text("prompt", MAX_PROMPT_CHARS), given.integer("max_tokens", 1, MAX_NEW_TOKENS)
        given.done()
        ids = lora_sft.generate(model, tokenizer, prompt, count)
        text = tokenizer.decode(ids, skip_special_tokens=True)
        return Frame("generated", {"text": text[:MAX_TEXT_CHARS], "tokens": len(ids)})

    def _evaluate(self, given: Fields) -> Frame:
        from node_agent.training import lora_sft

        model, tokenizer = self._loaded()
        stated = given.mapping("evaluation")
        evaluation = Evaluation(
            stated.text("prompt_template", MAX_TEMPLATE_CHARS),
            stated.integer("heldout_pairs"),
            stated.integer("sequence_tokens"),
        )
        stated.done()
        languages = Languages(given.text("source_language", 64), given.text("target_language", 64))
        pairs = given.list_of("pairs", _pair, max_items=MAX_HELDOUT_PAIRS, min_items=1)
        given.done()
        examples = [lora_sft.encode(tokenizer, evaluation, pair, languages) for pair in pairs]
        loss = lora_sft.evaluate(lora_sft.in_float32(model), examples)
        measured = {"heldout_loss_micro": loss.mean_micro, "heldout_pairs": len(pairs), "heldout_tokens": loss.tokens}
        metrics = {name: METRICS["evaluate"][name].rounded(value) for name, value in measured.items()}
        return Frame("evaluated", {"metrics": {**metrics}})

    def _loaded(self) -> tuple[torch.nn.Module, Tokenizer]:
        if self._model is None or self._tokenizer is None:
            raise PreconditionFailed("no version is loaded", code="MODEL_UNUSABLE")
        return self._model, self._tokenizer


def verified(folder: Path) -> Manifest:
    """The manifest of a shelf folder, after every file was found to be what it states, and no other file to be there.

    Raises: InvalidInput; OSError: a file cannot be read.
    """
    with (folder / "manifest.json").open("rb") as file:
        manifest = parse_manifest(file.read(MAX_MANIFEST_BYTES + 1))
    files = folder / "files"
    present = {str(path.relative_to(files)) for path in files.rglob("*") if not path.is_dir()}
    if present != {file.path for file in manifest.files}:
        raise InvalidInput("the version's folder does not hold exactly the files of its manifest")
    for stated in manifest.files:
        with (files / stated.path).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if f"sha256:{found}" != stated.digest:
            raise InvalidInput("a file of the version is not what its manifest states")
    return manifest


def _unusable() -> PreconditionFailed:
    return PreconditionFailed("the version cannot be served", code="MODEL_UNUSABLE")


def _pair(value: JsonValue) -> Pair:
    match value:
        case [str(source), str(target)]:
            return Pair(source, target)
    raise InvalidInput("not a pair")


def main(pipe: PipeEnd) -> None:
    serve(pipe, Server())
