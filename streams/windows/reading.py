"""Records of `metrics` as `written` makes them, read into columns in one compiled pass: windows, fields, buckets.

What is spelled in any other way, and names that are new, are left to others. So this is no second definition of what is
valid: what it takes, `record.read_window` takes with the same values (a differential test holds this).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.base import MAX_TIMESTAMP_MS
from streams.compiled import bare
from streams.lean import number, texts, tokens
from streams.lean.names import FEATURES, NONE, Table, find
from streams.windows.sketch import SPAN

ByteArray = NDArray[np.uint8]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
KeyArray = NDArray[np.int32]

#: Columns of `Columns.window`, `Columns.field` and `Columns.number`; a window's numbers stand as in its JSON.
HEAD, ID, ID_END, START_MS, SIZE_MS, PARTITION, COUNT, ERRORS, REVISION, CLOSED_MS, LOW, HIGH = range(12)
NAME, N, MISSING, SKETCH, SKETCH_END = range(5)
SUM, MIN, MAX, MEAN, M2 = range(5)
#: What `Columns.window` has under HEAD of a record that is passed over.
PASSED_OVER = -1
#: Bytes that a field, and a bucket, take at the least.
FIELD_BYTES, BUCKET_BYTES = 100, 5
#: The parent of the names of fields.
FIELD = FEATURES
#: Counts beyond are not exact as a double.
MOST = 2**53
_CODE_DIGITS, _COUNT_DIGITS, _ID_BYTES = 6, 15, 128
_TEXTS = (b'{"schema_version":', b',"environment":', b',"model":', b',"version":', b',"component":', b',"window_id":',
          b',"start_ms":', b',"size_ms":', b',"partition":', b',"count":', b',"errors":', b',"revision":',
          b',"closed_ms":', b',"fields":{', b':{"count":', b',"schema_version":1,"missing":', b',"sum":', b',"min":',
          b',"max":', b',"mean":', b',"m2":', b',"sketched":', b',"sketch":[', b"w-")
_TEXT = np.frombuffer(b"".join(_TEXTS), np.uint8)
_AT = np.cumsum([0, *map(len, _TEXTS)])
_ID, _START, _FIELDS, _COUNT, _MISSING, _SUM, _SKETCHED, _SKETCH, _KEY = 5, 6, 13, 14, 15, 16, 21, 22, 23
_MINUS, _ZERO, _NINE, _A, _F = b"-09af"


class Columns(NamedTuple):
    """Windows (w,), fields (f,) and buckets (b,), as far as they are read.

    window (w, 12): where its JSON's beginning that is its series' ends, and its id begins and ends, in `data`; its
    numbers; its fields are LOW to HIGH. field (f, 5): its name, values, nulls, where the JSON of its sketch begins and
    ends. number (f, 5): NaN is null. Field f has the buckets edge[f]:edge[f + 1]. seen: by name, the last row with it.
    """

    data: ByteArray
    window: IntArray
    field: IntArray
    number: FloatArray
    edge: IntArray
    codes: KeyArray
    counts: IntArray
    seen: IntArray


@bare
def read(key: IntArray, value: IntArray, size: ByteArray, names: Table, first: int, field: int, out: Columns
         ) -> tuple[int, int]:
    """Read records from `first` on, their fields from row `field` on: (the first that is left to others, next row).

    key, value (w, 2): where they begin and end in `out.data`; a begin of -1 is null. size: digits and a dash, what keys
    of windows of the size wanted have there; those of others are passed over, as records without a value are.
    """
    for at in range(first, len(value)):
        out.window[at, HEAD] = PASSED_OVER
        if value[at, 0] < 0 or (key[at, 0] >= 0 and _is_other(out.data, key[at, 0], key[at, 1], size)):
            continue
        after = _window(at, value[at, 0], value[at, 1], names, field, out)
        if after < 0:
            out.window[at, HEAD] = PASSED_OVER
            return at, field
        field = after
    return len(value), field


@bare
def _is_other(data: ByteArray, at: int, end: int, size: ByteArray) -> bool:
    """True of the key of a window of another size: w-HEX-SIZE-..."""
    at = first = _expect(data, at, end, _KEY)
    while 0 <= at < end and (_ZERO <= data[at] <= _NINE or _A <= data[at] <= _F):
        at += 1
    if at == first or at >= end or data[at] != _MINUS:
        return False
    same = end - at - 1 >= len(size)
    for place in range(len(size) if same else 0):
        same &= data[at + 1 + place] == size[place]
    return not same


@bare
def _expect(data: ByteArray, at: int, end: int, which: int) -> int:
    """Where the text that must stand here ends; -1 if it does not."""
    length = int(_AT[which + 1] - _AT[which])
    if at < 0 or at + length > end:
        return -1
    for place in range(length):
        if data[at + place] != _TEXT[_AT[which] + place]:
            return -1
    return at + length


@bare
def _count(data: ByteArray, at: int, end: int) -> tuple[int, int]:
    """A count: (where it ends, its value)."""
    if at < 0 or at >= end:
        return -1, 0
    at, _, whole = number.read(data, at, end)
    return (at, whole) if 0 <= whole <= MOST else (-1, 0)


@bare
def _window(record: int, at: int, end: int, names: Table, field: int, out: Columns) -> int:
    """One record; the row after its fields, or -1."""
    data, row, low = out.data, out.window[record], field
    at, _ = _count(data, _expect(data, at, end, 0), end)
    for part in range(1, _START):
        at = _expect(data, at, end, part)
        if at < 0:
            return -1
        if part == _ID:
            row[HEAD], row[ID] = at, at + 1
        at, made_of = texts.text(data, at, end)
        if at < 0 or made_of != texts.PLAIN:
            return -1
        row[ID_END] = at
        at += 1
    for part in range(_START, _FIELDS):
        at, row[START_MS + part - _START] = _count(data, _expect(data, at, end, part), end)
    if row[START_MS] > MAX_TIMESTAMP_MS or row[CLOSED_MS] > MAX_TIMESTAMP_MS or row[SIZE_MS] < 1:
        return -1
    if not 1 <= row[ID_END] - row[ID] <= _ID_BYTES:
        return -1
    at = _expect(data, at, end, _FIELDS)
    if at < 0 or at >= end:
        return -1
    while data[at] != tokens.CLOSE:
        if field > low:
            if data[at] != tokens.COMMA:
                return -1
            at += 1
        at = _field(low, at, end, names, field, out)
        if at < 0 or at >= end:
            return -1
        field += 1
    row[LOW], row[HIGH] = low, field
    return field if at + 2 == end and data[at + 1] == tokens.CLOSE else -1


@bare
def _field(low: int, at: int, end: int, names: Table, row: int, out: Columns) -> int:
    """One field, its name and all; where it ends, or -1. A name must not come twice in a window, from row `low` on."""
    data, begin = out.data, at + 1
    at, made_of = texts.text(data, at, end)
    if at < 0 or made_of == texts.ESCAPED:
        return -1
    name = find(names, FIELD, data, begin, at)
    if name == NONE or (low <= out.seen[name] < row and out.field[out.seen[name], NAME] == name):
        return -1
    out.seen[name], out.field[row, NAME] = row, name
    at, out.field[row, N] = _count(data, _expect(data, at + 1, end, _COUNT), end)
    at, out.field[row, MISSING] = _count(data, _expect(data, at, end, _MISSING), end)
    for part in range(5):
        at = _expect(data, at, end, _SUM + part)
        if at < 0 or at >= end:
            return -1
        if MIN <= part <= MEAN and data[at] == tokens.LETTER_N:
            at, out.number[row, part] = tokens.literal_null(data, at, end), np.nan
        else:
            at, out.number[row, part], _ = number.read(data, at, end)
    if at < 0 or out.number[row, M2] < 0.0:
        return -1
    if at + 3 < end and data[at + 3] == _TEXT[_AT[_SKETCHED] + 3] and _expect(data, at, end, _SKETCHED) > 0:
        at, _ = _count(data, _expect(data, at, end, _SKETCHED), end)
    return _sketch(at, end, row, out)


@bare
def _sketch(at: int, end: int, row: int, out: Columns) -> int:
    """Its buckets, and the bracket that closes the field."""
    data, size = out.data, out.edge[row]
    at = _expect(data, at, end, _SKETCH)
    if at < 0 or at >= end:
        return -1
    out.field[row, SKETCH] = at - 1
    first = size
    while at < end and data[at] != tokens.CLOSE_ARRAY:
        if size > first:
            if data[at] != tokens.COMMA:
                return -1
            at += 1
        if at >= end or data[at] != tokens.OPEN_ARRAY:
            return -1
        at, code = _whole(data, at + 1, end, _CODE_DIGITS)
        if at < 0 or at >= end or data[at] != tokens.COMMA or not -SPAN < code < SPAN:
            return -1
        at, count = _whole(data, at + 1, end, _COUNT_DIGITS)
        if at < 0 or at >= end or data[at] != tokens.CLOSE_ARRAY or count < 1:
            return -1
        out.codes[size], out.counts[size] = code, count
        size += 1
        at += 1
    out.field[row, SKETCH_END], out.edge[row + 1] = at + 1, size
    return at + 2 if at + 1 < end and data[at + 1] == tokens.CLOSE else -1


@bare
def _whole(data: ByteArray, at: int, end: int, most: int) -> tuple[int, int]:
    """A whole number of so many digits at the most: (where it ends or -1, its value)."""
    negative = at < end and data[at] == _MINUS
    at += negative
    first, found = at, 0
    while at < end and at - first <= most and _ZERO <= data[at] <= _NINE:
        found = 10 * found + int(data[at] - _ZERO)
        at += 1
    digits = at - first
    if digits < 1 or digits > most or (data[first] == _ZERO and (digits > 1 or negative)):
        return -1, 0
    return at, -found if negative else found
