"""Which values of a hot feature are sketched, so that more events a pane do not cost more for ever.

The first `most` values of a field in a pane are sketched one by one. Of the next `most` one in two is, and stands for
two; of the next 2 `most` one in four, of the next 4 `most` one in eight, and so on: `most` / 2 more each time their
number doubles. Of each two, four, eight values that follow on one another one is taken, at a place that a hash of
their number chooses (stratified sampling: Cochran, Sampling Techniques, 1977, 5), so that nothing periodic in the
traffic is taken for all of it.

What is taken hangs on the place of a value among those of its field and pane in the log, and on nothing else: neither
on batches nor on load. Counts of a sketch still add up to the field's, but for the last few values: by less than
2 / `most` of them. Its q-quantile is off by the 1% of the bucket and by its rank, whose standard deviation is at most
sqrt(q (1 - q) / `most`): of the median by 0.8% of the values, where `most` is 4,096.
"""

from __future__ import annotations

import numpy as np

from streams.compiled import compiled

#: In place of a number of values: none is too many.
NEVER = 1 << 62
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)     # 2^64 / golden ratio: Knuth, TAOCP 3, 6.4 (multiplicative hashing)


@compiled
def weight(place: int, most: int) -> int:
    """How many values the one at this place (from 0) of its field and pane stands for; 0: it is left out."""
    if place < most:
        return 1
    first, bits = most, 1
    while place >= 2 * first:
        first, bits = 2 * first, bits + 1
    block, at = (place - first) >> bits, (place - first) & ((1 << bits) - 1)
    chosen = (np.uint64(block) * _MULTIPLIER) >> np.uint64(64 - bits)
    return 1 << bits if at == chosen else 0
