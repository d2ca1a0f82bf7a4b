"""What the batch transport hands to agents: the records of one fetch from one partition, decoded at most once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

from streams.wire import Block

T = TypeVar("T")


class Record(Protocol):
    """A consumed Kafka record (`aiokafka.ConsumerRecord`, or anything shaped like it)."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


class RecordBatch:
    """Consecutive records of one partition, in offset order (gaps possible, never empty).

    From `fetched_from` to its last offset the log has no other records; it is the first record's offset if not given.
    `columns` has the same records without an object for each.
    """

    __slots__ = ("_columns", "_decoded", "_reads", "_size", "fetched_from", "first_offset", "last_offset", "partition",
                 "records", "topic")

    def __init__(self, topic: str, partition: int, records: Sequence[Record], fetched_from: int = -1) -> None:
        self.topic = topic
        self.partition = partition
        self.records = records
        self.first_offset = int(records[0].offset)
        self.last_offset = int(records[-1].offset)
        self.fetched_from = fetched_from if fetched_from >= 0 else self.first_offset
        self._size = len(records)
        self._columns: Block | None = None
        self._decoded: dict[Any, Any] = {}
        self._reads = 0

    def __len__(self) -> int:
        return self._size

    @property
    def columns(self) -> Block:
        if self._columns is None:
            self._columns = Block.of(self.records)
        return self._columns

    def decoded(self, decode: Callable[[RecordBatch], T]) -> T:
        """`decode(self)`, computed by whoever asks first and shared by everyone after."""
        if decode not in self._decoded:
            self._decoded[decode] = decode(self)
        return cast(T, self._decoded[decode])

    def read(self, readers: int) -> None:
        """Say that an agent has done with it. With the last of `readers` its records go: acks wait for a checkpoint."""
        self._reads += 1
        if self._reads >= readers:
            self.records, self._columns = (), None
            self._decoded.clear()
