"""The reference load: 300-byte JSON events, one a record; 50 models, 8 features, 3 metrics, latency; seeded."""

from __future__ import annotations

import asyncio
import heapq
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

import msgspec
import numpy as np
from aiokafka import AIOKafkaProducer

from streams.kafka import client_options
from streams.settings import Settings
from streams.topics import TELEMETRY

MODELS = 50
FEATURES = 8
ZIPF = 1.1
EVENTS_PER_MS = 100
#: Where in a minute the first event is. Whether a window of ten seconds or a minute closes is not to hang on when a
#: benchmark is started: with 10,000 models there were 25,000 to 50,000 windows in the same five seconds of events.
PHASE_MS, MINUTE_MS = 7_500, 60_000
CHUNK = 50_000
GROUPS = 32
SEED = 7

#: (key, value) of a record.
Item = tuple[bytes, bytes]


def events(count: int, models: int = MODELS, seed: int = SEED) -> list[Item]:
    """`count` events; models are zipf-distributed, time runs at 100,000 events a second up to the last minute."""
    latest = int(time.time() * 1000) - count // EVENTS_PER_MS - PHASE_MS
    start = latest - latest % MINUTE_MS + PHASE_MS
    return [item for first in range(0, count, CHUNK)
            for item in _chunk(first, min(CHUNK, count - first), models, seed, start)]


def batched(items: Iterable[Item], size: int) -> Iterator[Item]:
    """The same events as arrays of `size` in a record, as gateways send them: of several models."""
    waiting: dict[int, list[bytes]] = {}
    for key, value in items:
        group = zlib.crc32(key) % GROUPS
        held = waiting.setdefault(group, [])
        held.append(value)
        if len(held) == size:
            yield b"group-%d" % group, b"[" + b",".join(waiting.pop(group)) + b"]"
    for group, held in waiting.items():
        yield b"group-%d" % group, b"[" + b",".join(held) + b"]"


def _chunk(first: int, count: int, models: int, seed: int, start: int) -> Iterator[Item]:
    rng = np.random.default_rng((seed, first))
    weights = 1 / np.arange(1, models + 1) ** ZIPF
    chosen = rng.choice(models, size=count, p=weights / weights.sum()).tolist()
    features = rng.standard_normal((count, FEATURES)).round(4).tolist()
    latency = rng.lognormal(1.5, 0.5, count).round(3).tolist()
    encode = msgspec.json.Encoder().encode
    for at in range(count):
        number, model = first + at, f"model-{chosen[at]:02d}"
        yield model.encode(), encode({
            "event_id": f"{seed}-{number}", "ts": start + number // EVENTS_PER_MS, "environment": "prod",
            "model": model, "version": "1", "prediction": features[at][0], "confidence": 0.9,
            "latency_ms": latency[at], "features": {f"f{place}": value for place, value in enumerate(features[at])},
            "metrics": {"tokens": number % 97, "cost": 0.25, "depth": number % 5}})


def evenly(items: Iterable[Item], partitions: int) -> dict[bytes, int]:
    """A partition for each key, so that partitions have as much as can be the same: the largest first, to the least."""
    found, filled = {}, [(0, number) for number in range(partitions)]
    for key, count in Counter(key for key, _ in items).most_common():
        held, number = filled[0]
        found[key] = number
        heapq.heapreplace(filled, (held + count, number))
    return found


async def publish(settings: Settings, items: Iterable[Item], compression: str | None = None,
                  places: Mapping[bytes, int] = MappingProxyType({})) -> None:
    """Send all of it, acknowledged. `places`: the partition of a key, for those whose hash is not to decide."""
    producer = AIOKafkaProducer(**client_options(settings), linger_ms=20, max_batch_size=512 * 1024,
                                compression_type=compression)
    await producer.start()
    try:
        topic, pending = settings.topic(TELEMETRY.name), []
        for key, value in items:
            pending.append(await producer.send(topic, value, key=key, partition=places.get(key)))
            if len(pending) >= 20_000:
                await asyncio.gather(*pending)
                pending.clear()
        await asyncio.gather(*pending)
    finally:
        await producer.stop()
