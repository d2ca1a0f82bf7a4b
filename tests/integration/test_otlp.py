"""OTLP metrics from a topic into telemetry, on both brokers: committed when passed on, the same ids if again."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from google.protobuf.json_format import MessageToJson
from support import read_all

from agents.otlp.bridge import OtlpBridge
from streams.kafka import client_options, create_topics
from streams.settings import Settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit/otlp"))
from test_otlp_mapping import gauge, otlp, point

_numbers = itertools.count()
PATIENCE_S = 60.0


@pytest.fixture
async def settings(broker_url: str, tmp_path: Path) -> Settings:
    number = next(_numbers)
    found = Settings(kafka_url=broker_url, topic_prefix=f"otlp{number}-", group=f"otlp{number}", partitions=2,
                     otlp_topic=f"otlp_metrics_{number}", data_dir=tmp_path)
    await create_topics(found)
    admin = AIOKafkaAdminClient(**client_options(found))
    await admin.start()
    await admin.create_topics([NewTopic(found.otlp_topic, 3, 1)])
    await admin.close()
    return found


async def send(settings: Settings, *values: bytes) -> None:
    """As the exporter does: without keys, to any partition."""
    producer = AIOKafkaProducer(**client_options(settings))
    await producer.start()
    try:
        for number, value in enumerate(values):
            await producer.send_and_wait(settings.otlp_topic, value, partition=number % 3)
    finally:
        await producer.stop()


async def bridged(settings: Settings, telemetry: int, rejected: int) -> list[list[dict[str, Any]]]:
    """Run the bridge until so many records have come out, and stop it."""
    stop = asyncio.Event()
    running = asyncio.create_task(OtlpBridge(settings).run(stop))
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = [[json.loads(record.value) for record in await read_all(settings, topic)]
                         for topic in ("telemetry", "telemetry-rejected")]
                if len(found[0]) >= telemetry and len(found[1]) >= rejected:
                    return found
                assert not running.done(), running
                await asyncio.sleep(0.2)
    finally:
        stop.set()
        await asyncio.wait_for(running, PATIENCE_S)


async def test_both_encodings_become_telemetry_and_the_rest_is_kept(settings: Settings) -> None:
    one, two = otlp(gauge("queue", point(asInt="12"))), otlp(gauge("queue", point(asInt="13")))
    await send(settings, one.SerializeToString(), MessageToJson(two).encode(), b"hello")
    events, rejected = await bridged(settings, 2, 1)
    assert sorted(event["metrics"]["queue"] for event in events) == [12, 13]
    assert {event["model"] for event in events} == {"churn"}
    assert [(one["reason"], one["topic"]) for one in rejected] == [("undecodable", settings.otlp_topic)]

    await send(settings, otlp(gauge("queue", point(asInt="14"))).SerializeToString())
    events, rejected = await bridged(settings, 3, 1)
    assert sorted(event["metrics"]["queue"] for event in events) == [12, 13, 14], "no committed record again"
    assert len(rejected) == 1
