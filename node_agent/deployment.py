"""One deployment under way: what is asked, what was reported last, and what an abort will need to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from node_agent.admission import Offered
from node_agent.consents import ConsentRequest
from node_agent.directives import Deploy
from node_agent.gates import Losses
from node_agent.ports import Core, Journal, RolloutReport, RolloutState
from treaty.errors import Corrupt, InvalidInput
from treaty.fields import Fields, timestamp_text
from treaty.names import Digest, DirectiveNumber
from treaty.strict_json import JsonObject

KIND: Final = "deployment"
LEFT_KIND: Final = "version-left"
NOT_MEASURED: Final = Losses()
MAX_CODES: Final = 16


@dataclass(frozen=True, slots=True)
class Journaled:
    """A rollout's deployment as the journal has it. `begun_at`: when the consent was there; None before."""

    number: str
    manifest_digest: Digest
    fallback: Digest | None
    begun_at: datetime | None

    def to_json(self) -> JsonObject:
        return {
            "number": self.number,
            "manifest": self.manifest_digest,
            "fallback": self.fallback,
            "begun_at": None if self.begun_at is None else timestamp_text(self.begun_at),
        }


class Deployment:
    """The deployment of one directive."""

    def __init__(self, core: Core, number: DirectiveNumber, action: Deploy, offered: Offered) -> None:
        self._core = core
        self.number = number
        self.action = action
        self.offered = offered
        self._report = first_report(number, action, core.clock.now())

    @property
    def request(self) -> ConsentRequest:
        """What the nation consents to, or not."""
        return ConsentRequest(
            rollout=self.action.rollout,
            number=str(self.number),
            manifest_digest=self.action.manifest_digest,
            model=self.offered.version.ref,
            fallback=self.action.fallback,
            purpose=self.action.purpose,
            gates=self.action.gates,
            codes=(),
        )

    def write(self) -> None:
        """Journal that this number is under way. Idempotent."""
        known = journaled(self._core.journal, self.action.rollout)
        if known is None or known.number != str(self.number):
            self._put(Journaled(str(self.number), self.action.manifest_digest, self.action.fallback, None))

    def begun(self) -> datetime:
        """When the consent was there for the first time: from then on the deadline runs, restarts included."""
        known = journaled(self._core.journal, self.action.rollout)
        if known is not None and known.number == str(self.number) and known.begun_at is not None:
            return known.begun_at
        now = self._core.clock.now()
        self._put(Journaled(str(self.number), self.action.manifest_digest, self.action.fallback, now))
        return now

    def say(
        self,
        state: RolloutState,
        codes: Sequence[str] = (),
        *,
        losses: Losses = NOT_MEASURED,
        pulled: int | None = None,
        total: int | None = None,
    ) -> None:
        """Report `state`; what was measured before stays in the report."""
        known = self._report
        self._report = replace(
            known,
            state=state,
            codes=tuple(codes)[:MAX_CODES],
            since=self._core.clock.now(),
            pulled_bytes=known.pulled_bytes if pulled is None else pulled,
            total_bytes=known.total_bytes if total is None else total,
            heldout_loss_micro_before=losses.before or known.heldout_loss_micro_before,
            heldout_loss_micro_after=losses.after or known.heldout_loss_micro_after,
        )
        self._core.reports.rollout(self._report)

    def tell_bytes(self, done: int, total: int) -> None:
        """Report a pull's progress. A report is journaled: a hundredth at a time is often enough."""
        known = self._report
        if done == total or done - known.pulled_bytes >= max(1, total // 100):
            self._report = replace(known, pulled_bytes=done, total_bytes=total)
            self._core.reports.rollout(self._report)

    def waits(self, reason: str) -> None:
        """Say at home why it waits; an empty reason: it does not any more."""
        self._core.reports.waiting(f"rollout/{self.action.rollout}", reason)

    def _put(self, journaled: Journaled) -> None:
        self._core.journal.put(KIND, self.action.rollout, journaled.to_json())


def first_report(number: DirectiveNumber, action: Deploy, now: datetime) -> RolloutReport:
    return RolloutReport(action.rollout, number, RolloutState.PULLING, action.manifest_digest, now)


def leave_version(journal: Journal, rollout: str, version: Digest) -> None:
    """`rollout` took `version` back out here, and will not bring it in again. Idempotent."""
    journal.put(LEFT_KIND, f"{rollout}/{version}", {})


def has_left(journal: Journal, rollout: str, version: Digest) -> bool:
    return journal.document(LEFT_KIND, f"{rollout}/{version}") is not None


def journaled(journal: Journal, rollout: str) -> Journaled | None:
    """The last deployment of `rollout` that began here."""
    document = journal.document(KIND, rollout)
    if document is None:
        return None
    try:
        fields = Fields(document.body, "deployment")
        found = Journaled(
            number=fields.text("number", 48),
            manifest_digest=fields.digest("manifest"),
            fallback=fields.optional_digest("fallback"),
            begun_at=fields.optional_timestamp("begun_at"),
        )
        fields.done()
    except InvalidInput as err:
        raise Corrupt(f"the journal's entry of rollout {rollout} cannot be read") from err
    return found
