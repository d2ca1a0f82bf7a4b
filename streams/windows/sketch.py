r"""A log-bucket quantile sketch with a relative error of at most 1%.

A value v > 0 goes to bucket i = ceil(log_gamma v), gamma = (1 + a) / (1 - a), a = 0.01; the bucket answers with
2 gamma^i / (gamma + 1), which is off by at most a v. Negative values mirror it, zero has its own bucket. Buckets are
coded as one integer that ascends with the value: sign(v) * (i + BIAS), and 0 for zero. Merging adds counts.

Source: Masson, Rim, Lee: DDSketch, VLDB 2019. Deviation: when a sketch outgrows `MAX_BUCKETS`, its lowest buckets
collapse into one, so that low quantiles lose their bound first.
Cost: one logarithm a value. Units: as the values.
Invariant: however values are ordered, cut and merged, the buckets are the same: the highest MAX_BUCKETS codes ever
seen, the lowest of them with everything below it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streams.compiled import compiled

RELATIVE_ERROR = 0.01
GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
LOG_GAMMA = math.log(GAMMA)
#: Above every |i| a finite double can have.
BIAS = 40_000
#: Larger than every code; codes + SPAN are positive and take CODE_BITS.
SPAN = 1 << 17
CODE_BITS = 18
CODE_MASK = (1 << CODE_BITS) - 1
MAX_BUCKETS = 1_024
#: Places of a table for each bucket that is in it, at the most.
_SPARSE = 16
#: Values that wait, as keys, to be sorted and counted.
_MAX_WAITING = 8_192
#: Fewer keys are not worth the tables of a radix sort.
_FEW = 1_024
_RADIX_BITS = 11
_RADIX = 1 << _RADIX_BITS

KeyArray = NDArray[np.int32]
IntArray = NDArray[np.int64]

_NO_KEYS: tuple[KeyArray, IntArray] = np.empty(0, np.int32), np.empty(0, np.int64)


@compiled
def bucket(value: float) -> int:
    """The code of the bucket that a finite value falls into."""
    if value == 0.0:
        return 0
    index = int(math.ceil(math.log(abs(value)) / LOG_GAMMA)) + BIAS  # noqa: RUF046  (a float in numba)
    return index if value > 0.0 else -index


def bucket_value(code: int) -> float:
    """The value that a bucket stands for."""
    if code == 0:
        return 0.0
    exponent = (abs(code) - BIAS) * LOG_GAMMA + math.log(2 / (GAMMA + 1))
    return math.copysign(math.exp(min(exponent, 709.78)), code)


def quantile(buckets: Sequence[tuple[int, int]], q: float) -> float | None:
    """The q-quantile (0 to 1) of a sketch as (code, count) ascending; None of an empty one.

    Within 1% of the value at rank floor(q * (n - 1)).
    """
    rank = math.floor(q * (sum(count for _, count in buckets) - 1))
    seen = 0
    for code, count in buckets:
        seen += count
        if seen > rank:
            return bucket_value(code)
    return None


class Sketches:
    """The sketches of all fields of a pane: keys `slot << CODE_BITS | code + SPAN`, each with a count.

    One sorted pair of arrays, and keys of single values that are counted into it when it is read, or are many.
    """

    __slots__ = ("_counts", "_keys", "_waiting", "_waits")

    def __init__(self, keys: KeyArray | None = None, counts: IntArray | None = None) -> None:
        self._keys = _NO_KEYS[0] if keys is None else keys
        self._counts = _NO_KEYS[1] if counts is None else counts
        self._waiting: list[KeyArray] = []
        self._waits = 0

    def add(self, keys: KeyArray) -> None:
        """Add values by their keys, in any order; keeps the array."""
        if len(keys):
            self._waiting.append(keys)
            self._waits += len(keys)
            if self._waits >= _MAX_WAITING:
                self.arrays()

    def weigh(self, keys: KeyArray, counts: IntArray, slots: int) -> None:
        """Add values of so many slots by their keys, in any order, each as often as is said."""
        found, many = summed(keys, counts, slots)
        if not len(found):
            order = np.argsort(keys, kind="stable")
            found, many = merged(*_NO_KEYS, keys[order], counts[order])
        self._take(found, many)

    def arrays(self) -> tuple[KeyArray, IntArray]:
        """(keys, counts), keys ascending; at most MAX_BUCKETS a slot."""
        if self._waiting:
            keys = np.concatenate(self._waiting)
            self._waiting, self._waits = [], 0
            self._take(*counted(keys if len(keys) < _FEW else radix_sorted(keys), len(keys) < _FEW))
        return self._keys, self._counts

    def merge(self, other: Sketches, mapping: IntArray | None) -> None:
        """Take in the sketches of `other`, whose slot i is `mapping[i]` here (-1: leave out; None: the same slots)."""
        self.arrays()
        keys, counts = other.arrays()
        if mapping is not None:
            slots = mapping[keys >> CODE_BITS]
            moved = ((slots << CODE_BITS) | (keys & CODE_MASK)).astype(np.int32)[slots >= 0]
            order = np.argsort(moved, kind="stable")
            keys, counts = merged(*_NO_KEYS, moved[order], counts[slots >= 0][order])
        self._take(keys, counts)

    @classmethod
    def of(cls, parts: Sequence[Sketches], slots: int) -> Sketches:
        """The sketches of all parts as one; they have the same `slots`."""
        arrays = [part.arrays() for part in parts]
        if len(arrays) == 1:            # arrays are never changed, only replaced
            return cls(*arrays[0])
        if len(arrays) == 2:
            return cls(*_bounded(*merged(*arrays[0], *arrays[1])))
        keys, counts = (np.concatenate([pair[at] for pair in arrays]) for at in range(2))
        found, many = summed(keys, counts, slots)
        if len(found):
            return cls(*_bounded(found, many))
        whole = cls()               # values so far apart that a table of all buckets between them would be too large
        for part in arrays:
            whole._take(*part)
        return whole

    def _take(self, keys: KeyArray, counts: IntArray) -> None:
        """Take in a sketch; its keys are distinct."""
        if len(self._keys):
            keys, counts = merged(self._keys, self._counts, keys, counts)
        self._keys, self._counts = _bounded(keys, counts)

    def by_slot(self, slots: int) -> list[list[tuple[int, int]]]:
        """(code, count) ascending, for each of the first `slots` slots."""
        keys, counts = self.arrays()
        edges = np.searchsorted(keys, (np.arange(slots + 1) << CODE_BITS).astype(np.int32)).tolist()
        pairs = list(zip(((keys & CODE_MASK) - SPAN).tolist(), counts.tolist(), strict=True))
        return [pairs[a:b] for a, b in itertools.pairwise(edges)]


@compiled
def radix_sorted(keys: KeyArray) -> KeyArray:
    """The keys (n,), none negative, ascending; by counting, eleven bits a pass."""
    top = 0
    for key in keys:
        top |= key
    shift = 0
    while top >> shift:
        places = np.zeros(_RADIX + 1, np.int64)
        for key in keys:
            places[((key >> shift) & (_RADIX - 1)) + 1] += 1
        for digit in range(_RADIX):
            places[digit + 1] += places[digit]
        out = np.empty_like(keys)
        for key in keys:
            digit = (key >> shift) & (_RADIX - 1)
            out[places[digit]] = key
            places[digit] += 1
        keys, shift = out, shift + _RADIX_BITS
    return keys


@compiled
def counted(keys: KeyArray, sort: bool) -> tuple[KeyArray, IntArray]:
    """(distinct keys ascending, how often each comes) of ascending keys, or with `sort` of any."""
    if sort:
        keys = np.sort(keys)
    found, counts, size = np.empty(len(keys), np.int32), np.empty(len(keys), np.int64), 0
    for key in keys:
        if size and found[size - 1] == key:
            counts[size - 1] += 1
        else:
            found[size], counts[size] = key, 1
            size += 1
    return found[:size].copy(), counts[:size].copy()


@compiled
def merged(keys: KeyArray, counts: IntArray, more: KeyArray, their: IntArray) -> tuple[KeyArray, IntArray]:
    """Two sketches as one; both with ascending keys. A key that comes twice in `more` has its counts added."""
    out = np.empty(len(keys) + len(more), np.int32)
    sums = np.empty(len(out), np.int64)
    a, b, size = 0, 0, 0
    while a < len(keys) or b < len(more):
        if b == len(more) or (a < len(keys) and keys[a] <= more[b]):
            key, count = keys[a], counts[a]
            a += 1
        else:
            key, count = more[b], their[b]
            b += 1
        if size and out[size - 1] == key:
            sums[size - 1] += count
        else:
            out[size], sums[size] = key, count
            size += 1
    return out[:size].copy(), sums[:size].copy()


@compiled
def summed(keys: KeyArray, counts: IntArray, slots: int) -> tuple[KeyArray, IntArray]:
    """Keys of so many slots, in any order and each as often as is said, as one sketch.

    By a table of all buckets from the lowest to the highest of each slot and sign; nothing if that were much larger.
    """
    low, high = np.full(2 * slots, 1 << 31, np.int64), np.full(2 * slots, -1, np.int64)
    zeros = np.zeros(slots, np.int64)
    for at in range(len(keys)):
        key = keys[at]
        part = key >> (CODE_BITS - 1)
        if key & CODE_MASK == SPAN:         # zero, far below all that is positive
            zeros[key >> CODE_BITS] += counts[at]
        else:
            low[part], high[part] = min(low[part], key), max(high[part], key)
    base, size = np.empty(2 * slots, np.int64), 0
    for part in range(2 * slots):
        base[part] = size - low[part]
        size += max(0, high[part] - low[part] + 1)
    if size > _SPARSE * len(keys):
        return np.empty(0, np.int32), np.empty(0, np.int64)
    table = np.zeros(size, np.int64)
    for at in range(len(keys)):
        if keys[at] & CODE_MASK != SPAN:
            table[base[keys[at] >> (CODE_BITS - 1)] + keys[at]] += counts[at]
    return _filled(table, base, low, high, zeros, len(keys))


@compiled
def _filled(table: IntArray, base: IntArray, low: IntArray, high: IntArray, zeros: IntArray, most: int
            ) -> tuple[KeyArray, IntArray]:
    """(keys ascending, counts) of what is in a table; of the zeros before what is positive."""
    keys, counts, size = np.empty(most, np.int32), np.empty(most, np.int64), 0
    for part in range(len(low)):
        if part & 1 and zeros[part >> 1]:
            keys[size], counts[size] = ((part >> 1) << CODE_BITS) | SPAN, zeros[part >> 1]
            size += 1
        for key in range(low[part], high[part] + 1):
            if table[base[part] + key]:
                keys[size], counts[size] = key, table[base[part] + key]
                size += 1
    return keys[:size].copy(), counts[:size].copy()


def collapse(codes: KeyArray, counts: IntArray) -> tuple[KeyArray, IntArray]:
    """At most MAX_BUCKETS buckets: the lowest ones become one, where the lowest that stays was."""
    extra = len(codes) - MAX_BUCKETS
    if extra <= 0:
        return codes, counts
    kept = counts[extra:].copy()
    kept[0] += counts[:extra].sum()
    return codes[extra:], kept


def _bounded(keys: KeyArray, counts: IntArray) -> tuple[KeyArray, IntArray]:
    if len(keys) <= MAX_BUCKETS or not outgrown(keys):
        return keys, counts
    slots = keys >> CODE_BITS
    parts = [collapse(keys[slots == slot], counts[slots == slot]) for slot in np.unique(slots)]
    return np.concatenate([part for part, _ in parts]), np.concatenate([part for _, part in parts])


@compiled
def outgrown(keys: KeyArray) -> bool:
    """True if a slot has more than MAX_BUCKETS keys; keys ascend."""
    found = 0
    for at in range(len(keys) - MAX_BUCKETS):
        found += (keys[at] >> CODE_BITS) == (keys[at + MAX_BUCKETS] >> CODE_BITS)
    return found > 0


def warm() -> None:
    """Compile the kernels, or load them from their cache."""
    found = Sketches()
    for size in (1, _FEW):
        found.add(np.zeros(size, np.int32))
        found.arrays()
    outgrown(np.zeros(1, np.int32))
    Sketches.of([found, found, found], 1)
