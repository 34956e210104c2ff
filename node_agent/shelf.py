"""The model versions that this nation has: verified, whole, one folder each, named by their manifest's digest.

    shelf/<hex>/manifest.json     the canonical bytes that were signed
    shelf/<hex>/files/…           the files it lists
    staging/<hex>/…               a pull under way (node_agent/staging.py); never read by anyone else
    staging/<hex>.journal         how far it is; outlives the move of its folder by a moment

A folder appears on the shelf by rename after everything in it is verified and on the disk, and leaves it by rename
before anything in it is deleted. Nothing here judges whether a version may be served.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from treaty.durable import disk_errors, sync_directory
from treaty.errors import Corrupt, InvalidInput, NotFound, PreconditionFailed
from treaty.manifest import Manifest, parse_manifest
from treaty.names import Digest

MANIFEST_FILE = "manifest.json"
FILES_FOLDER = "files"
JOURNAL_SUFFIX = ".journal"
_HEX = re.compile(r"[0-9a-f]{64}\Z")
_REMOVED_SUFFIX = ".removed"


@dataclass(frozen=True, slots=True)
class ServedFolders:
    """What a runtime loads: the folder of a whole model and, for an adapted version, that of the adapter."""

    base: Path
    adapter: Path | None


@dataclass(frozen=True, slots=True)
class ChunkPlace:
    """Where the bytes of a chunk lie on the shelf."""

    path: Path
    offset: int
    bytes: int


class Shelf:
    """Versions under `root` and pulls under `staging`, which lie on one file system. Creates both."""

    def __init__(self, root: Path, staging: Path) -> None:
        self._root = root
        self._staging = staging
        with disk_errors("opening the shelf"):
            root.mkdir(parents=True, exist_ok=True)
            staging.mkdir(parents=True, exist_ok=True)
            for left in root.glob(f"*{_REMOVED_SUFFIX}"):
                shutil.rmtree(left)

    def versions(self) -> tuple[Digest, ...]:
        """The manifests of all complete versions, sorted."""
        with disk_errors("reading the shelf"):
            return tuple(
                sorted(Digest(f"sha256:{path.name}") for path in self._root.iterdir() if _HEX.match(path.name))
            )

    def has(self, version: Digest) -> bool:
        with disk_errors("reading the shelf"):
            return self._folder(version).is_dir()

    def admitted_at(self, version: Digest) -> int:
        """When the version was pulled, for comparing (ns). Raises: NotFound."""
        with disk_errors("reading the shelf"):
            try:
                return (self._folder(version) / MANIFEST_FILE).stat().st_mtime_ns
            except FileNotFoundError:
                raise NotFound(f"version {version} is not on the shelf", remedy="pull it first") from None

    def manifest(self, version: Digest) -> Manifest:
        """The manifest of a complete version. Raises: NotFound. Corrupt: it is not what was verified."""
        with disk_errors("reading the shelf"):
            try:
                manifest = parse_manifest((self._folder(version) / MANIFEST_FILE).read_bytes())
            except FileNotFoundError:
                raise NotFound(f"version {version} is not on the shelf", remedy="pull it first") from None
            except InvalidInput as err:
                raise _damaged(version) from err
        if manifest.digest != version:
            raise _damaged(version)
        return manifest

    def files(self, version: Digest) -> Path:
        """The folder with a complete version's files. Raises: NotFound."""
        if not self.has(version):
            raise NotFound(f"version {version} is not on the shelf", remedy="pull it first")
        return self._folder(version) / FILES_FOLDER

    def resolve(self, version: Digest) -> ServedFolders:
        """The folders to load for `version`.

        Raises: NotFound: it is not here. PreconditionFailed: its base is not, or adapts another itself.
        """
        base = self.manifest(version).about.base
        if base is None:
            return ServedFolders(self.files(version), None)
        if not self.has(base):
            raise PreconditionFailed(f"the base {base} is not on the shelf", remedy="pull the base first")
        if self.manifest(base).about.base is not None:
            raise PreconditionFailed("the base is an adapter itself", remedy="publish the version on a whole model")
        return ServedFolders(self.files(base), self.files(version))

    def remove(self, version: Digest) -> None:
        """Delete a version. Idempotent. Raises: PreconditionFailed: another version here adapts it."""
        for other in self.versions():
            if other != version and self.manifest(other).about.base == version:
                raise PreconditionFailed(f"version {other} adapts this one", remedy="remove that one first")
        folder = self._folder(version)
        with disk_errors("removing a version"):
            if folder.exists():
                doomed = folder.with_name(folder.name + _REMOVED_SUFFIX)
                folder.rename(doomed)
                sync_directory(self._root)
                shutil.rmtree(doomed)

    def abandon(self, version: Digest) -> None:
        """Delete what an unfinished pull of `version` left, or a finished one's journal. Idempotent."""
        with disk_errors("removing an unfinished pull"):
            folder = self.staging_folder(version)
            if folder.exists():
                shutil.rmtree(folder)
            folder.with_suffix(JOURNAL_SUFFIX).unlink(missing_ok=True)

    def staging_folder(self, version: Digest) -> Path:
        return self._staging / version.removeprefix("sha256:")

    def admit(self, version: Digest) -> None:
        """Make a staged, verified and synced version visible; durable on return."""
        with disk_errors("making a version visible"):
            self.staging_folder(version).rename(self._folder(version))
            sync_directory(self._root)
            sync_directory(self._staging)

    def places(self, chunks: Collection[Digest]) -> dict[Digest, ChunkPlace]:
        """Where those of `chunks` lie that other versions here already have. The bytes are not looked at."""
        found: dict[Digest, ChunkPlace] = {}
        for version in self.versions():
            files = self.files(version)
            for file in self.manifest(version).files:
                for chunk, piece in zip(file.chunks, file.pieces(), strict=True):
                    if chunk in chunks:
                        found.setdefault(chunk, ChunkPlace(files / file.path, piece.offset, piece.bytes))
        return found

    def _folder(self, version: Digest) -> Path:
        return self._root / version.removeprefix("sha256:")


def _damaged(version: Digest) -> Corrupt:
    return Corrupt(f"the manifest of {version} on the shelf is damaged", remedy="remove the version and pull it again")
