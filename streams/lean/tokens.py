"""Words of JSON in the bytes of a batch, compiled: white space, numbers, true, false and null, and whole values.

Every function takes where it reads and returns where it ended, or -1 where it is not certain.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams.compiled import bare
from streams.lean import number
from streams.lean.texts import BACKSLASH, QUOTE, length, text

ByteArray = NDArray[np.uint8]

COLON, COMMA = 58, 44
OPEN, CLOSE, OPEN_ARRAY, CLOSE_ARRAY = 123, 125, 91, 93
LETTER_F, LETTER_N, LETTER_T = 102, 110, 116
#: Values within one another that are looked through.
MOST_DEPTH = 60


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


@bare
def ignored(data: ByteArray, at: int, end: int) -> int:
    """Past a value that nobody reads, with whatever is in it."""
    objects, depth = 0, 0           # a bit for each value that is open: 1 is an object
    while True:
        if at < end and data[at] in (OPEN, OPEN_ARRAY):
            if depth == MOST_DEPTH:
                return -1
            objects, depth = (objects << 1) | (data[at] == OPEN), depth + 1
            at = skip(data, at + 1, end)
            if at < end and data[at] == (CLOSE if objects & 1 else CLOSE_ARRAY):
                at, objects, depth = at + 1, objects >> 1, depth - 1
            else:
                at = _name(data, at, end) if objects & 1 else at
                if at < 0:
                    return -1
                continue
        else:
            at = _single(data, at, end)
        while True:
            if at < 0 or depth == 0:
                return at
            at = skip(data, at, end)
            if at >= end:
                return -1
            if data[at] == COMMA:
                break
            if data[at] != (CLOSE if objects & 1 else CLOSE_ARRAY):
                return -1
            at, objects, depth = at + 1, objects >> 1, depth - 1
        at = skip(data, at + 1, end)
        at = _name(data, at, end) if objects & 1 else at
        if at < 0:
            return -1


@bare
def _single(data: ByteArray, at: int, end: int) -> int:
    """Past a text, a number, or a word."""
    if at >= end:
        return -1
    if data[at] != QUOTE:
        at, _ = scalar(data, at, end, True)
        return at
    close, made_of = text(data, at, end)
    return close + 1 if close >= 0 and length(data, at + 1, close, made_of) >= 0 else -1


@bare
def _name(data: ByteArray, at: int, end: int) -> int:
    """Past a name and its colon, to its value."""
    if at >= end or data[at] != QUOTE:
        return -1
    at = _single(data, at, end)
    if at < 0:
        return -1
    at = skip(data, at, end)
    return skip(data, at + 1, end) if at < end and data[at] == COLON else -1
