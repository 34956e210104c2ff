"""The treaty's policy at the coordinator: believed, rehearsed, stored, sent to every agent, asked before a plan.

Rules:
1. a bundle is believed when the charter's treaty-policy role signed it and its revision is not below the last one's;
2. it is stored only after its own vectors passed on the engine in use here; each agent does the same for itself;
3. the record has it before any agent hears of it;
4. a preflight promises nothing: only the nation's own answer counts (`treaty.policy.decider`).
"""

from __future__ import annotations

from dataclasses import replace

import structlog

from controlplane.domain.agents import AgentStatus
from controlplane.domain.directives import LoadTreatyPolicy
from controlplane.services.listeners import SilentListener
from controlplane.services.ports import NO_TRACE, Clock, Fleet, Record
from controlplane.services.trust import Trust
from controlplane.store import Store
from controlplane.store.ports.trust import StoredBundle
from treaty.errors import FoedusError, NotFound, PreconditionFailed
from treaty.names import AgentId, PartyCode
from treaty.policy.bundle import Accepted, VerifiedBundle, verify
from treaty.policy.decider import Decider, nanoseconds
from treaty.policy.decision import Decision
from treaty.policy.questions import Ask, Observed
from treaty.policy.registers import Registers, charter_registers
from treaty.resources.meta import AnyResource, Condition, ConditionStatus, new_resource, with_condition
from treaty.resources.models import (
    POLICY_BUNDLE,
    POLICY_READY,
    InForce,
    PolicyBundleSpec,
    PolicyBundleStatus,
    SignedBy,
)
from treaty.statement import claimed_signers
from treaty.strict_json import JsonObject
from treaty.wire.certificates import ca_digest

log = structlog.get_logger(__name__)

TREATY = "treaty"
TREATY_PARTY = PartyCode("TREATY")


class Policies(SilentListener):
    """The verbs, and what keeps agents on the newest revision."""

    def __init__(
        self, store: Store, fleet: Fleet, trust: Trust, record: Record, decider: Decider, clock: Clock
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._trust = trust
        self._record = record
        self._decider = decider
        self._clock = clock

    async def load(self) -> None:
        """Put the stored bundle in force again. Without one every preflight denies."""
        stored = await self._latest()
        if stored is None:
            log.warning("no treaty policy is loaded, every preflight denies")
            return
        verified = self._verify(stored.bundle, stored.envelope, None, is_restart=True)
        await self._decider.put_in_force(verified)
        await self.refresh_registers()
        await self._project(verified, stored.envelope)

    async def refresh_registers(self) -> None:
        """Give the engine what charter and revocations say. Call it when the charter changed."""
        charter = self._trust.charter
        nations = {
            code: ([ca_digest(nation.ca_pem)], f"{code.lower()}.{charter.domain}")
            for code, nation in charter.nations.items()
        }
        revoked: JsonObject = {"revoked": [*sorted(self._trust.revoked)]}
        await self._decider.set_registers(Registers(charter=charter_registers(nations), record=revoked))

    async def push(self, bundle: bytes, envelope: bytes) -> AnyResource:
        """Put a revision in force here and send it to every agent. The one in force again changes nothing.

        Raises: BadSignature, RollbackRefused, Expired, TrustError, InvalidInput as `treaty.policy.bundle`.
        PreconditionFailed: its vectors fail; the revision before stays in force.
        """
        self._trust.check_current()
        stored = await self._latest()
        last = Accepted(stored.revision, stored.digest) if stored is not None else None
        verified = self._verify(bundle, envelope, last, is_restart=False)  # 1
        await self._decider.put_in_force(verified)  # 2
        await self.refresh_registers()
        await self._record.append(envelope)  # 3
        revision = verified.bundle.revision
        await self._store.trust.add_bundle(
            TREATY_PARTY, revision, digest=verified.bundle.digest, bundle=bundle, envelope=envelope
        )
        resource = await self._project(verified, envelope)
        for agent in self._fleet.connected().values():
            await self._direct(agent)
        return resource

    async def preflight(self, ask: Ask, observed: Observed | None = None) -> Decision:
        """What the treaty alone would say now, with what only the nation sees left undetermined.

        `observed` is what this coordinator itself saw; the clock is added here.
        """
        now_ns = nanoseconds(self._clock())
        seen = replace(observed or Observed(), now_ns=now_ns, received_ns=now_ns)
        return await self._decider.preflight(ask, seen)

    async def revision(self) -> int:
        """Revision in force, 0 for none."""
        return self._decider.revisions.get(TREATY, 0)

    def _verify(self, bundle: bytes, envelope: bytes, last: Accepted | None, *, is_restart: bool) -> VerifiedBundle:
        role = self._trust.charter.treaty_policy
        return verify(
            bundle,
            envelope,
            authority=TREATY,
            keys=role.keys,
            threshold=role.threshold,
            last=last,
            now=self._clock(),
            is_restart=is_restart,
        )

    async def _project(self, verified: VerifiedBundle, envelope: bytes) -> AnyResource:
        bundle = verified.bundle
        spec = PolicyBundleSpec(TREATY_PARTY, bundle.revision, bundle.digest)
        name = _name(bundle.revision)
        try:
            return await self._store.resources.get(POLICY_BUNDLE, name)
        except NotFound:
            signed = tuple(SignedBy(key_id) for key_id in claimed_signers(envelope))
            status = PolicyBundleStatus(vectors_passed=len(bundle.vectors.vectors), signatures=signed)
            fresh = new_resource(POLICY_BUNDLE, name, spec, status=status)
            ready = Condition(POLICY_READY, ConditionStatus.TRUE, "VectorsPassed")
            return await self._store.resources.create(with_condition(fresh, ready, self._clock()))

    async def _latest(self) -> StoredBundle | None:
        try:
            return await self._store.trust.bundle(TREATY_PARTY)
        except NotFound:
            return None

    async def _direct(self, agent: AgentId) -> None:
        stored = await self._latest()
        if stored is None:
            return
        try:
            await self._fleet.direct(agent, LoadTreatyPolicy(stored.revision, stored.bundle, stored.envelope), NO_TRACE)
        except PreconditionFailed as err:
            log.warning("policy not directed", agent=str(agent), code=err.code)

    async def connected(self, agent: AgentId) -> None:
        await self._direct(agent)

    async def status(self, agent: AgentId, status: AgentStatus) -> None:
        """Note on the bundle since when this agent decides under it."""
        if not status.treaty_policy_revision:
            return
        try:
            bundle = await self._store.resources.get(POLICY_BUNDLE, _name(status.treaty_policy_revision))
            if any(entry.agent == str(agent) for entry in bundle.status.in_force):
                return
            in_force = (*bundle.status.in_force, InForce(str(agent), self._clock()))
            await self._store.resources.update_status(replace(bundle, status=replace(bundle.status, in_force=in_force)))
        except FoedusError as err:
            # Another agent wrote first, or names a revision that is not ours: the next status says it again.
            log.info("policy revision not noted", agent=str(agent), code=err.code)


def _name(revision: int) -> str:
    return f"treaty-{revision}"
