"""From scores to alarms and to what teaches, as loops over arrays, compiled. `threshold`, `calibration` and `base` say
what they compute.

Arrays of one threshold: histogram (BUCKETS,) and scalars (6,) float64, named below.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agents.scoring.detectors.kernels import FloatArray
from streams.compiled import bare

#: Buckets an octave of 1 - score, and octaves: scores nearer to 1 than 2**-40 share the last bucket.
RESOLUTION = 8
OCTAVES = 40
BUCKETS = RESOLUTION * OCTAVES
#: Scores before the first alarm can be.
LEAST_SCORES = 100
#: Buckets added to the largest score seen, while fewer than 1 / (1 - quantile) scores are known (a factor of 2).
EARLY_MARGIN = RESOLUTION
#: Buckets above the quantile that an alarm's score counts at most (a factor of 2 ** 0.125).
WINSOR = 1
#: Scores that may raise the threshold: this many times the expected rate, and this many at once.
CREDIT_RATE = 5.0
MOST_CREDIT = 2.0
#: The past is halved when it weighs this many times 1 / (1 - quantile).
MEMORY = 20.0
#: The upper edge of each bucket.
EDGES = 1.0 - 2.0 ** (-(np.arange(BUCKETS) + 1.0) / RESOLUTION)
#: Of `scalars`. INDEX: the quantile's bucket; ABOVE: what weighs above it.
QUANTILE, TOTAL, ABOVE, INDEX, CREDIT, SEEN = range(6)


@bare
def bucket_of(score: float) -> int:
    """The bucket of a score: equal steps of -log2(1 - score)."""
    rest = 1.0 - score
    if not rest > 2.0 ** -OCTAVES:
        return BUCKETS - 1
    return max(0, min(BUCKETS - 1, int(-np.log2(rest) * RESOLUTION)))


@bare
def alarm_bucket(scalars: FloatArray) -> int:
    """The last bucket that is still normal."""
    if scalars[SEEN] < LEAST_SCORES:
        return BUCKETS
    margin = EARLY_MARGIN if scalars[SEEN] * (1.0 - scalars[QUANTILE]) < 1.0 else 0
    return min(int(scalars[INDEX]) + margin, BUCKETS - 2)


@bare
def threshold_of(scalars: FloatArray) -> float:
    """Scores above it are alarms; 1 (which no score exceeds) before there are enough scores."""
    bucket = alarm_bucket(scalars)
    return 1.0 if bucket >= BUCKETS else float(EDGES[bucket])


@bare
def observe_into(histogram: FloatArray, scalars: FloatArray, score: float) -> None:
    """Take one score in. Changes both arrays."""
    rate = 1.0 - scalars[QUANTILE]
    bucket = bucket_of(score)
    alarm = alarm_bucket(scalars)
    scalars[SEEN] += 1.0
    scalars[CREDIT] = min(MOST_CREDIT, scalars[CREDIT] + CREDIT_RATE * rate)
    index, above = int(scalars[INDEX]), scalars[ABOVE]
    if bucket > index and alarm < BUCKETS:
        if scalars[CREDIT] < 1.0:
            return
        scalars[CREDIT] -= 1.0
        if bucket > alarm:
            bucket = min(index + WINSOR, BUCKETS - 1)
    histogram[bucket] += 1.0
    scalars[TOTAL] += 1.0
    if bucket > index:
        above += 1.0
    if scalars[TOTAL] * rate >= MEMORY:
        for i in range(BUCKETS):
            histogram[i] = 0.5 * histogram[i] if histogram[i] > 2.0 ** -8 else 0.0
        scalars[TOTAL], above = 0.0, 0.0
        for i in range(BUCKETS):
            scalars[TOTAL] += histogram[i]
            above += histogram[i] if i > index else 0.0
    allowed = rate * scalars[TOTAL]
    while above > allowed:
        index += 1
        above -= histogram[index]
    while index >= 0 and above + histogram[index] <= allowed:
        above += histogram[index]
        index -= 1
    scalars[INDEX], scalars[ABOVE] = float(index), above


@bare
def judge(scores: FloatArray, thresholds: FloatArray, histogram: FloatArray, scalars: FloatArray) -> None:
    """Scores (n,) in order: fill thresholds (n,), then observe."""
    for i in range(scores.size):
        thresholds[i] = threshold_of(scalars)
        observe_into(histogram, scalars, scores[i])


@bare
def surprise(scores: FloatArray, past: FloatArray, tail: float, out: FloatArray) -> None:
    """-log p of scores (n,) against past ones (m,), ascending; see `Calibration`."""
    m = past.size
    for i in range(scores.size):
        low, high = 0, m
        while low < high:
            middle = (low + high) // 2
            if past[middle] < scores[i]:
                low = middle + 1
            else:
                high = middle
        out[i] = np.log((m + 1.0) / (m - low + 1.0))
        if low == m:
            out[i] += np.log1p((scores[i] - past[m - 1]) / tail)


@bare
def spend(strange: NDArray[np.bool_], counts: NDArray[np.bool_], credit: float, income: float, most: float) -> float:
    """Which rows (n,) count: the usual ones, and strange ones while there is credit. Returns the credit left."""
    for i in range(strange.size):
        if not strange[i]:
            credit = min(most, credit + income)
            continue
        counts[i] = credit >= 1.0
        if counts[i]:
            credit -= 1.0
    return credit
