"""A snapshot row: one key's state and the offsets it includes.

    offset  size  field
    0       4     magic "SGs1" (the digit is the format's version)
    4       4     CRC-32 of everything after it, big-endian
    8       8     epoch, big-endian: which ownership of the partition wrote it; a later owner's is higher
    16      2     number of fences f, big-endian
    18      ...   f times: topic length (1 byte), topic (UTF-8), last offset included (8 bytes, signed)
    ...     ...   payload, zlib-compressed
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

MAGIC = b"SGs1"
_HEAD = struct.Struct(">4sIqH")
_OFFSET = struct.Struct(">q")


class CorruptSnapshotError(ValueError):
    """A snapshot row is cut short or damaged.

    What to do: remove the group's snapshot changelog topic and let the worker read the log again from its start.
    """

    code = "snapshot_corrupt"
    retriable = False


class Row(NamedTuple):
    """A decoded snapshot row."""

    epoch: int
    fence: dict[str, int]
    payload: bytes


def encode(row: Row) -> bytes:
    """The bytes of a row."""
    parts = [struct.pack(">qH", row.epoch, len(row.fence))]
    for topic, offset in row.fence.items():
        name = topic.encode()
        parts.append(bytes([len(name)]) + name + _OFFSET.pack(offset))
    parts.append(zlib.compress(row.payload, 1))
    body = b"".join(parts)
    return MAGIC + struct.pack(">I", zlib.crc32(body)) + body


def epoch_and_fence(data: bytes) -> tuple[int, int]:
    """What orders two copies of a row: (epoch, sum of the offsets included). Reads the header only."""
    epoch, fence, _ = _header(data)
    return epoch, sum(fence.values())


def decode(data: bytes) -> Row:
    """The row in the bytes.

    Raises:
        CorruptSnapshotError: cut short, damaged, or of another format.
    """
    epoch, fence, at = _header(data)
    if zlib.crc32(data[8:]) != struct.unpack_from(">I", data, 4)[0]:
        raise CorruptSnapshotError("checksum does not match")
    try:
        return Row(epoch, fence, zlib.decompress(data[at:]))
    except zlib.error as error:
        raise CorruptSnapshotError(f"payload does not decompress: {error}") from None


def _header(data: bytes) -> tuple[int, dict[str, int], int]:
    if len(data) < _HEAD.size or data[:4] != MAGIC:
        raise CorruptSnapshotError(f"not a snapshot row of format {MAGIC.decode()}")
    _, _, epoch, fences = _HEAD.unpack_from(data)
    at, fence = _HEAD.size, {}
    try:
        for _ in range(fences):
            end = at + 1 + data[at]
            fence[data[at + 1:end].decode()] = _OFFSET.unpack_from(data, end)[0]
            at = end + _OFFSET.size
    except (IndexError, struct.error, UnicodeDecodeError):
        raise CorruptSnapshotError("header is cut short") from None
    return epoch, fence, at
