"""Where a batch must be cut, so that what a pane says when it closes does not hang on where batches end.

A pane says what came before the event that closed it. In a batch that closes a pane and goes on with late events for
it, these must be taken in after it has closed. Rows that are in order, or in disorder within the delay, need no cut.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from streams.batch import TelemetryBatch
from streams.compiled import compiled
from streams.windows import grouping
from streams.windows.panes import Grid, PaneKey, pane_key

IntArray = NDArray[np.int64]

#: When a pane closes: it has closed before the batch; it is not known yet; it has no late row in the batch.
CLOSED, UNKNOWN, UNTOUCHED = 1 - (1 << 63), 2 - (1 << 63), 1 << 62


def panes_of(batch: TelemetryBatch, size_ms: int, leave_out: NDArray[np.bool_]) -> tuple[IntArray, list[PaneKey]]:
    """The pane of every row (n,), -1 for rows that are left out; and the panes' keys by first appearance."""
    starts = batch.ts_ms // size_ms
    low = int(starts.min())
    span = int(starts.max()) - low + 1
    codes = batch.series.astype(np.int64) * span + (starts - low)
    codes[leave_out] = -1
    pane_of_row, found = grouping.distinct(codes)
    starts_ms = ((found % span + low) * size_ms).tolist()
    series = [batch.keys[number] for number in (found // span).tolist()]
    return pane_of_row, list(map(pane_key, zip(series, itertools.repeat(size_ms), starts_ms)))


def cuts(batch: TelemetryBatch, leave_out: NDArray[np.bool_], over_ms: IntArray, grid: Grid,
         closes_ms: Callable[[PaneKey], int]) -> list[int]:
    """Row numbers, ascending, before which the batch is cut.

    over_ms (n,): the watermark before each row. closes_ms(key): the watermark that closes it; CLOSED; or UNKNOWN.
    """
    finest_ms = grid.finest_ms
    late = (batch.ts_ms - batch.ts_ms % finest_ms + finest_ms <= over_ms) & ~leave_out
    if not late.any():
        return []
    places, closes, ends = np.empty((len(grid.sizes_ms), len(batch)), np.int64), list[int](), list[int]()
    for place, size_ms in enumerate(grid.sizes_ms):
        pane_of_row, keys = panes_of(batch, size_ms, leave_out)
        has_late = np.zeros(len(keys), np.bool_)
        has_late[pane_of_row[late]] = True
        places[place] = np.where(pane_of_row >= 0, pane_of_row + len(closes), -1)
        closes += [closes_ms(key) if seen else UNTOUCHED for key, seen in zip(keys, has_late.tolist(), strict=True)]
        ends += [key.end_ms for key in keys]
    return list(_cuts(over_ms, places, np.array(closes, np.int64), np.array(ends, np.int64), finest_ms).tolist())


def warm() -> None:
    """Compile, or load from the cache."""
    one = np.zeros(1, np.int64)
    _cuts(one, one[None, :], one.copy(), one, 1)


@compiled
def _cuts(over_ms: IntArray, places: IntArray, closes_ms: IntArray, end_ms: IntArray, settle_ms: int) -> IntArray:
    """places (sizes, n): the pane of each row at each granularity, -1: none. `closes_ms` is filled in."""
    rows = np.empty(len(over_ms), np.int64)
    found, since = 0, over_ms[0]
    for row in range(len(over_ms)):
        cut = False
        for place in places[:, row]:
            if place < 0:
                continue
            if closes_ms[place] == UNKNOWN:
                fresh = over_ms[row] < end_ms[place]
                closes_ms[place] = end_ms[place] if fresh else over_ms[row] + settle_ms
            elif since < closes_ms[place] <= over_ms[row]:
                cut = True
        if cut:
            rows[found] = row
            found += 1
            since = over_ms[row]
    return rows[:found].copy()
