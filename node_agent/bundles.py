"""Which policy bundles are in force here, kept so that a restart finds them without anyone's help.

    HOME/policies/<authority>-<revision>-<digest>.tar.gz and .json    the bundle and its signed envelope
    journal, kind `policy-bundle`                                      which of them is in force, by authority
    journal, kind `policy-offer`                                       an overlay loaded by the admin, not taken up

Rules:
1. bytes are believed (`treaty.policy.bundle.verify`) and rehearsed (`treaty.policy.decider`) before the journal names
   them; whatever fails leaves the one before in force;
2. a revision never goes back: the journal's is compared at every change and survives restarts;
3. the treaty's bundle is signed by the charter's treaty-policy role, an overlay by a person whom the nation's root gave
   that power; both are verified again at every start, only their validity in time is not: what serves goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog

from node_agent.ports import Core, Journal, Nation
from treaty.delegation import Delegation, Power
from treaty.durable import disk_errors, write_whole
from treaty.errors import BadSignature, Corrupt, FoedusError, InvalidInput
from treaty.fields import Fields
from treaty.keys import VerificationKey
from treaty.names import Digest, PartyCode, digest_of
from treaty.policy.bundle import Accepted, VerifiedBundle, authority_of_nation, verify
from treaty.policy.decider import Decider
from treaty.policy.engine import OVERLAY, TREATY
from treaty.strict_json import JsonObject

log = structlog.get_logger(__name__)

KIND: Final = "policy-bundle"
OFFER_KIND: Final = "policy-offer"


class Bundles:
    """Takes bundles up and keeps them."""

    def __init__(self, core: Core, decider: Decider) -> None:
        self._core = core
        self._decider = decider
        self._turn = asyncio.Lock()

    @property
    def treaty_revision(self) -> int:
        return self._decider.revisions.get(TREATY, 0)

    @property
    def overlay_revision(self) -> int:
        return self._decider.revisions.get(authority_of_nation(self._core.nation.code), 0)

    async def restore(self) -> None:
        """Put in force what was before. One that no longer verifies is left out: what it would allow is then denied."""
        for slot in (TREATY, OVERLAY):
            known = _kept(self._core.journal, slot)
            if known is None:
                continue
            try:
                packed, envelope = await asyncio.to_thread(_read, self._core.folders.policies, slot, known)
                verified = self._verify(slot, packed, envelope, known, is_restart=True)
                await self._decider.put_in_force(verified)
            except FoedusError as err:
                log.error("policy not taken up again", authority=slot, code=err.code, exc_info=err)
        self._tell()

    async def load_treaty(self, revision: int, packed: bytes, envelope: bytes) -> None:
        """Put a revision of the treaty's bundle in force. The one in force again changes nothing.

        Raises: TrustError, InvalidInput: as `treaty.policy.bundle.verify`. PreconditionFailed: it fails its vectors.
        """
        verified = self.believed_treaty(revision, packed, envelope)
        await self._take_up(TREATY, verified, packed, envelope)

    def believed_treaty(self, revision: int, packed: bytes, envelope: bytes) -> VerifiedBundle:
        """Check a treaty bundle without putting it in force. Raises: as `load_treaty`, but for the vectors."""
        last = _kept(self._core.journal, TREATY)
        verified = self._verify(TREATY, packed, envelope, last, is_restart=False)
        if verified.bundle.revision != revision:
            raise InvalidInput("the directive names another revision than the bundle has")
        return verified

    async def take_offer(self) -> None:
        """Put the overlay in force that an admin loaded, if there is a new one. A refused one is noted and left out."""
        offer = self._core.journal.document(OFFER_KIND, OVERLAY)
        if offer is None or "refused" in offer.body:
            return
        offered = _accepted(offer.body)
        if offered == _kept(self._core.journal, OVERLAY):
            return
        try:
            packed, envelope = await asyncio.to_thread(_read, self._core.folders.policies, OVERLAY, offered)
            last = _kept(self._core.journal, OVERLAY)
            verified = self._verify(OVERLAY, packed, envelope, last, is_restart=False)
            await self._take_up(OVERLAY, verified, packed, envelope)
        except FoedusError as err:
            log.warning("overlay refused", code=err.code, exc_info=err)
            self._core.journal.put(OFFER_KIND, OVERLAY, {**offer.body, "refused": err.code})

    async def _take_up(self, slot: str, verified: VerifiedBundle, packed: bytes, envelope: bytes) -> None:
        async with self._turn:
            if _kept(self._core.journal, slot) == verified.accepted and self._is_in_force(verified):
                return
            await asyncio.to_thread(_write, self._core.folders.policies, slot, verified.accepted, packed, envelope)
            await self._decider.put_in_force(verified)
            await asyncio.to_thread(self._core.journal.put, KIND, slot, _body(verified.accepted))
        self._tell()
        log.info("policy in force", authority=verified.bundle.authority, revision=verified.bundle.revision)

    def _is_in_force(self, verified: VerifiedBundle) -> bool:
        return self._decider.revisions.get(verified.bundle.authority) == verified.bundle.revision

    def _verify(
        self, slot: str, packed: bytes, envelope: bytes, last: Accepted | None, *, is_restart: bool
    ) -> VerifiedBundle:
        now = self._core.clock.now()
        if slot == OVERLAY:
            return verify_overlay(packed, envelope, self._core.nation, last, now, is_restart=is_restart)
        role = self._core.nation.charter().treaty_policy
        return verify(
            packed,
            envelope,
            authority=TREATY,
            keys=role.keys,
            threshold=role.threshold,
            last=last,
            now=now,
            is_restart=is_restart,
        )

    def _tell(self) -> None:
        self._core.reports.policies(treaty_revision=self.treaty_revision, overlay_revision=self.overlay_revision)


def offer_overlay(
    journal: Journal, policies: Path, nation: Nation, packed: bytes, envelope: bytes, now: datetime
) -> VerifiedBundle:
    """Hand an overlay to the agent of this home, running or not: it rehearses it and puts it in force.

    Raises: BadSignature: no person with the power `overlay` signed it. RollbackRefused, Expired, InvalidInput.
    """
    verified = verify_overlay(packed, envelope, nation, _kept(journal, OVERLAY), now)
    _write(policies, OVERLAY, verified.accepted, packed, envelope)
    journal.put(OFFER_KIND, OVERLAY, _body(verified.accepted))
    return verified


def verify_overlay(
    packed: bytes,
    envelope: bytes,
    nation: Nation,
    last: Accepted | None,
    now: datetime,
    *,
    is_restart: bool = False,
) -> VerifiedBundle:
    """Believe an overlay of this nation."""
    keys = _overlay_keys(nation.delegations(), nation.code)
    if not keys:
        raise BadSignature(
            f"{nation.code} has delegated no key that may sign an overlay",
            remedy="run 'foedus-agent delegate person --power overlay'",
        )
    authority = authority_of_nation(nation.code)
    return verify(
        packed, envelope, authority=authority, keys=keys, threshold=1, last=last, now=now, is_restart=is_restart
    )


def _overlay_keys(delegations: Sequence[Delegation], nation: PartyCode) -> list[VerificationKey]:
    return [d.key for d in delegations if d.nation == nation and Power.OVERLAY in d.powers]


def _kept(journal: Journal, slot: str) -> Accepted | None:
    document = journal.document(KIND, slot)
    return None if document is None else _accepted(document.body)


def _accepted(body: JsonObject) -> Accepted:
    try:
        fields = Fields({"revision": body.get("revision"), "digest": body.get("digest")}, "policy bundle")
        return Accepted(fields.integer("revision", 1), fields.digest("digest"))
    except InvalidInput as err:
        raise Corrupt("the journal's entry of a policy bundle cannot be read") from err


def _body(accepted: Accepted) -> JsonObject:
    return {"revision": accepted.revision, "digest": accepted.digest}


def _stem(slot: str, accepted: Accepted) -> str:
    return f"{slot}-{accepted.revision}-{accepted.digest.removeprefix('sha256:')[:16]}"


def _write(folder: Path, slot: str, accepted: Accepted, packed: bytes, envelope: bytes) -> None:
    stem = _stem(slot, accepted)
    with disk_errors("keeping a policy bundle"):
        write_whole(folder / f"{stem}.tar.gz", packed)
        write_whole(folder / f"{stem}.json", envelope)


def _read(folder: Path, slot: str, accepted: Accepted) -> tuple[bytes, bytes]:
    stem = _stem(slot, accepted)
    with disk_errors("reading a policy bundle"):
        packed, envelope = (folder / f"{stem}.tar.gz").read_bytes(), (folder / f"{stem}.json").read_bytes()
    if digest_of(packed) != Digest(accepted.digest):
        raise Corrupt("a kept policy bundle is not what was accepted", remedy="load it again")
    return packed, envelope
