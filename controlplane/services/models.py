"""Model versions: a draft from its publisher, Ready at the publishers' threshold, never changed afterwards.

Rules:
1. a manifest enters with at least one valid signature of a publisher that the charter names, or not at all;
2. a name and version mean one manifest forever, and a new version comes after the ones that are Ready;
3. a version names only Ready versions as its base and parents, and its label is at least as strict as what theirs
   imply: the highest classification, the intersection of the releasabilities;
4. it is Ready when the threshold has signed and every chunk is here; then, and only then, it is recorded and may be
   rolled out;
5. what is missing is told of this draft alone: chunks of Ready versions and those that this draft brought. Nothing says
   whether a chunk exists elsewhere (in another's draft, in a run's arrays).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from controlplane.artifacts.store import ChunkStore
from controlplane.artifacts.uploads import Upload
from controlplane.services.drafts import MAX_DRAFT_BYTES, check_room
from controlplane.services.ports import Clock, Record
from controlplane.services.trust import Trust
from controlplane.store import Store
from controlplane.store.ports.artifacts import ChunkReference, StoredManifest
from treaty import statement
from treaty.errors import ConflictError, InvalidInput, NotFound, PreconditionFailed, TrustError
from treaty.label import derived_label
from treaty.manifest import Manifest, check_newer, parse_manifest
from treaty.names import Digest, ModelRef, SpiffeId, digest, model_ref
from treaty.resources.meta import (
    AnyResource,
    Condition,
    ConditionStatus,
    Resource,
    is_true,
    new_resource,
    with_condition,
)
from treaty.resources.models import (
    MODEL_READY,
    MODEL_VERSION,
    Label,
    Lineage,
    ModelVersionSpec,
    ModelVersionStatus,
    SignedBy,
    model_version_name,
)
from treaty.statement import StatementKind
from treaty.strict_json import canonical

MAX_PARSED: Final = 64
"""Manifests kept parsed; a treaty rolls out and trains on a few at a time."""

ModelVersion = Resource[ModelVersionSpec, ModelVersionStatus]


class Models:
    """The verbs. Chunks lie in `chunks`; manifests, signatures and resources in `store`."""

    def __init__(
        self,
        store: Store,
        chunks: ChunkStore,
        trust: Trust,
        record: Record,
        clock: Clock,
        *,
        max_draft_bytes: int = MAX_DRAFT_BYTES,
    ) -> None:
        self._store = store
        self._chunks = chunks
        self._trust = trust
        self._record = record
        self._clock = clock
        self._max_draft_bytes = max_draft_bytes
        self._brought: dict[Digest, set[Digest]] = {}
        self._wanted: dict[Digest, set[Digest]] = {}
        self._parsed: dict[Digest, Manifest] = {}

    async def publish(self, envelope: bytes, caller: SpiffeId) -> AnyResource:
        """Take a manifest as a draft. The same one again adds its signatures.

        Raises: BadSignature: no publisher signed it. ConflictError: the name and version mean another manifest.
        RollbackRefused: not newer. PreconditionFailed: base or parent is not Ready. TrustError: the label is too loose.
        ResourceExhausted: the caller has too many drafts.
        """
        self._trust.check_current()
        manifest = self._verified(envelope, threshold=1)  # 1
        await self._check_name(manifest)  # 2
        await self._check_lineage(manifest)  # 3
        await check_room(self._store, manifest, str(caller), max_bytes=self._max_draft_bytes)
        references = [ChunkReference(chunk, size) for chunk, size in manifest.chunk_bytes.items()]
        await self._store.artifacts.add_manifest(
            manifest.digest, manifest.encoded, owner=str(caller), chunks=references
        )
        await self._create_resource(manifest)
        return await self._sign(manifest, envelope)

    async def sign(self, envelope: bytes, caller: SpiffeId) -> AnyResource:
        """Add signatures to a draft. Raises: NotFound: it was not published."""
        manifest = self._verified(envelope, threshold=1)
        await self._store.artifacts.manifest(manifest.digest)
        return await self._sign(manifest, envelope)

    async def manifest(self, reference: str) -> bytes:
        """The manifest of a version with all its signatures, as one envelope. Raises: NotFound."""
        manifest_digest = await self.digest_of(reference)
        signatures = await self._store.artifacts.signatures(manifest_digest)
        if not signatures:
            raise NotFound(f"there is no signed manifest {manifest_digest}")
        merged = signatures[0].envelope
        for signature in signatures[1:]:
            merged = statement.merge_signatures(merged, signature.envelope)
        return merged

    async def digest_of(self, reference: str) -> Digest:
        """The manifest digest that a `name@version` or a digest means. Raises: NotFound, InvalidInput."""
        if reference.startswith("sha256:"):
            return digest(reference)
        return (await self._resource(model_ref(reference))).spec.manifest_digest

    async def ready(self, manifest_digest: Digest) -> Manifest:
        """A version that may be rolled out or trained on. Raises: PreconditionFailed: it is a draft. NotFound."""
        stored = await self._store.artifacts.manifest(manifest_digest)
        if not stored.is_ready:
            raise PreconditionFailed(
                f"{manifest_digest} is a draft", remedy="upload its chunks and sign it with 'foedus model sign'"
            )
        return self._read(stored)

    async def missing(self, manifest_digest: Digest) -> Sequence[Digest]:
        """Chunks that this draft still needs, in file order (rule 5)."""
        stored = await self._store.artifacts.manifest(manifest_digest)
        return await self._absent(self._read(stored))

    async def put_chunk(self, manifest_digest: Digest, chunk_digest: Digest, data: bytes) -> None:
        """Store one chunk of a draft. Idempotent. The last one may make the version Ready."""
        stored = await self._store.artifacts.manifest(manifest_digest)
        manifest = self._read(stored)
        upload = Upload(manifest, self._chunks)
        await asyncio.to_thread(upload.take, chunk_digest, data, now=self._clock())
        if stored.is_ready:
            return
        self._brought.setdefault(manifest_digest, set()).add(chunk_digest)
        # Worked out once and then counted down: a draft of ten thousand chunks must not be compared ten thousand times.
        wanted = self._wanted.get(manifest_digest)
        if wanted is None:
            wanted = self._wanted[manifest_digest] = set(await self._absent(manifest))
        wanted.discard(chunk_digest)
        if not wanted:
            await self._settle(manifest)

    def _read(self, stored: StoredManifest) -> Manifest:
        """Parse it once: a large model's manifest takes long, and each of its chunks asks for it."""
        manifest = self._parsed.pop(stored.digest, None) or parse_manifest(stored.manifest)
        self._parsed[stored.digest] = manifest  # the last one read is the last one to go
        if len(self._parsed) > MAX_PARSED:
            del self._parsed[next(iter(self._parsed))]
        return manifest

    def _verified(self, envelope: bytes, *, threshold: int) -> Manifest:
        keys = self._trust.charter.publishers.keys
        verified = statement.verify(envelope, StatementKind.MANIFEST, keys, threshold)
        return parse_manifest(canonical(verified.statement.predicate))

    async def _check_name(self, manifest: Manifest) -> None:
        about = manifest.about
        for known in await self._versions():
            if known.spec.name != about.name:
                continue
            if known.spec.version == about.version and known.spec.manifest_digest != manifest.digest:
                raise ConflictError(f"{manifest.ref} is another manifest already", remedy="publish a new version")
            if known.spec.version != about.version and is_true(known.status.conditions, MODEL_READY):
                check_newer(known.spec.version, about.version)

    async def _check_lineage(self, manifest: Manifest) -> None:
        about = manifest.about
        parents = [await self.ready(parent) for parent in about.lineage.parents]
        sources = [parent.about.label for parent in parents]
        datasets = [dataset.label for dataset in about.lineage.datasets]
        if sources or datasets:
            floor = derived_label(sources, datasets)
            if not about.label.is_at_least(floor):
                raise TrustError(
                    f"the label of {manifest.ref} is looser than its parents and datasets allow",
                    remedy=f"label it {floor.classification} REL TO {', '.join(floor.rel_to) or 'nobody'}, or stricter",
                )

    async def _create_resource(self, manifest: Manifest) -> None:
        about = manifest.about
        spec = ModelVersionSpec(
            name=about.name,
            version=about.version,
            manifest_digest=manifest.digest,
            licence=about.licence,
            label=Label(about.label.classification, about.label.rel_to),
            base_digest=about.base,
            lineage=Lineage(about.lineage.parents, about.lineage.run),
            releasable_to=about.label.rel_to,
        )
        status = ModelVersionStatus(bytes=manifest.total_bytes, threshold=self._trust.charter.publishers.threshold)
        draft = new_resource(MODEL_VERSION, model_version_name(manifest.ref), spec, status=status)
        try:
            await self._store.resources.create(draft)
        except ConflictError:
            if (await self._resource(manifest.ref)).spec != spec:
                raise

    async def _sign(self, manifest: Manifest, envelope: bytes) -> AnyResource:
        verified = statement.verify(envelope, StatementKind.MANIFEST, self._trust.charter.publishers.keys, 1)
        for signer in sorted(verified.signers):
            # Its own signature and no other: what a publisher put under another's key id must not stand in its way.
            await self._store.artifacts.sign(manifest.digest, signer, statement.only(envelope, {signer}))
        return await self._settle(manifest)

    async def _settle(self, manifest: Manifest) -> AnyResource:
        """Make the resource say how far the version is, and Ready when nothing is missing (rule 4)."""
        resource = await self._resource(manifest.ref)
        publishers = {key.key_id for key in self._trust.charter.publishers.keys}
        signatures = await self._store.artifacts.signatures(manifest.digest)
        signed = [signature for signature in signatures if signature.key_id in publishers]
        absent = await self._absent(manifest)
        status = replace(resource.status, signatures=tuple(SignedBy(signature.key_id) for signature in signed))
        threshold = self._trust.charter.publishers.threshold
        is_ready = False
        if len(signed) < threshold:
            lacking = f"{len(signed)} of {threshold} signatures"
            condition = Condition(MODEL_READY, ConditionStatus.FALSE, "MissingSignatures", lacking)
        elif absent:
            condition = Condition(MODEL_READY, ConditionStatus.FALSE, "MissingChunks", f"{len(absent)} chunks missing")
        else:
            envelope = await self.manifest(manifest.digest)
            self._verified(envelope, threshold=threshold)
            index = await self._record.append(envelope)
            is_ready = True
            status = replace(status, log_index=index)
            condition = Condition(
                MODEL_READY, ConditionStatus.TRUE, "Signed", f"{len(signed)} of {threshold} signatures"
            )
        changed = with_condition(replace(resource, status=status), condition, self._clock())
        async with self._store.transaction() as change:
            if is_ready:
                await change.artifacts.mark_ready(manifest.digest)
            settled = await change.resources.update_status(changed)
        if is_ready:
            self._brought.pop(manifest.digest, None)
            self._wanted.pop(manifest.digest, None)
        return settled

    async def _absent(self, manifest: Manifest) -> tuple[Digest, ...]:
        stored = await self._store.artifacts.manifest(manifest.digest)
        if stored.is_ready:
            return ()
        told = self._brought.get(manifest.digest, set()) | await self._chunks_of_ready()
        return tuple(chunk for chunk in manifest.chunk_bytes if chunk not in told or not self._chunks.has(chunk))

    async def _chunks_of_ready(self) -> set[Digest]:
        known: set[Digest] = set()
        for version in await self._versions():
            if is_true(version.status.conditions, MODEL_READY):
                known.update(chunk.digest for chunk in await self._store.artifacts.chunks(version.spec.manifest_digest))
        return known

    async def _versions(self) -> Sequence[ModelVersion]:
        return await self._store.resources.all(MODEL_VERSION)

    async def _resource(self, reference: ModelRef) -> ModelVersion:
        return await self._store.resources.get(MODEL_VERSION, model_version_name(reference))


def base_shapes(manifest: Manifest) -> Mapping[str, tuple[int, ...]]:
    """Tensor names and shapes of a version: what an adapter's shapes follow from.

    Raises: InvalidInput: it has no tensors.
    """
    shapes = {tensor.name: tensor.shape for file in manifest.files for tensor in file.tensors}
    if not shapes:
        raise InvalidInput(f"{manifest.ref} has no tensors to train on")
    return shapes
