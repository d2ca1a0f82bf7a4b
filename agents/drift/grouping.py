"""Windows of one version, gathered into groups of at least so many events, and a group's statistics as points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from agents.drift.options import (
    CONFIDENCE,
    ERROR_RATE,
    FEATURE,
    LATENCY,
    MEAN,
    MISSING,
    PREDICTION,
    RATE,
    DriftOptions,
    Statistic,
)
from agents.drift.reading import Cell
from agents.drift.reference import WARM_UP_POINTS, Point
from agents.drift.watch import Watch
from streams.windows.record import WindowRecord

_NO_CELL = Cell()


class Group(msgspec.Struct, array_like=True):
    """Windows not yet made into points; `cells` by field."""

    start_ms: int = -1
    end_ms: int = -1
    windows: int = 0
    events: int = 0
    errors: int = 0
    cells: dict[str, Cell] = {}

    def add(self, window: WindowRecord, watches: Mapping[Statistic, Watch], most_fields: int) -> None:
        """Take in a window; numbers are read through the lenses of their means."""
        if not self.windows:
            self.start_ms = window.start_ms
        self.end_ms = window.start_ms + window.size_ms
        self.windows += 1
        self.events += window.count
        self.errors += window.errors
        for name, summary in window.fields.items():
            cell = self.cells.get(name)
            if cell is None:
                if len(self.cells) >= most_fields:
                    continue
                cell = self.cells[name] = Cell()
            watch = watches.get((name, MEAN))
            lens, keep = (None, True) if watch is None else (watch.lens, watch.looks_closer)
            cell.add(summary, lens, name == LATENCY, keep and "=" not in name)

    def is_full(self, options: DriftOptions) -> bool:
        return self.events >= options.least_events or self.end_ms - self.start_ms >= options.longest_group_ms

    def is_over(self, start_ms: int, options: DriftOptions) -> bool:
        """True if a window that starts then is too far from the group's first to join it."""
        return self.windows > 0 and start_ms - self.start_ms >= options.longest_group_ms

    def points(self, watches: Mapping[Statistic, Watch]) -> list[tuple[Statistic, Point]]:
        """A point for each statistic: causes before effects, so inputs first, errors and latency last.

        Categories that are watched and did not occur have the share 0. A feature that was in every event and is gone
        counts as missing.
        """
        totals = self._totals()
        found = [*self._categories(totals, watches), *self._nulls(totals, watches)]
        for name, cell in self.cells.items():
            if cell.n and "=" not in name:
                found.append(((name, MEAN), self._mean(cell)))
        if self.events:
            found.append(((ERROR_RATE, RATE), self._share(self.errors, self.events)))
        return sorted(found, key=lambda item: _rank(*item[0]))

    def _totals(self) -> dict[str, int]:
        """Values present by feature, and of the prediction: numbers and categories alike."""
        totals: dict[str, int] = {}
        for name, cell in self.cells.items():
            if name.startswith((FEATURE, PREDICTION)):
                base = name.partition("=")[0]
                totals[base] = totals.get(base, 0) + cell.n
        return totals

    def _categories(self, totals: Mapping[str, int],
                    watches: Mapping[Statistic, Watch]) -> Iterator[tuple[Statistic, Point]]:
        names = dict.fromkeys(name for name in self.cells if "=" in name)
        names.update(dict.fromkeys(name for name, statistic in watches if statistic == RATE and "=" in name))
        for name in names:
            total = totals.get(name.partition("=")[0], 0)
            if total:
                yield (name, RATE), self._share(self.cells.get(name, _NO_CELL).n, total)

    def _nulls(self, totals: Mapping[str, int],
               watches: Mapping[Statistic, Watch]) -> Iterator[tuple[Statistic, Point]]:
        due = self.events - self.errors
        names = dict.fromkeys(base for base in totals if base.startswith(FEATURE))
        names.update(dict.fromkeys(name for name, statistic in watches if statistic == MISSING))
        for name in names:
            present, missing = totals.get(name, 0), self.cells.get(name, _NO_CELL).missing
            watch = watches.get((name, MISSING))
            if watch is not None:
                missing += _gone(watch, due, present + missing)
            if present + missing:
                yield (name, MISSING), self._share(missing, present + missing)

    def _mean(self, cell: Cell) -> Point:
        sketch = cell.sketch()
        return Point(self.start_ms, self.end_ms, self.windows, cell.n, cell.mean, cell.m2 / cell.n,
                     *cell.log_moments(sketch), cell.watched_mean(), sketch)

    def _share(self, part: int, whole: int) -> Point:
        share = part / whole
        return Point(self.start_ms, self.end_ms, self.windows, whole, share, share * (1 - share), watched=share)


def _gone(watch: Watch, due: int, sent: int) -> int:
    """Events that ought to have had the feature, and did not even have it as null."""
    if watch.state.complete >= WARM_UP_POINTS:
        return max(0, due - sent)
    watch.state.complete = watch.state.complete + 1 if sent >= due else 0
    return 0


def _rank(name: str, statistic: str) -> int:
    if name.startswith(FEATURE):
        return 0 if statistic == MISSING else 1
    return 2 if name.startswith((PREDICTION, CONFIDENCE)) else 3
