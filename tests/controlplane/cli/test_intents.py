"""What is typed or written in a file, as the resources that are sent; each mistake is told before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.cli.documents import parse_resources
from controlplane.cli.publishing import Draft, _described, _label, evaluations
from controlplane.cli.rollout_intent import evaluation_gate, wave
from controlplane.cli.run_intent import RunFlags, run_of
from tests.controlplane.cli.test_views import run_resource
from treaty.errors import InvalidInput
from treaty.label import Classification, label
from treaty.lineage import Lineage
from treaty.resources.rollouts import EvaluationGate, Wave
from treaty.resources.runs import Task

FLAGS = RunFlags(
    name="tr-1",
    task="train",
    purpose="translation",
    model="demo@1.0.0",
    nations=("fr", "DE"),
    quorum=0,
    rounds=2,
    deadline_seconds=60,
    recipe=("rank=4", "targets=v_proj,q_proj"),
    strategy="FedAdam",
    parameters=("eta_micro=100",),
    clip_norm_micro=1_000_000,
    seed=7,
)


def changed(**fields: object) -> RunFlags:
    from dataclasses import replace

    return replace(FLAGS, **fields)  # type: ignore[arg-type]


def test_flags_make_a_run_with_the_default_recipe_beneath() -> None:
    spec = run_of(FLAGS, None).spec
    assert (spec.task, spec.nations, spec.quorum, spec.seed) == (Task.TRAIN, ("FR", "DE"), 2, 7)
    assert spec.strategy.parameters == {"eta_micro": 100}
    assert (spec.recipe["rank"], spec.recipe["targets"], spec.recipe["steps"]) == (4, ["q_proj", "v_proj"], 8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"purpose": ""}, "a run needs --purpose"),
        ({"task": "learn"}, "'learn' is no task"),
        ({"nations": ("France",)}, "is not a nation code"),
        ({"recipe": ("rank=big",)}, "rank is not an integer"),
        ({"recipe": ("rank=1000",)}, "the recipe's rank is not between 1 and 64"),
        ({"recipe": ("code=os.system",)}, "the recipe has no 'code'"),
        ({"recipe": ("rank",)}, "'rank' is not NAME=VALUE"),
        ({"quorum": 3}, "quorum 3 is more than the 2 nations named"),
        ({"nations": ("FR", "FR")}, "nation 'FR' appears twice"),
        ({"model": "demo"}, "is not a model reference"),
    ],
)
def test_a_mistake_in_a_runs_flags_is_told(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        run_of(changed(**fields), None)


RUN_FILE = """
apiVersion: foedus.dev/v1alpha1
kind: FederatedRun
metadata: {name: from-file}
spec: {task: evaluate, purpose: translation, model: demo@1.0.0, nations: [FR], quorum: 1}
"""


def test_a_run_may_come_from_a_file_but_not_from_both(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(RUN_FILE)
    bare = changed(name="", purpose="", model="", nations=(), recipe=())
    assert run_of(bare, file).spec.task is Task.EVALUATE
    with pytest.raises(InvalidInput, match="from a file or from flags"):
        run_of(FLAGS, file)


def test_several_documents_are_read_and_a_mistake_names_its_place() -> None:
    assert [found.name for found in parse_resources((RUN_FILE + "---" + RUN_FILE).encode(), "f")] == ["from-file"] * 2
    with pytest.raises(InvalidInput, match=r"f, document 2: spec: unknown field 'quorom'"):
        parse_resources((RUN_FILE + "---" + RUN_FILE.replace("quorum", "quorom")).encode(), "f")


LAUGHS = "a0: &a0 [ha]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
"""A kilobyte that would be 10^11 words."""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "neither YAML nor JSON"),
        ("", "holds no document"),
        ("a: 2026-11-23", "a value that JSON does not have"),
        ("a: 0.5", "fractional"),
        ("- a", "a resource is an object"),
        ("!!python/object/apply:os.system ['true']", "neither YAML nor JSON"),
        ("[" * 5000, "neither YAML nor JSON"),
        ("a: &a [x]\nb: *a", "repeats a part by its anchor"),
        ("a: &a {x: 1}\nb: {<<: *a}", "repeats a part by its anchor"),
        (LAUGHS, "repeats a part by its anchor"),
    ],
)
def test_a_hostile_or_broken_file_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        parse_resources(text.encode(), "f")


def test_waves_are_named_by_place_or_by_name() -> None:
    assert wave("fr, de", 1, 2) == Wave("wave-1", ("FR", "DE"), 2)  # type: ignore[arg-type]
    assert wave("north=it", 2, 1).name == "north"
    with pytest.raises(InvalidInput, match="is no wave"):
        wave("north=", 1, 1)


def test_an_evaluation_gate_has_a_purpose_and_a_bound() -> None:
    assert evaluation_gate("translation:5000") == EvaluationGate("translation", 5000)
    assert evaluation_gate("") is None
    for text in ("translation", "translation:-1", ":5"):
        with pytest.raises(InvalidInput, match="is no evaluation gate"):
            evaluation_gate(text)


PARENT = label(Classification.RESTRICTED, ["FR", "DE"])


def test_a_label_is_derived_and_may_only_be_tightened() -> None:
    assert _label(Draft("a", "1.0.0"), [PARENT], []) == PARENT
    stricter = Draft("a", "1.0.0", classification="secret", rel_to=("FR",))
    assert _label(stricter, [PARENT], []) == label(Classification.SECRET, ["FR"])
    for looser in (Draft("a", "1.0.0", classification="public"), Draft("a", "1.0.0", rel_to=("FR", "IT"))):
        with pytest.raises(InvalidInput, match="the label is looser than restricted REL TO DE, FR"):
            _label(looser, [PARENT], [])


def test_a_version_without_a_base_must_say_what_it_is() -> None:
    with pytest.raises(InvalidInput, match="needs --architecture and --licence"):
        _described(Draft("a", "1.0.0", classification="public"), None, Lineage())
    with pytest.raises(InvalidInput, match="needs a label"):
        _described(Draft("a", "1.0.0", licence="MIT", architecture="LlamaForCausalLM"), None, Lineage())


def test_what_a_run_measured_last_is_the_versions_evaluation() -> None:
    found = evaluations(run_resource().status)
    assert [(e.name, e.value_micro, e.examples) for e in found] == [
        ("heldout-loss-de", 852_000, 64),
        ("heldout-loss-fr", 624_000, 64),
    ]
