"""Alarms that do not repeat themselves: after one, a rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.scoring.detectors.time_series import LEAST_THRESHOLD


@dataclass(slots=True)
class RestingAlarms:
    """A score above the threshold is an alarm, but for a rest after each.

    A rest lasts for a share of the rows seen so far, so that a stream in which all is new may warn often, and an old
    one does not repeat itself: at least `least_rows`, at most `most_rows`. What happens in a rest does not prolong it.
    A function of the scores so far, however they are cut.
    """

    threshold: float = LEAST_THRESHOLD
    share: float = 0.035
    least_rows: int = 30
    most_rows: int = 500
    #: Rows seen so far, and the row that may be an alarm next.
    rows: int = 0
    awake_at: int = 0

    def heard(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The scores (n,) of the next rows, 0 in a rest: those above the threshold are the alarms."""
        heard = np.array(scores, np.float64)
        heard[:max(0, self.awake_at - self.rows)] = 0.0
        for i in np.flatnonzero(heard > self.threshold).tolist():
            row = self.rows + i
            if row >= self.awake_at:
                self.awake_at = row + int(min(max(self.share * row, self.least_rows), self.most_rows))
                heard[i + 1:self.awake_at - self.rows] = 0.0
        self.rows += len(heard)
        return heard
