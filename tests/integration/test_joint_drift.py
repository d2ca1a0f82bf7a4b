"""Joint drift through a worker that is killed in the middle: told once, as the same log gives it without one."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from aiokafka import AIOKafkaProducer
from support import Worker, read_all, until

from agents.drift.blocks import BLOCK, LEARN
from agents.drift.joint import FIELD, STRIDE, JointEngine
from agents.drift.reference import WARM_UP_POINTS
from streams.batch import Decoder
from streams.kafka import client_options, create_topics
from streams.records import RecordBatch
from streams.settings import PREFIX, Settings
from streams.state.keyed import KeyedStates
from streams.topics import DRIFT_EVENTS, TELEMETRY

CALM, EVENTS = (LEARN + WARM_UP_POINTS + 2) * BLOCK * STRIDE, (LEARN + WARM_UP_POINTS + 25) * BLOCK * STRIDE
MANY = 64       # events a record


class Record(NamedTuple):
    offset: int
    value: bytes
    timestamp: int = 0
    key: bytes | None = None


def log() -> list[Record]:
    """Two features that part after a while; some events a record."""
    rng, begin = np.random.default_rng(1), int(time.time() * 1000) - EVENTS * 10
    x = rng.normal(size=(EVENTS, 3))
    x[:CALM, 1] = 0.7 * x[:CALM, 0] + 0.7 * x[:CALM, 1]
    events = [{"event_id": f"e{i}", "ts": begin + i * 10, "environment": "prod", "model": "m", "version": "1",
               "features": dict(zip("abc", row, strict=True))} for i, row in enumerate(x.tolist())]
    return [Record(at // MANY, json.dumps(events[at:at + MANY]).encode()) for at in range(0, EVENTS, MANY)]


async def send(settings: Settings, records: list[Record]) -> None:
    producer = AIOKafkaProducer(**client_options(settings))
    await producer.start()
    try:
        for record in records:
            await producer.send(settings.topic(TELEMETRY.name), record.value, key=b"m", partition=0)
        await producer.flush()
    finally:
        await producer.stop()


async def test_a_worker_that_is_killed_tells_of_it_once(broker_url: str, tmp_path: Path) -> None:
    settings = Settings(kafka_url=broker_url, topic_prefix="joint.", group="joint", partitions=1)
    await create_topics(settings)
    records, engine = log(), JointEngine()
    states: KeyedStates = KeyedStates("joint", 0, engine.codec, {})
    expected = engine.run(Decoder()(RecordBatch("telemetry", 0, records)), states, "telemetry")
    assert [event.detector for event in expected] == ["mmd"]
    environment = {f"{PREFIX}KAFKA_URL": broker_url, f"{PREFIX}TOPIC_PREFIX": "joint.", f"{PREFIX}GROUP": "joint",
                   f"{PREFIX}PARTITIONS": "1", f"{PREFIX}DRIFT_JOINT": "true", f"{PREFIX}CHECKPOINT_MS": "500",
                   f"{PREFIX}DATA_DIR": str(tmp_path / "data")}
    half = len(records) * 2 // 3
    await send(settings, records[:half])
    first = Worker(environment, tmp_path / "first.log").start().wait_ready()
    until(lambda: first.metric("streamgauge_events_total") > EVENTS / 4, 60, "a third is read")
    first.kill()
    second = Worker(environment, tmp_path / "second.log").start().wait_ready()
    try:
        await send(settings, records[half:])
        until(lambda: second.metric("streamgauge_drift_events_total") > 0 and not second.metric(
            "streamgauge_consumer_lag"), 120, "the drift is told, and all is read")
    finally:
        second.stop()
    told = [json.loads(record.value) for record in await read_all(settings, DRIFT_EVENTS.name)]
    joint = {event["drift_id"]: event for event in told if event["field"] == FIELD}
    assert list(joint) == [event.drift_id for event in expected]
    assert joint[expected[0].drift_id]["ranked"][0]["field"] == "feature.a ~ feature.b"
