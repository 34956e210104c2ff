"""What one authority's rules answered, believed only if it is whole and agrees with itself.

The shape is what the rule `decision` of a bundle returns: which checks were required, which passed, which are
reported as failed, which of these an approval can cure, and what each reads. The verdict is computed again here; an
answer whose own verdict differs is malformed, and malformed is no.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from treaty.errors import Corrupt, InvalidInput
from treaty.fields import Fields
from treaty.strict_json import MAX_INTEGER, JsonValue

MAX_CHECKS = 512
_CODE = re.compile(r"[A-Z]{2,4}-\d{3}\Z", re.ASCII)
_NO_READS: Mapping[str, tuple[str, ...]] = MappingProxyType({})


class Verdict(StrEnum):
    ALLOW = "allow"
    DENY = "deny"
    NEEDS_APPROVAL = "needs_approval"


@dataclass(frozen=True, slots=True)
class Answer:
    """`failed` is what is reported: a check behind another failing one is not named twice. `source` is whose it is."""

    source: str
    verdict: Verdict
    required: tuple[str, ...] = ()
    passed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    curable: tuple[str, ...] = ()
    obligations: tuple[str, ...] = ()
    reads: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _NO_READS)
    revision: int | None = None

    @classmethod
    def refused(cls, code: str, source: str) -> Answer:
        """The no of whoever had to answer and could not be asked."""
        return cls(source=source, verdict=Verdict.DENY, required=(code,), failed=(code,))

    def without(self, codes: Collection[str]) -> Answer:
        """The same answer, these checks left out of passed and failed alike."""
        required = tuple(code for code in self.required if code not in codes)
        failing = set(required) - set(self.passed)
        failed = tuple(code for code in self.failed if code in failing) or tuple(sorted(failing))
        passed = tuple(code for code in self.passed if code not in codes)
        if self.revision is None:
            return self
        return replace(
            self,
            verdict=_verdict(failing, self.curable, is_required=True),
            required=required,
            passed=passed,
            failed=failed,
        )


def parse_answer(value: JsonValue, *, source: str) -> Answer:
    """Read what an engine returned for `source`.

    Raises: Corrupt (ENG-003): not of this shape, or its parts contradict each other.
    """
    try:
        answer = _parse(value, source)
    except InvalidInput as err:
        raise Corrupt("the policy's answer is malformed", code="ENG-003") from err
    failing = set(answer.required) - set(answer.passed)
    is_whole = (
        set(answer.passed) <= set(answer.required)
        and set(answer.failed) <= failing
        and bool(answer.failed) == bool(failing)
        and set(answer.curable) <= set(answer.failed)
        and answer.verdict is _verdict(failing, answer.curable, is_required=bool(answer.required))
    )
    if not is_whole:
        raise Corrupt("the policy's answer contradicts itself", code="ENG-003")
    return answer


def _verdict(failing: Collection[str], curable: Collection[str], *, is_required: bool) -> Verdict:
    if not is_required:
        return Verdict.DENY
    if not failing:
        return Verdict.ALLOW
    return Verdict.NEEDS_APPROVAL if set(failing) <= set(curable) else Verdict.DENY


def _parse(value: JsonValue, source: str) -> Answer:
    fields = Fields(value, "answer")
    answer = Answer(
        source=source,
        verdict=fields.choice("verdict", Verdict),
        required=_codes(fields, "required"),
        passed=_codes(fields, "passed"),
        failed=_codes(fields, "failed"),
        curable=_codes(fields, "curable"),
        obligations=fields.texts("obligations", max_items=MAX_CHECKS, max_chars=64),
        reads=_reads(fields.value("reads")),
        revision=fields.integer("revision", 1, MAX_INTEGER),
    )
    nation = fields.optional_text("nation", 2)
    fields.done()
    if source != (f"nation.{nation}" if nation is not None else "treaty"):
        raise InvalidInput("the answer is another authority's")
    return answer


def _codes(fields: Fields, name: str) -> tuple[str, ...]:
    codes = fields.texts(name, max_items=MAX_CHECKS, max_chars=8)
    if any(not _CODE.match(code) for code in codes) or len(set(codes)) != len(codes):
        raise InvalidInput(f"the answer's {name!r} are not codes, each once")
    return codes


def _reads(value: JsonValue) -> Mapping[str, tuple[str, ...]]:
    if not isinstance(value, dict) or len(value) > MAX_CHECKS:
        raise InvalidInput("the answer's 'reads' is not an object")
    fields = Fields(value, "reads")
    return {code: fields.texts(code, max_items=32, max_chars=128) for code in value}
