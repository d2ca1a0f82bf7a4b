"""Arrays by name as bytes: the snapshot of every detector that learns by block.

    size   field (little-endian)
    4      magic "SGd1" (the digit is the format's version)
    4      length of the head (uint32)
    ...    head: JSON {kind, what the detector says of itself, arrays: [[name, type, shape], ...]}
    ...    the arrays, one after the other, row by row

The checksum is the snapshot store's.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agents.scoring.detectors.kernels import FloatArray

MAGIC = b"SGd1"
_HEAD = struct.Struct("<4sI")
_TYPES = {"<f8", "<f4", "<i8", "<i4", "|u1"}


def encode(kind: str, head: Mapping[str, Any], found: Mapping[str, Any]) -> bytes:
    """The bytes of a detector of a kind: its head (JSON values) and its arrays."""
    little = {name: np.ascontiguousarray(value, np.asarray(value).dtype.newbyteorder("<"))
              for name, value in found.items()}
    text = json.dumps({"kind": kind, "head": dict(head), "arrays": [
        [name, value.dtype.str, list(value.shape)] for name, value in little.items()]}).encode()
    return b"".join((_HEAD.pack(MAGIC, len(text)), text, *(value.tobytes() for value in little.values())))


def decode(data: bytes) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """(kind, head, arrays) in the bytes.

    Raises:
        ValueError: cut short, too long, or of another format.
    """
    if len(data) < _HEAD.size or data[:4] != MAGIC:
        raise ValueError("not a detector of format SGd1")
    _, length = _HEAD.unpack_from(data)
    at = _HEAD.size + length
    try:
        text = json.loads(data[_HEAD.size:at])
        kind, head, listed = text["kind"], text["head"], text["arrays"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the head of the detector's snapshot is broken: {error!r}") from None
    found: dict[str, Any] = {}
    for name, dtype, shape in listed:
        size = int(np.prod(shape, dtype=np.int64))
        if dtype not in _TYPES or at + size * np.dtype(dtype).itemsize > len(data):
            raise ValueError("the detector's snapshot is cut short")
        found[name] = np.frombuffer(data, dtype, size, at).reshape(shape).copy()
        at += found[name].nbytes
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes too many after the detector's snapshot")
    return str(kind), dict(head), found


def stacked(parts: Sequence[FloatArray], width: int, behind: int) -> FloatArray:
    """Parts (n, w + behind), w <= width, one below the other as (n, width + behind): newer columns were missing."""
    rows = np.full((sum(len(part) for part in parts), width + behind), np.nan)
    at = 0
    for part in parts:
        own = part.shape[1] - behind
        rows[at:at + len(part), :own] = part[:, :own]
        rows[at:at + len(part), width:] = part[:, own:]
        at += len(part)
    return rows


def prefixed(prefix: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """The same under longer names."""
    return {prefix + name: value for name, value in found.items()}


def under(prefix: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """What `prefixed` made longer, under its own names."""
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
