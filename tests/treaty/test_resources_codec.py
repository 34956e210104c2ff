"""Documents: what is written reads back the same, and whatever deviates is refused by its place."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.treaty.resource_strategies import resources
from treaty.errors import InvalidInput, LimitExceeded
from treaty.names import ModelRef, PartyCode, digest_of
from treaty.resources import (
    FEDERATED_RUN,
    KINDS,
    ROLLOUT,
    AnyKind,
    AnyResource,
    FederatedRunSpec,
    FreezeWindowSpec,
    RolloutSpec,
    from_json,
    from_json_as,
    new_resource,
    to_bytes,
    to_json,
)
from treaty.resources.rollouts import Gates, Wave
from treaty.resources.runs import Task
from treaty.strict_json import JsonObject

FR, DE, IT = PartyCode("FR"), PartyCode("DE"), PartyCode("IT")
SPEC = RolloutSpec(ModelRef("tiny@1.0.0"), digest_of(b"manifest"), (Wave("first", (FR, DE), 2), Wave("second", (IT,))))
ROLL = new_resource(ROLLOUT, "r1", SPEC, labels={"tier": "gold"})
RUN = new_resource(
    FEDERATED_RUN, "run-1", FederatedRunSpec(Task.TRAIN, "translation", ModelRef("tiny@1.0.0"), (FR, DE), 2)
)


def document(resource: AnyResource = ROLL) -> JsonObject:
    return deepcopy(to_json(resource))


def changed(path: str, value: object) -> JsonObject:
    """The rollout's document with the member at `path` (dots and indices) set to `value`."""
    whole = document()
    *parents, last = path.split(".")
    here: object = whole
    for part in parents:
        here = here[int(part)] if isinstance(here, list) else here[part]  # type: ignore[index]
    if isinstance(here, list):
        here[int(last)] = value
    else:
        here[last] = value  # type: ignore[index]
    return whole


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@given(data=st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_written_reads_back_the_same(kind: AnyKind, data: st.DataObject) -> None:
    resource = data.draw(resources(kind))
    again = from_json(to_bytes(resource))
    assert again == resource
    assert to_bytes(again) == to_bytes(resource)


def test_the_document_is_what_a_kubernetes_user_expects() -> None:
    assert document() == {
        "apiVersion": "foedus.dev/v1alpha1",
        "kind": "Rollout",
        "metadata": {
            "name": "r1",
            "namespace": "default",
            "uid": "",
            "labels": {"tier": "gold"},
            "generation": 0,
            "resourceVersion": "0",
        },
        "spec": {
            "model": "tiny@1.0.0",
            "manifestDigest": SPEC.manifest_digest,
            "waves": [
                {"name": "first", "nations": ["FR", "DE"], "concurrency": 2},
                {"name": "second", "nations": ["IT"], "concurrency": 1},
            ],
            "soakSeconds": 0,
            "deadlineSeconds": 3600,
            "gates": {"health": {}, "approval": False},
            "failureBudget": 0,
            "paused": False,
            "aborted": False,
        },
        "status": {"observedGeneration": 0, "currentWave": 0},
    }


def test_a_gate_that_is_taken_away_stays_away() -> None:
    without = replace(ROLL, spec=replace(SPEC, gates=Gates(health=None)))
    assert document(without)["spec"]["gates"] == {"health": None, "approval": False}  # type: ignore[index, call-overload]
    assert from_json_as(ROLLOUT, to_bytes(without)).spec.gates.health is None


def test_a_document_without_status_gets_an_empty_one() -> None:
    whole = document()
    del whole["status"]
    assert from_json(whole) == ROLL


REFUSALS = [
    ("apiVersion", "v1", "apiVersion: is not foedus.dev/v1alpha1"),
    ("kind", "Pod", "kind: no such kind; one of Nation,"),
    ("kind", ["Rollout"], "kind: no such kind"),
    ("secret", 1, "unknown field 'secret'"),
    ("metadata.name", "R1", "metadata.name: 'R1' is not a resource name"),
    ("metadata.resourceVersion", 7, "metadata.resourceVersion: is not an integer as a text"),
    ("metadata.resourceVersion", "\u0661", "metadata.resourceVersion: is not an integer as a text"),
    ("metadata.creationTimestamp", "yesterday", "metadata.creationTimestamp: not a timestamp"),
    ("metadata.creationTimestamp", 1, "metadata.creationTimestamp: not a timestamp"),
    ("metadata.labels", {"tier": "g o"}, "metadata.labels.tier: 'g o' does not match"),
    ("metadata.labels", {"": "x"}, "metadata.labels: is empty"),
    ("spec.waves.0.nations.1", "fr", r"spec.waves\[0\].nations\[1\]: 'fr' is not a nation code"),
    ("spec.waves.1.nations", [], r"spec.waves\[1\].nations: is empty"),
    ("spec.waves.0.nations", "FR", r"spec.waves\[0\].nations: is not a list"),
    ("spec.waves.0.concurrency", True, r"spec.waves\[0\].concurrency: is not an integer"),
    ("spec.waves.0.concurrency", "2", r"spec.waves\[0\].concurrency: is not an integer"),
    ("spec.waves.0.concurrency", 2.0, r"spec.waves\[0\].concurrency: is not an integer"),
    ("spec.waves.0.concurrency", 0, r"spec.waves\[0\].concurrency: 0 is not between 1 and 64"),
    ("spec.waves.0.concurrncy", 1, r"spec.waves\[0\]: unknown field 'concurrncy'"),
    ("spec.waves.0", None, r"spec.waves\[0\]: is not an object"),
    ("spec.paused", 0, "spec.paused: is not true or false"),
    ("spec.paused", None, "spec.paused: is null"),
    ("spec.model", "tiny", "spec.model: 'tiny' is not a model reference"),
    ("spec.manifestDigest", "sha256:AB", "spec.manifestDigest: 'sha256:AB' is not a digest"),
    ("spec.fallbackDigest", SPEC.manifest_digest, "spec: fallbackDigest is the version that is being rolled out"),
    ("spec.waves.1.name", "first", "spec: wave 'first' appears twice"),
    ("spec.waves.1.nations.0", "FR", "spec: nation 'FR' appears twice"),
    ("spec.approvedWaves", ["third"], "spec: approvedWaves names 'third', which is not a wave"),
    ("status", None, "status: is not an object"),
    ("status", [], "status: is not an object"),
    ("status.nations", [{"nation": "FR"}], r"status.nations\[0\].state: is missing"),
    ("status.conditions", [{"type": "Ready", "status": "yes", "reason": "R"}], r"status: is not one of True, False"),
]


@pytest.mark.parametrize(("path", "value", "message"), REFUSALS)
def test_a_deviation_is_refused_by_its_place(path: str, value: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        from_json(changed(path, value))


@pytest.mark.parametrize("part", ["apiVersion", "kind", "metadata", "spec"])
def test_a_missing_part_is_refused(part: str) -> None:
    whole = document()
    del whole[part]
    with pytest.raises(InvalidInput, match=part):
        from_json(whole)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("metadata.annotations", {"note": "x" * 1025}, "metadata.annotations.note: is longer than 1024 characters"),
        ("metadata.labels", {f"k{n}": "v" for n in range(65)}, "metadata.labels: has more than 64 members"),
        ("spec.waves.0.nations", ["FR"] * 65, r"spec.waves\[0\].nations: has more than 64 members"),
    ],
)
def test_what_is_beyond_a_bound_is_refused(path: str, value: object, message: str) -> None:
    with pytest.raises(LimitExceeded, match=message):
        from_json(changed(path, value))


def test_a_document_beyond_its_bound_is_not_read() -> None:
    with pytest.raises(LimitExceeded, match="more than 1048576"):
        from_json(b" " * 1_048_577)


def test_what_is_not_json_or_no_object_is_refused() -> None:
    for text in (b"", b"[]", b"1", b'{"kind": NaN}', b'{"kind": 1, "kind": 2}', b"\xff"):
        with pytest.raises(InvalidInput):
            from_json(text)


def test_a_recipe_is_free_but_bounded_and_without_fractions() -> None:
    def with_recipe(recipe: object) -> JsonObject:
        whole = document(RUN)
        whole["spec"]["recipe"] = recipe  # type: ignore[index, call-overload, assignment]
        return whole

    kept = from_json_as(FEDERATED_RUN, with_recipe({"name": "lora-sft", "targets": ["q_proj"], "rank": 8}))
    assert kept.spec.recipe == {"name": "lora-sft", "targets": ["q_proj"], "rank": 8}
    with pytest.raises(InvalidInput, match=r"spec\.recipe: is not made of texts, integers"):
        from_json(with_recipe({"lr": 0.003}))
    with pytest.raises(InvalidInput, match=r"spec\.recipe: is not made of texts, integers"):
        from_json(with_recipe({"when": datetime(2026, 1, 1)}))  # noqa: DTZ001  # as YAML would read it
    with pytest.raises(LimitExceeded, match=r"spec\.recipe: is nested too deeply"):
        from_json(with_recipe({"a": [[[[[[1]]]]]]}))
    with pytest.raises(LimitExceeded, match=r"spec\.recipe: is larger than 65536 bytes"):
        from_json(with_recipe({"a": "x" * 65_536}))


def test_a_runs_numbers_must_fit_each_other() -> None:
    def with_spec(**members: object) -> JsonObject:
        whole = document(RUN)
        whole["spec"].update(members)  # type: ignore[union-attr, arg-type]
        return whole

    with pytest.raises(InvalidInput, match="spec: quorum 3 is more than the 2 nations named"):
        from_json(with_spec(quorum=3))
    with pytest.raises(InvalidInput, match="spec: nation 'FR' appears twice"):
        from_json(with_spec(nations=["FR", "FR"]))
    with pytest.raises(InvalidInput, match="spec: an evaluation has one round"):
        from_json(with_spec(task="evaluate", rounds=2))


def test_a_window_that_ends_before_it_starts_is_refused() -> None:
    early, late = (datetime.fromisoformat(f"2026-11-{day}T00:00:00+00:00") for day in (20, 21))
    assert FreezeWindowSpec((FR,), early, late).ends_at == late
    with pytest.raises(InvalidInput, match="the window ends before it starts"):
        FreezeWindowSpec((FR,), late, early)


def test_another_kind_than_the_one_meant_is_refused() -> None:
    with pytest.raises(InvalidInput, match="kind: is Rollout, not FederatedRun"):
        from_json_as(FEDERATED_RUN, to_bytes(ROLL))


def test_an_unknown_field_is_refused_in_every_object_of_a_full_document() -> None:
    whole = json.loads(to_bytes(ROLL))

    def objects(value: object) -> list[dict[str, object]]:
        members = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        inner = [found for member in members for found in objects(member)]
        return [value, *inner] if isinstance(value, dict) else inner

    strict = [found for found in objects(whole) if found is not whole["metadata"]["labels"]]
    assert len(strict) == 8
    for found in strict:
        found["xUnknown"] = 1
        with pytest.raises(InvalidInput, match="unknown field 'xUnknown'"):
            from_json(whole)
        del found["xUnknown"]
    assert from_json(whole) == ROLL
