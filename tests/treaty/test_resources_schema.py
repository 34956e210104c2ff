"""The generated schema: structural, complete, and never stricter than the codec."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.treaty.resource_strategies import resources
from treaty.resources import KINDS, ROLLOUT, AnyKind, crd_of, schema_of, to_json
from treaty.strict_json import JsonObject, JsonValue


def violations(schema: JsonObject, value: JsonValue, path: str = "") -> list[str]:
    """What `value` breaks of the keywords that the generator uses."""
    if value is None:
        return [] if schema.get("nullable") else [f"{path} is null"]
    types = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    expected = types[str(schema["type"])]
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        return [f"{path} is no {schema['type']}"]
    found: list[str] = []
    if isinstance(value, str):
        is_long = len(value) > int(schema.get("maxLength", 10**9))  # type: ignore[arg-type]
        is_short = len(value) < int(schema.get("minLength", 0))  # type: ignore[arg-type]
        is_odd = not re.search(str(schema.get("pattern", "")), value)
        if is_long or is_short or is_odd or value not in schema.get("enum", [value]):  # type: ignore[operator]
            found.append(f"{path} {value!r}")
    elif isinstance(value, int) and not isinstance(value, bool):
        if not schema["minimum"] <= value <= schema["maximum"]:  # type: ignore[operator]
            found.append(f"{path} {value}")
    elif isinstance(value, list):
        if not schema["minItems"] <= len(value) <= schema["maxItems"]:  # type: ignore[operator]
            found.append(f"{path} has {len(value)}")
        for index, member in enumerate(value):
            found += violations(schema["items"], member, f"{path}[{index}]")  # type: ignore[arg-type]
    elif isinstance(value, dict) and "properties" in schema:
        properties: JsonObject = schema["properties"]  # type: ignore[assignment]
        found += [f"{path}.{name} missing" for name in schema.get("required", []) if name not in value]  # type: ignore[union-attr]
        for name, member in value.items():
            found += violations(properties[name], member, f"{path}.{name}")  # type: ignore[arg-type]
    return found


def nodes(schema: JsonValue) -> list[JsonObject]:
    members = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    inner = [node for member in members for node in nodes(member)]
    return (
        [schema, *inner] if isinstance(schema, dict) and "type" in schema and isinstance(schema["type"], str) else inner
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@given(data=st.data())
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_the_codec_writes_satisfies_the_schema(kind: AnyKind, data: st.DataObject) -> None:
    document = to_json(data.draw(resources(kind)))
    document["metadata"] = {}
    assert violations(schema_of(kind) | {"required": []}, document) == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_schema_is_structural(kind: AnyKind) -> None:
    for node in nodes(schema_of(kind)):
        assert not {"$ref", "oneOf", "anyOf", "allOf", "definitions"} & set(node)
        assert not ("properties" in node and "additionalProperties" in node)
        if node["type"] == "array":
            assert "items" in node


def test_the_schema_of_a_field_says_its_type_bounds_and_whether_it_is_required() -> None:
    spec = schema_of(ROLLOUT)["properties"]["spec"]  # type: ignore[index, call-overload]
    assert spec["required"] == ["model", "manifestDigest", "waves"]  # type: ignore[index, call-overload]
    assert spec["properties"]["soakSeconds"] == {  # type: ignore[index, call-overload]
        "type": "integer",
        "format": "int64",
        "minimum": 0,
        "maximum": 31_536_000,
    }
    fallback = spec["properties"]["fallbackDigest"]  # type: ignore[index, call-overload]
    assert fallback == {"type": "string", "maxLength": 71, "pattern": "^sha256:[0-9a-f]{64}$", "nullable": True}


def test_a_definition_serves_the_kind_with_its_status_apart() -> None:
    definition = crd_of(ROLLOUT)
    assert definition["metadata"] == {"name": "rollouts.foedus.dev"}
    (version,) = definition["spec"]["versions"]  # type: ignore[index, call-overload, misc, str-unpack]
    assert (version["name"], version["served"], version["storage"]) == ("v1alpha1", True, True)  # type: ignore[index, call-overload]
    assert version["subresources"] == {"status": {}}  # type: ignore[index, call-overload]
