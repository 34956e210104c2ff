"""From domain values to the messages that an agent reads, and a directive's journaled form.

A directive is journaled as the very bytes of its message, so that what is resent is what was sent.
"""

from __future__ import annotations

from datetime import datetime
from typing import assert_never

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from controlplane.domain.directives import (
    AbortRollout,
    Action,
    Deploy,
    DeployGates,
    Directive,
    EndRun,
    LoadTreatyPolicy,
    Round,
)
from controlplane.services.connections import Inclusion, Question, Recorded, ReportRequest, Said
from controlplane.services.record import Head
from treaty.errors import Corrupt
from treaty.names import Digest, DirectiveNumber, RunId
from treaty.wire.v1 import session_pb2, types_pb2


def timestamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def number_message(number: DirectiveNumber) -> types_pb2.DirectiveNumber:
    return types_pb2.DirectiveNumber(epoch=number.epoch, counter=number.counter)


def checkpoint_message(head: Head) -> types_pb2.Checkpoint:
    return types_pb2.Checkpoint(
        note=head.checkpoint.note, consistency_proof=head.proof, from_size=head.from_size if head.proof else 0
    )


def refusal_message(codes: tuple[str, ...]) -> types_pb2.Refusal:
    return types_pb2.Refusal(code=codes[0], details=sorted(codes[1:])[:64])


def said_message(said: Said) -> session_pb2.CoordinatorMessage:
    match said:
        case Directive():
            return session_pb2.CoordinatorMessage(directive=directive_message(said))
        case Question(question_id=question_id, ask=ask, deadline_ms=deadline_ms):
            question = session_pb2.Question(question_id=question_id, ask=ask, deadline_ms=deadline_ms)
            return session_pb2.CoordinatorMessage(question=question)
        case ReportRequest():
            return session_pb2.CoordinatorMessage(report_request=session_pb2.ReportRequest())
        case Recorded(digest=digest, log_index=log_index, codes=codes):
            recorded = session_pb2.Recorded(
                statement_digest=digest, log_index=log_index, salt=said.salt, envelope=said.envelope
            )
            if codes:
                recorded.refusal.CopyFrom(refusal_message(codes))
            return session_pb2.CoordinatorMessage(recorded=recorded)
        case Inclusion(digest=digest, log_size=log_size, proof=proof, codes=codes):
            inclusion = session_pb2.Inclusion(statement_digest=digest, log_size=log_size, proof=proof)
            if codes:
                inclusion.refusal.CopyFrom(refusal_message(codes))
            return session_pb2.CoordinatorMessage(inclusion=inclusion)
        case _:
            assert_never(said)


def directive_message(directive: Directive) -> session_pb2.Directive:
    message = session_pb2.Directive(
        number=number_message(directive.number),
        content_digest=directive.content_digest,
        trace_id=directive.trace_id,
    )
    _put_action(message, directive.action)
    return message


def _put_action(message: session_pb2.Directive, action: Action) -> None:
    match action:
        case Deploy():
            message.deploy.CopyFrom(_deploy_message(action))
        case AbortRollout(rollout=rollout, deploy_number=number):
            abort = session_pb2.AbortRollout(rollout=rollout, deploy_number=number_message(number))
            message.abort_rollout.CopyFrom(abort)
        case Round():
            message.round.CopyFrom(_round_message(action))
        case EndRun(run=run):
            message.end_run.CopyFrom(session_pb2.EndRun(run=run))
        case LoadTreatyPolicy(revision=revision, bundle=bundle, envelope=envelope):
            policy = session_pb2.LoadTreatyPolicy(revision=revision, bundle=bundle, envelope=envelope)
            message.load_treaty_policy.CopyFrom(policy)
        case _:
            assert_never(action)


def _deploy_message(action: Deploy) -> session_pb2.Deploy:
    return session_pb2.Deploy(
        rollout=action.rollout,
        manifest_digest=action.manifest_digest,
        manifests=action.manifests,
        fallback_digest=action.fallback_digest or "",
        deadline_seconds=action.deadline_seconds,
        gates=session_pb2.Gates(
            health_prompts=action.gates.health_prompts,
            evaluation_purpose=action.gates.evaluation_purpose,
            max_worse_ppm=action.gates.max_worse_ppm,
        ),
        purpose=action.purpose,
    )


def _round_message(action: Round) -> session_pb2.Round:
    return session_pb2.Round(
        run=action.run,
        round=action.round,
        plan=action.plan,
        arrays_digest=action.arrays_digest,
        arrays_manifest=action.arrays_manifest,
        deadline_seconds=action.deadline_seconds,
        evaluate_only=action.evaluate_only,
    )


class WireCodec:
    """The journaled form of a directive: its message."""

    def encode(self, directive: Directive) -> bytes:
        return directive_message(directive).SerializeToString(deterministic=True)

    def decode(self, payload: bytes) -> Directive:
        """Raises: Corrupt: the journal holds something else."""
        try:
            message = session_pb2.Directive.FromString(payload)
        except DecodeError as err:
            raise Corrupt("a journaled directive does not parse") from err
        number = DirectiveNumber(message.number.epoch, message.number.counter)
        return Directive(number, Digest(message.content_digest), message.trace_id, _action(message))


def _action(message: session_pb2.Directive) -> Action:
    match message.WhichOneof("action"):
        case "deploy":
            return _deploy(message.deploy)
        case "abort_rollout":
            abort = message.abort_rollout
            return AbortRollout(abort.rollout, DirectiveNumber(abort.deploy_number.epoch, abort.deploy_number.counter))
        case "round":
            return _round(message.round)
        case "end_run":
            return EndRun(RunId(message.end_run.run))
        case "load_treaty_policy":
            policy = message.load_treaty_policy
            return LoadTreatyPolicy(policy.revision, policy.bundle, policy.envelope)
        case _:
            raise Corrupt("a journaled directive has no action")


def _deploy(message: session_pb2.Deploy) -> Deploy:
    gates = message.gates
    return Deploy(
        rollout=message.rollout,
        manifest_digest=Digest(message.manifest_digest),
        manifests=tuple(message.manifests),
        fallback_digest=Digest(message.fallback_digest) if message.fallback_digest else None,
        deadline_seconds=message.deadline_seconds,
        gates=DeployGates(tuple(gates.health_prompts), gates.evaluation_purpose, gates.max_worse_ppm),
        purpose=message.purpose,
    )


def _round(message: session_pb2.Round) -> Round:
    return Round(
        run=RunId(message.run),
        round=message.round,
        plan=message.plan,
        arrays_digest=Digest(message.arrays_digest),
        arrays_manifest=message.arrays_manifest,
        deadline_seconds=message.deadline_seconds,
        evaluate_only=message.evaluate_only,
    )
