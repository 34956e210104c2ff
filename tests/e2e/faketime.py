"""Another time for one program: libfaketime in front of the C library, so that the program itself is what users run.

Only the wall clock is moved; what measures durations stays. In CI the library must be there (`make parts` fails without
it); elsewhere the tests that need it are left out and say how to get it.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tools import parts

needed = pytest.mark.skipif(parts.find("faketime") is None, reason=f"no libfaketime: {parts.PARTS['faketime'].how}")


def environment(offset: str) -> Mapping[str, str]:
    """What to start a program with so that its clock is off by `offset`, such as `+1h` or `-3d`."""
    return {
        "LD_PRELOAD": str(parts.find("faketime")),
        "FAKETIME": offset,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DISABLE_SHM": "1",
    }
