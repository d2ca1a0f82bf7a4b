"""What benchmarks share: a full broker on one core, a worker on the other, and how a rate is taken."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from support import Worker, until

from infra.embedded.broker import TansuBroker
from streams.kafka import create_topics
from streams.settings import PREFIX, Settings
from tests.bench.load import Item, publish

WORKER_CORE, BROKER_CORE = 0, 1
#: A look at a worker's page costs it a millisecond.
LOOK_SECONDS = 0.1
TICKS = os.sysconf("SC_CLK_TCK")


def machine() -> str:
    """What ran it."""
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.processor())
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


def pin(pid: int, core: int) -> None:
    """Keep a process on a core, where there are two: all the threads that it has, and what they start."""
    if (os.cpu_count() or 1) > core:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(ProcessLookupError):      # it has ended meanwhile
                os.sched_setaffinity(int(thread), {core})


@contextmanager
def filled(load: Sequence[Item], folder: Path, free: bool = False, compression: str | None = None,
           places: Mapping[bytes, int] = MappingProxyType({}), **settings: Any) -> Iterator[TansuBroker]:
    """A broker that holds the load in its topic of telemetry. `free`: on whichever core has time for it."""
    with TansuBroker(folder / f"broker-{time.monotonic_ns()}") as broker:
        if not free:
            pin(broker.pid, BROKER_CORE)
        asyncio.run(_fill(Settings(kafka_url=broker.url, **settings), load, compression, places))
        yield broker


async def _fill(settings: Settings, load: Sequence[Item], compression: str | None, places: Mapping[bytes, int]) -> None:
    await create_topics(settings)
    await publish(settings, load, compression, places)


@contextmanager
def running(broker: TansuBroker, folder: Path, core: int = WORKER_CORE, **settings: object) -> Iterator[Worker]:
    """A worker with everything on, pinned to a core."""
    log = folder / f"worker-{time.monotonic_ns()}.log"
    worker = Worker({f"{PREFIX}KAFKA_URL": broker.url, f"{PREFIX}LOG_LEVEL": "warning",
                     f"{PREFIX}DATA_DIR": str(folder / log.stem)}
                    | {f"{PREFIX}{name.upper()}": str(value) for name, value in settings.items()}, log)
    worker.start()
    assert worker.process is not None
    pin(worker.process.pid, core)
    try:
        yield worker
    finally:
        worker.stop()


class Rate(NamedTuple):
    """Events a second of workers, and their time on a core in microseconds an event."""

    events_per_s: float
    cpu_us: float


def rate(workers: Sequence[Worker], total: int) -> Rate:
    """Of workers from their first batch to their last; start-up is left out."""
    until(lambda: _done(workers) > 0, 180, "the first batch", every=0.005)
    first, busy, began = _done(workers), _busy(workers), time.perf_counter()
    done = first
    while done < total:
        for worker in workers:
            assert not worker.died(), worker.log.read_text()[-2000:]
        time.sleep(LOOK_SECONDS)
        done = _done(workers)
    took = max(time.perf_counter() - began, 1e-9)
    return Rate((total - first) / took, (_busy(workers) - busy) / max(1.0, total - first) * 1e6)


def cpu_seconds(pid: int) -> float:
    """Time that a process has been on a core."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _busy(workers: Sequence[Worker]) -> float:
    return sum(cpu_seconds(worker.process.pid) for worker in workers if worker.process is not None)


def _done(workers: Sequence[Worker]) -> float:
    return sum(worker.metric("streamgauge_events_total") for worker in workers)


def stages(worker: Worker, total: int) -> dict[str, float]:
    """Microseconds an event by stage, from the worker's own counters; `snapshot` is what holds the event loop."""
    samples = worker.samples("streamgauge_stage_seconds_sum", "streamgauge_snapshot_freeze_seconds_sum")
    return {sample.labels.get("stage", "snapshot"): round(sample.value / total * 1e6, 3) for sample in samples}


def resident_bytes(worker: Worker) -> int:
    """Memory that a worker holds."""
    assert worker.process is not None
    for line in Path(f"/proc/{worker.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS in /proc")
