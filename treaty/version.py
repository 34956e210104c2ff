"""Which version of Foedus this is: what `--version` prints and what an agent says of itself in its hello."""

from __future__ import annotations

UNKNOWN = "0.0.0"
"""Of a source tree that was never installed; below every version that a policy may ask for."""


def version() -> str:
    """The installed version, in Semantic Versioning."""
    from importlib import metadata  # 10 ms that help and completion do without

    try:
        return metadata.version("foedus")
    except metadata.PackageNotFoundError:
        return UNKNOWN
