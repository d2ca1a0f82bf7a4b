"""Windows of one version, gathered into groups of at least so many events, and a group's statistics as points."""

from __future__ import annotations

import msgspec

from agents.drift.options import ERROR_RATE, MISSING, DriftOptions
from agents.drift.watch import Point
from schemas.windows import MetricWindow

#: (field, statistic)
Statistic = tuple[str, str]


class Group(msgspec.Struct):
    """Windows not yet made into points. fields: name -> [count, missing, mean, M2]."""

    start_ms: int = -1
    end_ms: int = -1
    events: int = 0
    errors: int = 0
    fields: dict[str, list[float]] = {}

    def add(self, window: MetricWindow, most_fields: int) -> None:
        """Take in a window (Chan's merge)."""
        if self.start_ms < 0:
            self.start_ms = window.start_ms
        self.end_ms = window.start_ms + window.size_ms
        self.events += window.count
        self.errors += window.errors
        for name, found in window.fields.items():
            have = self.fields.get(name)
            if have is None:
                if len(self.fields) >= most_fields:
                    continue
                have = self.fields[name] = [0.0, 0.0, 0.0, 0.0]
            have[1] += found.missing
            if found.count:
                total = have[0] + found.count
                delta = (found.mean or 0.0) - have[2]
                have[3] += found.m2 + delta * delta * have[0] * found.count / total
                have[2] += delta * found.count / total
                have[0] = total

    def is_full(self, options: DriftOptions) -> bool:
        return self.events >= options.least_events or self.end_ms - self.start_ms >= options.longest_group_ms

    def points(self, known: set[Statistic]) -> dict[Statistic, Point]:
        """A point for each statistic; `known` categories that did not occur have the share 0."""
        found = {(ERROR_RATE, "rate"): self._share(self.errors, self.events)}
        for name, (count, missing, mean, m2) in self.fields.items():
            if "=" in name:
                if not name.startswith("feature."):
                    found[(name, "rate")] = self._share(count, self.events)
                continue
            if count:
                found[(name, "mean")] = Point(self.start_ms, self.end_ms, int(count), mean, m2 / count)
            if name.startswith("feature."):
                found[(name, MISSING)] = self._share(missing, count + missing)
        for name, statistic in known:
            if statistic == "rate" and (name, statistic) not in found:
                found[(name, statistic)] = self._share(0, self.events)
        return found

    def _share(self, part: float, whole: float) -> Point:
        share = part / whole if whole else 0.0
        return Point(self.start_ms, self.end_ms, max(1, int(whole)), share, share * (1 - share))
