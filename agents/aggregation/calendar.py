"""When the panes of one partition close and go. In memory only; made anew from the keys of the partition's rows."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterator

from streams.windows.panes import Grid, PaneKey, texts


class Calendar:
    """Panes by the time at which they close, the time at which nothing needs them any more, and their parent."""

    def __init__(self, grid: Grid, grace_ms: int) -> None:
        self.last_batch_ms = 0
        self.foreign: list[PaneKey] = []    # restored, of a size that is not set any more
        self._grid = grid
        self._grace_ms = grace_ms
        self._parents: dict[PaneKey, PaneKey | None] = {}       # of all panes that are known
        self._parts: dict[PaneKey, set[int]] = defaultdict(set)
        self._closes_ms: dict[PaneKey, int] = {}                # of panes that have not closed
        self._to_close = _Agenda()
        self._to_drop = _Agenda()           # by last use

    def __len__(self) -> int:
        return len(self._parents)

    @property
    def waiting(self) -> bool:
        """True if a pane has not been emitted yet."""
        return bool(self._closes_ms or self.foreign)

    def __contains__(self, key: PaneKey) -> bool:
        return key in self._parents

    def add(self, key: PaneKey, emitted: Callable[[PaneKey], bool], late_ms: int | None = None) -> None:
        """Plan a pane's end, and its parents' with it. A pane is kept until its parent can change no more.

        late_ms: the watermark at its first event, if it was over by then. Such a pane closes the length of a finest
        pane later, not with that event: a producer that lags behind the others has whole windows, too.
        """
        pane: PaneKey | None = key
        while pane is not None and pane not in self._parents:
            parent = self._parents[pane] = self._grid.parent(pane)
            if not emitted(pane):
                closes_ms = pane.end_ms
                if late_ms is not None and late_ms >= closes_ms:
                    closes_ms = late_ms + self._grid.finest_ms
                self._closes_ms[pane] = closes_ms
                self._to_close.put(closes_ms, pane)
            self._to_drop.put(self._over_ms(parent or pane), pane)
            if parent is not None:
                self._parts[parent].add(pane.start_ms)
            pane = parent

    def closes_ms(self, key: PaneKey) -> int | None:
        """The watermark that closes a pane; None for one that has closed, or is not known."""
        return self._closes_ms.get(key)

    def closed_parent(self, key: PaneKey) -> PaneKey | None:
        """The parent of a pane that is known, if it has closed."""
        parent = self._parents[key]
        return None if parent is None or parent in self._closes_ms else parent

    def last_use_ms(self, key: PaneKey) -> int:
        """The watermark from which on nothing can change or need the pane."""
        return self._over_ms(self._grid.parent(key) or key)

    def _over_ms(self, coarsest: PaneKey) -> int:
        return coarsest.end_ms + self._grace_ms + self._grid.finest_ms

    def parts(self, key: PaneKey) -> list[str]:
        """The rows' keys of the finer panes that a coarser one is made of, in time order."""
        return texts(key.series, self._grid.finer_ms(key.size_ms), sorted(self._parts[key]))

    def closing(self, watermark_ms: int) -> Iterator[tuple[PaneKey, int]]:
        """Take out the panes that close at or before the watermark, with when they do."""
        for closes_ms, key in self._to_close.due(watermark_ms):
            del self._closes_ms[key]
            yield key, closes_ms

    def over(self, watermark_ms: int) -> Iterator[PaneKey]:
        """Take out the panes that nothing can change or need any more."""
        for _, key in self._to_drop.due(watermark_ms):
            self._parents.pop(key, None)
            self._parts.pop(key, None)
            yield key


class _Agenda:
    """Panes by a time. Very many have the same, so times are ordered and panes are not."""

    def __init__(self) -> None:
        self._times: list[int] = []
        self._at: dict[int, list[PaneKey]] = {}

    def put(self, time_ms: int, key: PaneKey) -> None:
        """Add a pane."""
        found = self._at.get(time_ms)
        if found is None:
            found = self._at[time_ms] = []
            heapq.heappush(self._times, time_ms)
        found.append(key)

    def due(self, until_ms: int) -> Iterator[tuple[int, PaneKey]]:
        """Take out the panes of all times up to one, each with its time."""
        while self._times and self._times[0] <= until_ms:
            time_ms = heapq.heappop(self._times)
            for key in self._at.pop(time_ms):
                yield time_ms, key
