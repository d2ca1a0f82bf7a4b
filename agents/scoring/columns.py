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
    """Rows by group, in order within each: (order (n,), bounds (groups + 1,)); a counting sort. -1: in no group."""
    bounds = np.zeros(groups + 1, np.int64)
    for g in of_row:
        if g >= 0:
            bounds[g + 1] += 1
    for g in range(groups):
        bounds[g + 1] += bounds[g]
    place = bounds[:-1].copy()
    order = np.empty(bounds[groups], np.int64)
    for row, g in enumerate(of_row):
        if g >= 0:
            order[place[g]] = row
            place[g] += 1
    return order, bounds


@compiled
def lacking(order: IntArray, bounds: IntArray, layout: IntArray, column: IntArray, wanted: NDArray[np.bool_],
            start: IntArray, field: FieldArray) -> NDArray[np.bool_]:
    """(groups,) whether a group's rows have wanted fields without a column.

    layout (groups,): which of the layouts is a group's; column (layouts, fields): -1 is none.
    """
    found = np.zeros(len(layout), np.bool_)
    for g in range(len(layout)):
        where = column[layout[g]]
        for row in order[bounds[g]:bounds[g + 1]]:
            for place in range(start[row], start[row + 1]):
                if wanted[field[place]] and where[field[place]] < 0:
                    found[g] = True
    return found


@compiled
def distinct(rows: IntArray, start: IntArray, field: FieldArray, wanted: NDArray[np.bool_]) -> IntArray:
    """The wanted fields of some rows, by first appearance."""
    seen = np.zeros(len(wanted), np.bool_)
    found = np.empty(len(wanted), np.int64)
    n = 0
    for row in rows:
        for place in range(start[row], start[row + 1]):
            name = field[place]
            if wanted[name] and not seen[name]:
                seen[name] = True
                found[n] = name
                n += 1
    return found[:n]


@compiled
def scatter(order: IntArray, bounds: IntArray, layout: IntArray, column: IntArray, width: IntArray, start: IntArray,
            field: FieldArray, value: FloatArray) -> tuple[FloatArray, IntArray]:
    """A matrix (rows, width) of each group's rows, one behind the other, and where each begins (groups + 1,).

    NaN where a row has no value. layout (groups,), column (layouts, fields): as in `lacking`; width (groups,).
    """
    begin = np.zeros(len(layout) + 1, np.int64)
    for g in range(len(layout)):
        begin[g + 1] = begin[g] + (bounds[g + 1] - bounds[g]) * width[g]
    flat = np.full(begin[-1], np.nan)
    for g in range(len(layout)):
        where, at = column[layout[g]], begin[g]
        for row in order[bounds[g]:bounds[g + 1]]:
            for place in range(start[row], start[row + 1]):
                if where[field[place]] >= 0:
                    flat[at + where[field[place]]] = value[place]
            at += width[g]
    return flat, begin
