"""What a worker sends: gathered into record batches, so that a record costs an append instead of a future.

Records of one partition keep their order. `put` never gives the event loop away; what was put is sent within
`linger_s`, or at once by `sent`, which waits until the broker has all of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.producer.message_accumulator import BatchBuilder

#: Bytes that wait to be sent; more and `room` holds whoever makes them.
MOST_WAITING = 32 * 1024 * 1024

Ends: TypeAlias = dict[TopicPartition, int]


class Outbox:
    """Open batches by partition, and those under way. `sent` is for one task at a time."""

    def __init__(self, producer: Callable[[], AIOKafkaProducer], linger_s: float) -> None:
        self._producer = producer
        self._linger_s = linger_s
        self._open: dict[TopicPartition, list[BatchBuilder]] = {}
        self._waiting = 0
        self._closed: deque[tuple[TopicPartition, BatchBuilder]] = deque()
        self._under_way: list[tuple[TopicPartition, int, asyncio.Future[Any]]] = []
        self._sending = asyncio.Lock()
        self._some = asyncio.Event()

    def put(self, topic: str, partition: int, key: bytes | None, value: bytes | None,
            headers: Mapping[str, bytes] | None = None) -> None:
        """Add a record to its partition's open batch, or to a new one if that is full."""
        self.put_all(topic, partition, [(key, value)], headers)

    def put_all(self, topic: str, partition: int, records: Iterable[tuple[bytes | None, bytes | None]],
                headers: Mapping[str, bytes] | None = None) -> None:
        """The same of many records (key, value) of one partition."""
        batches = self._open.setdefault(TopicPartition(topic, partition), [])
        listed, some = list(headers.items()) if headers else [], False
        for key, value in records:
            if not batches or batches[-1].append(timestamp=None, key=key, value=value, headers=listed) is None:
                batches.append(self._producer().create_batch())
                batches[-1].append(timestamp=None, key=key, value=value, headers=listed)
            self._waiting += len(value or b"")
            some = True
        if some:
            self._some.set()

    async def room(self) -> None:
        """Return at once, unless too much waits to be sent: then when it is under way."""
        if self._waiting > MOST_WAITING:
            await self._send()

    async def run(self) -> None:
        """Send what was put, for ever. What cannot be sent is raised, here or by `sent`."""
        while True:
            await self._some.wait()
            await asyncio.sleep(self._linger_s)
            await self._send()

    async def sent(self) -> Ends:
        """Wait until the broker has everything that was put before; the last offset of each partition sent to.

        Raises:
            KafkaError: it does not take some of it.
        """
        await self._send()
        waiting, ends = list(self._under_way), Ends()
        answers = await asyncio.gather(*(answer for _, _, answer in waiting), return_exceptions=True)
        for (tp, count, _), answer in zip(waiting, answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer        # and again by whoever asks next: what is lost is not forgotten
            ends[tp] = answer.offset + count - 1
        del self._under_way[:len(waiting)]
        return ends

    async def _send(self) -> None:
        async with self._sending:
            batches, self._open, self._waiting = self._open, {}, 0
            self._some.clear()
            self._closed.extend((tp, builder) for tp, builders in batches.items() for builder in builders)
            while self._closed:
                tp, builder = self._closed[0]       # stays the first if this fails, or is cancelled
                builder.close()
                answer = await self._producer().send_batch(builder, tp.topic, partition=tp.partition)
                self._closed.popleft()
                self._under_way.append((tp, builder.record_count(), answer))
