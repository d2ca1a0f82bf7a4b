"""Benchmarks: each prints a table, then one line of JSON. Figures mean what they say on an idle machine only."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))     # tests/support.py

from tests.bench import fanout, latency, recovery, scale, throughput, workers

BENCHES = {"fanout": fanout.main, "latency": latency.main, "recovery": recovery.main, "scale": scale.main,
           "throughput": throughput.main, "workers": workers.main}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("name", choices=sorted(BENCHES))
    parser.add_argument("--quick", action="store_true", help="a small load, to see that it runs; figures mean little")
    chosen = parser.parse_args()
    print(json.dumps(BENCHES[chosen.name](quick=chosen.quick)))


if __name__ == "__main__":
    main()
