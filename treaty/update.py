"""What a nation may send after a round of training: a bounded delta in fixed point, described by a header.

The run's plan fixes an `UpdateSpec`: tensors, clip norm, weights. An update is then a header (`UpdateHeader`, canonical
JSON) and a stream of little-endian int32 values, the tensors one after the other in the plan's order, cut into chunks
of 4 MiB. A value `q` stands for `q × clip_norm / 2^value_bits`, so NaN cannot be said, and the sum of `examples × q`
over a cohort is exact in int64 whatever the order. The digest of an update is the SHA-256 of its header, which holds
the digests of its chunks.

Codes of what is refused, here and in `treaty.update_values`:

    UPD-001  header or plan malformed               UPD-009  a value outside the bound
    UPD-002  header too large or nested too deeply  UPD-010  L2 norm above the clip norm
    UPD-003  another run, round, base or encoding   UPD-011  delta with NaN or infinity
    UPD-004  other tensors, shapes or order         UPD-012  delta with other names, shapes or dtypes
    UPD-005  weight outside the plan's bound        UPD-013  plan whose sum would not fit into int64
    UPD-006  claimed size differs from the shapes   UPD-014  another nation's name, or a second one
    UPD-007  chunk index or length wrong            UPD-015  chunks missing at the end
    UPD-008  chunk does not match its digest

This module does no arithmetic on values and needs no NumPy, so a plan can be shown where none is installed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from treaty import names
from treaty.errors import InvalidInput, LimitExceeded, TrustError
from treaty.fields import Fields
from treaty.names import Digest, PartyCode
from treaty.strict_json import JsonObject, JsonValue, canonical, parse_object
from treaty.update_layout import CHUNK_BYTES, VALUE_BITS, Layout, require, take_layout

MAX_HEADER_BYTES = 2**20
MAX_HEADER_DEPTH = 6
_FORMAT = "foedus.update.v1"
_INT64_HEADROOM_BITS = 63


@dataclass(frozen=True, kw_only=True)
class UpdateSpec(Layout):
    """What the run's plan allows an update of one round to be."""

    max_examples: int
    """Largest weight: examples trained this round."""
    max_cohort: int
    value_bits: int = VALUE_BITS
    chunk_bytes: int = CHUNK_BYTES

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_examples >= 1 and self.max_cohort >= 1, "max_examples and max_cohort start at 1")
        if self.max_cohort * self.max_examples * self.bound >= 1 << _INT64_HEADROOM_BITS:
            raise InvalidInput(
                "max_cohort × max_examples × 2^value_bits does not fit into int64",
                remedy="lower max_examples or value_bits in the run's plan",
                code="UPD-013",
            )

    def to_json(self) -> JsonObject:
        return {**self.layout_json(), "max_cohort": self.max_cohort, "max_examples": self.max_examples}

    @classmethod
    def from_json(cls, value: JsonValue) -> UpdateSpec:
        """Read `to_json` back strictly. Raises InvalidInput (UPD-001, UPD-013)."""
        with _coded():
            fields = Fields(value, "update spec")
            max_cohort, max_examples = fields.integer("max_cohort", 1), fields.integer("max_examples", 1)
            layout = take_layout(fields)
            fields.done()
            return cls(**layout, max_cohort=max_cohort, max_examples=max_examples)


@dataclass(frozen=True, kw_only=True)
class UpdateHeader(Layout):
    """What an update says of itself before its first chunk. Consistent in itself; `validate_header` compares it."""

    nation: PartyCode
    examples: int
    """The weight: examples trained this round, never the size of the dataset."""
    chunks: tuple[Digest, ...]
    """SHA-256 of each chunk, in order."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.chunks) != self.chunk_count:
            raise InvalidInput(f"{len(self.chunks)} chunk digests for {self.chunk_count} chunks", code="UPD-006")

    @cached_property
    def encoded(self) -> bytes:
        """Canonical bytes; equal headers have equal bytes. Raises LimitExceeded beyond 1 MiB."""
        data = canonical(
            {
                **self.layout_json(),
                "chunks": list(self.chunks),
                "examples": self.examples,
                "format": _FORMAT,
                "nation": self.nation,
                "value_bytes": self.value_bytes,
            }
        )
        if len(data) > MAX_HEADER_BYTES:
            raise LimitExceeded(f"the update's header has more than {MAX_HEADER_BYTES} bytes", code="UPD-002")
        return data

    @cached_property
    def digest(self) -> Digest:
        """The update's digest, as receipts and sums name it."""
        return names.digest_of(self.encoded)


def parse_header(data: bytes) -> UpdateHeader:
    """Read a header from a stranger; nothing is allocated from what it claims.

    Raises: InvalidInput with UPD-001, -002 or -006. Bytes that are not the canonical ones of their own content are
    refused, so a header has one digest.
    """
    with _coded():
        fields = Fields(parse_object(data, max_bytes=MAX_HEADER_BYTES, max_depth=MAX_HEADER_DEPTH), "update header")
        require(fields.text("format", 32) == _FORMAT, f"the update header's format is not {_FORMAT}")
        nation = names.nation_code(fields.text("nation", 2))
        examples = fields.integer("examples")
        value_bytes = fields.integer("value_bytes")
        chunks = tuple(map(names.digest, fields.texts("chunks", max_items=MAX_HEADER_BYTES // 64, max_chars=71)))
        layout = take_layout(fields)
        fields.done()
        header = UpdateHeader(**layout, nation=nation, examples=examples, chunks=chunks)
    if value_bytes != header.value_bytes:
        raise InvalidInput("the claimed size is not that of the tensors", code="UPD-006")
    require(header.encoded == data, "the update header is not in canonical form")
    return header


def validate_header(header: UpdateHeader, spec: UpdateSpec) -> None:
    """Check that `header` answers `spec`: run, round, base, encoding, tensors in order, weight.

    Raises: InvalidInput with UPD-003, UPD-004 or UPD-005.
    """
    if (header.run_id, header.round, header.base_digest) != (spec.run_id, spec.round, spec.base_digest):
        raise InvalidInput("the update is for another run, round or base", code="UPD-003")
    encoding = (spec.clip_norm_micro, spec.value_bits, spec.chunk_bytes)
    if (header.clip_norm_micro, header.value_bits, header.chunk_bytes) != encoding:
        raise InvalidInput("the update's encoding is not the plan's", code="UPD-003")
    if header.tensors != spec.tensors:
        raise InvalidInput("the update's tensors are not exactly the plan's, in its order", code="UPD-004")
    if not 1 <= header.examples <= spec.max_examples:
        raise InvalidInput(f"the update's weight is not between 1 and {spec.max_examples}", code="UPD-005")


def validate_sender(header: UpdateHeader, nation: PartyCode) -> None:
    """Check that `header` speaks for `nation`, which the caller took from the certificate.

    Raises: TrustError (UPD-014).
    """
    if header.nation != nation:
        raise TrustError("the update speaks for another nation than the one that sends it", code="UPD-014")


def open_bits_per_round(spec: UpdateSpec) -> int:
    """Upper bound on the bits that the values of one update may carry; nothing but noise narrows it.

    The values are a point of the integer grid in a ball of radius R = 2^value_bits in `values` dimensions. Two bounds
    hold, and the smaller one is stated: every coordinate takes one of 2R + 1 levels; and the unit cubes around the
    points are disjoint and lie in a ball of radius R + √n / 2, whose volume therefore counts them.
    """
    count = spec.values
    cube = count * math.log2(2 * spec.bound + 1)
    radius = spec.bound + math.sqrt(count) / 2
    log_volume = count / 2 * math.log(math.pi) - math.lgamma(count / 2 + 1) + count * math.log(radius)
    bits = min(cube, log_volume / math.log(2))
    # A part in 10^9 and one bit on top, so rounding in the logarithms never understates the bound.
    return math.ceil(bits * (1 + 1e-9)) + 1


@contextmanager
def _coded() -> Iterator[None]:
    """Give what the parsers below refuse this module's codes."""
    try:
        yield
    except InvalidInput as err:
        if err.code.startswith("UPD-"):
            raise
        if isinstance(err, LimitExceeded):
            raise LimitExceeded(err.message, code="UPD-002") from err
        raise InvalidInput(err.message, code="UPD-001") from err
