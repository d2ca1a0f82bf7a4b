"""Grouping by integer keys with a table, or a hash table where they are far apart: no sorting, which takes log n.
And many small things put together, so that one call does for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from streams.compiled import compiled

IntArray = NDArray[np.int64]
T = TypeVar("T")

#: A table of so many places is always worth it.
_SMALL = 1_024
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Knuth, TAOCP 3, 6.4 (multiplicative hashing)


@compiled
def distinct(keys: IntArray) -> tuple[IntArray, IntArray]:
    """(ids (n,), found (k,)): `found` are the distinct keys in order of first appearance, keys[i] == found[ids[i]].

    Negative keys are left out: their id is -1.
    """
    top = np.int64(-1)
    for at in range(len(keys)):
        top = max(top, keys[at])
    return _near(keys, int(top)) if top < 2 * len(keys) + _SMALL else _far(keys)


@compiled
def _near(keys: IntArray, top: int) -> tuple[IntArray, IntArray]:
    """The same for keys up to `top`, which is small: each has its own place."""
    table, ids = np.full(top + 1, -1, np.int64), np.empty(len(keys), np.int64)
    found, size = np.empty(min(top + 1, len(keys)), np.int64), 0
    for at in range(len(keys)):
        key = keys[at]
        if key < 0:
            ids[at] = -1
            continue
        if table[key] < 0:
            table[key], found[size] = size, key
            size += 1
        ids[at] = table[key]
    return ids, found[:size].copy()


@compiled
def _far(keys: IntArray) -> tuple[IntArray, IntArray]:
    """The same for any keys."""
    bits = 10
    table = np.full(1 << bits, -1, np.int64)
    ids = np.empty(len(keys), np.int64)
    found = np.empty(512, np.int64)
    size = 0
    for at in range(len(keys)):
        key = keys[at]
        if key < 0:
            ids[at] = -1
            continue
        slot = np.int64((np.uint64(key) * _MULTIPLIER) >> np.uint64(64 - bits))
        while table[slot] >= 0 and found[table[slot]] != key:
            slot = (slot + 1) & (len(table) - 1)
        if table[slot] < 0:
            if size == len(found):
                bits += 1
                table, found = _grown(found, bits)
                slot = np.int64((np.uint64(key) * _MULTIPLIER) >> np.uint64(64 - bits))
                while table[slot] >= 0:
                    slot = (slot + 1) & (len(table) - 1)
            table[slot] = size
            found[size] = key
            size += 1
        ids[at] = table[slot]
    return ids, found[:size].copy()


@compiled
def _grown(found: IntArray, bits: int) -> tuple[IntArray, IntArray]:
    table = np.full(1 << bits, -1, np.int64)
    more = np.empty(1 << (bits - 1), np.int64)
    more[:len(found)] = found
    for at in range(len(found)):
        slot = np.int64((np.uint64(found[at]) * _MULTIPLIER) >> np.uint64(64 - bits))
        while table[slot] >= 0:
            slot = (slot + 1) & (len(table) - 1)
        table[slot] = at
    return table, more


@compiled
def by_group(groups: IntArray, count: int) -> tuple[IntArray, IntArray]:
    """(order (n,), edges (count + 1,)): order[edges[g]:edges[g + 1]] are the positions of group g, ascending."""
    edges = np.zeros(count + 1, np.int64)
    for at in range(len(groups)):
        edges[groups[at] + 1] += 1
    for group in range(count):
        edges[group + 1] += edges[group]
    free = edges[:count].copy()
    order = np.empty(len(groups), np.int64)
    for at in range(len(groups)):
        order[free[groups[at]]] = at
        free[groups[at]] += 1
    return order, edges


@compiled
def alike(values: IntArray, edges: IntArray, kind: IntArray) -> tuple[IntArray, IntArray]:
    """(ids (n,), first (k,)) of things: i is of a kind, and is made of values[edges[i]:edges[i + 1]]. Those that are
    the same have one id; first[id] is the first of them.
    """
    bits = 4
    while 1 << bits < 2 * len(kind):
        bits += 1
    table, ids, first = np.full(1 << bits, -1, np.int64), np.empty(len(kind), np.int64), np.empty(len(kind), np.int64)
    size = 0
    for at in range(len(kind)):
        part = values[edges[at]:edges[at + 1]]
        found = np.uint64(kind[at])
        for value in part:
            found = (found ^ (found >> np.uint64(32)) ^ np.uint64(value)) * _MULTIPLIER
        slot = np.int64((found * _MULTIPLIER) >> np.uint64(64 - bits))
        while table[slot] >= 0:
            other = first[table[slot]]
            if kind[other] == kind[at] and np.array_equal(values[edges[other]:edges[other + 1]], part):
                break
            slot = (slot + 1) & (len(table) - 1)
        if table[slot] < 0:
            table[slot], first[size] = size, at
            size += 1
        ids[at] = table[slot]
    return ids, first[:size].copy()


@compiled
def spread(ids: IntArray, edges: IntArray, ends: IntArray) -> IntArray:
    """(ends[-1],) places: of thing i, which has ends[i] to ends[i + 1], those from edges[ids[i]] on."""
    found = np.empty(ends[-1], np.int64)
    for at in range(len(ids)):
        for place in range(ends[at], ends[at + 1]):
            found[place] = edges[ids[at]] + place - ends[at]
    return found


@compiled
def cell_keys(start: IntArray, field: NDArray[np.int32], pane_of_row: IntArray, fields: int) -> IntArray:
    """(m,) pane * fields + field of every value; -1 for rows without a pane (-1).

    start (n + 1,): the values of row i are start[i]:start[i + 1]. pane_of_row (n,).
    """
    keys = np.full(len(field), -1, np.int64)
    for row in range(len(pane_of_row)):
        pane = pane_of_row[row]
        if pane >= 0:
            for at in range(start[row], start[row + 1]):
                keys[at] = pane * fields + field[at]
    return keys


def edges(sizes: Sequence[int] | IntArray) -> IntArray:
    """(n + 1,) where each of things of these sizes begins and ends, one after the other."""
    found = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=found[1:])
    return found


def chunks(items: Sequence[T], size: Callable[[T], int], most: int) -> Iterator[tuple[list[T], int]]:
    """The items in order, cut where the sum of their sizes passes `most`; and what that sum is."""
    chunk, total = list[T](), 0
    for item in items:
        chunk.append(item)
        total += size(item)
        if total > most:
            yield chunk, total
            chunk, total = [], 0
    if chunk:
        yield chunk, total


def spans(sizes: IntArray, most: int) -> Iterator[tuple[int, int]]:
    """The same of things by their sizes (n,): from where to where."""
    ends, low, before = np.cumsum(sizes), 0, 0
    while low < len(sizes):
        high = min(len(sizes), int(np.searchsorted(ends, before + most, side="right")) + 1)
        yield low, high
        low, before = high, int(ends[high - 1])
