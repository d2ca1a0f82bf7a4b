"""One worker, then two, on the same full topic: how throughput scales with the workers.

One: the worker on core 0. Two: a worker on each core. The broker is on whichever has time for it. The rate is taken
while all of them are busy, so that no share of partitions that is a little smaller decides. On two cores the broker
takes its share from the workers; it is stated, and `ratio_per_free_core` is the rate over that of one worker, by the
cores that the broker leaves.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from support import Worker, until

from tests.bench.load import Item, events
from tests.bench.world import BROKER_CORE, WORKER_CORE, filled, machine, pin, running

EVENTS, PARTITIONS, LOOK_S = {True: 60_000, False: 2_000_000}, 16, 0.1
TICKS = os.sysconf("SC_CLK_TCK")


def main(quick: bool) -> dict[str, Any]:
    """Run, print a table, return the figures by number of workers."""
    load = events(EVENTS[quick])
    found = {str(count): _measure(count, load) for count in (1, 2)}
    rates = {count: figures["events_per_s"] for count, figures in found.items()}
    share = found["2"]["broker_share"]
    _print(found)
    return {"bench": "workers", "quick": quick, "events": len(load), "machine": machine(), "events_per_s": rates,
            "ratio": round(rates["2"] / rates["1"], 2), "broker_share": {
                count: figures["broker_share"] for count, figures in found.items()},
            "ratio_per_free_core": round(rates["2"] / rates["1"] / (2 - share), 2)}


def _measure(count: int, load: list[Item]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name, ExitStack() as held:
        folder = Path(name)
        broker = held.enter_context(filled(load, folder, free=True, partitions=PARTITIONS))
        pin(os.getpid(), BROKER_CORE)
        workers = [held.enter_context(running(broker, folder, core, partitions=PARTITIONS))
                   for core in (WORKER_CORE, BROKER_CORE)[:count]]
        until(lambda: all(_done(worker) > 0 for worker in workers), 180, "every worker's first batch", every=0.01)
        begun, busy, began = _counts(workers), _cpu_seconds(broker.pid), time.perf_counter()
        last = begun
        while True:
            time.sleep(LOOK_S)
            now = _counts(workers)
            if sum(now) >= len(load) or any(a == b for a, b in zip(now, last, strict=True)):
                break
            last, seen, used = now, time.perf_counter() - began, _cpu_seconds(broker.pid) - busy
        return {"events_per_s": round((sum(last) - sum(begun)) / seen), "broker_share": round(used / seen, 2)}


def _done(worker: Worker) -> float:
    assert not worker.died(), worker.log.read_text()[-2000:]
    return worker.metric("streamgauge_events_total")


def _counts(workers: list[Worker]) -> list[float]:
    return [_done(worker) for worker in workers]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _print(found: dict[str, dict[str, float]]) -> None:
    table = Table(title=f"Workers; {machine()}")
    for column in ("workers", "events/s", "ratio", "broker's share of a core"):
        table.add_column(column, justify="right")
    for count, row in found.items():
        table.add_row(count, f"{row['events_per_s']:,}", f"{row['events_per_s'] / found['1']['events_per_s']:.2f}",
                      f"{row['broker_share']:.0%}")
    Console().print(table)
