"""The records of a fetch as columns, read from Kafka's own bytes without an object for a record.

A fetch is record batches one after another (format v2; Kafka's documentation, "Record Batch"):

    base offset int64 | length int32 | leader epoch int32 | magic int8 | crc uint32 | attributes int16
    | last offset delta int32 | base timestamp int64 | max timestamp int64 | producer id int64 | epoch int16
    | base sequence int32 | count int32 | records, compressed as attributes say

A record: length | attributes int8 | timestamp delta | offset delta | key length, key | value length, value | headers;
numbers are zigzag varints, -1 as a length is null.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.errors import CorruptRecordException
from aiokafka.record.util import calc_crc32c
from numpy.typing import NDArray

from streams.compiled import compiled

_HEADER = struct.Struct(">qiibIhiqqqhii")
_LENGTH_AT, _BEFORE_LENGTH = 8, 12
_CRC_FROM = struct.calcsize(">qiibI")
_CODEC, _LOG_APPEND_TIME, _CONTROL = 0x07, 0x08, 0x20
_DECOMPRESS: dict[int, Callable[[bytes], bytes]] = {1: gzip_decode, 2: snappy_decode, 3: lz4_decode, 4: zstd_decode}
MAGIC_AT, FORMAT = 16, 2

ByteArray = NDArray[np.uint8]
IntArray = NDArray[np.int64]


class WireRecord(NamedTuple):
    """One record, with copies of its bytes."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class Block(Sequence[WireRecord]):
    """Records in offset order, as columns over one buffer; as a sequence, it makes `WireRecord`s on demand.

    offset, timestamp (n,): timestamps in ms, -1 if there is none. key, value (n, 2): where the bytes begin and end in
    `buffer`; a begin of -1 is null.
    """

    __slots__ = ("buffer", "key", "offset", "timestamp", "value")

    def __init__(self, buffer: ByteArray, offset: IntArray, timestamp: IntArray, key: IntArray,
                 value: IntArray) -> None:
        self.buffer = buffer
        self.offset = offset
        self.timestamp = timestamp
        self.key = key
        self.value = value

    @classmethod
    def of(cls, records: Sequence[Any]) -> Block:
        """The columns of records that came some other way."""
        if isinstance(records, Block):
            return records
        parts, spans, at = [], np.full((2, len(records), 2), -1, np.int64), 0
        for number, record in enumerate(records):
            for kind, data in enumerate((record.key, record.value)):
                if data is not None:
                    parts.append(data)
                    spans[kind, number] = at, at + len(data)
                    at += len(data)
        return cls(np.frombuffer(b"".join(parts), np.uint8), np.array([record.offset for record in records], np.int64),
                   np.array([record.timestamp for record in records], np.int64), spans[0], spans[1])

    def __len__(self) -> int:
        return len(self.offset)

    @overload
    def __getitem__(self, at: int) -> WireRecord: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[WireRecord]: ...

    def __getitem__(self, at: int | slice) -> WireRecord | Sequence[WireRecord]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        return WireRecord(int(self.offset[at]), int(self.timestamp[at]), self._bytes(self.key[at]),
                          self._bytes(self.value[at]))

    def __iter__(self) -> Iterator[WireRecord]:
        return map(self.__getitem__, range(len(self)))

    def parts(self, most_bytes: int) -> Iterator[Block]:
        """The same in pieces, over the same buffer: as many records as have so many bytes of values, or one."""
        ends = np.cumsum(np.maximum(self.value[:, 1] - self.value[:, 0], 0))
        low = 0
        while low < len(self):
            before = int(ends[low - 1]) if low else 0
            high = max(low + 1, int(np.searchsorted(ends, before + most_bytes, side="right")))
            yield self if high - low == len(self) else Block(
                self.buffer, self.offset[low:high], self.timestamp[low:high], self.key[low:high], self.value[low:high])
            low = high

    def at_offset(self, offset: int) -> WireRecord:
        """The record with this offset, which must be here."""
        return self[int(np.searchsorted(self.offset, offset))]

    def texts(self, spans: IntArray) -> list[bytes | None]:
        """The bytes of all keys or values (n, 2): begin, end."""
        data = memoryview(self.buffer)
        return [None if begin < 0 else bytes(data[begin:end]) for begin, end in spans.tolist()]

    def _bytes(self, span: IntArray) -> bytes | None:
        return None if span[0] < 0 else self.buffer[span[0]:span[1]].tobytes()


def readable(data: bytes) -> bool:
    """True if `read` knows the format: v2. Brokers older than 0.11 write others."""
    return len(data) > MAGIC_AT and all(data[start + MAGIC_AT] >= FORMAT for start, _ in _batches(data))


def read(data: bytes, first_offset: int, check_crcs: bool = True) -> tuple[Block, int]:
    """(records from `first_offset` on, the offset to fetch next). Control batches are passed over.

    A batch that the fetch cut short at its end is left for the next fetch.

    Raises:
        CorruptRecordException: a checksum or a length is wrong.
    """
    parts: list[bytes] = []
    found, base, next_offset = [], 0, first_offset
    whole = np.frombuffer(data, np.uint8)
    for start, end in _batches(data):
        head = _HEADER.unpack_from(data, start)
        (offset, _, _, _, crc, attributes, last_delta, base_time, max_time, _, _, _, count) = head
        if check_crcs and crc != calc_crc32c(memoryview(data)[start + _CRC_FROM:end]):
            raise CorruptRecordException(f"the checksum of the batch at offset {offset} is wrong")
        next_offset = max(next_offset, offset + last_delta + 1)
        if attributes & _CONTROL:
            continue
        records, at = whole[start + _HEADER.size:end], start + _HEADER.size
        if attributes & _CODEC:
            parts.append(_decompress(attributes & _CODEC, data[start + _HEADER.size:end]))
            records, at = np.frombuffer(parts[-1], np.uint8), len(data) + base
            base += len(parts[-1])
        time = (max_time, 0) if attributes & _LOG_APPEND_TIME else (base_time, 1)
        columns = frame(records, count, offset, *time)
        if len(columns[0]) != count:
            raise CorruptRecordException(f"the batch at offset {offset} does not hold its {count} records")
        columns[1][columns[1] >= 0] += at
        found.append(columns)
    buffer = np.frombuffer(b"".join([data, *parts]), np.uint8) if parts else whole
    return _from(_joined(found), buffer, first_offset), next_offset


def warm() -> None:
    """Compile, or load from the cache."""
    frame(np.frombuffer(bytes(8), np.uint8), 0, 0, 0, 1)


def _batches(data: bytes) -> Iterator[tuple[int, int]]:
    """(start, end) of each complete batch."""
    start = 0
    while start + _BEFORE_LENGTH <= len(data):
        end = start + _BEFORE_LENGTH + int(struct.unpack_from(">i", data, start + _LENGTH_AT)[0])
        if end > len(data):
            return
        if end - start < _HEADER.size:
            raise CorruptRecordException(f"a batch of {end - start} bytes is less than its header")
        yield start, end
        start = end


def _decompress(codec: int, data: bytes) -> bytes:
    if codec not in _DECOMPRESS:
        raise CorruptRecordException(f"compression codec {codec} is not known")
    return _DECOMPRESS[codec](data)


def _joined(found: list[tuple[IntArray, IntArray]]) -> tuple[IntArray, IntArray]:
    if len(found) == 1:
        return found[0]
    if not found:
        return np.empty((0, 2), np.int64), np.empty((0, 4), np.int64)
    return np.concatenate([instants for instants, _ in found]), np.concatenate([spans for _, spans in found])


def _from(columns: tuple[IntArray, IntArray], buffer: ByteArray, first_offset: int) -> Block:
    """Without the records of a batch that began before the wanted offset."""
    instants, spans = columns
    skip = int(np.searchsorted(instants[:, 0], first_offset))
    return Block(buffer, np.ascontiguousarray(instants[skip:, 0]), np.ascontiguousarray(instants[skip:, 1]),
                 np.ascontiguousarray(spans[skip:, :2]), np.ascontiguousarray(spans[skip:, 2:]))


@compiled
def varint(data: ByteArray, at: int) -> tuple[int, int]:
    """(number, where it ends); ends past the data where the data is cut short."""
    value, shift = np.uint64(0), np.uint64(0)
    while at < len(data):
        byte = data[at]
        at += 1
        value |= np.uint64(byte & 0x7F) << shift
        if byte < 0x80:
            return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)), at
        shift += np.uint64(7)
        if shift > np.uint64(63):
            break
    return 0, len(data) + 1


@compiled
def frame(data: ByteArray, count: int, base_offset: int, base_time: int, time_unit: int) -> tuple[IntArray, IntArray]:
    """(instants (n, 2): offset, timestamp; spans (n, 4): key begin, end, value begin, end) of a batch's records.

    Fewer than `count` rows: the data is damaged. A time_unit of 0 leaves the records' own timestamps out.
    """
    instants, spans = np.empty((count, 2), np.int64), np.full((count, 4), -1, np.int64)
    at = 0
    for number in range(count):
        length, at = varint(data, at)
        end = at + length
        if length <= 0 or end > len(data):
            return instants[:number], spans[:number]
        delta, at = varint(data, at + 1)
        instants[number, 1] = base_time + delta * time_unit
        delta, at = varint(data, at)
        instants[number, 0] = base_offset + delta
        for part in range(2):
            size, at = varint(data, at)
            if at > end or size > end - at:
                return instants[:number], spans[:number]
            if size >= 0:
                spans[number, 2 * part], spans[number, 2 * part + 1] = at, at + size
                at += size
        at = end
    return instants, spans
