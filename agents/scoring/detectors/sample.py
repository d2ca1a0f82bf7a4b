"""A sample of the stream, and detectors that are functions of it: fitted anew at each block's end."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from agents.scoring.detectors import sample_kernels as s
from agents.scoring.detectors.base import Detector
from agents.scoring.detectors.kernels import FloatArray

#: Rows of a sample, and over how many of the last rows it is spread.
SIZE, HORIZON = 512, 8192
#: Rows before anything is fitted.
LEAST_ROWS = 4


class Sample:
    """A reservoir of 512 rows: a uniform sample of the first 8,192, biased towards newer rows from then on.

    Row number n enters with probability 512 / min(n, 8192), in the place of a random one, so that the age of the rows
    is exponential with a mean of 8,192. Source: Vitter, ACM TOMS 11 (1985), algorithm R; Aggarwal, VLDB 2006 (biased).
    Every choice is a function of seed and n.
    """

    def __init__(self, seed: int, size: int = SIZE, horizon: int = HORIZON) -> None:
        self.seed, self.size, self.horizon = seed, size, horizon
        self.count = 0
        self.rows: FloatArray = np.zeros((0, 0))
        self.scales: FloatArray = np.zeros((s.SCALES, 0))
        self.z: FloatArray = np.zeros((0, 0))

    @property
    def ready(self) -> bool:
        return len(self.rows) >= LEAST_ROWS and bool(self.scales[s.USABLE].any())

    def widen(self, columns: int) -> None:
        """Rows have that many columns now: the new ones were missing."""
        rows = np.full((len(self.rows), columns), np.nan)
        rows[:, :self.rows.shape[1]] = self.rows
        self.rows = rows
        scales = np.zeros((s.SCALES, columns))
        scales[s.SCALE], scales[s.TYPICAL], scales[s.MISSING] = 1.0, np.nan, 1.0
        scales[:, :self.scales.shape[1]] = self.scales
        self.scales = scales
        z = np.zeros((len(self.z), columns))
        z[:, :self.z.shape[1]] = self.z
        self.z = z

    def add(self, rows: FloatArray) -> None:
        """Take rows (n, k) in, and measure the columns anew."""
        draws = np.random.default_rng((self.seed % 2**64, self.count)).random(len(rows))
        room = min(len(rows), self.size - len(self.rows))
        self.rows = np.vstack((self.rows, rows[:room]))
        for i in range(room, len(rows)):
            place = int(draws[i] * min(self.count + i + 1, self.horizon))
            if place < self.size:
                self.rows[place] = rows[i]
        self.count += len(rows)
        self.measure()

    def measure(self) -> None:
        """Scales, and the rows in units of them."""
        if len(self.rows):
            self.scales = s.scales_of(self.rows)
            self.z = self.scaled(self.rows)

    def scaled(self, rows: FloatArray) -> FloatArray:
        """Rows (n, k) in units of their columns' scales, 0 where missing."""
        z = np.empty(rows.shape)
        s.scaled(rows, self.scales, z)
        return z

    def pack(self) -> dict[str, Any]:
        return {"sample": self.rows, "sample_count": np.array([self.count], np.int64)}

    def unpack(self, found: Mapping[str, Any]) -> None:
        rows, self.count = found["sample"], int(found["sample_count"][0])
        if rows.ndim != 2 or rows.shape[1] > self.rows.shape[1] or len(rows) > self.size:
            raise ValueError("the sample of the detector's snapshot has another shape")
        columns = self.rows.shape[1]
        self.rows = rows
        self.widen(columns)
        self.measure()


class SampleDetector(Detector):
    """A detector whose state is a function of a `Sample`. In an ensemble its members share one.

    A snapshot is the sample; it is fitted again when it is restored.
    """

    def __init__(self, seed: int = 42, optional: Iterable[str] = ()) -> None:
        super().__init__(seed, optional)
        self.sample = Sample(seed)
        self.fitted = False

    @abstractmethod
    def fit(self, sample: Sample) -> None:
        """Fit to a sample that is `ready`."""

    @abstractmethod
    def score_scaled(self, rows: FloatArray, z: FloatArray) -> FloatArray:
        """Scores (n,) of rows (n, k), also given in units of their columns' scales. Pure."""

    @property
    def ready(self) -> bool:
        return self.fitted

    def score_rows(self, rows: FloatArray) -> FloatArray:
        return self.score_scaled(rows, self.sample.scaled(rows))

    def learn_rows(self, rows: FloatArray, extras: FloatArray) -> None:
        self.sample.add(rows)
        self._fit()

    def _fit(self) -> None:
        self.fitted = self.sample.ready
        if self.fitted:
            self.fit(self.sample)

    def widen(self) -> None:
        self.sample.widen(self.width)
        self._fit()

    def renew(self) -> None:
        self.sample = Sample(self.seed)
        self.sample.widen(self.width)
        self.fitted = False

    def typical(self) -> FloatArray:
        return np.asarray(self.sample.scales[s.TYPICAL])

    def pack(self) -> dict[str, Any]:
        return self.sample.pack()

    def unpack(self, found: Mapping[str, Any]) -> None:
        self.sample.unpack(found)
        self._fit()
