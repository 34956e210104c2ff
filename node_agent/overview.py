"""What an admin asks of an agent, as one value: is it connected, what does it serve, what waits and for whom?

Read from the journal alone, so it answers with the agent running or not; what only a running agent knows is shown with
its age. It holds names and paths of the nation and never leaves it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from node_agent import catalogue, consents, telltale
from node_agent.logwatch import LogWatch
from node_agent.reporting import OBSERVED, WAITING, stored_rollouts
from treaty.fields import timestamp_text
from treaty.strict_json import JsonObject, JsonValue

if TYPE_CHECKING:
    from node_agent.agent import Foundation
    from node_agent.journal import SqliteJournal


def overview(base: Foundation) -> JsonObject:
    journal, nation = base.journal, base.nation
    occupant = base.home.occupant()
    is_running = occupant is not None
    live = telltale.told(journal)
    # What an earlier process wrote last says nothing of the one that runs now.
    now = live if live.get("pid") == occupant else {}
    observed = journal.document(OBSERVED, "now")
    charter = nation.charter()
    return {
        "agent": str(nation.agent_id),
        "running": is_running,
        "connection": _connection(now, is_running=is_running),
        "charter": {
            "treaty": charter.treaty,
            "version": charter.version,
            "digest": charter.digest,
            "expires_at": timestamp_text(charter.expires_at),
        },
        "coordinator": base.membership.coordinator,
        "brake_on": journal.is_brake_on(),
        "serving": observed.body.get("serving") if observed and is_running else None,
        "policies": {
            "treaty_revision": observed.body.get("treaty_revision", 0) if observed else 0,
            "overlay_revision": observed.body.get("overlay_revision", 0) if observed else 0,
        },
        "rollouts": _rollouts(journal),
        "waiting": {document.name: document.body.get("reason") for document in journal.documents(WAITING)},
        "approvals": _approvals(journal, str(base.home.root)),
        "datasets": _datasets(journal),
        "log": _log(LogWatch(journal, nation)),
        "conditions": live.get("conditions", {}),
    }


def _connection(live: JsonObject, *, is_running: bool) -> JsonObject:
    if not is_running:
        return {"state": "not running", "remedy": "foedus-agent run"}
    return {
        "state": live.get("connection", "starting"),
        "lease_until": live.get("lease_until"),
        "trouble": live.get("trouble"),
        "coordinator_is_behind": live.get("coordinator_is_behind", False),
        "highest_accepted": live.get("highest_accepted"),
        "open": live.get("open", []),
        "metrics": live.get("metrics", ""),
        "health": live.get("health", ""),
        "at": live.get("at"),
    }


def _rollouts(journal: SqliteJournal) -> list[JsonValue]:
    found = sorted(stored_rollouts(journal), key=lambda report: report.number)
    return [
        {
            "rollout": report.rollout,
            "number": str(report.number),
            "state": report.state,
            "codes": list(report.codes),
            "digest": report.manifest_digest,
            "pulled_bytes": report.pulled_bytes,
            "total_bytes": report.total_bytes,
            "heldout_loss_micro_before": report.heldout_loss_micro_before,
            "heldout_loss_micro_after": report.heldout_loss_micro_after,
            "since": timestamp_text(report.since),
        }
        for report in found
    ]


def _approvals(journal: SqliteJournal, home: str) -> list[JsonValue]:
    return [
        {
            "rollout": request.rollout,
            "model": request.model,
            "digest": request.manifest_digest,
            "fallback": request.fallback,
            "purpose": request.purpose,
            "gates": request.to_json()["gates"],
            "codes": list(request.codes),
            "command": f"foedus-agent --home {home} {request.command()}",
        }
        for request in consents.requests(journal)
    ]


def _datasets(journal: SqliteJournal) -> list[JsonValue]:
    return [
        {
            "name": dataset.name,
            "purposes": list(dataset.purposes),
            "class": dataset.data_class,
            "records": dataset.records,
            "withdrawn": dataset.is_withdrawn,
        }
        for dataset in catalogue.datasets(journal)
    ]


def _log(watch: LogWatch) -> JsonObject:
    last = watch.last()
    return {
        "size": last.size if last else 0,
        "root": last.root.hex() if last else None,
        "unproved": len(watch.unproved()),
        "alarm": watch.alarm,
    }


def age_of(moment: str | None, now: datetime) -> str:
    """How long ago `moment` was, in seconds; empty for none."""
    return "" if not moment else f"{max(0, round((now - datetime.fromisoformat(moment)).total_seconds()))} s ago"
