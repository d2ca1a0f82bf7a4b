"""What the batch transport hands to agents: the records of one fetch from one partition, decoded at most once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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


@dataclass(slots=True, eq=False)
class RecordBatch:
    """Consecutive records of one partition, in offset order (gaps possible, never empty).

    From `fetched_from` to its last offset the log has no other records; it is the first record's offset if not given.
    `columns` has the same records without an object for each.
    """

    topic: str
    partition: int
    records: Sequence[Record]
    fetched_from: int = -1
    _decoded: dict[Any, Any] = field(default_factory=dict, repr=False)
    _columns: Block | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.fetched_from < 0:
            self.fetched_from = self.records[0].offset

    @property
    def columns(self) -> Block:
        if self._columns is None:
            self._columns = Block.of(self.records)
        return self._columns

    @property
    def first_offset(self) -> int:
        return self.records[0].offset

    @property
    def last_offset(self) -> int:
        return self.records[-1].offset

    def __len__(self) -> int:
        return len(self.records)

    def decoded(self, decode: Callable[[RecordBatch], T]) -> T:
        """`decode(self)`, computed by whoever asks first and shared by everyone after."""
        if decode not in self._decoded:
            self._decoded[decode] = decode(self)
        return cast(T, self._decoded[decode])
