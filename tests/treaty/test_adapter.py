from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.builders.tiny_llama import base_shapes
from tests.treaty.test_recipe import RECIPE
from treaty.adapter import AdapterShape, adapter_files, decode_arrays, encode_arrays, read_adapter
from treaty.errors import InvalidInput
from treaty.recipe import initial_arrays

ARRAYS = initial_arrays(RECIPE, base_shapes())


def write(folder: Path, **config: object) -> Path:
    files = adapter_files(RECIPE, ARRAYS)
    stated = json.loads(files["adapter_config.json"])
    files["adapter_config.json"] = json.dumps({**stated, **config}).encode()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def test_an_adapter_reads_back_what_it_wrote(tmp_path: Path) -> None:
    shape, arrays = read_adapter(write(tmp_path))
    assert shape == AdapterShape.of(RECIPE) == AdapterShape(8, 16, ("q_proj", "v_proj"))
    assert list(arrays) == sorted(ARRAYS)
    assert all(np.array_equal(arrays[name], ARRAYS[name]) for name in ARRAYS)


def test_the_same_arrays_give_the_same_bytes_in_any_order() -> None:
    assert encode_arrays(dict(reversed(ARRAYS.items()))) == encode_arrays(ARRAYS)


@pytest.mark.parametrize(
    "config",
    [
        {"r": 0},
        {"r": "8"},
        {"target_modules": ["lm_head"]},
        {"target_modules": "all-linear"},
        {"modules_to_save": ["embed_tokens"]},
        {"bias": "all"},
        {"peft_type": "PROMPT_TUNING"},
        {"auto_mapping": {"base_model_class": "x"}},
    ],
)
def test_a_configuration_with_anything_else_is_refused(tmp_path: Path, config: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match=r"the adapter's"):
        read_adapter(write(tmp_path, **config))


def test_a_tensor_without_the_prefix_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "adapter_model.safetensors").write_bytes(encode_arrays(ARRAYS))
    with pytest.raises(InvalidInput, match="lacks peft's prefix"):
        read_adapter(folder)


def test_values_that_are_not_finite_and_other_dtypes_are_refused() -> None:
    with pytest.raises(InvalidInput, match="not finite"):
        decode_arrays(encode_arrays({"a": np.array([np.nan], np.float32)}))
    other = encode_arrays({"a": np.zeros(2, np.float32)}).replace(b"F32", b"I32")
    with pytest.raises(InvalidInput, match="is not float32"):
        decode_arrays(other)
