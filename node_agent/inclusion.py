"""Does what the coordinator said it recorded stand in its log?

Rules:
1. "recorded" names index and leaf: the salt that it carries and the very bytes handed in give the leaf's hash, which is
   kept (`node_agent.owed`); a word without a salt, or about other bytes, is no answer;
2. once a checkpoint that this agent believes covers the index, an inclusion proof (RFC 6962) is asked for and verified
   against that checkpoint; at most `MAX_ASKED` are on their way;
3. a proof that leads elsewhere, a refusal, none at `PATIENCE` looks that found the question open since the look before,
   or a log that grew past the word without reaching the index is a contradiction, as a forked log is
   (`node_agent.logwatch`): the alarm, and no update leaves;
4. what is not proved after as many looks for another reason (the log has not reached it, streams break before the
   answer, more is owed than can be asked for) is no contradiction, but updates wait for it.

While the coordinator is behind (restored from a backup) nothing is asked and nothing counts: updates wait anyway. Time
without a stream does not count either.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import structlog

from node_agent.journal import SqliteJournal
from node_agent.logwatch import LogWatch, contradiction
from node_agent.owed import Owed
from node_agent.ports import Nation
from treaty import statement
from treaty.errors import InvalidInput, LimitExceeded, TrustError
from treaty.log import SALT_BYTES, Checkpoint, leaf_data, leaf_hash, verify_inclusion
from treaty.names import Digest, digest_of
from treaty.wire.v1 import session_pb2

log = structlog.get_logger(__name__)

MAX_ASKED: Final = 32
LOOK_SECONDS: Final = 5.0
"""Between two looks: a heartbeat, which brings the checkpoint."""
PATIENCE: Final = 24
"""Two minutes of looks; an honest coordinator covers a statement within one second of recording it."""
GROWTHS: Final = 4
"""Two checkpoints may have been signed before the word was given and be seen after it; a later one covers it."""
MAX_SHOWN_BYTES: Final = 64 * 1024
LOG_INCLUSION: Final = "LOG_INCLUSION"


class InclusionWatch:
    """Asks on the live stream for what is owed, and holds the answers to the believed checkpoints.

    Not to be called from two threads at once (`node_agent.log_thread`).
    """

    def __init__(self, journal: SqliteJournal, logwatch: LogWatch) -> None:
        self._owed = journal.owed
        self._logwatch = logwatch
        self._asked: dict[Digest, tuple[Owed, Checkpoint]] = {}
        self._size_seen: int | None = None
        self._beyond: dict[Digest, int] = {}
        """Looks at a log that did not reach what is owed, by statement."""
        self._silent: dict[Digest, int] = {}
        """Looks at which a question of the same stream was still not answered, by statement, over all streams."""
        self.is_stalled = False
        """Rule 4."""

    def begin(self) -> None:
        """A new stream: what was asked on the last one is not answered any more."""
        self._asked.clear()

    def look(self) -> list[session_pb2.AgentMessage]:
        """Count one more look; what to ask for now. Blocks on the journal.

        Raises: TrustError with code LOG_INCONSISTENT: rule 3. The alarm is kept.
        """
        owed, known = self._owed.open(), self._logwatch.last()
        size = known.size if known else 0
        has_grown, self._size_seen = self._size_seen is not None and size > self._size_seen, size
        if not owed:
            self._beyond, self._silent, self.is_stalled = {}, {}, False
            return []
        self._owed.waited(size, has_grown=has_grown)
        self._beyond = {each.digest: self._beyond.get(each.digest, 0) + 1 for each in owed if each.log_index >= size}
        is_slow = any(each.waits >= PATIENCE for each in owed if each.log_index < size)
        self.is_stalled = is_slow or any(looks >= PATIENCE for looks in self._beyond.values())
        self._silent |= {digest: self._silent.get(digest, 0) + 1 for digest in self._asked}
        self._give_up(each for each in owed if self._is_overdue(each, size))
        asks = [each for each in owed if each.log_index < size and each.digest not in self._asked]
        asks = asks[: MAX_ASKED - len(self._asked)]
        if known is not None:
            self._asked.update({each.digest: (each, known) for each in asks})
        return [_request(each, size) for each in asks]

    def hear(self, message: session_pb2.Inclusion) -> None:
        """Take an answer; one that nobody asked for is passed over. Blocks on the journal.

        Raises: TrustError with code LOG_INCONSISTENT: rule 3. The alarm is kept.
        """
        owed, known = self._asked.get(Digest(message.statement_digest), (None, None))
        if owed is None or known is None or known.size != message.log_size:
            log.info("a proof that was not asked for was passed over")
            return
        self._asked.pop(owed.digest, None)
        self._silent.pop(owed.digest, None)
        try:
            if message.HasField("refusal"):
                raise TrustError("the coordinator refused to prove what it said it recorded", code=LOG_INCLUSION)
            verify_inclusion(owed.leaf_hash, owed.log_index, known.size, list(message.proof), known.root)
        except TrustError as err:
            self._contradicted(owed, err)
            return
        self._owed.settle(owed.digest)

    def _is_overdue(self, owed: Owed, size: int) -> bool:
        """Only a question that was left open from one look to the next counts: a line that breaks is no silence."""
        is_asked = owed.log_index < size
        return self._silent.get(owed.digest, 0) >= PATIENCE if is_asked else owed.growths >= GROWTHS

    def _give_up(self, overdue: Iterable[Owed]) -> None:
        for each in overdue:
            self._asked.pop(each.digest, None)
            why = "no proof came of what the coordinator said it recorded"
            self._contradicted(each, TrustError(why, code=LOG_INCLUSION))

    def _contradicted(self, owed: Owed, why: TrustError) -> None:
        text = f"{why.code}: {why.message} (statement {owed.digest}, entry {owed.log_index})"
        is_first = not self._logwatch.alarm  # said once; what else fails is kept beside it
        if is_first:
            self._logwatch.raise_alarm(text)  # before it is put aside: a kill in between must not lose the alarm
        self._owed.fail(owed.digest, text)
        if is_first:
            raise contradiction() from why


def _request(owed: Owed, size: int) -> session_pb2.AgentMessage:
    return session_pb2.AgentMessage(proof_request=session_pb2.ProofRequest(statement_digest=owed.digest, log_size=size))


def recorded_leaf(handed_in: bytes, salt: bytes, shown: bytes, nation: Nation) -> tuple[Digest, bytes]:
    """What a word of the coordinator commits it to (rule 1): the statement's digest and its leaf's hash.

    Args:
        handed_in: the envelope that this agent sent.
        shown: the one that stands in the log instead; empty: the very same.

    Raises: InvalidInput, LimitExceeded: it names no leaf. TrustError: what is shown is not this nation's word.
    """
    if len(salt) != SALT_BYTES:
        raise InvalidInput("the coordinator says that it recorded a statement and does not name its leaf")
    if len(shown) > MAX_SHOWN_BYTES:
        raise LimitExceeded(f"the coordinator shows a statement of more than {MAX_SHOWN_BYTES} bytes")
    standing = shown or handed_in
    found = statement.unverified(standing)
    if shown:
        signers = statement.claimed_signers(shown)
        keys = [each.key for each in nation.delegations() if each.key.key_id in signers]
        statement.verify(shown, found.kind, keys, 1)
    return digest_of(found.payload()), leaf_hash(leaf_data(salt, standing))
