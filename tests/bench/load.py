"""The reference load: 300-byte JSON events, one a record; 50 models, 8 features, 3 metrics, latency; seeded."""

from __future__ import annotations

import asyncio
import time

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


def events(count: int, seed: int = 7) -> list[tuple[bytes, bytes]]:
    """(key, value) of `count` events; models are zipf-distributed, time runs at 100,000 events a second."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, MODELS + 1) ** ZIPF
    models = rng.choice(MODELS, size=count, p=weights / weights.sum()).tolist()
    features = rng.standard_normal((count, FEATURES)).round(4).tolist()
    latency = rng.lognormal(1.5, 0.5, count).round(3).tolist()
    start = int(time.time() * 1000) - count // EVENTS_PER_MS
    encode = msgspec.json.Encoder().encode
    out = []
    for number in range(count):
        model = f"model-{models[number]:02d}"
        out.append((model.encode(), encode({
            "event_id": f"{seed}-{number}", "ts": start + number // EVENTS_PER_MS, "environment": "prod",
            "model": model, "version": "1", "prediction": features[number][0], "confidence": 0.9,
            "latency_ms": latency[number],
            "features": {f"f{at}": value for at, value in enumerate(features[number])},
            "metrics": {"tokens": number % 97, "cost": 0.25, "depth": number % 5}})))
    return out


async def publish(settings: Settings, items: list[tuple[bytes, bytes]]) -> None:
    """Send all of it, acknowledged."""
    producer = AIOKafkaProducer(**client_options(settings), linger_ms=20, max_batch_size=512 * 1024)
    await producer.start()
    try:
        topic, pending = settings.topic(TELEMETRY.name), []
        for key, value in items:
            pending.append(await producer.send(topic, value, key=key))
            if len(pending) >= 20_000:
                await asyncio.gather(*pending)
                pending.clear()
        await asyncio.gather(*pending)
    finally:
        await producer.stop()
