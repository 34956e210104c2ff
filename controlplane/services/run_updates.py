"""An update on its way in: believed piece by piece, spooled, recorded, and only then counted.

Order of a transfer; each step refuses without undoing what an honest nation did before:
1. the sender is the certificate's nation, it is in the cohort, and the round is open and its deadline not past;
2. header and metrics are exactly what the plan allows; a receipt of this very agent covers them;
3. each chunk has its digest, its values their bound, and all together the plan's norm;
4. the update is whole and durable in the spool, which no pull can reach;
5. the receipt is in the record; then the contribution is accepted, once.

The same update again is answered as the first time. What comes after the round has closed is refused as late.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from controlplane.artifacts.spool import UpdateKey, UpdateSpool
from controlplane.domain.agents import RoundReport, UpdateOpening, UpdateReceived
from controlplane.federation.spool_reader import SpoolReader
from controlplane.services.ports import Clock, Fleet, Record
from controlplane.store import Store
from controlplane.store.ports.rounds import ContributionState, RoundState, StoredContribution, StoredRound
from treaty.errors import (
    ConflictError,
    Corrupt,
    InvalidInput,
    NotFound,
    PermissionRefused,
    PreconditionFailed,
    TrustError,
)
from treaty.fields import Fields
from treaty.names import AgentId, Digest, PartyCode, digest_of
from treaty.plan import RunPlan
from treaty.receipt import Crossing, Receipt, shape_digest, verify_receipt
from treaty.recipe import METRICS, check_metrics
from treaty.statement import Verified
from treaty.strict_json import canonical, parse_object
from treaty.update import UpdateHeader, parse_header, validate_header, validate_sender
from treaty.update_values import UpdateVerifier
from treaty.wire.limits import MAX_METRICS_BYTES

LATE = "LATE"


@dataclass(frozen=True, slots=True)
class _Opened:
    """A transfer whose first message was believed."""

    plan: RunPlan
    round: StoredRound
    nation: PartyCode
    header: UpdateHeader
    metrics: dict[str, int]
    receipt: Verified


class UpdateDesk:
    """Takes updates and evaluation results for the open round of a run."""

    def __init__(self, store: Store, fleet: Fleet, record: Record, spool: UpdateSpool, clock: Clock) -> None:
        self._store = store
        self._fleet = fleet
        self._record = record
        self._spool = spool
        self._clock = clock
        self._arriving: set[UpdateKey] = set()

    async def accept(
        self, plan: RunPlan, agent: AgentId, opening: UpdateOpening, chunks: AsyncIterator[bytes]
    ) -> UpdateReceived:
        """Take one update. Raises: InvalidInput (UPD-…), TrustError, PreconditionFailed (LATE), ConflictError."""
        opened = await self._open(plan, agent, opening)
        known = await self._known(plan, opening.round, opened.nation)
        if known is not None and known.state is ContributionState.ACCEPTED:
            return await self._known_again(opened, known)
        key = UpdateKey(plan.run, opening.round, opened.nation)
        if key in self._arriving:
            raise ConflictError("an update of this nation for this round is arriving already")
        self._arriving.add(key)
        try:
            if not await asyncio.to_thread(self._is_spooled, key, opened.header.digest):
                await self._spool_chunks(key, opened, opening.header, chunks)
            index = await self._record.append(opened.receipt.envelope)  # 5
            await self._count(opened, agent, known, opening)
        finally:
            self._arriving.discard(key)
        return await self._received(opened, index, was_known=False)

    async def _known_again(self, opened: _Opened, known: StoredContribution) -> UpdateReceived:
        """Answer as the first time: with the receipt that was counted, and no second entry in the record."""
        index = self._record.known(known.receipt_digest) if known.receipt_digest is not None else None
        if known.update_digest != opened.header.digest or index is None:
            raise ConflictError("this nation's update of this round was already accepted")
        return await self._received(opened, index, was_known=True)

    async def _received(self, opened: _Opened, index: int, *, was_known: bool) -> UpdateReceived:
        leaf = await self._record.leaf(index)
        counted = leaf.statement or b""
        other = b"" if counted == opened.receipt.envelope else counted
        return UpdateReceived(opened.header.digest, index, was_known, leaf.salt or b"", other)

    def _is_spooled(self, key: UpdateKey, digest: Digest) -> bool:
        """Whether exactly this update is whole in the spool.

        Another one there was never counted (the coordinator died, or the round's record failed, in between): what is
        summed must be what is counted, so it goes.
        """
        if key.nation not in self._spool.accepted(key.run, key.round):
            return False
        try:
            with SpoolReader(self._spool.path(key)) as reader:
                is_this = reader.header.digest == digest
        except Corrupt:
            is_this = False
        if not is_this:
            self._spool.discard(key)
        return is_this

    async def result(self, plan: RunPlan, agent: AgentId, report: RoundReport) -> None:
        """Take an evaluation's result, or a nation's refusal of a round. Idempotent."""
        stored = await self._round(plan, report.round)
        nation = _member(plan, agent)
        known = await self._known(plan, report.round, nation)
        if known is not None and known.state in (ContributionState.ACCEPTED, ContributionState.REFUSED):
            return
        fresh = StoredContribution(plan.run, report.round, nation, str(agent), ContributionState.REFUSED)
        if report.codes:
            await self._contribute(replace(fresh, codes=report.codes), known)
            return
        self._check_open(stored)
        if report.round <= plan.rounds and plan.tensors:
            raise InvalidInput("a training round ends with an update, not with metrics alone", code="UPD-003")
        metrics = _metrics("evaluate", report.metrics)
        receipt, verified = verify_receipt(report.receipt, self._fleet.delegations(nation), self._clock())
        _check_receipt(receipt, plan, agent, report.round, Crossing.EVALUATION)
        if receipt.digest != digest_of(report.metrics) or receipt.shape_digest != shape_digest([], metrics):
            raise TrustError("the receipt is not for this result")
        await self._record.append(report.receipt)
        accepted = replace(
            fresh,
            state=ContributionState.ACCEPTED,
            metrics=metrics,
            bytes=len(report.metrics),
            receipt_digest=verified.digest,
        )
        await self._contribute(accepted, known)

    async def _contribute(self, contribution: StoredContribution, known: StoredContribution | None) -> None:
        """Count it, in one commit with the look at the round: what closes it comes entirely before or after."""
        async with self._store.transaction() as change:
            stored = await change.rounds.find(contribution.run, contribution.round)
            self._check_open(stored, has_deadline=False)
            await change.rounds.contribute(contribution, known.state if known else None)

    async def _open(self, plan: RunPlan, agent: AgentId, opening: UpdateOpening) -> _Opened:
        nation = _member(plan, agent)  # 1
        stored = await self._round(plan, opening.round)
        self._check_open(stored)
        if opening.round > plan.rounds or stored.arrays_digest is None or not plan.tensors:
            raise InvalidInput("this round takes no update", code="UPD-003")
        # On a thread: a header at its bound takes half a second to read, and every other nation waits for the loop.
        header = await asyncio.to_thread(parse_header, opening.header)  # 2
        validate_sender(header, nation)
        validate_header(header, plan.update_spec(opening.round, stored.arrays_digest))
        metrics = _metrics("train", opening.metrics)
        receipt, verified = verify_receipt(opening.receipt, self._fleet.delegations(nation), self._clock())
        _check_receipt(receipt, plan, agent, opening.round, Crossing.UPDATE)
        size = len(opening.header) + header.value_bytes + len(opening.metrics)
        is_for_this = (receipt.digest, receipt.examples, receipt.size_bytes) == (header.digest, header.examples, size)
        if metrics["examples"] != header.examples:
            raise InvalidInput("the update's weight is not the number of examples trained", code="UPD-005")
        if not is_for_this or receipt.shape_digest != shape_digest(header.tensors, metrics):
            raise TrustError("the receipt is not for this update")
        return _Opened(plan, stored, nation, header, metrics, verified)

    async def _spool_chunks(self, key: UpdateKey, opened: _Opened, header: bytes, chunks: AsyncIterator[bytes]) -> None:
        verifier = UpdateVerifier(opened.header, opened.plan.update_spec(key.round, opened.header.base_digest))
        with await asyncio.to_thread(self._spool.begin, key, header) as writer:
            index = 0
            async for chunk in chunks:
                await asyncio.to_thread(verifier.accept, index, chunk)  # 3
                await asyncio.to_thread(writer.append, chunk)
                index += 1
            verifier.finish()
            # The round may have closed while the bytes came: what is late must not be found in the spool afterwards.
            self._check_open(await self._round(opened.plan, key.round))
            await asyncio.to_thread(writer.commit)  # 4

    async def _count(
        self, opened: _Opened, agent: AgentId, known: StoredContribution | None, opening: UpdateOpening
    ) -> None:
        key = UpdateKey(opened.plan.run, opening.round, opened.nation)
        accepted = StoredContribution(
            run=opened.plan.run,
            round=opening.round,
            nation=opened.nation,
            agent=str(agent),
            state=ContributionState.ACCEPTED,
            update_digest=opened.header.digest,
            spool_path=str(self._spool.path(key)),
            examples=opened.header.examples,
            bytes=len(opening.header) + opened.header.value_bytes + len(opening.metrics),
            receipt_digest=opened.receipt.digest,
            metrics=opened.metrics,
        )
        await self._contribute(accepted, known)

    async def _round(self, plan: RunPlan, number: int) -> StoredRound:
        try:
            return await self._store.rounds.find(plan.run, number)
        except NotFound as err:
            raise PreconditionFailed("this round is not open", code=LATE) from err

    def _check_open(self, stored: StoredRound, *, has_deadline: bool = True) -> None:
        """Refuse what is late. Bytes that were whole in time still count while nobody has closed the round."""
        is_late = has_deadline and self._clock() >= stored.deadline_at
        if stored.state is not RoundState.OPEN or is_late:
            raise PreconditionFailed("this round is closed", code=LATE)

    async def _known(self, plan: RunPlan, number: int, nation: PartyCode) -> StoredContribution | None:
        found = await self._store.rounds.contributions(plan.run, number)
        return next((contribution for contribution in found if contribution.nation == nation), None)


def _member(plan: RunPlan, agent: AgentId) -> PartyCode:
    if agent.nation not in plan.cohort:
        raise PermissionRefused(f"{agent.nation} takes no part in run {plan.run}")
    return agent.nation


def _metrics(task: str, data: bytes) -> dict[str, int]:
    found = parse_object(data, max_bytes=MAX_METRICS_BYTES, max_depth=2)
    if canonical(found) != data:
        raise InvalidInput("the metrics are not in canonical form", code="UPD-001")
    fields = Fields(found, "metrics")
    values: dict[str, object] = {name: fields.integer(name) for name in METRICS[task]}
    fields.done()
    return check_metrics(task, values)


def _check_receipt(receipt: Receipt, plan: RunPlan, agent: AgentId, number: int, crossing: Crossing) -> None:
    stated = (receipt.nation, receipt.agent, receipt.run, receipt.round, receipt.crossing, receipt.destination)
    if stated != (agent.nation, agent.name, plan.run, number, crossing, plan.destination):
        raise TrustError("the receipt speaks of another agent, run or round")
