r"""A log-bucket quantile sketch with a relative error of at most 1%.

A value v > 0 goes to bucket i = ceil(log_gamma v), gamma = (1 + a) / (1 - a), a = 0.01; the bucket answers with
2 gamma^i / (gamma + 1), which is off by at most a v. Negative values mirror it, zero has its own bucket. Buckets are
coded as one integer that ascends with the value: sign(v) * (i + BIAS), and 0 for zero. Merging adds counts.

Source: Masson, Rim, Lee: DDSketch, VLDB 2019. Deviation: when a sketch outgrows `MAX_BUCKETS`, its lowest buckets
collapse into one, so that low quantiles lose their bound first.
Cost: one logarithm a value. Units: as the values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

RELATIVE_ERROR = 0.01
GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
LOG_GAMMA = math.log(GAMMA)
#: Above every |i| a finite double can have.
BIAS = 40_000
#: Larger than every code; codes + SPAN are positive.
SPAN = 1 << 17
MAX_BUCKETS = 1_024

IntArray = NDArray[np.int64]


@njit(cache=True)
def bucket(value: float) -> int:
    """The code of the bucket that a finite value falls into."""
    if value == 0.0:
        return 0
    index = int(math.ceil(math.log(abs(value)) / LOG_GAMMA)) + BIAS  # noqa: RUF046  (a float in numba)
    return index if value > 0.0 else -index


def bucket_value(code: int) -> float:
    """The value that a bucket stands for."""
    if code == 0:
        return 0.0
    exponent = (abs(code) - BIAS) * LOG_GAMMA + math.log(2 / (GAMMA + 1))
    return math.copysign(math.exp(min(exponent, 709.78)), code)


def quantile(buckets: Sequence[tuple[int, int]], q: float) -> float | None:
    """The q-quantile (0 to 1) of a sketch as (code, count) ascending; None of an empty one.

    Within 1% of the value at rank floor(q * (n - 1)).
    """
    rank = q * (sum(count for _, count in buckets) - 1)
    seen = 0
    for code, count in buckets:
        seen += count
        if seen > rank:
            return bucket_value(code)
    return None


def collapse(codes: IntArray, counts: IntArray) -> tuple[IntArray, IntArray]:
    """At most MAX_BUCKETS buckets: the lowest ones become one, where the lowest that stays was."""
    extra = len(codes) - MAX_BUCKETS
    if extra <= 0:
        return codes, counts
    kept = counts[extra:].copy()
    kept[0] += counts[:extra].sum()
    return codes[extra:], kept
