import zlib

import pytest

from streams.state import row as rows

ROW = rows.Row(7, {"telemetry": 41, "feedback": -1}, b"state" * 2_000)
SMALL = ROW._replace(payload=b"state" * 50)
GOLDEN = "5347733347a61a2c000000000000000700020974656c656d657472790000000000000029"


@pytest.mark.parametrize("size", [0, 1, rows.SMALL_BYTES, rows.SMALL_BYTES + 1, 300_000])
def test_a_row_comes_back_as_it_was(size: int) -> None:
    found = ROW._replace(payload=(b"state" * size)[:size])
    assert rows.decode(rows.encode(found)) == found


def test_a_small_payload_is_by_lz4_and_a_large_one_by_zstd() -> None:
    assert [rows.encode(row)[:4] for row in (SMALL, ROW)] == [b"SGs2", b"SGs3"]


def test_a_row_by_zlib_is_read_as_ever() -> None:
    body = rows.encode(ROW)[8:53] + zlib.compress(ROW.payload, 1)
    assert rows.decode(b"SGs1" + zlib.crc32(body).to_bytes(4, "big") + body) == ROW


def test_a_payload_that_does_not_decompress_says_so() -> None:
    for row in (SMALL, ROW):
        data = rows.encode(row)
        body = data[8:53] + b"\xff" * 40
        with pytest.raises(rows.CorruptSnapshotError, match="does not decompress"):
            rows.decode(data[:4] + zlib.crc32(body).to_bytes(4, "big") + body)


@pytest.mark.parametrize("row", [ROW, SMALL])
def test_every_truncation_raises_and_says_so(row: rows.Row) -> None:
    data = rows.encode(row)
    for size in range(len(data)):
        with pytest.raises(rows.CorruptSnapshotError):
            rows.decode(data[:size])


@pytest.mark.parametrize("row", [ROW, SMALL])
def test_every_flipped_byte_raises(row: rows.Row) -> None:
    data = rows.encode(row)
    for at in range(len(data)):
        with pytest.raises(rows.CorruptSnapshotError):
            rows.decode(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1:])


def test_the_header_is_what_it_always_was() -> None:
    data = rows.encode(ROW)
    assert data[:4].hex() == GOLDEN[:8]
    assert data[8:36].hex() == GOLDEN[16:]


def test_epoch_and_fence_read_the_header_only() -> None:
    assert rows.epoch_and_fence(rows.encode(ROW)) == (7, 40)
