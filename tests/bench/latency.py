"""Milliseconds from an event's sending to its anomaly on a subscriber's WebSocket, at several rates.

    load -> Kafka -> worker: decode, score -> Kafka -> relay -> Redis stream -> gateway -> socket

On Apache Kafka where it is to be had, else on the embedded broker; the line says which. Everything is on, snapshots
too; the worker is pinned to core 0, and load, stores, gateway and subscriber share core 1.
The threshold is the 0.99 quantile instead of the 0.999, so that one event in a hundred gives a sample: ten times the
usual work after scoring. An event's time is the moment at which it was handed to the producer, in whole ms.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from support import until
from websockets.asyncio.client import connect

from infra.embedded.broker import TansuBroker
from tests.bench.stack import TOKEN, Load, Stack, best_broker, named, stack
from tests.bench.world import BROKER_CORE, machine, pin

RATES = {True: (2_000,), False: (5_000, 20_000, 50_000)}
WARM_SECONDS, SECONDS = {True: 5, False: 15}, {True: 5, False: 60}
QUANTILES = {"p50_ms": 50.0, "p95_ms": 95.0, "p99_ms": 99.0, "p99.9_ms": 99.9}


def main(quick: bool) -> dict[str, Any]:
    """Run, print a table, return the figures by rate."""
    pin(os.getpid(), BROKER_CORE)
    found = {}
    for rate in RATES[quick]:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            service = TansuBroker(Path(folder) / "broker") if quick else best_broker(Path(folder))
            with stack(Path(folder), service, threshold_quantile=0.99) as running:
                found[str(rate)] = _measure(running, rate, quick)
    _print(found)
    return {"bench": "latency", "quick": quick, "machine": machine(), "broker": named(service)} | {
        name: {rate: figures[name] for rate, figures in found.items()} for name in next(iter(found.values()))}


def _measure(running: Stack, rate: int, quick: bool) -> dict[str, float]:
    worker = running.worker().wait_ready()
    load = Load(running.settings, rate)
    try:
        until(lambda: worker.metric("streamgauge_anomalies_total") > 0, 120, "the first anomaly")
        time.sleep(WARM_SECONDS[quick])
        waits = np.array(asyncio.run(_listen(running, SECONDS[quick])))
        said, behind = load.stop(), running.lag()
    finally:
        load.kill()
    held = worker.metric("streamgauge_snapshot_freeze_seconds_sum") / worker.metric(
        "streamgauge_snapshot_freeze_seconds_count")
    return {name: round(float(np.percentile(waits, q)), 1) for name, q in QUANTILES.items()} | {
        "samples": len(waits), "sent_per_s": round(said["sent"] / said["seconds"]), "lag_at_end": behind,
        "snapshot_pause_ms": round(1000 * held, 1)}


async def _listen(running: Stack, seconds: float) -> list[float]:
    """Milliseconds from sending to receiving, of every anomaly that comes meanwhile."""
    found: list[float] = []
    address = f"{running.page.replace('http', 'ws')}/ws/anomalies"
    async with connect(address, additional_headers={"Authorization": f"Bearer {TOKEN}"}, proxy=None) as socket:
        until_s = time.monotonic() + seconds
        while (left := until_s - time.monotonic()) > 0:
            try:
                text = await asyncio.wait_for(socket.recv(), left)
            except TimeoutError:
                break
            now, message = time.time() * 1000, json.loads(text)
            assert message["type"] != "missed", message
            if message["type"] == "anomaly":
                found.append(now - message["anomaly"]["ts"])
    assert found, "no anomaly came"
    return found


def _print(found: dict[str, dict[str, float]]) -> None:
    table = Table(title=f"Latency, sent to received on a WebSocket, ms; {machine()}")
    for column in ("events/s", "p50", "p95", "p99", "p99.9", "samples", "really sent/s", "pause for a partition's "
                   "snapshot, ms"):
        table.add_column(column, justify="right")
    for rate, row in found.items():
        table.add_row(f"{int(rate):,}", *(f"{row[name]:,.0f}" for name in QUANTILES), f"{row['samples']:,}",
                      f"{row['sent_per_s']:,}", f"{row['snapshot_pause_ms']:.1f}")
    Console().print(table)
