"""Windows: Welford event by event, Chan's merge in time order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import UNSET

from agents.aggregation.options import AggregationOptions
from streams.windows import written
from streams.windows.record import WindowRecord
from streams.windows.sketch import bucket

#: environment, model, version, component
Series = tuple[str, str, str, str]
#: series, size, start
Key = tuple[Series, int, int]


def as_objects(closed: Sequence[written.Closed], partition: int, closed_ms: int) -> list[WindowRecord]:
    """What an engine makes of closed panes: windows as objects, one by one."""
    return [written.window(key, pane, partition, closed_ms) for key, pane in closed]


@dataclass
class Cells:
    count: int = 0
    missing: int = 0
    sum: float = 0.0
    min: float = math.inf
    max: float = -math.inf
    mean: float = 0.0
    m2: float = 0.0
    sketch: dict[int, int] = field(default_factory=dict)
    left: int = 0

    def add(self, value: float | None, sketched: bool, most: int = 0) -> None:
        if value is None:
            self.missing += 1
            return
        self.count += 1
        self.sum += value
        self.min, self.max = min(self.min, value), max(self.max, value)
        delta = value - self.mean
        self.mean += delta / self.count
        self.m2 += delta * (value - self.mean)
        if sketched:
            code, weight = bucket(value), sample_weight(self.count - 1, most) if most else 1
            self.left += not weight
            if weight:
                self.sketch[code] = self.sketch.get(code, 0) + weight

    def merge(self, other: Cells) -> None:
        self.missing += other.missing
        self.left += other.left
        for code, count in other.sketch.items():
            self.sketch[code] = self.sketch.get(code, 0) + count
        if not other.count:
            return
        self.sum += other.sum
        self.min, self.max = min(self.min, other.min), max(self.max, other.max)
        if not self.count:
            self.mean, self.m2 = other.mean, other.m2
        else:
            delta, total = other.mean - self.mean, self.count + other.count
            self.mean += delta * other.count / total
            self.m2 += other.m2 + delta * delta * self.count * other.count / total
        self.count += other.count

    def stated(self) -> dict[str, Any]:
        some = self.count > 0
        return {"count": self.count, "missing": self.missing, "sum": self.sum, "min": self.min if some else None,
                "max": self.max if some else None, "mean": self.mean if some else None, "m2": self.m2,
                "sketched": self.count - self.left if self.left else UNSET, "sketch": sorted(self.sketch.items())}


def sample_weight(place: int, most: int) -> int:
    """What the value at this place of its field and pane stands for: of each 2^bits one is taken, for as many."""
    bits = (place // most).bit_length()
    if not bits:
        return 1
    block, at = divmod(place - (most << bits - 1), 1 << bits)
    return (at == block * 0x9E3779B97F4A7C15 % 2**64 * 2**bits // 2**64) << bits


@dataclass
class Window:
    count: int = 0
    errors: int = 0
    fields: dict[str, Cells] = field(default_factory=dict)

    def add(self, found: dict[str, Any], most: int = 0) -> None:
        self.count += 1
        self.errors += found.get("error") is not None
        for name, value, sketched in values(found):
            self.fields.setdefault(name, Cells()).add(value, sketched, most if name.startswith("feature.") else 0)

    def merge(self, other: Window) -> None:
        self.count += other.count
        self.errors += other.errors
        for name, cells in other.fields.items():
            self.fields.setdefault(name, Cells()).merge(cells)

    def stated(self) -> dict[str, Any]:
        return {"count": self.count, "errors": self.errors,
                "fields": {name: cells.stated() for name, cells in self.fields.items()}}


def values(found: dict[str, Any]) -> Iterator[tuple[str, float | None, bool]]:
    """(field, value, is a number) of an event: a category is counted by its name."""
    for name in ("latency_ms", "confidence"):
        if found.get(name) is not None:
            yield name, found[name], True
    items = [("prediction", found["prediction"])] if found.get("prediction") is not None else []
    items += [(f"feature.{name}", value) for name, value in found.get("features", {}).items()]
    items += [(f"metric.{name}", value) for name, value in found.get("metrics", {}).items()]
    for name, value in items:
        if isinstance(value, str):
            yield f"{name}={value}", 1.0, False
        else:
            yield name, None if value is None else float(value), True


def series_of(found: dict[str, Any]) -> Series:
    return found["environment"], found["model"], found["version"], found.get("component", "model")


class Windows:
    """The log's windows so far. `first` are the finest ones as they were when they closed, in that order."""

    def __init__(self, options: AggregationOptions) -> None:
        self.options = options
        self.finest = options.granularities_ms[0]
        self.panes: dict[Key, Window] = {}
        self.first: list[tuple[Key, dict[str, Any]]] = []
        self.late: set[int] = set()
        self._newest = -math.inf
        self._closes: dict[Key, float] = {}

    def add(self, number: int, found: dict[str, Any]) -> list[tuple[Key, dict[str, Any]]]:
        """Take in the event of that number; the finest windows that it closes."""
        start = found["ts"] // self.finest * self.finest
        key = series_of(found), self.finest, start
        judged = self.options.judged_ms or self.finest
        if found["ts"] // judged * judged + judged + self.options.grace_ms <= self._newest - self.options.delay_ms:
            self.late.add(number)
        else:
            if key not in self.panes:
                over = self._newest - self.options.delay_ms
                self._closes[key] = start + self.finest if over < start + self.finest else over + self.finest
            self.panes.setdefault(key, Window()).add(found, self.options.sketch_values)
        self._newest = max(self._newest, found["ts"])
        return self._close(self._newest - self.options.delay_ms)

    def _close(self, watermark: float) -> list[tuple[Key, dict[str, Any]]]:
        over = sorted((closes, key[2], key) for key, closes in self._closes.items() if closes <= watermark)
        closed = [(key, self.panes[key].stated()) for _, _, key in over]
        for _, _, key in over:
            del self._closes[key]
        self.first += closed
        return closed

    def stated(self) -> dict[Key, dict[str, Any]]:
        """Every window of every granularity, as it must be in the end."""
        windows = dict(self.panes)
        for fine, coarse in itertools.pairwise(self.options.granularities_ms):
            for (series, size, start), window in sorted(windows.items(), key=lambda item: item[0]):
                if size == fine:
                    windows.setdefault((series, coarse, start // coarse * coarse), Window()).merge(window)
        return {key: window.stated() for key, window in windows.items()}


def windows_of(events: Iterable[dict[str, Any]], options: AggregationOptions) -> Windows:
    """All of a log."""
    found = Windows(options)
    for number, event in enumerate(events):
        found.add(number, event)
    return found
