"""Records through the outbox on a real broker: in order, none missing, and their last offsets told."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from streams.kafka import client_options, create_topics
from streams.settings import Settings
from streams.topics import METRICS
from streams.transport.outbox import Outbox
from support import read_all

SMALL_BATCH = 2_000


@pytest.fixture
async def settings(broker_url: str, request: pytest.FixtureRequest) -> Settings:
    name = request.node.name.split("[")[0][:40]
    found = Settings(kafka_url=broker_url, topic_prefix=f"{name}.", group=name, partitions=2)
    await create_topics(found)
    return found


async def test_records_arrive_once_in_order_over_many_batches(settings: Settings) -> None:
    topic = settings.topic(METRICS.name)
    producer = AIOKafkaProducer(**client_options(settings), max_batch_size=SMALL_BATCH)
    await producer.start()
    outbox = Outbox(lambda: producer, linger_s=0.001)
    running = asyncio.create_task(outbox.run())
    try:
        for number in range(900):
            outbox.put(topic, number % 2, b"%d" % number, None if number % 10 == 9 else b"x" * 100,
                       {"epoch": b"3"} if number % 10 == 9 else None)
            if number % 100 == 0:
                await asyncio.sleep(0.005)
        ends = await outbox.sent()
        assert await outbox.sent() == {}
    finally:
        running.cancel()
        await producer.stop()
    records = await read_all(settings, METRICS.name)
    for partition in (0, 1):
        mine = [record for record in records if record.partition == partition]
        assert [int(record.key) for record in mine] == list(range(partition, 900, 2))
        assert ends[TopicPartition(topic, partition)] == mine[-1].offset
    assert [dict(record.headers) for record in records if record.value is None] == [{"epoch": b"3"}] * 90


async def test_what_the_broker_does_not_take_is_told_again_and_again(settings: Settings) -> None:
    producer = AIOKafkaProducer(**client_options(settings), request_timeout_ms=500)
    await producer.start()
    outbox = Outbox(lambda: producer, linger_s=0.001)
    try:
        outbox.put("no-such-topic-here", 7, b"k", b"v")
        for _ in range(2):
            with pytest.raises((KafkaError, AssertionError)):
                await outbox.sent()
    finally:
        await producer.stop()
