"""When the panes of one partition close and go. In memory only; made anew from the keys of the partition's rows."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterator

from streams.windows.panes import Grid, PaneKey


class Calendar:
    """Panes by the time at which they close, the time at which nothing needs them any more, and their parent."""

    def __init__(self, grid: Grid, grace_ms: int) -> None:
        self.last_batch_ms = 0
        self.foreign: list[PaneKey] = []    # restored, of a size that is not set any more
        self._grid = grid
        self._grace_ms = grace_ms
        self._known: set[PaneKey] = set()
        self._parts: dict[PaneKey, set[int]] = defaultdict(set)
        self._to_close: list[tuple[int, int, PaneKey]] = []     # (end, size, key): finer panes first
        self._to_drop: list[tuple[int, PaneKey]] = []           # (last use, key)

    def __len__(self) -> int:
        return len(self._known)

    @property
    def waiting(self) -> bool:
        """True if a pane has not been emitted yet."""
        return bool(self._to_close or self.foreign)

    def add(self, key: PaneKey, emitted: Callable[[PaneKey], bool]) -> None:
        """Plan a pane's end, and its parents' with it. A pane is kept until its parent can change no more."""
        if key in self._known:
            return
        self._known.add(key)
        if not emitted(key):
            heapq.heappush(self._to_close, (key.end_ms, key.size_ms, key))
        parent = self._grid.parent(key)
        heapq.heappush(self._to_drop, (self.last_use_ms(key), key))
        if parent is not None:
            self._parts[parent].add(key.start_ms)
            self.add(parent, emitted)

    def last_use_ms(self, key: PaneKey) -> int:
        """The watermark from which on nothing can change or need the pane."""
        return (self._grid.parent(key) or key).end_ms + self._grace_ms

    def parts(self, key: PaneKey) -> list[PaneKey]:
        """The finer panes that a coarser one is made of, in time order."""
        size = self._grid.finer_ms(key.size_ms)
        return [PaneKey(key.series, size, start) for start in sorted(self._parts[key])]

    def closing(self, watermark_ms: int) -> Iterator[PaneKey]:
        """Take out the panes that end at or before the watermark: by end, finer ones first."""
        while self._to_close and self._to_close[0][0] <= watermark_ms:
            yield heapq.heappop(self._to_close)[2]

    def over(self, watermark_ms: int) -> Iterator[PaneKey]:
        """Take out the panes that nothing can change or need any more."""
        while self._to_drop and self._to_drop[0][0] <= watermark_ms:
            key = heapq.heappop(self._to_drop)[1]
            self._known.discard(key)
            self._parts.pop(key, None)
            yield key
