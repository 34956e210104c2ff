"""Does the record hold, and what does it say crossed which border? What an auditor computes from the log alone.

Steps of `verify`, carried into the code:
1. the checkpoint is signed by the log's key, as the charter names it, and is of the charter's log;
2. it extends the checkpoint that this auditor kept: by its proof, and by the very leaves that were read;
3. every leaf is there, in order, and each statement shown is the one that its leaf commits to (RFC 6962 hashing);
4. the leaves give the checkpoint's root; each statement's inclusion is proved from it besides;
5. each statement is signed by whom the charter, or a delegation found in the log, entitles (`treaty.audit_signatures`);
6. receipts, rounds, plans and tallies agree with one another (`treaty.audit_crossings`).

Steps 1 to 4 raise: a record that fails them says nothing. What fails in 5 and 6 is told, entry by entry, and the audit
`holds` only if nothing did. No I/O, no clock: a statement is judged as of the time it states.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from treaty import statement
from treaty.audit_crossings import Crossings, RoundSaid, crossings
from treaty.audit_signatures import Entitled, Finding, SignedEntry, believe, entitled
from treaty.charter import Charter
from treaty.errors import BadSignature, FoedusError, TrustError
from treaty.log import Checkpoint, Tree, follow, leaf_hash, verify_checkpoint, verify_inclusion
from treaty.log.leaf import SALT_BYTES, leaf_data

__all__ = [
    "Audit",
    "Crossings",
    "Entry",
    "Finding",
    "Offered",
    "RoundSaid",
    "known_checkpoint",
    "verified_tree",
    "verify",
]


@dataclass(frozen=True, slots=True)
class Entry:
    """One leaf as it was read. Without salt and statement it was forgotten, or is not for this reader."""

    index: int
    leaf_hash: bytes
    salt: bytes | None
    statement: bytes | None


@dataclass(frozen=True, slots=True)
class Offered:
    """What was shown: the signed note, all entries below it, the coordinator's proof from what was known.

    `proof` is None where nobody was asked for one (an export): the leaves are then the whole proof.
    """

    note: bytes
    entries: Sequence[Entry]
    proof: Sequence[bytes] | None = None


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found. `kinds` counts the statements; `crossings` says what left whom."""

    checkpoint: Checkpoint
    known_size: int
    kinds: Mapping[str, int]
    forgotten: int
    crossings: Crossings
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        return not self.findings


def known_checkpoint(note: bytes, charter: Charter) -> Checkpoint:
    """Believe a checkpoint that was kept. Raises: as `verify_checkpoint`."""
    keys = charter.coordinator.log.keys
    for key in keys[:-1]:
        try:
            return verify_checkpoint(note, charter.log_origin, key.public)
        except BadSignature:
            continue
    return verify_checkpoint(note, charter.log_origin, keys[-1].public)


def verify(offered: Offered, charter: Charter, known: Checkpoint | None) -> Audit:
    """Audit the record by the steps in the module's docstring. `charter` is believed already.

    Raises: BadSignature, TrustError, RollbackRefused, InvalidInput: steps 1 to 4 failed.
    """
    checkpoint = known_checkpoint(offered.note, charter)  # 1
    if offered.proof is not None or (known is not None and checkpoint.size < known.size):
        follow(known, checkpoint, offered.proof or ())  # 2, by its proof
    tree = verified_tree(offered.entries, checkpoint)  # 3, 4
    if known is not None and tree.root(known.size) != known.root:  # 2, by its leaves
        raise TrustError("the entries do not extend the checkpoint that was kept", code="LOG_CONSISTENCY")
    signed, findings = _signed(offered.entries, charter)  # 5
    said = crossings(signed)  # 6
    shown = [entry for entry in offered.entries if entry.statement is not None]
    for entry in shown:  # 4, entry by entry
        proof = tree.inclusion_proof(entry.index, checkpoint.size)
        verify_inclusion(entry.leaf_hash, entry.index, checkpoint.size, proof, checkpoint.root)
    return Audit(
        checkpoint=checkpoint,
        known_size=known.size if known is not None else 0,
        kinds=dict(Counter(str(entry.statement.kind) for entry in signed)),
        forgotten=len(offered.entries) - len(shown),
        crossings=said,
        findings=(*findings, *said.findings),
    )


def _tree(entries: Sequence[Entry], size: int) -> Tree:
    """The tree over the leaves, each of which is there and commits to what it shows."""
    if len(entries) != size:
        raise TrustError(f"the checkpoint covers {size} entries, {len(entries)} were shown", code="LOG_INCOMPLETE")
    tree = Tree()
    for place, entry in enumerate(entries):
        if entry.index != place:
            raise TrustError(f"entry {place} is missing, {entry.index} stands there", code="LOG_INCOMPLETE")
        if (entry.salt is None) != (entry.statement is None):
            raise TrustError(f"entry {place} shows a salt or a statement alone", code="LOG_LEAF")
        if entry.salt is not None and entry.statement is not None:
            is_committed = len(entry.salt) == SALT_BYTES and entry.leaf_hash == leaf_hash(
                leaf_data(entry.salt, entry.statement)
            )
            if not is_committed:
                raise TrustError(f"the statement of entry {place} is not what the log committed to", code="LOG_LEAF")
        tree.append(entry.leaf_hash)
    return tree


def verified_tree(entries: Sequence[Entry], checkpoint: Checkpoint) -> Tree:
    """The tree over all entries of a believed checkpoint (steps 3 and 4).

    Raises: TrustError: one is missing, shows what its leaf does not commit to, or they do not give the root.
    """
    tree = _tree(entries, checkpoint.size)
    if tree.root(checkpoint.size) != checkpoint.root:
        raise TrustError("the entries do not give the checkpoint's root", code="LOG_ROOT")
    return tree


def _signed(entries: Sequence[Entry], charter: Charter) -> tuple[list[SignedEntry], list[Finding]]:
    """Statements with valid signatures, and a finding for each other one."""
    parsed: list[tuple[int, bytes, statement.Statement]] = []
    findings: list[Finding] = []
    for entry in entries:
        if entry.statement is None:
            continue
        try:
            parsed.append((entry.index, entry.statement, statement.unverified(entry.statement)))
        except FoedusError as err:
            findings.append(Finding(entry.index, "statement", err.code, err.message))
    trusted: Entitled = entitled(charter, [(envelope, claimed) for _, envelope, claimed in parsed])
    signed = []
    for index, envelope, claimed in parsed:
        try:
            signed.append(SignedEntry(index, believe(envelope, claimed, trusted)))
        except FoedusError as err:
            findings.append(Finding(index, str(claimed.kind), err.code, err.message))
    return signed, findings
