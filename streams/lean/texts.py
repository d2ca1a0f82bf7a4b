"""What stands between the quotes of a JSON text, compiled: its letters counted, and its escapes resolved.

Sources: RFC 8259 (escapes), RFC 3629 (UTF-8). What is not valid in either, lone halves of surrogate pairs too, is -1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams.compiled import bare

ByteArray = NDArray[np.uint8]

#: What a text is made of: ASCII without escapes, letters outside ASCII too, or escapes among whatever.
PLAIN, WIDE, ESCAPED = range(3)
QUOTE, BACKSLASH, _U = 34, 92, 117
#: What stands after a backslash, but for u, and what that means.
_AFTER, _MEANT = np.frombuffer(b'"\\/bfnrt', np.uint8), np.frombuffer(b'"\\/\b\f\n\r\t', np.uint8)
_HIGH, _LOW, _AFTER_LOW, _ASTRAL = 0xD800, 0xDC00, 0xE000, 0x10000


@bare
def text(data: ByteArray, at: int, end: int) -> tuple[int, int]:
    """From a quote to the one that ends it: (where that is, what the text is made of). -1 if a control is in it.

    Whether escapes and letters outside ASCII are valid is not looked at; see `length`.
    """
    if at >= end or data[at] != QUOTE:
        return -1, PLAIN
    most = 0
    for place in range(at + 1, end):
        byte = data[place]
        if byte == QUOTE:
            return place, WIDE if most > 127 else PLAIN
        if byte == BACKSLASH:
            return _end(data, place, end), ESCAPED
        if byte < 32:
            return -1, PLAIN
        most = max(most, byte)
    return -1, PLAIN


@bare
def _end(data: ByteArray, at: int, end: int) -> int:
    """From within a text to the quote that ends it."""
    while at < end and data[at] >= 32:
        if data[at] == QUOTE:
            return at
        at += 2 if data[at] == BACKSLASH else 1
    return -1


@bare
def length(data: ByteArray, at: int, end: int, made_of: int) -> int:
    """The characters of a text between its quotes; -1 if it is not valid."""
    if made_of == PLAIN:
        return end - at
    count = 0
    while at < end:
        at, _ = _character(data, at, end)
        if at < 0:
            return -1
        count += 1
    return count


@bare
def unescaped(data: ByteArray, at: int, end: int, most: int, out: ByteArray) -> int:
    """The text in UTF-8 to the beginning of `out`, which has room for four bytes a character; its size.

    -1 if it is not valid, or has more than `most` characters.
    """
    size, count = 0, 0
    while at < end:
        after, code = _character(data, at, end)
        count += 1
        if after < 0 or count > most:
            return -1
        if data[at] == BACKSLASH:
            size = _put(code, size, out)
        else:
            for place in range(at, after):
                out[size] = data[place]
                size += 1
        at = after
    return size


@bare
def _character(data: ByteArray, at: int, end: int) -> tuple[int, int]:
    """One character: (where it ends, its code point if it is an escape)."""
    byte = data[at]
    if byte == BACKSLASH:
        return _escape(data, at, end)
    if byte < 128:
        return at + 1, 0
    more = 1 if byte < 0xE0 else 2 if byte < 0xF0 else 3
    if byte < 0xC2 or byte > 0xF4 or at + more >= end:
        return -1, 0
    low = 0xA0 if byte == 0xE0 else 0x90 if byte == 0xF0 else 0x80
    high = 0x9F if byte == 0xED else 0x8F if byte == 0xF4 else 0xBF
    if not low <= data[at + 1] <= high:
        return -1, 0
    for place in range(at + 2, at + more + 1):
        if not 0x80 <= data[place] <= 0xBF:
            return -1, 0
    return at + more + 1, 0


@bare
def _escape(data: ByteArray, at: int, end: int) -> tuple[int, int]:
    """What a backslash begins: (where it ends, its code point)."""
    if at + 1 >= end:
        return -1, 0
    if data[at + 1] != _U:
        for which in range(len(_AFTER)):
            if data[at + 1] == _AFTER[which]:
                return at + 2, int(_MEANT[which])
        return -1, 0
    code = _unit(data, at, end)
    if not _HIGH <= code < _AFTER_LOW:
        return (at + 6, code) if code >= 0 else (-1, 0)
    low = _unit(data, at + 6, end)
    if code >= _LOW or not _LOW <= low < _AFTER_LOW:
        return -1, 0
    return at + 12, _ASTRAL + ((code - _HIGH) << 10) + (low - _LOW)


@bare
def _unit(data: ByteArray, at: int, end: int) -> int:
    """A backslash, u and four digits, as a number; -1 if they are not there."""
    if at + 6 > end or data[at] != BACKSLASH or data[at + 1] != _U:
        return -1
    found = 0
    for place in range(at + 2, at + 6):
        byte = int(data[place])
        letter = byte | 32
        if 48 <= byte <= 57:
            found = 16 * found + byte - 48
        elif 97 <= letter <= 102:
            found = 16 * found + letter - 87
        else:
            return -1
    return found


@bare
def _put(code: int, size: int, out: ByteArray) -> int:
    """A code point in UTF-8 behind so many bytes; how many there are then."""
    if code < 0x80:
        out[size] = code
        return size + 1
    more = 1 if code < 0x800 else 2 if code < _ASTRAL else 3
    out[size] = (code >> 6 * more) | ((0xFF00 >> more + 1) & 0xFF)
    for place in range(1, more + 1):
        out[size + place] = 0x80 | ((code >> 6 * (more - place)) & 0x3F)
    return size + more + 1
