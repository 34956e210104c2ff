"""An agent killed in the middle of a pull: what was verified is not fetched again, but for one chunk a stream."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from node_agent.pull import PullSettings
from tests.builders.tiny_llama import build_tiny_llama
from tests.e2e.ceremonies import begin_rollout, manifest_digest, publish
from tests.e2e.processes import eventually
from tests.e2e.treaty_world import LABEL, MODEL, TreatyWorld
from treaty.chunking import CHUNK_BYTES

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("e2e")]

PADDING_CHUNKS = 12
RECORD_BYTES = 4
"""Of the staging journal, for each chunk that is in place."""
CONTROL_BYTES = 1_000_000
"""Handshakes, heartbeats and the version's small files, generously."""


def test_an_agent_killed_in_a_pull_fetches_at_most_one_chunk_a_stream_again(treaty: TreatyWorld) -> None:
    publish(treaty, "1.3.0", [padded(build_tiny_llama(treaty.root / "model-1.3", seed=3))], *LABEL)
    line, digest = treaty.lines["FR"], manifest_digest(treaty, "1.3.0").removeprefix("sha256:")
    line.stall_after(7 * CHUNK_BYTES)
    begin_rollout(treaty, "pull-killed", "1.3.0", "--fallback", f"{MODEL}@1.0.0")
    eventually("half of it is there", lambda: line.is_stalled)
    journal = treaty.home("FR") / "staging" / f"{digest}.journal"
    eventually("chunks are journaled", lambda: journal.stat().st_size >= 2 * RECORD_BYTES)
    treaty.kill("agent-FR")
    journaled = journal.stat().st_size // RECORD_BYTES
    before = line.passed
    line.cut()
    line.mend()
    treaty.start_agent("FR", is_awaited=False)
    ended = treaty.rollout_ended("pull-killed")
    assert ended["type"] == "Succeeded", treaty.resource("Rollout", "pull-killed")["status"]
    fetched = line.passed - before
    most = (PADDING_CHUNKS - journaled + PullSettings().streams) * CHUNK_BYTES + CONTROL_BYTES
    assert fetched <= most
    assert fetched < PADDING_CHUNKS * CHUNK_BYTES


def padded(folder: Path) -> Path:
    """The model with one more tensor of twelve chunks, which no layer reads."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    rows = PADDING_CHUNKS * CHUNK_BYTES // 2 // 1024
    values = np.random.default_rng(0).normal(0, 1, (rows, 1024)).astype("<f4")
    more = (values.view("<u4") >> 16).astype("<u2").tobytes()
    header["padding.weight"] = {
        "dtype": "BF16",
        "shape": [rows, 1024],
        "data_offsets": [len(body), len(body) + len(more)],
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + body + more)
    return folder
