"""Half-space trees over arrays: River's interface, compiled loops, unbounded and missing features."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.scoring.detectors import tree_kernels as k
from agents.scoring.detectors.by_name import ByName
from agents.scoring.detectors.kernels import ColumnArray, CountArray, FloatArray, IntArray, MassArray, clamp

#: Of a tree's range, at either end of each split (River's choice).
SPLIT_PADDING = 0.15
#: Of the learnt range, at either side: half-spaces in which the rows learnt from have no mass.
RANGE_PADDING = 0.25
#: Values further than this many times the spread of the middle 80% from it are not taken into the range.
TAIL = 3.0
#: Widths outside that the rows a range is learnt from can make usual at most.
FIRST_EXCESS = 30.0


class HalfSpaceTrees(ByName):
    r"""Rows in sparsely visited half-spaces are anomalous: score = 1 - normality, in [0, 1), higher is more anomalous.

    T random trees of height h halve the space h times. Each node counts the rows of the last full window that fell
    into it, r; a row's normality is sum over trees and path of r 2^depth, over its largest value, and the search
    stops at nodes with r < 0.1 window. The rows of the current window are counted aside and become the reference
    when the window is full, so the model adapts within two windows.

    Source: Tan, Ting, Liu: Fast Anomaly Detection for Streaming Data, IJCAI 2011; sum along the path as in River.
    With the same trees and values in range, scores equal River's bit by bit. Deviations, since telemetry is not in
    [0, 1], goes missing and changes:

    - Ranges are learnt. The first `window` rows are kept; `ready` is False and scores are 0 until then. A feature's
      range spans them without far outliers and is padded by a quarter on both sides. Splits take a uniformly random
      feature, then a uniformly random place in the middle 70% of what is left of its range.
    - Guards. A value e range widths outside multiplies normality by 1 / (1 + e / (1 + u)), where u is how far
      outside is usual; a missing value by min(1, (share missing so far + 1e-6) / 0.1). Trees alone see one feature
      of thirty on one path in four, and nothing of what never was. A row left with less than a tenth does not teach
      the trees: an incident does not become normal in a window. Missing values go to the heavier child.
    - Epochs of `window` rows end with an audit: guards widen towards the epoch's values by at most half a width,
      u grows to the furthest value outside, 1 + 2u at most, and the usual share of missing values follows by 2%, both
      only while no more than a tenth of the rows show it: an incident does not become usual. When most rows have
      left the trees' ranges, or a tenth was too strange to learn, for 20 epochs in a row, or when a feature unknown
      to the trees was in a tenth of the epoch's rows, the next epoch is kept and new trees grow from it at its end;
      until then the old ones score.

    Cost: time O(T h + k) a row, O(T h 2^h) at a window's end; memory 19 T 2^h bytes (121 kB for 25 x 8), window x k
    doubles more during warm-up. Units: those of the features do not matter, no scaling is needed.
    Invariants: scoring never mutates; same seed and stream, same scores, however the stream is cut into batches.

    Strange rows within the ranges are learnt, and are the reference two windows later: that is the model's forgetting.

    Parameters: `n_trees`, `height`, `window` (rows); `seed`; `optional`: features whose absence is no news. At most
    256 features are kept, the first that appear.
    """

    name = "half_space_trees"

    def __init__(self, n_trees: int = 25, height: int = 8, window: int = 250, seed: int = 42,
                 optional: Iterable[str] = ()) -> None:
        if window * (2 ** (height + 1) - 1) >= 2**31:
            raise ValueError(f"a window of {window} rows is too long for trees of height {height}: their sums of "
                             f"masses have 31 bits")
        super().__init__(seed, optional)
        self.n_trees = n_trees
        self.height = height
        self.window = window
        self.guards: FloatArray = np.zeros((k.GUARDS, 0))
        self.counts: CountArray = np.zeros(k.COUNTS, np.int64)
        self.feature: ColumnArray = np.zeros((n_trees, 0), np.uint8)
        self.split: FloatArray = np.zeros((n_trees, 0))
        self.reference: MassArray = self._masses(0)
        self.latest: MassArray = self._masses(0)
        self.paths: IntArray = np.zeros((n_trees, 0), np.int32)
        self.kept: list[FloatArray] = []
        self.counts[k.RELEARNING] = 1

    # -- River's interface ------------------------------------------------------------------------

    def score_one(self, x: Mapping[str, Any]) -> float:
        """The score of {feature: number or None}; 0 while not `ready`. Unknown features do not count."""
        if not self.ready:
            return 0.0
        row = self._row(x)
        return float(k.score_row(row, self.feature, self.split, self.reference, self.paths, self.guards,
                                 self.height, self.window))

    # -- batches ----------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """True once scores mean something."""
        return bool(self.counts[k.READY])

    @property
    def grown(self) -> bool:
        """There are trees."""
        return self.latest.size > 0

    def advance(self, rows: FloatArray, histogram: FloatArray, scalars: FloatArray
                ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Score, judge by a `QuantileThreshold`'s arrays, and learn; see `tree_kernels.run`.

        rows (n, k) with all k columns; brought to +-1e100 in place. Returns scores (n,), thresholds (n,) and
        contributions (n, k), of which only the rows of alarms are filled.
        """
        n = len(rows)
        scores, thresholds, contributions = np.zeros(n), np.ones(n), np.empty(rows.shape)
        if self.keep(rows):
            return scores, thresholds, contributions
        clamp(rows)
        lefts, learn, totals = np.empty(n), np.empty(n, np.int32), np.zeros(n, np.int64)
        at = 0
        while at < n:
            stop = min(n, at + self.window - int(self.counts[k.EPOCH_ROWS]))
            part = rows[at:stop]
            if self.counts[k.RELEARNING]:
                self.kept.append(part.copy())
            if self.grown:
                k.run(part, self.feature, self.split, self.reference, self.latest, self.paths, self.guards, self.counts,
                      self.height, self.window, histogram, scalars, lefts[at:stop], learn[at:stop], totals[at:stop],
                      scores[at:stop], thresholds[at:stop], contributions[at:stop])
            else:
                self.counts[k.EPOCH_ROWS] += stop - at
            if self.counts[k.EPOCH_ROWS] >= self.window:
                self._audit()
            at = stop
        return scores, thresholds, contributions

    def keep(self, rows: FloatArray) -> bool:
        """Keep the first rows (n, k), which have no score and no alarm. False: `advance` has to take them."""
        n = int(self.counts[k.EPOCH_ROWS]) + len(rows)
        if self.grown or n >= self.window:
            return False
        self.kept.append(rows.copy())
        self.counts[k.EPOCH_ROWS] = n
        return True

    def added(self) -> None:
        new = self.features[self.guards.shape[1]:]
        self.guards = np.hstack((self.guards, _fresh([name in self.optional for name in new])))

    # -- trees ------------------------------------------------------------------------------------

    def plant(self, feature: ColumnArray, split: FloatArray, limits: Mapping[str, tuple[float, float]]) -> None:
        """Use given trees (T, 2**h - 1) and ranges instead of learnt ones; learning starts at once."""
        for name, (low, high) in limits.items():
            column = self.column(name)
            self.guards[:, column] = _range(low, high, 0.0, low, name in self.optional)
        self.feature, self.split = np.asarray(feature, np.uint8), np.asarray(split, np.float64)
        self._clear()
        self.counts[:] = 0
        self.kept = []

    def restore(self, leaves: NDArray[Any]) -> None:
        """Grow the trees again, with the masses of their leaves (2, T, 2**h)."""
        self._grow()
        self._clear()
        self.reference[:, 2 ** self.height - 1:], self.latest[:] = leaves
        k.sum_up(self.reference, self.paths, self.window)

    def _clear(self) -> None:
        """No row has been counted."""
        leaves = 2 ** self.height
        self.reference, self.latest = self._masses(2 * leaves - 1), self._masses(leaves)
        self.paths = np.zeros((self.n_trees, leaves), np.int32)

    def _masses(self, nodes: int) -> MassArray:
        """As narrow as a window's rows allow."""
        return np.zeros((self.n_trees, nodes), np.uint16 if self.window < 2**16 else np.uint32)

    def _audit(self) -> None:
        """The end of an epoch: let guards follow, decide whether to grow new trees, grow them if decided before."""
        if self.counts[k.RELEARNING]:
            self.counts[k.RELEARNING] = 0
            self._relearn()
        else:
            k.follow(self.guards, self.counts)
        k.begin_epoch(self.guards, self.counts)

    def _relearn(self) -> None:
        """New ranges and trees from the rows kept; they are also the first reference."""
        rows = self.kept_rows()
        clamp(rows)
        self.kept = []
        usable = np.flatnonzero(~np.isnan(rows).all(axis=0))
        if not len(usable):
            self.counts[k.RELEARNING] = 1
            return
        for name, column in list(self.columns.items()):
            fresh = learnt_range(rows[:, column], name in self.optional) if column in usable else _fresh(
                [name in self.optional])[:, 0]
            self.guards[:, column] = fresh
        self.counts[k.GENERATION] += 1
        self.counts[k.STRAINED_EPOCHS] = 0
        self._grow()
        self._clear()
        k.search_and_teach(rows, np.ones(len(rows), np.int32), self.feature, self.split, self.reference,
                           self.latest, self.paths, np.zeros(len(rows), np.int64))
        k.pivot(self.reference, self.latest, self.paths, self.counts, self.window)

    def _grow(self) -> None:
        """The trees that seed, generation and ranges determine."""
        state = np.array([(self.seed * 0x9E3779B97F4A7C15 + int(self.counts[k.GENERATION])) % 2**64], np.uint64)
        inner = 2 ** self.height - 1
        self.feature = np.zeros((self.n_trees, inner), np.uint8)
        self.split = np.zeros((self.n_trees, inner))
        usable = np.flatnonzero(self.guards[k.USABLE]).astype(np.int64)
        k.grow(self.feature, self.split, self.guards[k.TREE_LOW].copy(), self.guards[k.TREE_HIGH].copy(), usable,
               SPLIT_PADDING, state)

    def kept_rows(self) -> FloatArray:
        """The rows kept, as one array of all columns: columns that appeared later are missing in earlier rows."""
        width = len(self.columns)
        if len(self.kept) == 1 and self.kept[0].shape[1] == width:
            return self.kept[0]
        rows = np.full((sum(len(part) for part in self.kept), width), np.nan)
        at = 0
        for part in self.kept:
            rows[at:at + len(part), :part.shape[1]] = part
            at += len(part)
        self.kept = [rows] if at else []
        return rows


def _fresh(optional: Sequence[bool]) -> FloatArray:
    """The guards (GUARDS, n) of columns without a range."""
    columns = np.zeros((k.GUARDS, len(optional)))
    columns[k.LEAST], columns[k.MOST], columns[k.WIDTH], columns[k.OPTIONAL] = np.inf, -np.inf, 1.0, optional
    return columns


def _range(low: float, high: float, missing_share: float, typical: float, optional: bool) -> FloatArray:
    column = _fresh([optional])[:, 0]
    column[[k.TREE_LOW, k.GUARD_LOW]], column[[k.TREE_HIGH, k.GUARD_HIGH]] = low, high
    column[k.WIDTH], column[k.MISSING_SHARE], column[k.TYPICAL], column[k.USABLE] = (
        high - low, missing_share, typical, 1.0)
    return column


def learnt_range(values: FloatArray, optional: bool) -> FloatArray:
    """The guards (GUARDS,) of a column from its first values (n,), NaN where missing, at least one present.

    The range spans the values within three times the spread of the middle 80% of it. Where the middle 80% is one
    value, its spread is the median distance of the others; where all are one value, the value itself, or 1 for 0.
    """
    present = np.sort(values[~np.isnan(values)])
    low_10, typical, high_90 = (float(present[int(q * (len(present) - 1))]) for q in (0.1, 0.5, 0.9))
    spread = high_90 - low_10
    if spread == 0.0:
        others = np.sort(np.abs(present[present != typical] - typical))
        spread = float(others[len(others) // 2]) if len(others) else 0.0
    low = max(float(present[0]), low_10 - TAIL * spread)
    high = min(float(present[-1]), high_90 + TAIL * spread)
    padding = RANGE_PADDING * (high - low)
    least = max(abs(low), abs(high)) * 1e-9
    if not padding > least:
        padding = 0.5 * abs(typical) or 0.5
    column = _range(low - padding, high + padding, 1.0 - len(present) / len(values), typical, optional)
    furthest = max(column[k.TREE_LOW] - present[0], present[-1] - column[k.TREE_HIGH]) / column[k.WIDTH]
    column[k.EXCESS] = min(max(furthest, 0.0), FIRST_EXCESS)
    return column


def seed_of(seed: int, key: str) -> int:
    """A seed for the detector of a key."""
    digest = hashlib.blake2b(f"{seed}\x1f{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


