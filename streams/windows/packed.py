"""Sketches as they are stored: one short text each, where they travel as an array for every bucket.

A sketch is most of a window, and PostgreSQL takes an array apart into numbers of a dozen bytes each. As a text it is
taken as it is. Windows of 100 models at 20,000 events/s have 38 kB as `jsonb` with arrays, 6 kB with texts, and so cost
the database a sixth of the time.

    [[-39995,2],[-39990,1],[39822,40]]      ->      "rn8ECKp87EoB"

A text is numbers, least significant digits first, each digit one letter of A-Z a-z 0-9 + / for 0 to 63: five bits, and
32 more where the number goes on (as base 64 VLQ in source maps, revision 3). For each bucket, codes ascending:

    2 * gap + m     gap: from the code before; of the first its zigzag, 2c, or -2c - 1 where c < 0. m: 1 if count > 1
    count           if m

What is spelled in any other way stays as it is, and readers take both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams.compiled import bare

ByteArray = NDArray[np.uint8]
IntArray = NDArray[np.int64]

QUOTE = 34
#: Of a number that is taken apart, less one; 4 * code still fits into 63 bits.
_DIGITS = 18
_MINUS, _ZERO, _NINE, _COMMA, _OPEN, _CLOSE, _SPACE, _BRACE = (int(byte) for byte in b"-09,[] {")
_SKETCH = np.frombuffer(b'"sketch":', np.uint8)
_LETTERS = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", np.uint8)
_VALUES = np.full(256, -1, np.int64)
_VALUES[_LETTERS] = np.arange(64)
#: Bytes of a bucket as an array, at the most: two numbers, brackets, commas.
_BUCKET_BYTES = 2 * 20 + 4


def packed(fields: str) -> str:
    """The JSON of a window's fields with its sketches as texts."""
    text = np.frombuffer(fields.encode(), np.uint8)
    out = np.empty(len(text), np.uint8)
    return out[:_pack(text, out)].tobytes().decode()


def unpacked(fields: str) -> str:
    """The inverse, up to white space."""
    text = np.frombuffer(fields.encode(), np.uint8)
    out = np.empty(_BUCKET_BYTES * len(text), np.uint8)
    return out[:_unpack(text, out)].tobytes().decode()


def pairs(text: ByteArray) -> IntArray:
    """(k, 2): codes, ascending, and counts of a sketch as a text, without its quotes; to where it is damaged."""
    out = np.empty((len(text), 2), np.int64)
    return out[:_pairs(text, out)]


def warm() -> None:
    """Compile, or load from the cache."""
    unpacked(packed('{"f":{"sketch":[[0,1]]}}'))
    pairs(np.frombuffer(b"A", np.uint8))


@bare
def _pack(text: ByteArray, out: ByteArray) -> int:
    """Bytes of `out`, which has room for `text`: a sketch is never longer as a text."""
    at = size = 0
    while at < len(text):
        begin = _after_key(text, at) if text[at] == QUOTE else 0
        if begin > 0:
            while at < begin:
                out[size] = text[at]
                at, size = at + 1, size + 1
            after, end = _pack_one(text, at, out, size)
            if after > 0:
                at, size = after, end
                continue
        out[size] = text[at]
        at, size = at + 1, size + 1
    return size


@bare
def _after_key(text: ByteArray, at: int) -> int:
    """Where the value begins of a key `sketch` whose quote is at `at`; 0 if none is.

    Before it is a brace or a comma: no string has a bare quote after either, but for the one that ends it.
    """
    if at + len(_SKETCH) >= len(text) or at == 0:
        return 0
    before = text[at - 2] if text[at - 1] == _SPACE and at > 1 else text[at - 1]
    if before not in (_COMMA, _BRACE):
        return 0
    for place in range(len(_SKETCH)):
        if text[at + place] != _SKETCH[place]:
            return 0
    return at + len(_SKETCH)


@bare
def _pack_one(text: ByteArray, at: int, out: ByteArray, size: int) -> tuple[int, int]:
    """The array at `at` written to `out` as a text: where each ends. (0, 0) if it is not as ours are."""
    if at + 1 >= len(text) or text[at] != _OPEN or text[at + 1] != _OPEN:
        return 0, 0
    out[size] = QUOTE
    size, last, first = size + 1, 0, True
    while True:
        at += 1
        if at >= len(text) or text[at] != _OPEN:
            return 0, 0
        at, code = _whole(text, at + 1)
        if at == 0 or text[at] != _COMMA:
            return 0, 0
        at, count = _whole(text, at + 1)
        if at == 0 or text[at] != _CLOSE or count < 1 or at + 1 >= len(text) or not (first or code > last):
            return 0, 0
        gap = (code << 1) ^ (code >> 63) if first else code - last
        size = _put(out, size, 2 * gap + (count > 1))
        if count > 1:
            size = _put(out, size, count)
        last, first, at = code, False, at + 1
        if text[at] == _CLOSE:
            out[size] = QUOTE
            return at + 1, size + 1
        if text[at] != _COMMA:
            return 0, 0


@bare
def _whole(text: ByteArray, at: int) -> tuple[int, int]:
    """A whole number as JSON has it: where it ends, before the end of the text, and its value; (0, 0) if none is there.
    """
    negative = at < len(text) and text[at] == _MINUS
    at += negative
    first, found = at, 0
    while at < len(text) and at - first <= _DIGITS and _ZERO <= text[at] <= _NINE:
        found = 10 * found + int(text[at] - _ZERO)
        at += 1
    digits = at - first
    if at >= len(text) or not 1 <= digits < _DIGITS or (text[first] == _ZERO and (digits > 1 or negative)):
        return 0, 0
    return at, -found if negative else found


@bare
def _put(out: ByteArray, size: int, number: int) -> int:
    while number >= 32:
        out[size] = _LETTERS[32 + (number & 31)]
        number >>= 5
        size += 1
    out[size] = _LETTERS[number]
    return size + 1


@bare
def _take(text: ByteArray, at: int) -> tuple[int, int]:
    """A number: where it ends, and its value; (0, 0) if none is there."""
    found, shift = 0, 0
    while at < len(text) and shift < 60:
        digit = _VALUES[text[at]]
        if digit < 0:
            break
        found |= (digit & 31) << shift
        at, shift = at + 1, shift + 5
        if digit < 32:
            return at, found
    return 0, 0


@bare
def _bucket(text: ByteArray, at: int, last: int, first: bool) -> tuple[int, int, int]:
    """A bucket: where it ends, its code and count. `last`: the code before, but for the `first`. (0, 0, 0): none."""
    at, gap = _take(text, at)
    if at == 0:
        return 0, 0, 0
    many, gap, count = gap & 1, gap >> 1, 1
    if many:
        at, count = _take(text, at)
        if at == 0:
            return 0, 0, 0
    return at, (gap >> 1) ^ -(gap & 1) if first else last + gap, count


@bare
def _pairs(text: ByteArray, out: IntArray) -> int:
    """Rows of `out`."""
    at, rows, code = 0, 0, 0
    while at < len(text):
        at, code, count = _bucket(text, at, code, rows == 0)
        if at == 0:
            break
        out[rows, 0], out[rows, 1] = code, count
        rows += 1
    return rows


@bare
def _unpack(text: ByteArray, out: ByteArray) -> int:
    """Bytes of `out`."""
    at = size = 0
    while at < len(text):
        begin = _after_key(text, at) if text[at] == QUOTE else 0
        if begin > 0:
            begin += text[begin] == _SPACE
            while at < begin:
                out[size] = text[at]
                at, size = at + 1, size + 1
            after, end = _unpack_one(text, at, out, size)
            if after > 0:
                at, size = after, end
                continue
            if at >= len(text):
                break
        out[size] = text[at]
        at, size = at + 1, size + 1
    return size


@bare
def _unpack_one(text: ByteArray, at: int, out: ByteArray, size: int) -> tuple[int, int]:
    """The text at `at` written to `out` as an array: where each ends. (0, 0) if it is no sketch."""
    if at + 1 >= len(text) or text[at] != QUOTE or text[at + 1] == QUOTE:
        return 0, 0
    at, code, first = at + 1, 0, True
    while at < len(text) and text[at] != QUOTE:
        at, code, count = _bucket(text, at, code, first)
        if at == 0:
            return 0, 0
        out[size], out[size + 1] = _OPEN if first else _COMMA, _OPEN
        size = _digits(out, size + 2, code)
        out[size] = _COMMA
        size = _digits(out, size + 1, count)
        out[size] = _CLOSE
        size, first = size + 1, False
    if at >= len(text):
        return 0, 0
    out[size] = _CLOSE
    return at + 1, size + 1


@bare
def _digits(out: ByteArray, size: int, number: int) -> int:
    if number < 0:
        out[size] = _MINUS
        size, number = size + 1, -number
    first = size
    while number >= 10 or size == first:
        out[size] = _ZERO + number % 10
        number //= 10
        size += 1
    if number > 0:
        out[size] = _ZERO + number
        size += 1
    for place in range((size - first) // 2):
        out[first + place], out[size - 1 - place] = out[size - 1 - place], out[first + place]
    return size
