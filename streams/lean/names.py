"""Names that were seen before, found again by their bytes: series, fields and categories, each once.

A name belongs to a parent: a root (features, metrics, ...) or another name. So environment, model, version and
component are a path, and so are a feature and its category. Only names that the contract accepts are added.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from streams.compiled import bare

ByteArray = NDArray[np.uint8]
IntArray = NDArray[np.int64]

Array = TypeVar("Array", NDArray[np.int64], NDArray[np.uint8])

SERIES, FEATURES, METRICS, CLASSES, SEGMENTS = -2, -3, -4, -5, -6
NONE = -1
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Knuth, TAOCP 3, 6.4 (multiplicative hashing)
_PRIME = np.uint64(0x100000001B3)            # Fowler, Noll, Vo: FNV-1a
#: Slots a name, at the least; and bytes behind those of the names, for a text of 128 characters.
_SLOTS, SPARE_BYTES = 4, 512


class Table(NamedTuple):
    """The names as arrays. slots (power of two,): -1 is free; of each name: its parent, where its bytes are, and its
    meaning: the number of a series or a field, -1 if it has none of its own."""

    slots: IntArray
    parent: IntArray
    begin: IntArray
    meaning: IntArray
    data: ByteArray


@bare
def place(table: Table, parent: int, data: ByteArray, begin: int, end: int) -> int:
    """The slot of a name, or the free one where it would be."""
    code = np.uint64(parent + 8) * _MULTIPLIER
    for at in range(begin, end):
        code = (code ^ np.uint64(data[at])) * _PRIME
    slot = np.int64((code * _MULTIPLIER) >> np.uint64(32)) & (len(table.slots) - 1)
    while table.slots[slot] != NONE and not same(table, table.slots[slot], parent, data, begin, end):
        slot = (slot + 1) & (len(table.slots) - 1)
    return slot


@bare
def same(table: Table, name: int, parent: int, data: ByteArray, begin: int, end: int) -> bool:
    """True if the name has this parent and these bytes."""
    start = table.begin[name]
    if table.parent[name] != parent or table.begin[name + 1] - start != end - begin:
        return False
    for at in range(end - begin):
        if table.data[start + at] != data[begin + at]:
            return False
    return True


@bare
def find(table: Table, parent: int, data: ByteArray, begin: int, end: int) -> int:
    """The name, or -1."""
    return table.slots[place(table, parent, data, begin, end)]


@bare
def insert(table: Table, size: int, parent: int, data: ByteArray, begin: int, end: int) -> int:
    """The name with these bytes; if there is none it becomes number `size`, for which there must be room."""
    slot = place(table, parent, data, begin, end)
    if table.slots[slot] != NONE:
        return table.slots[slot]
    first = table.begin[size]
    for at in range(end - begin):
        table.data[first + at] = data[begin + at]
    table.begin[size + 1], table.parent[size], table.slots[slot] = first + end - begin, parent, size
    return size


@bare
def has_room(table: Table, size: int, more: int) -> bool:
    """True if there are so many names, and one of so many bytes `more` fits in."""
    return (size + 1 < len(table.parent) and _SLOTS * (size + 1) <= len(table.slots)
            and table.begin[size] + more <= len(table.data))


@bare
def fill(table: Table, size: int) -> None:
    """Put every name into its slot; the slots are free."""
    for name in range(size):
        at = place(table, table.parent[name], table.data, table.begin[name], table.begin[name + 1])
        table.slots[at] = name


class Names:
    """Grows as names are added. At most `MOST`; `full` then asks for a new one."""

    MOST = 200_000

    def __init__(self) -> None:
        self.size = 0
        self.table = Table(np.full(1 << 10, NONE), np.empty(1 << 8, np.int64), np.zeros((1 << 8) + 1, np.int64),
                           np.full(1 << 8, NONE), np.empty(1 << 12, np.uint8))

    @property
    def full(self) -> bool:
        return self.size >= self.MOST

    def add(self, parent: int, text: str) -> int:
        """The name with this text, added if it is new."""
        data = np.frombuffer(text.encode(), np.uint8)
        self._make_room(len(data))
        name: int = insert(self.table, self.size, parent, data, 0, len(data))
        self.size += name == self.size
        return name

    def _make_room(self, more: int) -> None:
        table, size = self.table, self.size
        used = int(table.begin[size])
        if used + more + SPARE_BYTES > len(table.data):
            table = table._replace(data=_grown(table.data, used + more + SPARE_BYTES))
        if size + 1 >= len(table.parent):
            table = table._replace(parent=_grown(table.parent, size + 2), begin=_grown(table.begin, size + 3),
                                   meaning=_grown(table.meaning, size + 2))
            table.meaning[size:] = NONE
        self.table = table
        if _SLOTS * (size + 1) > len(table.slots):
            self.spread()

    def text(self, name: int) -> str:
        """The text of a name."""
        begin, end = self.table.begin[name:name + 2].tolist()
        return self.table.data[begin:end].tobytes().decode()

    def spread(self) -> None:
        """Four times as many slots."""
        self.table = self.table._replace(slots=np.full(4 * len(self.table.slots), NONE))
        fill(self.table, self.size)


def _grown(array: Array, least: int) -> Array:
    more = np.empty(max(least, 2 * len(array)), array.dtype)
    more[:len(array)] = array
    return more
