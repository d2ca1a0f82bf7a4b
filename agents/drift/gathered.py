"""Sketches added up over the points of a warm-up, or of a suspicion, for many watches in one compiled call.

Packed, a sketch is pairs of little-endian uint16: how much higher a bucket's code is than that of the pair before (the
first: than -SPAN), and its count. A wider gap, or a larger count, takes several pairs. So a bucket mostly takes 4
bytes; a dict takes many times as much, and is slow where many models' are not in a processor's cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

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


class Buckets(NamedTuple):
    """A sketch: `low` to `high` of codes ascending, and of their counts, each (b,)."""

    codes: KeyArray
    counts: IntArray
    low: int
    high: int


NO_SKETCH = Buckets(np.empty(0, np.int32), np.empty(0, np.int64), 0, 0)


def added(packed: Sequence[bytes], more: Sequence[Buckets]) -> list[bytes]:
    """Each packed sketch with another; all of `more` are of the same arrays."""
    codes, counts, _, _ = more[0]
    size = sum(map(len, packed)) // PAIR_BYTES
    ends = np.array([0, *accumulate(map(len, packed))], np.int64) // 2
    low, high = np.array([[part.low, part.high] for part in more], np.int64).T
    room = size + _PAIRS * len(codes) + int(np.minimum(counts, MOST).sum()) // _STEP
    out, out_ends = np.empty(2 * room, np.uint16), np.empty(len(packed), np.int64)
    _merge(np.frombuffer(b"".join(packed), np.uint16), ends, codes, counts, low.copy(), high.copy(),
           np.empty(size + 1, np.int64), np.empty(size + 1, np.int64), out, out_ends)
    whole = out.tobytes() if len(packed) > 1 else out[:out_ends[0]].tobytes()
    edges = [0, *(2 * out_ends).tolist()]
    return [whole[edges[at]:edges[at + 1]] for at in range(len(packed))]


def of_dict(sketch: Mapping[int, int]) -> bytes:
    """A sketch as code -> count, packed."""
    pairs = sorted((code, count) for code, count in sketch.items() if -SPAN < code < SPAN and count > 0)
    codes, counts = np.array([pair[0] for pair in pairs], np.int32), np.array([pair[1] for pair in pairs], np.int64)
    return added([b""], [Buckets(codes, counts, 0, len(pairs))])[0]


def pairs_of(packed: bytes) -> list[tuple[int, int]]:
    """(code, count) ascending."""
    codes, counts = np.empty(len(packed) // PAIR_BYTES + 1, np.int64), np.empty(len(packed) // PAIR_BYTES + 1, np.int64)
    size = _unpack(np.frombuffer(packed, np.uint16), 0, len(packed) // 2, codes, counts)
    return list(zip(codes[:size].tolist(), counts[:size].tolist(), strict=True))


@bare
def _merge(packed: PairArray, ends: IntArray, codes: KeyArray, counts: IntArray, low: IntArray, high: IntArray,
           own_codes: IntArray, own_counts: IntArray, out: PairArray, out_ends: IntArray) -> None:
    """Packed sketch j, ends[j] to ends[j + 1], with buckets low[j] to high[j]; into out, up to out_ends[j].

    own_codes, own_counts: scratch for one of them.
    """
    size = 0
    for job in range(len(low)):
        known = _unpack(packed, ends[job], ends[job + 1], own_codes, own_counts)
        own, new, before = 0, low[job], -SPAN
        while own < known or new < high[job]:
            if new >= high[job] or (own < known and own_codes[own] < codes[new]):
                code, count = own_codes[own], own_counts[own]
                own += 1
            elif own >= known or codes[new] < own_codes[own]:
                code, count = np.int64(codes[new]), counts[new]
                new += 1
            else:
                code, count = own_codes[own], own_counts[own] + counts[new]
                own, new = own + 1, new + 1
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
