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

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.drift.budget import DAY_MS, height
from agents.drift.cause import Verdict
from agents.drift.copula import FEATURES, NEW, UNWANTED, FloatArray, IntArray, features_of, gather, grades, means
from agents.drift.level import Change, WatchState
from agents.drift.message import UNIT, About, make_event
from agents.drift.options import FEATURE, MEAN, DriftOptions, Effect
from agents.drift.reference import Point
from agents.drift.watch import Watch
from schemas.drift import DriftEvent, Moved
from streams.batch import TelemetryBatch
from streams.state.keyed import KeyedStates

FIELD, DETECTOR = "features", "mmd"
STRIDE, BLOCK, LEARN = 8, 256, 24
MOST_COLUMNS, MOST_VERSIONS = 24, 8
EFFECT = Effect("sd", 1.0, 2.5, worse=True)
#: More of a feature that misses than in the reference.
MORE_MISSING = 0.25
#: Least spread of a mean over blocks, for features of which none is joint.
LEAST_SPREAD = 1e-3
#: Weight of the newest block in the correlations after; the least change of one that is told, and how many.
NEWEST, LEAST_MOVED, MOST_PAIRS = 0.25, 0.15, 8
#: Part of a component's budget of false alarms that goes to this test.
BUDGET_SHARE = 0.1
#: Odd, and near 2^64 / phi (Knuth, vol. 3, 6.4); and more than the events of one record.
_SPREAD, _EVENTS = np.uint64(0x9E3779B97F4A7C15), np.uint64(1 << 20)


class Kept(msgspec.Struct, array_like=True):
    """A component as written. Arrays are float64 but for `rows`: those of the block under way, as float32."""

    columns: list[str] = []
    rows: bytes = b""
    start_ms: int = 0
    end_ms: int = 0
    versions: list[str] = []
    since_ms: int = 0
    seen: int = 0
    learnt: int = 0
    sums: bytes = b""
    watch: WatchState = msgspec.field(default_factory=WatchState)


@dataclass(slots=True, eq=False)
class Joint:
    """A component that is live. `seen`: blocks since `since_ms`. Sums over the `learnt` blocks of the reference:
    means and their squares (2, means); of each column, missing shares and blocks in which it varied; and the
    correlations, with those of late (columns, columns)."""

    delta: float
    columns: list[str] = field(default_factory=list)
    rows: list[FloatArray] = field(default_factory=list)
    start_ms: int = 0
    end_ms: int = 0
    versions: list[str] = field(default_factory=list)
    since_ms: int = 0
    seen: int = 0
    learnt: int = 0
    means: FloatArray = field(default_factory=lambda: np.zeros((2, 0)))
    whole: FloatArray = field(default_factory=lambda: np.zeros((2, 0)))
    together: FloatArray = field(default_factory=lambda: np.zeros((2, 0, 0)))
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = Watch(EFFECT, self.delta)

    def begin(self, columns: list[str]) -> None:
        """Know nothing but which columns there are."""
        width = len(columns)
        self.columns, self.rows, self.versions, self.seen, self.learnt = columns, [], [], 0, 0
        self.means, self.whole, self.together = (
            np.zeros((2, _means(width))), np.zeros((2, width)), np.zeros((2, width, width)))
        self.watch = Watch(EFFECT, self.delta)

    def add(self, row: FloatArray, ts_ms: int, version: str) -> bool:
        """Take in a row; True if the block is whole."""
        if not self.rows:
            self.start_ms, self.end_ms, self.versions = ts_ms, ts_ms, []
            self.since_ms = self.since_ms if self.seen else ts_ms
        self.start_ms, self.end_ms = min(self.start_ms, ts_ms), max(self.end_ms, ts_ms)
        if version not in self.versions and len(self.versions) < MOST_VERSIONS:
            self.versions.append(version)
        self.rows.append(row)
        return len(self.rows) == BLOCK

    def close(self, allowed_per_day: float) -> Change | None:
        """End the block; a change, if it makes one certain."""
        rows, self.rows = np.array(self.rows), []
        self.seen += 1
        z = grades(rows)
        missing, varied = np.isnan(rows).mean(axis=0), (z != 0.0).any(axis=0)
        together, pairs = z.T @ z / BLOCK, np.triu_indices(len(self.columns), 1)
        found = np.concatenate([means(z, *features_of(len(self.columns))), together[pairs]])
        if self.learnt < LEARN:
            self._learn(found, missing, varied, together)
            return None
        usual, often = self.whole / LEARN
        if (missing > usual + MORE_MISSING).any() or (~varied & (often > 0.5)).any():
            return None
        self.together[1] += NEWEST * (together - self.together[1])
        self.watch.height = height(self.seen * DAY_MS / max(1_000, self.end_ms - self.since_ms), allowed_per_day)
        x, lens = self._distance(found), self.watch.lens
        change = self.watch.add(Point(self.start_ms, max(self.end_ms, self.start_ms + 1), 1, 1, x, 0.0, watched=math.nan
                                      if lens is None else max(lens.low, min(lens.high, x))))
        if lens is not None and self.watch.lens is None:        # the change is taken for good
            self.begin(self.columns)
        return change

    def _learn(self, found: FloatArray, missing: FloatArray, varied: FloatArray, together: FloatArray) -> None:
        self.learnt += 1
        self.means += found, found * found
        self.whole += missing, varied
        self.together[0] += (together - self.together[0]) / self.learnt
        self.together[1] = self.together[0]

    def _distance(self, found: FloatArray) -> float:
        mean, square = self.means / LEARN
        spread = np.sqrt(np.maximum((square - mean * mean) * LEARN / (LEARN - 1), LEAST_SPREAD * LEAST_SPREAD))
        return float((((found - mean) / spread) ** 4).mean() ** 0.25)

    def ranked(self) -> list[Moved]:
        """The pairs of features whose correlation moved most."""
        before, after = self.together
        moved = np.abs(np.triu(after - before, 1))
        pairs = [divmod(int(at), len(self.columns)) for at in np.argsort(-moved, axis=None, kind="stable")[:MOST_PAIRS]]
        total = float((moved ** 2).sum()) or 1.0
        return [Moved(field=f"{self.columns[i]} ~ {self.columns[j]}"[:128], statistic="mean",
                      before=float(before[i, j]), after=float(after[i, j]), share=float(moved[i, j] ** 2 / total))
                for i, j in pairs if moved[i, j] >= LEAST_MOVED]


class Codec:
    """Components as msgpack."""

    def __init__(self, delta: float) -> None:
        self.delta = delta

    def new(self, key: str) -> Joint:
        return Joint(self.delta)

    def encode(self, key: str, state: Joint) -> bytes:
        sums = np.concatenate([part.ravel() for part in (state.means, state.whole, state.together)])
        return msgspec.msgpack.encode(Kept(
            state.columns, np.array(state.rows, "<f4").tobytes(), state.start_ms, state.end_ms, state.versions,
            state.since_ms, state.seen, state.learnt, sums.astype("<f8").tobytes(), state.watch.snapshot()))

    def decode(self, key: str, data: bytes) -> Joint:
        """Raises ValueError if the bytes are damaged."""
        try:
            kept = msgspec.msgpack.decode(data, type=Kept)
        except msgspec.MsgspecError as error:
            raise ValueError(f"state of joint drift is damaged: {error}") from None
        width, sums = len(kept.columns), np.frombuffer(kept.sums, "<f8").astype(np.float64)
        sizes = (2 * _means(width), 2 * width, 2 * width * width)
        if len(sums) != sum(sizes) or len(kept.rows) % max(4, 4 * width):
            raise ValueError("state of joint drift is damaged: its sums or rows are not those of its columns")
        found = Joint(self.delta, kept.columns, [], kept.start_ms, kept.end_ms, kept.versions, kept.since_ms, kept.seen,
                      kept.learnt)
        first, second, third = np.split(sums, np.cumsum(sizes)[:2])
        found.means, found.whole, found.together = (
            first.reshape(2, -1), second.reshape(2, width), third.reshape(2, width, width))
        found.rows = list(np.frombuffer(kept.rows, "<f4").astype(np.float64).reshape(-1, max(1, width)))
        found.watch = Watch(EFFECT, self.delta, kept.watch)
        return found


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
        for subject, rows in _by_component(batch, chosen):
            entry = states.entry(UNIT.join(subject))
            fence = entry.fence.get(topic, -1)
            rows = rows[np.searchsorted(batch.offset[rows], fence, side="right"):]
            if len(rows):
                found += self._rows(entry.state, batch, rows, subject)
                states.touch(entry, topic, batch.last_offset)
        return [event for _, event in sorted(found, key=lambda item: item[0])]

    def _rows(self, state: Joint, batch: TelemetryBatch, rows: IntArray,
              subject: tuple[str, str, str]) -> Iterator[tuple[int, DriftEvent]]:
        while len(rows):
            column = _columns(state, batch)
            matrix, new = gather(rows, batch.start, batch.field, batch.value, column, len(state.columns))
            matrix = matrix.astype(np.float32).astype(np.float64)       # as a snapshot has it
            until = len(rows) if new < 0 else new
            if len(state.columns) > 1:
                for at in range(until):
                    row = int(rows[at])
                    version = batch.keys[batch.series[row]].version
                    if state.add(matrix[at], int(batch.ts_ms[row]), version):
                        event = self._close(state, batch.partition, (*subject[:2], version, subject[2]))
                        if event is not None:
                            yield row, event
            if new < 0:
                return
            of_row = batch.field[batch.start[rows[new]]:batch.start[rows[new] + 1]]
            more = [batch.fields[name] for name in of_row if column[name] == NEW]
            state.begin(list(dict.fromkeys([*state.columns, *more]))[:MOST_COLUMNS])
            rows = rows[new:]

    def _close(self, state: Joint, partition: int, subject: tuple[str, str, str, str]) -> DriftEvent | None:
        change = state.close(self.options.budget_per_day * BUDGET_SHARE)
        if change is None:
            return None
        about = About()
        if change.state == "drifted":
            change = change._replace(detector=DETECTOR, agreeing=(DETECTOR, *change.agreeing))
            about = About(Verdict("real_change"), state.ranked())
        return make_event(subject, "data", (FIELD, MEAN), change, state.versions, partition, self.options.delta, about)


def _means(width: int) -> int:
    return FEATURES + width * (width - 1) // 2 if width else 0


def sampled(offset: IntArray, position: IntArray) -> NDArray[np.bool_]:
    """One row in `STRIDE`, by a hash of its place in the log: models that take turns are all seen."""
    with np.errstate(over="ignore"):
        place = (offset.astype(np.uint64) * _EVENTS + position.astype(np.uint64)) * _SPREAD
    return np.asarray(place >> np.uint64(32) & np.uint64(STRIDE - 1) == 0)


def _by_component(batch: TelemetryBatch, rows: IntArray) -> Iterator[tuple[tuple[str, str, str], IntArray]]:
    """(environment, model, component) and its rows, in order of the log."""
    series = batch.series[rows]
    subjects: dict[tuple[str, str, str], list[int]] = {}
    for number in np.unique(series).tolist():
        key = batch.keys[number]
        subjects.setdefault((key.environment, key.model, key.component), []).append(number)
    for subject, numbers in subjects.items():
        yield subject, rows[np.isin(series, numbers) if len(numbers) > 1 else series == numbers[0]]


def _columns(state: Joint, batch: TelemetryBatch) -> IntArray:
    """The column of each field of a batch."""
    known = {name: at for at, name in enumerate(state.columns)}
    other = NEW if len(known) < MOST_COLUMNS else UNWANTED
    return np.array([known.get(name, other) if name.startswith(FEATURE) and "=" not in name else UNWANTED
                     for name in batch.fields], np.int64)
