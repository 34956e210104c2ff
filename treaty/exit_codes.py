"""How a program of this project ends: one number per thing that the caller should do next.

Scripts may rely on these; `foedus`, `foedus-agent` and `foedus-coordinator` use them.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from treaty import errors
from treaty.errors import FoedusError

TABLE: Final = """Exit codes:
  0  done
  1  refused or failed              read the line on stderr
  2  bad usage or malformed input   change the command or the file
  3  not found                      check the name
  4  untrusted                      stop; somebody's bytes or identity could not be believed
  5  denied by a policy             change the request, or the policy
  6  unavailable                    the other side did not answer; try again
  7  conflict or precondition       re-read, do the named step first, then repeat
  8  not permitted                  this identity may not do it; use another role
  130  interrupted
"""
"""As the programs' help shows them; 130 is the shell's for an interrupt."""


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNTRUSTED = 4
    DENIED = 5
    UNAVAILABLE = 6
    PRECONDITION = 7
    NOT_PERMITTED = 8


_BY_ERROR: dict[type[FoedusError], ExitCode] = {
    errors.InvalidInput: ExitCode.USAGE,
    errors.NotFound: ExitCode.NOT_FOUND,
    errors.TrustError: ExitCode.UNTRUSTED,
    errors.PolicyDenied: ExitCode.DENIED,
    errors.PermissionRefused: ExitCode.NOT_PERMITTED,
    errors.Unavailable: ExitCode.UNAVAILABLE,
    errors.ConflictError: ExitCode.PRECONDITION,
    errors.PreconditionFailed: ExitCode.PRECONDITION,
}


def exit_code(error: FoedusError) -> ExitCode:
    """The number for `error`, by the nearest class that has one."""
    for kind in type(error).__mro__:
        if issubclass(kind, FoedusError) and kind in _BY_ERROR:
            return _BY_ERROR[kind]
    return ExitCode.FAILED


def error_lines(error: FoedusError) -> str:
    """What a person reads on stderr: one line that says what, and one that says what to do, where known."""
    codes = getattr(error, "codes", ())
    line = f"error: {error.message}" + (f" [{', '.join(codes)}]" if codes else "")
    return f"{line}\n  {error.remedy}" if error.remedy else line
