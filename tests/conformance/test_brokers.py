"""What the pipeline relies on, asked of both brokers. Where they differ: infra/decisions/0007."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams.kafka import KafkaSetupError, client_options, create_topics, end_offsets, topic_config
from streams.settings import Settings
from streams.topics import ALERTS, METRICS, TELEMETRY, TOPICS

PARTITIONS = 4
TIMESTAMP_MS = 1_767_225_600_123


@pytest.fixture
async def chosen(broker_url: str, request: pytest.FixtureRequest) -> Settings:
    """Settings with topics of the test's own, which exist."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name)[:120]
    found = Settings(kafka_url=broker_url, topic_prefix=f"{name}.", group=name, partitions=PARTITIONS)
    await create_topics(found)
    return found


def telemetry(settings: Settings, number: int = 0) -> TopicPartition:
    return TopicPartition(settings.topic(TELEMETRY.name), number)


@asynccontextmanager
async def producing(settings: Settings, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(**client_options(settings), max_request_size=8 * 1024 * 1024, **options)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@asynccontextmanager
async def consuming(settings: Settings, *topics: str, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
    defaults = {"auto_offset_reset": "earliest", "enable_auto_commit": False, "fetch_max_wait_ms": 100,
                "session_timeout_ms": 3_000, "heartbeat_interval_ms": 300, "metadata_max_age_ms": 2_000}
    consumer = AIOKafkaConsumer(*topics, **client_options(settings), **(defaults | options))
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def take(consumer: AIOKafkaConsumer, count: int, seconds: float = 20) -> list[Any]:
    """The next `count` records or more, in the order in which they came."""
    found: list[Any] = []
    deadline = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < deadline:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            found += records
    assert len(found) >= count, f"{len(found)} of {count} records within {seconds} s"
    return found


async def read(settings: Settings, tp: TopicPartition, count: int) -> list[Any]:
    """The first `count` records or more of a partition, without a group."""
    async with consuming(settings) as consumer:
        consumer.assign([tp])
        consumer.seek(tp, 0)
        return await take(consumer, count)


async def eventually(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.05)


# -- topics ------------------------------------------------------------------------------------------------------------

async def test_creating_the_topics_again_changes_nothing(chosen: Settings) -> None:
    assert await create_topics(chosen) == []


async def test_all_topics_are_known_as_soon_as_they_were_created(broker_url: str) -> None:
    for number in range(5):
        settings = Settings(kafka_url=broker_url, topic_prefix=f"known-{number}.")
        assert await create_topics(settings) == [settings.topic(row.name) for row in TOPICS]
        async with producing(settings) as producer:
            assert [len(await producer.partitions_for(settings.topic(row.name))) for row in TOPICS] == \
                [settings.partitions] * len(TOPICS)


async def test_another_number_of_partitions_is_an_error_that_names_the_setting(chosen: Settings) -> None:
    with pytest.raises(KafkaSetupError, match="STREAMGAUGE_PARTITIONS is 7"):
        await create_topics(chosen.model_copy(update={"partitions": 7}))


async def test_a_topic_keeps_the_configuration_it_was_created_with(chosen: Settings) -> None:
    admin = AIOKafkaAdminClient(**client_options(chosen))
    await admin.start()
    try:
        name = chosen.topic(METRICS.name)
        answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
        found = {entry[0]: entry[1] for answer in answers for resource in answer.resources for entry in resource[4]}
    finally:
        await admin.close()
    wanted = topic_config(METRICS)
    assert {key: found.get(key) for key in wanted} == wanted


# -- records -----------------------------------------------------------------------------------------------------------

async def test_keys_values_headers_and_timestamps_come_back_as_they_were_sent(chosen: Settings) -> None:
    sent = [(b"\x00\xff\xfe", b"{}"), (b"key", None), (None, b"value"), (b"", b""), ("schlüssel".encode(), b"\x00" * 9)]
    place = TopicPartition(chosen.topic(ALERTS.name), 0)     # of producers' topics Kafka sets the time itself
    headers = [("trace", b"\x00\x01"), ("empty", b"")]
    async with producing(chosen) as producer:
        for key, value in sent:
            await producer.send_and_wait(place.topic, value, key=key, partition=0, headers=headers,
                                         timestamp_ms=TIMESTAMP_MS)
    found = await read(chosen, place, len(sent))
    assert [(record.key, record.value) for record in found] == sent
    assert {record.timestamp for record in found} == {TIMESTAMP_MS}
    assert {record.timestamp_type for record in found} == {0}, "the producer's time, not the broker's"
    assert {tuple(record.headers) for record in found} == {tuple(headers)}


async def test_offsets_start_at_zero_and_follow_the_order_of_sending(chosen: Settings) -> None:
    async with producing(chosen, linger_ms=2) as producer:
        waiting = [await producer.send(telemetry(chosen).topic, str(n).encode(), partition=0) for n in range(3_000)]
        told = [metadata.offset for metadata in await asyncio.gather(*waiting)]
    found = await read(chosen, telemetry(chosen), 3_000)
    assert told == [record.offset for record in found] == list(range(3_000))
    assert [int(record.value) for record in found] == list(range(3_000))


@pytest.mark.parametrize("size", [900_000, 3_900_000])
async def test_a_large_record_is_taken(chosen: Settings, size: int) -> None:
    value = bytes(range(256)) * (size // 256)
    async with producing(chosen) as producer:
        await producer.send_and_wait(telemetry(chosen).topic, value, key=b"large", partition=0)
        await producer.send_and_wait(telemetry(chosen).topic, b"next", partition=0)
    found = await read(chosen, telemetry(chosen), 2)
    assert [record.value for record in found[-2:]] == [value, b"next"]


@pytest.mark.parametrize("compression", ["gzip", None])
async def test_batches_are_read_from_their_middle(chosen: Settings, compression: str | None) -> None:
    async with producing(chosen, linger_ms=50, compression_type=compression) as producer:
        waiting = [await producer.send(telemetry(chosen).topic, str(n).encode(), partition=0) for n in range(500)]
        await asyncio.gather(*waiting)
    async with consuming(chosen) as consumer:
        consumer.assign([telemetry(chosen)])
        for start in (137, 250, 499):
            consumer.seek(telemetry(chosen), start)
            assert (await take(consumer, 1))[0].offset == start


async def test_the_ends_of_partitions_are_found_after_batches_of_any_size(chosen: Settings) -> None:
    tps = [telemetry(chosen, number) for number in range(PARTITIONS)]
    assert await end_offsets(client_options(chosen), tps) == dict.fromkeys(tps, 0)
    async with producing(chosen, linger_ms=50) as producer:
        for number, count in enumerate((1, 250, 0, 1_000)):
            waiting = [await producer.send(tps[number].topic, b"{}", partition=number) for _ in range(count)]
            await asyncio.gather(*waiting)
    assert list((await end_offsets(client_options(chosen), tps)).values()) == [1, 250, 0, 1_000]
    async with consuming(chosen) as consumer:
        assert await consumer.beginning_offsets(tps) == dict.fromkeys(tps, 0)


# -- groups ------------------------------------------------------------------------------------------------------------

async def fill(settings: Settings, count: int, start: int = 0) -> None:
    async with producing(settings, linger_ms=2) as producer:
        waiting = [await producer.send(telemetry(settings).topic, str(n).encode(), partition=n % PARTITIONS)
                   for n in range(start, start + count)]
        await asyncio.gather(*waiting)


async def test_a_group_goes_on_where_it_committed_not_where_it_read(chosen: Settings) -> None:
    await fill(chosen, 400)
    tps = [telemetry(chosen, number) for number in range(PARTITIONS)]
    async with consuming(chosen, tps[0].topic, group_id=chosen.group) as consumer:
        assert len(await take(consumer, 400)) == 400
        await consumer.commit(dict(zip(tps, (10, 0, 100, 37), strict=True)))
        assert [await consumer.committed(tp) for tp in tps] == [10, 0, 100, 37]
    async with consuming(chosen, tps[0].topic, group_id=chosen.group) as consumer:
        found = await take(consumer, 400 - 147)
        first = {number: min((r.offset for r in found if r.partition == number), default=None) for number in range(4)}
        assert first == {0: 10, 1: 0, 2: None, 3: 37}
        assert len(found) == 400 - 147


async def test_two_groups_know_nothing_of_each_other(chosen: Settings) -> None:
    await fill(chosen, 40)
    topic = telemetry(chosen).topic
    async with consuming(chosen, topic, group_id=f"{chosen.group}-a") as one, \
            consuming(chosen, topic, group_id=f"{chosen.group}-b") as two:
        assert len(await take(one, 40)) == 40
        await one.commit()
        assert [await two.committed(telemetry(chosen, number)) for number in range(PARTITIONS)] == [None] * PARTITIONS
        assert len(await take(two, 40)) == 40


async def test_a_second_member_takes_half_and_gives_it_back_when_it_leaves(chosen: Settings) -> None:
    async with reading(chosen) as (one, seen_by_one):
        await fill(chosen, 40)
        await eventually(lambda: len(seen_by_one) == 40, 20, "all records at the only member")
        await one.commit()
        async with reading(chosen) as (two, seen_by_two):
            await eventually(lambda: len(one.assignment()) == len(two.assignment()) == 2, 30, "two partitions each")
            assert one.assignment() | two.assignment() == {telemetry(chosen, number) for number in range(PARTITIONS)}
            await fill(chosen, 40, 40)
            await eventually(lambda: len(seen_by_one) == 60 and len(seen_by_two) == 20, 20, "half of them each")
            await one.commit()
            await two.commit()
        await eventually(lambda: len(one.assignment()) == PARTITIONS, 30, "all partitions come back")
        await fill(chosen, 40, 80)
        await eventually(lambda: len(seen_by_one) == 100, 20, "all records at the only member again")
        assert sorted(seen_by_one + seen_by_two) == list(range(120))


@asynccontextmanager
async def reading(settings: Settings) -> AsyncIterator[tuple[AIOKafkaConsumer, list[int]]]:
    """A member of the group that reads on by itself, and the numbers that it has seen."""
    seen: list[int] = []

    async def read_on(consumer: AIOKafkaConsumer) -> None:
        while True:
            for records in (await consumer.getmany(timeout_ms=100)).values():
                seen.extend(int(record.value) for record in records)

    async with consuming(settings, telemetry(settings).topic, group_id=settings.group) as consumer:
        task = asyncio.create_task(read_on(consumer))
        yield consumer, seen
        task.cancel()
        await asyncio.wait([task])


MEMBER = """
import asyncio, sys
from aiokafka import AIOKafkaConsumer
async def main(url, topic, group):
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=url, group_id=group, session_timeout_ms=2000,
                                heartbeat_interval_ms=500)
    await consumer.start()
    print(len(consumer.assignment()), flush=True)
    await asyncio.sleep(600)
asyncio.run(main(*sys.argv[1:]))
"""


async def test_partitions_of_a_member_that_is_killed_go_to_the_next(chosen: Settings) -> None:
    await fill(chosen, 40)
    member = await asyncio.create_subprocess_exec(sys.executable, "-c", MEMBER, chosen.kafka_url,
                                                  telemetry(chosen).topic, chosen.group, stdout=asyncio.subprocess.PIPE)
    try:
        assert member.stdout is not None
        assert await asyncio.wait_for(member.stdout.readline(), 30) == b"4\n"
    finally:
        member.kill()
        await member.wait()
    async with reading(chosen) as (_, seen):
        await eventually(lambda: len(seen) == 40, 30, "all records at the member that is left")
