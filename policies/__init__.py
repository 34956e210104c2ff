"""The policies that come with Foedus: Rego sources, and the same compiled by OPA into unsigned bundles of revision 1.

    treaty/              the treaty: checks, registers, vectors
    overlays/library/    what every nation's overlay is built with
    overlays/<nation>/   worked examples of overlays, each data alone
    compiled/            bundles, so that who only signs them needs no OPA (`tools/policies.py` proves them current)

Nothing here is in force anywhere until the authority whose policy it is has signed it.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent

OVERLAYS = ("de", "fr", "it", "jp", "kr")
NAMES = ("treaty", *OVERLAYS)
OVERLAY_LIBRARY = _HERE / "overlays" / "library"


def source(name: str) -> Path:
    """The folder of a policy: `treaty`, or a nation's code in lower case."""
    return _HERE / "treaty" if name == "treaty" else _HERE / "overlays" / name


def libraries(name: str) -> tuple[Path, ...]:
    """The folders that the policy is built together with."""
    return () if name == "treaty" else (OVERLAY_LIBRARY,)


def compiled_path(name: str) -> Path:
    return _HERE / "compiled" / f"{name}.tar.gz"


def compiled(name: str) -> bytes:
    """The compiled, unsigned bundle of a policy; one of `NAMES`."""
    return compiled_path(name).read_bytes()
