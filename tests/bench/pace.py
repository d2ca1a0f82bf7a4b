"""Sends events at a steady rate, as fast producers do: a record batch a partition every 10 ms. Ends on a line of input.

    python -m tests.bench.pace BROKER TOPIC_PREFIX EVENTS_A_SECOND

Each event's `ts` is the moment at which it was sent. In every second ten seconds, a third of one model's events fail.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner

from streams.kafka import client_options
from streams.settings import Settings
from streams.topics import TELEMETRY
from tests.bench.load import events

TICK_S = 0.01
TEMPLATES = 20_000
FAILING = b"model-03"
FAIL_SHARE, PHASE_S = 1 / 3, 10
#: Unacknowledged batches after which the load waits.
MOST_UNDER_WAY = 400

#: (partition, fails at times, key, JSON after `ts`)
Template = tuple[int, bool, bytes, bytes]


def templates(partitions: list[int]) -> list[Template]:
    """Events of the reference load, without their ids and times."""
    choose = DefaultPartitioner()
    found = []
    for key, value in events(TEMPLATES):
        rest = value[value.index(b'"environment"'):]
        found.append((choose(key, partitions, partitions), key == FAILING, key, rest))
    return found


class Pace:
    """The sending of one run."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, rate: int, shapes: list[Template]) -> None:
        self.producer = producer
        self.topic = topic
        self.rate = rate
        self.shapes = shapes
        self.sent = 0
        self.under_way: set[asyncio.Future[Any]] = set()
        self.failed = 0
        self._rng = random.Random(1)

    async def run(self, stop: asyncio.Event) -> float:
        """Until told to stop; the seconds it took."""
        began = time.monotonic()
        while not stop.is_set():
            due = int((time.monotonic() - began) * self.rate)
            await self._send(due - self.sent)
            while len(self.under_way) > MOST_UNDER_WAY:
                await asyncio.sleep(TICK_S)
            await asyncio.sleep(TICK_S)
        took = time.monotonic() - began
        await asyncio.gather(*self.under_way, return_exceptions=True)
        return took

    async def _send(self, count: int) -> None:
        now, bad = int(time.time() * 1000), int(time.time() / PHASE_S) % 2 == 1
        open_ones: dict[int, Any] = {}
        for number in range(self.sent, self.sent + count):
            partition, may_fail, key, rest = self.shapes[number % TEMPLATES]
            value = b'{"event_id":"p%d","ts":%d,' % (number, now) + rest
            if may_fail and bad and self._rng.random() < FAIL_SHARE:
                value = value[:-1] + b',"error":"TimeoutError"}'
            builder = open_ones.get(partition)
            if builder is None:
                builder = open_ones[partition] = self.producer.create_batch()
            if builder.append(key=key, value=value, timestamp=now) is None:
                await self._batch(builder, partition)
                builder = open_ones[partition] = self.producer.create_batch()
                builder.append(key=key, value=value, timestamp=now)
        for partition, builder in open_ones.items():
            await self._batch(builder, partition)
        self.sent += count

    async def _batch(self, builder: Any, partition: int) -> None:
        builder.close()
        under_way = await self.producer.send_batch(builder, self.topic, partition=partition)
        self.under_way.add(under_way)
        under_way.add_done_callback(self._done)

    def _done(self, future: asyncio.Future[Any]) -> None:
        self.under_way.discard(future)
        self.failed += future.exception() is not None


async def main(broker: str, prefix: str, rate: int) -> None:
    settings = Settings(kafka_url=broker, topic_prefix=prefix)
    topic, stop = settings.topic(TELEMETRY.name), asyncio.Event()
    producer = AIOKafkaProducer(**client_options(settings), max_batch_size=512 * 1024, request_timeout_ms=120_000)
    await producer.start()
    try:
        partitions = sorted(await producer.partitions_for(topic))
        asyncio.get_running_loop().add_reader(sys.stdin, stop.set)
        pace = Pace(producer, topic, rate, templates(partitions))
        seconds = await pace.run(stop)
        print(json.dumps({"sent": pace.sent, "failed_batches": pace.failed, "seconds": round(seconds, 3)}))
    finally:
        await producer.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
