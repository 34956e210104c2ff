"""The built-ins that compiled policies may call in this process, because WebAssembly does not carry them.

A closed set: a policy that needs another is refused when it is built and when it is loaded. Each answers exactly as
OPA's own does on the values that rules hand it; that is why there is no clock, no network, no randomness and no
formatting of texts here. Source: Semantic Versioning 2.0.0, sections 9 to 11.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?\Z",
    re.ASCII,
)
_MAX_VERSION_CHARS = 128


def semver_is_valid(version: object) -> bool:
    return isinstance(version, str) and len(version) <= _MAX_VERSION_CHARS and _SEMVER.match(version) is not None


def semver_compare(first: object, second: object) -> int:
    """-1, 0 or 1. Raises ValueError: not a version; rules ask `semver.is_valid` first."""
    left, right = _precedence(first), _precedence(second)
    return (left > right) - (left < right)


def _precedence(version: object) -> tuple[Any, ...]:
    matched = _SEMVER.match(version) if isinstance(version, str) and len(version) <= _MAX_VERSION_CHARS else None
    if matched is None:
        raise ValueError("not a semantic version")
    major, minor, patch, pre_release = matched.groups()
    numbers = (int(major), int(minor), int(patch))
    if pre_release is None:
        return (*numbers, 1)
    # Numbers sort below words, and a shorter list below a longer one that begins with it (section 11.4).
    parts = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre_release.split("."))
    return (*numbers, 0, parts)


HOST_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "semver.compare": semver_compare,
    "semver.is_valid": semver_is_valid,
}
