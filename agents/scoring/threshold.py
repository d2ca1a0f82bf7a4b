"""From scores to alarms: a streaming quantile of a detector's own past scores."""

from __future__ import annotations

import struct

import numpy as np

from agents.scoring.detectors import threshold_kernels as k
from agents.scoring.detectors.kernels import FloatArray

_HEAD = struct.Struct("<4s6dH")
_MAGIC = b"SGt1"


class QuantileThreshold:
    r"""The quantile q of past scores in [0, 1], prequential: ask `value`, then `observe` the score.

    A histogram over -log2(1 - score) with 8 buckets an octave (relative error of 1 - score at most 2**(1/8) - 1 =
    9%), halved whenever it weighs 20 / (1 - q) scores, so that the last 10 to 20 thousand count for q = 0.999.
    The threshold is the upper edge of the least bucket with at most a share 1 - q above it.

    Source: log-bucket quantile sketches (Masson, Rim, Lee: DDSketch, PVLDB 12, 2019) with exponential forgetting.
    Deviations, for alarms: (1) Before 1 / (1 - q) scores the quantile is the maximum; then 1 - threshold is half of
    the least 1 - score seen. Before 100 scores it is not `ready`, and 1. (2) Scores above the quantile count only while
    there is credit, which comes back at five times the expected rate 1 - q; those above the threshold count as one
    bucket above the quantile. So the threshold converges on calm streams, and an incident of thousands of events
    cannot pull it up behind itself.
    Cost: O(1) amortised, 2.6 kB. Units: none. Invariants: deterministic; a past decides, never the score judged;
    sums are of powers of two, so exact, so a snapshot continues bit by bit.
    """

    def __init__(self, quantile: float = 0.999) -> None:
        if not 0.0 < quantile < 1.0:
            raise ValueError(f"quantile is {quantile}: it must lie between 0 and 1")
        self.histogram: FloatArray = np.zeros(k.BUCKETS)
        self.scalars: FloatArray = np.zeros(6)
        self.scalars[k.QUANTILE], self.scalars[k.INDEX], self.scalars[k.CREDIT] = quantile, -1.0, k.MOST_CREDIT

    @property
    def quantile(self) -> float:
        return float(self.scalars[k.QUANTILE])

    def aim(self, quantile: float) -> None:
        """Another quantile from now on."""
        self.scalars[k.QUANTILE] = quantile

    @property
    def ready(self) -> bool:
        """True once alarms are possible."""
        return bool(self.scalars[k.SEEN] >= k.LEAST_SCORES)

    @property
    def value(self) -> float:
        """The threshold for the next score; an alarm is a score above it."""
        return float(k.threshold_of(self.scalars))

    def observe(self, score: float) -> None:
        """Take one score in."""
        k.observe_into(self.histogram, self.scalars, score)

    def encode(self) -> bytes:
        """magic "SGt1", the six scalars (float64), n (uint16), n buckets (uint16), their n weights (float64)."""
        used = np.flatnonzero(self.histogram)
        return b"".join((_HEAD.pack(_MAGIC, *self.scalars.tolist(), len(used)), used.astype("<u2").tobytes(),
                         self.histogram[used].astype("<f8").tobytes()))

    @classmethod
    def decode(cls, data: bytes) -> QuantileThreshold:
        """The threshold in the bytes.

        Raises:
            ValueError: cut short, or of another format.
        """
        if len(data) < _HEAD.size or data[:4] != _MAGIC:
            raise ValueError("not a threshold of format SGt1")
        _, *scalars, n = _HEAD.unpack_from(data)
        if len(data) != _HEAD.size + 10 * n:
            raise ValueError("the threshold is cut short")
        found = cls(scalars[k.QUANTILE])
        found.scalars[:] = scalars
        used = np.frombuffer(data, "<u2", n, _HEAD.size)
        if n and used.max() >= k.BUCKETS:
            raise ValueError("the threshold names a bucket that does not exist")
        found.histogram[used] = np.frombuffer(data, "<f8", n, _HEAD.size + 2 * n)
        return found
