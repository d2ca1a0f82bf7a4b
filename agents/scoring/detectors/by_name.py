"""Columns by name: what every detector does of River's interface, and of batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from river import base

from agents.scoring.detectors import kernels as k
from agents.scoring.detectors.kernels import FloatArray

MAX_FEATURES = 256
_NONE: FloatArray = np.zeros(0)


class ByName(base.AnomalyDetector):
    """Features by name in, rows of an array through: a detector writes `advance`, `score_one` and, if need be, `added`.

    Parameters: `seed`; `optional`: features whose absence is no news. At most 256 features are kept, the first that
    appear; others do not count.
    """

    def __init__(self, seed: int = 42, optional: Iterable[str] = ()) -> None:
        self.seed = seed
        self.optional = frozenset(optional)
        self.columns: dict[str, int] = {}

    @abstractmethod
    def advance(self, rows: FloatArray, histogram: FloatArray, scalars: FloatArray
                ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Score, judge by a `QuantileThreshold`'s arrays (empty: judge nothing), and learn rows (n, k) in order.

        rows have all k columns; they may be brought to +-1e100 in place. Returns scores (n,), thresholds (n,) and
        contributions (n, k), of which only the rows of alarms are filled.
        """

    def added(self) -> None:
        """There are new columns, the last ones: rows have `len(columns)` from now on."""

    @property
    def features(self) -> list[str]:
        """The names of the columns."""
        return list(self.columns)

    def column(self, name: str) -> int:
        """The column of a feature, a new one if need be; -1 when there are too many."""
        self.extend((name,))
        return self.columns.get(name, -1)

    def extend(self, names: Iterable[str]) -> None:
        """Add columns for the features that have none, in this order, while there is room."""
        new = [name for name in dict.fromkeys(names) if name not in self.columns][:MAX_FEATURES - len(self.columns)]
        if new:
            self.columns.update(zip(new, range(len(self.columns), MAX_FEATURES), strict=False))
            self.added()

    def learn_one(self, x: Mapping[str, Any]) -> None:
        """Learn {feature: number or None}."""
        for name in x:
            self.column(name)
        self.score_learn_many(self._row(x)[None, :])

    def score_learn_many(self, X: FloatArray) -> FloatArray:
        """Score, then learn each row of X (n, d) float64 in order; NaN: missing. Returns scores (n,).

        Columns are `features`; more columns than that get the names x0, x1, ... by their place.
        """
        for place in range(len(self.columns), X.shape[1]):
            self.column(f"x{place}")
        rows = np.full((len(X), len(self.columns)), np.nan)
        rows[:, :X.shape[1]] = X[:, :len(self.columns)]
        return self.advance(rows, _NONE, _NONE)[0]

    def _row(self, x: Mapping[str, Any]) -> FloatArray:
        """{feature: number or None} as a row (k,), within +-1e100."""
        row = np.full(len(self.columns), np.nan)
        for name, value in x.items():
            column = self.columns.get(name)
            if column is not None and value is not None:
                row[column] = value
        k.clamp(row)
        return row
