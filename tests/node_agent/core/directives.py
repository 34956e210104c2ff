"""Directives as a coordinator would send them."""

from __future__ import annotations

from node_agent.directives import Directive, parse_directive
from treaty.names import DirectiveNumber, digest_of
from treaty.wire.v1 import session_pb2, types_pb2


def number(counter: int, epoch: int = 1) -> DirectiveNumber:
    return DirectiveNumber(epoch, counter)


def deploy_message(counter: int, rollout: str = "first", version: str = "v1") -> session_pb2.Directive:
    deploy = session_pb2.Deploy(
        rollout=rollout,
        manifest_digest=digest_of(version.encode()),
        manifests=[b"{}"],
        deadline_seconds=60,
        purpose="translation",
    )
    return _directive(counter, deploy=deploy)


def round_message(counter: int, run: str = "run-1", of: int = 1) -> session_pb2.Directive:
    body = session_pb2.Round(
        run=run, round=of, plan=b"{}", arrays_digest=digest_of(b"arrays"), arrays_manifest=b"{}", deadline_seconds=60
    )
    return _directive(counter, round=body)


def end_message(counter: int, run: str = "run-1") -> session_pb2.Directive:
    return _directive(counter, end_run=session_pb2.EndRun(run=run))


def abort_message(counter: int, deploy: int, rollout: str = "first") -> session_pb2.Directive:
    of = types_pb2.DirectiveNumber(epoch=1, counter=deploy)
    return _directive(counter, abort_rollout=session_pb2.AbortRollout(rollout=rollout, deploy_number=of))


def policy_message(counter: int, revision: int = 1) -> session_pb2.Directive:
    policy = session_pb2.LoadTreatyPolicy(revision=revision, bundle=b"bundle", envelope=b"{}")
    return _directive(counter, load_treaty_policy=policy)


def _directive(counter: int, **action: object) -> session_pb2.Directive:
    at = types_pb2.DirectiveNumber(epoch=1, counter=counter)
    return session_pb2.Directive(number=at, trace_id="ab" * 16, **action)  # type: ignore[arg-type]


def parsed(message: session_pb2.Directive) -> Directive:
    return parse_directive(message)
