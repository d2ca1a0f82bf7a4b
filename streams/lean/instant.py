"""ISO 8601 instants to epoch milliseconds, compiled: the usual spelling, with a time zone.

Source: Hinnant, "chrono-compatible low-level date algorithms" (days_from_civil). What is finer than a millisecond is
cut off, as the contract does. Read is YYYY-MM-DDTHH:MM:SS (or a space for the T), up to nine decimals, and Z, +HH:MM or
+HHMM; the rest is left to others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams.compiled import bare

ByteArray = NDArray[np.uint8]

#: Where the numbers of an instant begin, their digits and their largest values; and what stands behind each.
_AT, _DIGITS = np.array([0, 5, 8, 11, 14, 17]), np.array([4, 2, 2, 2, 2, 2])
_MOST = np.array([9999, 12, 31, 23, 59, 59])
_BEHIND = np.frombuffer(b"--T::", np.uint8)
_SECONDS_END, _ZERO, _POINT, _PLUS, _MINUS, _COLON, _SPACE, _Z = 19, 48, 46, 43, 45, 58, 32, 90
_DECIMALS = 9
_MONTH_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_FIRST_YEAR, _MINUTE_MS = 1970, 60_000


@bare
def read(data: ByteArray, begin: int, end: int) -> int:
    """The instant that is spelled in these bytes in milliseconds since 1970; -1 if it is left to others, or before."""
    if end - begin <= _SECONDS_END:
        return -1
    year, month, day, hour, minute, second = 0, 0, 0, 0, 0, 0
    for which in range(6):
        at = begin + _AT[which]
        found = _number(data, at, at + _DIGITS[which])
        if not 0 <= found <= _MOST[which]:
            return -1
        after = at + _DIGITS[which]
        if which < 5 and data[after] != _BEHIND[which] and not (which == 2 and data[after] == _SPACE):
            return -1
        year, month, day, hour, minute, second = month, day, hour, minute, second, found
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if year < _FIRST_YEAR or month < 1 or not 1 <= day <= _MONTH_DAYS[month - 1] + (leap and month == 2):
        return -1
    at, milliseconds = _fraction(data, begin + _SECONDS_END, end)
    offset = _offset_minutes(data, at, end)
    if at < 0 or offset == _NO_OFFSET:
        return -1
    minutes = (_days(year, month, day) * 24 + hour) * 60 + minute - offset
    found = minutes * _MINUTE_MS + second * 1000 + milliseconds
    return found if found >= 0 else -1


#: Minutes that no time zone has.
_NO_OFFSET = 1_440


@bare
def _number(data: ByteArray, at: int, end: int) -> int:
    """Digits as a number; -1 if one is none."""
    found = 0
    for place in range(at, end):
        if not _ZERO <= data[place] < _ZERO + 10:
            return -1
        found = 10 * found + int(data[place]) - _ZERO
    return found


@bare
def _fraction(data: ByteArray, at: int, end: int) -> tuple[int, int]:
    """A point and decimals, if they are there: (where they end, the milliseconds)."""
    if at >= end or data[at] != _POINT:
        return at, 0
    first, found = at + 1, 0
    at = first
    while at < end and _ZERO <= data[at] < _ZERO + 10:
        if at - first < 3:
            found = 10 * found + int(data[at]) - _ZERO
        at += 1
    if not 1 <= at - first <= _DECIMALS:
        return -1, 0
    for _ in range(at - first, 3):
        found *= 10
    return at, found


@bare
def _offset_minutes(data: ByteArray, at: int, end: int) -> int:
    """The time zone that the text ends with, as minutes east of UTC."""
    if at < 0 or at >= end:
        return _NO_OFFSET
    if data[at] == _Z:
        return 0 if at + 1 == end else _NO_OFFSET
    if data[at] != _PLUS and data[at] != _MINUS:
        return _NO_OFFSET
    colon = end - at == 6 and data[at + 3] == _COLON
    if not colon and end - at != 5:
        return _NO_OFFSET
    hours, minutes = _number(data, at + 1, at + 3), _number(data, end - 2, end)
    if not 0 <= hours <= 23 or not 0 <= minutes <= 59:
        return _NO_OFFSET
    offset = 60 * hours + minutes
    return -offset if data[at] == _MINUS else offset


@bare
def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01."""
    year -= month <= 2
    era, of_era = year // 400, year % 400
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
