"""The small parts of the room: settings, the server's certificate, live calls, metrics in, the record's front."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.api import messages_in
from controlplane.api.calls import Call, LiveCalls
from controlplane.api.messages_out import WireCodec
from controlplane.api.tls import ServerCertificate
from controlplane.api.trace import trace_id_of
from controlplane.domain.directives import (
    AbortRollout,
    Action,
    Deploy,
    DeployGates,
    Directive,
    EndRun,
    LoadTreatyPolicy,
    Round,
    content_digest,
    subject,
)
from controlplane.record.log_files import LogFiles
from controlplane.services.record import StatementRecord, statement_digest
from controlplane.settings import Settings, read_settings
from tests.builders.charters import DOMAIN, NOW
from tests.controlplane.api.world import agent
from treaty import statement
from treaty.errors import IdentityRefused, InvalidInput, LimitExceeded
from treaty.keys import new_signing_key
from treaty.names import Digest, DirectiveNumber, RunId
from treaty.statement import StatementKind
from treaty.wire.certificates import load_certificate, new_ca
from treaty.wire.v1 import session_pb2, types_pb2

DIGEST = Digest("sha256:" + "ab" * 32)
NUMBER = DirectiveNumber(1, 2)
FAILED = session_pb2.ROLLOUT_STATE_FAILED
ACTIONS: list[Action] = [
    Deploy("r1", DIGEST, (b"one", b"two"), DIGEST, 60, DeployGates(("hello?",), "evaluation", 5), "chat"),
    Deploy("r1", DIGEST, (), None, 60),
    AbortRollout("r1", NUMBER),
    Round(RunId("run"), 3, b"plan", DIGEST, b"manifest", 60, evaluate_only=True),
    EndRun(RunId("run")),
    LoadTreatyPolicy(4, b"bundle", b"envelope"),
]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: type(action).__name__)
def test_a_directive_survives_its_journal(action: Action) -> None:
    directive = Directive(NUMBER, content_digest(action), "ab" * 16, action)
    assert WireCodec().decode(WireCodec().encode(directive)) == directive


def test_each_action_has_a_digest_of_its_own_and_shares_its_subject_with_what_it_supersedes() -> None:
    assert len({content_digest(action) for action in ACTIONS}) == len(ACTIONS)
    assert [subject(action) for action in ACTIONS] == [
        "rollout/r1",
        "rollout/r1",
        "rollout/r1",
        "run/run",
        "run/run",
        "treaty-policy",
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("grcp_address: x", "unknown setting 'grcp_address'"),
        ("grpc_address: 7443", "grpc_address is not a str"),
        ("grpc_address: localhost", "grpc_address is not host:port"),
        ("trust_refresh_seconds: 60", "trust_refresh_seconds is not between 1 and 4"),
        ("trust_refresh_seconds: true", "trust_refresh_seconds is not a int"),
        ("log_level: loud", "log_level is not debug"),
        ("- a list", "is not a mapping"),
        ("a: [", "is not YAML"),
        ("!!python/object/apply:os.system [id]", "is not YAML"),
    ],
)
def test_a_setting_that_is_unknown_or_malformed_is_an_error(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "settings.yaml").write_text(text)
    with pytest.raises(InvalidInput, match=why):
        read_settings(tmp_path / "settings.yaml")


def test_settings_are_the_defaults_where_there_are_none(tmp_path: Path) -> None:
    assert read_settings(tmp_path / "none.yaml") == Settings()
    (tmp_path / "some.yaml").write_text("connection_age_seconds: 60\n")
    assert read_settings(tmp_path / "some.yaml") == Settings(connection_age_seconds=60)


def test_the_servers_certificate_is_replaced_at_half_its_life_and_follows_the_charters_names() -> None:
    now, names = [NOW], [("localhost",)]
    ca = new_ca("coordinator", DOMAIN, NOW)
    server = ServerCertificate(ca, lambda: names[0], lambda: [b"ca"], lambda: now[0], timedelta(hours=8))
    first = server.fetch()
    now[0] = NOW + timedelta(hours=3)
    assert server.fetch() == first
    now[0] = NOW + timedelta(hours=4)
    second = server.fetch()
    assert second != first
    names[0] = ("hub.example",)
    third = load_certificate(server.fetch().certificate)
    assert "hub.example" in str(third.extensions)


async def test_a_call_that_is_cut_ends_with_the_first_reason() -> None:
    calls = LiveCalls()
    call = Call(agent(), "Session/Connect", "ab" * 16, NOW)

    async def served() -> None:
        async with call.alive(60):
            call.cut(IdentityRefused("first"))
            call.cut(IdentityRefused("second"))
            await asyncio.Event().wait()

    with calls.entered(call), pytest.raises(IdentityRefused, match="first"):
        await served()
    await calls.drained(1)
    assert calls.count_of(agent()) == 0


async def test_a_call_that_is_cut_before_it_begins_does_not_begin() -> None:
    call = Call(agent(), "Session/Connect", "ab" * 16, NOW)
    call.cut(IdentityRefused("early"))
    with pytest.raises(IdentityRefused, match="early"):
        async with call.alive(60):
            await asyncio.Event().wait()


def test_a_trace_id_is_the_callers_where_it_is_well_formed_and_fresh_otherwise() -> None:
    good = "4bf92f3577b34da6a3ce929d0e0e4736"
    assert trace_id_of([("traceparent", f"00-{good}-00f067aa0ba902b7-01")]) == good
    for bad in ("", "00-" + "0" * 32 + "-00f067aa0ba902b7-01", f"00-{good.upper()}-00f067aa0ba902b7-01", "x" * 10_000):
        fresh = trace_id_of([("traceparent", bad)])
        assert len(fresh) == 32
        assert fresh != good


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (session_pb2.RolloutStatus(rollout="R!", state=session_pb2.ROLLOUT_STATE_SERVING), InvalidInput),
        (session_pb2.RolloutStatus(rollout="r1"), InvalidInput),
        (session_pb2.RolloutStatus.FromString(b"\x0a\x02r1\x18\x63"), InvalidInput),  # a state that nobody knows
        (
            session_pb2.RolloutStatus(rollout="r1", state=FAILED, codes=["a text"]),
            InvalidInput,
        ),
        (
            session_pb2.RolloutStatus(rollout="r1", state=FAILED, codes=["A"] * 17),
            LimitExceeded,
        ),
    ],
)
def test_a_malformed_rollout_in_a_status_is_refused(message: session_pb2.RolloutStatus, error: type[Exception]) -> None:
    with pytest.raises(error):
        messages_in.status(session_pb2.Status(sequence=1, rollouts=[message]))


@pytest.mark.parametrize(
    "metrics",
    [
        b'{"loss": 1}',
        b'{"loss":1.5}',
        b'{"loss":true}',
        b'{"loss":"text"}',
        b'{"A sentence of data":1}',
        b"[1]",
        b"{" * 99,
    ],
)
def test_metrics_that_are_not_canonical_integers_under_short_names_are_refused(metrics: bytes) -> None:
    with pytest.raises(InvalidInput):
        messages_in.metric_values(metrics)


def test_a_round_ends_with_a_result_or_a_refusal_and_never_with_both() -> None:
    refused = types_pb2.Refusal(code="DAT-003")
    both = session_pb2.RoundResult(run="r1", round=1, metrics=b"{}", receipt=b"{}", refusal=refused)
    for message in (both, session_pb2.RoundResult(run="r1", round=1)):
        with pytest.raises(InvalidInput, match="a round ends with metrics and their receipt, or with a refusal"):
            messages_in.round_report(message)


async def test_a_statement_is_recorded_once_however_often_and_however_signed(tmp_path: Path) -> None:
    one, two = new_signing_key(), new_signing_key()
    word = statement.document(StatementKind.PLAN, "p", {"round": 1})
    with LogFiles.open(tmp_path / "log", "example/log", one.private) as log:
        record = StatementRecord(log)
        writing = asyncio.create_task(record.run())
        twice = await asyncio.gather(*(record.append(statement.sign(word, [key])) for key in (one, two, one)))
        assert twice == [0, 0, 0]
        assert await record.append(statement.sign(statement.document(StatementKind.PLAN, "q", {}), [one])) == 1
        writing.cancel()
    with LogFiles.open(tmp_path / "log", "example/log", one.private) as log:
        again = StatementRecord(log)
        again.load()
        assert again.known(statement_digest(statement.sign(word, [two]))) == 0
        assert len(list(again.of_kind(StatementKind.PLAN))) == 2
        with pytest.raises(InvalidInput, match="the log has 2 entries, not 3"):
            again.head(3)
