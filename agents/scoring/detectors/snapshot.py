"""A detector's state as bytes. Trees are not in it: seed, generation and ranges grow them again.

    size        field (little-endian)
    4           magic "SGh1" (the digit is the format's version)
    4 x 2       trees, height, columns, optional names (uint16)
    4           window (uint32)
    8           seed (uint64)
    4           rows kept for new trees (uint32), n
    1           1: there are trees, 0: still warming up
    1           bytes a mass: 2 or 4
    8 x COUNTS  counts (int64)
    ...         names of columns, then optional names: length (uint16), UTF-8
    ...         guards (GUARDS, columns) float64
    ...         rows kept (n, columns) float64
    ...         with trees: masses of leaves (2, trees, 2**height), uint16 or uint32; inner nodes are their sums

Row's checksum is the snapshot store's.
"""

from __future__ import annotations

import struct
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from agents.scoring.detectors import tree_kernels as k
from agents.scoring.detectors.half_space_trees import HalfSpaceTrees

MAGIC = b"SGh1"
_HEAD = struct.Struct("<4s4HIQI2B")
_NAME = struct.Struct("<H")


def encode(detector: HalfSpaceTrees) -> bytes:
    """The bytes of a detector.

    Raises:
        ValueError: its trees were planted, so nothing can grow them again.
    """
    rows = detector.kept_rows()
    grown = detector.grown
    if grown and detector.counts[k.GENERATION] == 0:
        raise ValueError("planted trees have no snapshot: let the detector grow its own")
    size = 2 if detector.window < 2**16 else 4
    optional = sorted(detector.optional)
    parts = [_HEAD.pack(MAGIC, detector.n_trees, detector.height, len(detector.columns), len(optional),
                        detector.window, detector.seed % 2**64, len(rows), grown, size),
             detector.counts.astype("<i8", copy=False).tobytes(), _texts((*detector.columns, *optional)),
             detector.guards.astype("<f8", copy=False).tobytes(), rows.astype("<f8", copy=False).tobytes()]
    if grown:
        leaves = detector.reference[:, 2**detector.height - 1:], detector.latest
        parts += [masses.astype(f"<u{size}", copy=False).tobytes() for masses in leaves]
    return b"".join(parts)


@lru_cache(maxsize=4_096)
def _texts(names: tuple[str, ...]) -> bytes:
    """Names, each with its length; most detectors have the same."""
    return b"".join(_NAME.pack(len(text)) + text for text in (name.encode() for name in names))


def decode(data: bytes) -> HalfSpaceTrees:
    """The detector in the bytes; it continues with the same scores.

    Raises:
        ValueError: cut short, too long, or of another format.
    """
    if len(data) < _HEAD.size or data[:4] != MAGIC:
        raise ValueError("not a detector of format SGh1")
    _, trees, height, columns, optional, window, seed, n, grown, size = _HEAD.unpack_from(data)
    try:
        reader = _Reader(data, _HEAD.size)
        counts = reader.array("<i8", (k.COUNTS,))
        names = [reader.text() for _ in range(columns + optional)]
        detector = HalfSpaceTrees(trees, height, window, seed, names[columns:])
        detector.extend(names[:columns])
        detector.counts[:] = counts
        detector.guards[:] = reader.array("<f8", (k.GUARDS, columns))
        rows = reader.array("<f8", (n, columns)).astype(np.float64)
        detector.kept = [rows] if n else []
        if grown:
            detector.restore(reader.array(f"<u{size}", (2, trees, 2**height)))
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"the detector's snapshot is cut short: {error}") from None
    if reader.at != len(data):
        raise ValueError(f"{len(data) - reader.at} bytes too many after the detector's snapshot")
    return detector


class _Reader:
    """Reads forward; numpy and struct raise when the bytes end."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at

    def text(self) -> str:
        (length,) = _NAME.unpack_from(self.data, self.at)
        start = self.at + _NAME.size
        self.at = start + length
        if self.at > len(self.data):
            raise struct.error("a name ends after the bytes")
        return self.data[start:self.at].decode()

    def array(self, kind: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
        found: NDArray[np.generic] = np.frombuffer(self.data, kind, int(np.prod(shape)), self.at).reshape(shape)
        self.at += found.nbytes
        return found
