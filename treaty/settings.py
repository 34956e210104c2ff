"""Settings as people read them: each key of a settings class with what it is and its default.

The class itself is the only source: the text beneath a field is its description in the file that `init` writes, on the
page docs/settings.md and for whoever reads the code. Python keeps no such text at run time, so the source is read.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_COMMENT_WIDTH: Final = 110


@dataclass(frozen=True, slots=True)
class Key:
    """One setting. `default` is None where there is none: such a key must be set."""

    name: str
    default: str | int | None
    text: str

    @property
    def default_yaml(self) -> str:
        """As it is written in a settings file; empty where there is none. JSON's texts are YAML's too."""
        return "" if self.default is None else json.dumps(self.default, ensure_ascii=False)


def keys_of(settings: type[DataclassInstance]) -> tuple[Key, ...]:
    """The keys of a settings class, in its order."""
    texts = dict(_texts(settings))
    return tuple(Key(field.name, _default(field.default), texts[field.name]) for field in dataclasses.fields(settings))


def settings_yaml(title: str, keys: Sequence[Key], values: Mapping[str, str]) -> str:
    """A settings file with every key: those in `values` set, the others commented out with their default."""
    lines = [
        f"# {title}",
        "# Each key stands here with its default: take its '#' away to change it. Read at the start.",
    ]
    for key in keys:
        lines.append("")
        lines += textwrap.wrap(key.text, _COMMENT_WIDTH, initial_indent="# ", subsequent_indent="# ")
        is_set = key.name in values
        lines.append(f"{key.name}: {values[key.name]}" if is_set else f"#{key.name}: {key.default_yaml}")
    return "\n".join(lines) + "\n"


def _texts(settings: type) -> Iterator[tuple[str, str]]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(settings))).body
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    for field, text in pairwise(body):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str):
            yield field.target.id, " ".join(text.value.value.split())


def _default(default: object) -> str | int | None:
    """A `StrEnum` is its text."""
    if default is dataclasses.MISSING:
        return None
    return str(default) if isinstance(default, str) else default if isinstance(default, int) else None
