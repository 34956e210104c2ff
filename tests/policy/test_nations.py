"""The five nations of the demo, decided by treaty and overlay together on either engine."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.policy.conftest import KEY, NOW, NOW_NS, nation, shipped
from treaty.errors import InvalidInput
from treaty.names import PartyCode, digest_of
from treaty.policy.answer import Verdict
from treaty.policy.decider import Decider, nanoseconds
from treaty.policy.embedded import EmbeddedEngine
from treaty.policy.engine import Engine
from treaty.policy.questions import (
    Approval,
    Ask,
    AskedDataset,
    AskedLabel,
    AskedModel,
    DecisionPoint,
    Environment,
    Observed,
    ObservedModel,
    ObservedSignature,
    ObservedSubject,
    Purpose,
)
from treaty.policy.registers import (
    DatasetFacts,
    ModelFacts,
    Registers,
    charter_registers,
    nation_registers,
    record_registers,
)
from treaty.strict_json import JsonObject

MODEL = digest_of(b"manifest")
TRANSLATION = Purpose(code="public-administration-translation")
ANALYTICS = Purpose(code="law-enforcement-analytics")


def registers(code: str) -> Registers:
    nation = PartyCode(code)
    labels = {"1.0.0": ("public", ["DE", "FR", "IT", "JP", "KR"])}
    return Registers(
        charter=charter_registers({nation: ([digest_of(b"ca")], f"{code.lower()}.foedus.example")}),
        record=record_registers({"smollm2-135m": ModelFacts("Apache-2.0", {"1.0.0": MODEL}, labels)}, []),
        nation=nation_registers(
            nation, {"catalogues": DatasetFacts([str(TRANSLATION.code), str(ANALYTICS.code)], records=1625)}
        ),
    )


def deploy(code: str, *approvals: Approval) -> tuple[Ask, Observed]:
    ask = Ask(
        decision_point=DecisionPoint.ROLLOUT_DEPLOY,
        nation=code,
        purpose=TRANSLATION,
        label=AskedLabel(classification="public", rel_to=(code,)),
        model=AskedModel(id="smollm2-135m", version="1.0.0", digest=MODEL),
    )
    signatures = tuple(ObservedSignature(by=by, verified=True) for by in ("publisher", f"nation:{code}"))
    observed = Observed(
        now_ns=NOW_NS,
        received_ns=NOW_NS,
        env=Environment(cluster="one", region=f"{code.lower()}-1"),
        approvals=approvals,
        model=ObservedModel(format="safetensors", running_version="none", signatures=signatures),
    )
    return ask, observed


def use(code: str, purpose: Purpose) -> tuple[Ask, Observed]:
    ask = Ask(
        decision_point=DecisionPoint.DATASET_USE, nation=code, purpose=purpose, dataset=AskedDataset(id="catalogues")
    )
    return ask, Observed(now_ns=NOW_NS, received_ns=NOW_NS)


@pytest.mark.parametrize("name", ["de", "fr", "it", "kr"])
async def test_a_rollout_and_a_translation_run_are_allowed(name: str) -> None:
    decider = await nation(EmbeddedEngine(), name, registers(name.upper()))
    assert (await decider.decide(*deploy(name.upper()))).codes == ()
    decided = await decider.decide(*use(name.upper(), TRANSLATION))
    assert decided.is_allowed
    assert decided.revisions == {"treaty": 1, f"nation.{name.upper()}": 1}
    await decider.close()


async def test_japan_waits_for_a_person_and_then_allows(engine: Engine) -> None:
    decider = await nation(engine, "jp", registers("JP"))
    waiting = await decider.decide(*deploy("JP"))
    assert (waiting.verdict, waiting.codes) == (Verdict.NEEDS_APPROVAL, ("APR-001",))
    assert [reason.source for reason in waiting.reasons] == ["nation.JP"]
    person = Approval(role="person", by=KEY.key_id, nation="JP", subject=MODEL, expires_ns=NOW_NS + 1, verified=True)
    assert (await decider.decide(*deploy("JP", person))).is_allowed
    assert not (await decider.decide(*deploy("JP", replace(person, verified=False)))).is_allowed


async def test_germany_does_not_permit_what_others_do() -> None:
    decider = await nation(EmbeddedEngine(), "de", registers("DE"))
    decided = await decider.decide(*use("DE", ANALYTICS))
    assert decided.verdict is Verdict.DENY
    assert [(reason.code, reason.source) for reason in decided.reasons] == [("DE-001", "nation.DE")]
    assert (await decider.preflight(*use("DE", ANALYTICS))).is_allowed
    await decider.close()


async def test_both_sides_log_the_same_ask() -> None:
    decider = await nation(EmbeddedEngine(), "fr", registers("FR"))
    ask, observed = deploy("FR")
    at_home = await decider.decide(ask, observed)
    before = await decider.preflight(ask, Observed(now_ns=NOW_NS - 1, received_ns=NOW_NS - 1))
    assert at_home.ask_digest == before.ask_digest
    assert at_home.input_digest != before.input_digest
    assert set(before.undetermined) == {"APR-001", "APR-002", "MOD-003", "MOD-004", "MOD-006", "ROL-001"}
    await decider.close()


async def test_nothing_is_decided_without_both_bundles() -> None:
    decider = Decider(EmbeddedEngine())
    assert (await decider.decide(*use("FR", TRANSLATION))).codes == ("ENG-001", "OVL-001")
    await decider.put_in_force(shipped("treaty"))
    await decider.set_registers(registers("FR"))
    assert (await decider.decide(*use("FR", TRANSLATION))).codes == ("OVL-001",)
    await decider.put_in_force(shipped("de"))
    assert "OVL-001" in (await decider.decide(*use("FR", TRANSLATION))).codes
    await decider.close()


async def test_an_expired_policy_goes_on_serving_and_allows_nothing_else() -> None:
    decider = Decider(EmbeddedEngine())
    for name in ("treaty", "fr"):
        await decider.put_in_force(shipped(name))
    await decider.set_registers(registers("FR"))
    late = nanoseconds(NOW + timedelta(days=1))
    ask, observed = deploy("FR")
    assert (await decider.decide(ask, replace(observed, now_ns=late, received_ns=late))).codes == ("ENG-006",)
    serve = Ask(
        decision_point=DecisionPoint.INFER_PURPOSE,
        nation="FR",
        purpose=TRANSLATION,
        label=AskedLabel(classification="public"),
        model=AskedModel(id="smollm2-135m", version="1.0.0"),
    )
    seen = Observed(now_ns=late, received_ns=late, subject=ObservedSubject(clearance="public", nationality="FR"))
    assert (await decider.decide(serve, seen)).is_allowed
    await decider.close()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"charter": {"models": {}}}, "the charter registers set 'models', which is not theirs to set"),
        ({"record": {"nations": {}}}, "the record registers set 'nations', which is not theirs to set"),
        ({"nation": {"limits": {}}}, "the nation registers set 'limits', which is not theirs to set"),
        ({"nation": {"nations": {"FR": {"gdpr": False}}}}, "the nation registers set 'gdpr' of nation FR"),
        ({"charter": {"nations": {"FR": {"cidrs": []}}}}, "the charter registers set 'cidrs' of nation FR"),
    ],
)
def test_no_source_sets_what_is_not_its_own(given: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as refused:
        Registers(**given)  # type: ignore[arg-type]
    assert refused.value.code == "INP-005"


def test_the_treaty_cannot_name_a_nations_trust_root() -> None:
    treaty: JsonObject = {"nations": {"FR": {"trust_roots": []}}}
    with pytest.raises(InvalidInput, match="the treaty bundle sets 'trust_roots' of nation FR"):
        Registers().merged_with(treaty)
