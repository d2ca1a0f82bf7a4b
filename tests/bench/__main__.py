"""Benchmarks: each prints a table, then one line of JSON. Figures mean what they say on an idle machine only."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))     # tests/support.py

from tests.bench import budget, drift, latency, recovery, scale, throughput, workers

BENCHES = {"budget": budget.main, "drift": drift.main, "latency": latency.main, "recovery": recovery.main,
           "scale": scale.main, "throughput": throughput.main, "workers": workers.main}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("name", choices=sorted(BENCHES))
    parser.add_argument("--quick", action="store_true", help="a small load, to see that it runs; figures mean little")
    parser.add_argument("--data", metavar="DIR", help="folder of the drift streams")
    chosen = parser.parse_args()
    more = {"data": chosen.data} if chosen.name == "drift" else {}
    print(json.dumps(BENCHES[chosen.name](quick=chosen.quick, **more)))


if __name__ == "__main__":
    main()
