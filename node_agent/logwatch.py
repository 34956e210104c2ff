"""Is the coordinator's log still the one that this agent saw before?

At every contact the coordinator shows a checkpoint. It is believed by the charter's log key and must extend the last
one that this agent kept, by a consistency proof (RFC 6962); then it takes its place. A log that shrank, forked or
carries no proof is a contradiction: no update leaves any more until a person has looked, and `log verify` fails. So is
a statement that was said to be recorded and does not stand in it (`node_agent.inclusion`).

A coordinator that says of itself that it is behind (restored from a backup) may show a smaller log, or none, until it
is recovered; that is not believed, and until then nothing leaves that needs a receipt (`node_agent.border`). Two
nations that are shown two different logs do not notice it here: that needs witnesses.
"""

from __future__ import annotations

from collections.abc import Sequence

from node_agent.journal import SqliteJournal
from node_agent.owed import Owed
from node_agent.ports import Nation
from treaty.charter import Charter
from treaty.errors import BadSignature, InvalidInput, NotFound, TrustError
from treaty.log import Checkpoint, follow, verify_checkpoint
from treaty.strict_json import MAX_INTEGER
from treaty.wire.v1 import types_pb2

_KIND, _NAME = "log", "checkpoint"
_ALARM = "log_alarm"
LOG_INCONSISTENT = "LOG_INCONSISTENT"


class LogWatch:
    """The last checkpoint this agent believed, in the journal."""

    def __init__(self, journal: SqliteJournal, nation: Nation) -> None:
        self._journal = journal
        self._nation = nation

    def last(self) -> Checkpoint | None:
        document = self._journal.document(_KIND, _NAME)
        if document is None:
            return None
        size, root = document.body["size"], document.body["root"]
        if not isinstance(size, int) or not isinstance(root, str):
            raise InvalidInput("the kept checkpoint is malformed")
        return Checkpoint(self._nation.charter().log_origin, size, bytes.fromhex(root))

    def kept_note(self) -> bytes:
        """The signed note behind `last`, which a hello shows; empty where none was seen."""
        return b"" if self._journal.document(_KIND, _NAME) is None else self.last_note()

    def last_note(self) -> bytes:
        """The signed note behind `last`. Raises: NotFound: none was seen."""
        document = self._journal.document(_KIND, _NAME)
        if document is None:
            raise NotFound("no checkpoint was seen yet")
        return str(document.body["note"]).encode()

    @property
    def alarm(self) -> str:
        """Why the log is not believed any more; empty while it is."""
        return self._journal.fact(_ALARM) or ""

    def raise_alarm(self, why: str) -> None:
        """Keep `why` the log is not believed any more, across restarts."""
        self._journal.set_fact(_ALARM, why)

    def clear_alarm(self) -> None:
        """A person has looked, at what was never proved as well."""
        self._journal.owed.forget_failed()
        self._journal.set_fact(_ALARM, "")

    def unproved(self) -> list[Owed]:
        """What was said to be recorded and is not proved yet; normal for seconds."""
        return self._journal.owed.open()

    def observe(self, message: types_pb2.Checkpoint, *, is_behind: bool) -> None:
        """Follow the log by one shown checkpoint; keep it.

        Raises: TrustError with code LOG_INCONSISTENT: it contradicts what was seen before. The alarm is kept.
        """
        if not message.note:
            return
        known = self.last()
        try:
            offered = verify_by_log_key(self._nation.charter(), message.note)
            if offered.size > MAX_INTEGER:
                raise InvalidInput("the checkpoint names a size that no log has")
            if known is not None and is_behind and offered.size < known.size:
                return
            if known is not None and offered.size > known.size and message.from_size != known.size:
                raise TrustError(f"no proof from the size {known.size} that this agent has seen")
            follow(known, offered, _proof(known, offered, message.consistency_proof))
        except (TrustError, InvalidInput) as err:
            self.raise_alarm(f"{err.code}: {err.message}")
            raise contradiction() from err
        if known is None or offered.size > known.size:
            note = message.note.decode("utf-8")
            self._journal.note(_KIND, _NAME, {"size": offered.size, "root": offered.root.hex(), "note": note})


def contradiction() -> TrustError:
    """What is raised beside the alarm."""
    return TrustError(
        "the coordinator's log contradicts what this agent saw before",
        code=LOG_INCONSISTENT,
        remedy="compare checkpoints with the other nations; then 'foedus-agent log verify --acknowledge'",
    )


def _proof(known: Checkpoint | None, offered: Checkpoint, proof: Sequence[bytes]) -> list[bytes]:
    """A proof is needed only where the log grew from something."""
    return list(proof) if known is not None and 0 < known.size < offered.size else []


def verify_by_log_key(charter: Charter, note: bytes) -> Checkpoint:
    """Believe a checkpoint by any key of the charter's log role.

    Raises: BadSignature: by none of them.
    """
    for key in charter.coordinator.log.keys:
        try:
            return verify_checkpoint(note, charter.log_origin, key.public)
        except BadSignature:
            continue
    raise BadSignature("no log key of the charter signed this checkpoint")
