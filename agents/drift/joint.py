"""Joint drift of a component's inputs, which no margin shows: two features that went together no longer do.

One event in `STRIDE`, chosen by its place in the log, counts. Its numeric features are a row; `BLOCK` rows are a block,
and a block is the means that stand for its copula (`copula`). The first `LEARN` blocks are the reference: the average
and the spread of each of these means. From then on a block's distance,

    x = fourth root of the mean of ((m - average) / spread)^4       about 1.3 while nothing changes

(the fourth power, as most of what is joint stays when a part of it changes) is watched as any other statistic is
(`watch`): a warm-up, a CUSUM under the budget, an onset, a recovery. The event's field is `features`, its detector
`mmd`; it ranks the pairs of features whose rank correlation (Spearman) moved most.

Blocks in which a feature misses more values than in the reference, or got stuck at one, say nothing of what is joint,
and are passed over: the feed is broken, and windows tell of it. After a change that lasts, all is learnt anew; so it is
when a feature comes up that was not known.

Invariants: the same log gives the same events, however it is cut. Cost: `copula`, divided by `STRIDE`; 16 kB a
component of 8 features at most. Units: distances have none.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from agents.drift.blocks import BLOCK, Codec, Joint
from agents.drift.cause import Verdict
from agents.drift.copula import NEW, UNWANTED, FloatArray, IntArray, features_of, gather, grades, means
from agents.drift.message import UNIT, About, make_event, told_of
from agents.drift.options import FEATURE, MEAN, DriftOptions
from schemas.drift import DriftEvent
from streams.batch import TelemetryBatch
from streams.state.keyed import KeyedStates

FIELD, DETECTOR = "features", "mmd"
STRIDE, MOST_COLUMNS = 8, 24
#: Part of a component's budget of false alarms that goes to this test.
BUDGET_SHARE = 0.1
#: Odd, and near 2^64 / phi (Knuth, vol. 3, 6.4); and more than the events of one record.
_SPREAD, _EVENTS = np.uint64(0x9E3779B97F4A7C15), np.uint64(1 << 20)
#: Columns -> the column of each field of a batch.
Numbered = dict[tuple[str, ...], IntArray]


class JointEngine:
    """One a worker; keys are environment, model and component. `options.budget_per_day` is the component's."""

    def __init__(self, options: DriftOptions | None = None) -> None:
        self.options = options or DriftOptions()
        self.codec = Codec(self.options.delta)

    def warm(self) -> None:
        """Compile the kernels, or load them from the cache."""
        one = np.zeros(1, np.int64)
        gather(one, np.array([0, 1]), np.zeros(1, np.int32), np.zeros(1), one, 1)
        means(grades(np.zeros((2, 2))), *features_of(2))

    def run(self, batch: TelemetryBatch, states: KeyedStates[Joint], topic: str) -> list[DriftEvent]:
        """Take in a batch; where what is joint moved, in log order. Rows that a key's fence includes are skipped."""
        chosen = np.flatnonzero(sampled(batch.offset, batch.position))
        found: list[tuple[int, DriftEvent]] = []
        numbered: Numbered = {}
        for subject, rows in _by_component(batch, chosen):
            entry = states.entry(UNIT.join(subject))
            if entry.includes(topic, int(batch.offset[rows[0]])):
                rows = rows[np.searchsorted(batch.offset[rows], entry.fence[topic], side="right"):]
            if len(rows):
                found += self._rows(entry.state, batch, rows, subject, numbered)
                states.touch(entry, topic, batch.last_offset)
        return [event for _, event in sorted(found, key=lambda item: item[0])]

    def _rows(self, state: Joint, batch: TelemetryBatch, rows: IntArray, subject: tuple[str, str, str],
              numbered: Numbered) -> Iterator[tuple[int, DriftEvent]]:
        while len(rows):
            column = _columns(state.columns, batch, numbered)
            matrix, new = gather(rows, batch.start, batch.field, batch.value, column, len(state.columns))
            until = len(rows) if new < 0 else new
            if len(state.columns) > 1:
                yield from self._fill(state, batch, rows[:until], matrix, subject)
            if new < 0:
                return
            of_row = batch.field[batch.start[rows[new]]:batch.start[rows[new] + 1]]
            more = [batch.fields[name] for name in of_row if column[name] == NEW]
            state.begin(list(dict.fromkeys([*state.columns, *more]))[:MOST_COLUMNS])
            rows = rows[new:]

    def _fill(self, state: Joint, batch: TelemetryBatch, rows: IntArray, matrix: FloatArray,
              subject: tuple[str, str, str]) -> Iterator[tuple[int, DriftEvent]]:
        """Rows into blocks."""
        environment, model, component = subject
        at = 0
        while at < len(rows):
            part = rows[at:at + BLOCK - state.filled]
            versions = [batch.keys[number].version for number in dict.fromkeys(batch.series[part].tolist())]
            if state.take(matrix[at:at + len(part)], batch.ts_ms[part], versions):
                version = batch.keys[batch.series[part[-1]]].version
                event = self._close(state, batch.partition, (environment, model, version, component))
                if event is not None:
                    yield int(part[-1]), event
            at += len(part)

    def _close(self, state: Joint, partition: int, subject: tuple[str, str, str, str]) -> DriftEvent | None:
        change = state.close(self.options.budget_per_day * BUDGET_SHARE)
        if change is None:
            return None
        about = About()
        if change.state == "drifted":
            change = change._replace(detector=DETECTOR, agreeing=(DETECTOR, *change.agreeing))
            about = About(Verdict("real_change"), state.ranked())
        environment, model, version, component = subject
        state.version = told_of(state.version, change, version)
        return make_event((environment, model, state.version, component), "data", (FIELD, MEAN), change, state.versions,
                          partition, self.options.delta, about)


def sampled(offset: IntArray, position: IntArray) -> NDArray[np.bool_]:
    """One row in `STRIDE`, by a hash of its place in the log: models that take turns are all seen."""
    with np.errstate(over="ignore"):
        place = (offset.astype(np.uint64) * _EVENTS + position.astype(np.uint64)) * _SPREAD
    return np.asarray(place >> np.uint64(32) & np.uint64(STRIDE - 1) == 0)


def _by_component(batch: TelemetryBatch, rows: IntArray) -> Iterator[tuple[tuple[str, str, str], IntArray]]:
    """(environment, model, component) and its rows, in order of the log."""
    series = batch.series[rows]
    order = np.argsort(series, kind="stable")
    rows, series = rows[order], series[order]
    begins = [0, *(np.flatnonzero(np.diff(series)) + 1).tolist(), len(rows)] if len(rows) else []
    found: dict[tuple[str, str, str], list[IntArray]] = {}
    for begin, end in pairwise(begins):
        key = batch.keys[series[begin]]
        found.setdefault((key.environment, key.model, key.component), []).append(rows[begin:end])
    for subject, parts in found.items():
        yield subject, parts[0] if len(parts) == 1 else np.sort(np.concatenate(parts))


def _columns(columns: list[str], batch: TelemetryBatch, numbered: Numbered) -> IntArray:
    """The column of each field of a batch; most components of a batch have the same columns."""
    key = tuple(columns)
    found = numbered.get(key)
    if found is None:
        known = {name: at for at, name in enumerate(columns)}
        other = NEW if len(known) < MOST_COLUMNS else UNWANTED
        found = numbered[key] = np.array(
            [known.get(name, other) if name.startswith(FEATURE) and "=" not in name else UNWANTED
             for name in batch.fields], np.int64)
    return found
