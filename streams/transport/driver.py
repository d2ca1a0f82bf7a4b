"""A Faust transport that yields a message for a partition's fetch, or its parts, its value a `RecordBatch`.

It subclasses Faust's aiokafka driver and changes five things:

- For the topics in `app.batched_topics`, `getmany` hands over all fetched records of a partition at once, as columns
  (see `streams.wire`); the message's offset is the last record's.
- Their committable offset is the last acked one plus one. Faust looks for consecutive offsets record by record, which
  batches, compaction and transaction markers all break; here batches of a partition are acked in order, each by all
  its agents, so that whatever is acked stands for everything before it.
- Nothing is delivered while the consumer seeks to what is committed, and a partition without a commit is sought to its
  beginning; Faust leaves it where the dropped records of an earlier assignment end.
- The end of a partition is taken from a fetch, not from ListOffsets (see `streams.kafka.end_offsets`).
- Before partitions are given up, `app.before_revoke` may write its snapshots and commit, while the group still waits.

Register: entry point group `faust.transports`, scheme `kafkabatch`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, ClassVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as base
from faust.types import TP, ConsumerMessage

from streams import log
from streams.kafka import end_offsets
from streams.records import RecordBatch
from streams.transport.fetches import deliver_whole
from streams.wire import Block

logger = log.get(__name__)

#: aiokafka has one fetch under way for a broker. One that waits for quiet topics holds up those that have records.
FETCH_WAIT_MS = 50


class ConsumerThread(base.AIOKafkaConsumerThread):
    """Faust's thread around an aiokafka consumer, one that leaves fetches of batched topics whole."""

    def _create_worker_consumer(self, transport: base.Transport) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        deliver_whole(consumer, self.app.batched_topics)
        return consumer


class Consumer(base.Consumer):
    """Faust's consumer, by batch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Where this assignment's reading began, for batched topics.
        self.started_at: dict[TP, int | None] = {}
        self._fetched_to: dict[TP, int] = {}
        self._again: dict[TP, int] = {}
        self._seeks = 0

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def member_id(self) -> str:
        """Of this consumer in its group; empty before it has joined."""
        return str(self._thread._consumer._coordinator.member_id)

    def _batched(self, topic: str) -> bool:
        return topic in self.app.batched_topics

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Fetched messages; a batched topic gives one a partition. Stops early when partitions are being revoked."""
        await self._read_again()
        seeks = self._seeks
        records, active = await self._wait_next_records(timeout)
        if records is None or self.should_stop:
            return
        if not self.flow_active or self._seeks != seeks:    # these may be from before the seek
            await self._seek_back()
            return
        generation = self.app.consumer_generation_id
        for tp, message in list(self._messages(records)):
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return
            if active is None or tp in active or tp in self._buffered_partitions:
                if not self._track_end(tp):
                    continue
                yield tp, message

    def _messages(self, records: Mapping[TP, list[Any]]) -> Iterator[tuple[TP, ConsumerMessage]]:
        single: dict[TP, list[Any]] = {}
        for tp, found in records.items():
            if not found:
                continue
            if self._batched(tp.topic):
                yield from ((tp, self._batch_message(tp, batch)) for batch in _batches(found))
            else:
                single[tp] = found
        for tp, record in self.scheduler.iterate(single):
            yield tp, self._to_message(tp, record)

    def _batch_message(self, tp: TP, records: Block) -> ConsumerMessage:
        batch = RecordBatch(tp.topic, tp.partition, records, self._fetched_to.get(tp, -1))
        offset, timestamp = batch.last_offset, int(records.timestamp[-1])
        self._fetched_to[tp] = offset + 1
        return ConsumerMessage(tp.topic, tp.partition, offset, timestamp / 1000, None, None, None, batch, None, tp=tp,
                               generation_id=self.app.consumer_generation_id)

    def _track_end(self, tp: TP) -> bool:
        try:
            self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
        except IllegalStateError:
            logger.info("batch.dropped", topic=tp.topic, partition=tp.partition, reason="partition was revoked")
            return False
        return True

    async def perform_seek(self) -> None:
        """Go to the committed offsets. Whoever calls this resumes the flow afterwards."""
        self.stop_flow()
        await self._seek_all()

    async def _seek_all(self) -> None:
        self._again.clear()
        await super().perform_seek()
        self._fetched_to = {tp: offset for tp, offset in self.started_at.items() if offset is not None}
        self._seeks += 1

    async def seek_to_committed(self) -> Mapping[TP, int | None]:
        """Seek; the committed offsets, None where there is none."""
        found: Mapping[TP, int | None] = await super().seek_to_committed()
        self.started_at = {TP(tp.topic, tp.partition): offset for tp, offset in found.items()}
        fresh = [tp for tp, offset in self.started_at.items() if not offset and self._batched(tp.topic)]
        if fresh:
            first = await self.earliest_offsets(*(TopicPartition(*tp) for tp in fresh))
            self.started_at |= {tp: first[tp] for tp in fresh}
            await self.seek_wait({tp: first[tp] for tp in fresh})
        return found

    async def verify_all_partitions_active(self) -> None:
        """Nothing: Faust's own watch raises where a position is not known yet. Readiness and lag tell of a stall."""

    def read_again(self, tp: TP, offset: int) -> None:
        """Deliver a batched partition from an offset on once more, with the next fetch."""
        self._again[tp] = offset

    async def _read_again(self) -> None:
        """Between two fetches, so that none that is under way mixes with the seek."""
        wanted = {tp: offset for tp, offset in self._again.items() if tp in self.assignment()}
        self._again.clear()
        if wanted:
            await self.seek_wait(wanted)
            self._fetched_to.update(wanted)
            self._read_offset.update(dict.fromkeys(wanted))

    async def _seek_back(self) -> None:
        try:
            await self._seek_all()
        except Exception as error:
            logger.warning("seek.failed", error=repr(error))

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        if not self._batched(tp.topic):
            await super()._add_gap(tp, offset_from, offset_to)

    def _new_offset(self, tp: TP) -> int | None:
        if not self._batched(tp.topic):
            found: int | None = super()._new_offset(tp)
            return found
        acked = self._acked[tp]
        if not acked:
            return None
        newest = max(acked)
        acked.clear()
        self._acked_index[tp].clear()
        return int(newest) + 1

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """The end of each partition: where a restore from a changelog is complete."""
        ends = await end_offsets(self.app.client_options, partitions)
        return {TP(tp.topic, tp.partition): offset for tp, offset in ends.items()}

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Let the app save its state while it still owns the partitions; then what Faust does."""
        await self.app.before_revoke(revoked)
        await super().on_partitions_revoked(revoked)


def _batches(found: list[Any]) -> list[Block]:
    """What one fetch of a partition gave: blocks, or records where it could not be left whole."""
    return found if isinstance(found[0], Block) else [Block.of(found)]


class Transport(base.Transport):
    """`kafkabatch://host:port`."""

    Consumer: ClassVar[Any] = Consumer
    driver_version = f"streamgauge batches, {base.Transport.driver_version}"
