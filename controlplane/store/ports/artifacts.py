"""The port for what artifacts are made of and who may pull them. The bytes of chunks lie elsewhere.

A manifest is a draft until its publisher's threshold has signed it. Global arrays of a round are kept the same way,
under the digest that names them. A grant is an agent's right to pull one manifest, live while its directive is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from treaty.names import Digest, KeyId


@dataclass(frozen=True, slots=True)
class ChunkReference:
    digest: Digest
    bytes: int


@dataclass(frozen=True, slots=True)
class StoredManifest:
    digest: Digest
    manifest: bytes
    owner: str
    is_ready: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class StoredSignature:
    key_id: KeyId
    envelope: bytes


class Artifacts(Protocol):
    async def add_manifest(
        self, digest: Digest, manifest: bytes, *, owner: str, chunks: Sequence[ChunkReference], is_ready: bool = False
    ) -> None:
        """Keep a manifest and what it refers to. The same one again changes nothing.

        Raises: ConflictError: the digest is known with other bytes.
        """
        ...

    async def manifest(self, digest: Digest) -> StoredManifest:
        """Raises NotFound."""
        ...

    async def drafts(self) -> tuple[StoredManifest, ...]:
        """Manifests that are not ready, oldest first."""
        ...

    async def mark_ready(self, digest: Digest) -> None:
        """Idempotent. Raises NotFound."""
        ...

    async def drop_manifest(self, digest: Digest) -> None:
        """Forget a manifest with its signatures, references and grants. Idempotent."""
        ...

    async def sign(self, digest: Digest, key_id: KeyId, envelope: bytes) -> None:
        """Keep one verified signature per key; again: the first one stays. Raises NotFound: no such manifest."""
        ...

    async def signatures(self, digest: Digest) -> tuple[StoredSignature, ...]:
        """By key id."""
        ...

    async def chunks(self, digest: Digest) -> tuple[ChunkReference, ...]:
        """The chunks of a manifest, each once, by digest."""
        ...

    async def unreferenced(self, chunks: Iterable[Digest]) -> tuple[Digest, ...]:
        """Those of `chunks` that no manifest refers to, sorted."""
        ...

    async def grant(self, agent: str, digest: Digest, subject: str) -> None:
        """Let `agent` pull a manifest for `subject` (a rollout, a round). Idempotent. Raises NotFound."""
        ...

    async def withdraw(self, agent: str, subject: str) -> None:
        """End what was granted for `subject`. Idempotent."""
        ...

    async def may_pull(self, agent: str, digest: Digest) -> bool:
        """Whether `agent` has a grant for the manifest."""
        ...
