"""The asks of each decision point, built the same on both sides from what both hold: manifest, plan, charter.

Both log the digest of an ask; it can only be the same if nobody words it his own way. Nothing here is observed: that
part belongs to the decider alone (`treaty.policy.questions`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from treaty.manifest import Manifest
from treaty.names import AgentId, PartyCode, RunId
from treaty.policy.questions import (
    Ask,
    AskedDataset,
    AskedDestination,
    AskedLabel,
    AskedModel,
    AskedRound,
    AskedSubject,
    DecisionPoint,
    Purpose,
)


@dataclass(frozen=True, slots=True)
class Undertaking:
    """What a federated run asks of a nation. `nations` are all that were asked, whatever they answered."""

    run: RunId
    purpose: str
    nations: Sequence[PartyCode]
    destination: PartyCode
    host: PartyCode


def dataset_use(nation: PartyCode, manifest: Manifest, undertaking: Undertaking, dataset: str | None) -> Ask:
    """May this dataset be used in this run? `dataset` is None where the nation registered none for the purpose."""
    return _of_run(DecisionPoint.DATASET_USE, nation, manifest, undertaking, dataset)


def egress_update(nation: PartyCode, manifest: Manifest, undertaking: Undertaking, dataset: str | None) -> Ask:
    """May this update leave for the coordinator?"""
    return _of_run(DecisionPoint.EGRESS_UPDATE, nation, manifest, undertaking, dataset)


def model_admit(nation: PartyCode, manifest: Manifest, rollout: str, purpose: str) -> Ask:
    """May this version come into the nation at all?"""
    return _of_model(DecisionPoint.MODEL_ADMIT, nation, manifest, rollout, purpose)


def rollout_deploy(nation: PartyCode, manifest: Manifest, rollout: str, purpose: str) -> Ask:
    """May this version serve here?"""
    return _of_model(DecisionPoint.ROLLOUT_DEPLOY, nation, manifest, rollout, purpose)


def infer_purpose(nation: PartyCode, manifest: Manifest, request: str, purpose: str) -> Ask:
    """May the version be prompted for this purpose? Decided at home only."""
    return _of_model(DecisionPoint.INFER_PURPOSE, nation, manifest, request, purpose)


def agent_enrol(agent: AgentId) -> Ask:
    """May this agent speak for its nation?"""
    return Ask(
        decision_point=DecisionPoint.AGENT_ENROL,
        request_id=agent.name,
        nation=agent.nation,
        purpose=Purpose(code="treaty-operation"),
        subject=AskedSubject(agent_id=agent.name),
    )


def _of_model(point: DecisionPoint, nation: PartyCode, manifest: Manifest, request: str, purpose: str) -> Ask:
    return Ask(
        decision_point=point,
        request_id=request,
        nation=nation,
        purpose=Purpose(code=purpose),
        label=_label(manifest),
        model=_model(manifest),
    )


def _of_run(
    point: DecisionPoint, nation: PartyCode, manifest: Manifest, undertaking: Undertaking, dataset: str | None
) -> Ask:
    return Ask(
        decision_point=point,
        request_id=undertaking.run,
        nation=nation,
        purpose=Purpose(code=undertaking.purpose),
        label=_label(manifest),
        model=_model(manifest),
        dataset=AskedDataset(id=dataset) if dataset is not None else None,
        destination=AskedDestination(nation=undertaking.host, org=undertaking.destination),
        round=AskedRound(id=undertaking.run, nations=tuple(sorted(undertaking.nations))),
    )


def _label(manifest: Manifest) -> AskedLabel:
    label = manifest.about.label
    return AskedLabel(classification=label.classification.value, rel_to=label.rel_to)


def _model(manifest: Manifest) -> AskedModel:
    return AskedModel(id=manifest.about.name, version=manifest.about.version, digest=manifest.digest)
