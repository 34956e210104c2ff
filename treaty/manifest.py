"""A model version as a document: what it is, where it comes from, and every byte of it by digest.

Rules:
1. the document is canonical JSON (RFC 8785) of a closed schema; its digest is that of these very bytes;
2. a file lists digests only: the sizes and offsets of its chunks follow from its own size and, for safetensors, its
   tensors (treaty/chunking.py), so a manifest cannot contradict itself about where a chunk lies;
3. totals agree with the files; a digest has one size;
4. a version built on a base names it among its parents.

Signatures lie around it (treaty/statement.py). Building one from a folder is treaty/manifest_build.py; whether the
bytes on a disk are what it says is the business of whoever pulled them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from treaty.chunking import Piece, piece_count, plain_pieces, tensor_pieces
from treaty.errors import InvalidInput, LimitExceeded, RollbackRefused
from treaty.fields import Fields
from treaty.label import Label, parse_label
from treaty.lineage import Evaluation, Lineage, parse_evaluation, parse_lineage
from treaty.model_files import MAX_FILES, MAX_PATH_CHARS, WEIGHTS_SUFFIX, check_path, check_paths
from treaty.names import Digest, ModelRef, digest, digest_of, model_ref, resource_name, semantic_version
from treaty.safetensors_header import (
    LENGTH_BYTES,
    MAX_DIMENSIONS,
    MAX_HEADER_BYTES,
    MAX_NAME_CHARS,
    MAX_TENSORS,
    Tensor,
)
from treaty.strict_json import JsonLike, JsonValue, canonical, parse

FORMAT = "foedus.dev/manifest/v1"

MAX_MANIFEST_BYTES = 5 * 2**20
"""Fits one 8 MiB message also in base64; lists the chunks of about 270 GB."""

MAX_CHUNKS = 100_000
MAX_EVALUATIONS = 64

_ARCHITECTURE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}\Z", re.ASCII)
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file by the digest of its bytes and of its chunks. `header_bytes` is 0 for all but safetensors."""

    path: str
    bytes: int
    digest: Digest
    chunks: tuple[Digest, ...]
    header_bytes: int = 0
    tensors: tuple[Tensor, ...] = ()

    def __post_init__(self) -> None:
        check_path(self.path)
        if self.path.endswith(WEIGHTS_SUFFIX):
            if not LENGTH_BYTES < self.header_bytes <= LENGTH_BYTES + MAX_HEADER_BYTES:
                raise InvalidInput(f"{self.path!r} has an impossible header length")
            if self.header_bytes + sum(tensor.bytes for tensor in self.tensors) != self.bytes:
                raise InvalidInput(f"{self.path!r} has tensors that do not add up to its size")
            if len({tensor.name for tensor in self.tensors}) != len(self.tensors):
                raise InvalidInput(f"{self.path!r} names a tensor twice")
        elif self.header_bytes or self.tensors:
            raise InvalidInput(f"{self.path!r} has tensors but is not safetensors")
        # Counted, not iterated: a claim of 2^53 bytes would iterate for minutes.
        lengths = [self.header_bytes, *(tensor.bytes for tensor in self.tensors)] if self.tensors else [self.bytes]
        if piece_count(lengths) != len(self.chunks):
            raise InvalidInput(f"{self.path!r} lists a number of chunks that its size does not have")
        if len(self.chunks) == 1 and self.chunks[0] != self.digest:
            raise InvalidInput(f"{self.path!r} is one chunk, but has another digest than it")

    def pieces(self) -> Iterator[Piece]:
        """Where each of `chunks` lies, in the same order."""
        if self.path.endswith(WEIGHTS_SUFFIX):
            return tensor_pieces(self.header_bytes, (tensor.bytes for tensor in self.tensors))
        return plain_pieces(self.bytes)

    def to_json(self) -> dict[str, JsonLike]:
        common: dict[str, JsonLike] = {
            "path": self.path,
            "bytes": self.bytes,
            "digest": self.digest,
            "chunks": self.chunks,
        }
        if not self.path.endswith(WEIGHTS_SUFFIX):
            return common
        tensors: list[JsonLike] = [
            {"name": found.name, "dtype": found.dtype, "shape": found.shape} for found in self.tensors
        ]
        return {**common, "header_bytes": self.header_bytes, "tensors": tensors}


@dataclass(frozen=True, slots=True)
class Description:
    """What people and the run say about a version; the files are added by `build`."""

    name: str
    version: str
    base: Digest | None
    """Manifest of the base that this version adapts; None for a version that stands alone."""
    architecture: str
    licence: str
    """SPDX identifier."""
    label: Label
    lineage: Lineage
    evaluations: tuple[Evaluation, ...] = ()

    def __post_init__(self) -> None:
        resource_name(self.name)
        semantic_version(self.version)
        if not _ARCHITECTURE.match(self.architecture):
            raise InvalidInput("the architecture is not a class name")
        if not _LICENCE.match(self.licence):
            raise InvalidInput("the licence is not an SPDX identifier")
        if self.base is not None and self.base not in self.lineage.parents:
            raise InvalidInput("the base is not among the parents")
        if len(self.evaluations) > MAX_EVALUATIONS:
            raise LimitExceeded(f"a version has more than {MAX_EVALUATIONS} evaluations")


@dataclass(frozen=True)
class Manifest:
    """A whole model version. Equal manifests have equal bytes and one digest."""

    about: Description
    files: tuple[ModelFile, ...]

    def __post_init__(self) -> None:
        check_paths(file.path for file in self.files)
        if not self.files:
            raise InvalidInput("a model version has no files")
        if sum(len(file.chunks) for file in self.files) > MAX_CHUNKS:
            raise LimitExceeded(f"a model version has more than {MAX_CHUNKS} chunks")
        if len({(chunk, size) for chunk, size in self._chunks()}) != len({chunk for chunk, _ in self._chunks()}):
            raise InvalidInput("the manifest gives one digest two sizes")

    @property
    def ref(self) -> ModelRef:
        return model_ref(f"{self.about.name}@{self.about.version}")

    @property
    def total_bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @cached_property
    def chunk_bytes(self) -> dict[Digest, int]:
        """Every chunk once, in file order, with its size."""
        return dict(self._chunks())

    @cached_property
    def encoded(self) -> bytes:
        """The canonical bytes: what is signed and what `digest` is of."""
        about = self.about
        document: dict[str, JsonLike] = {
            "format": FORMAT,
            "name": about.name,
            "version": about.version,
            "base": about.base,
            "architecture": about.architecture,
            "licence": about.licence,
            "label": about.label.to_json(),
            "lineage": about.lineage.to_json(),
            "evaluations": [evaluation.to_json() for evaluation in about.evaluations],
            "files": [file.to_json() for file in self.files],
            "totals": {"bytes": self.total_bytes, "chunks": len(self.chunk_bytes), "files": len(self.files)},
        }
        encoded = canonical(document)
        if len(encoded) > MAX_MANIFEST_BYTES:
            raise LimitExceeded(f"the manifest has more than {MAX_MANIFEST_BYTES} bytes")
        return encoded

    @cached_property
    def digest(self) -> Digest:
        return digest_of(self.encoded)

    def _chunks(self) -> Iterator[tuple[Digest, int]]:
        pairs = (zip(file.chunks, file.pieces(), strict=True) for file in self.files)
        return ((chunk, piece.bytes) for chunk, piece in chain.from_iterable(pairs))


def parse_manifest(data: bytes) -> Manifest:
    """Read a manifest from its canonical bytes.

    Raises: InvalidInput: not of the schema, contradictory, beyond a limit or not in canonical form.
    """
    fields = Fields(parse(data, max_bytes=MAX_MANIFEST_BYTES, max_depth=8), "the manifest")
    if fields.text("format", 64) != FORMAT:
        raise InvalidInput(f"the manifest is not of format {FORMAT}")
    about = Description(
        name=fields.text("name", 63),
        version=fields.text("version", 64),
        base=fields.optional_digest("base"),
        architecture=fields.text("architecture", 64),
        licence=fields.text("licence", 64),
        label=parse_label(fields.value("label")),
        lineage=parse_lineage(fields.value("lineage")),
        evaluations=fields.list_of("evaluations", parse_evaluation, max_items=MAX_EVALUATIONS),
    )
    manifest = Manifest(about, fields.list_of("files", _parse_file, max_items=MAX_FILES))
    totals = fields.mapping("totals")
    stated = (totals.integer("bytes"), totals.integer("chunks"), totals.integer("files"))
    totals.done()
    fields.done()
    if stated != (manifest.total_bytes, len(manifest.chunk_bytes), len(manifest.files)):
        raise InvalidInput("the manifest's totals do not agree with its files")
    if manifest.encoded != data:
        raise InvalidInput("the manifest is not in canonical form")
    return manifest


def check_newer(accepted: str, offered: str) -> None:
    """Refuse `offered` unless it comes after `accepted` by semantic versioning.

    Raises: RollbackRefused: the same version or an older one.
    Source: Semantic Versioning 2.0.0, section 11.
    """
    if _precedence(offered) <= _precedence(accepted):
        raise RollbackRefused(f"version {offered} is not newer than {accepted}")


def _precedence(version: str) -> tuple[tuple[int, ...], bool, tuple[tuple[bool, int, str], ...]]:
    core, _, prerelease = semantic_version(version).partition("-")
    parts = [part for part in prerelease.split(".") if prerelease]
    # A release follows its prereleases; numbers come before words.
    order = tuple((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts)
    return tuple(int(number) for number in core.split(".")), not parts, order


def _parse_file(value: JsonValue) -> ModelFile:
    fields = Fields(value, "a file of the manifest")
    path = fields.text("path", MAX_PATH_CHARS)
    is_weights = path.endswith(WEIGHTS_SUFFIX)
    file = ModelFile(
        path=path,
        bytes=fields.integer("bytes"),
        digest=fields.digest("digest"),
        chunks=fields.list_of("chunks", _parse_digest, max_items=MAX_CHUNKS),
        header_bytes=fields.integer("header_bytes", 0, LENGTH_BYTES + MAX_HEADER_BYTES) if is_weights else 0,
        tensors=fields.list_of("tensors", _parse_tensor, max_items=MAX_TENSORS) if is_weights else (),
    )
    fields.done()
    return file


def _parse_tensor(value: JsonValue) -> Tensor:
    fields = Fields(value, "a tensor of the manifest")
    shape = fields.list_of("shape", _parse_size, max_items=MAX_DIMENSIONS)
    tensor = Tensor(fields.text("name", MAX_NAME_CHARS), fields.text("dtype", 16), shape)
    fields.done()
    return tensor


def _parse_digest(value: JsonValue) -> Digest:
    if not isinstance(value, str):
        raise InvalidInput("a chunk of the manifest is not a digest")
    return digest(value)


def _parse_size(value: JsonValue) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidInput("a shape of the manifest is not a list of counts")
    return value
