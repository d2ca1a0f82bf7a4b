"""Records of a batch to columns, compiled: one event each, or an array of them.

What cannot be read here (see `streams.lean.events`) is left to the contract: a record, or one event of an array, after
which `resume` goes on.
"""

from __future__ import annotations

from streams.compiled import bare
from streams.lean.columns import LEFT, LEFT_AT, ROWS, ROWS_BEFORE, VALUES, VALUES_BEFORE, Event, Known, Out
from streams.lean.events import ByteArray, IntArray, Limits, event
from streams.lean.names import Table
from streams.lean.tokens import CLOSE_ARRAY, COMMA, OPEN_ARRAY, skip, value_end


@bare
def read(data: ByteArray, records: IntArray, stamps: IntArray, first: int, table: Table, known: Known, item: Event,
         limits: Limits, out: Out) -> int:
    """Read records (n, 2: begin, end) from `first` on; the number of the first that is left to others, n if none is.

    Events of an array that stand before the one that is left are kept.
    """
    for at in range(first, len(records)):
        out.cursor[ROWS_BEFORE], out.cursor[VALUES_BEFORE] = out.cursor[ROWS], out.cursor[VALUES]
        if not record(data, records[at, 0], records[at, 1], at, stamps[at], table, known, item, limits, out):
            return at
    return len(records)


@bare
def resume(data: ByteArray, records: IntArray, stamps: IntArray, row: int, after: int, table: Table, known: Known,
           item: Event, limits: Limits, out: Out) -> bool:
    """Go on in an array at the event that was left, or so many `after` it that others read; True at the array's end."""
    at, position, end = out.cursor[LEFT_AT], out.cursor[LEFT], records[row, 1]
    for _ in range(after):
        at = skip(data, value_end(data, at, end), end)
        if at >= end or data[at] != COMMA:
            return True
        at, position = skip(data, at + 1, end), position + 1
    return array(data, at, end, row, position, stamps[row], table, known, item, limits, out) >= 0


@bare
def record(data: ByteArray, begin: int, end: int, row: int, stamp: int, table: Table, known: Known, item: Event,
           limits: Limits, out: Out) -> bool:
    """Read one event, or an array of them; False if any of it is left to others."""
    out.cursor[LEFT], out.cursor[LEFT_AT] = 0, -1
    if begin < 0 or end - begin > limits.max_record_bytes:
        return False
    at = skip(data, begin, end)
    if at < end and data[at] == OPEN_ARRAY:
        at = skip(data, at + 1, end)
        if at < end and data[at] == CLOSE_ARRAY:
            at += 1
        else:
            at = array(data, at, end, row, 0, stamp, table, known, item, limits, out)
    else:
        at = event(data, at, end, row, 0, stamp, table, known, item, limits, out)
    return at >= 0 and skip(data, at, end) == end


@bare
def array(data: ByteArray, at: int, end: int, row: int, first: int, stamp: int, table: Table, known: Known,
          item: Event, limits: Limits, out: Out) -> int:
    """Read events of an array from the one numbered `first`, which begins at `at`; the place after the bracket."""
    for position in range(first, limits.max_events_per_record):
        out.cursor[LEFT], out.cursor[LEFT_AT] = position, at
        at = event(data, at, end, row, position, stamp, table, known, item, limits, out)
        if at < 0:
            return -1
        out.cursor[LEFT], out.cursor[LEFT_AT] = position + 1, -1
        at = skip(data, at, end)
        if at < end and data[at] == CLOSE_ARRAY:
            return at + 1
        if at >= end or data[at] != COMMA:
            return -1
        at = skip(data, at + 1, end)
    return -1
