"""Fetched bytes to columns, against aiokafka's own reader of the same bytes."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from streams import wire
from streams.transport import fetches

Rows = list[tuple[bytes | None, bytes | None]]
ROW = st.tuples(st.none() | st.binary(max_size=9), st.none() | st.binary(max_size=300))
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
wire.warm()


def batch(rows: Rows, base_offset: int = 0, codec: int = NONE, gaps: int = 1, headers: bool = False) -> bytes:
    """One record batch as a broker would send it; `gaps` is the step between offsets, as compaction leaves it."""
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 20)
    for number, (key, value) in enumerate(rows):
        builder.append(number * gaps, 1_700_000_000_000 + number * 977, key, value,
                       [("trace", b"x"), ("none", None)] if headers else [])
    data = bytearray(builder.build())
    data[:8] = base_offset.to_bytes(8, "big")
    return bytes(data)


def theirs(data: bytes, first: int = 0) -> list[tuple[int, int, bytes | None, bytes | None]]:
    records, found = MemoryRecords(data), []
    while records.has_next():
        found += [(each.offset, each.timestamp, each.key, each.value) for each in records.next_batch()]
    return [each for each in found if each[0] >= first]


@given(st.lists(st.tuples(st.lists(ROW, min_size=1, max_size=6), st.sampled_from([NONE, GZIP, SNAPPY, LZ4, ZSTD]),
                          st.integers(1, 200), st.booleans()), min_size=1, max_size=4), st.integers(0, 30))
def test_columns_hold_what_aiokafka_reads(batches: list[tuple[Rows, int, int, bool]], first: int) -> None:
    data, offset = b"", 0
    for rows, codec, gaps, headers in batches:
        data += batch(rows, offset, codec, gaps, headers)
        offset += (len(rows) - 1) * gaps + 1
    block, next_offset = wire.read(data, first)
    assert [tuple(record) for record in block] == theirs(data, first)
    assert next_offset == max(offset, first)
    assert [block.at_offset(record.offset) for record in block] == list(block)


@given(st.lists(ROW, min_size=1, max_size=40), st.sampled_from([NONE, LZ4]), st.integers(1, 1_000), st.integers(0, 50))
def test_parts_are_the_block_in_pieces_of_so_many_bytes(rows: Rows, codec: int, most: int, first: int) -> None:
    block, _ = wire.read(batch(rows, 0, codec), first)
    parts = list(block.parts(most))
    assert [record for part in parts for record in part] == list(block)
    sizes = [sum(len(record.value or b"") for record in part) for part in parts]
    assert all(size <= most or len(part) == 1 for size, part in zip(sizes, parts, strict=True))
    for size, after in zip(sizes, parts[1:], strict=False):
        assert size + len(after[0].value or b"") > most, "no piece is smaller than it has to be"


def test_a_fetch_that_was_compressed_comes_in_blocks_and_says_after_each_where_to_go_on(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetches, "BLOCK_BYTES", 1_000)
    control = bytearray(batch([(b"\0\0\0\0", b"\0\0")], 10))
    control[22] |= 0x20
    data = batch([(b"k", b"x" * 400)] * 10, 0, LZ4) + bytes(control)
    found = fetches.WholeFetch(TopicPartition("t", 0), data, 3, False)
    assert found.next_fetch_offset == 3
    seen = [(len(block), int(block.offset[0]), found.next_fetch_offset) for block in found]
    assert seen == [(2, 3, 5), (2, 5, 7), (2, 7, 9), (1, 9, 10)]
    assert found.next_fetch_offset == 11, "past the control batch"


def test_a_batch_that_the_fetch_cut_short_is_left_for_the_next() -> None:
    first, second = batch([(b"k", b"1"), (None, None)]), batch([(b"k", b"2")], 2)
    for cut in range(1, len(second)):
        block, next_offset = wire.read(first + second[:-cut], 0)
        assert ([record.value for record in block], next_offset) == ([b"1", None], 2)


def test_control_batches_and_empty_ones_only_move_the_offset() -> None:
    control = bytearray(batch([(b"\0\0\0\0", b"\0\0")], 5))
    control[22] |= 0x20
    block, next_offset = wire.read(bytes(control), 5, check_crcs=False)
    assert (len(block), next_offset) == (0, 6)


def test_every_changed_byte_under_the_checksum_is_found() -> None:
    data = batch([(b"key", b"value"), (b"key", b"other")])
    for at in range(17, len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0x15
        with pytest.raises(CorruptRecordException):
            wire.read(bytes(damaged), 0)


def test_damage_without_checksums_never_reads_outside_the_batch() -> None:
    data = batch([(b"key", b"value"), (b"key", b"other")])
    for at in range(61, len(data)):
        for value in (0, 0x7F, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[at] = value
            try:
                block, _ = wire.read(bytes(damaged), 0, check_crcs=False)
            except CorruptRecordException:
                continue
            assert (block.value[:, 1] <= len(data)).all()
            assert (block.key[:, 1] <= len(data)).all()


def test_log_append_time_is_the_batch_s() -> None:
    data = bytearray(batch([(None, b"1"), (None, b"2")]))
    data[22] |= 0x08
    data[35:43] = (1_800_000_000_000).to_bytes(8, "big")
    block, _ = wire.read(bytes(data), 0, check_crcs=False)
    assert block.timestamp.tolist() == [1_800_000_000_000] * 2


def test_records_that_came_another_way_make_the_same_columns() -> None:
    block, _ = wire.read(batch([(b"k", b"1"), (None, None), (b"", b"22")]), 0)
    assert list(wire.Block.of(list(block))) == list(block)
    assert block[1:] == list(block)[1:]
