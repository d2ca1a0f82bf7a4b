"""Mergeable summaries of numbers: one row of seven cells a field.

    count, missing, sum, min, max, mean, M2 (the sum of squared deviations from the mean)

Sources: Welford, Technometrics 4 (1962), value by value; Chan, Golub, LeVeque, Stanford STAN-CS-79-773 (1979), to
merge. Deviations: none. Values are taken one by one in log order, and rows are merged in the order in which they are
given, without fast-math: the same sequence gives the same bits.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.compiled import compiled
from streams.windows import sampling, sketch
from streams.windows.layout import SAMPLED
from streams.windows.record import SummaryRecord, buckets

COUNT, MISSING, SUM, MIN, MAX, MEAN, M2 = range(7)
CELLS = 7
_LARGEST = 1.7976931348623157e308

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
KeyArray = NDArray[np.int32]


def empty_rows(rows: int) -> FloatArray:
    """(rows, 7) of empty summaries."""
    table = np.zeros((rows, CELLS))
    table[:, MIN] = np.inf
    table[:, MAX] = -np.inf
    return table


def extended(table: FloatArray, rows: int) -> FloatArray:
    """The table with empty rows after its own, `rows` in all; itself if it has as many."""
    return table if len(table) >= rows else np.concatenate((table, empty_rows(rows - len(table))))


@compiled
def widened(tables: FloatArray, have: IntArray, edges: IntArray) -> FloatArray:
    """(edges[-1], 7): tables of have[i] rows, one after the other, with empty rows behind those of each: table i has
    edges[i + 1] - edges[i] of them."""
    found, at = np.empty((edges[-1], CELLS)), 0
    for part in range(len(have)):
        low, middle = edges[part], edges[part] + have[part]
        found[low:middle] = tables[at:at + have[part]]
        at += have[part]
        for row in range(middle, edges[part + 1]):
            found[row] = 0.0
            found[row, MIN], found[row, MAX] = np.inf, -np.inf
    return found


@compiled
def accumulate(table: FloatArray, slot: IntArray, pane: IntArray, row_of_value: IntArray, value: FloatArray,
               keys: KeyArray, end: IntArray, most: int, weighed: IntArray, left: IntArray) -> int:
    """Add every value to its row, in log order; and its sketch key to the keys of the row's pane.

    table (rows, 7). row_of_value, value (m,): row -1 leaves a value out. slot, pane (rows,): what the row is, as in
    `Layout.sketched`. keys, end (panes,): the keys of pane p are written from end[p] on, which moves with them.
    most: values of a sampled row that are sketched one by one; see `sampling`. Those taken of the others are written to
    weighed (m, 3) as (pane, key, weight); their number is returned. left (rows,): values that no sketch has.
    """
    size = 0
    for at in range(len(value)):
        row = row_of_value[at]
        if row < 0:
            continue
        found = value[at]
        if math.isnan(found):
            table[row, MISSING] += 1
            continue
        table[row, COUNT] += 1
        table[row, SUM] += found
        table[row, MIN] = min(table[row, MIN], found)
        table[row, MAX] = max(table[row, MAX], found)
        delta = found - table[row, MEAN]
        table[row, MEAN] += delta / table[row, COUNT]
        table[row, M2] += delta * (found - table[row, MEAN])
        place, weight = slot[row], 1
        if place < 0:
            continue
        if place & SAMPLED:
            place ^= SAMPLED
            if table[row, COUNT] > most:
                weight = sampling.weight(int(table[row, COUNT]) - 1, most)
        if weight == 0:
            left[row] += 1
            continue
        key = (place << sketch.CODE_BITS) | (sketch.bucket(found) + sketch.SPAN)
        if weight == 1:
            keys[end[pane[row]]] = key
            end[pane[row]] += 1
        else:
            weighed[size, 0], weighed[size, 1], weighed[size, 2] = pane[row], key, weight
            size += 1
    return size


@compiled
def merge_rows(into: FloatArray, other: FloatArray, mapping: IntArray) -> None:
    """Merge row i of `other` into row mapping[i] of `into` (-1: leave out). Into an empty row: a copy, bit for bit."""
    for row in range(len(mapping)):
        at = mapping[row]
        if at < 0:
            continue
        into[at, MISSING] += other[row, MISSING]
        count, more = into[at, COUNT], other[row, COUNT]
        if more == 0:
            continue
        total = count + more
        into[at, COUNT] = total
        into[at, SUM] += other[row, SUM]
        into[at, MIN] = min(into[at, MIN], other[row, MIN])
        into[at, MAX] = max(into[at, MAX], other[row, MAX])
        if count == 0:
            into[at, MEAN] = other[row, MEAN]
            into[at, M2] = other[row, M2]
            continue
        delta = other[row, MEAN] - into[at, MEAN]
        into[at, MEAN] += delta * more / total
        into[at, M2] += other[row, M2] + delta * delta * count * more / total


@compiled
def rolled_rows(tables: FloatArray, fields: IntArray, parts: IntArray) -> FloatArray:
    """(sum of fields, 7) of groups: group g has parts[g] tables of fields[g] rows, merged one after the other.

    tables (rows, 7): those of all groups, one after the other.
    """
    found = np.zeros((fields.sum(), CELLS))
    found[:, MIN], found[:, MAX] = np.inf, -np.inf
    mapping, row, at = np.arange(fields.max()), 0, 0
    for group in range(len(fields)):
        many = fields[group]
        for _ in range(parts[group]):
            merge_rows(found[row:row + many], tables[at:at + many], mapping[:many])
            at += many
        row += many
    return found


def to_summary(row: list[float], pairs: list[tuple[int, int]], left: int = 0) -> SummaryRecord:
    """The contract's view of a row; `left` of its values are not in the sketch.

    Built without validation (a third of the time): all of it is our own numbers.
    """
    count, missing, total, low, high, mean, m2 = row
    if count == 0:
        return SummaryRecord(schema_version=1, count=0, missing=int(missing), buckets=buckets(pairs))
    if not math.isfinite(m2) or not math.isfinite(mean) or not math.isfinite(total):
        total, mean, m2 = _stated(total), _middle(low, high) if math.isnan(mean) else _stated(mean), _stated(m2)
    return SummaryRecord(
        schema_version=1, count=int(count), missing=int(missing), sum=total, min=low, max=high,
        mean=mean, m2=m2 if m2 > 0.0 else 0.0, sketched=int(count) - left if left else msgspec.UNSET,
        buckets=buckets(pairs))


def _stated(value: float) -> float:
    """Sums near the largest double overflow; they are stated as the largest one, as JSON has no infinity."""
    if math.isnan(value):
        return _LARGEST
    return min(max(value, -_LARGEST), _LARGEST)


def _middle(low: float, high: float) -> float:
    return low / 2 + high / 2
