"""The history sink, from Kafka into PostgreSQL: partitions are written together, what is refused is found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
from aiokafka import TopicPartition
from stores_world import DAY, a_drift, a_window, an_anomaly, eventually, world
from support import produce

from streams.kafka import create_topics
from streams.settings import Settings
from streams.stores import metrics
from streams.stores.postgres import connect
from streams.stores.sink import PORTION_RECORDS, Sink
from streams.stores.sinks import HistorySink
from streams.topics import ANOMALIES, DRIFT_EVENTS, METRICS
from streams.wire import Block, WireRecord


@pytest.fixture
async def settings(tmp_path: Path, postgres_url: str, valkey_url: str, broker_url: str) -> Settings:
    found = await world(tmp_path, postgres_url, valkey_url, kafka_url=broker_url)
    found = found.model_copy(update={"group": f"{found.topic_prefix}group"})
    await create_topics(found)
    return found


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator[asyncpg.Pool]:
    found = await connect(settings)
    yield found
    await found.close()


def windows(first: int, count: int, partition: int) -> list[bytes]:
    return [msgspec.json.encode(a_window(DAY + 1_000 * number, size_ms=1_000, partition=partition))
            for number in range(first, first + count)]


async def send(settings: Settings, partition: int, values: list[bytes]) -> None:
    await produce(settings, METRICS.name, values, partition=lambda _: partition)


def bad() -> float:
    return float(metrics.BAD.labels("history", METRICS.name)._value.get())


async def test_what_is_refused_is_passed_over_and_all_else_of_every_partition_is_written(settings: Settings,
                                                                                        pool: asyncpg.Pool) -> None:
    refused = msgspec.json.encode(a_window(size_ms=2**31))      # no column holds that
    await send(settings, 0, [*windows(0, 300, 0), refused, b"no window", *windows(300, 40, 0)])
    await send(settings, 1, [*windows(0, 70, 1), refused, *windows(70, 5, 1)])
    sink, stop, before = HistorySink(settings), asyncio.Event(), bad()
    running = asyncio.create_task(sink.run(stop))

    async def count(partition: int) -> int:
        return int(await pool.fetchval("SELECT count(*) FROM metric_windows WHERE partition = $1", partition))

    try:
        await eventually(lambda: _is(count(0), 340), "windows of one partition")
        await eventually(lambda: _is(count(1), 75), "windows of the other")
        assert bad() - before == 3

        await pool.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                           "WHERE datname = current_database() AND pid <> pg_backend_pid()")
        await send(settings, 1, windows(75, 10, 1))
        await eventually(lambda: _is(count(1), 85), "windows after every connection was cut")
    finally:
        stop.set()
        await running

    again = asyncio.Event()
    running = asyncio.create_task(HistorySink(settings).run(again))
    try:
        await send(settings, 0, windows(340, 1, 0))
        sent_at = time.time()
        await eventually(lambda: _is(count(0), 341), "the window after the commit")
        await eventually(lambda: _looked(sent_at), "the sink has looked, and has everything")
        assert bad() - before == 3, "what was committed is not read again"
    finally:
        again.set()
        await running


async def _looked(since: float) -> bool:
    at, lag = metrics.MEASURED.labels("history"), metrics.LAG.labels("history", METRICS.name)
    return bool(at._value.get() > since and lag._value.get() == 0)


async def _is(count: Any, expected: int) -> bool:
    return bool(await count == expected)


def test_partitions_are_written_together_by_topic_in_portions_and_in_order(tmp_path: Path) -> None:
    sink = Sink(Settings(data_dir=tmp_path), [METRICS, ANOMALIES, DRIFT_EVENTS])

    def record(offset: int, value: bytes | None) -> WireRecord:
        return WireRecord(offset, 0, None, value)

    many = 2 * PORTION_RECORDS + 7
    first = [record(number, value) for number, value in enumerate(windows(0, many - 10, 0))]
    second = [record(number, value) for number, value in enumerate([*windows(0, 10, 1), b"no window"])]
    anomalies = [record(0, None), record(1, an_anomaly(1).model_dump_json().encode())]
    drift = [record(0, a_drift(1).model_dump_json().encode())]
    found = list(sink._portions({
        TopicPartition("drift-events", 1): drift, TopicPartition("metrics", 0): [Block.of(first)],
        TopicPartition("anomalies", 0): anomalies, TopicPartition("metrics", 1): [Block.of(second)]}))
    assert [(topic, len(messages)) for topic, messages in found] == [
        ("metrics", PORTION_RECORDS), ("metrics", PORTION_RECORDS), ("metrics", 7), ("anomalies", 1),
        ("drift-events", 1)]
    told: list[Any] = [window for topic, messages in found if topic == "metrics" for window in messages]
    assert [(window.partition, window.start_ms) for window in told] == [
        *((0, DAY + 1_000 * number) for number in range(many - 10)), *((1, DAY + 1_000 * n) for n in range(10))]
    assert list(sink._portions({})) == []


async def test_a_query_on_a_connection_that_is_about_to_close_is_tried_again(tmp_path: Path) -> None:
    sink, answers = Sink(Settings(data_dir=tmp_path), [METRICS]), iter([asyncpg.InternalClientError("busy"), None])

    async def act() -> str:
        error = next(answers)
        if error is not None:
            raise error
        return "done"

    assert await sink._retry(act, asyncio.Event()) == "done"
