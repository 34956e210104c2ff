"""May this round be done at all? What can be said without asking policy: plan, round, deadline, recipe, arrays.

1. the charter is current: once it has ended, nobody in it may direct a round;
2. the plan is signed by the charter's coordinator, is about this run, and takes the update to the coordinator's party
   and host and nowhere else; its nations are the charter's, this one among its cohort;
3. the round is one of the plan's, of the kind that its number says, and no longer than the plan allows;
4. the recipe is wide enough that a number which leaves is about many records and not about one;
5. the base is on the shelf; the plan's and the arrays' tensors are exactly the recipe's on that base;
6. a run has one plan and a round one set of arrays: the first stays in the journal, also after the run has ended.

Codes: CHARTER_EXPIRED, PLAN_MISMATCH, RECIPE_TOO_NARROW, BASE_NOT_HERE, DIGEST_MISMATCH, ARRAYS_MISMATCH,
ROUND_REPEATED.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from node_agent.admission import require_current
from node_agent.directives import Round
from node_agent.ports import Journal, Nation
from node_agent.shelf import Shelf
from treaty.adapter import ARRAYS_FILE
from treaty.charter import Charter
from treaty.errors import ConflictError, InvalidInput, PolicyDenied, PreconditionFailed
from treaty.manifest import Manifest, parse_manifest
from treaty.names import Digest, PartyCode
from treaty.plan import RunPlan, Task, verify_plan
from treaty.recipe import LoraSft, adapter_shapes

PLAN_KIND: Final = "run-plan"
ROUND_KIND: Final = "run-round"
MISMATCH: Final = "PLAN_MISMATCH"
TOO_NARROW: Final = "RECIPE_TOO_NARROW"


@dataclass(frozen=True, slots=True)
class Minimums:
    """Below which an admin takes part in nothing (`node_agent.settings`)."""

    heldout_pairs: int
    examples_per_round: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """A round, believed: its plan, the base on the shelf, the arrays to pull."""

    plan: RunPlan
    plan_digest: Digest
    base: Manifest
    arrays: Manifest
    is_training: bool


def believed(action: Round, nation: Nation, shelf: Shelf, minimums: Minimums, now: datetime) -> Assignment:
    """Raises: Expired, BadSignature, InvalidInput, PolicyDenied, PreconditionFailed, with this file's codes."""
    charter = nation.charter()
    require_current(charter, now)  # 1
    plan, verified = verify_plan(action.plan, charter)
    if plan.run != action.run:
        raise InvalidInput("the plan is another run's", code=MISMATCH)
    _check_parties(plan, charter, nation.code)  # 2
    is_training = _check_round(action, plan)  # 3
    _check_recipe(plan.recipe, minimums, is_training=is_training)  # 4
    if not shelf.has(plan.model_digest):  # 5
        raise PreconditionFailed("the run's base is not on the shelf", code="BASE_NOT_HERE")
    base = shelf.manifest(plan.model_digest)
    arrays = parse_manifest(action.arrays_manifest)
    if arrays.digest != action.arrays_digest:
        raise InvalidInput("the arrays' manifest is not the one that the directive names", code="DIGEST_MISMATCH")
    _check_tensors(plan, base, arrays)
    return Assignment(plan, verified.statement.subject_digest, base, arrays, is_training)


def check_first(journal: Journal, action: Round, assignment: Assignment) -> None:
    """Rule 6, without taking the plan or the round up. Raises: InvalidInput (PLAN_MISMATCH), ConflictError."""
    known = journal.document(PLAN_KIND, action.run)
    if known is not None and known.body != {"plan": assignment.plan_digest}:
        raise InvalidInput(f"run {action.run} had another plan here", code=MISMATCH)
    round_ = journal.document(ROUND_KIND, _round_name(action, assignment))
    if round_ is not None and round_.body != {"arrays": action.arrays_digest}:
        raise ConflictError(f"round {action.round} of {action.run} had other arrays here", code="ROUND_REPEATED")


def take_up(journal: Journal, action: Round, assignment: Assignment) -> None:
    """From now on the run has this plan and the round these arrays. Idempotent. Raises: as `check_first`."""
    check_first(journal, action, assignment)
    for kind, name, what, digest in (
        (PLAN_KIND, str(action.run), "plan", assignment.plan_digest),
        (ROUND_KIND, _round_name(action, assignment), "arrays", action.arrays_digest),
    ):
        if journal.document(kind, name) is None:
            journal.put(kind, name, {what: digest})


def _round_name(action: Round, assignment: Assignment) -> str:
    return f"{action.run}/{action.round}/{'train' if assignment.is_training else 'eval'}"


def _check_parties(plan: RunPlan, charter: Charter, nation: PartyCode) -> None:
    if (plan.destination, plan.host) != (charter.coordinator.party, charter.coordinator.host):
        raise InvalidInput("the plan's destination and host are not the coordinator's", code=MISMATCH)
    if strangers := sorted({*plan.cohort, *plan.refused} - set(charter.nations)):
        raise InvalidInput(f"the plan names {strangers[0]}, which is no nation of the charter", code=MISMATCH)
    plan.ordinal(nation)


def _check_round(action: Round, plan: RunPlan) -> bool:
    """Whether it trains. After the last training round one more measures the result; an evaluation has one round."""
    is_training = plan.task is Task.TRAIN and action.round <= plan.rounds
    if not 1 <= action.round <= (plan.rounds + 1 if plan.task is Task.TRAIN else 1):
        raise InvalidInput("the plan has no such round", code=MISMATCH)
    if action.evaluate_only == is_training:
        raise InvalidInput("the round does not do what the plan has it do", code=MISMATCH)
    if action.deadline_seconds > plan.round_deadline_seconds:
        raise InvalidInput("the round would last longer than the plan allows", code=MISMATCH)
    return is_training


def _check_recipe(recipe: LoraSft, minimums: Minimums, *, is_training: bool) -> None:
    if recipe.heldout_pairs < minimums.heldout_pairs:
        raise PolicyDenied(
            f"the recipe measures on {recipe.heldout_pairs} pairs, fewer than this agent's {minimums.heldout_pairs}",
            codes=[TOO_NARROW],
        )
    if is_training and recipe.examples < minimums.examples_per_round:
        raise PolicyDenied(
            f"a round trains on {recipe.examples} examples, fewer than this agent's {minimums.examples_per_round}",
            codes=[TOO_NARROW],
        )


def _check_tensors(plan: RunPlan, base: Manifest, arrays: Manifest) -> None:
    """The arrays are one file of float32 tensors, exactly those of the recipe's adapter on the base."""
    files = arrays.files
    tensors = files[0].tensors if len(files) == 1 and files[0].path == ARRAYS_FILE else ()
    if not tensors or any(tensor.dtype != "F32" for tensor in tensors):
        raise InvalidInput("the arrays' manifest is not of one file of float32 tensors", code="ARRAYS_MISMATCH")
    base_shapes = {tensor.name: tuple(tensor.shape) for file in base.files for tensor in file.tensors}
    shapes = adapter_shapes(plan.recipe, base_shapes)
    if {tensor.name: tuple(tensor.shape) for tensor in tensors} != shapes:
        raise InvalidInput("the arrays' tensors are not exactly the recipe's on this base", code="ARRAYS_MISMATCH")
    if plan.tensors and [(tensor.name, tensor.shape) for tensor in plan.tensors] != list(shapes.items()):
        raise InvalidInput("the plan's tensors are not exactly the recipe's on this base", code="ARRAYS_MISMATCH")
