"""Windows of several sizes and of both stores, joined: every moment of a series is told by one window, none by two.

Windows of one series and partition come in the order of their ends, so of each size all that end up to some moment are
known, and none after it; but for those whose first event was late, which are told once they, and the coarser windows
around them, have come. That moment comes from PostgreSQL (`metric_series.end_at`); the ring in Redis moves it on if it
reaches back to it, and is left aside if windows may be missing in between. Up to that moment the windows of the asked
size tell; from there on those of the next finer size that begin later, up to theirs, and so on down to the finest.
Sizes divide one another, so no two of those overlap and nothing lies between them.

Of two copies of a window the one with the larger count, then revision, is newer, wherever it is from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dashboards.api.asking.summary import Summary

#: Before every window: of a size of which nothing is known.
NEVER_MS = -1


class Line(NamedTuple):
    """A series as one partition saw it."""

    environment: str
    model: str
    version: str
    component: str
    partition: int
    segment: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A window of a line, from either store."""

    line: Line
    size_ms: int
    start_ms: int
    count: int
    errors: int
    revision: int
    fields: Mapping[str, Summary]

    @property
    def age(self) -> tuple[int, int]:
        return self.count, self.revision


class Joined(NamedTuple):
    """Windows in time order, and up to when everything is known that has been published."""

    parts: list[Part]
    known_to_ms: int


def joined(stored: Iterable[Part], recent: Iterable[Part], ends_ms: Mapping[tuple[Line, int], int],
           sizes_ms: Sequence[int], ring: int) -> Joined:
    """One window a moment and line, `sizes_ms` descending from the asked one.

    `ends_ms`: up to when `stored` knows a line at a size; lines that are not in it are left out.
    """
    by_line: dict[Line, dict[int, dict[int, Part]]] = defaultdict(lambda: defaultdict(dict))
    of_ring: dict[tuple[Line, int], list[Part]] = defaultdict(list)
    for part in stored:
        _take(by_line[part.line][part.size_ms], part)
    known = {line for line, _ in ends_ms}
    for part in recent:
        if part.line in known:
            of_ring[part.line, part.size_ms].append(part)
    found: list[Part] = []
    known_to_ms = NEVER_MS
    for line in known:
        head_ms = NEVER_MS
        for size in sizes_ms:
            windows, end_ms = by_line[line][size], ends_ms.get((line, size), NEVER_MS)
            end_ms = _with_ring(windows, of_ring[line, size], end_ms, size, ring)
            found += [part for start, part in windows.items() if start >= head_ms]
            head_ms = max(head_ms, end_ms)
        known_to_ms = max(known_to_ms, head_ms)
    return Joined(sorted(found, key=_in_time), known_to_ms)


def _with_ring(windows: dict[int, Part], recent: Sequence[Part], end_ms: int, size_ms: int, ring: int) -> int:
    """Take in what the ring has; up to when the size is known then. Windows may be newer than the `end_ms` read."""
    end_ms = max(end_ms, max(windows, default=NEVER_MS - size_ms) + size_ms)
    if not recent:
        return end_ms
    newest_ms = max(part.start_ms for part in recent)
    reaches = newest_ms - (ring - 1) * size_ms <= end_ms
    for part in recent:
        if part.start_ms in windows or (reaches and part.start_ms >= end_ms):
            _take(windows, part)
    return max(end_ms, newest_ms + size_ms) if reaches else end_ms


def _take(windows: dict[int, Part], part: Part) -> None:
    have = windows.get(part.start_ms)
    if have is None or part.age >= have.age:
        windows[part.start_ms] = part


def _in_time(part: Part) -> tuple[int, int, Line]:
    return part.start_ms, -part.size_ms, part.line
