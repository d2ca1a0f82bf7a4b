"""Windows of one version, gathered into groups of at least so many events, and a group's statistics as points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np

from agents.drift import cells
from agents.drift.gathered import NO_SKETCH, Buckets, added
from agents.drift.options import (
    CONFIDENCE,
    ERROR_RATE,
    FEATURE,
    LATENCY,
    MEAN,
    MISSING,
    PREDICTION,
    RATE,
    DriftOptions,
    Statistic,
)
from agents.drift.reading import Cell, keys_of
from agents.drift.reference import WARM_UP_POINTS, Point
from agents.drift.watch import Watch
from streams.windows import reading
from streams.windows.closed import FieldNames, Fields, fields_of
from streams.windows.record import SummaryRecord, buckets
from streams.windows.sketch import BIAS, CODE_BITS, CODE_MASK, SPAN, sum_into

_NO_CELLS, _NO_NAMES = np.empty((0, cells.WIDTH)), np.empty(0, np.int64)
_NO_KEYS, _NO_COUNTS = np.empty(0, np.int32), np.empty(0, np.int64)
_PARTIALS = np.empty(cells.PARTIALS)
#: Fields that a group has room for at first, and buckets.
_FEW_FIELDS, _FEW_BUCKETS = 16, 256
#: Buckets that a group keeps the room for when it is over.
_MOST_BUCKETS = 1_024


class GroupState(msgspec.Struct, array_like=True):
    """A group as written; `cells` is how fields were written before `names` and the arrays: float64 cells (names, KEPT)
    and int32 keys, int64 counts of their buckets (`sketch`, a field's row for a slot).
    """

    start_ms: int = -1
    end_ms: int = -1
    windows: int = 0
    events: int = 0
    errors: int = 0
    cells: dict[str, Cell] = {}
    names: list[str] = []
    table: bytes = b""
    keys: bytes = b""
    counts: bytes = b""


class Group:
    """Windows not yet made into points; `names`: the row in `table` of each field.

    Lenses are those of the watches when a field came up first: they only change between two groups.
    """

    __slots__ = ("_counts", "_filled", "_keys", "_known", "_numbers", "end_ms", "errors", "events", "names", "start_ms",
                 "table", "windows")

    def __init__(self) -> None:
        self.start_ms = self.end_ms = -1
        self.windows = self.events = self.errors = 0
        self.names: dict[str, int] = {}
        self.table = _NO_CELLS
        self._numbers = _NO_NAMES
        self._known: FieldNames | None = None
        self._keys, self._counts, self._filled = _NO_KEYS, _NO_COUNTS, 0

    @classmethod
    def of(cls, kept: GroupState, watches: Mapping[Statistic, Watch]) -> Group:
        """The group as it was; raises ValueError if its parts do not fit."""
        group = cls()
        group.start_ms, group.end_ms = kept.start_ms, kept.end_ms
        group.windows, group.events, group.errors = kept.windows, kept.events, kept.errors
        table = np.frombuffer(kept.table, "<f8").reshape(len(kept.names), cells.KEPT)
        keys, counts = np.frombuffer(kept.keys, "<i4"), np.frombuffer(kept.counts, "<i8")
        if kept.cells:
            table = np.array([cell.row() for cell in kept.cells.values()])
            keys, counts = keys_of(list(kept.cells.values()))
        names = kept.names or list(kept.cells)
        if len(keys) != len(counts) or (len(keys) and not 0 <= keys.min() <= keys.max() < len(names) << CODE_BITS):
            raise ValueError("buckets of a group are not those of its fields")
        group._begin(names, [-1] * len(names), watches)
        group.table[:len(table), :cells.KEPT] = table
        group._keys, group._counts, group._filled = keys.astype(np.int32), counts.astype(np.int64), len(keys)
        return group

    def snapshot(self) -> GroupState:
        """The state, for a codec. Its buckets as they came: of so few events hardly two are the same."""
        return GroupState(self.start_ms, self.end_ms, self.windows, self.events, self.errors, {}, list(self.names),
                          self.table[:len(self.names), :cells.KEPT].tobytes(), self._keys[:self._filled].tobytes(),
                          self._counts[:self._filled].tobytes())

    def begin(self, start_ms: int, size_ms: int, events: int, errors: int) -> None:
        """Take in a window but for its fields."""
        if not self.windows:
            self.start_ms = start_ms
        self.end_ms = start_ms + size_ms
        self.windows += 1
        self.events += events
        self.errors += errors

    def add(self, fields: Fields, low: int, high: int, watches: Mapping[Statistic, Watch], most_fields: int) -> None:
        """Take in a window's fields, rows `low` to `high`; numbers are read through the lenses of their means."""
        if fields.known is not self._known:
            self._known = fields.known
            self._numbers[:len(self.names)] = [fields.known.add(name) for name in self.names]
        _, _, field, number, edge, codes, times, _ = fields.columns
        at = low
        while True:
            at, self._filled = cells.add(
                self.table, self._numbers, len(self.names), most_fields, self._keys, self._counts, self._filled,
                _PARTIALS, field, number, edge, codes, times, at, high)
            if at >= high:
                return
            fresh = {known: name for known in field[at:high, reading.NAME].tolist()
                     if (name := fields.known.texts[known]) not in self.names}
            self._begin(list(fresh.values())[:most_fields - len(self.names)], list(fresh), watches)
            self._make_room(int(edge[high] - edge[at]))

    def clear(self) -> None:
        """Begin anew, with the arrays that are there."""
        self.start_ms = self.end_ms = -1
        self.windows = self.events = self.errors = self._filled = 0
        self.names = {}
        if len(self._keys) > _MOST_BUCKETS:
            self._keys, self._counts = _NO_KEYS, _NO_COUNTS

    def _begin(self, names: Sequence[str], numbers: Sequence[int], watches: Mapping[Statistic, Watch]) -> None:
        """Cells for fields, and the numbers of their names."""
        if not names:
            return
        first, size = len(self.names), len(self.names) + len(names)
        self.names.update(zip(names, range(first, size), strict=True))
        if size > len(self.table):
            more = max(_FEW_FIELDS, size, 2 * len(self.table)) - len(self.table)
            self.table = np.concatenate([self.table, np.empty((more, cells.WIDTH))])
            self._numbers = np.concatenate([self._numbers, np.empty(more, np.int64)])
        self._numbers[first:size] = numbers[:len(names)]
        self.table[first:size, :cells.KEPT] = 0.0
        self.table[first:size, cells.KEPT:] = [_lens(name, watches) for name in names]

    def _make_room(self, buckets: int) -> None:
        """Have room for so many buckets more."""
        least = self._filled + buckets
        if least > len(self._keys):
            more = max(_FEW_BUCKETS, least, 2 * len(self._keys)) - self._filled
            self._keys = np.concatenate([self._keys[:self._filled], np.empty(more, np.int32)])
            self._counts = np.concatenate([self._counts[:self._filled], np.empty(more, np.int64)])

    def _settled(self) -> tuple[cells.KeyArray, cells.IntArray]:
        """Each bucket once, ascending, and its count. (A kernel that returns arrays takes twice as long.)"""
        keys, counts = np.empty(self._filled + 1, np.int32), np.empty(self._filled + 1, np.int64)
        size = sum_into(self._keys[:self._filled], self._counts[:self._filled], len(self.names), keys, counts)
        return keys[:size], counts[:size]

    def is_full(self, options: DriftOptions) -> bool:
        return self.events >= options.least_events or self.end_ms - self.start_ms >= options.longest_group_ms

    def is_over(self, start_ms: int, options: DriftOptions) -> bool:
        """True if a window that starts then is too far from the group's first to join it."""
        return self.windows > 0 and start_ms - self.start_ms >= options.longest_group_ms

    def points(self, watches: Mapping[Statistic, Watch]) -> list[tuple[Statistic, Point]]:
        """A point for each statistic: causes before effects, so inputs first, errors and latency last.

        Categories that are watched and did not occur have the share 0. A feature that was in every event and is gone
        counts as missing.
        """
        table = self.table[:len(self.names)]
        counts, missing = table[:, cells.N].astype(np.int64).tolist(), table[:, cells.MISSING].astype(np.int64).tolist()
        present, nulls = dict(zip(self.names, counts, strict=True)), dict(zip(self.names, missing, strict=True))
        totals = _totals(present)
        found = [*self._categories(present, totals, watches), *self._nulls(nulls, totals, watches),
                 *self._means(present)]
        if self.events:
            found.append(((ERROR_RATE, RATE), self._share(self.errors, self.events)))
        return sorted(found, key=lambda item: _rank(*item[0]))

    def _categories(self, present: Mapping[str, int], totals: Mapping[str, int],
                    watches: Mapping[Statistic, Watch]) -> Iterator[tuple[Statistic, Point]]:
        names = dict.fromkeys(name for name in present if "=" in name)
        names.update(dict.fromkeys(name for name, statistic in watches if statistic == RATE and "=" in name))
        for name in names:
            total = totals.get(name.partition("=")[0], 0)
            if total:
                yield (name, RATE), self._share(present.get(name, 0), total)

    def _nulls(self, nulls: Mapping[str, int], totals: Mapping[str, int],
               watches: Mapping[Statistic, Watch]) -> Iterator[tuple[Statistic, Point]]:
        due = self.events - self.errors
        names = dict.fromkeys(base for base in totals if base.startswith(FEATURE))
        names.update(dict.fromkeys(name for name, statistic in watches if statistic == MISSING))
        for name in names:
            present, missing = totals.get(name, 0), nulls.get(name, 0)
            watch = watches.get((name, MISSING))
            if watch is not None:
                missing += _gone(watch, due, present + missing)
            if present + missing:
                yield (name, MISSING), self._share(missing, present + missing)

    def _means(self, present: Mapping[str, int]) -> Iterator[tuple[Statistic, Point]]:
        keys, counts = self._settled()
        size = len(self.names)
        edge, out = np.empty(size + 1, np.int64), np.empty((size, 5))
        cells.read_off(self.table, size, keys, counts, _PARTIALS, edge, out)
        codes, ends = (keys & CODE_MASK) - SPAN, edge.tolist()
        for row, ((name, n), moments) in enumerate(zip(present.items(), out.tolist(), strict=True)):
            if n and "=" not in name:
                low, high = ends[row], ends[row + 1]
                sketch = Buckets(codes, counts, low, high) if high > low else NO_SKETCH
                mean, variance, log_mean, log_variance, level = moments
                yield (name, MEAN), Point(self.start_ms, self.end_ms, self.windows, n, mean, variance, log_mean,
                                          log_variance, level, sketch)

    def _share(self, part: int, whole: int) -> Point:
        share = part / whole
        return Point(self.start_ms, self.end_ms, self.windows, whole, share, share * (1 - share), watched=share)


def warm() -> None:
    """Compile the kernels, or load them from their cache."""
    group, sketch = Group(), buckets([(BIAS, 1)])
    fields = {name: SummaryRecord(count=1, mean=1.0, buckets=sketch) for name in ("a", "b")}
    group.add(*fields_of(fields, FieldNames()), {}, 2)
    gathered = [point.sketch for _, point in group.points({})]
    added([b""] * len(gathered), gathered)


def _lens(name: str, watches: Mapping[Statistic, Watch]) -> tuple[float, ...]:
    """How a field's values are read, as `cells` has it."""
    watch = watches.get((name, MEAN))
    reference = None if watch is None else watch.state.reference
    floor, closer = name == LATENCY, "=" not in name and (watch is None or watch.looks_closer)
    if watch is None or reference is None:
        return cells.NONE, 0.0, 0.0, 0.0, floor, closer
    return (cells.LOGARITHMIC if reference.log else cells.PLAIN, reference.low, reference.high,
            watch.state.inherited, floor, closer)


def _totals(present: Mapping[str, int]) -> dict[str, int]:
    """Values present by feature, and of the prediction: numbers and categories alike."""
    totals: dict[str, int] = {}
    for name, n in present.items():
        if name.startswith((FEATURE, PREDICTION)):
            base = name.partition("=")[0]
            totals[base] = totals.get(base, 0) + n
    return totals


def _gone(watch: Watch, due: int, sent: int) -> int:
    """Events that ought to have had the feature, and did not even have it as null."""
    if watch.state.complete >= WARM_UP_POINTS:
        return max(0, due - sent)
    watch.state.complete = watch.state.complete + 1 if sent >= due else 0
    return 0


def _rank(name: str, statistic: str) -> int:
    if name.startswith(FEATURE):
        return 0 if statistic == MISSING else 1
    return 2 if name.startswith((PREDICTION, CONFIDENCE)) else 3
