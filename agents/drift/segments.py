r"""In which segment a drift of features, predictions, confidence, errors or latency is concentrated.

Events give their segments' values (`STREAMGAUGE_SEGMENT_KEYS`) sums by pane (`sums`). When a drift has been found, each
value's part in it is

    c = after_share (after_mean - m) - before_share (before_mean - m)       m: the mean before, over all values

and these add up to the whole change, be it that a value's own mean moved or that it got more or fewer events. Were
the change everywhere the same, c would be after_share of it. A value holds the change if its c is at least
`CONCENTRATED` of the way from there to the whole of it, surely (`SURE` standard errors), and if it has not got nearly
all events anyway.

Sums are functions of the log; so is what is found, as windows are judged only when the events that they are made of are
in the sums (`agent`), and it rests on panes that were over at the drift's own time. A worker that is minutes of event
time behind in windows alone may have no such panes any more, and names no segment. Cost: an addition a value and key;
nothing without segment keys.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.drift.message import UNIT
from agents.drift.options import ERROR_RATE, MEAN, MISSING, DriftOptions
from agents.drift.sums import PANE_MS, PRESENT, SUM, Codec, FloatArray, IntArray, Segments, Sums
from schemas.drift import DriftEvent
from streams.batch import TelemetryBatch
from streams.compiled import compiled
from streams.state.keyed import META, KeyedStates

SEGMENT = "segment."
#: A field without a place yet; and the key of segments that are not asked for.
NEW, OTHER = -2, 1_000
CONCENTRATED, SURE, NEARLY_ALL = 0.7, 4.0, 0.9
#: Values before and after that say something, of all segments and of the one that is named.
LEAST_BEFORE, LEAST_AFTER, LEAST_OWN = 40.0, 20.0, 5.0
LARGEST = 1e100

FieldArray = NDArray[np.int32]
BoolArray = NDArray[np.bool_]


class SegmentEngine:
    """One a worker; keys are environment, model, version and component."""

    def __init__(self, keys: Sequence[str], delay_ms: int = 1_000, options: DriftOptions | None = None) -> None:
        self.keys = tuple(keys)
        self.delay_ms = delay_ms
        self.options = options or DriftOptions()
        self.codec = Codec(self.keys)

    def warm(self) -> None:
        """Compile the kernels, or load them from the cache."""
        one, fields = np.zeros(1, np.int64), np.zeros(1, np.int32)
        meets_new(one, np.array([0, 1]), fields, one)
        add_rows(one, np.array([0, 1]), fields, np.zeros(1), np.zeros(1, np.bool_), one, one - 1, one - 1,
                 np.zeros((1, 2)), np.zeros((2, 1, 1)), np.zeros((1, 1)))

    def run(self, batch: TelemetryBatch, states: KeyedStates[Segments], topic: str) -> None:
        """Take in a batch. Rows that a series' fence includes are skipped."""
        if not len(batch):
            return
        meta, key_of = states.entry(META), self._keys(batch)
        meta.state.newest_ms = max(meta.state.newest_ms, int(batch.ts_ms.max()))
        for number, rows in _by_series(batch.series.astype(np.int64)):
            entry = states.entry(UNIT.join(batch.keys[number]))
            rows = rows[batch.offset[rows] > entry.fence.get(topic, -1)]
            if len(rows):
                self._rows(entry.state, batch, rows, key_of)
                states.touch(entry, topic, batch.last_offset)
        states.touch(meta, topic, batch.last_offset)

    @staticmethod
    def newest_ms(states: KeyedStates[Segments]) -> int:
        """The newest event of the partition that is in the sums."""
        return states.entry(META).state.newest_ms

    def _keys(self, batch: TelemetryBatch) -> IntArray:
        """Of each field the segment key whose value it names; -1 of those of values, `OTHER` of other keys."""
        found = np.full(len(batch.fields), -1, np.int64)
        for at, name in enumerate(batch.fields):
            if name.startswith(SEGMENT):
                key = name[len(SEGMENT):].partition("=")[0]
                found[at] = self.keys.index(key) if key in self.keys else OTHER
        return found

    def _rows(self, state: Segments, batch: TelemetryBatch, rows: IntArray, key_of: IntArray) -> None:
        rows = rows[state.in_time(batch.ts_ms[rows], self.delay_ms)]
        panes = batch.ts_ms[rows] // PANE_MS
        place = self._known(state, batch, key_of)
        if meets_new(rows, batch.start, batch.field, place):
            self._learn(state, batch, rows, key_of, place)
        column, name = np.where(key_of < 0, place, -1), np.where(key_of >= 0, place, -1)
        for pane in dict.fromkeys(panes.tolist()):
            sums = state.pane(pane)
            add_rows(rows[panes == pane], batch.start, batch.field, batch.value, batch.error, column, key_of, name,
                     sums.totals, sums.cells, sums.squares)
        state.age()

    @staticmethod
    def _known(state: Segments, batch: TelemetryBatch, key_of: IntArray) -> IntArray:
        """Of each field the place of its column, or of the name that it is; `NEW` if it was not seen yet."""
        return np.array([state.columns.get(name, NEW) if key < 0 else
                         -1 if key == OTHER else state.names.get(name[len(SEGMENT):], NEW)
                         for name, key in zip(batch.fields, key_of.tolist(), strict=True)], np.int64)

    def _learn(self, state: Segments, batch: TelemetryBatch, rows: IntArray, key_of: IntArray, place: IntArray) -> None:
        """Give places to what these rows have and was not seen yet, in the order of the log."""
        fields = np.concatenate([batch.field[batch.start[row]:batch.start[row + 1]] for row in rows.tolist()])
        for at in dict.fromkeys(fields[place[fields] == NEW].tolist()):
            name = batch.fields[at]
            place[at] = state.column(name) if key_of[at] < 0 else \
                state.name(name[len(SEGMENT):], self.options.most_values)

    # -- where ------------------------------------------------------------------------------------

    def located(self, event: DriftEvent, states: KeyedStates[Segments]) -> DriftEvent:
        """The event with the segment in which its drift is concentrated, where there is one."""
        key = UNIT.join((event.environment, event.model, event.version, event.component))
        if event.state != "drifted" or event.segment or key not in states:
            return event
        found = where(states.entry(key).state, self.keys, event)
        return event.model_copy(update={"segment": found}) if found else event


def where(state: Segments, keys: Sequence[str], event: DriftEvent) -> Mapping[str, str]:
    """Of each key the value that holds the change, if one does."""
    last, first = event.detected_ms // PANE_MS - 1, -(-event.onset_ms // PANE_MS)
    if first > last:
        first = event.onset_ms // PANE_MS
    if not state.oldest <= first <= last:
        return {}
    before, after = state.before(first), state.between(first, last)
    found = {}
    for at, key in enumerate(keys):
        rows = np.array([place for name, place in state.names.items() if name.startswith(f"{key}=")], np.int64)
        was, now = (_moments(state, sums, at, rows, event) for sums in (before, after))
        holder = _holder(was, now)
        if holder >= 0:
            found[key] = list(state.names)[rows[holder]].partition("=")[2]
    return found


class _Moments(NamedTuple):
    """Of a key's values: how many, and their sum (names,); and the sum of squares of all."""

    n: FloatArray
    sum: FloatArray
    squares: float

    def variance(self) -> float:
        """Over all names."""
        n = self.n.sum()
        return float(self.squares / n - (self.sum.sum() / n) ** 2)


def _holder(before: _Moments, after: _Moments) -> int:
    """The name that holds the change, or -1."""
    n, m = float(before.n.sum()), float(after.n.sum())
    if len(before.n) < 2 or n < LEAST_BEFORE or m < LEAST_AFTER:
        return -1
    mean, share = before.sum.sum() / n, after.n / m
    parts = (after.sum - mean * after.n) / m - (before.sum - mean * before.n) / n
    change, variance = parts.sum(), max(before.variance(), after.variance())
    if not change or variance <= 0.0:
        return -1
    excess = (parts / change - share) / np.maximum(1e-9, 1.0 - share)
    at = int(np.argmax(excess))
    apart = before.sum[at] / before.n[at] - mean if before.n[at] else 0.0      # then its share alone moves the mean
    noise = math.sqrt((variance + apart * apart) * share[at] * (1.0 - share[at]) * (1.0 / n + 1.0 / m))
    sure = abs(parts[at] - share[at] * change) > SURE * noise
    is_one = excess[at] >= CONCENTRATED and share[at] <= NEARLY_ALL and max(after.n[at], before.n[at]) >= LEAST_OWN
    return at if sure and is_one else -1


def _moments(state: Segments, sums: Sums, key: int, rows: IntArray, event: DriftEvent) -> _Moments:
    """Of the event's statistic; shares as the values 0 and 1."""
    sums.wide(len(state.names), len(state.columns), state.keys)
    total, errors, cells = sums.totals[rows, 0], sums.totals[rows, 1], sums.cells[:, rows]
    base, is_class, _ = event.field.partition("=")
    of_base = [at for name, at in state.columns.items() if name.partition("=")[0] == base]
    at, present = state.columns.get(event.field), cells[PRESENT][:, of_base].sum(axis=1)
    if event.field == ERROR_RATE:
        return _shares(total, errors)
    if event.statistic == MISSING:
        return _shares(total, np.maximum(0.0, total - errors - present))
    if at is None:
        return _shares(np.zeros(len(rows)), np.zeros(len(rows)))
    if event.statistic == MEAN and not is_class:
        return _Moments(cells[PRESENT, :, at], cells[SUM, :, at], float(sums.squares[key, at]))
    return _shares(present, cells[PRESENT, :, at])


def _shares(whole: FloatArray, part: FloatArray) -> _Moments:
    return _Moments(whole, part, float(part.sum()))


def _by_series(series: IntArray) -> Iterator[tuple[int, IntArray]]:
    """A series and its rows, in order of the log."""
    order = np.argsort(series, kind="stable")
    begins = [0, *(np.flatnonzero(np.diff(series[order])) + 1).tolist(), len(order)]
    for begin, end in pairwise(begins):
        yield int(series[order[begin]]), order[begin:end]


@compiled
def meets_new(rows: IntArray, start: IntArray, field: FieldArray, place: IntArray) -> bool:
    """True if one of the rows has a field without a place."""
    for row in rows:
        for at in range(start[row], start[row + 1]):
            if place[field[at]] == NEW:
                return True
    return False


@compiled
def add_rows(rows: IntArray, start: IntArray, field: FieldArray, value: FloatArray, error: BoolArray, column: IntArray,
             key_of: IntArray, name: IntArray, totals: FloatArray, cells: FloatArray, squares: FloatArray) -> None:
    """Add rows to the sums of a pane (see `sums.Sums`), one by one, for each of their names.

    column, key_of, name (fields,): the field's column, or -1; the key that it names a value of, or -1; the place of
    that, or -1.
    """
    for row in rows:
        for at in range(start[row], start[row + 1]):
            place = name[field[at]]
            if place < 0:
                continue
            totals[place, 0] += 1.0
            totals[place, 1] += error[row]
            key = key_of[field[at]]
            for of in range(start[row], start[row + 1]):
                to, found = column[field[of]], value[of]
                if to < 0 or math.isnan(found):
                    continue
                found = max(-LARGEST, min(LARGEST, found))
                found = math.copysign(math.log1p(abs(found)), found)
                cells[0, place, to] += 1.0
                cells[1, place, to] += found
                squares[key, to] += found * found
