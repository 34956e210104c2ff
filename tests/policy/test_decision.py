"""How two answers become one verdict, what is believed as an answer, and what the coordinator leaves open."""

from __future__ import annotations

import itertools

import pytest

from treaty.errors import Corrupt, InvalidInput, PolicyDenied
from treaty.policy.answer import Answer, Verdict, parse_answer
from treaty.policy.decision import Side, compose, parse_decision, preflight
from treaty.policy.questions import Ask, AskedModel, Observed, Question
from treaty.strict_json import JsonObject

QUESTION = Question(Ask(decision_point="model.admit", nation="FR", model=AskedModel(id="smollm2")), Observed(now_ns=1))
ALLOW = Answer("treaty", Verdict.ALLOW, required=("MOD-001",), passed=("MOD-001",), revision=3)
RAW: JsonObject = {
    "verdict": "deny",
    "required": ["MOD-001", "MOD-002"],
    "passed": ["MOD-001"],
    "failed": ["MOD-002"],
    "curable": [],
    "obligations": [],
    "reads": {"MOD-001": ["model.id"], "MOD-002": ["registers.models"]},
    "revision": 3,
}


def overlay(verdict: Verdict) -> Answer:
    failed = () if verdict is Verdict.ALLOW else ("APR-001",)
    return Answer("nation.FR", verdict, required=("APR-001",), failed=failed, obligations=("notify",), revision=1)


STRICTNESS = [Verdict.ALLOW, Verdict.NEEDS_APPROVAL, Verdict.DENY]


@pytest.mark.parametrize(("treaty", "nation"), [*itertools.product(STRICTNESS, STRICTNESS)])
def test_the_stricter_of_the_two_authorities_decides(treaty: Verdict, nation: Verdict) -> None:
    given = Answer("treaty", treaty, required=("X-1",), failed=() if treaty is Verdict.ALLOW else ("ROL-001",))
    decided = compose(QUESTION, given, overlay(nation), engine="embedded")
    assert decided.verdict is max(treaty, nation, key=STRICTNESS.index)


def test_without_an_overlay_the_answer_is_no() -> None:
    decided = compose(QUESTION, ALLOW, None, engine="embedded")
    assert decided.verdict is Verdict.DENY
    assert decided.codes == ("OVL-001",)
    with pytest.raises(PolicyDenied, match=r"model.admit is refused \(OVL-001\)") as refused:
        decided.require_allow()
    assert refused.value.codes == ("OVL-001",)


def test_a_decision_names_whose_no_it_is_and_who_was_asked() -> None:
    decided = compose(QUESTION, ALLOW, overlay(Verdict.DENY), engine="opa")
    assert [(reason.code, reason.source) for reason in decided.reasons] == [("APR-001", "nation.FR")]
    assert decided.revisions == {"treaty": 3, "nation.FR": 1}
    assert decided.obligations == ()
    assert (decided.side, decided.engine) == (Side.NATION, "opa")
    assert decided.ask_digest == QUESTION.ask.digest


def test_obligations_come_with_an_allow() -> None:
    assert compose(QUESTION, ALLOW, overlay(Verdict.ALLOW), engine="opa").obligations == ("notify",)


def test_a_decision_is_read_back_as_it_was_written() -> None:
    decided = compose(QUESTION, ALLOW, overlay(Verdict.NEEDS_APPROVAL), engine="opa")
    assert parse_decision(decided.to_json()) == decided
    with pytest.raises(InvalidInput, match="does not follow from its reasons"):
        parse_decision(decided.to_json() | {"verdict": "allow"})


def test_the_coordinator_lists_what_it_cannot_see_and_neither_passes_nor_fails_it() -> None:
    answer = parse_answer(RAW, source="treaty")
    open_to_it = preflight(QUESTION, answer, {}, engine="embedded")
    assert open_to_it.verdict is Verdict.ALLOW
    assert open_to_it.undetermined == ("MOD-002",)
    assert open_to_it.required == ("MOD-001",)
    known_to_it = preflight(QUESTION, answer, {"models": {}}, engine="embedded")
    assert known_to_it.verdict is Verdict.DENY
    assert known_to_it.codes == ("MOD-002",)
    assert known_to_it.ask_digest == compose(QUESTION, answer, None, engine="opa").ask_digest


def test_a_preflight_without_an_answer_is_a_no() -> None:
    assert preflight(QUESTION, Answer.refused("ENG-001", "engine"), {}, engine="embedded").codes == ("ENG-001",)


@pytest.mark.parametrize(
    "changed",
    [
        {"verdict": "allow"},
        {"verdict": "perhaps"},
        {"required": []},
        {"required": [], "passed": [], "failed": [], "verdict": "allow"},
        {"passed": ["MOD-001", "MOD-009"]},
        {"failed": []},
        {"failed": ["MOD-001"]},
        {"failed": ["MOD-002", "MOD-002"]},
        {"curable": ["MOD-002"]},
        {"curable": ["MOD-001"], "verdict": "needs_approval"},
        {"required": ["a sentence", "MOD-001"]},
        {"revision": 0},
        {"revision": True},
        {"nation": "FR"},
        {"surplus": 1},
        {"reads": []},
    ],
)
def test_an_answer_that_is_not_whole_or_contradicts_itself_is_not_believed(changed: JsonObject) -> None:
    with pytest.raises(Corrupt) as refused:
        parse_answer(RAW | changed, source="treaty")
    assert refused.value.code == "ENG-003"


def test_an_overlay_cannot_answer_for_the_treaty_or_for_another_nation() -> None:
    for source in ("treaty", "nation.DE"):
        with pytest.raises(Corrupt, match="malformed"):
            parse_answer(RAW | {"nation": "FR"}, source=source)
    assert parse_answer(RAW | {"nation": "FR"}, source="nation.FR").source == "nation.FR"
