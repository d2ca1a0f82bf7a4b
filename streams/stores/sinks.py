"""Topics into stores. Each sink has its own consumer group, so that a store that is away holds up nobody else.

Write, then commit: after a crash the last records are written again, and every write bears that. A store that is away
is tried again for ever; a record that cannot be read is counted and passed over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from prometheus_client import Counter, Gauge
from pydantic import BaseModel, ValidationError
from redis.exceptions import RedisError

from schemas.alerts import Alert
from schemas.windows import MetricWindow
from streams import log
from streams.kafka import client_options
from streams.settings import Settings
from streams.stores import redis as hot
from streams.stores.postgres import History, connect
from streams.topics import ALERTS, ANOMALIES, DRIFT_EVENTS, METRICS, RETRAINING_REQUESTS, TopicRow

logger = log.get(__name__)
RECORDS = Counter("sink_records", "Records written to a store", ["sink", "topic"])
BAD = Counter("sink_bad_records", "Records that could not be read", ["sink", "topic"])
RETRIES = Counter("sink_retries", "Writes that were tried again", ["sink"])
UP = Gauge("sink_up", "1 while the sink's store takes writes", ["sink"])

BATCH_RECORDS = 2_000
WAIT_MS = 200
FIRST_RETRY_S, LONGEST_RETRY_S = 0.2, 5.0
AWAY = (OSError, TimeoutError, RedisError, asyncpg.PostgresError, asyncpg.InterfaceError, KafkaError)

Write = Callable[[Sequence[Any]], Awaitable[None]]


class Sink:
    """One consumer group that copies some topics into one store."""

    name = "sink"
    fetch_wait_ms = WAIT_MS

    def __init__(self, settings: Settings, rows: Sequence[TopicRow]) -> None:
        self.settings = settings
        self.rows = {settings.topic(row.name): row for row in rows}

    async def open(self) -> dict[str, Write]:
        """Connect to the store; a writer for each topic row's name."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let the store go."""

    async def run(self, stop: asyncio.Event) -> None:
        """Copy until `stop` is set."""
        while not stop.is_set():
            try:
                await self._copy(stop)
            except AWAY as error:
                UP.labels(self.name).set(0)
                logger.warning("sink.interrupted", sink=self.name, error=type(error).__name__)
                await _pause(stop, 1.0)
        UP.labels(self.name).set(0)

    async def _copy(self, stop: asyncio.Event) -> None:
        consumer = AIOKafkaConsumer(
            *self.rows, **client_options(self.settings), group_id=f"{self.settings.group}-{self.name}",
            enable_auto_commit=False, auto_offset_reset="earliest", fetch_max_wait_ms=self.fetch_wait_ms,
            session_timeout_ms=self.settings.session_timeout_ms,
            heartbeat_interval_ms=self.settings.session_timeout_ms // 3)
        await consumer.start()
        try:
            writers = await self._retry(self.open, stop)
            while not stop.is_set():
                found = await consumer.getmany(timeout_ms=WAIT_MS, max_records=BATCH_RECORDS)
                for tp, records in found.items():
                    messages = self._read(tp.topic, records)
                    row = self.rows[tp.topic]
                    if messages:
                        await self._write(writers[row.name], row.name, messages, stop)
                if found and not stop.is_set():
                    await consumer.commit()
        finally:
            await consumer.stop()
            await self.close()

    def _read(self, topic: str, records: Sequence[Any]) -> list[BaseModel]:
        row, found = self.rows[topic], []
        for record in records:
            if record.value is None:
                continue
            try:
                found.append(row.schema.model_validate_json(record.value))
            except ValidationError as error:
                BAD.labels(self.name, row.name).inc()
                logger.warning("record.skipped", sink=self.name, topic=topic, partition=record.partition,
                               offset=record.offset, error=str(error)[:300])
        return found

    async def _write(self, write: Write, topic: str, messages: Sequence[BaseModel], stop: asyncio.Event) -> None:
        """Write messages; one that the store refuses for its content is counted and passed over."""
        try:
            await self._retry(partial(write, messages), stop)
            RECORDS.labels(self.name, topic).inc(len(messages))
        except asyncpg.DataError as error:
            if len(messages) == 1:
                BAD.labels(self.name, topic).inc()
                logger.warning("record.refused", sink=self.name, topic=topic, error=str(error)[:300])
                return
            middle = len(messages) // 2
            await self._write(write, topic, messages[:middle], stop)
            await self._write(write, topic, messages[middle:], stop)

    async def _retry(self, act: Callable[[], Awaitable[Any]], stop: asyncio.Event) -> Any:
        """Do it until it works; says once that the store is away and once that it is back."""
        wait, away = FIRST_RETRY_S, False
        while True:
            try:
                answer = await act()
            except asyncpg.DataError:
                raise
            except AWAY as error:
                RETRIES.labels(self.name).inc()
                UP.labels(self.name).set(0)
                if not away:
                    logger.warning("store.away", sink=self.name, error=type(error).__name__)
                away = True
                await _pause(stop, wait)
                wait = min(2 * wait, LONGEST_RETRY_S)
                if stop.is_set():
                    raise
            else:
                UP.labels(self.name).set(1)
                if away:
                    logger.info("store.back", sink=self.name)
                return answer


class HistorySink(Sink):
    """Windows, anomalies, drift, alerts and requests into PostgreSQL."""

    name = "history"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, [METRICS, ANOMALIES, DRIFT_EVENTS, ALERTS, RETRAINING_REQUESTS])
        self._pool: asyncpg.Pool | None = None

    async def open(self) -> dict[str, Write]:
        self._pool = await connect(self.settings)
        history = History(self._pool, self.settings.retention_days)
        await history.drop_old(datetime.now(UTC))
        return {METRICS.name: history.windows, ANOMALIES.name: history.anomalies, DRIFT_EVENTS.name: history.drift,
                ALERTS.name: history.alerts, RETRAINING_REQUESTS.name: history.requests}

    async def close(self) -> None:
        if self._pool is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._pool.close(), 5)


class RedisSink(Sink):
    """What the two Redis sinks share."""

    _hot: hot.Hot | None = None

    async def _connect(self) -> hot.Hot:
        self._hot = hot.Hot(hot.connect(self.settings), self.settings)
        await self._hot.client.ping()
        return self._hot

    async def close(self) -> None:
        if self._hot is not None:
            await self._hot.client.aclose()


class AlertRelay(RedisSink):
    """Alerts onto the Redis stream, at once, each id once."""

    name = "relay"
    fetch_wait_ms = 50

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, [ALERTS])

    async def open(self) -> dict[str, Write]:
        store = await self._connect()

        async def append(alerts: Sequence[Alert]) -> None:
            for alert in alerts:
                await store.append_alert(alert)

        return {ALERTS.name: append}


class HotView(RedisSink):
    """The newest windows of every series into Redis."""

    name = "hotview"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, [METRICS])

    async def open(self) -> dict[str, Write]:
        store = await self._connect()

        async def put(windows: Sequence[MetricWindow]) -> None:
            await store.put_windows(windows)

        return {METRICS.name: put}


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
