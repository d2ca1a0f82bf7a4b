"""JSON numbers to the nearest double, compiled.

Sources: Clinger, PLDI 1990, for up to 2**53 with up to 22 zeros, where one operation is exact; Lemire, Software:
Practice and Experience 51 (2021), "Number parsing at a gigabyte per second", for the rest. Deviations: exponents near
the ends of the doubles, more than 19 digits, and the few cases in which Lemire's method can't tell are not read.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from streams.compiled import bare

ByteArray = NDArray[np.uint8]

LEAST, MOST = -290, 270
MOST_DIGITS = 19
_EXACT = np.uint64(2**53)
_TENS = np.array([10.0**power for power in range(23)])
_LOW = np.uint64(0xFFFFFFFF)
_U0, _U1, _U3, _U9, _U32, _U53, _U63 = (np.uint64(each) for each in (0, 1, 3, 9, 32, 53, 63))
_TAIL, _ONES = np.uint64(0x1FF), np.uint64(2**64 - 1)


def _power(exponent: int) -> tuple[int, int]:
    """The first 128 bits of 5**exponent, as (high, low)."""
    if exponent >= 0:
        bits = 5**exponent
        bits = bits << (128 - bits.bit_length()) if bits.bit_length() < 128 else bits >> (bits.bit_length() - 128)
    else:
        five = 5**-exponent
        bits = (1 << (five.bit_length() + 127 + (five & (five - 1) == 0))) // five + 1
        bits >>= max(0, bits.bit_length() - 128)
    return bits >> 64, bits & (2**64 - 1)


_FIVES = np.array([_power(exponent) for exponent in range(LEAST, MOST + 1)], np.uint64)


@bare
def product(a: np.uint64, b: np.uint64) -> tuple[np.uint64, np.uint64]:
    """(high, low) of a 64 by 64 bit product."""
    a0, a1, b0, b1 = a & _LOW, a >> _U32, b & _LOW, b >> _U32
    low, cross, other = a0 * b0, a0 * b1, a1 * b0
    middle = (low >> _U32) + (cross & _LOW) + (other & _LOW)
    return a1 * b1 + (cross >> _U32) + (other >> _U32) + (middle >> _U32), (low & _LOW) | (middle << _U32)


@bare
def nearest(mantissa: np.uint64, exponent: int) -> float:
    """The double nearest to mantissa * 10**exponent; NaN if it can't be told here."""
    if mantissa == _U0:
        return 0.0
    if mantissa <= _EXACT and -22 <= exponent <= 22:
        return np.float64(mantissa) * _TENS[exponent] if exponent >= 0 else np.float64(mantissa) / _TENS[-exponent]
    if exponent < LEAST or exponent > MOST:
        return math.nan
    zeros = 0
    while not mantissa >> _U63:
        mantissa <<= _U1
        zeros += 1
    high, low = product(mantissa, _FIVES[exponent - LEAST, 0])
    if high & _TAIL == _TAIL and low + mantissa < mantissa:
        more, last = product(mantissa, _FIVES[exponent - LEAST, 1])
        low += more
        if low < more:
            high += _U1
        if high & _TAIL == _TAIL and low == _ONES and last + mantissa < mantissa:
            return math.nan
    top = high >> _U63
    digits = high >> (top + _U9)
    if low == _U0 and high & _TAIL == _U0 and digits & _U3 == _U1:
        return math.nan
    digits = (digits + (digits & _U1)) >> _U1
    power = ((217706 * exponent) >> 16) + np.int64(top) + 11 - zeros
    return math.ldexp(np.float64(digits), power)


@bare
def read(data: ByteArray, at: int, end: int) -> tuple[int, float, int]:
    """The number that begins at `at`: (where it ends, its value, its integer); ends at -1 if it is left to others.

    The integer is -1 if the number is negative, or written with a point or an exponent.
    """
    negative = at < end and data[at] == 45
    at += negative
    first, digits, mantissa = at, 0, _U0
    while at < end and 48 <= data[at] <= 57:
        mantissa = mantissa * np.uint64(10) + np.uint64(data[at] - 48)
        digits += digits > 0 or mantissa > _U0
        at += 1
    if at == first or (data[first] == 48 and at > first + 1) or digits > MOST_DIGITS:
        return -1, 0.0, -1
    whole = np.int64(mantissa) if digits < MOST_DIGITS and not negative else -1
    exponent = 0
    if at < end and data[at] == 46:
        whole = -1
        first = at = at + 1
        while at < end and 48 <= data[at] <= 57:
            mantissa = mantissa * np.uint64(10) + np.uint64(data[at] - 48)
            digits += digits > 0 or mantissa > _U0
            at += 1
        exponent = first - at
        if at == first or digits > MOST_DIGITS:
            return -1, 0.0, -1
    if at < end and (data[at] == 101 or data[at] == 69):
        whole = -1
        at += 1
        down = at < end and data[at] == 45
        at += at < end and (data[at] == 45 or data[at] == 43)
        first, power = at, 0
        while at < end and 48 <= data[at] <= 57 and at - first < 4:
            power = power * 10 + np.int64(data[at] - 48)
            at += 1
        if at == first or (at < end and 48 <= data[at] <= 57):
            return -1, 0.0, -1
        exponent += -power if down else power
    value = nearest(mantissa, exponent)
    if math.isnan(value):
        return -1, 0.0, -1
    return at, -value if negative else value, whole
