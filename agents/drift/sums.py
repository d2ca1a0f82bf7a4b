"""What the segments of one series were like of late: per value of a segment key and column, sums over panes of time.

    pane (2 s) -> rows, errors (names, 2); values and their sum (2, names, columns); sum of squares (keys, columns)

`RECENT` panes are kept by themselves; older ones are added up into `past`, which is halved when it has grown to
`MOST_PAST` rows, so that it follows the reference. Numbers are added up as sign(x) log(1 + |x|): of skewed fields that
is the logarithm, as drift reads them, and one huge value moves no sum far.

A row counts unless it comes later than `delay_ms` after the newest of its series before it in the log, as it then is in
no first copy of a window either. So a pane is complete when the series has gone past it by that, and sums are functions
of the log, however it is cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

PANE_MS, RECENT = 2_000, 45
MOST_COLUMNS, MOST_NAMES, MOST_PAST = 96, 64, 16_384.0
PRESENT, SUM = range(2)


@dataclass(slots=True, eq=False)
class Sums:
    """Of one span: totals (names, 2), cells (2, names, columns), squares (keys, columns), as above."""

    totals: FloatArray = field(default_factory=lambda: np.zeros((0, 2)))
    cells: FloatArray = field(default_factory=lambda: np.zeros((2, 0, 0)))
    squares: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))

    def wide(self, names: int, columns: int, keys: int) -> None:
        """Have room for so many of each."""
        _, rows, width = self.cells.shape
        if names > rows or columns > width:
            self.cells = np.pad(self.cells, ((0, 0), (0, max(0, names - rows)), (0, max(0, columns - width))))
        rows, width = self.squares.shape
        if keys > rows or columns > width:
            self.squares = np.pad(self.squares, ((0, max(0, keys - rows)), (0, max(0, columns - width))))
        if names > len(self.totals):
            self.totals = np.pad(self.totals, ((0, names - len(self.totals)), (0, 0)))

    def add(self, other: Sums) -> None:
        """Take in another span."""
        for one, two in ((self, other), (other, self)):
            _, names, columns = two.cells.shape
            one.wide(names, columns, len(two.squares))
        self.cells += other.cells
        self.totals += other.totals
        self.squares += other.squares


class Kept(msgspec.Struct, array_like=True):
    """A series as written; arrays as float64. `panes`: (pane, totals, cells, squares)."""

    keys: list[str] = []
    columns: list[str] = []
    names: list[str] = []
    newest_ms: int = -1
    past: tuple[bytes, bytes, bytes] = (b"", b"", b"")
    panes: list[tuple[int, bytes, bytes, bytes]] = []


@dataclass(slots=True, eq=False)
class Segments:
    """A series that is live. `names` are KEY=VALUE. The partition's own entry has `newest_ms` only."""

    keys: int
    columns: dict[str, int] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    newest_ms: int = -1
    past: Sums = field(default_factory=Sums)
    panes: dict[int, Sums] = field(default_factory=dict)

    def column(self, name: str) -> int:
        """The place of a field; -1 if there is no room for another."""
        return _place(self.columns, name, MOST_COLUMNS)

    def name(self, name: str, most: int) -> int:
        """The place of a KEY=VALUE; -1 if its key has `most` values already."""
        if name not in self.names:
            key = name.partition("=")[0] + "="
            if sum(known.startswith(key) for known in self.names) >= most:
                return -1
        return _place(self.names, name, MOST_NAMES)

    @property
    def oldest(self) -> int:
        """The oldest pane that is recent."""
        return self.newest_ms // PANE_MS - RECENT + 1

    def in_time(self, ts_ms: IntArray, delay_ms: int) -> NDArray[np.bool_]:
        """Which of these rows (n,), in log order, count; moves `newest_ms` on."""
        before = np.maximum.accumulate(np.concatenate(([self.newest_ms], ts_ms)))
        self.newest_ms = int(before[-1])
        return np.asarray(ts_ms >= before[:-1] - min(delay_ms, (RECENT - 1) * PANE_MS))

    def pane(self, number: int) -> Sums:
        """A pane with room for all names and columns."""
        found = self.panes.get(number)
        if found is None:
            found = self.panes[number] = Sums()
        found.wide(len(self.names), len(self.columns), self.keys)
        return found

    def age(self) -> None:
        """Put panes that are not recent any more into the past, oldest first."""
        for number in sorted(number for number in self.panes if number < self.oldest):
            self.past.add(self.panes.pop(number))
            if self.past.totals[:, 0].sum() > MOST_PAST:
                self.past.cells *= 0.5
                self.past.totals *= 0.5
                self.past.squares *= 0.5

    def between(self, first: int, last: int) -> Sums:
        """The sum of the recent panes from `first` to `last`."""
        found = Sums()
        found.wide(len(self.names), len(self.columns), self.keys)
        for number in sorted(self.panes):
            if first <= number <= last:
                found.add(self.panes[number])
        return found

    def before(self, pane: int) -> Sums:
        """The sum of the past and of the recent panes before one."""
        found = self.between(-1, pane - 1)
        found.add(self.past)
        return found


def _place(places: dict[str, int], name: str, most: int) -> int:
    found = places.get(name)
    if found is None:
        if len(places) >= most:
            return -1
        found = places[name] = len(places)
    return found


class Codec:
    """Series as msgpack. `keys`: how many segment keys there are; of a row with others nothing is kept."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = len(keys)
        self._names = list(keys)

    def new(self, key: str) -> Segments:
        return Segments(self.keys)

    def encode(self, key: str, state: Segments) -> bytes:
        for sums in (state.past, *state.panes.values()):
            sums.wide(len(state.names), len(state.columns), self.keys)
        return msgspec.msgpack.encode(Kept(
            self._names, list(state.columns), list(state.names), state.newest_ms, _written(state.past),
            [(number, *_written(state.panes[number])) for number in sorted(state.panes)]))

    def decode(self, key: str, data: bytes) -> Segments:
        """Raises ValueError if the bytes are damaged."""
        try:
            kept = msgspec.msgpack.decode(data, type=Kept)
            if kept.keys != self._names:
                return Segments(self.keys, newest_ms=kept.newest_ms)
            shape = len(kept.names), len(kept.columns), self.keys
            return Segments(self.keys, _places(kept.columns), _places(kept.names), kept.newest_ms,
                            _read(*kept.past, *shape), {number: _read(totals, cells, squares, *shape)
                                                        for number, totals, cells, squares in kept.panes})
        except (msgspec.MsgspecError, ValueError) as error:
            raise ValueError(f"drift state of segments is damaged: {error}") from None


def _places(names: Iterable[str]) -> dict[str, int]:
    return {name: at for at, name in enumerate(names)}


def _written(sums: Sums) -> tuple[bytes, bytes, bytes]:
    return sums.totals.tobytes(), sums.cells.tobytes(), sums.squares.tobytes()


def _read(totals: bytes, cells: bytes, squares: bytes, names: int, columns: int, keys: int) -> Sums:
    """Raises ValueError: the lengths do not fit."""
    return Sums(np.frombuffer(totals).reshape(names, 2).copy(),
                np.frombuffer(cells).reshape(2, names, columns).copy(),
                np.frombuffer(squares).reshape(keys, columns).copy())
