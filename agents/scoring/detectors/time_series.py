"""Time series: a value against what was usual at this time of day, at several scales. River's interface, compiled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import numpy as np

from agents.scoring.detectors import arrays
from agents.scoring.detectors import series_kernels as k
from agents.scoring.detectors import threshold_kernels as judging
from agents.scoring.detectors.base import OtherSettings
from agents.scoring.detectors.by_name import ByName
from agents.scoring.detectors.kernels import FloatArray, clamp

#: The column that is the clock: epoch milliseconds. It is never scored.
TIME = "ts_ms"
#: The surprises of a row have the length 3.9: below it a score is no alarm. Chosen by `python -m tests.bench nab`.
LEAST_THRESHOLD = float(-np.expm1(-3.9))
#: The state, by column last but for `maxima`, `peak`, `tail`, `blocks` (first), `at`, `counts`, `step` (none).
_LAST = ("recent", "context", "last")
_FIRST = ("maxima", "peak", "tail", "blocks")


class TimeSeries(ByName):
    r"""A value is anomalous where it is further from its context than the past makes usual: score in [0, 1).

    Seven views of each value. Level: how far it lies outside the values of the last 3 days at this time of day, 6
    samples to either side, the highest and the lowest left out; the same with 7 days; the same of the means of the last
    4 and 12 rows. Shift: the same of the distance between the means of the last 24 rows and of the 24 before. Step: its
    difference to the value before. Spread: the standard deviation of the last 24 rows.

    Each view is made comparable by what its past makes usual. The last 200 blocks of 24 rows are kept by their
    largest view; those above their 80% quantile u are a tail, exponential with mean excess b, of which n were seen. The
    surprise of a view v is the -ln of its predictive probability, (n + 1) ln(1 + (v - u) / (n b)): the less was seen,
    the less surprising. A column's score is the length of the vector of its surprises, each 20 at most; a row's is the
    root mean square r of its columns', as 1 - exp(-r).

    So the views need no scale, and what happens every day, or in every block, is no anomaly. What was anomalous widens
    the tail and enters the context: the second time it is less of an anomaly, and a new level is usual within days.

    Source: peaks over a threshold after declustering by blocks (Coles: An Introduction to Statistical Modeling of
    Extreme Values, 2001, chapters 3 and 4), with the exponential tail's Bayesian predictive distribution; contextual
    anomalies by time of day. The choice of views is ours, by `python -m tests.bench nab`.
    Cost: O(150) comparisons a value, some 5 us; memory 75 kB a column, whatever the stream. Units: none is needed.
    Invariants: scoring never mutates; deterministic; any cutting into batches gives the same bits.

    The column `ts_ms`, if there is one, is the clock (`column("ts_ms")` before the first row, or a key of the mapping).
    At most one row in 150 s is kept as context, 2,048 in all: a week of five-minute samples. A time that goes back
    counts as the newest so far. Without a clock the context is the last 288 rows (2,016 for the long one). Missing
    values have no score and are not learnt.

    Parameters: `seed` and `optional` are taken as by other detectors, and change nothing: nothing is random, and what
    is missing is no news.
    """

    name: ClassVar[str] = "time_series"
    #: Give it the events' times in the column `ts_ms`.
    wants_time: ClassVar[bool] = True

    def __init__(self, seed: int = 42, optional: Iterable[str] = ()) -> None:
        super().__init__(seed, optional)
        self.state: dict[str, Any] = {
            "recent": np.zeros((k.RECENT, 0)), "context": np.zeros((k.CONTEXT, k.TRAITS, 0)),
            "at": np.zeros(k.CONTEXT, np.int64), "maxima": np.zeros((0, k.VIEWS, k.BLOCKS)),
            "peak": np.zeros((0, k.VIEWS)), "tail": np.zeros((0, k.VIEWS, 3)),
            "blocks": np.zeros((0, k.VIEWS), np.int64), "last": np.zeros(0),
            "counts": np.array([0, 0, k.NO_TIME], np.int64), "step": np.zeros(1)}

    # -- River's interface ------------------------------------------------------------------------

    def score_one(self, x: Mapping[str, Any]) -> float:
        """The score of {feature: number or None}; unknown features do not count."""
        return float(self.run(self._row(x)[None, :], learning=False)[0][0])

    # -- batches ----------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """True once scores mean something: after 8 blocks."""
        return bool((self.state["blocks"] >= k.LEAST_BLOCKS).any())

    def widen(self) -> None:
        for part in _LAST:
            old = self.state[part]
            self.state[part] = np.concatenate((old, np.full((*old.shape[:-1], 1), np.nan)), axis=-1)
        for part in _FIRST:
            old = self.state[part]
            new = np.full((1, *old.shape[1:]), np.nan if part == "peak" else 0, old.dtype)
            self.state[part] = np.concatenate((old, new))

    def advance(self, rows: FloatArray, histogram: FloatArray, scalars: FloatArray
                ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Score, judge by a `QuantileThreshold`'s arrays, and learn; as `HalfSpaceTrees.advance`.

        rows (n, k) with all k columns. Returns scores (n,), thresholds (n,), never below LEAST_THRESHOLD, and
        contributions (n, k), of which only the rows of alarms are filled: the squares of the columns' scores.
        """
        n, at = len(rows), 0
        scores, thresholds, by_column = np.zeros(n), np.ones(n), np.zeros(rows.shape)
        while at < n:
            ready = self.ready or not histogram.size                # it can only become so at the end of a block
            part = slice(at, n if ready else at + k.BLOCK - int(self.state["counts"][k.ROWS]) % k.BLOCK)
            scores[part], by_column[part] = self.run(rows[part], learning=True)
            if histogram.size and ready:
                for i in range(at, n):
                    thresholds[i] = max(judging.threshold_of(scalars), LEAST_THRESHOLD)
                    judging.observe_into(histogram, scalars, scores[i])
            at = part.stop
        alarms = scores > thresholds
        return scores, thresholds, np.where(alarms[:, None], np.nan_to_num(by_column) ** 2, 0.0)

    def run(self, rows: FloatArray, learning: bool) -> tuple[FloatArray, FloatArray]:
        """Scores (n,) of rows (n, k) with all k columns, and (n, k) those of each column: NaN where missing.

        The clock has none. Rows are brought to +-1e100 in place, and learnt if `learning`.
        """
        rows = np.ascontiguousarray(rows, np.float64)
        clamp(rows)
        n, width = rows.shape
        times, clock = np.full(n, np.nan), self.columns.get(TIME)
        if clock is not None:
            times = np.clip(rows[:, clock], k.NO_TIME, -k.NO_TIME)
            rows = rows.copy()
            rows[:, clock] = np.nan
        scores, by_column, s = np.zeros(n), np.full((n, width), np.nan), self.state
        k.run(rows, times, s["recent"], s["context"], s["at"], s["maxima"], s["peak"], s["tail"], s["blocks"],
              s["last"], s["counts"], s["step"], learning, np.zeros((width, k.VIEWS)), np.zeros((width, k.TRAITS)),
              np.zeros((k.WEEK_DAYS, 2), np.int64), np.zeros(k.BLOCKS), by_column, scores)
        return scores, by_column

    # -- snapshots --------------------------------------------------------------------------------

    def encode(self) -> bytes:
        """The detector as bytes: of the rings only what is filled, of the context only what is kept."""
        found = dict(self.state)
        found["context"] = found["context"][:self.state["counts"][k.SAMPLES]]
        found["at"] = found["at"][:self.state["counts"][k.SAMPLES]]
        found["maxima"] = found["maxima"][:, :, :int(self.state["blocks"].max(initial=0))]
        return arrays.encode(self.name, {"seed": str(self.seed), "optional": sorted(self.optional),
                                         "columns": self.features}, found)

    def restore(self, data: bytes) -> Self:
        """Continue from the bytes of a detector of the same kind, with the same scores.

        Raises:
            ValueError: cut short, or of another format; OtherSettings: of another kind or seed.
        """
        name, head, found = arrays.decode(data)
        if name != self.name or head.get("seed") != str(self.seed):
            raise OtherSettings(f"the snapshot is not of this {self.name}")
        fresh = type(self)(self.seed, head.get("optional", ()))
        for column in head.get("columns", ()):
            fresh.column(column)
        for part, whole in fresh.state.items():
            kept = found.get(part)
            if kept is None or kept.ndim != whole.ndim or any(
                    a > b for a, b in zip(kept.shape, whole.shape, strict=True)):
                raise ValueError(f"the {self.name}'s snapshot lacks {part}, or it has another shape")
            whole[tuple(slice(length) for length in kept.shape)] = kept
        self.columns, self.state, self.optional = fresh.columns, fresh.state, fresh.optional
        return self
