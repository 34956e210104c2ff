"""Compile the policies of the wheel with a real OPA, or prove that what is committed is what the sources give.

    python tools/policies.py            write policies/compiled/
    python tools/policies.py --check    exit 1 if a compiled bundle differs from its sources

Compared is the tar inside, byte by byte: another zlib may gzip the same bytes differently.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # as a script: `policies` is the package, not this file

import policies  # noqa: E402
from tools.parts import find  # noqa: E402
from treaty.errors import FoedusError  # noqa: E402
from treaty.policy import archive, author  # noqa: E402

REVISION = 1


def is_current(name: str, built: bytes) -> bool:
    path = policies.compiled_path(name)
    return path.exists() and archive.inflate(path.read_bytes()) == archive.inflate(built)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if something is out of date")
    check: bool = parser.parse_args().check
    opa = find("opa")
    if opa is None:
        print("no OPA: run 'python tools/parts.py opa'", file=sys.stderr)
        return 1
    outdated = []
    for name in policies.NAMES:
        try:
            built = author.build(policies.source(name), REVISION, opa=opa, libraries=policies.libraries(name))
        except FoedusError as err:
            print(f"{name}: {err}", file=sys.stderr)
            return 1
        if is_current(name, built):
            continue
        outdated.append(name)
        if not check:
            policies.compiled_path(name).parent.mkdir(exist_ok=True)
            policies.compiled_path(name).write_bytes(built)
    for name in outdated:
        print(f"{name}: {'out of date; run python tools/policies.py' if check else 'compiled'}")
    return 1 if check and outdated else 0


if __name__ == "__main__":
    sys.exit(main())
