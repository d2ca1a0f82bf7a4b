"""When the panes of one partition close and go. In memory only; made anew from the keys of the partition's rows."""

from __future__ import annotations

import heapq
import operator
from collections.abc import Callable, Iterator, Sequence

from streams.windows.panes import Grid, PaneKey

#: Closed panes that wait to be amended together: emitting them holds the event loop.
MOST_AMENDED = 4_000
_NEVER_MS = 1 << 62


class Planned:
    """A pane that is known: its key and its row's, the pane that it is a part of, and its own parts.

    closes_ms: the watermark that closes it; None once it has closed. text: the row's key; of a coarser pane that has
    not closed mostly none yet. (A class of slots: it is hashed by identity, the four names and two numbers of its key
    are not looked at again.)
    """

    __slots__ = ("closes_ms", "end_ms", "key", "parent", "parts", "text")

    def __init__(self, key: PaneKey, text: str, end_ms: int, parent: Planned | None, closes_ms: int | None) -> None:
        self.key = key
        self.text = text
        self.end_ms = end_ms
        self.parent = parent
        self.closes_ms = closes_ms
        self.parts: list[Planned] | None = None

    def named(self) -> Planned:
        """Itself, with its text."""
        self.text = self.text or self.key.text()
        return self

    @property
    def rests(self) -> bool:
        """True if only a late event can change it, or ask for it: it has closed, and so has its parent."""
        return self.closes_ms is None and (self.parent is None or self.parent.closes_ms is None)

    def finer(self) -> list[Planned]:
        """The finer panes that it is made of, in time order."""
        return sorted(self.parts or (), key=_END)


_END = operator.attrgetter("end_ms")


class Calendar:
    """Panes by the time at which they close, the time at which nothing needs them any more, and their parent."""

    def __init__(self, grid: Grid, grace_ms: int) -> None:
        self.last_batch_ms = 0
        self.foreign: list[PaneKey] = []    # restored, of a size that is not set any more
        self._grid = grid
        self._grace_ms = grace_ms
        self._amended: dict[Planned, int] = {}  # closed, with events that have not been emitted -> end
        self._amended_ms = 0                # when the first of these came
        self._panes: dict[PaneKey, Planned] = {}
        self._to_close = _Agenda()
        self._to_drop = _Agenda()           # by last use

    def __len__(self) -> int:
        return len(self._panes)

    @property
    def waiting(self) -> bool:
        """True if a pane has not been emitted yet."""
        return bool(self._to_close or self.foreign)

    def find(self, keys: Sequence[PaneKey]) -> list[Planned | None]:
        """Each of the panes, None for one that is not known."""
        return list(map(self._panes.get, keys))

    def add(self, key: PaneKey, emitted: Callable[[PaneKey], bool] | None = None, late_ms: int | None = None,
            text: str = "") -> Planned:
        """Plan a pane's end, and its parents' with it. A pane is kept until its parent can change no more.

        emitted: which of them have closed already; None: none. late_ms: the watermark at its first event, if it was
        over by then. Such a pane closes the length of a finest pane later, not with that event: a producer that lags
        behind the others has whole windows, too. text: that of the key, if it is at hand.
        """
        found = self._panes.get(key)
        if found is not None:
            return found
        above = self._grid.parent(key)
        parent = None if above is None else self._panes.get(above) or self.add(above, emitted, late_ms)
        end_ms = key.end_ms
        closes_ms: int | None = None
        if emitted is None or not emitted(key):
            closes_ms = end_ms if late_ms is None or late_ms < end_ms else late_ms + self._grid.finest_ms
        found = self._panes[key] = Planned(key, text, end_ms, parent, closes_ms)
        if closes_ms is None or key.size_ms == self._grid.finest_ms:
            found.named()
        if closes_ms is not None:
            self._to_close.put(closes_ms, found)
        if parent is None:
            self._to_drop.put(self._over_ms(end_ms), found)
            return found
        self._to_drop.put(self._over_ms(parent.end_ms), found)
        if parent.parts is None:
            parent.parts = []
        parent.parts.append(found)
        return found

    def closes_ms(self, key: PaneKey) -> tuple[bool, int | None]:
        """Whether a pane is known; and the watermark that closes it, None if it has closed."""
        found = self._panes.get(key)
        return found is not None, None if found is None else found.closes_ms

    def last_use_ms(self, key: PaneKey) -> int:
        """The watermark from which on nothing can change or need the pane."""
        return self._over_ms((self._grid.parent(key) or key).end_ms)

    def _over_ms(self, end_ms: int) -> int:
        return end_ms + self._grace_ms + self._grid.finest_ms

    def closing(self, watermark_ms: int) -> Iterator[tuple[Planned, int]]:
        """Take out the panes that close at or before the watermark, with when they do."""
        for closes_ms, found in self._to_close.due(watermark_ms):
            found.closes_ms = None
            yield found.named(), closes_ms

    def is_stale(self, planned: Planned) -> bool:
        """True if a coarser pane's row is not what its finer panes say by now: it or they have yet to close or to be
        amended."""
        if planned.parts is None:
            return False
        return planned.closes_ms is not None or any(
            part.closes_ms is not None or part in self._amended or self.is_stale(part) for part in planned.parts)

    def amend(self, planned: Planned) -> None:
        """A pane that has closed took in events."""
        if not self._amended:
            self._amended_ms = self.last_batch_ms
        self._amended[planned] = planned.end_ms

    def amending(self, now_ms: int, patience_ms: int, watermark_ms: int) -> dict[Planned, int]:
        """Take out the amended panes, if the first has waited so long, there are very many, or some are to be dropped.
        """
        if now_ms - self._amended_ms >= patience_ms or len(self._amended) >= MOST_AMENDED \
                or self._to_drop.first_ms <= watermark_ms:
            return self.amended()
        return {}

    def amended(self) -> dict[Planned, int]:
        """Take out the amended panes."""
        found, self._amended = self._amended, {}
        return found

    def over(self, watermark_ms: int) -> Iterator[Planned]:
        """Take out the panes that nothing can change or need any more."""
        for _, found in self._to_drop.due(watermark_ms):
            del self._panes[found.key]
            found.parts = None
            if found.parent is not None and found.parent.parts is not None:
                found.parent.parts.remove(found)        # the first: parts go together, in the order in which they came
            yield found.named()


class _Agenda:
    """Panes by a time. Very many have the same, so times are ordered and panes are not."""

    def __init__(self) -> None:
        self._times: list[int] = []
        self._at: dict[int, list[Planned]] = {}

    def __bool__(self) -> bool:
        return bool(self._times)

    @property
    def first_ms(self) -> int:
        """The first of the times."""
        return self._times[0] if self._times else _NEVER_MS

    def put(self, time_ms: int, planned: Planned) -> None:
        """Add a pane."""
        found = self._at.get(time_ms)
        if found is None:
            found = self._at[time_ms] = []
            heapq.heappush(self._times, time_ms)
        found.append(planned)

    def due(self, until_ms: int) -> Iterator[tuple[int, Planned]]:
        """Take out the panes of all times up to one, each with its time."""
        while self._times and self._times[0] <= until_ms:
            time_ms = heapq.heappop(self._times)
            for planned in self._at.pop(time_ms):
                yield time_ms, planned
