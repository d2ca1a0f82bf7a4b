import pytest

from streams.state import row as rows

ROW = rows.Row(7, {"telemetry": 41, "feedback": -1}, b"state" * 50)
GOLDEN = "5347733147a61a2c000000000000000700020974656c656d657472790000000000000029"


def test_a_row_comes_back_as_it_was() -> None:
    assert rows.decode(rows.encode(ROW)) == ROW


def test_every_truncation_raises_and_says_so() -> None:
    data = rows.encode(ROW)
    for size in range(len(data)):
        with pytest.raises(rows.CorruptSnapshotError):
            rows.decode(data[:size])


def test_every_flipped_byte_raises() -> None:
    data = rows.encode(ROW)
    for at in range(len(data)):
        with pytest.raises(rows.CorruptSnapshotError):
            rows.decode(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1:])


def test_the_header_of_version_1_is_what_it_always_was() -> None:
    data = rows.encode(ROW)
    assert data[:4].hex() == GOLDEN[:8]
    assert data[8:36].hex() == GOLDEN[16:]


def test_epoch_and_fence_read_the_header_only() -> None:
    assert rows.epoch_and_fence(rows.encode(ROW)) == (7, 40)
