"""What detectors of series share: a clock among the columns, state as arrays by name, judging row by row, snapshots."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import numpy as np

from agents.scoring.detectors import arrays
from agents.scoring.detectors import threshold_kernels as judging
from agents.scoring.detectors.base import OtherSettings
from agents.scoring.detectors.by_name import ByName
from agents.scoring.detectors.kernels import NO_TIME, FloatArray, clamp

#: The column that is the clock: epoch milliseconds. It is never scored.
TIME = "ts_ms"


class Clocked(ByName):
    """Each row is scored against the rows before it, then learnt: a detector writes `fresh`, `step`, `room`, `ready`.

    The column `ts_ms`, if there is one, is the clock (`column("ts_ms")` before the first row, or a key of the mapping).
    Missing values have no score and are not learnt.

    Parameters: `seed` and `optional` are taken as by other detectors, and change nothing: nothing is random, and what
    is missing is no news.
    """

    name: ClassVar[str]
    #: Scores below it are no alarm.
    least_threshold: ClassVar[float]
    #: Which axis of each part of the state is that of the columns, if any, and what a new column begins with.
    axes: ClassVar[Mapping[str, int | None]]
    fills: ClassVar[Mapping[str, float]] = {}

    def __init__(self, seed: int = 42, optional: Iterable[str] = ()) -> None:
        super().__init__(seed, optional)
        self.state = self.fresh()

    @abstractmethod
    def fresh(self) -> dict[str, Any]:
        """The state of no columns: arrays by the names of `axes`."""

    @abstractmethod
    def step(self, rows: FloatArray, times: FloatArray, learning: bool, by_column: FloatArray, scores: FloatArray
             ) -> None:
        """Fill scores (n,) and by_column (n, k), NaN where missing, of clamped rows (n, k); learn them if `learning`.

        times (n,) in ms, within +-2**60; NaN: no clock.
        """

    @abstractmethod
    def room(self) -> int:
        """Rows, at least 1, in which it does not become `ready`, but with the last of them."""

    @property
    @abstractmethod
    def ready(self) -> bool:
        """True once scores mean something."""

    def kept(self) -> dict[str, Any]:
        """The state without what is not filled."""
        return self.state

    def added(self) -> None:
        for part, axis in self.axes.items():
            if axis is not None:
                old = self.state[part]
                shape = list(old.shape)
                shape[axis] = len(self.columns) - shape[axis]
                new = np.full(shape, self.fills.get(part, 0), old.dtype)
                self.state[part] = np.concatenate((old, new), axis=axis)

    def score_one(self, x: Mapping[str, Any]) -> float:
        """The score of {feature: number or None}; unknown features do not count."""
        return float(self.run(self._row(x)[None, :], learning=False)[0][0])

    def advance(self, rows: FloatArray, histogram: FloatArray, scalars: FloatArray
                ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """As `ByName.advance`. Thresholds are never below `least_threshold`; contributions are the squares of the
        columns' scores."""
        n, at = len(rows), 0
        scores, thresholds, by_column = np.zeros(n), np.ones(n), np.zeros(rows.shape)
        while at < n:
            ready = self.ready
            part = slice(at, n if ready or not histogram.size else at + self.room())
            scores[part], by_column[part] = self.run(rows[part], learning=True)
            if histogram.size and ready:
                for i in range(at, n):
                    thresholds[i] = max(judging.threshold_of(scalars), self.least_threshold)
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
        times, clock = np.full(len(rows), np.nan), self.columns.get(TIME)
        if clock is not None:
            times = np.clip(rows[:, clock], NO_TIME, -NO_TIME)
            rows = rows.copy()
            rows[:, clock] = np.nan
        scores, by_column = np.zeros(len(rows)), np.full(rows.shape, np.nan)
        self.step(rows, times, learning, by_column, scores)
        return scores, by_column

    def encode(self) -> bytes:
        """The detector as bytes."""
        return arrays.encode(self.name, {"seed": str(self.seed), "optional": sorted(self.optional),
                                         "columns": self.features}, self.kept())

    def restore(self, data: bytes) -> Self:
        """Continue from the bytes of a detector of the same kind, with the same scores.

        Raises:
            ValueError: cut short, or of another format; OtherSettings: of another kind or seed, or of other arrays.
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
                raise OtherSettings(f"the {self.name}'s snapshot lacks {part}, or it has another shape")
            whole[tuple(slice(length) for length in kept.shape)] = kept
        self.columns, self.state, self.optional = fresh.columns, fresh.state, fresh.optional
        return self
