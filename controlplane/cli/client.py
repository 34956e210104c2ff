"""The one door to the coordinator: gRPC calls as values, each with a deadline and the command's trace id.

Failures come out as `treaty.errors`. Resources are read with the strict codec, so a coordinator of a later version is
understood or refused in one line. Long streams (a watch, a run's progress) are cut by the coordinator now and then, so
that certificates stay fresh; they are taken up again here where they ended.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import grpc

from controlplane.cli.identity import check_address, read_identity
from controlplane.cli.settings import Context
from treaty import names
from treaty.errors import NotFound, TrustError, Unavailable
from treaty.names import Digest
from treaty.resources import codec
from treaty.resources.meta import AnyResource
from treaty.strict_json import JsonObject, parse_object
from treaty.wire.credentials import ClientIdentity, mutual_channel
from treaty.wire.status import translated
from treaty.wire.v1 import operator_pb2, operator_pb2_grpc, transfer_pb2, transfer_pb2_grpc

CALL_SECONDS: Final = 35
"""A little over the coordinator's own limit, so that its reason arrives instead of our deadline."""
STREAM_SECONDS: Final = 600
PATIENCE_SECONDS: Final = 30
"""How long a broken stream is taken up again before the coordinator counts as gone."""
_LASTING_SECONDS: Final = 5
PAGE: Final = 500
MAX_PLAN_BYTES: Final = 8 * 1024 * 1024
PEER: Final = "the coordinator"
_UNBELIEVED: Final = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification Check failed")
"""What gRPC's own words hold where the server's certificate is not of the CA, is over, or is for another name."""


class Change(StrEnum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


CHANGES: Final = {
    operator_pb2.WATCH_EVENT_TYPE_ADDED: Change.ADDED,
    operator_pb2.WATCH_EVENT_TYPE_MODIFIED: Change.MODIFIED,
    operator_pb2.WATCH_EVENT_TYPE_DELETED: Change.DELETED,
}


@dataclass(frozen=True, slots=True)
class Listing:
    """Resources of one kind, and where a watch of it continues."""

    items: tuple[AnyResource, ...]
    resource_version: int


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """`digest` is empty where the quorum was missed; `document` says why, by nation."""

    document: JsonObject
    digest: str


@asynccontextmanager
async def connected(settings: Context, trace_id: str) -> AsyncIterator[Client]:
    """A client for the body, closed afterwards. Raises as `read_identity` before anything is dialled."""
    check_address(settings.coordinator)
    own = read_identity(settings)
    shown = ClientIdentity(key=own.key, certificate=own.certificate)
    async with mutual_channel(settings.coordinator, own.ca, shown) as channel:
        yield Client(channel, settings, trace_id)


class Client:
    """One command's calls over one connection."""

    def __init__(self, channel: grpc.aio.Channel, settings: Context, trace_id: str) -> None:
        self._stub = operator_pb2_grpc.OperatorStub(channel)
        self._artifacts = transfer_pb2_grpc.ArtifactsStub(channel)
        self._settings = settings
        # W3C Trace Context level 1: version, trace id, the command's own span, sampled.
        self._metadata = (("traceparent", f"00-{trace_id}-{secrets.token_hex(8)}-01"),)

    async def get(self, kind: str, name: str) -> AnyResource:
        request = operator_pb2.GetRequest(kind=kind, name=name)
        async with self._call():
            return _resource(await self._stub.Get(request, timeout=CALL_SECONDS, metadata=self._metadata))

    async def list(self, kind: str, selector: str = "") -> Listing:
        """All of a kind, page by page; the watch continues from the first page."""
        items: list[AnyResource] = []
        after, version = "", None
        while version is None or after:
            request = operator_pb2.ListRequest(kind=kind, label_selector=selector, limit=PAGE, continue_after=after)
            async with self._call():
                page = await self._stub.List(request, timeout=CALL_SECONDS, metadata=self._metadata)
            items += map(_resource, page.items)
            after, version = page.continue_after, page.resource_version if version is None else version
        return Listing(tuple(items), version)

    async def watch(self, kind: str, since: int) -> AsyncIterator[tuple[Change, AnyResource]]:
        """Every change after `since`; never ends by itself. Raises: Unavailable: the coordinator stays away."""
        patience = _Patience()
        while True:
            patience.begin()
            request = operator_pb2.WatchRequest(kind=kind, since_resource_version=since)
            try:
                async with self._call():
                    stream = self._stub.Watch(request, timeout=STREAM_SECONDS, metadata=self._metadata)
                    async for event in stream:
                        resource = _resource(event.resource)
                        since = max(since, resource.metadata.resource_version)
                        if event.type in CHANGES:
                            yield CHANGES[event.type], resource
            except Unavailable as err:
                await patience.after(err)

    async def apply(self, document: bytes, *, dry_run: bool = False) -> AnyResource:
        request = operator_pb2.ApplyRequest(json=document, dry_run=dry_run)
        async with self._call():
            return _resource(await self._stub.Apply(request, timeout=CALL_SECONDS, metadata=self._metadata))

    async def delete(self, kind: str, name: str) -> AnyResource:
        request = operator_pb2.DeleteRequest(kind=kind, name=name)
        async with self._call():
            return _resource(await self._stub.Delete(request, timeout=CALL_SECONDS, metadata=self._metadata))

    async def publish_charter(self, envelope: bytes) -> tuple[Digest, int]:
        request = operator_pb2.PublishCharterRequest(envelope=envelope)
        async with self._call():
            answer = await self._stub.PublishCharter(request, timeout=CALL_SECONDS, metadata=self._metadata)
        return names.digest(answer.digest), answer.version

    async def accept_agent(self, agent: str) -> AnyResource:
        request = operator_pb2.AcceptAgentRequest(agent=agent)
        async with self._call():
            return _resource(await self._stub.AcceptAgent(request, timeout=CALL_SECONDS, metadata=self._metadata))

    async def revoke(self, subject: str, reason: str) -> AnyResource | None:
        """The agent's resource; None where nobody had connected under what was revoked."""
        request = operator_pb2.RevokeAgentRequest(subject=subject, reason=reason)
        async with self._call():
            answer = await self._stub.RevokeAgent(request, timeout=CALL_SECONDS, metadata=self._metadata)
        return _resource(answer) if answer.json else None

    async def publish_model(self, envelope: bytes) -> AnyResource:
        request = operator_pb2.PublishModelRequest(envelope=envelope)
        async with self._call():
            return _resource(await self._stub.PublishModel(request, timeout=CALL_SECONDS, metadata=self._metadata))

    async def sign_model(self, envelope: bytes) -> AnyResource:
        request = operator_pb2.SignModelRequest(envelope=envelope)
        async with self._call():
            return _resource(await self._stub.SignModel(request, timeout=CALL_SECONDS, metadata=self._metadata))

    async def manifest(self, reference: str) -> bytes:
        """The manifest's envelope with all its signatures; nothing of it is believed yet."""
        request = operator_pb2.FetchManifestRequest(model=reference)
        async with self._call():
            return (await self._stub.FetchManifest(request, timeout=CALL_SECONDS, metadata=self._metadata)).envelope

    async def missing(self, manifest: Digest) -> frozenset[Digest]:
        request = transfer_pb2.MissingRequest(manifest_digest=manifest)
        async with self._call():
            answer = await self._artifacts.Missing(request, timeout=CALL_SECONDS, metadata=self._metadata)
        return frozenset(map(names.digest, answer.chunk_digests))

    async def put_chunk(self, manifest: Digest, chunk: Digest, data: bytes) -> None:
        request = transfer_pb2.PutChunkRequest(manifest_digest=manifest, chunk_digest=chunk, data=data)
        async with self._call():
            await self._artifacts.PutChunk(request, timeout=CALL_SECONDS, metadata=self._metadata)

    async def push_policy(self, bundle: bytes, envelope: bytes) -> AnyResource:
        request = operator_pb2.PushPolicyRequest(bundle=bundle, envelope=envelope)
        async with self._call():
            return _resource(await self._stub.PushPolicy(request, timeout=CALL_SECONDS, metadata=self._metadata))

    async def control_rollout(
        self, name: str, control: operator_pb2.RolloutControl.ValueType, reason: str
    ) -> AnyResource:
        request = operator_pb2.ControlRolloutRequest(name=name, control=control, reason=reason)
        async with self._call():
            return _resource(await self._stub.ControlRollout(request, timeout=CALL_SECONDS, metadata=self._metadata))

    async def plan_run(self, document: bytes) -> PlannedRun:
        request = operator_pb2.PlanRunRequest(json=document)
        async with self._call():
            answer = await self._stub.PlanRun(request, timeout=CALL_SECONDS, metadata=self._metadata)
        return PlannedRun(parse_object(answer.plan, max_bytes=MAX_PLAN_BYTES), answer.plan_digest)

    async def start_run(self, document: bytes, plan_digest: str) -> AnyResource:
        request = operator_pb2.StartRunRequest(json=document, plan_digest=plan_digest)
        async with self._call():
            return _resource(await self._stub.StartRun(request, timeout=CALL_SECONDS, metadata=self._metadata))

    async def cancel_run(self, name: str, reason: str) -> AnyResource:
        request = operator_pb2.CancelRunRequest(name=name, reason=reason)
        async with self._call():
            return _resource(await self._stub.CancelRun(request, timeout=CALL_SECONDS, metadata=self._metadata))

    async def follow_run(self, name: str) -> AsyncIterator[JsonObject]:
        """What a run is doing, whenever something moved, until it has ended."""
        patience = _Patience()
        while True:
            patience.begin()
            request = operator_pb2.FollowRunRequest(name=name)
            try:
                async with self._call():
                    stream = self._stub.FollowRun(request, timeout=STREAM_SECONDS, metadata=self._metadata)
                    async for progress in stream:
                        yield parse_object(progress.json, max_bytes=MAX_PLAN_BYTES)
                        if progress.is_finished:
                            return
            except Unavailable as err:
                await patience.after(err)

    async def run_result(self, name: str) -> AsyncIterator[tuple[str, bytes]]:
        """Pieces of the result's files; the path is empty on all but a file's first piece."""
        request = operator_pb2.FetchRunResultRequest(name=name)
        async with self._call():
            async for frame in self._stub.FetchRunResult(request, timeout=STREAM_SECONDS, metadata=self._metadata):
                yield frame.path, frame.data

    async def checkpoint(self, from_size: int) -> tuple[bytes, tuple[bytes, ...]]:
        """The newest signed checkpoint and its consistency proof from `from_size` (0: none needed)."""
        request = operator_pb2.GetCheckpointRequest(from_size=from_size)
        async with self._call():
            answer = await self._stub.GetCheckpoint(request, timeout=CALL_SECONDS, metadata=self._metadata)
        return answer.note, tuple(answer.consistency_proof)

    async def log_entries(self, first: int, end: int) -> AsyncIterator[operator_pb2.LogEntry]:
        """Entries in [first, end), at most a thousand."""
        request = operator_pb2.ReadLogRequest(first_index=first, end_index=end)
        async with self._call():
            async for entry in self._stub.ReadLog(request, timeout=STREAM_SECONDS, metadata=self._metadata):
                yield entry

    @asynccontextmanager
    async def _call(self) -> AsyncIterator[None]:
        try:
            async with translated(PEER):
                yield
        except Unavailable as err:
            raise _told_where(err, self._settings) from err


def _told_where(error: Unavailable, settings: Context) -> Unavailable | TrustError:
    address, cause = settings.coordinator, error.__cause__
    said = (cause.details() or "") if isinstance(cause, grpc.aio.AioRpcError) else ""
    if any(words in said for words in _UNBELIEVED):
        return TrustError(
            f"the server at {address} is not the coordinator of the CA {settings.ca}, by name, issuer or time",
            remedy="check --coordinator and --ca: foedus config get-contexts",
        )
    remedy = error.remedy or f"is it up at {address}? compare with: foedus config get-contexts"
    return Unavailable(error.message, remedy=remedy, code=error.code)


def _resource(message: operator_pb2.Resource) -> AnyResource:
    if not message.json:
        raise NotFound("the coordinator answered with no resource")
    return codec.from_json(message.json)


class _Patience:
    """Takes a broken stream up again, unless the coordinator has been away for too long."""

    def __init__(self) -> None:
        self._well_at = self._began_at = time.monotonic()

    def begin(self) -> None:
        self._began_at = time.monotonic()

    async def after(self, error: Unavailable) -> None:
        """Wait a moment. Raises `error` again where no stream has lasted for `PATIENCE_SECONDS`."""
        now = time.monotonic()
        if now - self._began_at >= _LASTING_SECONDS:
            self._well_at = now
        if now - self._well_at > PATIENCE_SECONDS:
            raise error
        await asyncio.sleep(1)
