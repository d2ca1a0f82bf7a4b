"""A telemetry event from JSON to columns, compiled: one pass over its bytes.

Every function takes where it reads and returns where it ended, or -1 where a record is left to the contract: ids, and
names of models and fields of the contract, with escapes; numbers that need more than a machine word; unusual spellings
of instants; whatever breaks the contract, and everything else that is rare.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.base import MAX_FEATURES, MAX_METRICS, MAX_SEGMENT_KEYS, MAX_TEXT, MAX_TIMESTAMP_MS
from streams.compiled import bare, inlined
from streams.lean import instant, number
from streams.lean.columns import (
    AT_MS,
    CLASS,
    COMPONENT,
    CONFIDENCE,
    ENVIRONMENT,
    ERROR,
    EVENT,
    EVENT_ID,
    FAILED,
    FEATURE_COUNT,
    FEATURE_MAP,
    IN_MS,
    LABEL,
    LAST,
    LATENCY,
    MAX_NAME,
    METRIC_COUNT,
    METRIC_MAP,
    MODEL,
    PREDICTED,
    PREDICTION,
    PREDICTION_FIELD,
    SCHEMA_VERSION,
    SEGMENT,
    SEGMENT_COUNT,
    SEGMENTS_AT,
    SURE,
    TRACE_ID,
    TS,
    UNKNOWN,
    VERSION,
    Event,
    Known,
    Out,
    local_series,
    write,
)
from streams.lean.learning import field_of, find_text, series_of
from streams.lean.names import CLASSES, FEATURES, METRICS, NONE, SEGMENTS, Table, same
from streams.lean.texts import ESCAPED, PLAIN, QUOTE, length, text
from streams.lean.tokens import (
    CLOSE,
    COLON,
    COMMA,
    LETTER_N,
    OPEN,
    ignored,
    literal_null,
    scalar,
    skip,
)

ByteArray = NDArray[np.uint8]
IntArray = NDArray[np.int64]

MAX_LATENCY_MS = 1e9

_KEYS = (b"event_id", b"ts", b"environment", b"model", b"version", b"component", b"prediction", b"confidence", b"label",
         b"latency_ms", b"error", b"features", b"metrics", b"segment", b"trace_id", b"schema_version")
_KEY_BYTES = np.frombuffer(b"".join(_KEYS), np.uint8).copy()
_KEY_BEGIN = np.concatenate(([0], np.cumsum([len(key) for key in _KEYS])))
_REQUIRED = sum(1 << key for key in (EVENT_ID, TS, ENVIRONMENT, MODEL, VERSION))


class Limits(NamedTuple):
    """What is let in besides the contract. segment_keys: how many keys of segments are kept."""

    max_record_bytes: int = 1_048_576
    max_events_per_record: int = 10_000
    max_age_ms: int = 0
    max_ahead_ms: int = 10_000
    segment_keys: int = 0


@inlined
def event(data: ByteArray, at: int, end: int, row: int, position: int, stamp: int, table: Table, known: Known,
          item: Event, limits: Limits, out: Out) -> int:
    """Read one event into the next row."""
    out.cursor[EVENT] += 1
    at = members(data, at, end, limits.segment_keys, table, known, item, out.cursor[EVENT])
    if at < 0:
        return -1
    ts = item.whole[AT_MS]
    if stamp > 0 and ((limits.max_ahead_ms and ts > stamp + limits.max_ahead_ms)
                      or (limits.max_age_ms and ts < stamp - limits.max_age_ms)):
        return -1
    series = series_of(data, item.spans, table, known)
    if series == NONE:
        return -1
    write(row, position, local_series(series, known, out.cursor), item, known, out)
    return at


@bare
def members(data: ByteArray, at: int, end: int, segment_keys: int, table: Table, known: Known, item: Event,
            serial: int) -> int:
    """Read an object's members into `item`: each of the contract's fields at most once, all the required ones."""
    if at >= end or data[at] != OPEN:
        return -1
    item.spans[:] = -1
    item.whole[:] = 0
    item.whole[CLASS] = NONE
    item.number[:] = -1.0
    seen, place = 0, 0
    while True:
        at = skip(data, at + 1, end)
        close, made_of = text(data, at, end)
        if close < 0 or made_of != PLAIN:
            return -1
        key = key_of(data, at + 1, close, place, known.key_guess)
        place += 1
        at = skip(data, close + 1, end)
        if at >= end or data[at] != COLON or (key != UNKNOWN and seen >> key & 1):
            return -1
        seen |= 1 << key
        at = skip(data, at + 1, end)
        if at < end:
            at = member(data, at, end, key, segment_keys, table, known, item, serial)
        if at < 0:
            return -1
        at = skip(data, at, end)
        if at >= end:
            return -1
        if data[at] == CLOSE:
            return at + 1 if seen & _REQUIRED == _REQUIRED else -1
        if data[at] != COMMA:
            return -1


@inlined
def member(data: ByteArray, at: int, end: int, key: int, segment_keys: int, table: Table, known: Known, item: Event,
           serial: int) -> int:
    """Read the value of one of the contract's fields, or of a field that it does not know."""
    if key == FEATURE_MAP:
        at, item.whole[FEATURE_COUNT] = mapping(data, at, end, True, table, known, item, serial)
        return at
    if key == METRIC_MAP:
        at, item.whole[METRIC_COUNT] = mapping(data, at, end, False, table, known, item, serial)
        return at
    if key == SEGMENT:
        at, item.whole[SEGMENT_COUNT] = segment(data, at, end, segment_keys, table, known, item, serial)
        return at
    if key == TS:
        at, item.whole[AT_MS] = moment(data, at, end)
        return at
    if key == SCHEMA_VERSION:
        at, _, whole = number.read(data, at, end)
        return at if whole == 1 else -1
    if data[at] == LETTER_N and key >= PREDICTION and key != UNKNOWN:
        return literal_null(data, at, end)
    if key in (LATENCY, CONFIDENCE):
        at, value, _ = number.read(data, at, end)
        if not 0.0 <= value <= (MAX_LATENCY_MS if key == LATENCY else 1.0):
            return -1
        item.number[IN_MS if key == LATENCY else SURE] = value
        return at
    if data[at] == QUOTE:
        return predicted(data, at, end, table, known, item) if key == PREDICTION else string(data, at, end, key, item)
    if key == UNKNOWN:
        return ignored(data, at, end)
    if key in (PREDICTION, LABEL):
        at, value = scalar(data, at, end, False)
        if key == PREDICTION:
            item.number[PREDICTED], item.whole[CLASS] = value, PREDICTION_FIELD
        return at
    return -1


@bare
def moment(data: ByteArray, at: int, end: int) -> tuple[int, int]:
    """Read an instant, in epoch milliseconds or ISO 8601: (where it ends, its milliseconds)."""
    if data[at] == QUOTE:
        close, _ = text(data, at, end)
        found = -1 if close < 0 else instant.read(data, at + 1, close)
        at = close + 1
    else:
        at, _, found = number.read(data, at, end)
    return (at, found) if 0 <= found <= MAX_TIMESTAMP_MS else (-1, 0)


@inlined
def predicted(data: ByteArray, at: int, end: int, table: Table, known: Known, item: Event) -> int:
    """Read a class."""
    close, made_of = text(data, at, end)
    if close < 0:
        return -1
    name = field_of(data, at + 1, close, made_of, CLASSES, table, known)
    if name == NONE:
        return -1
    item.number[PREDICTED], item.whole[CLASS] = 1.0, table.meaning[name]
    return close + 1


@bare
def string(data: ByteArray, at: int, end: int, key: int, item: Event) -> int:
    """Read a text that is no name of a field. What is handed on as it is must be ASCII without escapes."""
    close, made_of = text(data, at, end)
    if close < 0 or (made_of != PLAIN and (key <= COMPONENT or key == TRACE_ID)):
        return -1
    size = length(data, at + 1, close, made_of)
    if size < 0 or (key != UNKNOWN and size > (MAX_TEXT if key == ERROR else MAX_NAME)):
        return -1
    if size == 0 and (key in (EVENT_ID, TRACE_ID)):
        return -1
    item.spans[key, 0], item.spans[key, 1] = at + 1, close
    if key == ERROR:
        item.whole[FAILED] = 1
    return close + 1


@inlined
def mapping(data: ByteArray, at: int, end: int, features: bool, table: Table, known: Known, item: Event,
            serial: int) -> tuple[int, int]:
    """Features or metrics: (where they end, how many)."""
    if data[at] != OPEN:
        return -1, 0
    if at + 1 < end and data[skip(data, at + 1, end - 1)] == CLOSE:
        return skip(data, at + 1, end) + 1, 0
    first = 0 if features else MAX_FEATURES
    for count in range(MAX_FEATURES if features else MAX_METRICS):
        at, name = name_of(data, skip(data, at + 1, end), end, count, features, table, known, serial)
        if at < 0:
            return -1, 0
        field = table.meaning[name]
        if features and data[at] == QUOTE:
            close, made_of = text(data, at, end)
            if close < 0:
                return -1, 0
            name = field_of(data, at + 1, close, made_of, name, table, known)
            if name == NONE:
                return -1, 0
            field, value, at = table.meaning[name], 1.0, close + 1
        else:
            at, value = scalar(data, at, end, features)
            if at < 0:
                return -1, 0
        item.field[first + count], item.value[first + count] = field, value
        at = skip(data, at, end)
        if at < end and data[at] == CLOSE:
            return at + 1, count + 1
        if at >= end or data[at] != COMMA:
            return -1, 0
    return -1, 0


@inlined
def name_of(data: ByteArray, at: int, end: int, count: int, features: bool, table: Table, known: Known,
            serial: int) -> tuple[int, int]:
    """A name and the colon after it: (where its value begins, the name). One that comes twice is left."""
    close, made_of = text(data, at, end)
    if close <= at + 1:
        return -1, NONE
    parent, kind = (FEATURES, 0) if features else (METRICS, 1)
    name = known.guess[kind, count]
    if name == NONE or made_of == ESCAPED or not same(table, name, parent, data, at + 1, close):
        name = field_of(data, at + 1, close, made_of, parent, table, known)
        if name == NONE:
            return -1, NONE
        known.guess[kind, count] = name
    if known.each[LAST, name] == serial:
        return -1, NONE
    known.each[LAST, name] = serial
    at = skip(data, close + 1, end)
    if at >= end or data[at] != COLON:
        return -1, NONE
    at = skip(data, at + 1, end)
    return (at, name) if at < end else (-1, NONE)


@inlined
def segment(data: ByteArray, at: int, end: int, segment_keys: int, table: Table, known: Known, item: Event,
            serial: int) -> tuple[int, int]:
    """Texts by name: (where they end, how many are kept). Looked through, and kept if their key is known."""
    kept = 0
    if data[at] != OPEN:
        return -1, kept
    at = skip(data, at + 1, end)
    if at < end and data[at] == CLOSE:
        return at + 1, kept
    for _ in range(MAX_SEGMENT_KEYS):
        name = NONE
        for mark in (COLON, COMMA):
            close, made_of = text(data, at, end)
            if close < 0 or not (mark == COLON) <= length(data, at + 1, close, made_of) <= MAX_NAME:
                return -1, kept
            if segment_keys and mark == COLON:
                name = find_text(data, at + 1, close, made_of, SEGMENTS, table, known)
                if name != NONE and known.each[LAST, name] == serial:
                    return -1, kept
                if name != NONE:
                    known.each[LAST, name] = serial
            elif name != NONE:
                name = field_of(data, at + 1, close, made_of, name, table, known)
                if name == NONE:
                    return -1, kept
                item.field[SEGMENTS_AT + kept], item.value[SEGMENTS_AT + kept] = table.meaning[name], 1.0
                kept += 1
            at = skip(data, close + 1, end)
            if at < end and mark == COMMA and data[at] == CLOSE:
                return at + 1, kept
            if at >= end or data[at] != mark:
                return -1, kept
            at = skip(data, at + 1, end)
    return -1, kept


@bare
def key_of(data: ByteArray, begin: int, end: int, place: int, guess: IntArray) -> int:
    """The contract's field with this name; `guess` is what stood at each place of the last event."""
    if place < len(guess) and is_key(data, begin, end, guess[place]):
        return guess[place]
    for key in range(UNKNOWN):
        if is_key(data, begin, end, key):
            if place < len(guess):
                guess[place] = key
            return key
    return UNKNOWN


@bare
def is_key(data: ByteArray, begin: int, end: int, key: int) -> bool:
    """True if the bytes are the key's name."""
    start = _KEY_BEGIN[key]
    if _KEY_BEGIN[key + 1] - start != end - begin:
        return False
    for at in range(end - begin):
        if data[begin + at] != _KEY_BYTES[start + at]:
            return False
    return True
