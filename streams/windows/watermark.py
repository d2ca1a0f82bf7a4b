"""The event-time watermark of a partition: how far time has come, as its events tell it.

    watermark = newest ts seen - delay

Lateness is judged per event, against the watermark as it stands *before* that event in the log, so that the verdict
does not depend on where batches are cut. An idle clock may move the watermark that *closes* panes; it never makes an
event too late. Milliseconds throughout.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Time = TypeVar("Time", int, IntArray)

#: `newest_ms` of a partition that has seen no event.
NEVER_MS = -(1 << 62)


def newest_before(ts_ms: IntArray, newest_ms: int) -> IntArray:
    """(n,) the newest ts in the log before each event; `newest_ms` is that before the first."""
    return np.maximum.accumulate(np.concatenate((np.array([newest_ms], np.int64), ts_ms[:-1])))


def too_late(ts_ms: IntArray, over_ms: IntArray, size_ms: int, grace_ms: int) -> NDArray[np.bool_]:
    """(n,) True for events whose pane of `size_ms` had ended, grace included, when they came.

    over_ms (n,): the watermark before each.
    """
    late: NDArray[np.bool_] = ts_ms - ts_ms % size_ms + size_ms + grace_ms <= over_ms
    return late


def closing_ms(newest_ms: Time, delay_ms: int, idle_ms: int = 0) -> Time:
    """Panes that end at or before this are closed; `idle_ms` is wall time gone by since the last event."""
    return newest_ms + idle_ms - delay_ms
