"""Events a second of one worker, from a full topic, everything on; beside the tutorial way in the same run.

The worker (or peer) is pinned to core 0, the broker to core 1. The rate is taken from the worker's own counter between
its first and its last batch; start-up, joining the group and compiling are left out, for the peer as well.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from support import ROOT, Worker, until

from infra.embedded.broker import TansuBroker
from streams.kafka import create_topics
from streams.settings import PREFIX, Settings
from streams.topics import TELEMETRY
from tests.bench.load import events, publish

WORKER_CORE, BROKER_CORE = 0, 1
SIZES = {True: (20_000, 2_000, 1), False: (1_000_000, 20_000, 3)}   # quick: (events, the peer's events, runs)


def main(quick: bool) -> dict[str, Any]:
    """Run, print a table, return the figures."""
    total, for_peer, runs = SIZES[quick]
    load = events(total)
    with tempfile.TemporaryDirectory() as folder:
        ours = [_ours(load, Path(folder), number) for number in range(runs)]
        peer = statistics.median(_tutorial(load[:for_peer], Path(folder)) for _ in range(runs))
    rates = sorted(run["events_per_s"] for run in ours)
    rate, stages = statistics.median(rates), ours[0]["stages_us"]
    _print(load, rates, peer, stages)
    return {"bench": "throughput", "quick": quick, "events": total, "events_per_s": round(rate),
            "peers": {"tutorial": round(peer)}, "ratio": {"tutorial": round(rate / peer, 1)}, "stages_us": stages,
            "runs": [round(found) for found in rates], "machine": machine()}


def machine() -> str:
    """What ran it."""
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.processor())
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _ours(load: list[tuple[bytes, bytes]], folder: Path, number: int) -> dict[str, Any]:
    with TansuBroker(folder / f"broker-{number}") as broker:
        os.sched_setaffinity(broker.pid, {BROKER_CORE})
        settings = Settings(kafka_url=broker.url, group=f"bench-{number}")
        asyncio.run(_fill(settings, load))
        worker = Worker({f"{PREFIX}KAFKA_URL": broker.url, f"{PREFIX}GROUP": settings.group,
                         f"{PREFIX}LOG_LEVEL": "warning"}, folder / f"worker-{number}.log")
        worker.start()
        assert worker.process is not None
        os.sched_setaffinity(worker.process.pid, {WORKER_CORE})
        try:
            return _measure(worker, len(load))
        finally:
            worker.stop()


async def _fill(settings: Settings, load: list[tuple[bytes, bytes]]) -> None:
    await create_topics(settings)
    await publish(settings, load)


def _measure(worker: Worker, total: int) -> dict[str, Any]:
    until(lambda: worker.metric("streamgauge_events_total") > 0, 120, "the first batch")
    first, began = worker.metric("streamgauge_events_total"), time.perf_counter()
    done = first
    while done < total:
        assert not worker.died(), worker.log.read_text()[-2000:]
        time.sleep(0.1)         # a look at its page costs the worker a millisecond
        done = worker.metric("streamgauge_events_total")
    elapsed = time.perf_counter() - began
    stages = {}
    for line in worker.get("/metrics")[1].splitlines():
        if line.startswith("streamgauge_stage_seconds_sum"):
            stages[line.split('"')[1]] = round(float(line.rsplit(" ", 1)[1]) / total * 1e6, 3)
    return {"events_per_s": (total - first) / max(elapsed, 1e-9), "stages_us": stages}


def _tutorial(load: list[tuple[bytes, bytes]], folder: Path) -> float:
    with TansuBroker(folder / f"peer-{time.monotonic_ns()}") as broker:
        os.sched_setaffinity(broker.pid, {BROKER_CORE})
        settings = Settings(kafka_url=broker.url)
        asyncio.run(_fill(settings, load))
        environment = os.environ | {"TUTORIAL_BROKER": broker.url, "TUTORIAL_EVENTS": str(len(load)),
                                    "TUTORIAL_TOPIC": settings.topic(TELEMETRY.name), "PYTHONPATH": str(ROOT)}
        peer = subprocess.Popen([sys.executable, "-m", "tests.bench.peers.tutorial", "worker", "-l", "warn"],
                                cwd=folder, env=environment, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)
        os.sched_setaffinity(peer.pid, {WORKER_CORE})
        try:
            out, errors = peer.communicate(timeout=600)
        except subprocess.TimeoutExpired:
            peer.kill()
            raise
        found = [line for line in out.splitlines() if line.startswith('{"events"')]
        if not found:
            raise RuntimeError(f"the peer gave no figure (exit {peer.returncode}): {errors[-2000:]}")
        answer = json.loads(found[0])
        return float(answer["events"]) / float(answer["seconds"])


def _print(load: list[tuple[bytes, bytes]], rates: list[float], peer: float, stages: dict[str, float]) -> None:
    console = Console(stderr=False)
    table = Table(title=f"Throughput: {len(load):,} events of {len(load[0][1])} bytes; {machine()}")
    for column in ("way", "events/s", "ratio"):
        table.add_column(column, justify="left" if column == "way" else "right")
    rate = statistics.median(rates)
    table.add_row("Streamgauge, one worker on one core", f"{rate:,.0f}", "1")
    table.add_row("Faust tutorial: pydantic + River HST + 3 windows", f"{peer:,.0f}", f"1/{rate / peer:.1f}")
    console.print(table)
    console.print("µs an event by stage: " + ", ".join(f"{name} {cost}" for name, cost in sorted(stages.items())))
