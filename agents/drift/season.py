"""What is usual at an hour of the day (UTC), from earlier days: a change that comes every day is no drift.

The mean of each hour, averaged over days with a weight of a quarter for the newest from the fourth on. Points count
only while the statistic is not drifted, and an hour only once it is over. Means are of logarithms where a lens reads
those; if that changes, what was known is forgotten. Cost: at most 24 small rows a statistic.
"""

from __future__ import annotations

import math

import msgspec

HOUR_MS = 3_600_000
#: Days of an hour that make its level a usual one, and days that its mean remembers.
LEAST_DAYS, MOST_DAYS = 2, 4


class Usual(msgspec.Struct, array_like=True):
    """`hours`: hour of the day -> (days, mean). Of the hour under way: its number since 1970, events, their mean."""

    hours: dict[int, tuple[int, float]] = {}
    hour: int = -1
    n: int = 0
    mean: float = 0.0
    log: bool = False

    def add(self, start_ms: int, n: int, mean: float, log: bool) -> None:
        """Take in a point that is not drifted."""
        if log != self.log:
            self.hours, self.hour, self.n, self.mean, self.log = {}, -1, 0, 0.0, log
        hour = start_ms // HOUR_MS
        if hour != self.hour:
            self._close()
            self.hour, self.n, self.mean = hour, 0, 0.0
        self.n += n
        self.mean += (mean - self.mean) * n / self.n

    def level(self, at_ms: int) -> float:
        """The usual mean at that hour of the day; NaN if there were too few days."""
        days, mean = self.hours.get(at_ms // HOUR_MS % 24, (0, math.nan))
        return mean if days >= LEAST_DAYS else math.nan

    def _close(self) -> None:
        if self.n:
            days, mean = self.hours.get(self.hour % 24, (0, 0.0))
            days = min(MOST_DAYS, days + 1)
            self.hours[self.hour % 24] = (days, mean + (self.mean - mean) / days)
