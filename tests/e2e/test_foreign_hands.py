"""A nation's own certificate in other hands than its agent's: what is another nation's stays out of its reach."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from controlplane.federation.spool_reader import SpoolReader
from tests.builders.tiny_llama import build_tiny_llama
from tests.e2e.ceremonies import manifest_digest, publish
from tests.e2e.processes import eventually, hold, release
from tests.e2e.treaty_world import AGENTS, DOMAIN, LABEL, TreatyWorld
from treaty import names
from treaty.names import PartyCode
from treaty.update import UpdateHeader
from treaty.wire.certificates import issue_client, load_issued
from treaty.wire.v1 import transfer_pb2, transfer_pb2_grpc

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("e2e")]


def test_a_nation_reads_no_update_and_speaks_for_nobody_while_the_round_goes_on(
    treaty: TreatyWorld, reference: bytes
) -> None:
    treaty.start_run("foreign-hands")
    trainer = treaty.trainer("FR")
    hold(trainer)
    try:
        spooled = treaty.spooled("foreign-hands", 1, "DE")
        eventually("DE's update is there", spooled.exists)
        theirs = spooled.read_bytes()
        with SpoolReader(spooled) as reader:
            header = reader.header
        assert_refused_as_absent(treaty, header.digest, header)
        assert_refused_as_absent(treaty, header.base_digest, header)  # what FR itself may pull in this round
        said = sent_as_own(treaty, header, theirs[-header.value_bytes :])
        assert (said.code(), said.details()) == (grpc.StatusCode.PERMISSION_DENIED, "UPD-014")
    finally:
        release(trainer)
    assert treaty.run_ended("foreign-hands")["reason"] == "AllRoundsDone"
    assert treaty.arrays("foreign-hands", 2) == reference
    assert spooled.read_bytes() == theirs
    refused = [each for each in treaty.log_of("coordinator") if each["event"] == "artifact refused"]
    logged = {(each["agent"], each["manifest"]) for each in refused}
    assert logged >= {(treaty.agent_id("FR"), header.digest), (treaty.agent_id("FR"), header.base_digest)}


def test_a_version_that_was_not_sent_to_a_nation_does_not_exist_for_it(treaty: TreatyWorld) -> None:
    unsent = treaty.next_version()
    publish(treaty, unsent, [build_tiny_llama(treaty.root / "model-unsent", seed=4)], *LABEL)
    version = manifest_digest(treaty, unsent)
    ready = fetched(treaty, version, [version])
    unheard_of = fetched(treaty, "sha256:" + "0" * 64, [version])
    assert (ready.code(), ready.details()) == (unheard_of.code(), unheard_of.details())
    assert (ready.code(), ready.details()) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


def assert_refused_as_absent(treaty: TreatyWorld, manifest: str, header: UpdateHeader) -> None:
    said = fetched(treaty, manifest, list(header.chunks))
    assert (said.code(), said.details()) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


def channel(treaty: TreatyWorld, code: str = "FR") -> grpc.Channel:
    """A connection with a certificate of that nation's CA, made as its agent makes it."""
    tls, now = treaty.home(code) / "tls", datetime.now(UTC)
    ca = load_issued((tls / "ca.key").read_bytes(), (tls / "ca.pem").read_bytes())
    issued = issue_client(ca, names.agent_id(PartyCode(code), DOMAIN, AGENTS[code]), now, timedelta(hours=1))
    server_ca = (treaty.root / "people" / "ca.pem").read_bytes()
    shown = grpc.ssl_channel_credentials(server_ca, issued.key_pem(), issued.certificate_pem())
    return grpc.secure_channel(treaty.endpoint("grpc"), shown)


def fetched(treaty: TreatyWorld, manifest: str, chunks: list[str]) -> grpc.RpcError:
    """How FR's fetch ends. Raises: AssertionError: it brought something."""
    request = transfer_pb2.FetchRequest(manifest_digest=manifest, chunk_digests=chunks)
    with channel(treaty) as opened:
        method: Any = opened.unary_stream(
            "/treaty.wire.v1.Artifacts/Fetch",
            request_serializer=transfer_pb2.FetchRequest.SerializeToString,
            response_deserializer=None,
        )
        with pytest.raises(grpc.RpcError) as refused:
            list(method(request, timeout=10))
    return refused.value


def sent_as_own(treaty: TreatyWorld, header: UpdateHeader, values: bytes) -> grpc.RpcError:
    """How it ends when FR sends DE's update, with DE's header and receipt."""
    receipt = treaty.receipts("DE", "foreign-hands")[0]["envelope"].encode("ascii")
    opening = transfer_pb2.UpdateOpening(
        run="foreign-hands", round=1, header=header.encoded, receipt=receipt, metrics=b"{}"
    )

    def frames() -> Iterator[transfer_pb2.UpdateFrame]:
        yield transfer_pb2.UpdateFrame(opening=opening)
        yield transfer_pb2.UpdateFrame(chunk=values[: header.chunk_length(0)])

    with channel(treaty) as opened:
        with pytest.raises(grpc.RpcError) as refused:
            transfer_pb2_grpc.UpdatesStub(opened).Send(frames(), timeout=10)
    return refused.value
