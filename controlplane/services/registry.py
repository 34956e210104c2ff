"""What nations said for the record, as resources: their datasets and their consents.

A statement was verified and recorded before it comes here (`submissions`). The resource says what an operator plans
with; the statement is the proof, and its digest is noted on the resource. Only metadata classes have a field here.

Of several words about one dataset, or of several answers to one request, the one that counts (`domain.words`) is the
resource's, or the one that is Accepted; what was said before is read back from the record at the start.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Final, TypeAlias

import structlog

from controlplane.domain.words import Word, counting
from controlplane.services.listeners import SilentListener
from controlplane.services.ports import Clock
from controlplane.services.record import StatementRecord
from controlplane.services.trust import Trust
from controlplane.store import Store
from treaty import statement
from treaty.consent import Answer, Consent, parse_consent, verify_consent
from treaty.dataset import DatasetNotice, parse_notice
from treaty.errors import ConflictError, NotFound
from treaty.names import AgentId, Digest, digest_of, resource_name
from treaty.resources.meta import Condition, ConditionStatus, is_true, new_resource, with_condition
from treaty.resources.nations import DATASET, DatasetStatus
from treaty.resources.rollouts import CONSENT, CONSENT_ACCEPTED, ConsentDecision, ConsentSpec, ConsentStatus
from treaty.statement import StatementKind

log = structlog.get_logger(__name__)

DATASET_READY: Final = "Ready"
STATEMENT_ANNOTATION: Final = "foedus.dev/statement"

Subject: TypeAlias = tuple[str, ...]
"""What a word is about: a dataset's resource, or nation, request and version of a consent."""


class Registry(SilentListener):
    """A `Listener` that keeps Dataset and Consent resources."""

    def __init__(self, store: Store, trust: Trust, record: StatementRecord, clock: Clock) -> None:
        self._store = store
        self._trust = trust
        self._record = record
        self._clock = clock
        self._words: dict[Subject, set[Word]] = {}
        self._consents: dict[int, str] = {}
        """The name of each consent by its entry of the log."""

    async def load(self) -> None:
        """Learn from the record which word counts about what. Call it before the first submission."""
        await asyncio.to_thread(self._recall)

    def _recall(self) -> None:
        for kind in (StatementKind.DATASET, StatementKind.CONSENT):
            for envelope in self._record.of_kind(kind):
                found = statement.unverified(envelope)
                index = self._record.known(digest_of(found.payload()))
                if index is None:
                    continue
                if kind is StatementKind.DATASET:
                    self._take(*_of_notice(parse_notice(found), index))
                else:
                    consent = parse_consent(found)
                    self._consents[index] = _consent_name(consent, digest_of(found.payload()))
                    self._take(*_of_consent(consent, index))

    def _take(self, subject: Subject, word: Word) -> int:
        """Take a word; the entry of the one that counts now."""
        words = self._words.setdefault(subject, set())
        words.add(word)
        return counting(words).log_index

    async def submitted(self, agent: AgentId, envelope: bytes, digest: Digest, log_index: int) -> None:
        match statement.unverified(envelope).kind:
            case StatementKind.DATASET:
                await self._dataset(agent, envelope, digest, log_index)
            case StatementKind.CONSENT:
                await self._consent(agent, envelope, digest, log_index)
            case _:
                return

    async def _dataset(self, agent: AgentId, envelope: bytes, digest: Digest, log_index: int) -> None:
        notice = parse_notice(statement.unverified(envelope))
        spec = notice.spec
        name = _dataset_name(notice)
        if self._take(*_of_notice(notice, log_index)) != log_index:
            log.warning("an earlier word about a dataset was passed over", dataset=name, statement=digest)
            return
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
        name = self._consents[log_index] = _consent_name(consent, digest)
        fresh = new_resource(CONSENT, name, spec, status=ConsentStatus(log_index=log_index))
        accepted = Condition(CONSENT_ACCEPTED, ConditionStatus.TRUE, "Recorded", f"by {consent.by}")
        with suppress(ConflictError):  # handed in again
            await self._store.resources.create(with_condition(fresh, accepted, self._clock()))
        await self._settle(*_of_consent(consent, log_index))

    async def _settle(self, subject: Subject, word: Word) -> None:
        """Say of this answer to a request, of the one that counted without it and of the one that counts whether they
        count. The others were told when they came."""
        counts = self._take(subject, word)
        others = self._words[subject] - {word}
        told = {counts, word.log_index} | ({counting(others).log_index} if others else set())
        for log_index in sorted(told):
            await self._say(self._consents[log_index], counts, is_counting=log_index == counts)

    async def _say(self, name: str, counts: int, *, is_counting: bool) -> None:
        try:
            known = await self._store.resources.get(CONSENT, name)
        except NotFound:
            return  # the store was restored from before it came
        if is_true(known.status.conditions, CONSENT_ACCEPTED) == is_counting:
            return
        said = Condition(CONSENT_ACCEPTED, ConditionStatus.TRUE, "Recorded")
        if not is_counting:
            said = Condition(CONSENT_ACCEPTED, ConditionStatus.FALSE, "Superseded", f"entry {counts} counts")
        await self._store.resources.update_status(with_condition(known, said, self._clock()))


def _dataset_name(notice: DatasetNotice) -> str:
    return resource_name(f"{notice.spec.nation.lower()}-{notice.spec.dataset_id}")


def _consent_name(consent: Consent, digest: Digest) -> str:
    return f"{consent.nation.lower()}-{digest.removeprefix('sha256:')[:32]}"


def _of_notice(notice: DatasetNotice, log_index: int) -> tuple[Subject, Word]:
    return (_dataset_name(notice),), Word(log_index, notice.issued_at, notice.is_withdrawn)


def _of_consent(consent: Consent, log_index: int) -> tuple[Subject, Word]:
    subject = (consent.nation, consent.rollout, consent.subject)
    return subject, Word(log_index, consent.issued_at, consent.answer is Answer.NO)
