"""A child that ends with its parent, however that ends: SIGKILL leaves the parent no time to end anybody.

Two workers of one run would write the same files at once: the one of a coordinator that was killed, still busy, and the
one of the coordinator that came back.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def end_with(parent: int) -> None:
    """Have the kernel kill this process when `parent`, which started it, ends; leave at once where it has already.

    Source: prctl(2), PR_SET_PDEATHSIG. It is the end of the *thread* that started us: the coordinator's main thread.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl refused PR_SET_PDEATHSIG")
    if os.getppid() != parent:
        sys.exit("the coordinator has ended already")
