"""What nations said for the record, as resources: their datasets and their consents.

A statement was verified and recorded before it comes here (`submissions`). The resource says what an operator plans
with; the statement is the proof, and its digest is noted on the resource. Only metadata classes have a field here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import structlog

from controlplane.services.listeners import SilentListener
from controlplane.services.ports import Clock
from controlplane.services.trust import Trust
from controlplane.store import Store
from treaty import statement
from treaty.consent import Answer, verify_consent
from treaty.dataset import parse_notice
from treaty.errors import ConflictError, NotFound
from treaty.names import AgentId, Digest, resource_name
from treaty.resources.meta import Condition, ConditionStatus, new_resource, with_condition
from treaty.resources.nations import DATASET, DatasetStatus
from treaty.resources.rollouts import CONSENT, CONSENT_ACCEPTED, ConsentDecision, ConsentSpec, ConsentStatus
from treaty.statement import StatementKind

log = structlog.get_logger(__name__)

DATASET_READY: Final = "Ready"
STATEMENT_ANNOTATION: Final = "foedus.dev/statement"


class Registry(SilentListener):
    """A `Listener` that keeps Dataset and Consent resources."""

    def __init__(self, store: Store, trust: Trust, clock: Clock) -> None:
        self._store = store
        self._trust = trust
        self._clock = clock

    async def submitted(self, agent: AgentId, envelope: bytes, digest: Digest, log_index: int) -> None:
        match statement.unverified(envelope).kind:
            case StatementKind.DATASET:
                await self._dataset(agent, envelope, digest)
            case StatementKind.CONSENT:
                await self._consent(agent, envelope, digest, log_index)
            case _:
                return

    async def _dataset(self, agent: AgentId, envelope: bytes, digest: Digest) -> None:
        notice = parse_notice(statement.unverified(envelope))
        spec = notice.spec
        name = resource_name(f"{agent.nation.lower()}-{spec.dataset_id}")
        if notice.is_withdrawn:
            await self._withdraw(name)
            return
        fresh = new_resource(DATASET, name, spec, status=DatasetStatus(registered_by=str(agent)))
        annotations = {STATEMENT_ANNOTATION: digest}
        try:
            stored = await self._store.resources.create(
                replace(fresh, metadata=replace(fresh.metadata, annotations=annotations))
            )
        except ConflictError:
            known = await self._store.resources.get(DATASET, name)
            metadata = replace(known.metadata, annotations={**known.metadata.annotations, **annotations})
            stored = await self._store.resources.update(replace(known, spec=spec, metadata=metadata))
            stored = replace(stored, status=replace(stored.status, registered_by=str(agent)))
        ready = Condition(DATASET_READY, ConditionStatus.TRUE, "Registered")
        await self._store.resources.update_status(with_condition(stored, ready, self._clock()))
        log.info("dataset registered", dataset=name, purposes=list(spec.purposes))

    async def _withdraw(self, name: str) -> None:
        try:
            await self._store.resources.delete(DATASET, name)
        except NotFound:
            return
        log.info("dataset withdrawn", dataset=name)

    async def _consent(self, agent: AgentId, envelope: bytes, digest: Digest, log_index: int) -> None:
        verified = verify_consent(envelope, self._trust.delegations(agent.nation), self._clock())
        consent = verified.consent
        is_yes = consent.answer is Answer.YES
        spec = ConsentSpec(
            nation=consent.nation,
            statement_digest=digest,
            subject_digest=consent.subject,
            decision=ConsentDecision.YES if is_yes else ConsentDecision.NO,
            key_id=verified.signer,
            expires_at=consent.expires_at,
            fallback_digest=consent.fallback,
            request=consent.rollout,
        )
        name = f"{consent.nation.lower()}-{digest.removeprefix('sha256:')[:32]}"
        fresh = new_resource(CONSENT, name, spec, status=ConsentStatus(log_index=log_index))
        accepted = Condition(CONSENT_ACCEPTED, ConditionStatus.TRUE, "Recorded", f"by {consent.by}")
        try:
            await self._store.resources.create(with_condition(fresh, accepted, self._clock()))
        except ConflictError:
            return  # handed in again
