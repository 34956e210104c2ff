"""A coordinator for tests: the Operator and Artifacts services over real mutual TLS, answering what was put in."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc

from tests.builders.charters import DOMAIN, CharterBuilder
from tests.builders.ports import free_port
from treaty import names, statement
from treaty.audit import Offered
from treaty.errors import FoedusError, InvalidInput, NotFound
from treaty.resources import codec
from treaty.resources.meta import AnyResource
from treaty.wire.certificates import issue_client, issue_server
from treaty.wire.credentials import ClientIdentity, ServerIdentity, mutual_server_credentials
from treaty.wire.status import grpc_status
from treaty.wire.v1 import operator_pb2, operator_pb2_grpc, transfer_pb2, transfer_pb2_grpc, types_pb2


@dataclass
class Hub(operator_pb2_grpc.OperatorServicer, transfer_pb2_grpc.ArtifactsServicer):
    """What it holds, and what it was told."""

    resources: dict[tuple[str, str], AnyResource] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    record: Offered | None = None
    plan: tuple[bytes, str] = (b"{}", "")
    progress: list[bytes] = field(default_factory=list)
    result: dict[str, bytes] = field(default_factory=dict)
    published: list[bytes] = field(default_factory=list)
    chunks: dict[str, bytes] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    revoked: list[tuple[str, str]] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)

    def put(self, resource: AnyResource) -> None:
        self.resources[resource.kind, resource.name] = resource

    def Get(self, request: operator_pb2.GetRequest, context: Any) -> operator_pb2.Resource:  # noqa: N802
        metadata = dict(context.invocation_metadata())
        self.traces.append(metadata["traceparent"])
        found = self.resources.get((request.kind, request.name))
        if found is None:
            _refuse(context, NotFound(f"there is no {request.kind} {request.name}"))
        return _message(found)

    def List(self, request: operator_pb2.ListRequest, context: Any) -> operator_pb2.ListResponse:  # noqa: N802
        """Pages of one, so that paging is always tried."""
        own = sorted(name for kind, name in self.resources if kind == request.kind and name > request.continue_after)
        items = [_message(self.resources[request.kind, name]) for name in own[:1]]
        after = own[0] if len(own) > 1 else ""
        return operator_pb2.ListResponse(items=items, continue_after=after, resource_version=5)

    def RevokeAgent(self, request: Any, context: Any) -> operator_pb2.Resource:  # noqa: N802
        self.revoked.append((request.subject, request.reason))
        agents = [found for (kind, _), found in self.resources.items() if kind == "NodeAgent"]
        return _message(agents[0]) if agents else operator_pb2.Resource()

    def ControlRollout(self, request: Any, context: Any) -> operator_pb2.Resource:  # noqa: N802
        return _message(self.resources["Rollout", request.name])

    def CancelRun(self, request: Any, context: Any) -> operator_pb2.Resource:  # noqa: N802
        return _message(self.resources["FederatedRun", request.name])

    def Delete(self, request: operator_pb2.DeleteRequest, context: Any) -> operator_pb2.Resource:  # noqa: N802
        return _message(self.resources.pop((request.kind, request.name)))

    def PublishCharter(self, request: Any, context: Any) -> operator_pb2.PublishCharterResponse:  # noqa: N802
        return operator_pb2.PublishCharterResponse(digest=names.digest_of(request.envelope), version=2)

    def FetchManifest(self, request: Any, context: Any) -> operator_pb2.FetchManifestResponse:  # noqa: N802
        return operator_pb2.FetchManifestResponse(envelope=self.manifests[request.model])

    def PublishModel(self, request: Any, context: Any) -> operator_pb2.Resource:  # noqa: N802
        self.published.append(request.envelope)
        return _message(next(iter(self.resources.values())))

    def Missing(self, request: Any, context: Any) -> transfer_pb2.MissingResponse:  # noqa: N802
        from treaty.manifest import parse_manifest
        from treaty.strict_json import canonical

        manifest = parse_manifest(canonical(statement.unverified(self.published[-1]).predicate))
        return transfer_pb2.MissingResponse(chunk_digests=[d for d in manifest.chunk_bytes if d not in self.chunks])

    def PutChunk(self, request: Any, context: Any) -> transfer_pb2.PutChunkResponse:  # noqa: N802
        assert names.digest_of(request.data) == request.chunk_digest
        self.chunks[request.chunk_digest] = request.data
        return transfer_pb2.PutChunkResponse()

    def PlanRun(self, request: Any, context: Any) -> operator_pb2.PlanRunResponse:  # noqa: N802
        return operator_pb2.PlanRunResponse(plan=self.plan[0], plan_digest=self.plan[1])

    def StartRun(self, request: Any, context: Any) -> operator_pb2.Resource:  # noqa: N802
        self.started.append(request.plan_digest)
        run = codec.from_json(request.json)
        return _message(self.resources.get((run.kind, run.name), run))

    def FollowRun(self, request: Any, context: Any) -> Iterator[operator_pb2.RunProgress]:  # noqa: N802
        for place, view in enumerate(self.progress, start=1):
            yield operator_pb2.RunProgress(json=view, is_finished=place == len(self.progress))

    def FetchRunResult(self, request: Any, context: Any) -> Iterator[operator_pb2.RunResultFrame]:  # noqa: N802
        for path, data in self.result.items():
            yield operator_pb2.RunResultFrame(path=path, data=data[:100])
            yield operator_pb2.RunResultFrame(data=data[100:])

    def GetCheckpoint(self, request: Any, context: Any) -> types_pb2.Checkpoint:  # noqa: N802
        from treaty.log import Tree

        assert self.record is not None
        size = len(self.record.entries)
        if request.from_size > size:
            _refuse(context, InvalidInput(f"the log has {size} entries", code="LOG_BEYOND"))
        tree = Tree(entry.leaf_hash for entry in self.record.entries)
        proof = tree.consistency_proof(request.from_size, size) if 0 < request.from_size < size else []
        return types_pb2.Checkpoint(note=self.record.note, consistency_proof=proof)

    def ReadLog(self, request: Any, context: Any) -> Iterator[operator_pb2.LogEntry]:  # noqa: N802
        assert self.record is not None
        for entry in self.record.entries[request.first_index : request.end_index]:
            yield operator_pb2.LogEntry(
                index=entry.index, leaf_hash=entry.leaf_hash, salt=entry.salt or b"", statement=entry.statement or b""
            )


@contextmanager
def serving(hub: Hub, treaty: CharterBuilder, folder: Path) -> Iterator[list[str]]:
    """Serve `hub`; the program's own flags for a client of it."""
    now = datetime.now(UTC)
    ca = treaty.coordinator_ca
    shown = issue_server(ca, ["localhost"], now)
    identity = ServerIdentity(shown.key_pem(), shown.certificate_pem(), [ca.certificate_pem()])
    server = grpc.server(ThreadPoolExecutor(8))
    operator_pb2_grpc.add_OperatorServicer_to_server(hub, server)
    transfer_pb2_grpc.add_ArtifactsServicer_to_server(hub, server)
    port = server.add_secure_port(f"localhost:{free_port()}", mutual_server_credentials(lambda: identity))
    server.start()
    operator = names.spiffe_id(f"spiffe://coordinator.{DOMAIN}/operator/op-1", DOMAIN)
    own = ClientIdentity.of(issue_client(ca, operator, now))
    files = {"cert": own.certificate, "key": own.key, "ca": ca.certificate_pem()}
    for name, data in files.items():
        (folder / f"{name}.pem").write_bytes(data)
    flags = [word for name in files for word in (f"--{name}", str(folder / f"{name}.pem"))]
    try:
        yield ["--coordinator", f"localhost:{port}", *flags]
    finally:
        server.stop(None).wait()


def _message(resource: AnyResource) -> operator_pb2.Resource:
    return operator_pb2.Resource(json=codec.to_bytes(resource))


def _refuse(context: Any, error: FoedusError) -> None:
    context.abort(*grpc_status(error))
