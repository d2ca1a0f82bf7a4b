"""Kill -9, at random moments, again and again: no event is lost, none counted twice, no alert told twice."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet import flush, published, stream, windows_of
from streams.kafka import create_topics
from streams.settings import PREFIX, Settings
from support import Worker, newest, produce, read_all

PER_SECOND = 400
MOST_SECONDS = 600
#: So late that a window has closed, and is amended.
LATE_MS = 6_000


class Run:
    """Workers of one group on a broker, under a load that goes on in the background."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.workers: list[Worker] = []
        self.enough = asyncio.Event()
        self.start_ms = int(time.time() * 1000)
        self.loading = asyncio.create_task(self._load())

    def worker(self) -> Worker:
        s = self.settings
        worker = Worker({f"{PREFIX}KAFKA_URL": s.kafka_url, f"{PREFIX}TOPIC_PREFIX": s.topic_prefix,
                         f"{PREFIX}GROUP": s.group, f"{PREFIX}CHECKPOINT_MS": "500",
                         f"{PREFIX}SESSION_TIMEOUT_MS": str(s.session_timeout_ms)},
                        self.folder / f"worker-{len(self.workers)}.log").start()
        self.workers.append(worker)
        return worker

    async def ready_worker(self) -> Worker:
        """A worker that takes in events."""
        return await asyncio.to_thread(self.worker().wait_ready)

    async def _load(self) -> int:
        """Events at their own pace until it is enough; the time of the last one, in ms."""
        events, began = stream(self.start_ms, MOST_SECONDS, PER_SECOND, late_ms=LATE_MS), time.monotonic()
        step, sent = PER_SECOND // 4, 0
        while not self.enough.is_set():
            sent += await produce(self.settings, "telemetry", itertools.islice(events, step))
            await asyncio.sleep(max(0.0, began + sent / PER_SECOND - time.monotonic()))
        return self.start_ms + sent * 1000 // PER_SECOND

    async def settle(self, seconds: float = 90) -> None:
        """End the load, close every window and wait until what is published is what must be."""
        self.enough.set()
        end_ms = await self.loading
        await produce(self.settings, "telemetry", flush(self.settings, end_ms + 200_000),
                      partition=lambda item: item["partition_"])
        wanted = windows_of(await read_all(self.settings, "telemetry"), self.settings)
        deadline = time.monotonic() + seconds
        while True:
            got = published(newest(await read_all(self.settings, "metrics")))
            if got == wanted:
                return
            if time.monotonic() > deadline:
                wrong = {key: (wanted.get(key), got.get(key)) for key in wanted.keys() | got.keys()
                         if wanted.get(key) != got.get(key)}
                raise AssertionError(f"{len(wrong)} of {len(wanted)} windows differ (wanted, got): "
                                     f"{dict(list(wrong.items())[:5])}")
            await asyncio.sleep(0.5)

    async def alerts(self) -> list[dict[str, Any]]:
        return [json.loads(record.value) for record in await read_all(self.settings, "alerts")]

    def stop(self) -> None:
        self.loading.cancel()
        for worker in self.workers:
            if not worker.died():
                worker.stop()


@pytest.fixture
async def run(broker_url: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Run]:
    name = f"{request.node.name.split('[')[0][:50]}"
    settings = Settings(kafka_url=broker_url, topic_prefix=f"{name}.", group=name, session_timeout_ms=2_000)
    await create_topics(settings)
    found = Run(settings, tmp_path)
    yield found
    found.stop()


def check_alerts(alerts: list[dict[str, Any]]) -> None:
    """Repeats are identical, so that dropping them by id leaves each once; and an incident opens once."""
    by_id: dict[str, list[dict[str, Any]]] = {}
    for alert in alerts:
        by_id.setdefault(alert["alert_id"], []).append(alert)
    for copies in by_id.values():
        plain = [{key: value for key, value in copy.items() if key != "published_ms"} for copy in copies]
        assert all(copy == plain[0] for copy in plain)
    opened = Counter(copies[0]["incident_id"] for copies in by_id.values() if copies[0]["state"] == "open")
    assert opened
    assert max(opened.values()) == 1
    assert any(copies[0]["cause"] == "error_rate" and copies[0]["model"] == "m3" for copies in by_id.values())


async def test_ten_kills_at_random_moments_change_no_count_and_repeat_no_alert(run: Run) -> None:
    rng = random.Random(11)
    for number in range(10):
        at_work = number % 3 < 2                # the others may die while they start, or restore
        worker = await run.ready_worker() if at_work else run.worker()
        await asyncio.sleep(rng.uniform(0.0, 4.0))
        worker.kill()
    run.worker()
    await run.settle()
    check_alerts(await run.alerts())


async def test_two_workers_then_three_then_one_keep_every_count(run: Run) -> None:
    one, two = await asyncio.gather(run.ready_worker(), run.ready_worker())
    await asyncio.sleep(5)
    three = await run.ready_worker()
    await asyncio.sleep(5)
    assert await asyncio.to_thread(one.stop) == 0
    three.kill()
    await asyncio.sleep(2)
    await run.settle()
    check_alerts(await run.alerts())
    assert not two.died()
