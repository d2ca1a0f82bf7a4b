"""A consumer group that copies some topics into one store: write; now and then, commit.

Of windows, which are many, a fetch comes whole, so that one that is not wanted costs a look at its key.

After a crash the last records are written again, and every write bears that. A store that is away is tried again for
ever; a record that cannot be read, or that the store refuses for its content, is counted and passed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from pydantic import BaseModel, ValidationError
from redis.exceptions import RedisError

from streams import log, members
from streams.kafka import client_options
from streams.messages import parser
from streams.settings import Settings
from streams.stores import metrics
from streams.stores.postgres import REFUSED
from streams.topics import LEVELS, METRICS, TopicRow
from streams.transport.fetches import deliver_whole
from streams.wire import Block

logger = log.get(__name__)
BATCH_RECORDS = 2_000
#: Of one write, at the most: reading and preparing them holds the event loop.
PORTION_RECORDS = 250
WAIT_MS = 200
FIRST_RETRY_S, LONGEST_RETRY_S = 0.2, 5.0
CLOSE_SECONDS = 5.0
#: Between two commits, and two looks at how far behind it is.
SETTLE_S = 0.5
#: Topics of windows.
WHOLE = (METRICS, LEVELS)
#: asyncpg's InternalClientError: a server that ends has said so on the connection, and it has not been closed yet.
AWAY = (OSError, TimeoutError, RedisError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError,
        KafkaError)
#: The settings are wrong: no waiting helps.
FATAL = (asyncpg.ClientConfigurationError,)

Write = Callable[[Sequence[Any]], Awaitable[object]]


class _Stopped(Exception):
    """Told to stop in the middle of something; what was not committed is read again next time."""


class Sink:
    """One consumer group, one store. Subclasses open the store."""

    name = "sink"
    fetch_wait_ms = WAIT_MS
    #: Of a partition by one fetch, at the most.
    fetch_bytes = 1 << 20
    #: Where a group that has committed nothing begins.
    begins = "earliest"
    #: Records between two polls, at most.
    batch_records = BATCH_RECORDS

    def __init__(self, settings: Settings, rows: Sequence[TopicRow]) -> None:
        self.settings = settings
        self.rows = {settings.topic(row.name): row for row in rows}
        self.joined: members.Joined = members.nobody
        #: Records not in the store yet, by topic; those of partitions that this process has.
        self.lag: dict[str, int] = {row.name: 0 for row in rows}
        #: What it waits for now; empty while all is well.
        self.last_error = ""
        metrics.RETRIES.labels(self.name)       # told from the start, as 0
        for row in rows:
            metrics.BAD.labels(self.name, row.name)

    @property
    def group(self) -> str:
        """Its consumer group."""
        return f"{self.settings.group}-{self.name}"

    async def open(self) -> Mapping[str, Write]:
        """Connect to the store; a writer for each topic row's name."""
        raise NotImplementedError

    def wanted(self, topic: str, key: bytes | None) -> bool:
        """False for a record with a key that tells that it need not be read; `topic` is the topic row's name."""
        return True

    async def close(self) -> None:
        """Let the store go. Also called when `open` failed half-way."""

    async def tend(self) -> None:
        """What is due now and then; called twice a second."""

    async def run(self, stop: asyncio.Event) -> None:
        """Copy until `stop` is set.

        Raises:
            Exception: what no waiting mends, as settings that make no sense.
        """
        try:
            while not stop.is_set():
                try:
                    await self._copy(stop)
                except FATAL:
                    raise
                except AWAY as error:
                    self._note_away(error)
                    await _pause(stop, LONGEST_RETRY_S / 5)
        except _Stopped:
            pass
        except Exception as error:
            self.last_error = type(error).__name__
            logger.error("sink.failed", sink=self.name, error=self.last_error, exc_info=error)
            raise
        finally:
            metrics.UP.labels(self.name).set(0)

    async def _copy(self, stop: asyncio.Event) -> None:
        consumer = self._consumer()
        try:
            await consumer.start()
            writers = await self._retry(self._open, stop)
            due = 0.0
            while not stop.is_set():
                found = await consumer.getmany(timeout_ms=WAIT_MS, max_records=self.batch_records)
                for topic, messages in self._portions(found):
                    await asyncio.sleep(0)          # others' turn: to read them has held the event loop
                    await self._write(writers[topic], topic, messages, stop)
                if time.monotonic() >= due:
                    await self._settle(consumer, stop)
                    due = time.monotonic() + SETTLE_S
            await self._commit(consumer)
        finally:
            with contextlib.suppress(TimeoutError, KafkaError):
                await asyncio.wait_for(consumer.stop(), CLOSE_SECONDS)
            await self.close()

    async def _settle(self, consumer: AIOKafkaConsumer, stop: asyncio.Event) -> None:
        self.joined(self.group, consumer._coordinator.member_id)
        await self._commit(consumer)
        await self._measure(consumer)
        await self._retry(self.tend, stop)

    def _consumer(self) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            *self.rows, **client_options(self.settings), group_id=self.group,
            enable_auto_commit=False, auto_offset_reset=self.begins, fetch_max_wait_ms=self.fetch_wait_ms,
            max_partition_fetch_bytes=self.fetch_bytes,
            session_timeout_ms=self.settings.session_timeout_ms,
            heartbeat_interval_ms=self.settings.session_timeout_ms // 3)
        deliver_whole(consumer, frozenset(topic for topic, row in self.rows.items() if row in WHOLE))
        return consumer

    async def _open(self) -> Mapping[str, Write]:
        try:
            return await self.open()
        except BaseException:
            await self.close()
            raise

    async def _commit(self, consumer: AIOKafkaConsumer) -> None:
        """Commit what was written. A rebalance may refuse that: whoever has the partitions then writes them again."""
        try:
            await consumer.commit()
        except KafkaError as error:
            metrics.RETRIES.labels(self.name).inc()
            logger.info("commit.refused", sink=self.name, error=type(error).__name__)

    async def _measure(self, consumer: AIOKafkaConsumer) -> None:
        ends = {tp: consumer.highwater(tp) for tp in consumer.assignment()}
        lag = dict.fromkeys(self.lag, 0)
        for tp, end in ends.items():
            if end is not None:
                with contextlib.suppress(KafkaError, TimeoutError):       # given away in this moment
                    lag[self.rows[tp.topic].name] += max(0, end - await asyncio.wait_for(consumer.position(tp), 1))
        self.lag = lag
        for topic, records in lag.items():
            metrics.LAG.labels(self.name, topic).set(records)
        polled_ms = [consumer.last_poll_timestamp(tp) for tp in ends if tp in consumer.assignment()]
        if polled_ms and None not in polled_ms:
            metrics.MEASURED.labels(self.name).set(min(polled_ms) / 1000)

    def _portions(self, found: Mapping[TopicPartition, Sequence[Any]]) -> Iterator[tuple[str, list[Any]]]:
        """(topic row's name, messages): of all partitions together, for every write costs ways there and back."""
        for topic, row in self.rows.items():
            messages = chain.from_iterable(self._read(tp, records) for tp, records in found.items()
                                           if tp.topic == topic)
            while portion := list(islice(messages, PORTION_RECORDS)):
                yield row.name, portion

    def _read(self, tp: TopicPartition, records: Sequence[Any]) -> Iterable[Any]:
        row = self.rows[tp.topic]
        parse = parser(row.schema)
        for offset, value in self._wanted(row.name, records):
            try:
                yield parse(value)
            except ValueError as error:
                metrics.BAD.labels(self.name, row.name).inc()
                field, said = _fault(error)
                logger.warning("record.skipped", sink=self.name, topic=tp.topic, partition=tp.partition,
                               offset=offset, field=field, error=said)

    def _wanted(self, topic: str, records: Sequence[Any]) -> Iterator[tuple[int, bytes]]:
        """(offset, value) of the records that are to be read."""
        if not records or not isinstance(records[0], Block):
            yield from ((record.offset, record.value) for record in records
                        if record.value is not None and self.wanted(topic, record.key))
            return
        for block in records:
            keys, values = block.texts(block.key), block.value.tolist()
            data = memoryview(block.buffer)
            for at, (key, (begin, end)) in enumerate(zip(keys, values, strict=True)):
                if begin >= 0 and self.wanted(topic, key):
                    yield int(block.offset[at]), bytes(data[begin:end])

    async def _write(self, write: Write, topic: str, messages: Sequence[BaseModel], stop: asyncio.Event) -> None:
        """Write messages; one that the store refuses for its content is found by halving, counted and passed over."""
        try:
            await self._retry(partial(write, messages), stop)
            metrics.RECORDS.labels(self.name, topic).inc(len(messages))
        except REFUSED as error:
            if len(messages) == 1:
                metrics.BAD.labels(self.name, topic).inc()
                logger.warning("record.refused", sink=self.name, topic=topic, error=str(error)[:300])
                return
            middle = len(messages) // 2
            await self._write(write, topic, messages[:middle], stop)
            await self._write(write, topic, messages[middle:], stop)

    async def _retry(self, act: Callable[[], Awaitable[Any]], stop: asyncio.Event) -> Any:
        """Do it until it works. What is refused for its content, or can never work, is raised."""
        wait = FIRST_RETRY_S
        while True:
            try:
                answer = await act()
            except (*REFUSED, *FATAL):
                raise
            except AWAY as error:
                self._note_away(error)
                await _pause(stop, wait)
                wait = min(2 * wait, LONGEST_RETRY_S)
                if stop.is_set():
                    raise _Stopped from None
            else:
                self._note_back()
                return answer

    def _note_away(self, error: Exception) -> None:
        metrics.RETRIES.labels(self.name).inc()
        metrics.UP.labels(self.name).set(0)
        if not self.last_error:
            logger.warning("store.away", sink=self.name, error=type(error).__name__)
        self.last_error = type(error).__name__

    def _note_back(self) -> None:
        metrics.UP.labels(self.name).set(1)
        if self.last_error:
            logger.info("store.back", sink=self.name)
        self.last_error = ""


def _fault(error: ValueError) -> tuple[str, str]:
    """(field, what is wrong with it), without the value."""
    if not isinstance(error, ValidationError):
        return "", type(error).__name__
    first = error.errors(include_url=False, include_input=False)[0]
    return ".".join(map(str, first["loc"]))[:200], first["msg"]


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
