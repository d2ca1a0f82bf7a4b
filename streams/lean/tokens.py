"""Words of JSON in the bytes of a batch, compiled: white space, texts, numbers, true, false and null.

Every function takes where it reads and returns where it ended, or -1 where it is not certain.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams.compiled import bare
from streams.lean import number

ByteArray = NDArray[np.uint8]

QUOTE, BACKSLASH, COLON, COMMA = 34, 92, 58, 44
OPEN, CLOSE, OPEN_ARRAY, CLOSE_ARRAY = 123, 125, 91, 93
LETTER_F, LETTER_N, LETTER_T = 102, 110, 116


@bare
def scalar(data: ByteArray, at: int, end: int, words: bool) -> tuple[int, float]:
    """A number; with `words` also true, false and null, which is NaN."""
    if words and data[at] == LETTER_N:
        return literal_null(data, at, end), np.nan
    if words and data[at] == LETTER_T and at + 4 <= end:
        good = data[at + 1] == 114 and data[at + 2] == 117 and data[at + 3] == 101
        return (at + 4 if good else -1), 1.0
    if words and data[at] == LETTER_F and at + 5 <= end:
        good = data[at + 1] == 97 and data[at + 2] == 108 and data[at + 3] == 115 and data[at + 4] == 101
        return (at + 5 if good else -1), 0.0
    at, value, _ = number.read(data, at, end)
    return at, value


@bare
def literal_null(data: ByteArray, at: int, end: int) -> int:
    """The word null."""
    good = at + 4 <= end and data[at + 1] == 117 and data[at + 2] == 108 and data[at + 3] == 108
    return at + 4 if good else -1


@bare
def text(data: ByteArray, at: int, end: int) -> tuple[int, bool]:
    """From a quote to the next: (where that is, all of it ASCII). -1 if there is an escape in it, or a control."""
    if at >= end or data[at] != QUOTE:
        return -1, False
    most = 0
    for place in range(at + 1, end):
        byte = data[place]
        if byte == QUOTE:
            return place, most < 128
        if byte == BACKSLASH or byte < 32:
            return -1, False
        most = max(most, byte)
    return -1, False


@bare
def value_end(data: ByteArray, at: int, end: int) -> int:
    """Past a value of JSON that is known to be whole."""
    depth, within = 0, False
    while at < end:
        byte = data[at]
        if within:
            at += byte == BACKSLASH
            within = byte != QUOTE
        elif byte == QUOTE:
            within = True
        elif byte in (OPEN, OPEN_ARRAY):
            depth += 1
        elif depth and byte in (CLOSE, CLOSE_ARRAY):
            depth -= 1
        elif not depth and byte in (COMMA, CLOSE_ARRAY):
            return at
        at += 1
    return end


@bare
def skip(data: ByteArray, at: int, end: int) -> int:
    """Past white space."""
    while at < end and (data[at] == 32 or data[at] == 10 or data[at] == 13 or data[at] == 9):
        at += 1
    return at
