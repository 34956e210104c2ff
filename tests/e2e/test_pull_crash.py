"""An agent killed in the middle of a pull: what was verified is not fetched again, but for one chunk a stream."""

from __future__ import annotations

from pathlib import Path

import pytest

from node_agent.pull import PullSettings
from tests.builders.tiny_llama import build_tiny_llama
from tests.e2e.ceremonies import PADDING_CHUNKS, begin_rollout, manifest_digest, padded, publish
from tests.e2e.processes import eventually
from tests.e2e.treaty_world import LABEL, MODEL, TreatyWorld
from treaty.chunking import CHUNK_BYTES
from treaty.manifest import parse_manifest

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("e2e")]

RECORD_BYTES = 4
"""Of the staging journal, for each chunk that is in place."""
CONTROL_BYTES = 1_000_000
"""Handshakes, heartbeats and the version's small files, generously."""


def test_an_agent_killed_in_a_pull_fetches_at_most_one_chunk_a_stream_again(treaty: TreatyWorld) -> None:
    version = treaty.next_version()
    publish(treaty, version, [padded(build_tiny_llama(treaty.root / "model-padded", seed=3), seed=3)], *LABEL)
    line, digest = treaty.lines["FR"], manifest_digest(treaty, version).removeprefix("sha256:")
    line.stall_after(7 * CHUNK_BYTES)
    begin_rollout(treaty, "pull-killed", version, "--fallback", f"{MODEL}@1.0.0")
    eventually("half of it is there", lambda: line.is_stalled)
    staging = treaty.home("FR") / "staging" / digest
    eventually("chunks are journaled", lambda: journaled_bytes(staging) >= 2 * CHUNK_BYTES)
    treaty.kill("agent-FR")
    kept = journaled_bytes(staging)
    before = line.passed
    line.cut()
    line.mend()
    treaty.start_agent("FR", is_awaited=False)
    ended = treaty.rollout_ended("pull-killed")
    assert ended["type"] == "Succeeded", treaty.resource("Rollout", "pull-killed")["status"]
    fetched = line.passed - before
    most = PADDING_CHUNKS * CHUNK_BYTES - kept + PullSettings().streams * CHUNK_BYTES + CONTROL_BYTES
    assert fetched <= most
    assert fetched < PADDING_CHUNKS * CHUNK_BYTES


def journaled_bytes(staging: Path) -> int:
    """Bytes of the chunks that the pull into this folder has journaled."""
    journal = staging.with_suffix(".journal")
    if not (staging / "manifest.json").is_file() or not journal.is_file():
        return 0
    sizes = list(parse_manifest((staging / "manifest.json").read_bytes()).chunk_bytes.values())
    records = journal.read_bytes()
    indices = {int.from_bytes(records[at : at + RECORD_BYTES], "little") for at in range(0, len(records), RECORD_BYTES)}
    return sum(sizes[index] for index in indices)
