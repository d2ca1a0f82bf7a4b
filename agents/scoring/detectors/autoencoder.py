"""A small network that learns to give rows back; what it gives back badly is anomalous."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from agents.scoring.detectors.base import Detector
from agents.scoring.detectors.kernels import FloatArray
from streams.compiled import compiled

#: Rows of a step, and passes over a block.
STEP, PASSES = 16, 4
RATE, MOMENT, SQUARES, EPSILON = 0.01, 0.9, 0.999, 1e-8
#: Standard deviations beyond which a value counts by its logarithm.
BEND = 5.0
#: Rows that the running mean and variance weigh at most: they follow a stream that changes.
MEMORY = 8192.0


class OnlineAutoencoder(Detector):
    r"""Mean squared error of z against its reconstruction W2 tanh(W1 z + b1) + b2, with k // 2 hidden units.

    z is the row in units of its running mean and standard deviation. The weights take Adam's steps on the rows of each
    block that teach, in four passes of 16 rows a step. A feature's share of the score is its squared error.

    Source: Kingma, Ba: Adam, ICLR 2015; Welford, Technometrics 4 (1962) for the running moments. Deviations: the
    moments weigh at most 8,192 rows; values beyond five deviations count by their logarithm.
    Cost: O(k^2) a row to score, four times that to learn. Memory 8 k^2 doubles. Units: none. A missing value counts as
    the mean, and its error not.
    """

    name = "online_autoencoder"

    def __init__(self, seed: int = 42, optional: Iterable[str] = ()) -> None:
        super().__init__(seed, optional)
        self.moments: FloatArray = np.zeros((3, 0))         # weight, mean and M2 of each column
        self._start()

    def _start(self) -> None:
        width = self.width
        hidden = max(1, width // 2)
        rng = np.random.default_rng((self.seed % 2**64, width))
        parts = (rng.standard_normal((width, hidden)) / max(1.0, width) ** 0.5, np.zeros(hidden),
                 rng.standard_normal((hidden, width)) / hidden ** 0.5, np.zeros(width))
        weights = np.concatenate([part.ravel() for part in parts])
        self.network: FloatArray = np.stack((weights, np.zeros_like(weights), np.zeros_like(weights)))
        self.steps = 0

    @property
    def ready(self) -> bool:
        return self.steps > 0

    def score_rows(self, rows: FloatArray) -> FloatArray:
        errors = self.explain_rows(rows)
        return np.asarray(errors.sum(axis=1) / max(1, errors.shape[1]))

    def explain_rows(self, rows: FloatArray) -> FloatArray:
        out = np.empty(rows.shape)
        reconstruct(standardised(rows, self.moments), np.isnan(rows), self.network[0], max(1, rows.shape[1] // 2), out)
        return out

    def learn_rows(self, rows: FloatArray, extras: FloatArray) -> None:
        if not rows.size:
            return
        update(rows, self.moments, MEMORY)
        z = standardised(rows, self.moments)
        self.steps = int(train(z, self.network, max(1, z.shape[1] // 2), self.steps))

    def widen(self) -> None:
        moments = np.zeros((3, self.width))
        moments[:, :self.moments.shape[1]] = self.moments
        self.moments = moments
        self._start()

    def renew(self) -> None:
        self.moments[:] = 0.0
        self._start()

    def typical(self) -> FloatArray:
        return np.where(self.moments[0] > 0, self.moments[1], np.nan)

    def pack(self) -> dict[str, Any]:
        return {"moments": self.moments, "network": self.network, "steps": np.array([self.steps], np.int64)}

    def unpack(self, found: Mapping[str, Any]) -> None:
        if found["moments"].shape != self.moments.shape or found["network"].shape != self.network.shape:
            raise ValueError("the network's snapshot has another shape")
        self.moments, self.network, self.steps = found["moments"], found["network"], int(found["steps"][0])


@compiled
def update(rows: FloatArray, moments: FloatArray, memory: float) -> None:
    """Take rows (n, k) into the weight, mean and M2 of each column."""
    for i in range(rows.shape[0]):
        for f in range(rows.shape[1]):
            value = rows[i, f]
            if value != value:
                continue
            value = min(max(value, -1e50), 1e50)
            if moments[0, f] >= memory:
                moments[2, f] *= memory / (moments[0, f] + 1.0)
                moments[0, f] = memory - 1.0
            moments[0, f] += 1.0
            step = value - moments[1, f]
            moments[1, f] += step / moments[0, f]
            moments[2, f] += step * (value - moments[1, f])


@compiled
def standardised(rows: FloatArray, moments: FloatArray) -> FloatArray:
    """Rows (n, k) in standard deviations from the mean; 0 where missing."""
    z = np.zeros(rows.shape)
    for f in range(rows.shape[1]):
        if moments[0, f] < 2.0:
            continue
        mean = moments[1, f]
        deviation = np.sqrt(moments[2, f] / moments[0, f])
        if not deviation > 1e-9 * abs(mean):
            deviation = max(0.1 * abs(mean), 1e-12) if mean != 0.0 else 0.1
        for i in range(rows.shape[0]):
            value = rows[i, f]
            if value == value:
                away = (value - mean) / deviation
                size = abs(away)
                z[i, f] = away if size <= BEND else np.sign(away) * (BEND + np.log1p(size - BEND))
    return z


@compiled
def forward(z: FloatArray, w: FloatArray, hidden: int, h: FloatArray, y: FloatArray) -> None:
    """One row z (k,) through the weights: hidden values h, reconstruction y."""
    width = z.size
    second = width * hidden + hidden
    for j in range(hidden):
        total = w[width * hidden + j]
        for f in range(width):
            total += z[f] * w[f * hidden + j]
        h[j] = np.tanh(total)
    for f in range(width):
        total = w[second + hidden * width + f]
        for j in range(hidden):
            total += h[j] * w[second + j * width + f]
        y[f] = total


@compiled
def reconstruct(z: FloatArray, missing: FloatArray, w: FloatArray, hidden: int, out: FloatArray) -> None:
    """Fill out (n, k): squared errors, 0 where missing."""
    h, y = np.empty(hidden), np.empty(z.shape[1])
    for i in range(z.shape[0]):
        forward(z[i], w, hidden, h, y)
        for f in range(z.shape[1]):
            out[i, f] = 0.0 if missing[i, f] else (z[i, f] - y[f]) ** 2


@compiled
def train(z: FloatArray, network: FloatArray, hidden: int, steps: int) -> int:
    """Adam's steps over rows z (n, k). Returns how many steps there were in all."""
    n, width = z.shape
    second = width * hidden + hidden
    w, first_moment, second_moment = network[0], network[1], network[2]
    gradient, h, y, back = np.empty(w.size), np.empty(hidden), np.empty(width), np.empty(hidden)
    for _ in range(PASSES):
        for start in range(0, n, STEP):
            stop = min(n, start + STEP)
            gradient[:] = 0.0
            for i in range(start, stop):
                forward(z[i], w, hidden, h, y)
                back[:] = 0.0
                for f in range(width):
                    error = (y[f] - z[i, f]) / (stop - start)
                    gradient[second + hidden * width + f] += error
                    for j in range(hidden):
                        gradient[second + j * width + f] += error * h[j]
                        back[j] += error * w[second + j * width + f]
                for j in range(hidden):
                    slope = back[j] * (1.0 - h[j] * h[j])
                    gradient[width * hidden + j] += slope
                    for f in range(width):
                        gradient[f * hidden + j] += slope * z[i, f]
            steps += 1
            for p in range(w.size):
                first_moment[p] += (1.0 - MOMENT) * (gradient[p] - first_moment[p])
                second_moment[p] += (1.0 - SQUARES) * (gradient[p] ** 2 - second_moment[p])
                w[p] -= RATE * (first_moment[p] / (1.0 - MOMENT ** steps)) / (
                    np.sqrt(second_moment[p] / (1.0 - SQUARES ** steps)) + EPSILON)
    return steps
