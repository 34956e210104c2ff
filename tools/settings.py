"""Write the tables of docs/settings.md from the settings classes, or prove that they are what the classes say.

python tools/settings.py            write docs/settings.md
python tools/settings.py --check    exit 1 if a table differs
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # as a script: the packages lie there, not beside this file

from controlplane.settings import Settings as CoordinatorSettings  # noqa: E402
from node_agent.settings import Settings as AgentSettings  # noqa: E402
from treaty.settings import Key, keys_of  # noqa: E402

PAGE = ROOT / "docs" / "settings.md"
TABLES = {"coordinator": keys_of(CoordinatorSettings), "agent": keys_of(AgentSettings)}


def table(keys: Sequence[Key]) -> str:
    """A row a key."""
    rows = ["| key | default | what it is |", "|---|---|---|"]
    for key in keys:
        default = f"`{key.default_yaml}`" if key.default_yaml else "none: it must be set"
        rows.append(f"| `{key.name}` | {default} | {key.text.replace('|', '/')} |")
    return "\n".join(rows)


def written(page: str) -> str:
    """`page` with its tables as the classes say."""
    for name, keys in TABLES.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = f"{before}{begin}{table(keys)}\n{end}{after}"
    return page


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if something is out of date")
    check: bool = parser.parse_args().check
    page = PAGE.read_text(encoding="utf-8")
    wanted = written(page)
    if page == wanted:
        return 0
    if check:
        print("docs/settings.md is out of date; run python tools/settings.py")
        return 1
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
