"""Which files a model version may consist of: weights, configuration and tokenizer, never code.

Rules for a path: relative, `/` between at most four plain names, an allowed suffix; no hidden file, no `..`, nothing
that two file systems could read differently. Rules for a set of paths: no two that differ in case only, none that
is a folder of another. A JSON file that asks for code from elsewhere (`auto_map`) is refused by its contents.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from treaty.errors import InvalidInput, LimitExceeded
from treaty.strict_json import parse

ALLOWED_SUFFIXES = (".safetensors", ".json", ".txt", ".model")
WEIGHTS_SUFFIX = ".safetensors"
MAX_FILES = 4096
MAX_PATH_CHARS = 255
MAX_CONFIG_BYTES = 1 * 2**20

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z", re.ASCII)
_MAX_SEGMENTS = 4


def check_path(path: str) -> None:
    """Raise InvalidInput unless `path` may be a file of a model version."""
    segments = path.split("/")
    if len(path) > MAX_PATH_CHARS or len(segments) > _MAX_SEGMENTS or not all(map(_SEGMENT.match, segments)):
        shown = path if path.isprintable() and len(path) <= MAX_PATH_CHARS else "<unprintable or too long>"
        raise InvalidInput(f"{shown!r} is not a path that a model version may have")
    if not path.endswith(ALLOWED_SUFFIXES):
        raise InvalidInput(
            f"{path!r} is not a kind of file that a model version may have",
            remedy="leave only " + ", ".join(ALLOWED_SUFFIXES) + " files",
        )


def check_paths(paths: Iterable[str]) -> None:
    """Raise InvalidInput unless these paths can lie side by side on any file system. They are sorted, each once."""
    listed = list(paths)
    if len(listed) > MAX_FILES:
        raise LimitExceeded(f"a model version has more than {MAX_FILES} files")
    for path in listed:
        check_path(path)
    folded = [path.lower() for path in listed]
    if listed != sorted(listed) or len(set(folded)) != len(folded):
        raise InvalidInput("the files of a model version are not sorted, or two differ in case only")
    folders = {path[:end] for path in folded for end in range(len(path)) if path[end] == "/"}
    if folders & set(folded):
        raise InvalidInput("a model version has a file that is also a folder")


def check_configuration(data: bytes) -> None:
    """Raise InvalidInput if `data`, a `config.json`, is not strict JSON or names code to import."""
    value = parse(data, max_bytes=MAX_CONFIG_BYTES, max_depth=32, allow_floats=True)
    if not isinstance(value, dict):
        raise InvalidInput("config.json is not an object")
    if "auto_map" in value:
        raise InvalidInput("config.json names code to import (auto_map)", remedy="publish a version without own code")
