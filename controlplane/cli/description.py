"""One resource in full, for a person: metadata, intent, observation, each condition with its reason and age."""

from __future__ import annotations

import sys

from controlplane.cli import tables
from treaty.fields import timestamp_text
from treaty.resources import codec
from treaty.resources.meta import AnyResource
from treaty.strict_json import JsonValue

_OWN_SECTIONS = ("conditions", "observedGeneration")


def description(resource: AnyResource) -> str:
    """Several lines, without colour."""
    metadata = resource.metadata
    created = metadata.creation_timestamp
    head = [
        ("Name", resource.name),
        ("Kind", resource.kind),
        ("Labels", ", ".join(f"{k}={v}" for k, v in sorted(metadata.labels.items()))),
        ("Annotations", ", ".join(f"{k}={v}" for k, v in sorted(metadata.annotations.items()))),
        ("Generation", str(metadata.generation)),
        ("Created", timestamp_text(created) if created else ""),
    ]
    document = codec.to_json(resource)
    status = document["status"]
    observed = {k: v for k, v in status.items() if k not in _OWN_SECTIONS} if isinstance(status, dict) else {}
    sections = [tables.pairs([(name, value) for name, value in head if value])]
    for title, value in (("Spec", document["spec"]), ("Status", observed)):
        if value:
            sections.append(f"{title}:\n" + "\n".join(_lines(value, 1)))
    sections.append(_conditions(resource))
    return "\n".join(section for section in sections if section)


def _conditions(resource: AnyResource) -> str:
    rows = [["  TYPE", "STATUS", "SINCE", "REASON", "MESSAGE"]]
    for condition in resource.status.conditions:
        since = timestamp_text(condition.last_transition_time) if condition.last_transition_time else ""
        rows.append([f"  {condition.type}", str(condition.status), since, condition.reason, condition.message])
    return "Conditions:\n" + tables.text_of(rows, sys.stdout) if len(rows) > 1 else ""


def _lines(value: JsonValue, depth: int) -> list[str]:
    """A JSON value as indented lines; lists of plain values on one line."""
    pad = "  " * depth
    if isinstance(value, dict):
        lines = []
        for key, member in value.items():
            if isinstance(member, dict | list) and member and not _is_plain(member):
                lines += [f"{pad}{tables.words(key)}:", *_lines(member, depth + 1)]
            else:
                lines.append(f"{pad}{tables.words(key)}: {_text(member)}".rstrip())
        return lines
    if isinstance(value, list):
        lines = []
        for member in value:
            first, *rest = _lines(member, depth + 1) or [""]
            lines += [f"{pad}- {first.strip()}", *rest]
        return lines
    return [pad + _text(value)]


def _is_plain(value: JsonValue) -> bool:
    return isinstance(value, list) and not any(isinstance(member, dict | list) for member in value)


def _text(value: JsonValue) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None or value == {} else str(value)
