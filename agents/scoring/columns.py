"""Long-format batches to a matrix per detector, compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams.compiled import compiled

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
FieldArray = NDArray[np.int32]


@compiled
def group(of_row: IntArray, groups: int) -> tuple[IntArray, IntArray]:
    """Rows by group, in order within each: (order (n,), bounds (groups + 1,)); a counting sort."""
    bounds = np.zeros(groups + 1, np.int64)
    for g in of_row:
        bounds[g + 1] += 1
    for g in range(groups):
        bounds[g + 1] += bounds[g]
    place = bounds[:-1].copy()
    order = np.empty(len(of_row), np.int64)
    for row, g in enumerate(of_row):
        order[place[g]] = row
        place[g] += 1
    return order, bounds


@compiled
def distinct(rows: IntArray, start: IntArray, field: FieldArray, wanted: NDArray[np.bool_], seen: IntArray,
             mark: int) -> IntArray:
    """The wanted fields of some rows, by first appearance. `seen` (fields,) is scratch: `mark` must be new to it."""
    found = np.empty(len(seen), np.int64)
    n = 0
    for row in rows:
        for place in range(start[row], start[row + 1]):
            name = field[place]
            if wanted[name] and seen[name] != mark:
                seen[name] = mark
                found[n] = name
                n += 1
    return found[:n]


@compiled
def scatter(rows: IntArray, start: IntArray, field: FieldArray, value: FloatArray, column: IntArray,
            width: int) -> FloatArray:
    """The matrix (rows, width) of some rows; NaN where a row has no value. column (fields,): -1 is left out."""
    matrix = np.full((len(rows), width), np.nan)
    for i, row in enumerate(rows):
        for place in range(start[row], start[row + 1]):
            at = column[field[place]]
            if at >= 0:
                matrix[i, at] = value[place]
    return matrix
