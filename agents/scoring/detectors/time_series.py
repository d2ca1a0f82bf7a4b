"""Time series: a value against what was usual at this time of day, at several scales. River's interface, compiled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Self

import numpy as np

from agents.scoring.detectors import series_kernels as k
from agents.scoring.detectors.clocked import TIME, Clocked
from agents.scoring.detectors.kernels import NO_TIME, FloatArray

__all__ = ["LEAST_THRESHOLD", "TIME", "TimeSeries"]

#: The surprises of a row have the length 3.75: below it a score is no alarm. Chosen by `python -m tests.bench nab`.
LEAST_THRESHOLD = float(-np.expm1(-3.75))


class TimeSeries(Clocked):
    r"""A value is anomalous where it is further from its context than the past makes usual: score in [0, 1).

    Seven views of each value. Level: how far it lies outside the values of the last 3 days at this time of day, 6
    samples to either side, the highest and the lowest left out; the same with 7 days; the same of the means of the last
    3 and 8 rows. Shift: the same of the distance between the means of the last 24 rows and of the 24 before. Step: its
    difference to the value before. Spread: the standard deviation of the last 24 rows.

    Each view is made comparable by what its past makes usual. The blocks of 24 rows that begin every 3 rows in the last
    4,800 are kept by their largest view; those above their 80% quantile u are a tail, exponential with mean excess b;
    that of n blocks, overlapping ones counted once. The surprise of a view v is the -ln of its predictive probability,
    (n + 1) ln(1 + (v - u) / (n b)): the less was seen, the less surprising. A column's score is the length of the
    vector of its surprises, each 20 at most, that of the level (which is looked at twice) times 0.65; a row's is the
    root mean square r of its columns', as 1 - exp(-r).

    So the views need no scale, and what happens every day, or in every block, is no anomaly. What was anomalous widens
    the tail and enters the context: the second time it is less of an anomaly, and a new level is usual within days.

    Source: peaks over a threshold after declustering by blocks (Coles: An Introduction to Statistical Modeling of
    Extreme Values, 2001, chapters 3 and 4), with the exponential tail's Bayesian predictive distribution; maxima of
    sliding blocks vary less than those of disjoint ones (Buecher, Segers: Inference for heavy tailed stationary time
    series based on sliding blocks, Electronic Journal of Statistics 12, 2018); contextual anomalies by time of day. The
    choice of views is ours, by `python -m tests.bench nab`.
    Cost: O(150) comparisons a value and O(1,000) moves a block; memory 250 kB a column, of which a snapshot has 155,
    whatever the stream. Units: none is needed.
    Invariants: scoring never mutates; deterministic; any cutting into batches gives the same bits.

    At most one row in 150 s is kept as context, 2,048 in all: a week of five-minute samples. A time that goes back
    counts as the newest so far. Without a clock the context is the last 288 rows (2,016 for the long one).
    """

    name: ClassVar[str] = "time_series"
    least_threshold = LEAST_THRESHOLD
    axes: ClassVar = {"recent": -1, "context": -1, "last": -1, "maxima": 0, "parts": 0, "peak": 0, "tail": 0,
                      "blocks": 0, "at": None, "counts": None, "step": None}
    fills: ClassVar = {"recent": np.nan, "context": np.nan, "last": np.nan, "parts": np.nan, "peak": np.nan}

    def __init__(self, seed: int = 42, optional: Iterable[str] = ()) -> None:
        super().__init__(seed, optional)
        self.ordered = np.zeros((0, k.VIEWS, k.MAXIMA))

    def fresh(self) -> dict[str, Any]:
        return {"recent": np.zeros((k.RECENT, 0)), "context": np.zeros((k.CONTEXT, k.TRAITS, 0)),
                "at": np.zeros(k.CONTEXT, np.int64), "maxima": np.zeros((0, k.VIEWS, k.MAXIMA)),
                "parts": np.zeros((0, k.VIEWS, k.BEGINNINGS)), "peak": np.zeros((0, k.VIEWS)),
                "tail": np.zeros((0, k.VIEWS, 3)), "blocks": np.zeros((0, k.VIEWS), np.int64), "last": np.zeros(0),
                "counts": np.array([0, 0, NO_TIME], np.int64), "step": np.zeros(1)}

    @property
    def ready(self) -> bool:
        """True once scores mean something: after 8 blocks."""
        return bool((self.state["blocks"] >= k.LEAST_BLOCKS * k.BEGINNINGS).any())

    def room(self) -> int:
        return k.PART - int(self.state["counts"][k.ROWS]) % k.PART

    def added(self) -> None:
        super().added()
        self._order()

    def step(self, rows: FloatArray, times: FloatArray, learning: bool, by_column: FloatArray, scores: FloatArray
             ) -> None:
        s, width = self.state, rows.shape[1]
        k.run(rows, times, s["recent"], s["context"], s["at"], s["maxima"], self.ordered, s["parts"], s["peak"],
              s["tail"], s["blocks"], s["last"], s["counts"], s["step"], learning, np.zeros((width, k.VIEWS)),
              np.zeros((width, k.TRAITS)), np.zeros((k.WEEK_DAYS, 2), np.int64), by_column, scores)

    def kept(self) -> dict[str, Any]:
        """Of the rings only what is filled, of the context only what is kept."""
        found, samples = dict(self.state), int(self.state["counts"][k.SAMPLES])
        found["context"], found["at"] = found["context"][:samples], found["at"][:samples]
        found["maxima"] = found["maxima"][:, :, :int(self.state["blocks"].max(initial=0))]
        return found

    def restore(self, data: bytes) -> Self:
        """As `Clocked.restore`."""
        super().restore(data)
        self._order()
        return self

    def _order(self) -> None:
        """What is not filled comes last."""
        maxima, filled = self.state["maxima"], self.state["blocks"][:, :, None]
        self.ordered = np.sort(np.where(np.arange(k.MAXIMA) < filled, maxima, np.inf), axis=-1)
