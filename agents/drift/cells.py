"""Fields over the windows of a group, added up through lenses: plain moments, logarithms, winsorised sums. Compiled.

A row of the table is a field; all of a window's are added in one call, and all that a group's points need of them is
read off in another. Sums that Python makes by `math.fsum` are exact here, too (Shewchuk, Discrete Comput. Geom. 18,
1997), so that how buckets are ordered, or when they were put together, makes no difference.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from streams.compiled import bare
from streams.windows import reading
from streams.windows.sketch import BIAS, CODE_BITS, CODE_MASK, GAMMA, LOG_GAMMA, SPAN

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
KeyArray = NDArray[np.int32]

#: What is kept of a field (`Cell` says what each is), and how its next values are read.
N, MISSING, MEAN, M2, LOG_N, MEANT_N, LOG_SUM, LOG_SQUARES, WATCHED_N, WATCHED = range(10)
KEPT = 10
LENS, LOW, HIGH, LEARNS, FLOOR, CLOSER = range(KEPT, 16)
WIDTH = 16
#: Under LENS.
NONE, PLAIN, LOGARITHMIC = 0.0, 1.0, 2.0
#: What a point needs of a field; variances are of single events, and `level` is the mean through the lens.
MEAN_OF, VARIANCE, LOG_MEAN, LOG_VARIANCE, LEVEL = range(5)
#: Values are held within this, so that their squares and sums stay finite.
LARGEST = 1e100
#: Logarithms of what is not positive (a latency of 0 ms).
LOG_FLOOR = math.log(1e-3)
#: Of a field's values, to know their logarithms.
LEAST_KNOWN = 0.9
_LARGEST_M2 = LARGEST * LARGEST
_LOG_MIDDLE = math.log(2 / (GAMMA + 1))
_LOG_SHIFT = _LOG_MIDDLE - BIAS * LOG_GAMMA
_LOG_MOST = 709.78
#: Partial sums that doubles can make at the most, and some.
PARTIALS = 64


@bare
def add(cells: FloatArray, names: IntArray, size: int, most: int, keys: KeyArray, counts: IntArray, filled: int,
        partials: FloatArray, field: IntArray, number: FloatArray, edge: IntArray, codes: KeyArray, times: IntArray,
        low: int, high: int) -> tuple[int, int]:
    """Take in a window's fields, rows `low` to `high` of columns (`reading.Columns`), by Chan's merge.

    cells (.., WIDTH), names (..,): the group's, of which there are `size`; fields beyond `most` are passed over. keys,
    counts (..,): its buckets, as in `sketch` with the row for a slot; `filled` of them. partials (PARTIALS,): scratch.
    Returns the first row that is not taken in, as it has no cell or its buckets no room, and `filled`.
    """
    row = -1
    for at in range(low, high):
        row = _find(names, size, field[at, reading.NAME], row)
        if row < 0:
            if size < most:
                return at, filled
            continue
        first, last = edge[at], edge[at + 1]
        if filled + last - first > len(keys):
            return at, filled
        cell = cells[row]
        cell[MISSING] += field[at, reading.MISSING]
        n = np.float64(field[at, reading.N])
        if n == 0.0:
            continue
        mean = _merge(cell, n, number[at, reading.MEAN], number[at, reading.M2])
        least, greatest = number[at, reading.MIN], number[at, reading.MAX]
        if cell[LENS] != NONE:
            cell[WATCHED_N] += n
            if cell[LENS] == LOGARITHMIC:
                cell[WATCHED] += _logs_through(cell, n, mean, codes, times, first, last, partials)
            else:
                cell[WATCHED] += _sum_through(cell, n, mean, least, greatest, codes, times, first, last)
        learns = (cell[LENS] == NONE or cell[LEARNS] > 0.0) and (cell[FLOOR] > 0.0 or least > 0.0)
        if learns:
            cell[LOG_N] += n
        if first == last:
            if learns:
                log = math.log(mean) if mean > 0.0 else LOG_FLOOR
                cell[MEANT_N] += n
                cell[LOG_SUM] += n * log
                cell[LOG_SQUARES] += n * log * log
        elif learns or cell[CLOSER] > 0.0:
            for bucket in range(first, last):
                keys[filled], counts[filled] = (row << CODE_BITS) | (codes[bucket] + SPAN), times[bucket]
                filled += 1
    return high, filled


@bare
def _find(names: IntArray, size: int, name: int, before: int) -> int:
    """The row of a name, mostly the one after that of the name before; -1 if there is none."""
    for row in range(before + 1, size):
        if names[row] == name:
            return row
    for row in range(min(before + 1, size)):
        if names[row] == name:
            return row
    return -1


@bare
def _merge(cell: FloatArray, n: float, mean: float, m2: float) -> float:
    """Add n values to the moments; their mean, held within what is summed."""
    if math.isnan(mean):
        mean = 0.0
    if not (abs(mean) <= LARGEST and m2 <= _LARGEST_M2):
        mean, m2 = _held(mean, -LARGEST, LARGEST), m2 if m2 < _LARGEST_M2 else _LARGEST_M2
    total = cell[N] + n
    delta = mean - cell[MEAN]
    cell[M2] += m2 + delta * delta * cell[N] * n / total
    cell[MEAN] += delta * n / total
    cell[N] = total
    return mean


@bare
def _held(value: float, low: float, high: float) -> float:
    value = value if value < high else high
    return value if value > low else low


@bare
def log_value(code: int) -> float:
    """The logarithm of the value that a sketch's bucket stands for."""
    return code * LOG_GAMMA + _LOG_SHIFT if code > 0 else LOG_FLOOR


@bare
def value_of(code: int) -> float:
    """The value that a sketch's bucket stands for."""
    if code == 0:
        return 0.0
    exponent = (abs(code) - BIAS) * LOG_GAMMA + _LOG_MIDDLE
    found = math.exp(exponent if exponent < _LOG_MOST else _LOG_MOST)
    return found if code > 0 else -found


@bare
def _logs_through(cell: FloatArray, n: float, mean: float, codes: KeyArray, times: IntArray, first: int, last: int,
                  partials: FloatArray) -> float:
    """Sum of the logarithms, each held within the lens."""
    low, high = cell[LOW], cell[HIGH]
    if first == last:
        return n * _held(math.log(mean) if mean > 0.0 else LOG_FLOOR, low, high)
    size = 0
    for at in range(first, last):
        size = plus(partials, size, times[at] * _held(log_value(codes[at]), low, high))
    return total(partials, size)


@bare
def _sum_through(cell: FloatArray, n: float, mean: float, least: float, most: float, codes: KeyArray, times: IntArray,
                 first: int, last: int) -> float:
    """Sum of the values, each held within the lens; exact unless some of them are outside.

    Then those outside are known by their buckets only, within 1%. What is left within is the sum less theirs, or the
    sum of its own buckets, whichever is off by less; a single value outside on either side is known exactly.
    """
    low, high = cell[LOW], cell[HIGH]
    if math.isnan(least) or math.isnan(most) or first == last:
        return n * _held(mean, low, high)
    if least >= low and most <= high:
        return n * mean
    above, below, outside, outside_size, inside, inside_size = 0, 0, 0.0, 0.0, 0.0, 0.0
    for at in range(first, last):
        count, value = times[at], _held(value_of(codes[at]), least, most)
        if value > high:
            above += count
        elif value < low:
            below += count
        else:
            inside += count * value
            inside_size += count * abs(value)
            continue
        outside += count * value
        outside_size += count * abs(value)
    if above <= 1 and below <= 1:
        outside, outside_size = above * most + below * least, 0.0
    within = n - above - below
    left = n * mean - outside if outside_size <= inside_size else inside
    return float(above * high + below * low + _held(left, within * low, within * high))


@bare
def read_off(cells: FloatArray, size: int, keys: KeyArray, counts: IntArray, partials: FloatArray, edge: IntArray,
             out: FloatArray) -> None:
    """What points need of `size` cells, into out (size, 5); NaN is unknown. keys, counts: buckets, ascending and each
    once; cell i's are edge[i]:edge[i + 1].

    Logarithms are of the values in the sketch, and of those without one, for which their mean stands. A sketch that is
    a sample may have a few values less than there are; one that could not be read has none.
    """
    at = 0
    for row in range(size):
        edge[row], first, known = at, at, cells[row, MEANT_N]
        while at < len(keys) and keys[at] >> CODE_BITS == row:
            known += counts[at]
            at += 1
        n = cells[row, N]
        if n > 0.0:
            out[row, MEAN_OF], out[row, VARIANCE] = cells[row, MEAN], cells[row, M2] / n
            out[row, LEVEL] = cells[row, WATCHED] / n if cells[row, WATCHED_N] == n else math.nan
            out[row, LOG_MEAN], out[row, LOG_VARIANCE] = math.nan, math.nan
            if not (cells[row, LOG_N] < n or known < LEAST_KNOWN * n):
                mean = _logs(cells[row, LOG_SUM], keys, counts, first, at, partials, False) / known
                square = _logs(cells[row, LOG_SQUARES], keys, counts, first, at, partials, True) / known - mean * mean
                out[row, LOG_MEAN], out[row, LOG_VARIANCE] = mean, square if square > 0.0 else 0.0
    edge[size] = at


@bare
def _logs(rest: float, keys: KeyArray, counts: IntArray, first: int, last: int, partials: FloatArray, squares: bool
          ) -> float:
    """`rest` and the logarithms of buckets, or their squares."""
    size = plus(partials, 0, rest)
    for at in range(first, last):
        log = log_value(int(keys[at] & CODE_MASK) - SPAN)
        size = plus(partials, size, counts[at] * log * log if squares else counts[at] * log)
    return total(partials, size)


@bare
def plus(partials: FloatArray, size: int, value: float) -> int:
    """Add to a sum of `size` partials that do not overlap; how many they are then."""
    kept = 0
    for at in range(size):
        other = partials[at]
        if abs(value) < abs(other):
            value, other = other, value
        high = value + other
        low = other - (high - value)
        if low != 0.0:
            partials[kept] = low
            kept += 1
        value = high
    if value != 0.0:
        partials[kept] = value
        kept += 1
    return kept


@bare
def total(partials: FloatArray, size: int) -> float:
    """The double nearest to the sum, as `math.fsum` rounds it."""
    if size == 0:
        return 0.0
    size -= 1
    high, low = partials[size], 0.0
    while size > 0:
        value = high
        size -= 1
        other = partials[size]
        high = value + other
        low = other - (high - value)
        if low != 0.0:
            break
    if size > 0 and ((low < 0.0 and partials[size - 1] < 0.0) or (low > 0.0 and partials[size - 1] > 0.0)):
        other = low * 2.0
        value = high + other
        if other == value - high:
            high = value
    return float(high)
