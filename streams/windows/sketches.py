"""The sketches of panes: those of one pane's fields in one pair of arrays; of many panes counted and summed at once."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from streams.compiled import compiled
from streams.windows import sketch
from streams.windows.grouping import chunks, edges

KeyArray = NDArray[np.int32]
IntArray = NDArray[np.int64]

#: Values that wait, as keys, to be sorted and counted.
_MAX_WAITING = 8_192
#: Keys that are sorted or summed together: more would not stay in a processor's cache.
_TOGETHER = 1 << 16
_NO_KEYS: KeyArray = np.empty(0, np.int32)
_NO_COUNTS: IntArray = np.empty(0, np.int64)


class Sketches:
    """The sketches of all fields of a pane: keys `slot << CODE_BITS | code + SPAN`, each with a count.

    One sorted pair of arrays, and keys of single values that are counted into it when it is read, or are many.
    """

    __slots__ = ("_counts", "_keys", "_waiting", "_waits")

    def __init__(self, keys: KeyArray | None = None, counts: IntArray | None = None) -> None:
        self._keys = _NO_KEYS if keys is None else keys
        self._counts = _NO_COUNTS if counts is None else counts
        self._waiting: list[KeyArray] = []
        self._waits = 0

    def add(self, keys: KeyArray) -> None:
        """Add values by their keys, in any order; keeps the array until they are counted."""
        if len(keys):
            self._waiting.append(keys)
            self._waits += len(keys)
            if self._waits >= _MAX_WAITING:
                self.arrays()

    @staticmethod
    def add_each(many: Sequence[Sketches], keys: KeyArray, low: Sequence[int], high: Sequence[int]) -> None:
        """Add keys[low[i]:high[i]] to each; keeps the array until they are counted."""
        for one, first, end in zip(many, low, high, strict=True):
            if first < end:
                one._waiting.append(keys[first:end])
                one._waits += end - first
                if one._waits >= _MAX_WAITING:
                    one.arrays()

    def weigh(self, keys: KeyArray, counts: IntArray, slots: int) -> None:
        """Add values of so many slots by their keys, in any order, each as often as is said."""
        self._take(*sketch.summed(keys, counts, slots))

    def arrays(self) -> tuple[KeyArray, IntArray]:
        """(keys, counts), keys ascending; at most MAX_BUCKETS a slot."""
        if self._waiting:
            keys = np.concatenate(self._waiting)
            self._waiting, self._waits = [], 0
            self._take(*sketch.counted(keys))
        return self._keys, self._counts

    def merge(self, other: Sketches, mapping: IntArray | None) -> None:
        """Take in the sketches of `other`, whose slot i is `mapping[i]` here (-1: leave out; None: the same slots)."""
        self.arrays()
        keys, counts = other.arrays()
        if mapping is not None:
            slots = mapping[keys >> sketch.CODE_BITS]
            moved = ((slots << sketch.CODE_BITS) | (keys & sketch.CODE_MASK)).astype(np.int32)[slots >= 0]
            order = np.argsort(moved, kind="stable")
            keys, counts = sketch.merged(_NO_KEYS, _NO_COUNTS, moved[order], counts[slots >= 0][order])
        self._take(keys, counts)

    def _take(self, keys: KeyArray, counts: IntArray) -> None:
        """Take in a sketch; its keys are distinct."""
        if len(self._keys):
            keys, counts = sketch.merged(self._keys, self._counts, keys, counts)
        self._keys, self._counts = sketch.bounded(keys, counts)

    def by_slot(self, slots: int) -> list[list[tuple[int, int]]]:
        """(code, count) ascending, for each of the first `slots` slots."""
        keys, counts = self.arrays()
        first = np.searchsorted(keys, (np.arange(slots + 1) << sketch.CODE_BITS).astype(np.int32)).tolist()
        pairs = list(zip(((keys & sketch.CODE_MASK) - sketch.SPAN).tolist(), counts.tolist(), strict=True))
        return [pairs[a:b] for a, b in itertools.pairwise(first)]

    # -- of many panes ------------------------------------------------------------------------------------------------

    @staticmethod
    def settle(many: Sequence[Sketches]) -> None:
        """Count what waits in all of them at once; their `arrays` are at hand afterwards."""
        waiting = [one for one in many if one._waits]
        for few, _ in chunks(waiting, _waits, _TOGETHER) if waiting else ():
            found = counted_each(np.concatenate([keys for one in few for keys in one._waiting]),
                                 edges([one._waits for one in few]))
            if any(len(one._keys) for one in few):
                found = merged_each(*found, edges([len(one._keys) for one in few]),
                                    np.concatenate([one._keys for one in few]),
                                    np.concatenate([one._counts for one in few]))
            every, counts, ends = found
            low = 0
            for one, high in zip(few, ends.tolist(), strict=True):
                one._waiting, one._waits = [], 0
                one._keys, one._counts = every[low:high].copy(), counts[low:high].copy()
                if high - low > sketch.MAX_BUCKETS:
                    one._keys, one._counts = sketch.bounded(one._keys, one._counts)
                low = high

    @staticmethod
    def sizes(many: Sequence[Sketches]) -> IntArray:
        """(n,) how many buckets each has."""
        Sketches.settle(many)
        return np.array([len(one._keys) for one in many], np.int64)

    @staticmethod
    def columns(many: Sequence[Sketches]) -> tuple[IntArray, KeyArray, IntArray]:
        """(edges (n + 1,), keys, counts) of all, one after the other; sketch i has edges[i] to edges[i + 1]."""
        Sketches.settle(many)
        keys = [one._keys for one in many]
        return edges(list(map(len, keys))), np.concatenate(keys), np.concatenate([one._counts for one in many])

    @staticmethod
    def summed(groups: Sequence[Sequence[Sketches]], slots: Sequence[int]) -> list[Sketches]:
        """The sketches of each group as one; those of group g have slots[g] slots each."""
        Sketches.settle([one for group in groups for one in group])
        found = list[Sketches]()
        for few, _ in chunks(list(zip(groups, slots, strict=True)), _keys_of, _TOGETHER):
            found += _summed(few)
        return found


_waits = operator.attrgetter("_waits")


def _keys_of(group: tuple[Sequence[Sketches], int]) -> int:
    return sum([len(one._keys) for one in group[0]])


def _summed(groups: Sequence[tuple[Sequence[Sketches], int]]) -> list[Sketches]:
    """The same of groups whose sketches are settled; one alone is shared, as arrays are never changed."""
    several = [(group, slots) for group, slots in groups if len(group) > 1]
    parts: Iterator[tuple[KeyArray, IntArray]] = iter(())
    if several:
        every = [one for group, _ in several for one in group]
        parts = _split(*summed_each(np.concatenate([one._keys for one in every]),
                                    np.concatenate([one._counts for one in every]),
                                    edges([_keys_of(group) for group in several]),
                                    np.array([slots for _, slots in several], np.int64)))
    return [Sketches(*sketch.bounded(*next(parts))) if len(group) > 1 else Sketches(group[0]._keys, group[0]._counts)
            for group, _ in groups]


def _split(keys: KeyArray, counts: IntArray, ends: IntArray) -> Iterator[tuple[KeyArray, IntArray]]:
    for low, high in itertools.pairwise([0, *ends.tolist()]):
        yield keys[low:high].copy(), counts[low:high].copy()


@compiled
def counted_each(keys: KeyArray, first: IntArray) -> tuple[KeyArray, IntArray, IntArray]:
    """(keys, counts, ends (n,)) of sketches, one after the other: that of keys[first[i]:first[i + 1]], as `counted`."""
    found, counts = np.empty(len(keys), np.int32), np.empty(len(keys), np.int64)
    ends, size = np.empty(len(first) - 1, np.int64), 0
    for at in range(len(ends)):
        part, many = sketch.counted(keys[first[at]:first[at + 1]])
        found[size:size + len(part)], counts[size:size + len(part)] = part, many
        size += len(part)
        ends[at] = size
    return found, counts, ends


@compiled
def merged_each(more: KeyArray, their: IntArray, ends: IntArray, first: IntArray, keys: KeyArray, counts: IntArray
                ) -> tuple[KeyArray, IntArray, IntArray]:
    """The same of such sketches and of others, keys[first[i]:first[i + 1]] with their counts, as `merged`."""
    found, sums = np.empty(ends[-1] + len(keys), np.int32), np.empty(ends[-1] + len(keys), np.int64)
    edge, size, low = np.empty(len(ends), np.int64), 0, 0
    for at in range(len(ends)):
        span = slice(first[at], first[at + 1])
        size += sketch.merge_into(keys[span], counts[span], more[low:ends[at]], their[low:ends[at]], found[size:],
                                  sums[size:])
        low, edge[at] = ends[at], size
    return found, sums, edge


@compiled
def summed_each(keys: KeyArray, counts: IntArray, first: IntArray, slots: IntArray
                ) -> tuple[KeyArray, IntArray, IntArray]:
    """The same of keys that come as often as is said, as `summed`; slots (n,)."""
    found, sums = np.empty(len(keys) + 1, np.int32), np.empty(len(keys) + 1, np.int64)
    ends, size = np.empty(len(slots), np.int64), 0
    for at in range(len(slots)):
        span = slice(first[at], first[at + 1])
        size += sketch.sum_into(keys[span], counts[span], slots[at], found[size:], sums[size:])
        ends[at] = size
    return found, sums, ends


def warm() -> None:
    """Compile the kernels, or load them from their cache."""
    one = Sketches()
    one.add(np.zeros(1, np.int32))
    one.arrays()
    one.weigh(np.zeros(1, np.int32), np.ones(1, np.int64), 1)
    sketch.outgrown(np.zeros(1, np.int32))
    other = Sketches()
    other.add(np.zeros(1, np.int32))
    Sketches.settle([other])
    other.add(np.zeros(1, np.int32))
    Sketches.summed([[one, other]], [1])
