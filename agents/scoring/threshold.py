"""From scores to alarms: a streaming quantile of a detector's own past scores."""

from __future__ import annotations

import struct

import numpy as np
from numba import njit
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

#: Buckets an octave of 1 - score, and octaves: scores nearer to 1 than 2**-40 share the last bucket.
RESOLUTION = 8
OCTAVES = 40
BUCKETS = RESOLUTION * OCTAVES
#: Scores before the first alarm can be.
LEAST_SCORES = 100
#: Buckets added to the largest score seen, while fewer than 1 / (1 - quantile) scores are known (a factor of 2).
EARLY_MARGIN = RESOLUTION
#: How far above the threshold an alarm's score counts at most (a factor of 2 ** 0.25).
WINSOR = RESOLUTION // 4
#: Alarms that may raise the threshold: this many times the expected rate, and this many at once.
CREDIT_RATE = 5.0
MOST_CREDIT = 3.0
#: The past is halved when it weighs this many times 1 / (1 - quantile).
MEMORY = 20.0

QUANTILE, TOTAL, ABOVE, INDEX, CREDIT, SEEN = range(6)
_HEAD = struct.Struct("<4s6dH")
_MAGIC = b"SGt1"


@njit(cache=True, error_model="numpy")
def bucket_of(score: float) -> int:
    """The bucket of a score: equal steps of -log2(1 - score)."""
    rest = 1.0 - score
    if not rest > 2.0 ** -OCTAVES:
        return BUCKETS - 1
    return max(0, min(BUCKETS - 1, int(-np.log2(rest) * RESOLUTION)))


@njit(cache=True, error_model="numpy")
def alarm_bucket(scalars: FloatArray) -> int:
    """The last bucket that is still normal."""
    if scalars[SEEN] < LEAST_SCORES:
        return BUCKETS
    margin = EARLY_MARGIN if scalars[SEEN] * (1.0 - scalars[QUANTILE]) < 1.0 else 0
    return min(int(scalars[INDEX]) + margin, BUCKETS - 2)


@njit(cache=True, error_model="numpy")
def threshold_of(scalars: FloatArray) -> float:
    """Scores above it are alarms; 1 (which no score exceeds) before there are enough scores."""
    bucket = alarm_bucket(scalars)
    return 1.0 if bucket >= BUCKETS else 1.0 - 2.0 ** (-(bucket + 1) / RESOLUTION)


@njit(cache=True, error_model="numpy")
def observe_into(histogram: FloatArray, scalars: FloatArray, score: float) -> None:
    """Take one score in. Changes both arrays."""
    rate = 1.0 - scalars[QUANTILE]
    bucket = bucket_of(score)
    alarm = alarm_bucket(scalars)
    scalars[SEEN] += 1.0
    scalars[CREDIT] = min(MOST_CREDIT, scalars[CREDIT] + CREDIT_RATE * rate)
    if bucket > alarm:
        if scalars[CREDIT] < 1.0:
            return
        scalars[CREDIT] -= 1.0
        bucket = min(bucket, int(scalars[INDEX]) + WINSOR, BUCKETS - 1)
    index, above = int(scalars[INDEX]), scalars[ABOVE]
    histogram[bucket] += 1.0
    scalars[TOTAL] += 1.0
    if bucket > index:
        above += 1.0
    if scalars[TOTAL] * rate >= MEMORY:
        for i in range(BUCKETS):
            histogram[i] = 0.5 * histogram[i] if histogram[i] > 2.0 ** -8 else 0.0
        scalars[TOTAL] = histogram.sum()
        above = histogram[index + 1:].sum()
    allowed = rate * scalars[TOTAL]
    while above > allowed:
        index += 1
        above -= histogram[index]
    while index >= 0 and above + histogram[index] <= allowed:
        above += histogram[index]
        index -= 1
    scalars[INDEX], scalars[ABOVE] = float(index), above


class QuantileThreshold:
    r"""The quantile q of past scores in [0, 1], prequential: ask `value`, then `observe` the score.

    A histogram over -log2(1 - score) with 8 buckets an octave (relative error of 1 - score at most 2**(1/8) - 1 =
    9%), halved whenever it weighs 20 / (1 - q) scores, so that the last 10 to 20 thousand count for q = 0.999.
    The threshold is the upper edge of the least bucket with at most a share 1 - q above it.

    Source: log-bucket quantile sketches (Masson, Rim, Lee: DDSketch, PVLDB 12, 2019) with exponential forgetting.
    Deviations, for alarms: (1) Before 1 / (1 - q) scores the quantile is the maximum; then 1 - threshold is half of
    the least 1 - score seen. Before 100 scores it is not `ready`, and 1. (2) Scores above the threshold count only
    while there is credit, which comes back at five times the expected rate 1 - q, and then a quarter of an octave
    above the quantile at most. So the threshold converges on calm streams, and an incident of thousands of events
    cannot pull it up behind itself.
    Cost: O(1) amortised, 2.6 kB. Units: none. Invariants: deterministic; a past decides, never the score judged;
    sums are of powers of two, so exact, so a snapshot continues bit by bit.
    """

    def __init__(self, quantile: float = 0.999) -> None:
        if not 0.0 < quantile < 1.0:
            raise ValueError(f"quantile is {quantile}: it must lie between 0 and 1")
        self.histogram: FloatArray = np.zeros(BUCKETS)
        self.scalars: FloatArray = np.zeros(6)
        self.scalars[QUANTILE], self.scalars[INDEX], self.scalars[CREDIT] = quantile, -1.0, MOST_CREDIT

    @property
    def quantile(self) -> float:
        return float(self.scalars[QUANTILE])

    @property
    def ready(self) -> bool:
        """True once alarms are possible."""
        return bool(self.scalars[SEEN] >= LEAST_SCORES)

    @property
    def value(self) -> float:
        """The threshold for the next score; an alarm is a score above it."""
        return float(threshold_of(self.scalars))

    def observe(self, score: float) -> None:
        """Take one score in."""
        observe_into(self.histogram, self.scalars, score)

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
        found = cls(scalars[QUANTILE])
        found.scalars[:] = scalars
        used = np.frombuffer(data, "<u2", n, _HEAD.size)
        if n and used.max() >= BUCKETS:
            raise ValueError("the threshold names a bucket that does not exist")
        found.histogram[used] = np.frombuffer(data, "<f8", n, _HEAD.size + 2 * n)
        return found
