"""Builders of small model versions on disk, for the tests of manifests, stores and pulls."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from treaty.label import Classification, label
from treaty.lineage import Lineage
from treaty.manifest import Description
from treaty.names import Digest


def safetensors(tensors: Mapping[str, tuple[str, list[int], bytes]], *, pad: int = 0) -> bytes:
    """The bytes of a safetensors file: name → (dtype, shape, data), in this order."""
    members: dict[str, object] = {}
    position = 0
    for name, (dtype, shape, data) in tensors.items():
        members[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + len(data)]}
        position += len(data)
    text = json.dumps(members).encode() + b" " * pad
    return len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in tensors.values())


def description(version: str = "1.0.0", *, base: Digest | None = None) -> Description:
    parents = () if base is None else (base,)
    public = label(Classification.PUBLIC, ["FR", "DE", "IT", "JP", "KR"])
    return Description("tiny-llama", version, base, "LlamaForCausalLM", "Apache-2.0", public, Lineage(parents))


def model_folder(directory: Path, weights: bytes) -> Path:
    """A version of three files, with `weights` as its safetensors."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e-05}')
    (directory / "tokenizer.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(weights)
    return directory
