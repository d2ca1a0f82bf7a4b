"""Two workers on two cores against one: how throughput scales with the workers.

Both work off the same full topic, each on a core; models are placed so that each has about half of it. In turns of 0.3
seconds they run together, then one alone while the other is halted, then together, then the other alone: whatever else
the machine does meets all more alike than in runs one after another. The turns still differ: `ratios` has each cycle's.
The broker is on whichever core has time for it, so on two cores it takes its share from the workers: it is stated, and
`ratio_per_free_core` is the ratio by the cores that the broker leaves.

All of it twice: records as they are, and in batches by LZ4, as producers may send them (`lz4`).
"""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from support import Worker, until

from streams.topics import TELEMETRY
from tests.bench.load import Item, evenly, events
from tests.bench.world import BROKER_CORE, WORKER_CORE, cpu_seconds, filled, machine, pin, running

EVENTS, PARTITIONS, TURN_S = {True: 1_000_000, False: 4_000_000}, 4, {True: 0.2, False: 0.3}
PLAIN, COMPRESSED = "plain", "lz4"
#: So long a worker runs that is slowed, and is halted for four times as long.
RUN_S = 0.05


class Turn(NamedTuple):
    """What workers did in a turn, and the broker's share of a core."""

    events_per_s: float
    broker_share: float


class Cycle(NamedTuple):
    """Together, the first alone, together, the second alone."""

    together: tuple[Turn, Turn]
    alone: tuple[Turn, Turn]

    @property
    def ratio(self) -> float:
        return sum(turn.events_per_s for turn in self.together) / sum(turn.events_per_s for turn in self.alone)


def main(quick: bool) -> dict[str, Any]:
    """Run, print a table, return the figures by number of workers."""
    load = events(EVENTS[quick])
    found = {name: _figures(_measure(load, compression, TURN_S[quick]))
             for name, compression in ((PLAIN, None), (COMPRESSED, COMPRESSED))}
    _print(found)
    return {"bench": "workers", "quick": quick, "events": len(load), "machine": machine()} | found[PLAIN] | {
        COMPRESSED: found[COMPRESSED]}


def _figures(cycles: Sequence[Cycle]) -> dict[str, Any]:
    turns = {1: [turn for cycle in cycles for turn in cycle.alone],
             2: [turn for cycle in cycles for turn in cycle.together]}
    rates = {count: statistics.fmean(turn.events_per_s for turn in some) for count, some in turns.items()}
    shares = {count: statistics.fmean(turn.broker_share for turn in some) for count, some in turns.items()}
    return {"events_per_s": {str(count): round(rate) for count, rate in rates.items()},
            "ratio": round(rates[2] / rates[1], 2), "ratios": [round(cycle.ratio, 2) for cycle in cycles],
            "broker_share": {str(count): round(share, 2) for count, share in shares.items()},
            "ratio_per_free_core": round(rates[2] / rates[1] / (2 - shares[2]), 2)}


def _measure(load: list[Item], compression: str | None, turn_s: float) -> list[Cycle]:
    with tempfile.TemporaryDirectory() as name, ExitStack() as held:
        folder = Path(name)
        broker = held.enter_context(filled(load, folder, free=True, compression=compression,
                                           places=evenly(load, PARTITIONS), partitions=PARTITIONS))
        pin(os.getpid(), BROKER_CORE)
        workers = [held.enter_context(running(broker, folder, core, partitions=PARTITIONS))
                   for core in (WORKER_CORE, BROKER_CORE)]
        until(lambda: any(map(_done, workers)), 180, "the first batch", every=0.01)
        with _slowed([worker for worker in workers if _done(worker)]):
            until(lambda: all(_done(worker) > 0 and _left(worker) > 0 for worker in workers), 180,
                  "every worker's first batch", every=0.01)
        return list(_cycles(workers, broker.pid, turn_s))


def _cycles(workers: list[Worker], broker_pid: int, turn_s: float) -> Iterator[Cycle]:
    """Cycles, as long as every worker is sure to have enough for one more."""
    first, second = workers
    needed = [0.0, 0.0]
    while all(_left(worker) >= least for worker, least in zip(workers, needed, strict=True)):
        before = [_done(worker) for worker in workers]
        turns = []
        for others in ((), (second,), (), (first,)):
            with _halted(others):
                turns.append(_turn([worker for worker in workers if worker not in others], broker_pid, turn_s))
        yield Cycle((turns[0], turns[2]), (turns[1], turns[3]))
        needed = [1.5 * (_done(worker) - old) for worker, old in zip(workers, before, strict=True)]


def _turn(workers: Sequence[Worker], broker_pid: int, seconds: float) -> Turn:
    done, busy, began = sum(map(_done, workers)), cpu_seconds(broker_pid), time.perf_counter()
    time.sleep(seconds)
    done, busy, took = (sum(map(_done, workers)) - done, cpu_seconds(broker_pid) - busy, time.perf_counter() - began)
    return Turn(done / took, busy / took)


@contextmanager
def _slowed(workers: Sequence[Worker]) -> Iterator[None]:
    """Let them run for a fifth of the time: whoever is first must not have read all of it when the others join."""
    over = threading.Event()

    def turns() -> None:
        while not over.wait(RUN_S):
            with _halted(workers):
                over.wait(4 * RUN_S)

    thread = threading.Thread(target=turns)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _halted(workers: Sequence[Worker]) -> Iterator[None]:
    """Let them stand still; too short for their group to miss them."""
    for worker in workers:
        worker.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for worker in workers:
            worker.signal(signal.SIGCONT)


def _done(worker: Worker) -> float:
    assert not worker.died(), worker.log.read_text()[-2000:]
    return worker.metric("streamgauge_events_total")


def _left(worker: Worker) -> float:
    """Records of telemetry that wait for a worker, as far as it knows."""
    return sum(sample.value for sample in worker.samples("streamgauge_consumer_lag")
               if sample.labels["topic"] == TELEMETRY.name)


def _print(found: dict[str, dict[str, Any]]) -> None:
    table = Table(title=f"Workers; {machine()}")
    for column in ("records", "one, events/s", "two, events/s", "ratio", "of cycles", "broker's share of a core"):
        table.add_column(column, justify="right")
    for name, row in found.items():
        table.add_row(name, *[f"{rate:,}" for rate in row["events_per_s"].values()], f"{row['ratio']:.2f}",
                      f"{min(row['ratios']):.2f} to {max(row['ratios']):.2f}", f"{row['broker_share']['2']:.0%}")
    Console().print(table)
