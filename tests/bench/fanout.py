"""Alerts to thousands of sockets: milliseconds from producing to receiving, and what a killed gateway costs.

    producer -> Kafka -> worker: relay -> Redis stream -> two gateways -> subscribers

Gateways are pinned to core 0; subscribers, stores and broker share core 1. First, everybody keeps up; then some get
slow and read less than comes, so that their queues overflow; then the first gateway, which serves them all, is killed
(-9), and its subscribers resume on the second. At the end the slow ones hurry, and everyone must have had every alert
once. `cores` says who kept the machine busy meanwhile; with much by `others`, the waits are theirs.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from rich.console import Console
from rich.table import Table
from support import ROOT, Worker, free_port, until

from schemas.alerts import Alert
from streams.kafka import client_options
from streams.messages import to_bytes
from streams.settings import PREFIX, Settings
from streams.topics import ALERTS
from tests.bench.stack import READY_SECONDS, TOKEN, Stack, stack
from tests.bench.world import BROKER_CORE, WORKER_CORE, machine, pin, resident_bytes

SUBSCRIBERS, SLOW = {True: 200, False: 2_000}, {True: 20, False: 200}
RATE = {True: 50, False: 100}
SECONDS = {True: 4, False: 20}
MODELS = 50
DETAIL = "mean 90 ms a request, usually 30 ms; " * 6


def main(quick: bool) -> dict[str, Any]:
    """Run, print a table, return the figures."""
    pin(os.getpid(), BROKER_CORE)
    with tempfile.TemporaryDirectory() as folder, stack(Path(folder), alert_stream_length=100_000) as running:
        found = _measure(running, quick)
    _print(found)
    return {"bench": "fanout", "quick": quick, "machine": machine()} | found


def _measure(running: Stack, quick: bool) -> dict[str, Any]:
    worker = running.worker().wait_ready()
    assert worker.process is not None
    pin(worker.process.pid, BROKER_CORE)
    first, second = _gateway(running, "first"), _gateway(running, "second")
    assert first.process is not None and second.process is not None
    source = Source(running.settings, RATE[quick])
    everyone = Crowd([first.port, second.port], SUBSCRIBERS[quick], 0)
    slow = Crowd([first.port, second.port], 0, SLOW[quick])
    try:
        source.start()
        until(lambda: everyone.ask("say")["received"] > 0, 60, "the first alert")
        _caught_up(everyone)
        everyone.ask("mark")
        time.sleep(SECONDS[quick])
        alone, empty_mb = everyone.ask("say"), _mb(first)
        slow.ask("dawdle")
        everyone.ask("mark")
        busy = Busy({"gateway": first.process.pid, "second gateway": second.process.pid, "worker": worker.process.pid,
                     "subscribers": everyone.process.pid, "slow ones": slow.process.pid, "source": os.getpid()}
                    | {name.lower().removesuffix("_url"): one.pid for name, one in running.services.items()})
        most_mb = _watched(first, SECONDS[quick])
        cores, beside = busy.cores(), everyone.ask("say")
        overflows = first.metric("gateway_overflows_total")
        first.kill()
        time.sleep(SECONDS[quick] / 2)
        sent = source.stop()
        slow.ask("hurry")
        whole = [_whole(one, sent) for one in (everyone, slow)]
    finally:
        source.stop()
        for one in (everyone, slow):
            one.kill()
        for process in (first, second, worker):
            if not process.died():
                process.kill()
    return {"subscribers": SUBSCRIBERS[quick], "slow": SLOW[quick], "alerts_per_s": RATE[quick], "alerts": sent,
            "p50_ms": beside["p50_ms"], "p99_ms": beside["p99_ms"], "max_ms": beside["max_ms"],
            "p99_ms_without_slow": alone["p99_ms"], "delivered_per_s": RATE[quick] * SUBSCRIBERS[quick],
            "missed": sum(one["missed"] for one in whole), "repeated": sum(one["repeated"] for one in whole),
            "gaps_told": sum(one["gaps"] for one in whole), "resumed": sum(one["resumed"] for one in whole),
            "cores": cores, "overflows": overflows, "gateway_mb": empty_mb, "gateway_mb_with_slow": most_mb}


def _caught_up(crowd: Crowd) -> None:
    """Wait until what was sent before the relay had its partitions is through."""
    for _ in range(60):
        crowd.ask("mark")
        time.sleep(1)
        if 0 < crowd.ask("say")["max_ms"] < 2_000:
            return


def _gateway(running: Stack, name: str) -> Worker:
    port = free_port()
    found = Worker(running.environment | {f"{PREFIX}PORT": str(port)}, running.folder / f"gateway-{name}.log",
                   ["-m", "infra.cli.main", "gateway"]).start()
    assert found.process is not None
    pin(found.process.pid, WORKER_CORE)
    found.port = port
    return found.wait_ready(READY_SECONDS)


def _mb(gateway: Worker) -> float:
    return round(resident_bytes(gateway) / 1e6, 1)


def _watched(gateway: Worker, seconds: float) -> float:
    """The most memory that it held meanwhile."""
    most, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        most = max(most, _mb(gateway))
        time.sleep(0.5)
    return most


def _whole(crowd: Crowd, sent: int) -> dict[str, Any]:
    """What it has once it has everything, or does not come nearer to it."""
    before, still = -1, 0
    while still < 5:
        found = crowd.ask(f"say {sent}")
        if not found["missed"]:
            return found
        still = still + 1 if found["received"] == before else 0
        before = found["received"]
        time.sleep(1)
    return found


class Crowd:
    """The process with the subscribers."""

    def __init__(self, ports: list[int], count: int, slow: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.crowd", ",".join(map(str, ports)), str(count), str(slow), TOKEN],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        pin(self.process.pid, BROKER_CORE)
        until(lambda: self.ask("say")["connected"] == count + slow, 120, "everybody is connected", every=0.5)

    def ask(self, command: str) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return dict(json.loads(self.process.stdout.readline()))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Busy:
    """How many cores processes keep busy, and all others of the machine."""

    def __init__(self, processes: dict[str, int]) -> None:
        self._processes = processes
        self._before, self._began = self._seconds(), time.monotonic()

    def cores(self) -> dict[str, float]:
        """Since it was made."""
        took, after = time.monotonic() - self._began, self._seconds()
        found = {name: round((after[name] - self._before[name]) / took, 2) for name in after}
        return found | {"others": round(found.pop("machine") - sum(found.values()), 2)}

    def _seconds(self) -> dict[str, float]:
        ticks = {"machine": [int(part) for part in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]}
        del ticks["machine"][3:5]       # idle, and waiting for a disk
        for name, pid in self._processes.items():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks[name] = [int(fields[11]), int(fields[12])]
        return {name: sum(found) / os.sysconf("SC_CLK_TCK") for name, found in ticks.items()}


class Source:
    """Alerts at a steady rate, from a thread; incidents open and resolve in turn."""

    def __init__(self, settings: Settings, rate: int) -> None:
        self.sent = 0
        self._settings = settings
        self._rate = rate
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> int:
        """How many the broker has."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(30)
        return self.sent

    async def _run(self) -> None:
        producer = AIOKafkaProducer(**client_options(self._settings), linger_ms=1)
        await producer.start()
        topic, began, under_way = self._settings.topic(ALERTS.name), time.monotonic(), []
        try:
            while not self._over.is_set():
                due = int((time.monotonic() - began) * self._rate)
                while self.sent < due:
                    alert = _alert(self.sent)
                    under_way.append(await producer.send(topic, to_bytes(alert), key=alert.model.encode()))
                    self.sent += 1
                await asyncio.sleep(1 / self._rate / 2)
            await asyncio.gather(*under_way)
        finally:
            await producer.stop()


def _alert(number: int) -> Alert:
    now = int(time.time() * 1000)
    return Alert(environment="prod", model=f"m{number // 2 % MODELS}", version="3", alert_id=f"bench-{number}",
                 incident_id=f"incident-{number // 2}", state="resolved" if number % 2 else "open", cause="latency",
                 severity="warning", title=f"prod/m{number // 2 % MODELS}: 90 ms a request, usually 30 ms",
                 detail=DETAIL, ts=now, opened_ms=now, onset_ms=now, published_ms=now)


def _print(found: dict[str, Any]) -> None:
    table = Table(title=f"Fan-out, produced to received, ms; {machine()}")
    for column in ("subscribers", "slow ones", "alerts/s", "p50", "p99", "p99 without slow", "missed", "repeated",
                   "gateway, MB", "with slow, MB"):
        table.add_column(column, justify="right")
    table.add_row(*(f"{found[name]:,}" for name in (
        "subscribers", "slow", "alerts_per_s", "p50_ms", "p99_ms", "p99_ms_without_slow", "missed", "repeated",
        "gateway_mb", "gateway_mb_with_slow")))
    Console().print(table)
