"""The port for what trust rests on: charter versions, revocations, policy bundles.

Nothing here verifies a signature. It keeps what was verified, and keeps the two rules that a database can: a charter's
versions are consecutive, a bundle's revision is never lowered.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from treaty.names import Digest, PartyCode


@dataclass(frozen=True, slots=True)
class StoredCharter:
    version: int
    digest: Digest
    envelope: bytes
    added_at: datetime


class RevocationKind(StrEnum):
    AGENT = "agent"
    CA = "ca"


@dataclass(frozen=True, slots=True)
class Revocation:
    """`subject` is an agent's SPIFFE id or the digest of a nation's CA certificate, never a serial."""

    kind: RevocationKind
    subject: str
    reason: str
    revoked_by: str
    revoked_at: datetime


@dataclass(frozen=True, slots=True)
class StoredBundle:
    authority: PartyCode
    revision: int
    digest: Digest
    bundle: bytes
    envelope: bytes
    added_at: datetime


class Trust(Protocol):
    async def add_charter(self, version: int, digest: Digest, envelope: bytes) -> None:
        """Keep a verified version. The same one again changes nothing.

        Raises: RollbackRefused: the version is older; ConflictError: another one has this version, or one is missing
            in between.
        """
        ...

    async def charter(self, version: int | None = None) -> StoredCharter:
        """That version, or the latest. Raises NotFound."""
        ...

    async def revoke(self, kind: RevocationKind, subject: str, *, reason: str, revoked_by: str) -> None:
        """Durable and final. Again: the first one stays."""
        ...

    async def revocations(self) -> tuple[Revocation, ...]:
        """All, oldest first."""
        ...

    async def add_bundle(
        self, authority: PartyCode, revision: int, *, digest: Digest, bundle: bytes, envelope: bytes
    ) -> None:
        """Keep a verified bundle. The same one again changes nothing.

        Raises: RollbackRefused: a later revision is stored; ConflictError: the revision is another bundle's.
        """
        ...

    async def bundle(self, authority: PartyCode, revision: int | None = None) -> StoredBundle:
        """That revision, or the latest. Raises NotFound."""
        ...
