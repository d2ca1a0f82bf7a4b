"""How soon a change of errors can be found at all: by a CUSUM that knows the share of errors before it and after it.

No detector of the same rate of false alarms finds an abrupt change sooner on average in the worst case (Moustakides,
Ann. Stat. 14, 1986); and none has both shares given. Where a change is gradual, it is told the share at its end.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from agents.drift.detectors.base import FloatArray, IntArray
from streams.compiled import compiled
from tests.bench.drift_streams import Episode

#: Evidence at which it alarms; false alarms are interpolated between.
HEIGHTS = tuple(1.5 + step / 2 for step in range(16))
_LEAST = 1e-3


class Informed:
    """The CUSUM of one episode."""

    def __init__(self, episode: Episode, height: float) -> None:
        before, after = (min(0.999, max(0.001, float(part.mean()))) for part in (episode.calm, episode.changed))
        self._state = np.zeros(1)
        self._steps = math.log((1 - after) / (1 - before)), math.log(after / before)
        self._height = height

    def update_many(self, values: FloatArray) -> IntArray:
        alarms = np.empty(len(values), np.int64)
        return alarms[:_run(self._state, *self._steps, self._height, values, alarms)].copy()


@compiled
def _run(state: FloatArray, zero: float, one: float, height: float, values: FloatArray, alarms: IntArray) -> int:
    found = 0
    for i in range(len(values)):
        state[0] = max(0.0, state[0] + (one if values[i] > 0.5 else zero))
        if state[0] > height:
            state[0] = 0.0
            alarms[found] = i
            found += 1
    return found


def delay_at(levels: list[dict[str, Any]], stream: str, false_per_10k: float) -> float:
    """Its mean delay on a stream at that rate of false alarms; `levels` are summaries, one a height."""
    rates = [math.log(max(_LEAST, level["streams"][stream]["false_per_10k"])) for level in levels]
    delays = [level["streams"][stream]["delay_mean"] for level in levels]
    return round(float(np.interp(-math.log(max(_LEAST, false_per_10k)), [-rate for rate in rates], delays)), 1)
