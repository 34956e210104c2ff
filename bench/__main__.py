"""Runs the benchmarks, each in a process of its own, in turn, and prints one table.

    python -m bench [pull] [aggregate] [round] [policy] [log] [start] [--json]

| name | measures | beside |
|---|---|---|
| pull | 1 GiB over mutual TLS, verified and fsynced | curl from nginx then openssl; a raw socket at 20 and 230 ms |
| aggregate | 10 updates of 100 MB from the spool to a digest | read + SHA-256 + add in NumPy; Flower's own FedAvg |
| round | a tiny round of two nations, policy and receipts on | the same steps in one plain process |
| policy | a decision, embedded and through a real OPA | the plainest client of the same OPA |
| log | durable appends to the record | the disk's own fdatasync |
| start | coordinator, agent and `foedus --help` | their own CPU time; bare Python |

Details go to standard error as they come. Ends with 0 whatever was reached, and with 1 only where a benchmark broke.
Run it on a machine that has nothing else to do. Whether federation is worth it is another question with another
program, `python -m bench.federation`, which takes half an hour.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from bench import rows
from bench.rows import Row, say

MODULES = {
    "pull": "bench.pull",
    "aggregate": "bench.aggregate",
    "round": "bench.round",
    "policy": "bench.policy",
    "log": "bench.log_appends",
    "start": "bench.start",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODULES)}; all of them by default")
    parser.add_argument("--json", action="store_true", help="print the rows as one line of JSON")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(MODULES):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; known are {', '.join(MODULES)}")
    measured: list[Row] = []
    broken = []
    for name in chosen.names or MODULES:
        say(f"--- {name}")
        ended = subprocess.run([sys.executable, "-m", MODULES[name], "--json"], stdout=subprocess.PIPE, text=True)
        if ended.returncode:
            broken.append(name)
        else:
            measured += rows.parse(ended.stdout.splitlines()[-1])
    say("")
    rows.show(measured, as_json=chosen.json)
    if broken:
        say(f"broke: {', '.join(broken)}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
