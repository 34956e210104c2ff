"""The JSON schema of each kind, generated from the dataclasses: structural, as custom resource definitions want it.

What a schema cannot say (a nation named in two waves) is refused by the codec; the schema is never stricter than it.
Source: Kubernetes, apiextensions.k8s.io/v1, structural schemas.
"""

from __future__ import annotations

from typing import assert_never

from treaty.resources.meta import API_VERSION, AnyKind
from treaty.resources.shape import (
    BooleanShape,
    ChoiceShape,
    FreeShape,
    IntegerShape,
    ListShape,
    MapShape,
    ObjectShape,
    Shape,
    TextShape,
    TimestampShape,
    shape_of,
)
from treaty.strict_json import JsonObject


def schema_of(kind: AnyKind) -> JsonObject:
    """The OpenAPI v3 schema of a whole object of `kind`; `metadata` is Kubernetes' own."""
    return {
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {"type": "string", "enum": [API_VERSION]},
            "kind": {"type": "string", "enum": [kind.name]},
            "metadata": {"type": "object"},
            "spec": _schema(shape_of(kind.spec)),
            "status": _schema(shape_of(kind.status)),
        },
    }


def crd_of(kind: AnyKind) -> JsonObject:
    """The CustomResourceDefinition that serves `kind`, its status as a subresource."""
    group, _, version = API_VERSION.partition("/")
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "categories": ["foedus"],
            },
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema_of(kind)},
                    "subresources": {"status": {}},
                }
            ],
        },
    }


def _schema(shape: Shape) -> JsonObject:
    match shape:
        case TextShape(mark):
            text: JsonObject = {"type": "string", "maxLength": mark.max_chars}
            if mark.min_chars:
                text["minLength"] = mark.min_chars
            if mark.pattern is not None:
                text["pattern"] = mark.pattern
            return text
        case IntegerShape(mark, is_text):
            if is_text:
                return {"type": "string", "pattern": "^[0-9]{1,15}$"}
            return {"type": "integer", "format": "int64", "minimum": mark.low, "maximum": mark.high}
        case BooleanShape():
            return {"type": "boolean"}
        case TimestampShape():
            return {"type": "string", "format": "date-time"}
        case ChoiceShape(choices):
            return {"type": "string", "enum": [choice.value for choice in choices]}
        case ListShape(member, mark):
            return {"type": "array", "items": _schema(member), "minItems": mark.low, "maxItems": mark.high}
        case MapShape(_, member, mark):
            return {"type": "object", "additionalProperties": _schema(member), "maxProperties": mark.high}
        case FreeShape():
            return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        case ObjectShape():
            return _object_schema(shape)
        case _:
            assert_never(shape)


def _object_schema(shape: ObjectShape) -> JsonObject:
    properties: JsonObject = {}
    for field in shape.fields:
        properties[field.json_name] = _schema(field.shape) | ({"nullable": True} if field.is_nullable else {})
    written: JsonObject = {"type": "object", "properties": properties}
    required = [field.json_name for field in shape.fields if field.is_required]
    if required:
        written["required"] = list(required)
    return written
