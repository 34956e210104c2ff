from __future__ import annotations

import io
import json
import struct

import numpy as np
import pytest

from node_agent.training.frames import Frame, Limits, PipeEnd, encode
from treaty.errors import InvalidInput, LimitExceeded


def written(frame: Frame) -> bytes:
    return b"".join(bytes(piece) for piece in encode(frame))


def read(data: bytes, limits: Limits = Limits()) -> Frame | None:  # noqa: B008 - frozen
    return PipeEnd(io.BytesIO(data), io.BytesIO()).receive(limits)


def raw(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<II", len(text), len(body)) + text + body


def test_a_frame_comes_back_as_it_was_sent() -> None:
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros((0, 4), np.float32)}
    frame = read(written(Frame("delta", {"n": 3, "t": "é"}, arrays)))
    assert frame is not None
    assert (frame.type, frame.fields, list(frame.arrays)) == ("delta", {"n": 3, "t": "é"}, ["a", "b"])
    assert np.array_equal(frame.arrays["a"], arrays["a"])
    assert frame.arrays["b"].shape == (0, 4)


def test_a_closed_pipe_is_the_end_and_a_cut_frame_is_not() -> None:
    data = written(Frame("ask"))
    assert read(b"") is None
    for end in (4, len(data) - 1):
        with pytest.raises(EOFError):
            read(data[:end])


@pytest.mark.parametrize(("header", "body"), [(2**32 - 1, 0), (10, 2**32 - 1)])
def test_a_claim_beyond_the_limits_is_refused_before_it_is_read(header: int, body: int) -> None:
    with pytest.raises(LimitExceeded, match="a frame claims") as refused:
        read(struct.pack("<II", header, body))
    assert refused.value.code == "FRAME_TOO_LARGE"


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b'{"type":"a","type":"b","fields":{},"arrays":[]}',
        {"type": "a", "fields": {}},
        {"type": "a", "fields": {}, "arrays": [], "more": 1},
        {"type": 1, "fields": {}, "arrays": []},
        {"type": "a", "fields": [], "arrays": []},
        {"type": "a", "fields": {"x": 1.5}, "arrays": []},
        {"type": "a", "fields": {}, "arrays": [["x", [-1]]]},
        {"type": "a", "fields": {}, "arrays": [["x", [True]]]},
        {"type": "a", "fields": {}, "arrays": [["x", [1, 1, 1, 1, 1]]]},
        {"type": "a", "fields": {}, "arrays": [["", [0]]]},
        {"type": "a", "fields": {}, "arrays": [["x", [0]], ["x", [0]]]},
    ],
)
def test_a_malformed_header_is_refused(header: object) -> None:
    with pytest.raises(InvalidInput, match="header is malformed"):
        read(raw(header))


@pytest.mark.parametrize("body", [b"", b"123", b"1234567", b"12345678"])
def test_a_body_that_is_not_as_long_as_its_shapes_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput, match="not as long as its shapes say"):
        read(raw({"type": "a", "fields": {}, "arrays": [["x", [1]]]}, body))
