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
#: Fewer keys are not worth the tables of a radix sort.
_FEW = 1_024
#: Keys of a slot, on average, up to which they are sorted by insertion.
_INSERTED = 24
_RADIX_BITS = 11
_RADIX = 1 << _RADIX_BITS

KeyArray = NDArray[np.int32]
IntArray = NDArray[np.int64]


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
def slot_sorted(keys: KeyArray) -> KeyArray:
    """The same of few keys: by slot first, by counting, then those of each slot, which are very few, by insertion."""
    top = 0
    for key in keys:
        top = max(top, key >> CODE_BITS)
    if top > len(keys) or len(keys) > _INSERTED * (top + 1):
        return np.sort(keys)
    places = np.zeros(top + 2, np.int64)
    for key in keys:
        places[(key >> CODE_BITS) + 1] += 1
    for slot in range(top + 1):
        places[slot + 1] += places[slot]
    out = np.empty_like(keys)
    for key in keys:
        slot = key >> CODE_BITS
        out[places[slot]] = key
        places[slot] += 1
    low = 0
    for slot in range(top + 1):
        for at in range(low + 1, places[slot]):
            key, to = out[at], at
            while to > low and out[to - 1] > key:
                out[to] = out[to - 1]
                to -= 1
            out[to] = key
        low = places[slot]
    return out


@compiled
def counted(keys: KeyArray) -> tuple[KeyArray, IntArray]:
    """(distinct keys ascending, how often each comes) of keys (n,) in any order, none negative."""
    found, counts, size = np.empty(len(keys), np.int32), np.empty(len(keys), np.int64), 0
    for key in slot_sorted(keys) if len(keys) < _FEW else radix_sorted(keys):
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
    size = merge_into(keys, counts, more, their, out, sums)
    return out[:size].copy(), sums[:size].copy()


@compiled
def merge_into(keys: KeyArray, counts: IntArray, more: KeyArray, their: IntArray, out: KeyArray, sums: IntArray) -> int:
    """The same, written to the beginning of two arrays with room for all keys; how many."""
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
    return size


@compiled
def summed(keys: KeyArray, counts: IntArray, slots: int) -> tuple[KeyArray, IntArray]:
    """Keys of so many slots, in any order and each as often as is said, as one sketch."""
    found, sums = np.empty(len(keys) + 1, np.int32), np.empty(len(keys) + 1, np.int64)
    size = sum_into(keys, counts, slots, found, sums)
    return found[:size].copy(), sums[:size].copy()


@compiled
def sum_into(keys: KeyArray, counts: IntArray, slots: int, found: KeyArray, sums: IntArray) -> int:
    """The same, written to the beginning of two arrays with room for one bucket more than there are keys; how many.

    By a table of all buckets from the lowest to the highest of each slot and sign, or by sorting if that were much
    larger.
    """
    low, high = _spans(keys, slots)
    base, size = np.empty(2 * slots, np.int64), 0
    for part in range(2 * slots):
        base[part] = size - low[part]
        size += max(0, high[part] - low[part] + 1)
    if size > _SPARSE * len(keys):
        order = np.argsort(keys)
        some, many = merged(keys[:0], counts[:0], keys[order], counts[order])
        found[:len(some)], sums[:len(some)] = some, many
        return len(some)
    table, zeros = np.zeros(size, np.int64), np.zeros(slots, np.int64)
    for at in range(len(keys)):
        key = np.int64(keys[at])
        if key & CODE_MASK == SPAN:
            zeros[key >> CODE_BITS] += counts[at]
        else:
            table[base[key >> (CODE_BITS - 1)] + key] += counts[at]
    return _fill(table, base, low, high, zeros, found, sums)


@compiled
def _spans(keys: KeyArray, slots: int) -> tuple[IntArray, IntArray]:
    """(low, high), each (2 * slots,): the least and the largest key of the negative and of the positive values of each
    slot; of zeros, which are far below all that is positive, none.

    Keys mostly come in ascending runs, so only the ends of those are looked at.
    """
    low, high = np.full(2 * slots, 1 << 31, np.int64), np.full(2 * slots, -1, np.int64)
    last, part = np.int64(-1), np.int64(-1)
    for at in range(len(keys)):
        key = np.int64(keys[at])
        if key & CODE_MASK == SPAN:
            continue
        if key < last or key >> (CODE_BITS - 1) != part:
            if part >= 0:
                high[part] = max(high[part], last)
            part = key >> (CODE_BITS - 1)
            low[part] = min(low[part], key)
        last = key
    if part >= 0:
        high[part] = max(high[part], last)
    return low, high


@compiled
def _fill(table: IntArray, base: IntArray, low: IntArray, high: IntArray, zeros: IntArray, keys: KeyArray,
          counts: IntArray) -> int:
    """Keys ascending, and counts, of what is in a table; of the zeros before what is positive. How many.

    A bucket is always written, and the place taken only if it has values: a branch would be guessed wrong every time.
    """
    size = 0
    for part in range(len(low)):
        if part & 1 and zeros[part >> 1]:
            keys[size], counts[size] = ((part >> 1) << CODE_BITS) | SPAN, zeros[part >> 1]
            size += 1
        for key in range(low[part], high[part] + 1):
            count = table[base[part] + key]
            keys[size], counts[size] = key, count
            size += count > 0
    return size


def collapse(codes: KeyArray, counts: IntArray) -> tuple[KeyArray, IntArray]:
    """At most MAX_BUCKETS buckets: the lowest ones become one, where the lowest that stays was."""
    extra = len(codes) - MAX_BUCKETS
    if extra <= 0:
        return codes, counts
    kept = counts[extra:].copy()
    kept[0] += counts[:extra].sum()
    return codes[extra:], kept


def bounded(keys: KeyArray, counts: IntArray) -> tuple[KeyArray, IntArray]:
    """A sketch with at most MAX_BUCKETS a slot; keys ascend."""
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
