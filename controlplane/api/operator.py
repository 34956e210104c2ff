"""Operator: what people at the coordinator do, as the services' verbs. Mapping only: no rule is decided here.

Which role may call what is `roles`; the caller and the trace id are the gate's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from controlplane.api.calls import current_call
from controlplane.api.messages_out import checkpoint_message
from controlplane.services.catalog import Catalog
from controlplane.services.parties import Parties
from controlplane.services.ports import (
    TRACE_ANNOTATION,
    ModelVersions,
    Policies,
    Rollouts,
    RolloutVerb,
    Runs,
)
from controlplane.services.record import MAX_ENTRIES_PER_READ, StatementRecord
from controlplane.store.ports.resources import EventType
from treaty import names
from treaty.errors import InvalidInput
from treaty.log import Leaf
from treaty.resources import codec
from treaty.resources.meta import AnyResource
from treaty.resources.runs import FEDERATED_RUN
from treaty.wire.v1 import operator_pb2, operator_pb2_grpc, types_pb2

EVENT_TYPES: Final[Mapping[EventType, operator_pb2.WatchEventType.ValueType]] = {
    EventType.ADDED: operator_pb2.WATCH_EVENT_TYPE_ADDED,
    EventType.MODIFIED: operator_pb2.WATCH_EVENT_TYPE_MODIFIED,
    EventType.DELETED: operator_pb2.WATCH_EVENT_TYPE_DELETED,
}
ROLLOUT_VERBS: Final[Mapping[int, RolloutVerb]] = {
    operator_pb2.ROLLOUT_CONTROL_PAUSE: RolloutVerb.PAUSE,
    operator_pb2.ROLLOUT_CONTROL_RESUME: RolloutVerb.RESUME,
    operator_pb2.ROLLOUT_CONTROL_ABORT: RolloutVerb.ABORT,
    operator_pb2.ROLLOUT_CONTROL_APPROVE_WAVE: RolloutVerb.APPROVE_WAVE,
}
MAX_REASON_CHARS: Final = 1024

Context: TypeAlias = Any
"""The generated stubs want both kinds of context at once; none is read here: the gate has done so."""


@dataclass(frozen=True, slots=True)
class OperatorParts:
    """The services behind the verbs."""

    catalog: Catalog
    parties: Parties
    record: StatementRecord
    models: ModelVersions
    policies: Policies
    rollouts: Rollouts
    runs: Runs


class OperatorServicer(operator_pb2_grpc.OperatorServicer):
    """Each method is the generated name of a verb."""

    def __init__(self, parts: OperatorParts) -> None:
        self._parts = parts

    async def Get(self, request: operator_pb2.GetRequest, context: Context) -> operator_pb2.Resource:  # noqa: N802
        return _resource(await self._parts.catalog.get(request.kind, request.name))

    async def List(  # noqa: N802
        self, request: operator_pb2.ListRequest, context: Context
    ) -> operator_pb2.ListResponse:
        page = await self._parts.catalog.list(
            request.kind, selector=request.label_selector, limit=request.limit, after=request.continue_after
        )
        return operator_pb2.ListResponse(
            items=[_resource(item) for item in page.items],
            continue_after=page.next_after,
            resource_version=page.resource_version,
        )

    async def Watch(  # noqa: N802
        self, request: operator_pb2.WatchRequest, context: Context
    ) -> AsyncIterator[operator_pb2.WatchEvent]:
        async for event in self._parts.catalog.watch(request.kind, request.since_resource_version):
            yield operator_pb2.WatchEvent(type=EVENT_TYPES[event.type], resource=_resource(event.resource))

    async def Apply(self, request: operator_pb2.ApplyRequest, context: Context) -> operator_pb2.Resource:  # noqa: N802
        trace_id = current_call().trace_id
        return _resource(await self._parts.catalog.apply(request.json, trace_id=trace_id, dry_run=request.dry_run))

    async def Delete(self, request: operator_pb2.DeleteRequest, context: Context) -> operator_pb2.Resource:  # noqa: N802
        return _resource(await self._parts.catalog.delete(request.kind, request.name, request.resource_version))

    async def PublishCharter(  # noqa: N802
        self, request: operator_pb2.PublishCharterRequest, context: Context
    ) -> operator_pb2.PublishCharterResponse:
        charter = await self._parts.parties.publish_charter(request.envelope)
        return operator_pb2.PublishCharterResponse(digest=charter.digest, version=charter.version)

    async def AcceptAgent(  # noqa: N802
        self, request: operator_pb2.AcceptAgentRequest, context: Context
    ) -> operator_pb2.Resource:
        return _resource(await self._parts.parties.accept(request.agent, str(current_call().caller)))

    async def RevokeAgent(  # noqa: N802
        self, request: operator_pb2.RevokeAgentRequest, context: Context
    ) -> operator_pb2.Resource:
        by = str(current_call().caller)
        revoked = await self._parts.parties.revoke(request.subject, reason=_reason(request.reason), by=by)
        return _resource(revoked[0]) if revoked else operator_pb2.Resource()

    async def PublishModel(  # noqa: N802
        self, request: operator_pb2.PublishModelRequest, context: Context
    ) -> operator_pb2.Resource:
        return _resource(await self._parts.models.publish(request.envelope, current_call().caller))

    async def SignModel(  # noqa: N802
        self, request: operator_pb2.SignModelRequest, context: Context
    ) -> operator_pb2.Resource:
        return _resource(await self._parts.models.sign(request.envelope, current_call().caller))

    async def FetchManifest(  # noqa: N802
        self, request: operator_pb2.FetchManifestRequest, context: Context
    ) -> operator_pb2.FetchManifestResponse:
        return operator_pb2.FetchManifestResponse(envelope=await self._parts.models.manifest(request.model))

    async def PushPolicy(  # noqa: N802
        self, request: operator_pb2.PushPolicyRequest, context: Context
    ) -> operator_pb2.Resource:
        return _resource(await self._parts.policies.push(request.bundle, request.envelope))

    async def ControlRollout(  # noqa: N802
        self, request: operator_pb2.ControlRolloutRequest, context: Context
    ) -> operator_pb2.Resource:
        verb = ROLLOUT_VERBS.get(request.control)
        if verb is None:
            raise InvalidInput("this version knows no such control of a rollout")
        name = names.resource_name(request.name)
        return _resource(await self._parts.rollouts.control(name, verb, _reason(request.reason)))

    async def PlanRun(  # noqa: N802
        self, request: operator_pb2.PlanRunRequest, context: Context
    ) -> operator_pb2.PlanRunResponse:
        plan, digest = await self._parts.runs.plan(_run(request.json))
        return operator_pb2.PlanRunResponse(plan=plan, plan_digest=digest)

    async def StartRun(  # noqa: N802
        self, request: operator_pb2.StartRunRequest, context: Context
    ) -> operator_pb2.Resource:
        digest = names.digest(request.plan_digest)
        return _resource(await self._parts.runs.start(_run(request.json), digest))

    async def CancelRun(  # noqa: N802
        self, request: operator_pb2.CancelRunRequest, context: Context
    ) -> operator_pb2.Resource:
        return _resource(await self._parts.runs.cancel(names.run_id(request.name), _reason(request.reason)))

    async def FollowRun(  # noqa: N802
        self, request: operator_pb2.FollowRunRequest, context: Context
    ) -> AsyncIterator[operator_pb2.RunProgress]:
        async for view in self._parts.runs.follow(names.run_id(request.name)):
            yield operator_pb2.RunProgress(json=view.json, is_finished=view.is_finished)

    async def FetchRunResult(  # noqa: N802
        self, request: operator_pb2.FetchRunResultRequest, context: Context
    ) -> AsyncIterator[operator_pb2.RunResultFrame]:
        async for path, data in self._parts.runs.result(names.run_id(request.name)):
            yield operator_pb2.RunResultFrame(path=path, data=data)

    async def GetCheckpoint(  # noqa: N802
        self, request: operator_pb2.GetCheckpointRequest, context: Context
    ) -> types_pb2.Checkpoint:
        await self._parts.record.publish()
        return checkpoint_message(self._parts.record.head(request.from_size))

    async def ReadLog(  # noqa: N802
        self, request: operator_pb2.ReadLogRequest, context: Context
    ) -> AsyncIterator[operator_pb2.LogEntry]:
        record, first = self._parts.record, request.first_index
        end = min(request.end_index, first + MAX_ENTRIES_PER_READ)
        for at in range(first, end, 64):
            for leaf in await asyncio.to_thread(_leaves, record, at, min(at + 64, end)):
                yield operator_pb2.LogEntry(
                    index=leaf.index, leaf_hash=leaf.hash, salt=leaf.salt or b"", statement=leaf.statement or b""
                )


def _leaves(record: StatementRecord, first: int, end: int) -> list[Leaf]:
    return list(record.read(first, end))


def _resource(resource: AnyResource) -> operator_pb2.Resource:
    return operator_pb2.Resource(json=codec.to_bytes(resource))


def _run(document: bytes) -> AnyResource:
    """A FederatedRun with the command's trace id noted on it."""
    run = codec.from_json_as(FEDERATED_RUN, document)
    annotations = {**run.metadata.annotations, TRACE_ANNOTATION: current_call().trace_id}
    return replace(run, metadata=replace(run.metadata, annotations=annotations))


def _reason(text: str) -> str:
    if len(text) > MAX_REASON_CHARS:
        raise InvalidInput(f"a reason has at most {MAX_REASON_CHARS} characters")
    return text
