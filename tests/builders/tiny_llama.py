"""A Llama so small that training it takes milliseconds: random weights, a byte-level tokenizer, made on the fly.

The folder has what a real version has (config.json, tokenizer.json, tokenizer_config.json, model.safetensors in bf16),
so it goes through manifests, pulls, training and serving like one. No network, and no torch in the test's process.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

HIDDEN, LAYERS, HEADS, KV_HEADS, INTERMEDIATE = 32, 2, 4, 2, 64
_END = "</s>"


def build_tiny_llama(folder: Path, *, seed: int = 0) -> Path:
    """Write the model into `folder` (made if missing) and return it. The same seed gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _write_tokenizer(folder)
    _write_json(folder / "config.json", _config(vocabulary))
    _write_weights(folder / "model.safetensors", vocabulary, seed)
    return folder


def base_shapes(vocabulary: int = 257) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the model's tensors."""
    head = HIDDEN // HEADS
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    for layer in range(LAYERS):
        stem = f"model.layers.{layer}."
        shapes |= {
            f"{stem}input_layernorm.weight": (HIDDEN,),
            f"{stem}post_attention_layernorm.weight": (HIDDEN,),
            f"{stem}self_attn.q_proj.weight": (HIDDEN, HIDDEN),
            f"{stem}self_attn.k_proj.weight": (KV_HEADS * head, HIDDEN),
            f"{stem}self_attn.v_proj.weight": (KV_HEADS * head, HIDDEN),
            f"{stem}self_attn.o_proj.weight": (HIDDEN, HIDDEN),
            f"{stem}mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
            f"{stem}mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
            f"{stem}mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
        }
    return shapes


def write_pairs(path: Path, count: int = 40, *, language: str = "xx") -> Path:
    """A dataset of `count` distinct pairs that are easy to learn."""
    lines = (
        json.dumps({"source": f"record number {n}", "target": f"{language} {language} {n}"}) + "\n"
        for n in range(count)
    )
    path.write_text("".join(lines), encoding="utf-8")
    return path


def _config(vocabulary: int) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }


def _write_tokenizer(folder: Path) -> int:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: place for place, letter in enumerate(letters)} | {_END: len(letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([_END])
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": _END})
    return len(vocabulary)


def _write_weights(path: Path, vocabulary: int, seed: int) -> None:
    """safetensors by hand: NumPy has no bfloat16, whose bytes are the upper half of a float32's."""
    generator = np.random.default_rng(seed)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = bytearray()
    for name, shape in base_shapes(vocabulary).items():
        values = np.ones(shape) if "norm" in name else generator.normal(0, 0.1, shape)
        data = (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
