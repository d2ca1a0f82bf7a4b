"""Benchmarks: each prints a table, then one line of JSON. Figures mean what they say on an idle machine only."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))     # tests/support.py

from tests.bench import (
    accuracy,
    budget,
    drift,
    fanout,
    latency,
    multivariate,
    nab,
    recovery,
    scale,
    throughput,
    windows,
    workers,
)
from tests.bench.data import folder

BENCHES = {"budget": budget.main, "fanout": fanout.main, "latency": latency.main, "recovery": recovery.main,
           "scale": scale.main, "throughput": throughput.main, "windows": windows.main, "workers": workers.main}
#: Those that read labelled data.
WITH_DATA = {"accuracy": accuracy.main, "drift": drift.main, "multivariate": multivariate.main, "nab": nab.main}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("name", choices=sorted(BENCHES | WITH_DATA))
    parser.add_argument("--quick", action="store_true", help="a small load, to see that it runs; figures mean little")
    parser.add_argument("--data", metavar="DIR", help="labelled data (default: STREAMGAUGE_DATA, or ../shared/data)")
    chosen = parser.parse_args()
    if chosen.data and chosen.name not in WITH_DATA:
        parser.error(f"{chosen.name} reads no data: leave --data out")
    try:
        figures = (WITH_DATA[chosen.name](quick=chosen.quick, data=folder(chosen.data)) if chosen.name in WITH_DATA
                   else BENCHES[chosen.name](quick=chosen.quick))
    except KeyboardInterrupt:
        sys.exit("Interrupted: there are no figures.")
    print(json.dumps(_known(figures), allow_nan=False))


def _known(figures: Any) -> Any:
    """JSON knows neither infinity nor what is no number: null."""
    if isinstance(figures, dict):
        return {name: _known(each) for name, each in figures.items()}
    if isinstance(figures, list | tuple):
        return [_known(each) for each in figures]
    return None if isinstance(figures, float) and not math.isfinite(figures) else figures


if __name__ == "__main__":
    main()
