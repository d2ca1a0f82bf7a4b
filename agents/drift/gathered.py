"""Sketches added up over the points of a warm-up, or of a suspicion, for many watches in one compiled call.

Packed, a sketch is pairs of little-endian uint16: how much higher a bucket's code is than that of the pair before (the
first: than -SPAN), and its count. A wider gap, or a larger count, takes several pairs. So a bucket mostly takes 4
bytes; a dict takes many times as much, and is slow where many models' are not in a processor's cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.compiled import bare
from streams.windows.sketch import SPAN

IntArray = NDArray[np.int64]
KeyArray = NDArray[np.int32]
PairArray = NDArray[np.uint16]

#: Counts are held at this.
MOST = 1 << 26
PAIR_BYTES = 4
_STEP = 65_535
#: Pairs that a bucket takes at the most, if its count is small.
_PAIRS = 6


class Buckets(msgspec.Struct, frozen=True, gc=False):
    """A sketch: `low` to `high` of codes ascending, and of their counts, each (b,)."""

    codes: KeyArray
    counts: IntArray
    low: int
    high: int


NO_SKETCH = Buckets(np.empty(0, np.int32), np.empty(0, np.int64), 0, 0)


def added(packed: Sequence[bytes], more: Sequence[Buckets]) -> list[bytes]:
    """Each packed sketch with another; all of `more` are of the same arrays."""
    codes, counts = more[0].codes, more[0].counts
    ends = [0, *accumulate(map(len, packed))]
    jobs = np.array([ends[:-1], ends[1:], [part.low for part in more], [part.high for part in more]], np.int64)
    size = ends[-1] // PAIR_BYTES
    room = size + _PAIRS * len(codes) + int(min(float(counts.sum(dtype=np.float64)), MOST * len(codes))) // _STEP
    out, out_ends = np.empty(2 * room, np.uint16), np.empty(len(packed), np.int64)
    _merge(np.frombuffer(b"".join(packed), np.uint16), jobs, codes, counts, np.empty((2, size + 1), np.int64), out,
           out_ends)
    edges = [0, *(2 * out_ends).tolist()]
    whole = out[:edges[-1] // 2].tobytes()
    return [whole[edges[at]:edges[at + 1]] for at in range(len(packed))]


def of_dict(sketch: Mapping[int, int]) -> bytes:
    """A sketch as code -> count, packed."""
    pairs = sorted((code, min(count, MOST)) for code, count in sketch.items() if -SPAN < code < SPAN and count > 0)
    codes, counts = np.array([pair[0] for pair in pairs], np.int32), np.array([pair[1] for pair in pairs], np.int64)
    return added([b""], [Buckets(codes, counts, 0, len(pairs))])[0]


def pairs_of(packed: bytes) -> list[tuple[int, int]]:
    """(code, count) ascending."""
    codes, counts = np.empty(len(packed) // PAIR_BYTES + 1, np.int64), np.empty(len(packed) // PAIR_BYTES + 1, np.int64)
    size = _unpack(np.frombuffer(packed, np.uint16), 0, len(packed) // 2, codes, counts)
    return list(zip(codes[:size].tolist(), counts[:size].tolist(), strict=True))


@bare
def _merge(packed: PairArray, jobs: IntArray, codes: KeyArray, counts: IntArray, own: IntArray, out: PairArray,
           out_ends: IntArray) -> None:
    """Packed sketches with buckets, one after the other into out; they end at out_ends (j,).

    jobs (4, j): from which to which byte of `packed` a sketch is, and from which bucket to which what it is added to.
    own (2, pairs): scratch for one of them.
    """
    size, own_codes, own_counts = 0, own[0], own[1]
    for job in range(len(out_ends)):
        first, end, new, last = jobs[0, job], jobs[1, job], jobs[2, job], jobs[3, job]
        known = _unpack(packed, first // 2, end // 2, own_codes, own_counts)
        at, before = 0, -SPAN
        while at < known or new < last:
            if new >= last or (at < known and own_codes[at] < codes[new]):
                code, count = own_codes[at], own_counts[at]
                at += 1
            elif at >= known or codes[new] < own_codes[at]:
                code, count = np.int64(codes[new]), counts[new]
                new += 1
            else:
                code, count = own_codes[at], own_counts[at] + counts[new]
                at, new = at + 1, new + 1
            size = _put(out, size, code - before, min(count, MOST))
            before = code
        out_ends[job] = size


@bare
def _put(out: PairArray, size: int, by: int, count: int) -> int:
    """Write a bucket that is `by` above the one before."""
    while by > _STEP:
        out[size], out[size + 1] = _STEP, 0
        size, by = size + 2, by - _STEP
    while count > 0:
        out[size], out[size + 1] = by, min(count, _STEP)
        size, by, count = size + 2, 0, count - _STEP
    return size


@bare
def _unpack(packed: PairArray, at: int, end: int, codes: IntArray, counts: IntArray) -> int:
    """Write a packed sketch's buckets; how many they are."""
    size, code = 0, -SPAN
    while at + 1 < end:
        code, count = code + int(packed[at]), int(packed[at + 1])
        if count and size and codes[size - 1] == code:
            counts[size - 1] += count
        elif count:
            codes[size], counts[size] = code, count
            size += 1
        at += 2
    return size
