"""The coordinator's record: every signed statement once, in the order in which it became durable.

Rules:
1. a statement is known by the digest of its payload; offered again, with whatever signatures, it keeps its index;
2. an index is told only after the disk has it (`controlplane.record.group_commit`);
3. a checkpoint covers everything durable when it is made, and one reader's proofs start where that reader stood;
4. a coordinator that is behind its own record adds nothing to it: a second tree of the same size would be a fork.

What a statement means, and who may offer it, is decided before it comes here.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass

from controlplane.record import restoring
from controlplane.record.group_commit import GroupCommit
from controlplane.record.log_files import LogFiles
from controlplane.record.restoring import Tell
from treaty import statement
from treaty.audit import Offered
from treaty.errors import Corrupt, InvalidInput, PreconditionFailed
from treaty.log import Entry, Leaf, SignedCheckpoint, new_entry
from treaty.names import Digest, digest_of
from treaty.statement import MAX_ENVELOPE_BYTES, StatementKind
from treaty.strict_json import parse_object

MAX_ENTRIES_PER_READ = 1000
COORDINATOR_BEHIND = "COORDINATOR_BEHIND"
FORGOTTEN = "FORGOTTEN"
"""The statement was recorded, and its text and salt are gone."""


@dataclass(frozen=True, slots=True)
class Head:
    """The newest checkpoint for a reader who stood at `from_size`, with the proof that it extends that."""

    checkpoint: SignedCheckpoint
    from_size: int
    proof: tuple[bytes, ...]


class StatementRecord:
    """The record over an open log. `run` is a task of the process: without it nothing is recorded."""

    def __init__(self, log: LogFiles) -> None:
        self._log = log
        self._commits = GroupCommit(log)
        self._index: dict[Digest, int] = {}
        self._by_kind: dict[StatementKind, list[int]] = {kind: [] for kind in StatementKind}
        self._pending: dict[Digest, asyncio.Future[int]] = {}
        self.is_frozen = False
        """Whether this coordinator found that it is behind (rule 4)."""

    def load(self) -> None:
        """Learn what is recorded already. Blocks on the disk; call it once, before `run`.

        Raises: Corrupt: an entry of the log is no statement.
        """
        for index in range(self._log.size):
            envelope = self._log.entry(index).statement
            if envelope is not None:
                self._learn(envelope, index)

    def missing(self, offered: Offered, tell: Tell) -> list[Entry]:
        """What a copy of this record has and this one lacks. Blocks. Raises as `restoring.missing`."""
        return restoring.missing(self._log, offered, tell)

    def restore(self, entries: Sequence[Entry], tell: Tell) -> None:
        """Append what `missing` found. Blocks on the disk; only while nothing else is recorded."""
        first = self._log.size
        restoring.restore(self._log, entries, tell)
        for index, entry in enumerate(entries, first):
            self._learn(entry.statement, index)

    async def run(self) -> None:
        await self._commits.run()

    @property
    def size(self) -> int:
        return self._log.size

    def known(self, digest: Digest) -> int | None:
        """Where the statement is recorded, None if it is not."""
        return self._index.get(digest)

    async def append(self, envelope: bytes) -> int:
        """Make a verified statement durable; its index. Idempotent by the statement's digest.

        Raises: PreconditionFailed (COORDINATOR_BEHIND): rule 4.
        """
        digest = statement_digest(envelope)
        while True:
            if (index := self._index.get(digest)) is not None:
                return index
            if (pending := self._pending.get(digest)) is None:
                break
            await asyncio.wait([pending])
        if self.is_frozen:
            raise PreconditionFailed(
                "the coordinator was restored from a backup, and adds nothing to its record",
                code=COORDINATOR_BEHIND,
                remedy="run 'foedus-coordinator recover --record' with an export of the record",
            )
        return await self._submit(digest, envelope)

    async def _submit(self, digest: Digest, envelope: bytes) -> int:
        work: Coroutine[None, None, int] = self._commits.submit(new_entry(envelope))
        # Shielded: who gives up must not leave a recorded statement unknown, or it would be recorded twice.
        task = self._pending[digest] = asyncio.ensure_future(work)
        task.add_done_callback(self._finished(digest, envelope))
        return await asyncio.shield(task)

    def _finished(self, digest: Digest, envelope: bytes) -> Callable[[asyncio.Future[int]], None]:
        def learn(done: asyncio.Future[int]) -> None:
            del self._pending[digest]
            if not done.cancelled() and done.exception() is None:
                self._learn(envelope, done.result())

        return learn

    def _learn(self, envelope: bytes, index: int) -> None:
        try:
            found = statement.unverified(envelope)
        except InvalidInput as err:
            raise Corrupt(f"entry {index} of the log is not a statement") from err
        self._index[digest_of(found.payload())] = index
        self._by_kind[found.kind].append(index)

    def of_kind(self, kind: StatementKind) -> Iterator[bytes]:
        """Envelopes of that kind which were not forgotten, oldest first. Blocks on the disk."""
        for index in tuple(self._by_kind[kind]):
            envelope = self._log.entry(index).statement
            if envelope is not None:
                yield envelope

    async def publish(self) -> SignedCheckpoint:
        """Sign a checkpoint of everything durable now; the last one where nothing is new."""
        return await self._commits.publish()

    def head(self, from_size: int) -> Head:
        """The newest published checkpoint, proved from `from_size` (0: nothing to prove).

        Raises: InvalidInput: `from_size` lies beyond it.
        """
        signed = self._log.checkpoint()
        size = signed.checkpoint.size
        if not 0 <= from_size <= size:
            raise InvalidInput(f"the log has {size} entries, not {from_size}", code="LOG_BEYOND")
        is_needed = 0 < from_size < size
        return Head(signed, from_size, tuple(self._log.consistency(from_size, size)) if is_needed else ())

    async def leaf(self, index: int) -> Leaf:
        """Entry `index` as it was recorded, read off the loop. Raises: NotFound: there is none."""
        return await asyncio.to_thread(self._log.entry, index)

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """Proof that entry `index` is in the tree of `size`. Raises InvalidInput (LOG_BEYOND): it is not."""
        if not index < size <= self._log.size:
            raise InvalidInput(f"entry {index} is not in a tree of {size} of this log", code="LOG_BEYOND")
        return tuple(self._log.inclusion(index, size))

    def root(self, size: int) -> bytes:
        """Root of the first `size` entries. Raises InvalidInput beyond the log."""
        return self._log.root(size)

    def read(self, first: int, end: int) -> Iterator[Leaf]:
        """Entries `first` to before `end`, as far as there are, at most 1000. Blocks on the disk."""
        for index in range(first, min(end, self._log.size, first + MAX_ENTRIES_PER_READ)):
            yield self._log.entry(index)


def statement_digest(envelope: bytes) -> Digest:
    """Digest of an envelope's payload as it stands; the signatures do not count. Raises InvalidInput."""
    payload = parse_object(envelope, max_bytes=MAX_ENVELOPE_BYTES).get("payload")
    if not isinstance(payload, str):
        raise InvalidInput("the envelope has no payload")
    try:
        return digest_of(base64.b64decode(payload, validate=True))
    except (binascii.Error, ValueError):
        raise InvalidInput("the envelope's payload is not base64") from None
