"""What this agent says about itself: to the coordinator in a status, to its admin in `foedus-agent status`.

Rollouts are journaled (latest wins) and so survive a restart; what is served and held is what was observed last by this
process; progress is lossy and never stored. Reasons for waiting stay at home.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

import structlog

from node_agent import messages
from node_agent.journal import SqliteJournal
from node_agent.ports import ProgressReport, RolloutReport, RolloutState
from treaty import names
from treaty.errors import InvalidInput
from treaty.fields import Fields
from treaty.names import Digest, DirectiveNumber
from treaty.strict_json import JsonObject
from treaty.wire.v1 import session_pb2

log = structlog.get_logger(__name__)

ROLLOUTS = "rollout-report"
WAITING = "waiting"
OBSERVED = "observed"
MAX_ROLLOUTS = 32
MAX_HELD = 64


class ReportBook:
    """`ports.Reports`. `on_change` is told that a status is due, `on_progress` what to send at once."""

    def __init__(self, journal: SqliteJournal) -> None:
        self._journal = journal
        self._rollouts = {report.rollout: report for report in stored_rollouts(journal)}
        self._changed: set[str] = set()
        self._serving: Digest | None = None
        self._held: tuple[Digest, ...] = ()
        self._revisions = (0, 0)
        self.on_change: Callable[[], None] = _nothing
        self.on_progress: Callable[[ProgressReport], None] = _nothing

    @property
    def treaty_revision(self) -> int:
        return self._revisions[0]

    def rollout(self, report: RolloutReport) -> None:
        report = replace(report, codes=tuple(messages.codes_only(report.codes)))  # some are the coordinator's words
        self._journal.note(ROLLOUTS, report.rollout, _to_json(report))
        self._rollouts[report.rollout] = report
        self._changed.add(report.rollout)
        for old in sorted(self._rollouts.values(), key=lambda known: known.since)[:-MAX_ROLLOUTS]:
            self._journal.remove(ROLLOUTS, old.rollout)
            del self._rollouts[old.rollout]
        self.on_change()

    def serving(self, digest: Digest | None) -> None:
        self._serving = digest
        self._observe()

    def policies(self, *, treaty_revision: int, overlay_revision: int) -> None:
        self._revisions = (treaty_revision, overlay_revision)
        self._observe()

    def held(self, digests: Sequence[Digest]) -> None:
        self._held = tuple(digests[:MAX_HELD])
        self._observe()

    def progress(self, report: ProgressReport) -> None:
        self.on_progress(report)

    def waiting(self, subject: str, reason: str) -> None:
        if reason:
            self._journal.note(WAITING, subject, {"reason": reason})
        else:
            self._journal.remove(WAITING, subject)

    def _observe(self) -> None:
        observed: JsonObject = {
            "serving": self._serving,
            "held": list(self._held),
            "treaty_revision": self._revisions[0],
            "overlay_revision": self._revisions[1],
        }
        self._journal.note(OBSERVED, "now", observed)
        self.on_change()

    def status(self, sequence: int, *, is_full: bool, is_brake_on: bool) -> session_pb2.AgentMessage:
        """The next status; what it says is no longer counted as changed."""
        wanted = self._rollouts.values() if is_full else [self._rollouts[name] for name in sorted(self._changed)]
        message = session_pb2.Status(
            sequence=sequence,
            is_full=is_full,
            serving_digest=self._serving or "",
            rollouts=[messages.rollout_status(report) for report in wanted],
            brake_on=is_brake_on,
            treaty_policy_revision=self._revisions[0],
            overlay_revision=self._revisions[1],
            held_digests=self._held,
        )
        self._changed.clear()
        return session_pb2.AgentMessage(status=message)


def stored_rollouts(journal: SqliteJournal) -> list[RolloutReport]:
    """What was reported, one that cannot be read left out: a report is only shown, and must not keep an agent down."""
    reports = []
    for document in journal.documents(ROLLOUTS):
        try:
            reports.append(_from_json(document.name, document.body))
        except InvalidInput as err:
            log.warning("the report of a rollout cannot be read", rollout=document.name, code=err.code)
    return reports


def _to_json(report: RolloutReport) -> JsonObject:
    return {
        "epoch": report.number.epoch,
        "counter": report.number.counter,
        "state": report.state,
        "manifest": report.manifest_digest,
        "since": report.since.isoformat(),
        "codes": list(report.codes),
        "pulled_bytes": report.pulled_bytes,
        "total_bytes": report.total_bytes,
        "loss_before": report.heldout_loss_micro_before,
        "loss_after": report.heldout_loss_micro_after,
    }


def _from_json(rollout: str, body: JsonObject) -> RolloutReport:
    fields = Fields(body, "rollout report")
    since = fields.text("since", 40)
    try:
        moment = datetime.fromisoformat(since)
    except ValueError as err:
        raise InvalidInput("a rollout report has no moment") from err
    report = RolloutReport(
        rollout=names.resource_name(rollout),
        number=DirectiveNumber(fields.integer("epoch"), fields.integer("counter")),
        state=fields.choice("state", RolloutState),
        manifest_digest=fields.digest("manifest"),
        since=moment,
        codes=fields.texts("codes", max_items=64, max_chars=64),
        pulled_bytes=fields.integer("pulled_bytes"),
        total_bytes=fields.integer("total_bytes"),
        heldout_loss_micro_before=fields.integer("loss_before"),
        heldout_loss_micro_after=fields.integer("loss_after"),
    )
    fields.done()
    return report


def _nothing(*_args: object) -> None:
    """Before the loop listens."""
