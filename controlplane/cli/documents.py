"""Resources in files, as people write them: YAML or JSON, one or several documents. Judged here first, then sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from treaty.errors import InvalidInput
from treaty.files import about, read_file
from treaty.resources import codec
from treaty.resources.meta import AnyResource
from treaty.strict_json import parse

MAX_DOCUMENTS: Final = 256
MAX_FILE_BYTES: Final = 8 * 1024 * 1024


def read_resources(path: Path) -> list[bytes]:
    """The documents of `path` as canonical JSON. Raises: InvalidInput: one is malformed; it names the place."""
    return [
        codec.to_bytes(resource) for resource in parse_resources(read_file(path, "file", MAX_FILE_BYTES), str(path))
    ]


def parse_resources(data: bytes, name: str) -> list[AnyResource]:
    import yaml

    try:
        # Before anything is built: a kilobyte of anchors that repeat each other is gigabytes when written out.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(data, Loader=yaml.SafeLoader)):
            raise InvalidInput(f"{name} repeats a part by its anchor", remedy="write it out")
        documents = [document for document in yaml.safe_load_all(data) if document is not None]
        # JSON once more, by our rules: YAML has floats, dates and anchors that a resource has not.
        texts = [json.dumps(document, allow_nan=False).encode() for document in documents]
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as err:
        raise InvalidInput(f"{name} is neither YAML nor JSON") from err
    except (TypeError, ValueError) as err:
        raise InvalidInput(
            f"{name} has a value that JSON does not have", remedy="put dates and times into quotes"
        ) from err
    if not 1 <= len(texts) <= MAX_DOCUMENTS:
        raise InvalidInput(f"{name} holds no document, or more than {MAX_DOCUMENTS}")
    return [_resource(text, f"{name}, document {place}") for place, text in enumerate(texts, start=1)]


def _resource(text: bytes, where: str) -> AnyResource:
    with about(where):
        value = parse(text, max_bytes=codec.MAX_RESOURCE_BYTES)
        if not isinstance(value, dict):
            raise InvalidInput("a resource is an object")
        return codec.from_json(value)
