"""Residuals of exponential smoothing with a daily season, robust: River's interface, compiled."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from agents.scoring.detectors import smoothing_kernels as k
from agents.scoring.detectors.clocked import Clocked
from agents.scoring.detectors.kernels import NO_TIME, FloatArray


class HoltWinters(Clocked):
    r"""A value is anomalous where it is far from what level, trend and time of day foretell: score in [0, 1).

    A column's score is the residual of its forecast l + b + s in scales, z = |x - l - b - s| / sigma; a row's is the
    root mean square r of its columns', as 1 - exp(-r). What is further than 2 sigma counts as 2 sigma for what is
    learnt, and sigma itself follows a bounded function of z, so what is anomalous hardly moves what must find it; a new
    level is followed within some 50 rows.

    The season has 96 slots of a quarter of an hour. Each is learnt once a day, from the mean of its rows, so that a
    sensor of one row a second and one of a row in five minutes have the same season. On the first day its slots' means
    are taken; until it has passed, and without a clock, there is no season.

    Source: Gelper, Fried, Croux: Robust forecasting with exponential and Holt-Winters smoothing, Journal of Forecasting
    29 (2010); alpha 0.1, beta 0.01, gamma 0.3, lambda 0.05, k 2. Deviations: slots, as above; the first scale is that
    of the first 48 residuals, scores are 0 until then.
    Cost: O(1) a value; 1 kB a column. Units: none is needed. Invariants: scoring never mutates; deterministic; any
    cutting into batches gives the same bits.
    """

    name: ClassVar[str] = "holt_winters"
    least_threshold: ClassVar[float] = float(-np.expm1(-4.0))
    axes: ClassVar = {"smooth": 0, "season": 0, "counts": None}
    fills: ClassVar = {"season": np.nan}

    def fresh(self) -> dict[str, Any]:
        return {"smooth": np.zeros((0, k.SMOOTH)), "season": np.zeros((0, k.SLOTS)),
                "counts": np.array([NO_TIME, NO_TIME, 0, 0], np.int64)}

    @property
    def ready(self) -> bool:
        """True once scores mean something: after 48 values of a column."""
        return bool((self.state["smooth"][:, k.ROWS] >= k.START).any())

    def room(self) -> int:
        return max(1, k.START - int(self.state["smooth"][:, k.ROWS].max(initial=0)))

    def step(self, rows: FloatArray, times: FloatArray, learning: bool, by_column: FloatArray, scores: FloatArray
             ) -> None:
        s = self.state
        k.run(rows, times, s["smooth"], s["season"], s["counts"], learning, by_column, scores)
