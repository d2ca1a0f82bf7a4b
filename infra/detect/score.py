"""Scores and alarms of a file, online: each row is scored before it is learnt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.scoring.detectors import registry
from agents.scoring.detectors.by_name import MAX_FEATURES
from agents.scoring.detectors.clocked import TIME, Clocked
from agents.scoring.detectors.time_series import LEAST_THRESHOLD, TimeSeries
from agents.scoring.resting import RestingAlarms
from agents.scoring.threshold import QuantileThreshold
from infra.detect.table import Array, Series

CHUNK_ROWS = 2_048
SHOWN_COLUMNS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Scores and thresholds (n,), alarms (n,), and how much each column pushed the score of an alarm (n, k)."""

    scores: Array
    thresholds: Array
    alarms: NDArray[np.bool_]
    pushes: Array

    def pushed(self, row: int, columns: Sequence[str]) -> list[tuple[str, float]]:
        """The columns that pushed an alarm most, with their shares."""
        pushes, total = self.pushes[row], float(self.pushes[row].sum())
        order = np.argsort(-pushes, kind="stable")[:SHOWN_COLUMNS].tolist() if total > 0.0 else []
        return [(columns[f], float(pushes[f]) / total) for f in order if pushes[f] >= 0.05 * total]


def detect(series: Series, names: Sequence[str], threshold: float | None, quantile: float,
           tell: Callable[[int, int], None]) -> Found:
    """Score the series with detectors by name; `tell` is called with rows done and their number.

    `time_series` alone warns by a fixed threshold and rests after each alarm, others by a quantile of their past
    scores; a threshold that is given replaces either.

    Raises:
        ValueError: no such detector, or more columns than it takes.
    """
    judge = _TimeSeries(threshold) if tuple(names) == (TimeSeries.name,) else _Quantile(names, threshold, quantile)
    if min(judge.detector.column(name) for name in series.columns) < 0:
        raise ValueError(f"{len(series.columns)} columns are more than a detector takes ({MAX_FEATURES} with the "
                         "time): name some by --columns")
    n = len(series.values)
    parts = []
    for start in range(0, n, CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        parts.append(judge.take(series.values[part], series.ts_ms[part]))
        tell(min(n, start + CHUNK_ROWS), n)
    scores, thresholds, alarms, pushes = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return Found(scores, thresholds, alarms, pushes)


class _TimeSeries:
    """The detector for time series, and alarms that rest."""

    def __init__(self, threshold: float | None) -> None:
        self.detector: Any = TimeSeries()
        self.detector.column(TIME)
        self.rule = RestingAlarms(LEAST_THRESHOLD if threshold is None else threshold)

    def take(self, values: Array, ts_ms: Array) -> tuple[Array, Array, NDArray[np.bool_], Array]:
        scores, by_column = self.detector.run(np.column_stack((ts_ms, values)), learning=True)
        alarms = self.rule.heard(scores) > self.rule.threshold
        return scores, np.full(len(scores), self.rule.threshold), alarms, np.nan_to_num(by_column[:, 1:]) ** 2


class _Quantile:
    """Any other detector, and the quantile of its past scores."""

    def __init__(self, names: Sequence[str], threshold: float | None, quantile: float) -> None:
        self.detector: Any = registry.make(names)
        self.clocked = isinstance(self.detector, Clocked)
        if self.clocked:
            self.detector.column(TIME)
        self.rule, self.threshold = QuantileThreshold(quantile), threshold

    def take(self, values: Array, ts_ms: Array) -> tuple[Array, Array, NDArray[np.bool_], Array]:
        rows = np.column_stack((ts_ms, values)) if self.clocked else values.copy()
        scores, thresholds, pushes = self.detector.advance(rows, self.rule.histogram, self.rule.scalars)
        pushes = pushes[:, rows.shape[1] - values.shape[1]:]
        if self.threshold is not None:
            thresholds = np.full(len(scores), self.threshold)
        alarms = scores > thresholds
        return scores, thresholds, alarms, np.where(alarms[:, None], pushes, 0.0)
