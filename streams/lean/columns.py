"""What an event is read into, and the columns that it is written to, compiled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.base import MAX_FEATURES, MAX_METRICS, MAX_SEGMENT_KEYS
from streams.compiled import inlined
from streams.lean.names import NONE

IntArray = NDArray[np.int64]

#: The contract's fields.
(EVENT_ID, TS, ENVIRONMENT, MODEL, VERSION, COMPONENT, PREDICTION, CONFIDENCE, LABEL, LATENCY, ERROR, FEATURE_MAP,
 METRIC_MAP, SEGMENT, TRACE_ID, SCHEMA_VERSION, UNKNOWN) = range(17)
#: Fields with a number of their own, the same in every decoder.
LATENCY_FIELD, CONFIDENCE_FIELD, PREDICTION_FIELD = range(3)

#: What `Out.cursor` counts. Of a record that is left to others: which event of its array is the first (0: it is none),
#: where that begins (-1: it is not known), and the rows and values that were there before the record.
ROWS, VALUES, LOCAL_SERIES, LOCAL_FIELDS, EVENT, LEFT, LEFT_AT, ROWS_BEFORE, VALUES_BEFORE = range(9)
CURSORS = 9
#: What `Known.count` counts; SPLIT is 1 where a name has a = in it: then fields of two names may have one text.
NAMES, SERIES_KNOWN, FIELDS_KNOWN, SPLIT = range(4)
COUNTS = 4
#: Rows of `Known.each`. Of series and fields: their numbers in this batch, -1 if they have not come yet, and the
#: reverse; of names: the last event with them; of series and fields: the names that compiled code knows to mean them.
SERIES_HERE, SERIES_ORDER, FIELDS_HERE, FIELD_ORDER, LAST, SERIES_NAMES, FIELD_NAMES = range(7)
ROWS_EACH = 7
#: Characters of a name.
MAX_NAME = 128
#: What `Out.spans` holds of a row: begin and end of event_id and of trace_id in the buffer (-1: none).
ID_BEGIN, ID_END, TRACE_BEGIN, TRACE_END = range(4)


class Out(NamedTuple):
    """Columns that are being written; longer than what can come. See `streams.batch.TelemetryBatch` for the first six.

    record, spans: of each row, the record that it came in, and where its texts are.
    """

    position: IntArray
    ts_ms: IntArray
    series: NDArray[np.int32]
    error: NDArray[np.bool_]
    start: IntArray
    field: NDArray[np.int32]
    value: NDArray[np.float64]
    record: IntArray
    spans: IntArray
    cursor: IntArray


class Known(NamedTuple):
    """What a decoder keeps from batch to batch, in few arrays: each is handed over at every call.

    each (7, n): of each series, field or name, see SERIES_HERE. guess (2, n): the names that stood at each place of the
    last event's features and metrics; key_guess: its fields, likewise. count: see NAMES.
    """

    each: IntArray
    guess: IntArray
    key_guess: IntArray
    count: IntArray


class Event(NamedTuple):
    """One event, until all of it is known to be good.

    spans (keys, 2): begin and end of its texts. whole, number: see the constants. field, value: its features from 0
    on, its metrics from MAX_FEATURES on, its segments from SEGMENTS_AT on.
    """

    spans: IntArray
    whole: IntArray
    number: NDArray[np.float64]
    field: IntArray
    value: NDArray[np.float64]


#: What `Event.whole` and `Event.number` hold.
AT_MS, FAILED, CLASS, FEATURE_COUNT, METRIC_COUNT, SEGMENT_COUNT = range(6)
SEGMENTS_AT = MAX_FEATURES + MAX_METRICS
IN_MS, SURE, PREDICTED = range(3)


def new_event() -> Event:
    """Room for one."""
    most = SEGMENTS_AT + MAX_SEGMENT_KEYS
    return Event(np.full((UNKNOWN + 1, 2), -1), np.zeros(6, np.int64), np.zeros(3), np.empty(most, np.int64),
                 np.empty(most))


@inlined
def write(row: int, position: int, series: int, item: Event, known: Known, out: Out) -> None:
    """The next row: latency, confidence, prediction, features, metrics, segments."""
    at = out.cursor[ROWS]
    if item.number[IN_MS] >= 0.0:
        put(LATENCY_FIELD, item.number[IN_MS], known, out)
    if item.number[SURE] >= 0.0:
        put(CONFIDENCE_FIELD, item.number[SURE], known, out)
    if item.whole[CLASS] != NONE:
        put(item.whole[CLASS], item.number[PREDICTED], known, out)
    for place in range(item.whole[FEATURE_COUNT]):
        put(item.field[place], item.value[place], known, out)
    for place in range(MAX_FEATURES, MAX_FEATURES + item.whole[METRIC_COUNT]):
        put(item.field[place], item.value[place], known, out)
    for place in range(SEGMENTS_AT, SEGMENTS_AT + item.whole[SEGMENT_COUNT]):
        put(item.field[place], item.value[place], known, out)
    out.position[at], out.ts_ms[at], out.series[at], out.record[at] = position, item.whole[AT_MS], series, row
    out.error[at] = item.whole[FAILED] != 0
    out.spans[at, ID_BEGIN], out.spans[at, ID_END] = item.spans[EVENT_ID, 0], item.spans[EVENT_ID, 1]
    out.spans[at, TRACE_BEGIN], out.spans[at, TRACE_END] = item.spans[TRACE_ID, 0], item.spans[TRACE_ID, 1]
    out.start[at + 1] = out.cursor[VALUES]
    out.cursor[ROWS] += 1


@inlined
def put(field: int, value: float, known: Known, out: Out) -> None:
    """The next value."""
    at = out.cursor[VALUES]
    out.field[at], out.value[at] = local_field(field, known, out.cursor), value
    out.cursor[VALUES] += 1


@inlined
def local_field(field: int, known: Known, cursor: IntArray) -> int:
    """A field's number in this batch; the next one if it is new to it."""
    if known.each[FIELDS_HERE, field] == NONE:
        known.each[FIELD_ORDER, cursor[LOCAL_FIELDS]] = field
        known.each[FIELDS_HERE, field] = cursor[LOCAL_FIELDS]
        cursor[LOCAL_FIELDS] += 1
    return known.each[FIELDS_HERE, field]


@inlined
def local_series(series: int, known: Known, cursor: IntArray) -> int:
    """A series' number in this batch; the next one if it is new to it."""
    if known.each[SERIES_HERE, series] == NONE:
        known.each[SERIES_ORDER, cursor[LOCAL_SERIES]] = series
        known.each[SERIES_HERE, series] = cursor[LOCAL_SERIES]
        cursor[LOCAL_SERIES] += 1
    return known.each[SERIES_HERE, series]
