"""How a charter and a coordinator come to be believed, and everything that keeps them from it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import timestamp_pb2

from node_agent import charters, checkup, joining, reach
from node_agent.agent import SystemClock
from node_agent.charters import Membership
from node_agent.connections import reach_line
from node_agent.customs import Customs
from node_agent.journal import SqliteJournal
from tests.builders.ports import free_port
from tests.node_agent.core.coordinator import coordinator
from tests.node_agent.core.nation import FR, Joined, nation
from treaty import statement
from treaty.errors import InvalidInput, PreconditionFailed, RollbackRefused, TrustError, Unavailable
from treaty.keys import new_signing_key
from treaty.names import Digest, PartyCode, agent_id, digest_of
from treaty.wire import credentials
from treaty.wire.certificates import Issued, issue_server, new_ca
from treaty.wire.v1 import reach_pb2, reach_pb2_grpc


class Reach(reach_pb2_grpc.ReachServicer):
    """`code` is its diagnosis; the charter's digest that it greets with is the last envelope's."""

    def __init__(self, envelopes: Sequence[bytes], code: str) -> None:
        self.envelopes, self.code = envelopes, code

    async def Greet(self, request: Any, context: Any) -> reach_pb2.GreetResponse:  # noqa: N802
        digest = statement.unverified(self.envelopes[-1]).subject_digest if self.envelopes else digest_of(b"c")
        moment = timestamp_pb2.Timestamp()
        moment.FromDatetime(datetime.now(UTC))
        return reach_pb2.GreetResponse(server_time=moment, charter_digest=digest, nonce=b"n" * 32)

    async def Diagnose(self, request: Any, context: Any) -> reach_pb2.DiagnoseResponse:  # noqa: N802
        return reach_pb2.DiagnoseResponse(code=self.code)

    async def FetchCharter(self, request: Any, context: Any) -> reach_pb2.FetchCharterResponse:  # noqa: N802
        return reach_pb2.FetchCharterResponse(envelopes=self.envelopes)


@asynccontextmanager
async def reachable(
    ca: Issued, envelopes: Sequence[bytes], *, at: datetime | None = None, code: str = "ACCEPTED"
) -> AsyncIterator[str]:
    """`at`: what time it is for the server; now unless it is said."""
    issued = issue_server(ca, ["localhost"], at or datetime.now(UTC))
    identity = credentials.ServerIdentity(issued.key_pem(), issued.certificate_pem(), ())
    server = grpc.aio.server()
    reach_pb2_grpc.add_ReachServicer_to_server(Reach(envelopes, code), server)  # type: ignore[no-untyped-call,unused-ignore]
    port = server.add_secure_port(f"localhost:{free_port()}", credentials.plain_server_credentials(lambda: identity))
    await server.start()
    try:
        yield f"localhost:{port}"
    finally:
        await server.stop(None)


@pytest.fixture
def joined(tmp_path: Path) -> Joined:
    return nation(tmp_path)


async def learn(joined: Joined, address: str, pinned: Digest, coordinator: str = "localhost:1") -> None:
    journal = SqliteJournal(joined.home.journal, SystemClock())
    try:
        membership = Membership(coordinator, address, pinned)
        await joining.learn(joined.home, membership, Customs(journal.crossings), SystemClock())
    finally:
        journal.close()


def nothing_was_kept(joined: Joined) -> bool:
    return not joined.home.membership.exists() and not list(joined.home.charters.iterdir())


async def test_the_pinned_charter_is_believed_and_kept(joined: Joined) -> None:
    async with reachable(joined.world.coordinator_ca, [joined.envelope]) as address:
        await learn(joined, address, joined.charter.digest)
    assert charters.stored(joined.home) == [joined.envelope]
    base = joined.lay()
    assert base.nation.charter() == joined.charter
    assert base.membership.reach
    base.close()


async def test_another_charter_than_the_pinned_one_is_refused(joined: Joined) -> None:
    async with reachable(joined.world.coordinator_ca, [joined.envelope]) as address:
        with pytest.raises(TrustError, match="not the pinned sha256:"):
            await learn(joined, address, digest_of(b"another"))
    assert nothing_was_kept(joined)


async def test_a_server_that_is_not_of_the_charter_s_coordinator_is_tls_inspection(joined: Joined) -> None:
    middle = new_ca("coordinator", "treaty.example", datetime.now(UTC))
    async with reachable(middle, [joined.envelope]) as address:
        with pytest.raises(TrustError, match="something between here and there opens TLS") as refused:
            await learn(joined, address, joined.charter.digest)
    assert refused.value.code == "TLS_INSPECTION"
    assert nothing_was_kept(joined)


@pytest.mark.parametrize("days", [3, -3])
async def test_a_machine_whose_clock_is_days_off_is_told_so_before_anything_else(joined: Joined, days: int) -> None:
    there = datetime.now(UTC) + timedelta(days=days)
    async with reachable(joined.world.coordinator_ca, [joined.envelope], at=there) as address:
        with pytest.raises(PreconditionFailed, match=r"this machine's clock shows .*, and the") as refused:
            await learn(joined, address, joined.charter.digest)
    assert (refused.value.code, refused.value.remedy) == ("CLOCK_OFF", "set both clocks by NTP")
    assert nothing_was_kept(joined)


async def test_a_charter_with_other_keys_under_our_name_is_refused(joined: Joined) -> None:
    foreign = joined.world.charter()
    async with reachable(joined.world.coordinator_ca, [joined.world.signed(foreign)]) as address:
        with pytest.raises(TrustError, match="another root for FR than ours") as refused:
            await learn(joined, address, foreign.digest)
    assert refused.value.code == "FOREIGN_ROOT"
    assert nothing_was_kept(joined)


async def test_a_charter_without_this_nation_is_refused(joined: Joined) -> None:
    nations = {PartyCode("DE"): joined.charter.nations[PartyCode("DE")]}
    without = replace(joined.charter, nations=nations)
    async with reachable(joined.world.coordinator_ca, [joined.world.signed(without)]) as address:
        with pytest.raises(TrustError, match="FR is not a nation of this charter"):
            await learn(joined, address, without.digest)


@pytest.mark.parametrize(("is_up", "said"), [(False, "does not answer either"), (True, "accepts connections")])
async def test_where_nobody_speaks_tls_it_says_which_of_the_two_ports_answers(
    joined: Joined, is_up: bool, said: str
) -> None:
    async with listening() if is_up else nullcontext("localhost:2") as coordinator:
        with pytest.raises(Unavailable) as refused:
            await learn(joined, "localhost:1", joined.charter.digest, coordinator)
    assert refused.value.message == (
        f"no TLS server answers at localhost:1, the Reach port; {coordinator}, the mutual TLS port, {said}"
    )


async def test_the_mutual_tls_port_given_as_reach_is_told(joined: Joined) -> None:
    async with coordinator(joined) as (_, port):
        with pytest.raises(Unavailable, match=f"localhost:{port} speaks TLS, and does not answer as Reach") as refused:
            await learn(joined, f"localhost:{port}", joined.charter.digest)
    assert "--coordinator" in refused.value.remedy
    assert nothing_was_kept(joined)


@pytest.mark.parametrize("code", ["ACCEPTED", "NOT_ACCEPTED"])
async def test_a_dead_mutual_tls_port_is_named_whatever_reach_says(joined: Joined, code: str) -> None:
    async with reachable(joined.world.coordinator_ca, [joined.envelope], code=code) as address:
        joined.join("localhost:1", address)
        base = joined.lay()
        refusal = await joining.try_connection(base)
        base.close()
    assert refusal is not None
    assert refusal.message == f"nothing answers at localhost:1, the mutual TLS port; Reach at {address} does"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("ACCEPTED", "connected as spiffe://fr.treaty.example/agent/par-1"),
        ("NOT_ACCEPTED", "waiting: an operator must accept spiffe://fr.treaty.example/agent/par-1"),
    ],
)
async def test_join_names_the_next_step(joined: Joined, code: str, told: str) -> None:
    world = joined.world.coordinator_ca
    hub = coordinator(joined) if code == "ACCEPTED" else listening()
    async with hub as found, reachable(world, [joined.envelope], code=code) as reach_address:
        address = found if isinstance(found, str) else f"localhost:{found[1]}"
        ended, lines = await join(joined, address, reach_address)
    assert ended == 0
    assert lines[0] == "joined test-treaty, charter version 1"
    assert lines[1].startswith(told)
    assert lines[2] == f"next: foedus-agent --home {joined.home.root} run"


async def join(joined: Joined, address: str, reach_address: str) -> tuple[int | None, list[str]]:
    """The verb in a process of its own: how it ended, and what stood on standard error."""
    arguments = ["--coordinator", address, "--reach", reach_address, "--charter", joined.charter.digest]
    command = [sys.executable, "-m", "node_agent.cli", "--home", str(joined.home.root), "join", *arguments]
    without = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    ran = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE, env=without)
    _, said = await ran.communicate()
    return ran.returncode, said.decode().splitlines()


async def test_grpc_says_nothing_of_its_own_when_a_handshake_fails(joined: Joined) -> None:
    stranger = new_ca("coordinator", "treaty.example", datetime.now(UTC))
    async with reachable(stranger, []) as address, reachable(joined.world.coordinator_ca, [joined.envelope]) as known:
        ended, lines = await join(joined, address, known)
    assert ended == 6
    assert lines == [
        "joined test-treaty, charter version 1",
        "error: the coordinator cannot be reached, or refused the handshake",
        "  run 'foedus-agent check'",
    ]


@asynccontextmanager
async def listening() -> AsyncIterator[str]:
    """A port that accepts connections and then hangs up."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "localhost", free_port())
    async with server:
        yield f"localhost:{server.sockets[0].getsockname()[1]}"


async def checked(joined: Joined, envelopes: Sequence[bytes]) -> dict[str, joining.Finding]:
    """What `check` finds where the coordinator shows these charters."""
    async with reachable(joined.world.coordinator_ca, envelopes) as address:
        joined.join("localhost:1", address)
        base = joined.lay()
        found = {finding.name: finding async for finding in checkup.check(base)}
        base.close()
    return found


async def test_a_later_charter_of_the_coordinator_is_a_note(joined: Joined) -> None:
    second = joined.world.signed(replace(joined.charter, version=2))
    found = (await checked(joined, [joined.envelope, second]))["same charter"]
    assert (found.result, found.is_good) == ("note", True)
    assert found.text == "the coordinator has version 2, which follows version 1 here"
    assert found.remedy == "the running agent follows it by itself"


async def test_a_charter_that_does_not_follow_ours_stands_in_the_way(joined: Joined) -> None:
    forged = joined.world.signed(replace(joined.charter, version=2), signers=1)
    found = (await checked(joined, [joined.envelope, forged]))["same charter"]
    assert found.result == "FAIL"
    assert "1 valid signatures of the 2" in found.text
    assert (await checked(joined, [joined.envelope]))["same charter"].result == "ok"


def test_later_versions_are_followed_from_the_pinned_one(joined: Joined) -> None:
    second = replace(joined.charter, version=2)
    third = replace(joined.charter, version=3)
    envelopes = [joined.envelope, joined.world.signed(second), joined.world.signed(third)]
    now = datetime.now(UTC)
    assert [c.version for c in charters.believe(envelopes, joined.charter.digest, now)] == [1, 2, 3]
    assert [c.version for c in charters.believe(envelopes, second.digest, now)] == [2, 3]
    with pytest.raises(RollbackRefused, match="does not follow"):
        charters.believe([envelopes[0], envelopes[2]], joined.charter.digest, now)


def test_a_version_that_expired_after_it_was_followed_does_not_break_the_chain(joined: Joined) -> None:
    issued = datetime.now(UTC).replace(microsecond=0) - timedelta(days=2)
    first = replace(joined.charter, issued_at=issued, expires_at=issued + timedelta(days=1))
    second = replace(joined.charter, version=2)
    envelopes = [joined.world.signed(first), joined.world.signed(second)]
    assert charters.believe(envelopes, first.digest, datetime.now(UTC))[-1] == second


def test_a_running_agent_follows_a_new_version_and_never_an_older_one(joined: Joined) -> None:
    joined.join("localhost:1")
    base = joined.lay()
    second = replace(joined.charter, version=2)
    both = [joined.envelope, joined.world.signed(second)]
    assert base.nation.follow(both, base.membership) is True
    assert base.nation.charter() == second
    assert base.nation.follow(both, base.membership) is False
    with pytest.raises(TrustError, match="older charter than the one in force"):
        base.nation.follow([joined.envelope], base.membership)
    base.close()
    again = joined.lay()
    assert again.nation.charter() == second
    again.close()


def test_a_successor_that_its_founders_did_not_sign_is_not_followed(joined: Joined) -> None:
    joined.join("localhost:1")
    base = joined.lay()
    forged = joined.world.signed(replace(joined.charter, version=2), signers=1)
    with pytest.raises(TrustError, match="1 valid signatures of the 2"):
        base.nation.follow([joined.envelope, forged], base.membership)
    assert base.nation.charter() == joined.charter
    base.close()


def test_a_delegation_that_ended_or_is_another_nation_s_counts_no_more(joined: Joined) -> None:
    joined.join("localhost:1")
    foreign = joined.world.agent_delegation(PartyCode("DE"), "par-1", new_signing_key())
    (joined.home.delegations / "foreign.json").write_bytes(foreign)
    (joined.home.delegations / "broken.json").write_bytes(b"{}")
    base = joined.lay()
    assert [delegation.nation for delegation in base.nation.delegations()] == [FR]
    base.close()


async def test_reach_is_asked_through_the_same_customs(joined: Joined) -> None:
    journal = SqliteJournal(joined.home.journal, SystemClock())
    ca = joined.world.coordinator_ca
    async with reachable(ca, []) as address:
        async with reach_line(address, ca.certificate_pem().decode(), Customs(journal.crossings)) as line:
            assert (await reach.greet(line)).charter_digest == digest_of(b"c")
    assert journal.crossings.counts() == {"greet": (1, 0)}
    journal.close()


@pytest.mark.parametrize("code", ["NOT_ACCEPTED", "REVOKED", "EXPIRED", "FOREIGN_CA", "NOT_A_PARTY", "SOMETHING_NEW"])
def test_every_diagnosis_is_one_line_with_a_next_step(code: str) -> None:
    error = reach.refusal(code, agent_id(FR, "treaty.example", "par-1"))
    assert error.code == code
    assert error.remedy
    assert "\n" not in str(error)


def test_a_clock_that_is_off_is_named_with_its_side() -> None:
    now = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    greeting = reach.Greeting(now + timedelta(hours=1), digest_of(b"c"), b"")
    assert joining.clock_finding(greeting, now).text == "this machine's clock is 3600 s behind the coordinator's"
    assert joining.clock_finding(replace(greeting, server_time=now), now).is_good


@pytest.mark.parametrize("text", ["localhost", "localhost:0", "localhost:x", ":80", "http://a:80", "a:99999"])
def test_an_address_is_host_and_port(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not host:port"):
        charters.target(text)
