"""Reading what the pipeline made of a run: the alerts topic from the run's start until the pipeline has caught up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from types import TracebackType

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import ValidationError

from schemas.alerts import Alert
from streams.kafka import client_options, end_offsets
from streams.settings import Settings
from streams.topics import ALERTS, METRICS

#: A window that closes this long before the end still counts as the end: a quiet series has no later one.
SLACK_MS = 5_000
#: After the last windows are out, drift and alerts may still be at work on them.
SETTLE_S = 6.0
NO_NEWS_S = 30.0


class _Window(msgspec.Struct):
    """The few fields of a metric window that tell how far the pipeline is."""

    environment: str
    model: str
    start_ms: int
    size_ms: int


class Collector:
    """Reads `alerts` from where it stood when the run began, and `metrics` from where `mark()` was called.

    Both are assigned from the start: a topic that is added after ten minutes needs new metadata, and aiokafka has been
    seen not to get it.
    """

    def __init__(self, settings: Settings, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock_s = clock_s
        self._consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False, group_id=None)
        self.alerts: list[Alert] = []
        self.unreadable = 0
        self._reached: dict[tuple[str, str], int] = {}

    async def __aenter__(self) -> Collector:
        await self._consumer.start()
        self._consumer.assign(self._partitions(ALERTS.name) + self._partitions(METRICS.name))
        self._consumer.pause(*self._partitions(METRICS.name))
        await self._seek_to_end(self._partitions(ALERTS.name) + self._partitions(METRICS.name))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self._consumer.stop()

    async def mark(self) -> None:
        """Read `metrics` from its present end on: call it shortly before the last events are sent."""
        await self._seek_to_end(self._partitions(METRICS.name))
        self._consumer.resume(*self._partitions(METRICS.name))

    async def catch_up(self, deployments: Iterable[tuple[str, str]], end_ms: int) -> bool:
        """Read until every (environment, model) has a window that ends at `end_ms`, and a while longer.

        False: no news for 30 s before that; the pipeline is away or has stopped.
        """
        wanted = set(deployments)
        news_s = self._clock_s()
        settled_s: float | None = None
        while True:
            if await self._read():
                news_s = self._clock_s()
            now_s = self._clock_s()
            done = all(self._reached.get(key, 0) >= end_ms - SLACK_MS for key in wanted)
            if done and settled_s is None:
                settled_s = now_s
            if settled_s is not None and now_s - max(settled_s, news_s) >= SETTLE_S:
                return True
            if now_s - news_s >= NO_NEWS_S:
                return done

    async def _read(self) -> bool:
        """Take in what has arrived; True if anything had."""
        batches = await self._consumer.getmany(timeout_ms=500, max_records=2_000)
        for partition, records in batches.items():
            for record in records:
                if partition.topic == self._settings.topic(ALERTS.name):
                    self._alert(record.value)
                else:
                    self._window(record.value)
        return bool(batches)

    def _alert(self, value: bytes | None) -> None:
        try:
            self.alerts.append(Alert.model_validate_json(value or b""))
        except ValidationError:
            self.unreadable += 1

    def _window(self, value: bytes | None) -> None:
        if not value:
            return
        try:
            window = msgspec.json.decode(value, type=_Window)
        except msgspec.MsgspecError:
            self.unreadable += 1
            return
        key = (window.environment, window.model)
        self._reached[key] = max(self._reached.get(key, 0), window.start_ms + window.size_ms)

    def _partitions(self, name: str) -> list[TopicPartition]:
        return [TopicPartition(self._settings.topic(name), p) for p in range(self._settings.partitions)]

    async def _seek_to_end(self, partitions: list[TopicPartition]) -> None:
        for partition, offset in (await end_offsets(client_options(self._settings), partitions)).items():
            self._consumer.seek(partition, offset)


async def settle(collector: Collector, deployments: Iterable[tuple[str, str]], end_ms: int) -> bool:
    """`catch_up`, bounded: a pipeline that keeps talking without getting to the end has ten minutes."""
    try:
        return await asyncio.wait_for(collector.catch_up(deployments, end_ms), 600)
    except TimeoutError:
        return False
