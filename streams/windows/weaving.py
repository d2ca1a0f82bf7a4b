"""The JSON of many windows, written in one compiled pass.

Numbers that are whole or have up to four decimals, or are the same as the one before (of a single value sum, minimum,
maximum and mean are one), are spelled here; the others by msgspec, all of them at once, and woven in.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.compiled import bare, inlined
from streams.windows import sketch, summary

Bytes = NDArray[np.uint8]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
KeyArray = NDArray[np.int32]

#: Numbers of a field that are not counts: sum, min, max, mean, M2.
NUMBERS = 5
#: Bytes that a field takes at the most, its numbers with it, its name and its sketch not; and a bucket.
_FIELD_BYTES, _BUCKET_BYTES = 320, 32
#: And what is around its fields, beside what is its series'.
_HEAD_BYTES = 320
#: How a number is spelled: as the one before it, as a whole number, with up to four decimals, or by msgspec.
_SAME, _WHOLE, _DECIMAL, _SPELLED = 0, 1, 2, 3
#: Whole numbers below this are spelled with all their digits.
_PLAIN = 1e15
_DECIMALS = 1e4
#: The texts between a field's values, and where each begins.
_TEXTS = (b'{"count":', b',"schema_version":1,"missing":', b',"sum":', b',"min":', b',"max":', b',"mean":', b',"m2":',
          b',"sketch":[', b'0.0,"min":null,"max":null,"mean":null,"m2":0.0,"sketch":[', b',"sketched":',
          b'-', b'","start_ms":', b',"size_ms":', b',"partition":', b',"count":', b',"errors":', b',"revision":',
          b',"closed_ms":')
_TEXT = np.frombuffer(b"".join(_TEXTS), np.uint8)
_AT = np.cumsum([0, *map(len, _TEXTS)])
_COUNT, _MISSING, _SUM, _MIN, _SKETCH, _EMPTY, _SKETCHED = 0, 1, 2, 3, 7, 8, 9
_DASH, _START, _SIZE, _PARTITION, _EVENTS, _ERRORS, _REVISION, _CLOSED = range(10, 18)
_COMMA, _MINUS, _DOT, _ZERO, _OPEN, _CLOSE, _BEGIN, _END = b",-.0[]{}"
_DIGITS = np.frombuffer(b"".join(b"%04d" % number for number in range(10_000)) + b"   ", np.uint8)
_U10, _U10000, _U100000 = np.uint64(10), np.uint64(10_000), np.uint64(100_000)


class Names(NamedTuple):
    """The names of layouts as keys of JSON objects, `"name":` one after the other, and where each begins and ends.

    Layout l's are text[base[l] + edges[first[l] + i]:base[l] + edges[first[l] + i + 1]].
    """

    text: Bytes
    edges: IntArray
    base: IntArray
    first: IntArray


class Heads(NamedTuple):
    """What is around the fields of windows, up to them: of window w the text text[at[w]:at[w + 1]] with numbers where
    it is cut, cut[w] bytes after its beginning; numbers (windows, 5): size, start, events, errors, revision."""

    text: Bytes
    at: IntArray
    cut: IntArray
    numbers: IntArray


class Fields(NamedTuple):
    """The fields of windows: window w has layout[w], the rows row[w]:row[w + 1] and the keys key[w]:key[w + 1].

    table (rows, 7); left (rows,): values that are not in the sketch; keys, counts: as in `sketch.Sketches`.
    """

    layout: IntArray
    row: IntArray
    table: FloatArray
    left: IntArray
    key: IntArray
    keys: KeyArray
    counts: IntArray


def most_bytes(texts: IntArray, fields: IntArray, buckets: IntArray) -> IntArray:
    """Bytes that each window takes at the most; `texts`: those of its series' texts and of its fields' names."""
    return _HEAD_BYTES + texts + fields * _FIELD_BYTES + buckets * _BUCKET_BYTES


@bare
def finite(row: IntArray, table: FloatArray, found: NDArray[np.bool_]) -> None:
    """found (windows,): False of windows with a sum that has overflowed."""
    for window in range(len(found)):
        found[window] = True
        for at in range(row[window], row[window + 1]):
            if table[at, summary.COUNT] > 0:
                for part in range(NUMBERS):
                    found[window] &= np.isfinite(table[at, summary.SUM + part])


@bare
def unspelled(table: FloatArray, out: FloatArray) -> int:
    """The numbers that `weave` does not spell, into `out`, in its order; how many they are."""
    size = 0
    for row in range(len(table)):
        if table[row, summary.COUNT] > 0:
            before = 0.0
            for part in range(NUMBERS):
                found = _number(table, row, part)
                if _how(found, before, part) == _SPELLED:
                    out[size] = found
                    size += 1
                before = found
    return size


@bare
def weave(names: Names, heads: Heads, of: Fields, text: Bytes, partition: int, closed_ms: int, out: Bytes,
          ends: IntArray) -> None:
    """Write the windows one after the other into `out`; ends (windows,): where each ends.

    text: a JSON list of the `unspelled` numbers.
    """
    size, number = 0, 1
    for window in range(len(ends)):
        size = _head(heads, window, partition, closed_ms, out, size)
        out[size] = _BEGIN
        size, key, layout = size + 1, of.key[window], of.layout[window]
        base, first = names.base[layout], names.first[layout]
        for slot in range(of.row[window + 1] - of.row[window]):
            if slot:
                out[size] = _COMMA
                size += 1
            size = _copy(names.text, base + names.edges[first + slot], base + names.edges[first + slot + 1], out, size)
            row = of.row[window] + slot
            size, number = _summary(of.table, row, of.left[row], text, number, out, size)
            size, key = _sketch(of.keys, of.counts, key, of.key[window + 1], slot, out, size)
        out[size], out[size + 1] = _END, _END
        size += 2
        ends[window] = size


@inlined
def _head(heads: Heads, window: int, partition: int, closed_ms: int, out: Bytes, size: int) -> int:
    """A window up to its fields."""
    at, cut, numbers = heads.at[window], heads.at[window] + heads.cut[window], heads.numbers[window]
    size = _copy(heads.text, at, cut, out, size)
    size = _integer(numbers[0], out, _text(_DASH, out, size))
    size = _integer(numbers[1], out, _text(_DASH, out, size))
    size = _integer(partition, out, _text(_DASH, out, size))
    size = _integer(numbers[1], out, _text(_START, out, size))
    size = _integer(numbers[0], out, _text(_SIZE, out, size))
    size = _integer(partition, out, _text(_PARTITION, out, size))
    size = _integer(numbers[2], out, _text(_EVENTS, out, size))
    size = _integer(numbers[3], out, _text(_ERRORS, out, size))
    size = _integer(numbers[4], out, _text(_REVISION, out, size))
    size = _integer(closed_ms, out, _text(_CLOSED, out, size))
    return _copy(heads.text, cut, heads.at[window + 1], out, size)


@bare
def _number(table: FloatArray, row: int, part: int) -> float:
    """Sum, min, max, mean or M2."""
    found = table[row, summary.SUM + part]
    return found if part < NUMBERS - 1 or found > 0.0 else 0.0


@bare
def _how(found: float, before: float, part: int) -> int:
    if part and found == before and math.copysign(1.0, found) == math.copysign(1.0, before):
        return _SAME
    if abs(found) < _PLAIN and found == math.floor(found) and (found != 0.0 or math.copysign(1.0, found) > 0.0):
        return _WHOLE
    if part < NUMBERS - 2 and 0.0 < abs(found) < _PLAIN / _DECIMALS and _scaled(found) / _DECIMALS == abs(found):
        return _DECIMAL
    return _SPELLED


@bare
def _scaled(found: float) -> float:
    """The number without its sign, times ten thousand. If that is whole, the number's shortest decimal has its digits:
    no two decimals of up to fifteen digits are the same double."""
    return math.floor(abs(found) * _DECIMALS + 0.5)


@inlined
def _summary(table: FloatArray, row: int, left: int, text: Bytes, number: int, out: Bytes, size: int
             ) -> tuple[int, int]:
    """A field up to its sketch; `number`: where the next number of `text` begins."""
    count = np.int64(table[row, summary.COUNT])
    size = _integer(count, out, _text(_COUNT, out, size))
    size = _integer(np.int64(table[row, summary.MISSING]), out, _text(_MISSING, out, size))
    size = _text(_SUM, out, size)
    if count == 0:
        return _text(_EMPTY, out, size), number
    before, low, high = 0.0, size, size
    for part in range(NUMBERS):
        if part:
            size = _text(_SUM + part, out, size)
        found, start = _number(table, row, part), size
        how = _how(found, before, part)
        if how == _SAME:
            size = _copy(out, low, high, out, size)
        elif how == _WHOLE:
            size = _integer(np.int64(found), out, size)
            out[size], out[size + 1] = _DOT, _ZERO
            size += 2
        elif how == _DECIMAL:
            size = _decimal(found, out, size)
        else:
            end = number
            while text[end] != _COMMA and text[end] != _CLOSE:
                end += 1
            size, number = _copy(text, number, end, out, size), end + 1
        before, low, high = found, start, size
    if left:
        size = _integer(count - left, out, _text(_SKETCHED, out, size))
    return _text(_SKETCH, out, size), number


@inlined
def _sketch(keys: KeyArray, counts: IntArray, key: int, end: int, slot: int, out: Bytes, size: int) -> tuple[int, int]:
    """The buckets of a slot, from `key` on, and what closes the list and the field."""
    first = key
    while key < end and keys[key] >> sketch.CODE_BITS == slot:
        if key > first:
            out[size] = _COMMA
            size += 1
        out[size] = _OPEN
        size = _integer(np.int64((keys[key] & sketch.CODE_MASK) - sketch.SPAN), out, size + 1)
        out[size] = _COMMA
        size = _integer(counts[key], out, size + 1)
        out[size] = _CLOSE
        size, key = size + 1, key + 1
    out[size], out[size + 1] = _CLOSE, _END
    return size + 2, key


@inlined
def _text(number: int, out: Bytes, size: int) -> int:
    return _copy(_TEXT, _AT[number], _AT[number + 1], out, size)


@inlined
def _copy(source: Bytes, low: int, high: int, out: Bytes, size: int) -> int:
    for at in range(low, high):
        out[size + at - low] = source[at]
    return size + high - low


@inlined
def _integer(value: int, out: Bytes, size: int) -> int:
    """Up to three bytes after it are written, too."""
    if value < 0:
        out[size] = _MINUS
        size, value = size + 1, -value
    if value < 10_000:
        digits = 1 + (value >= 10) + (value >= 100) + (value >= 1_000)
        return _four(4 * value + 4 - digits, out, size) + digits
    rest = np.uint64(value)                                 # division of unsigned ones is a multiplication
    if rest >= _U100000:
        return _long(rest, out, size)
    out[size] = _ZERO + rest // _U10000                     # nearly all buckets
    return _four(4 * np.int64(rest % _U10000), out, size + 1) + 4


@bare
def _decimal(found: float, out: Bytes, size: int) -> int:
    if found < 0.0:
        out[size] = _MINUS
        size += 1
    scaled = np.int64(_scaled(found))
    size = _integer(scaled // 10_000, out, size)
    out[size] = _DOT
    size = _four(4 * (scaled % 10_000), out, size + 1) + 4
    while out[size - 1] == _ZERO:
        size -= 1
    return size


@inlined
def _four(at: int, out: Bytes, size: int) -> int:
    """Four digits. No loop and no branch: how long numbers are is not to be foreseen."""
    a, b, c, d = _DIGITS[at], _DIGITS[at + 1], _DIGITS[at + 2], _DIGITS[at + 3]
    out[size], out[size + 1], out[size + 2], out[size + 3] = a, b, c, d
    return size


@bare
def _long(rest: np.uint64, out: Bytes, size: int) -> int:
    digits, most = 5, _U100000
    while digits < 19 and rest >= most:
        digits, most = digits + 1, most * _U10
    for at in range(size + digits - 1, size - 1, -1):
        out[at] = _ZERO + rest % _U10
        rest //= _U10
    return size + digits
