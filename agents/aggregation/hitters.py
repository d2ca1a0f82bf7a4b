"""Names that the most frequent values have; the others are `<other>`. In each family of values (a model's countries).

Time is cut into slots. In one slot a value has a name or has none, so windows up to a slot long have all of its events
or none. While there is room whoever comes first has a name. Once there is none, values are counted, and when the first
event of a later slot comes the names of that slot are given anew: to those with the most events of late. Counts are
those of SpaceSaving with `room` counters, halved each day: nobody who has more than a `room`-th of the events is
missed, and a count is too large by that at the most. Who has a name keeps it unless another has surely a quarter more.

Source: Metwally, Agrawal, El Abbadi, Efficient computation of frequent and top-k elements in data streams, ICDT 2005.
Deviation: counts are halved (rounded down) with each day, of all counters at once.
Invariant: what a value is called is the log's alone: the same for any batches, and after any crash. For that a family
has a fence, its counts are whole numbers, and its rows are written after those of the windows that are made with it
(`streams.state.checkpoint` writes agents' rows in the order in which their states were first asked for).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.compiled import compiled
from streams.state.keyed import Entry, KeyedStates
from streams.windows import grouping

IntArray = NDArray[np.int64]

DAY_MS = 86_400_000
#: Counters of a family, at the least, and a name.
LEAST_ROOM, ROOM_A_NAME = 64, 4
#: The number of a value without a name.
OTHERS = -1
#: In place of a slot.
NEVER = -1


class Family(msgspec.Struct, array_like=True):
    """What is known of a family's values.

    names: from which slot on -> who has a name. newest: the newest slot. since: that in which counting began, or -1.
    values, counts, errors: of each counter. An event may be older than the first slot of `names`: that is long ago.
    """

    names: dict[int, list[str]] = msgspec.field(default_factory=lambda: {0: []})
    newest: int = NEVER
    since: int = NEVER
    values: list[str] = []
    counts: list[int] = []
    errors: list[int] = []


States = KeyedStates[Family]


class Codec:
    """Families as msgpack."""

    def new(self, key: str) -> Family:
        return Family()

    def encode(self, key: str, state: Family) -> bytes:
        return msgspec.msgpack.encode(state)

    def decode(self, key: str, data: bytes) -> Family:
        """Raises ValueError if the bytes are damaged."""
        try:
            found = msgspec.msgpack.decode(data, type=Family)
        except msgspec.MsgspecError as error:
            raise ValueError(f"names are damaged: {error}") from None
        if not found.names or not len(found.values) == len(found.counts) == len(found.errors):
            raise ValueError("names are damaged: there are none, or not as many counts as values")
        return found


class Events(NamedTuple):
    """Events in log order, each array (n,): number of the family; slot; number of the value, or -1; offset."""

    family: IntArray
    slot: IntArray
    value: IntArray
    offset: IntArray


class Hitters:
    """At most `most` names a family and slot of `slot_ms`. `kept_ms`: events that are so much older than the newest of
    their family count in no window, so that names of then may be forgotten."""

    def __init__(self, most: int, slot_ms: int, kept_ms: int, room: int = 0) -> None:
        self.most = most
        self.slot_ms = slot_ms
        self.room = room or max(LEAST_ROOM, ROOM_A_NAME * most)
        self.codec = Codec()
        self._kept_slots = 1 + -(-kept_ms // slot_ms)

    def call(self, states: States, families: Sequence[str], texts: Sequence[str], events: Events, topic: str, last: int
             ) -> IntArray:
        """(n,) what each event's value is called: its number, or OTHERS. `last`: the last offset of the batch.

        Python runs once for each family, slot and value of a batch, in the order in which they come first.
        """
        batch = _Batch(self, [states.entry(family) for family in families], texts, events, topic)
        slot_of, slots = grouping.distinct(events.slot - events.slot.min())
        wide = len(texts) + 1
        ids, found = grouping.distinct((events.family * len(slots) + slot_of) * wide + events.value + 1)
        first = np.empty(len(found), np.int64)
        first[ids[::-1]] = np.arange(len(ids))[::-1]
        slots += events.slot.min()
        named = [batch.named(code // wide // len(slots), int(slots[code // wide % len(slots)]), code % wide - 1, row)
                 for code, row in zip(found.tolist(), first.tolist(), strict=True)]
        for family in batch.finished():
            states.touch(states.entry(families[family]), topic, last)
        return np.where(named, found % wide - 1, OTHERS)[ids]

    def advance(self, state: Family, slot: int) -> None:
        """Go on to a later slot: its names, from what was counted before it."""
        days = slot * self.slot_ms // DAY_MS - state.newest * self.slot_ms // DAY_MS
        if days > 0:
            state.counts = [count >> min(days, 62) for count in state.counts]
            state.errors = [error >> min(days, 62) for error in state.errors]
        state.newest = slot
        if state.since != NEVER and slot - state.since >= 2:        # a whole slot has been counted
            names = self._ranked(state)
            if set(names) != set(state.names[max(state.names)]):
                state.names[slot] = names
        for begin, following in itertools.pairwise(sorted(state.names)):
            if following <= slot - self._kept_slots:
                del state.names[begin]

    def _ranked(self, state: Family) -> list[str]:
        """Who has a name from now on: by count, of those without one less what it may be too large by."""
        counted = {value: (count, error) for value, count, error in
                   zip(state.values, state.counts, state.errors, strict=True)}
        worth = {value: 5 * counted.get(value, (0, 0))[0] for value in state.names[max(state.names)]}
        worth |= {value: 4 * (count - error) for value, (count, error) in counted.items() if value not in worth}
        return sorted(worth, key=lambda value: -worth[value])[:self.most]

    def count(self, state: Family, value: IntArray, texts: Sequence[str]) -> None:
        """Count values, in log order."""
        ids, found = grouping.distinct(value)
        places = {text: place for place, text in enumerate(state.values)}
        place = np.array([places.get(texts[number], -1) for number in found.tolist()], np.int64)
        counts, errors, owner = (np.full(self.room, fill, np.int64) for fill in (0, 0, -1))
        size = len(state.values)
        counts[:size], errors[:size] = state.counts, state.errors
        owner[place[place >= 0]] = np.flatnonzero(place >= 0)
        size = space_saving(ids, place, counts, errors, owner, size)
        state.values += [""] * (size - len(state.values))
        for at in np.flatnonzero(owner >= 0).tolist():
            state.values[at] = texts[found[owner[at]]]
        state.counts, state.errors = counts[:size].tolist(), errors[:size].tolist()


class _Batch:
    """The families of a batch while its events are taken in. Counting waits until a family's names are given anew, or
    for the end of the batch."""

    def __init__(self, hitters: Hitters, entries: Sequence[Entry[Family]], texts: Sequence[str], events: Events,
                 topic: str) -> None:
        self._hitters = hitters
        self._states = [entry.state for entry in entries]
        self._fences = [entry.fence.get(topic, -1) for entry in entries]
        self._texts = texts
        self._events = events
        self._counted = [0] * len(entries)      # the row up to which events are counted
        self._changed: set[int] = set()

    @cached_property
    def _of_family(self) -> tuple[IntArray, IntArray]:
        return grouping.by_group(self._events.family, len(self._states))

    def named(self, family: int, slot: int, number: int, row: int) -> bool:
        """True if the value of the event in this row has a name in its slot. It is the first of its kind."""
        state, fresh = self._states[family], int(self._events.offset[row]) > self._fences[family]
        if fresh and slot > state.newest:
            self._count(family, row)
            self._hitters.advance(state, slot)
            self._changed.add(family)
        names = state.names.get(max((begin for begin in state.names if begin <= slot), default=NEVER))
        if number < 0 or names is None:
            return False
        text = self._texts[number]
        if text in names:
            return True
        if not fresh:
            return False
        if len(names) < self._hitters.most:
            names.append(text)
            self._changed.add(family)
            return True
        if state.since == NEVER:
            state.since, self._counted[family] = state.newest, row
        return False

    def finished(self) -> set[int]:
        """Count what is left; the families that have changed."""
        for family, state in enumerate(self._states):
            if state.since != NEVER:
                self._count(family, len(self._events.family))
        return self._changed

    def _count(self, family: int, until: int) -> None:
        """Count a family's events before a row that are not counted yet."""
        state = self._states[family]
        if state.since == NEVER:
            return
        order, edges = self._of_family
        rows = order[edges[family]:edges[family + 1]]
        rows = rows[(rows >= self._counted[family]) & (rows < until)]
        rows = rows[self._events.offset[rows] > self._fences[family]]
        if len(rows):
            self._hitters.count(state, self._events.value[rows], self._texts)
            self._counted[family] = until
            self._changed.add(family)


@compiled
def space_saving(ids: IntArray, place: IntArray, counts: IntArray, errors: IntArray, owner: IntArray, size: int) -> int:
    """Count values in order; the number of counters in use afterwards.

    ids (n,): numbers of values; negative ones do not count. place (k,): the counter of each value, or -1. counts,
    errors, owner (room,): of each counter, and the number of its value, -1 of one that is not among these.
    """
    for one in ids:
        if one < 0:
            continue
        at = place[one]
        if at < 0:
            if size < len(counts):
                at, size = size, size + 1
            else:
                at = np.argmin(counts)
                errors[at] = counts[at]
                if owner[at] >= 0:
                    place[owner[at]] = -1
            owner[at], place[one] = one, at
        counts[at] += 1
    return size


def warm() -> None:
    """Compile, or load from the cache."""
    one = np.zeros(1, np.int64)
    space_saving(one, one - 1, one.copy(), one.copy(), one.copy(), 0)
