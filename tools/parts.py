"""Find the real parts that the tests run against, or build them: OPA, buf, PostgreSQL, libfaketime.

    python tools/parts.py [opa] [buf] [postgres] [faketime] [--install]

Looked for in this order: the variable named below, PATH, `.parts/bin`, Debian's folders. OPA and buf are then built by
Go from their own modules (tools/parts/*/go.mod, versions and digests pinned in go.sum); PostgreSQL and libfaketime are
packages of the system, installed with `--install` where apt-get and the right to use it are there.
Prints what was found, and for what is missing how to get it. Exit code 1 if anything is missing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".parts" / "bin"
DEBIAN = Path("/usr/lib")


@dataclass(frozen=True, slots=True)
class Part:
    """`program` is what is looked for, `variable` overrides the search, `package` is the Go package that builds it.

    `debian` is the package of the system that brings it instead, and `places` are where that puts it, below /usr/lib.
    """

    program: str
    variable: str
    package: str | None
    how: str
    debian: str = ""
    places: str = ""


PARTS = {
    "opa": Part(
        "opa",
        "FOEDUS_OPA",
        "github.com/open-policy-agent/opa",
        "install Go 1.26 and run 'python tools/parts.py opa' (two minutes), or set FOEDUS_OPA",
    ),
    "buf": Part(
        "buf",
        "FOEDUS_BUF",
        "github.com/bufbuild/buf/cmd/buf",
        "install Go 1.26 and run 'python tools/parts.py buf' (three minutes), or set FOEDUS_BUF",
    ),
    "postgres": Part(
        "initdb",
        "FOEDUS_POSTGRES",
        None,
        "run 'python tools/parts.py postgres --install' as root, or set FOEDUS_POSTGRES to the folder with initdb",
        debian="postgresql",
        places="postgresql/*/bin/initdb",
    ),
    "faketime": Part(
        "libfaketimeMT.so.1",
        "FOEDUS_FAKETIME",
        None,
        "run 'python tools/parts.py faketime --install' as root, or set FOEDUS_FAKETIME to libfaketimeMT.so.1",
        debian="libfaketime",
        places="*/faketime/libfaketimeMT.so.1",
    ),
}


def find(name: str) -> Path | None:
    """Where the part is (for PostgreSQL its `initdb`, beside which `postgres` lies); None where it is not."""
    part = PARTS[name]
    given = os.environ.get(part.variable)
    if given:
        path = Path(given)
        path = path / part.program if path.is_dir() else path
        return path if path.exists() else None
    on_path = shutil.which(part.program)
    if on_path:
        return Path(on_path).resolve()
    candidates = [BIN / part.program]
    if part.places:
        candidates += sorted(DEBIAN.glob(part.places), key=_major, reverse=True)
    return next((path for path in candidates if path.exists()), None)


def build(name: str) -> None:
    """Build a part into `.parts/bin` by Go. Does nothing where there is no Go or nothing to build."""
    package = PARTS[name].package
    go = shutil.which("go")
    if package is None or go is None:
        return
    BIN.mkdir(parents=True, exist_ok=True)
    target, unfinished = BIN / PARTS[name].program, BIN / f".{PARTS[name].program}.{os.getpid()}"
    print(f"{name}: building with Go", flush=True)
    done = subprocess.run(
        [go, "build", "-trimpath", "-ldflags", "-s -w", "-o", str(unfinished), package],
        cwd=ROOT / "tools" / "parts" / name,
        env={**os.environ, "CGO_ENABLED": "0"},
        check=False,
    )
    if done.returncode == 0:
        unfinished.rename(target)  # two builds at once leave one whole program


def install(name: str) -> None:
    """Install a part that is a package of the system by apt-get, where that is possible."""
    if shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(["apt-get", "install", "--yes", "--no-install-recommends", PARTS[name].debian], check=False)


def _major(path: Path) -> int:
    version = path.parent.parent.name
    return int(version) if version.isdigit() else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all without one")
    parser.add_argument("--install", action="store_true", help="install packages of the system with apt-get (as root)")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.parts) - set(PARTS))
    if unknown:
        parser.error(f"no part is called {unknown[0]!r}; there are {', '.join(PARTS)}")
    missing = False
    for name in arguments.parts or PARTS:
        if find(name) is None and PARTS[name].debian and arguments.install:
            install(name)
        elif find(name) is None:
            build(name)
        path = find(name)
        print(f"{name}: {path}" if path else f"{name}: missing; {PARTS[name].how}", flush=True)
        missing = missing or path is None
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
