"""An adapter as files: what a round's arrays and a fine-tuned version are on a disk, without torch.

| file | of | holds |
|---|---|---|
| `arrays.safetensors` | a round | the adapter's tensors by canonical name (treaty/recipe.py), float32, sorted |
| `adapter_model.safetensors` | a version on a base | the same with peft's prefix, so that peft loads it as it is |
| `adapter_config.json` | a version on a base | peft's configuration: rank, alpha, targets, and what peft wants named |

The same arrays give the same bytes everywhere. Reading is strict: exactly float32, finite, and of a configuration only
what an adapter of ours has; peft's other options (other modules saved, other initialisations) are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from treaty.errors import InvalidInput
from treaty.recipe import MAX_RANK, TARGETS, LoraSft
from treaty.safetensors_header import parse_header
from treaty.strict_json import JsonObject, JsonValue, canonical, parse_object

if TYPE_CHECKING:
    from treaty.recipe import Arrays

ARRAYS_FILE = "arrays.safetensors"
ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG_FILE = "adapter_config.json"

_PEFT_PREFIX = "base_model.model."
_MAX_CONFIG_BYTES = 64 * 1024
_FIXED: JsonObject = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "bias": "none",
    "inference_mode": True,
    "lora_dropout": 0,
    "modules_to_save": None,
}


@dataclass(frozen=True, slots=True)
class AdapterShape:
    """What an adapter's tensors need to be used: rank, scale and place."""

    rank: int
    alpha: int
    targets: tuple[str, ...]

    def __post_init__(self) -> None:
        if not (1 <= self.rank <= MAX_RANK and 1 <= self.alpha <= 1024):
            raise InvalidInput("the adapter's rank or alpha is out of bounds")
        is_known = bool(self.targets) and set(self.targets) <= set(TARGETS)
        if not is_known or list(self.targets) != sorted(set(self.targets)):
            raise InvalidInput("the adapter's targets are not a sorted list from " + ", ".join(TARGETS))

    @staticmethod
    def of(recipe: LoraSft) -> AdapterShape:
        return AdapterShape(recipe.rank, recipe.alpha, recipe.targets)


def adapter_files(recipe: LoraSft, arrays: Arrays) -> dict[str, bytes]:
    """The files of a version that is its base plus this adapter, by name."""
    config: JsonObject = {
        **_FIXED,
        "r": recipe.rank,
        "lora_alpha": recipe.alpha,
        "target_modules": list(recipe.targets),
    }
    named = {_PEFT_PREFIX + name: array for name, array in arrays.items()}
    return {ADAPTER_CONFIG_FILE: canonical(config), ADAPTER_WEIGHTS_FILE: encode_arrays(named)}


def read_adapter(folder: Path) -> tuple[AdapterShape, Arrays]:
    """Read what `adapter_files` made. Raises InvalidInput; OSError if a file is missing."""
    shape = _parse_config((folder / ADAPTER_CONFIG_FILE).read_bytes())
    arrays = decode_arrays((folder / ADAPTER_WEIGHTS_FILE).read_bytes())
    if not all(name.startswith(_PEFT_PREFIX) for name in arrays):
        raise InvalidInput("a tensor of the adapter lacks peft's prefix")
    return shape, {name.removeprefix(_PEFT_PREFIX): array for name, array in arrays.items()}


def encode_arrays(arrays: Arrays) -> bytes:
    """`arrays` as a safetensors file: float32 little endian, sorted by name, header padded to eight bytes."""
    import numpy as np

    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    pieces: list[bytes] = []
    offset = 0
    for name, array in sorted(arrays.items()):
        data = np.ascontiguousarray(array, dtype="<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [offset, offset + len(data)]}
        pieces.append(data)
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *pieces])


def decode_arrays(data: bytes) -> Arrays:
    """Read a safetensors file of float32 arrays, in the file's order.

    Raises: InvalidInput: malformed, another dtype, or a value that is not finite.
    """
    import numpy as np

    header = parse_header(data, len(data))
    arrays: Arrays = {}
    offset = header.header_bytes
    for tensor in header.tensors:
        if tensor.dtype != "F32":
            raise InvalidInput(f"tensor {tensor.name!r} is not float32")
        flat = np.frombuffer(data, dtype="<f4", count=tensor.bytes // 4, offset=offset)
        if not np.isfinite(flat).all():
            raise InvalidInput(f"tensor {tensor.name!r} has a value that is not finite")
        arrays[tensor.name] = flat.reshape(tensor.shape).astype(np.float32)
        offset += tensor.bytes
    return arrays


def _parse_config(data: bytes) -> AdapterShape:
    members: Mapping[str, JsonValue] = parse_object(data, max_bytes=_MAX_CONFIG_BYTES, max_depth=4)
    match {name: value for name, value in members.items() if name not in _FIXED}:
        case {"r": int(rank), "lora_alpha": int(alpha), "target_modules": list(targets), **rest} if not rest:
            names = tuple(target for target in targets if isinstance(target, str))
        case _:
            raise InvalidInput("the adapter's configuration has other options than rank, alpha and targets")
    if len(names) != len(targets) or any(members.get(name) != value for name, value in _FIXED.items()):
        raise InvalidInput("the adapter's configuration is not of a plain LoRA adapter")
    return AdapterShape(rank, alpha, names)
