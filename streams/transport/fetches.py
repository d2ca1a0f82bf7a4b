"""Whole fetches from aiokafka: blocks of columns instead of an object for every record.

aiokafka has no seam between the bytes of a fetch and its records. So two names in its fetcher's module are given
stand-ins: `MemoryRecords`, which keeps the bytes, and `PartitionRecords`, which for a consumer that asks for it (see
`deliver_whole`) yields blocks. Every other consumer of the process gets what it always got.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer import fetcher

from streams import wire

#: Of a block's values, at the most: what was compressed may be many times what was fetched, and whoever reads a block
#: holds the event loop.
BLOCK_BYTES = 4 * 1024 * 1024


class _Whole:
    """In a value deserializer's place: the topics whose fetches stay whole."""

    def __init__(self, topics: frozenset[str]) -> None:
        self.topics = topics


class _Memory:
    """`aiokafka.record.memory_records.MemoryRecords`, and the bytes that it reads."""

    original = fetcher.MemoryRecords

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._records = self.original(data)
        self.has_next = self._records.has_next
        self.next_batch = self._records.next_batch
        self.size_in_bytes = self._records.size_in_bytes


class WholeFetch:
    """Stands where aiokafka has `PartitionRecords`: an iterator of blocks, and what to fetch after the last of them."""

    original = fetcher.PartitionRecords

    def __init__(self, tp: TopicPartition, data: bytes, fetch_offset: int, check_crcs: bool) -> None:
        self.next_fetch_offset = fetch_offset
        self._blocks = self._read(tp, data, check_crcs)

    def _read(self, tp: TopicPartition, data: bytes, check_crcs: bool) -> Iterator[wire.Block]:
        block, after = wire.read(data, self.next_fetch_offset, check_crcs)
        for part in block.parts(BLOCK_BYTES):
            self.next_fetch_offset = int(part.offset[-1]) + 1
            yield part
        self.next_fetch_offset = after

    def __iter__(self) -> WholeFetch:
        return self

    def __next__(self) -> wire.Block:
        return next(self._blocks)


def _partition_records(tp: TopicPartition, records: Any, aborted: Any, fetch_offset: int, key_deserializer: Any,
                       value_deserializer: Any, check_crcs: bool, isolation_level: int) -> Any:
    if isinstance(value_deserializer, _Whole):
        if tp.topic in value_deserializer.topics and isolation_level == fetcher.READ_UNCOMMITTED \
                and wire.readable(records.data):
            return WholeFetch(tp, records.data, fetch_offset, check_crcs)
        value_deserializer = None
    return WholeFetch.original(tp, records, aborted, fetch_offset, key_deserializer, value_deserializer, check_crcs,
                               isolation_level)


def deliver_whole(consumer: AIOKafkaConsumer, topics: frozenset[str]) -> None:
    """Let a consumer that has not started deliver each fetch of these topics as a `Block`, or some.

    Where that can't be (a format before v2, read_committed), it delivers records.
    """
    fetcher.MemoryRecords = _Memory
    fetcher.PartitionRecords = _partition_records
    consumer._value_deserializer = _Whole(topics)
