"""Names of an event looked up, and learnt where they are new and certain to be what the contract accepts, compiled.

The Python side (`streams.lean.reader`) makes room, and spells the new fields and series when it is asked for them. A
feature with a `=` in its name is left to it, and once there is one, all new names are: a category of another feature
may be the same field.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams.compiled import bare, inlined
from streams.lean.columns import (
    COMPONENT,
    ENVIRONMENT,
    FIELD_NAMES,
    FIELDS_KNOWN,
    MAX_NAME,
    MODEL,
    NAMES,
    SERIES_KNOWN,
    SERIES_NAMES,
    SPLIT,
    VERSION,
    Known,
)
from streams.lean.names import NONE, SERIES, SPARE_BYTES, Table, find, has_room, insert
from streams.lean.texts import ESCAPED, length, unescaped

ByteArray = NDArray[np.uint8]
IntArray = NDArray[np.int64]

#: The component of an event that names none.
DEFAULT_COMPONENT = b"model"
_COMPONENT = np.frombuffer(DEFAULT_COMPONENT, np.uint8).copy()
_EQUALS = 61
#: What the name of a model, say, is made of, and what it may begin with.
_LETTERS = np.zeros(256, np.bool_)
_LETTERS[np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:@/+-", np.uint8)] = True
_FIRST = _LETTERS.copy()
_FIRST[np.frombuffer(b"._:@/+-", np.uint8)] = False


@inlined
def field_of(data: ByteArray, begin: int, end: int, made_of: int, parent: int, table: Table, known: Known) -> int:
    """The name with this text, which means a field; -1 if it is left to the contract. See `texts` for `made_of`."""
    name = NONE if made_of == ESCAPED else find(table, parent, data, begin, end)
    return _new_field(data, begin, end, made_of, parent, table, known) if name == NONE else name


@bare
def _new_field(data: ByteArray, begin: int, end: int, made_of: int, parent: int, table: Table, known: Known) -> int:
    """The same of one that is perhaps new."""
    size, fields = known.count[NAMES], known.count[FIELDS_KNOWN]
    if made_of == ESCAPED:
        data, begin, end = table.data, table.begin[size], _spelled(data, begin, end, table, size)
        name = NONE if end < 0 else find(table, parent, data, begin, end)
    else:
        name, end = NONE, end if 0 <= length(data, begin, end, made_of) <= MAX_NAME else -1
    if name != NONE or end < 0 or known.count[SPLIT]:
        return name
    if not has_room(table, size, end - begin) or fields >= known.each.shape[1]:
        return NONE
    if parent < 0:
        for at in range(begin, end):
            if data[at] == _EQUALS:
                return NONE
    name = insert(table, size, parent, data, begin, end)
    known.count[NAMES], known.count[FIELDS_KNOWN] = size + 1, fields + 1
    table.meaning[name], known.each[FIELD_NAMES, fields] = fields, name
    return name


@bare
def _spelled(data: ByteArray, begin: int, end: int, table: Table, size: int) -> int:
    """A text without its escapes, behind the bytes of so many names; where it ends, or -1."""
    at = table.begin[size]
    if at + SPARE_BYTES > len(table.data):
        return -1
    found = unescaped(data, begin, end, MAX_NAME, table.data[at:])
    return -1 if found < 0 else at + found


@bare
def find_text(data: ByteArray, begin: int, end: int, made_of: int, parent: int, table: Table, known: Known) -> int:
    """The name with this text, if it is known."""
    if made_of != ESCAPED:
        return find(table, parent, data, begin, end)
    size = known.count[NAMES]
    end = _spelled(data, begin, end, table, size)
    return NONE if end < 0 else find(table, parent, table.data, table.begin[size], end)


@inlined
def series_of(data: ByteArray, spans: IntArray, table: Table, known: Known) -> int:
    """The series of an event: the meaning of the path environment, model, version and, if it is given, component."""
    series = _known_series(data, spans, table)
    return _new_series(data, spans, table, known) if series == NONE else series


@bare
def _known_series(data: ByteArray, spans: IntArray, table: Table) -> int:
    name = SERIES
    for key in (ENVIRONMENT, MODEL, VERSION, COMPONENT):
        if key == COMPONENT and spans[key, 0] < 0:
            break
        name = find(table, name, data, spans[key, 0], spans[key, 1])
        if name == NONE:
            return NONE
    series: int = table.meaning[name]
    return series


@bare
def _new_series(data: ByteArray, spans: IntArray, table: Table, known: Known) -> int:
    name = SERIES
    for key in (ENVIRONMENT, MODEL, VERSION):
        name = _part(data, spans[key, 0], spans[key, 1], name, table, known)
        if name == NONE:
            return NONE
    if spans[COMPONENT, 0] >= 0:
        return _numbered(_part(data, spans[COMPONENT, 0], spans[COMPONENT, 1], name, table, known), table, known)
    if table.meaning[name] == NONE:
        table.meaning[name] = _numbered(_part(_COMPONENT, 0, len(_COMPONENT), name, table, known), table, known)
    series: int = table.meaning[name]
    return series


@bare
def _part(data: ByteArray, begin: int, end: int, parent: int, table: Table, known: Known) -> int:
    """The name of one part of the path."""
    name = find(table, parent, data, begin, end)
    size = known.count[NAMES]
    if name != NONE or not 1 <= end - begin <= MAX_NAME or not _FIRST[data[begin]]:
        return name
    for at in range(begin, end):
        if not _LETTERS[data[at]]:
            return NONE
    if not has_room(table, size, end - begin):
        return NONE
    known.count[NAMES] = size + 1
    return insert(table, size, parent, data, begin, end)


@bare
def _numbered(name: int, table: Table, known: Known) -> int:
    """What the path that ends with this name means."""
    if name == NONE or table.meaning[name] != NONE:
        return NONE if name == NONE else table.meaning[name]
    number: int = known.count[SERIES_KNOWN]
    if number >= known.each.shape[1]:
        return NONE
    known.count[SERIES_KNOWN] = number + 1
    table.meaning[name], known.each[SERIES_NAMES, number] = number, name
    return number
