"""The strategy's state between two rounds, on disk: an .npz without pickle, believed by the digest recorded with it.

Members are `<attribute>/<tensor>`. The file appears by rename after fsync, so there is the old state or the new one.
Equal states have equal bytes.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from controlplane.federation.strategies import StrategyState
from treaty.durable import PARTIAL_SUFFIX, disk_errors, sync_directory
from treaty.errors import Corrupt, NotFound
from treaty.names import Digest


def save_state(state: StrategyState, path: Path) -> Digest:
    """Write `state` durably to `path` and return the file's digest, to be recorded with the round.

    Raises: ResourceExhausted: no disk space; `path` is as it was.
    """
    members = {
        f"{attribute}/{name}": array for attribute, arrays in state.attributes.items() for name, array in arrays.items()
    }
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    try:
        with disk_errors("saving a strategy's state"):
            with partial.open("wb") as file:
                np.savez(file, allow_pickle=False, **members)
                file.flush()
                os.fsync(file.fileno())
            digest = _digest(partial)
            partial.replace(path)
            sync_directory(path.parent)
    finally:
        partial.unlink(missing_ok=True)
    return digest


def load_state(path: Path, digest: Digest) -> StrategyState:
    """Read the state that was recorded as `digest`.

    Raises:
        NotFound: there is no such file.
        Corrupt: it is not the one recorded.
    """
    try:
        if _digest(path) != digest:
            raise Corrupt(f"the strategy's state {path.name} is not the one recorded")
        attributes: dict[str, dict[str, NDArray[np.float32]]] = {}
        with np.load(path, allow_pickle=False) as members:
            for member in members.files:
                attribute, _, name = member.partition("/")
                attributes.setdefault(attribute, {})[name] = members[member]
    except FileNotFoundError:
        raise NotFound(f"no strategy state {path.name}") from None
    except (OSError, ValueError, zipfile.BadZipFile) as err:
        raise Corrupt(f"the strategy's state {path.name} cannot be read") from err
    return StrategyState(attributes)


def _digest(path: Path) -> Digest:
    with path.open("rb") as file:
        return Digest("sha256:" + hashlib.file_digest(file, "sha256").hexdigest())
