"""A policy bundle as bytes: a gzipped tar in OPA's bundle format, packed the same way each time, read with distrust.

    .manifest      OPA's: roots, revision, Rego version        data.json      the bundle's data
    policy.wasm    the same Rego, compiled                     vectors.json   what it must answer
    **/*.rego      sources (OPA reads these; it ignores vectors.json)

Reading never writes to a disk and trusts no header: bounds on the packed size, the unpacked size and the count hold
before a byte is used; only regular files with plain relative names are taken.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Mapping

from treaty.errors import InvalidInput, LimitExceeded

MAX_PACKED_BYTES = 8 * 1024 * 1024
MAX_UNPACKED_BYTES = 32 * 1024 * 1024
MAX_FILES = 500

MANIFEST = ".manifest"
DATA = "data.json"
WASM = "policy.wasm"
VECTORS = "vectors.json"
FIXED_FILES = frozenset({MANIFEST, DATA, WASM, VECTORS})

_REGO_NAME = re.compile(r"([a-z0-9_]{1,64}/){0,8}[a-z0-9_]{1,64}\.rego\Z", re.ASCII)


def pack(files: Mapping[str, bytes]) -> bytes:
    """The archive of `files`; equal files give equal bytes with one version of zlib, and an equal tar with any."""
    packed = gzip.compress(tar(files), compresslevel=9, mtime=0)
    if len(packed) > MAX_PACKED_BYTES:
        raise LimitExceeded(f"the bundle has {len(packed)} bytes, more than {MAX_PACKED_BYTES}")
    return packed


def tar(files: Mapping[str, bytes]) -> bytes:
    """`files` in the order of their names, without owner, time or anything else of the machine."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(files):
            member = tarfile.TarInfo(_checked_name(name))
            member.size = len(files[name])
            member.mode = 0o644
            archive.addfile(member, io.BytesIO(files[name]))
    return target.getvalue()


def unpack(packed: bytes) -> dict[str, bytes]:
    """The files of an archive from a stranger.

    Raises: LimitExceeded: beyond a bound. InvalidInput: no gzipped tar, a link, a device, an unknown or repeated name.
    """
    if len(packed) > MAX_PACKED_BYTES:
        raise LimitExceeded(f"the bundle has {len(packed)} bytes, more than {MAX_PACKED_BYTES}")
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(inflate(packed)), mode="r:") as archive:
            # One by one: a header is refused before the next is read.
            while (member := archive.next()) is not None:
                if len(files) >= MAX_FILES:
                    raise LimitExceeded(f"the bundle has more than {MAX_FILES} files")
                name = _checked_member(member)
                if name in files:
                    raise InvalidInput(f"the bundle holds {name} twice")
                files[name] = _content(archive, member)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as err:
        raise InvalidInput("the bundle is not a tar archive") from err
    missing = sorted(FIXED_FILES - set(files))
    if missing:
        raise InvalidInput(f"the bundle lacks {missing[0]}")
    return files


def inflate(packed: bytes) -> bytes:
    """Undo gzip, within the bound, for exactly one member and nothing after it."""
    stream = zlib.decompressobj(wbits=31)
    try:
        unpacked = stream.decompress(packed, MAX_UNPACKED_BYTES + 1)
    except zlib.error as err:
        raise InvalidInput("the bundle is not gzipped") from err
    if len(unpacked) > MAX_UNPACKED_BYTES:
        raise LimitExceeded(f"the bundle unpacks to more than {MAX_UNPACKED_BYTES} bytes")
    if not stream.eof or stream.unused_data:
        raise InvalidInput("the bundle is cut off, or something follows it")
    return unpacked


def member(packed: bytes, name: str) -> bytes:
    """One file of an archive that OPA wrote for us; its names begin with a slash. Raises: InvalidInput: it lacks it."""
    with tarfile.open(fileobj=io.BytesIO(inflate(packed)), mode="r:") as archive:
        try:
            return _content(archive, archive.getmember(name))
        except KeyError as err:
            raise InvalidInput(f"the archive lacks {name}") from err


def _checked_member(member: tarfile.TarInfo) -> str:
    if not member.isreg() or member.issparse() or member.pax_headers:
        raise InvalidInput("the bundle holds something that is not a plain file")
    return _checked_name(member.name)


def _checked_name(name: str) -> str:
    if name in FIXED_FILES or _REGO_NAME.match(name):
        return name
    shown = repr(name) if name.isprintable() and len(name) <= 100 else "one with an unprintable name"
    raise InvalidInput(f"the bundle holds a file that has no place in it: {shown}")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    reader = archive.extractfile(member)
    content = reader.read() if reader is not None else b""
    if len(content) != member.size:
        raise InvalidInput("the bundle is cut off")
    return content
