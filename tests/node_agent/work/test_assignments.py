"""What a nation refuses to do a round on, before policy is asked, a chunk pulled or a model loaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType

import pytest

from node_agent import assignments
from node_agent.assignments import Assignment, Minimums
from node_agent.directives import Round
from tests.node_agent.work.nation import FR, PURPOSE, World, make_world
from tests.treaty.model_folder import description, model_folder, safetensors
from treaty import statement
from treaty.adapter import ARRAYS_FILE, encode_arrays
from treaty.errors import ConflictError, Expired, FoedusError, InvalidInput, PolicyDenied
from treaty.manifest import Manifest
from treaty.manifest_build import build
from treaty.names import PartyCode, RunId, digest_of
from treaty.plan import NationDecision, RunPlan, Task
from treaty.recipe import DEFAULT_TEMPLATE, LoraSft, Precision, adapter_shapes, initial_arrays
from treaty.update_layout import TensorSpec

DE = PartyCode("DE")
LAYER = "model.layers.0.self_attn.q_proj.weight"
SHAPES = {LAYER: (4, 4)}
RECIPE = LoraSft(
    rank=2,
    alpha=4,
    targets=("q_proj",),
    steps=4,
    batch=8,
    learning_rate_micro=1000,
    seed=7,
    sequence_tokens=32,
    precision=Precision.FLOAT32,
    prompt_template=DEFAULT_TEMPLATE,
    heldout_pairs=16,
)
MINIMUMS = Minimums(16, 32)


@dataclass
class Desk:
    """A nation with a base of one layer on its shelf, and what its coordinator would direct."""

    world: World
    base: Manifest

    def plan(self, **changes: object) -> RunPlan:
        decision = NationDecision(digest_of(b"ask"), digest_of(b"decision"), (), 1000)
        tensors = tuple(TensorSpec(n, s) for n, s in adapter_shapes(RECIPE, SHAPES).items())
        plan = {
            "run": RunId("run-1"),
            "task": Task.TRAIN,
            "purpose": PURPOSE,
            "model_digest": self.base.digest,
            "recipe": RECIPE,
            "strategy": "FedAvg",
            "parameters": MappingProxyType({}),
            "cohort": (DE, FR),
            "quorum": 2,
            "rounds": 2,
            "round_deadline_seconds": 60,
            "clip_norm_micro": 1_000_000,
            "max_examples": 1000,
            "destination": PartyCode("EU"),
            "host": PartyCode("BE"),
            "tensors": tensors,
            "decisions": MappingProxyType({DE: decision, FR: decision}),
            "refused": MappingProxyType({}),
        }
        return RunPlan(**{**plan, **changes})  # type: ignore[arg-type]

    def arrays(self, recipe: LoraSft = RECIPE, version: str = "0.0.1") -> Manifest:
        folder = self.world.root / f"arrays-{recipe.rank}-{version}"
        folder.mkdir(exist_ok=True)
        (folder / ARRAYS_FILE).write_bytes(encode_arrays(initial_arrays(recipe, SHAPES)))
        return build(folder, description(version))

    def action(self, plan: RunPlan | None = None, arrays: Manifest | None = None, **changes: object) -> Round:
        plan, arrays = plan or self.plan(), arrays or self.arrays()
        action = Round(
            run=plan.run,
            round=1,
            plan=statement.sign(plan.statement(), [self.world.nation.builder.log_key]),
            arrays_digest=arrays.digest,
            arrays_manifest=arrays.encoded,
            deadline_seconds=60,
            evaluate_only=plan.task is Task.EVALUATE,
        )
        return replace(action, **changes)  # type: ignore[arg-type]

    def believed(self, action: Round) -> Assignment:
        world = self.world
        return assignments.believed(action, world.nation, world.shelf, MINIMUMS, world.clock.now())

    def refusal(self, action: Round) -> tuple[str, str]:
        with pytest.raises(FoedusError) as refused:
            self.believed(action)
        err = refused.value
        return (err.codes[0] if isinstance(err, PolicyDenied) else err.code), err.message


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    world = make_world(tmp_path)
    folder = model_folder(tmp_path / "base", safetensors({LAYER: ("F32", [4, 4], bytes(64))}))
    base = build(folder, description("1.0.0"))
    world.place(folder, base)
    yield Desk(world, base)
    world.journal.close()


def test_an_honest_round_is_believed(desk: Desk) -> None:
    found = desk.believed(desk.action())
    assert (found.plan, found.base, found.is_training) == (desk.plan(), desk.base, True)
    measuring = desk.believed(desk.action(round=3, evaluate_only=True))
    assert not measuring.is_training


@pytest.mark.parametrize("changed", [{"destination": FR}, {"host": DE}])
def test_an_update_goes_to_the_coordinator_and_nowhere_else(desk: Desk, changed: dict[str, object]) -> None:
    code, message = desk.refusal(desk.action(desk.plan(**changed)))
    assert (code, message) == ("PLAN_MISMATCH", "the plan's destination and host are not the coordinator's")


def test_a_plan_names_nations_of_the_charter_only(desk: Desk) -> None:
    stranger = PartyCode("US")
    refused = desk.plan(refused=MappingProxyType({stranger: ("X-001",)}))
    assert desk.refusal(desk.action(refused)) == (
        "PLAN_MISMATCH", "the plan names US, which is no nation of the charter",
    )  # fmt: skip
    decision = desk.plan().decisions[FR]
    joined = desk.plan(cohort=(FR, stranger), decisions=MappingProxyType({FR: decision, stranger: decision}))
    assert desk.refusal(desk.action(joined))[0] == "PLAN_MISMATCH"


def test_a_round_is_of_the_plans_kind_number_and_length(desk: Desk) -> None:
    for changed in ({"round": 4, "evaluate_only": True}, {"evaluate_only": True}, {"round": 3}):
        assert desk.refusal(desk.action(**changed))[0] == "PLAN_MISMATCH"
    assert desk.refusal(desk.action(deadline_seconds=61)) == (
        "PLAN_MISMATCH", "the round would last longer than the plan allows",
    )  # fmt: skip
    evaluation = desk.plan(task=Task.EVALUATE, tensors=())
    assert not desk.believed(desk.action(evaluation)).is_training
    assert desk.refusal(desk.action(evaluation, round=2))[1] == "the plan has no such round"


def test_a_recipe_that_asks_about_single_records_is_refused(desk: Desk) -> None:
    oracle = desk.plan(task=Task.EVALUATE, tensors=(), recipe=replace(RECIPE, heldout_pairs=1))
    code, message = desk.refusal(desk.action(oracle))
    assert (code, message) == ("RECIPE_TOO_NARROW", "the recipe measures on 1 pairs, fewer than this agent's 16")
    narrow = desk.plan(recipe=replace(RECIPE, steps=1, batch=1))
    code, message = desk.refusal(desk.action(narrow))
    assert (code, message) == ("RECIPE_TOO_NARROW", "a round trains on 1 examples, fewer than this agent's 32")


def test_arrays_and_plan_have_exactly_the_recipes_tensors(desk: Desk) -> None:
    wider = desk.arrays(replace(RECIPE, rank=64))
    evaluation = desk.plan(task=Task.EVALUATE, tensors=())
    for plan in (desk.plan(), evaluation):
        assert desk.refusal(desk.action(plan, wider)) == (
            "ARRAYS_MISMATCH", "the arrays' tensors are not exactly the recipe's on this base",
        )  # fmt: skip
    other = desk.plan(tensors=(TensorSpec("somewhere.else", (1024, 1024)),))
    assert desk.refusal(desk.action(other)) == (
        "ARRAYS_MISMATCH", "the plan's tensors are not exactly the recipe's on this base",
    )  # fmt: skip


def test_an_expired_charter_directs_no_round(desk: Desk) -> None:
    desk.world.clock.moment = desk.world.nation.charter().expires_at
    with pytest.raises(Expired, match="charter version 1 ended") as refused:
        desk.believed(desk.action())
    assert refused.value.code == "CHARTER_EXPIRED"
    desk.world.clock.moment -= timedelta(seconds=1)
    desk.believed(desk.action())


def test_a_run_keeps_its_plan_and_a_round_its_arrays(desk: Desk) -> None:
    journal, action = desk.world.journal, desk.action()
    assignments.take_up(journal, action, desk.believed(action))
    assignments.take_up(journal, action, desk.believed(action))  # sent again
    others = desk.action(arrays=desk.arrays(version="0.0.2"))
    with pytest.raises(ConflictError, match="round 1 of run-1 had other arrays here") as repeated:
        assignments.take_up(journal, others, desk.believed(others))
    assert repeated.value.code == "ROUND_REPEATED"
    replanned = desk.action(desk.plan(clip_norm_micro=2_000_000))
    with pytest.raises(InvalidInput, match="run run-1 had another plan here") as mismatched:
        assignments.check_first(journal, replanned, desk.believed(replanned))
    assert mismatched.value.code == "PLAN_MISMATCH"
    second = replace(others, round=2)
    assignments.take_up(journal, second, desk.believed(second))
