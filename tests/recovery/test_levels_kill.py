"""Kill -9 in the middle: windows of environments, segments and late labels count each event and label once."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import fleet
from streams.kafka import create_topics
from streams.settings import PREFIX, Settings
from support import Worker, newest, produce, read_all

SECONDS, PER_SECOND = 24, 200
#: level, environment, model, segment, size, start -> count
Counts = dict[tuple[Any, ...], int]


def events(start_ms: int) -> list[dict[str, Any]]:
    """Three countries of which two have a name, and two environments."""
    return [one | {"segment": {"country": ("PT", "DE", "FR")[number % 3]}, "environment": ("prod", "eu")[number % 2]}
            for number, one in enumerate(fleet.stream(start_ms, SECONDS, PER_SECOND))]


def label(event: dict[str, Any], ts_ms: int) -> dict[str, Any]:
    return {"event_id": event["event_id"], "ts": ts_ms, "predicted_at": event["ts"], "prediction": event["prediction"],
            "label": "yes", "confidence": event["confidence"],
            **{name: event[name] for name in ("environment", "model", "version", "component")}}


def wanted(telemetry: list[Any], labels: list[Any], settings: Settings) -> Counts:
    """What the logs must end in, counted one by one; nothing in them is late beyond the grace."""
    found: Counts = defaultdict(int)
    for record in telemetry:
        one = json.loads(record.value)
        for size in settings.granularities_ms:
            start = one["ts"] - one["ts"] % size
            found["environment", one["environment"], "all", size, start] += 1
            if size in settings.segment_granularities_ms:
                found["segment", one["environment"], one["model"], size, start] += 1
    for record in labels:
        one = json.loads(record.value)
        for size in settings.label_granularities_ms:
            start = one["predicted_at"] - one["predicted_at"] % size
            found["labels", one["environment"], one["model"], size, start] += 1
    return {key: many for key, many in found.items() if key[1] in ("prod", "eu")}


def got(records: list[Any]) -> Counts:
    found: Counts = defaultdict(int)
    for window in newest(records).values():
        if window["environment"] in ("prod", "eu"):
            found[window["level"], window["environment"], window["model"], window["size_ms"], window["start_ms"]] += \
                window["count"]
    return dict(found)


async def test_two_kills_change_no_count_of_any_level(broker_url: str, tmp_path: Path) -> None:
    settings = Settings(kafka_url=broker_url, topic_prefix="levels-kill.", group="levels-kill",
                        session_timeout_ms=2_000, partitions=2)
    await create_topics(settings)
    environment = {f"{PREFIX}KAFKA_URL": broker_url, f"{PREFIX}TOPIC_PREFIX": settings.topic_prefix,
                   f"{PREFIX}GROUP": settings.group, f"{PREFIX}CHECKPOINT_MS": "500", f"{PREFIX}PARTITIONS": "2",
                   f"{PREFIX}SESSION_TIMEOUT_MS": "2000", f"{PREFIX}SEGMENT_KEYS": "country",
                   f"{PREFIX}SEGMENT_VALUES": "2"}
    start_ms = int(time.time() * 1000) - 300_000
    every = events(start_ms)
    third = len(every) // 3
    for at in range(3):
        worker = await asyncio.to_thread(Worker(environment, tmp_path / f"{at}.log").start().wait_ready)
        some = every[at * third:(at + 1) * third]
        await produce(settings, "telemetry", some)
        await produce(settings, "feedback", [label(one, start_ms + 100_000) for one in some[::5]])
        await asyncio.sleep(1.5)
        if at < 2:
            worker.kill()
    later = start_ms + 290_000
    closing = [one | {"environment": "flush"} for one in fleet.flush(settings, later)]
    await produce(settings, "telemetry", closing, partition=lambda item: item["partition_"])
    await produce(settings, "feedback", [label(one, later) | {"partition_": one["partition_"]} for one in closing],
                  partition=lambda item: item["partition_"])
    telemetry = await read_all(settings, "telemetry")
    labels = await read_all(settings, "feedback")
    expected, deadline = wanted(telemetry, labels, settings), time.monotonic() + 60
    while (found := got(await read_all(settings, "metrics-levels"))) != expected and time.monotonic() < deadline:
        await asyncio.sleep(0.5)
    assert found == expected
    assert {key[0] for key in expected} == {"environment", "segment", "labels"}
    segments = {window["segment"] for window in newest(await read_all(settings, "metrics-levels")).values()}
    assert segments >= {"country=<other>"}
    assert segments <= {"", *(f"country={name}" for name in ("PT", "DE", "FR", "<other>", "<none>"))}
    assert await asyncio.to_thread(worker.stop) == 0
