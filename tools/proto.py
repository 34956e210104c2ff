"""Generate treaty/wire/v1 from proto/, or check that what is committed is what would be generated.

    python tools/proto.py            write
    python tools/proto.py --check    exit 1 if anything differs

The sources are nested as the Python path, so the generated absolute imports need no patch.
"""

from __future__ import annotations

import filecmp
import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path("treaty/wire/v1")


def generate(target: Path) -> None:
    """Write modules and stubs below `target`."""
    sources = sorted(str(path) for path in (ROOT / "proto" / PACKAGE).glob("*.proto"))
    well_known = str(resources.files("grpc_tools") / "_proto")
    arguments = ["protoc", f"-I{ROOT / 'proto'}", f"-I{well_known}"]
    outputs = [f"--{kind}_out={target}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    if protoc.main([*arguments, *outputs, *sources]) != 0:
        sys.exit("error: protoc refused the sources; see above")


def differing(fresh: Path) -> list[str]:
    """Names of generated files that are missing, stale or left over in the tree."""
    wanted = {path.name for path in (fresh / PACKAGE).iterdir()}
    present = {path.name for path in (ROOT / PACKAGE).glob("*_pb2*")}
    same, _, _ = filecmp.cmpfiles(fresh / PACKAGE, ROOT / PACKAGE, list(wanted), shallow=False)
    return sorted((wanted | present) - set(same))


def main() -> None:
    if "--check" not in sys.argv[1:]:
        generate(ROOT)
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        if stale := differing(Path(folder)):
            sys.exit(f"error: generated code is not up to date: {', '.join(stale)}; run 'make generate'")


if __name__ == "__main__":
    main()
