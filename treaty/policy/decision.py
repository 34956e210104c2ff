"""The decision document, and how two authorities' answers become one verdict.

Rules:
1. both must allow: the composition is here, outside Rego, so that an overlay can only narrow the treaty;
2. an authority's answer is believed only if it is whole and agrees with itself: everything required passed or failed,
   something was required at all, and the verdict is the one that follows;
3. no answer, a late, malformed or undefined one, and a missing overlay are each a deny with a code of their own;
4. at the coordinator (treaty alone) a check that reads what only the nation sees is `undetermined`: neither passed
   nor failed.

Codes of this file's own: ENG-001 no answer, ENG-002 late, ENG-003 malformed, ENG-004 undefined, ENG-005 another
revision than the one in force, ENG-006 the bundle is outside its validity, OVL-001 no overlay is loaded.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from treaty.errors import InvalidInput, PolicyDenied
from treaty.fields import Fields
from treaty.names import Digest, digest_of
from treaty.policy.answer import Answer, Verdict
from treaty.policy.questions import Question
from treaty.strict_json import JsonObject, JsonValue, canonical

MAX_CODES = 256


class Side(StrEnum):
    NATION = "nation"
    COORDINATOR = "coordinator"


@dataclass(frozen=True, slots=True, order=True)
class Reason:
    """A check that failed, and whose: `treaty`, `nation.FR` or `engine`."""

    code: str
    source: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about one question. Codes and digests only, so all of it may cross the border.

    `revisions` names the bundles that were asked, by authority. `undetermined` is empty in a nation. Obligations come
    with an allow and are fulfilled before the action; who meets an unknown one does not act.
    """

    verdict: Verdict
    decision_point: str
    reasons: tuple[Reason, ...]
    obligations: tuple[str, ...]
    undetermined: tuple[str, ...]
    required: tuple[str, ...]
    ask_digest: Digest
    input_digest: Digest
    revisions: Mapping[str, int]
    engine: str
    side: Side
    decision_id: str

    @property
    def codes(self) -> tuple[str, ...]:
        """The failing checks, sorted, each once."""
        return tuple(sorted({reason.code for reason in self.reasons}))

    @property
    def is_allowed(self) -> bool:
        return self.verdict is Verdict.ALLOW

    @property
    def digest(self) -> Digest:
        return digest_of(canonical(self.to_json()))

    def require_allow(self) -> None:
        """Raises: PolicyDenied, with the codes, unless the verdict is allow."""
        if not self.is_allowed:
            raise PolicyDenied(f"{self.decision_point} is refused ({', '.join(self.codes)})", codes=self.codes)

    def to_json(self) -> JsonObject:
        reasons: list[JsonValue] = [{"code": reason.code, "source": reason.source} for reason in self.reasons]
        revisions: JsonObject = dict(self.revisions)
        return {
            "verdict": str(self.verdict),
            "decision_point": self.decision_point,
            "reasons": reasons,
            "obligations": list(self.obligations),
            "undetermined": list(self.undetermined),
            "required": list(self.required),
            "ask_digest": self.ask_digest,
            "input_digest": self.input_digest,
            "revisions": revisions,
            "engine": self.engine,
            "side": str(self.side),
            "decision_id": self.decision_id,
        }


def parse_decision(value: JsonValue) -> Decision:
    """Read a decision that somebody else made. Raises InvalidInput. Whether to believe it is the caller's question."""
    fields = Fields(value, "decision")
    decision = Decision(
        verdict=fields.choice("verdict", Verdict),
        decision_point=fields.text("decision_point", 64),
        reasons=fields.list_of("reasons", _reason, max_items=MAX_CODES),
        obligations=fields.texts("obligations", max_items=MAX_CODES, max_chars=64),
        undetermined=fields.texts("undetermined", max_items=MAX_CODES, max_chars=64),
        required=fields.texts("required", max_items=MAX_CODES, max_chars=64),
        ask_digest=fields.digest("ask_digest"),
        input_digest=fields.digest("input_digest"),
        revisions=_revisions(fields.value("revisions")),
        engine=fields.text("engine", 32),
        side=fields.choice("side", Side),
        decision_id=fields.text("decision_id", 64),
    )
    fields.done()
    if (decision.verdict is Verdict.ALLOW) == bool(decision.reasons):
        raise InvalidInput("the decision's verdict does not follow from its reasons")
    return decision


def compose(question: Question, treaty: Answer, overlay: Answer | None, *, engine: str) -> Decision:
    """The nation's decision: treaty AND overlay. Without an overlay the answer is no."""
    answers = (treaty, overlay if overlay is not None else Answer.refused("OVL-001", "engine"))
    return _decision(question, answers, _strictest(answers), undetermined=(), engine=engine, side=Side.NATION)


def preflight(question: Question, treaty: Answer, registers: JsonObject, *, engine: str) -> Decision:
    """The coordinator's: the treaty alone, and only the checks whose inputs it holds."""
    document: JsonObject = question.merged() | {"registers": registers}
    nation = question.ask.nation or ""
    undetermined = tuple(
        code
        for code in treaty.required
        if any(not _is_present(document, path.replace("$nation", nation)) for path in treaty.reads.get(code, ()))
    )
    known = treaty.without(undetermined)
    return _decision(question, (known,), known.verdict, undetermined=undetermined, engine=engine, side=Side.COORDINATOR)


def _decision(
    question: Question,
    answers: tuple[Answer, ...],
    verdict: Verdict,
    *,
    undetermined: tuple[str, ...],
    engine: str,
    side: Side,
) -> Decision:
    return Decision(
        verdict=verdict,
        decision_point=question.ask.decision_point or "",
        reasons=tuple(sorted({Reason(code, answer.source) for answer in answers for code in answer.failed})),
        obligations=_obligations(answers) if verdict is Verdict.ALLOW else (),
        undetermined=undetermined,
        required=tuple(sorted({code for answer in answers for code in answer.required})),
        ask_digest=question.ask.digest,
        input_digest=question.input_digest,
        revisions={answer.source: answer.revision for answer in answers if answer.revision is not None},
        engine=engine,
        side=side,
        decision_id=secrets.token_hex(16),
    )


def _obligations(answers: tuple[Answer, ...]) -> tuple[str, ...]:
    return tuple(sorted({name for answer in answers for name in answer.obligations}))


def _strictest(answers: tuple[Answer, ...]) -> Verdict:
    verdicts = {answer.verdict for answer in answers}
    for verdict in (Verdict.DENY, Verdict.NEEDS_APPROVAL):
        if verdict in verdicts:
            return verdict
    return Verdict.ALLOW


def _is_present(document: JsonValue, path: str) -> bool:
    for step in path.split("."):
        if not isinstance(document, dict) or step not in document:
            return False
        document = document[step]
    return True


def _reason(value: JsonValue) -> Reason:
    fields = Fields(value, "reason")
    reason = Reason(fields.text("code", 64), fields.text("source", 64))
    fields.done()
    return reason


def _revisions(value: JsonValue) -> Mapping[str, int]:
    if not isinstance(value, dict) or len(value) > 8:
        raise InvalidInput("the decision's revisions are not a small object")
    fields = Fields(value, "revisions")
    return {authority: fields.integer(authority) for authority in value}
