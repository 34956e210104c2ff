"""Builds the manifest of a model version from a folder of files, reading each byte once.

What it would refuse in a pulled version it refuses here, where the publisher can still mend it: a file that is not of
an allowed kind, a link, a malformed safetensors header, a configuration that names code.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from treaty.chunking import CHUNK_BYTES, Piece, plain_pieces, tensor_pieces
from treaty.errors import InvalidInput
from treaty.manifest import Description, Manifest, ModelFile
from treaty.model_files import MAX_CONFIG_BYTES, WEIGHTS_SUFFIX, check_configuration, check_path
from treaty.names import Digest, digest_of
from treaty.safetensors_header import Header, read_header


def build(directory: Path, about: Description) -> Manifest:
    """The manifest of all files under `directory`. Memory: one chunk.

    Raises: InvalidInput: a file may not be part of a model version, or changed while it was read.
    """
    paths = sorted(_paths(directory, directory))
    return Manifest(about, tuple(_model_file(directory, path) for path in paths))


def chunks_of(directory: Path, manifest: Manifest) -> Iterator[tuple[Digest, bytes]]:
    """Each chunk of `manifest` once, with its bytes from `directory`: what a publisher sends.

    Raises: InvalidInput: a file changed since the manifest was built.
    """
    seen: set[Digest] = set()
    for file in manifest.files:
        with (directory / file.path).open("rb") as stream:
            for chunk, piece in zip(file.chunks, file.pieces(), strict=True):
                if chunk in seen:
                    continue
                seen.add(chunk)
                data = _read(stream, piece)
                if digest_of(data) != chunk:
                    raise InvalidInput(f"{file.path!r} changed since its manifest was built")
                yield chunk, data


def _paths(directory: Path, root: Path) -> Iterator[str]:
    with os.scandir(directory) as scanned:
        entries = list(scanned)
    for entry in entries:
        path = Path(entry.path)
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            yield from _paths(path, root)
            continue
        relative = path.relative_to(root).as_posix()
        if not stat.S_ISREG(mode):
            raise InvalidInput(f"{relative!r} is not a regular file", remedy="publish a folder of plain files")
        check_path(relative)
        yield relative


def _model_file(directory: Path, path: str) -> ModelFile:
    source = directory / path
    size = source.stat().st_size
    if path.rsplit("/", 1)[-1] == "config.json":
        with source.open("rb") as stream:
            check_configuration(stream.read(MAX_CONFIG_BYTES + 1))
    header = read_header(source) if path.endswith(WEIGHTS_SUFFIX) else Header(0, ())
    if path.endswith(WEIGHTS_SUFFIX):
        pieces = tensor_pieces(header.header_bytes, (tensor.bytes for tensor in header.tensors))
    else:
        pieces = plain_pieces(size)
    whole = hashlib.sha256()
    chunks = []
    with source.open("rb") as stream:
        for piece in pieces:
            data = _read(stream, piece)
            whole.update(data)
            chunks.append(digest_of(data))
        if stream.read(1):
            raise InvalidInput(f"{path!r} changed while it was read")
    digest = Digest("sha256:" + whole.hexdigest())
    return ModelFile(path, size, digest, tuple(chunks), header.header_bytes, header.tensors)


def _read(stream: BinaryIO, piece: Piece) -> bytes:
    if stream.tell() != piece.offset:
        stream.seek(piece.offset)
    data = stream.read(min(piece.bytes, CHUNK_BYTES))
    if len(data) != piece.bytes:
        raise InvalidInput("a file became shorter while it was read")
    return data
