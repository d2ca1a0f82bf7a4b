"""The pure core: events in, closed windows and their amendments out.

Only panes of the finest granularity are updated by events. A coarser pane is the merge, in time order, of its finer
panes, computed when it closes and again when one of them is amended; so it costs nothing per event, and its numbers
do not depend on how the log was cut into batches.

Event time. The watermark of a partition is its newest event's time minus `delay_ms`, as it stands *before* each
event: a pane closes when the watermark passes its end; an event for a closed pane amends it until the watermark
passes end + grace; after that the event is too late. Amendments are gathered for `amend_ms`: with disorder of many
seconds each batch would emit all their panes. A pane whose first event comes after its end closes the length of a
finest pane after that event. What a pane says when it closes is what came before that, however the log was cut into
batches (see `cutting`). An idle clock may close panes earlier, but never makes an event too late. A pane is kept until
its parent can no longer be amended; in memory until both have closed and its row is written.
"""

from __future__ import annotations

import itertools
import operator
import weakref
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from agents.aggregation import cutting
from agents.aggregation.calendar import Calendar, Planned
from agents.aggregation.intake import Intake, Touched
from agents.aggregation.options import AggregationOptions
from agents.aggregation.state import Codec, Meta, State, States, meta, pane, panes
from streams.batch import TelemetryBatch
from streams.state.keyed import META, Entry
from streams.windows import grouping, sampling, sketches, summary, watermark, written
from streams.windows.layout import Layouts
from streams.windows.panes import Grid, Pane, PaneKey
from streams.windows.written import Closed

__all__ = ["AggregationEngine", "AggregationOptions", "AggregationResult"]


#: The idle clock waits so many times longer while records wait.
_BEHIND = 15
W = TypeVar("W")
_TEXT, _FIRST = operator.attrgetter("text"), operator.itemgetter(0)
#: Makes what goes out of panes, their partition and the watermark at which they closed.
Write: TypeAlias = Callable[[Sequence[Closed], int, int], list[W]]


class AggregationResult(NamedTuple, Generic[W]):
    """What a batch closed or amended, and the rows of the batch that came too late."""

    windows: list[W]
    too_late: NDArray[np.int64]


class AggregationEngine(Generic[W]):
    """One a worker; the state is in the KeyedStates of each partition. `write` makes what `run` and `idle` return.

    Changed granularities: what was under way is emitted once as it is (`foreign_panes` counts it), so that nothing is
    lost; coarser windows of the new sizes that were under way then hold only what came later.
    """

    def __init__(self, options: AggregationOptions, write: Write[W]) -> None:
        self.options = options
        self._write = write
        self.layouts = Layouts(self.options.max_fields, self.options.max_categories)
        self.codec = Codec(self.layouts)
        self.grid = Grid(self.options.granularities_ms)
        self.intake = Intake(self.grid.finest_ms, self.layouts, self.options.sketch_values or sampling.NEVER)
        self.foreign_panes = 0
        self._calendars: weakref.WeakKeyDictionary[States, Calendar] = weakref.WeakKeyDictionary()

    def warm(self) -> None:
        """Compile the kernels, or load them from their cache."""
        keys, buckets = np.zeros(1, np.int64), np.zeros(1, np.int32)
        grouping.distinct(keys)
        grouping.by_group(keys, 1)
        grouping.alike(keys, np.array([0, 1]), keys)
        grouping.spread(keys, np.array([0, 1]), np.array([0, 1]))
        grouping.cell_keys(np.array([0, 1]), np.zeros(1, np.int32), keys, 1)
        summary.accumulate(summary.empty_rows(1), keys, keys, keys, np.ones(1), buckets, keys.copy(), sampling.NEVER,
                           np.zeros((1, 3), np.int64), keys.copy())
        summary.widened(summary.empty_rows(1), keys + 1, np.array([0, 1]))
        sketches.warm()
        summary.merge_rows(summary.empty_rows(1), summary.empty_rows(1), keys)
        summary.rolled_rows(summary.empty_rows(1), keys + 1, keys + 1)
        cutting.warm()
        written.warm()

    def run(self, batch: TelemetryBatch, states: States, topic: str, now_ms: int = 0) -> AggregationResult[W]:
        """Take in a batch. `now_ms` is the idle clock's time (see `idling`)."""
        calendar, entry = self._calendar(states), states.entry(META)
        calendar.last_batch_ms = now_ms
        first_row = int(np.searchsorted(batch.offset, entry.fence.get(topic, -1), side="right"))
        if first_row == len(batch):
            return AggregationResult([], np.empty(0, np.int64))
        rest, of_partition, options = batch.part(first_row, len(batch)), meta(entry), self.options
        newest_ms = watermark.newest_before(rest.ts_ms, of_partition.newest_ms)
        over_ms = watermark.closing_ms(newest_ms, options.delay_ms)
        late = watermark.too_late(rest.ts_ms, over_ms, options.judged_ms or self.grid.finest_ms, options.grace_ms)
        edges = [0, *cutting.cuts(rest, late, over_ms, self.grid, self._closes_ms(calendar)), len(rest)]
        windows = self._let_go(states, int(over_ms[-1]))
        fences: dict[str, int] | None = {} if len(edges) > 2 else None
        for low, high in itertools.pairwise(edges):
            part = rest.part(low, high)
            touched = self.intake.add(part, late[low:high], states, topic, fences, calendar)
            of_partition.newest_ms = max(int(newest_ms[high - 1]), int(part.ts_ms[-1]))
            windows += self._close(touched, over_ms[low:high], states, of_partition)
        of_partition.too_late += int(late.sum())
        states.touch(entry, topic, batch.last_offset)
        return AggregationResult(windows, np.flatnonzero(late) + first_row)

    def _close(self, touched: list[Touched], over_ms: NDArray[np.int64], states: States,
               of_partition: Meta) -> list[W]:
        """Emit what is over or amended after some rows, and drop what nothing needs any more.

        over_ms (n,): the watermark before each of the rows.
        """
        calendar = self._calendar(states)
        for item in touched:
            found = item.pane
            planned = item.planned
            if planned is None:
                born_ms = int(over_ms[item.row])
                late_ms = found.late_ms = born_ms if born_ms >= item.key.end_ms else None
                planned = calendar.add(item.key, None, late_ms, item.entry.key)  # what has been emitted is in it
            if found.emitted:
                calendar.amend(planned)
        now_ms = watermark.closing_ms(of_partition.newest_ms, self.options.delay_ms)
        due = calendar.amending(calendar.last_batch_ms, self.options.amend_ms, now_ms)
        due.update(calendar.closing(now_ms))
        windows = self._emit(due, states, now_ms)
        for planned in calendar.over(now_ms):
            states.drop(planned.text)
        of_partition.over_ms = max(of_partition.over_ms, now_ms)
        return windows

    @staticmethod
    def _closes_ms(calendar: Calendar) -> Callable[[PaneKey], int]:
        def closes_ms(key: PaneKey) -> int:
            known, planned_ms = calendar.closes_ms(key)
            if planned_ms is not None:
                return planned_ms
            return cutting.CLOSED if known else cutting.UNKNOWN

        return closes_ms

    def idle(self, states: States, now_ms: int, behind: bool = False) -> list[W]:
        """Amend what has waited for it; close what the idle clock says is over, when no batch has come for `idle_ms`.

        behind: records wait to be taken in; what is over will be told by them. A worker that is behind for long closes
        windows all the same, as records may wait that never come (markers of transactions).
        """
        calendar, newest_ms = self._calendar(states), meta(states.entry(META)).newest_ms
        if calendar.last_batch_ms == 0:
            calendar.last_batch_ms = now_ms
        waited = now_ms - calendar.last_batch_ms
        patience_ms = self.options.idle_ms * (_BEHIND if behind else 1)
        over_ms = watermark.closing_ms(newest_ms, self.options.delay_ms)
        due = calendar.amending(now_ms, self.options.amend_ms, over_ms)
        if waited < patience_ms or newest_ms == watermark.NEVER_MS or not calendar.waiting:
            return self._emit(due, states, over_ms)
        due.update(calendar.closing(over_ms + waited))
        return self._let_go(states, over_ms + waited) + self._emit(due, states, over_ms + waited)

    def amend(self, states: States) -> list[W]:
        """Emit the amendments that wait: before a checkpoint, whose rows say that all were emitted."""
        over_ms = watermark.closing_ms(meta(states.entry(META)).newest_ms, self.options.delay_ms)
        return self._emit(self._calendar(states).amended(), states, over_ms)

    # -- windows ----------------------------------------------------------------------------------

    def _emit(self, due: dict[Planned, int], states: States, over_ms: int) -> list[W]:
        """Emit panes that close or are amended, and the emitted parents that they change: each once.

        due: when each closes. Computed finer first; handed on in the order in which they close, so that no reader sees
        one series run ahead of another, and all see the same order.
        """
        closed = list[tuple[tuple[int, int, int], Closed]]()
        by_size: dict[int, list[Planned]] = {size: [] for size in self.grid.sizes_ms}
        for one in due:
            by_size[one.key.size_ms].append(one)
        for size, planned in by_size.items():
            planned.sort(key=_TEXT)
            entries = states.entries([one.text for one in planned])
            if size != self.grid.finest_ms:
                self._roll_up(planned, entries, states)
            for one, found in zip(planned, panes(entries), strict=True):
                found.revision += found.emitted
                found.emitted = True
                closed.append(((due[one], one.end_ms, size), (one.key, found)))
                parent = one.parent
                if parent is not None and parent.closes_ms is None and parent not in due:
                    due[parent] = parent.end_ms
                    by_size[parent.key.size_ms].append(parent)
            states.touch_all(entries)
            states.release([one.text for one in planned if one.rests])
        closed.sort(key=_FIRST)
        return self._write([item for _, item in closed], states.partition, over_ms)

    def _roll_up(self, planned: Sequence[Planned], entries: Sequence[Entry[State]], states: States) -> None:
        """The panes anew from their finer panes."""
        for entry, new in zip(entries, self._rolled(planned, states), strict=True):
            old = pane(entry)
            new.revision, new.emitted = old.revision, old.emitted
            entry.state = new

    def _rolled(self, planned: Sequence[Planned], states: States) -> list[Pane]:
        """What the panes' finer panes say by now, in time order; of these, such as are stale are made anew for it."""
        calendar, parts = self._calendar(states), [one.finer() for one in planned]
        stale = list(filter(calendar.is_stale, itertools.chain.from_iterable(parts)))
        anew = dict(zip(stale, self._rolled(stale, states), strict=True)) if stale else {}
        texts = [part.named().text for few in parts for part in few if part not in anew]
        found = iter(panes(states.entries(texts)))
        states.release(texts)
        return Pane.rolled([[anew.get(part) or next(found) for part in few] for few in parts], self.layouts)

    # -- restored partitions ----------------------------------------------------------------------

    def _calendar(self, states: States) -> Calendar:
        found = self._calendars.get(states)
        if found is None:
            found = self._calendars[states] = Calendar(self.grid, self.options.grace_ms)
            self._restore(found, states)
        return found

    def _restore(self, calendar: Calendar, states: States) -> None:
        """Plan the panes that have rows. Leftovers go: rows that a crash kept from being deleted with their siblings,
        perhaps older than what was emitted of them. A parent must not be made anew from those that are left."""
        over_ms = meta(states.entry(META)).over_ms
        kept: list[tuple[int, PaneKey]] = []
        for key in list(map(PaneKey.parse, states.keys())):
            if not self._fits(key, states):
                calendar.foreign.append(key)
            elif calendar.last_use_ms(key) <= over_ms:
                states.drop(key.text())
            else:
                late_ms = pane(states.entry(key.text())).late_ms
                kept.append((watermark.NEVER_MS if late_ms is None else late_ms, key))
        for late_ms, key in sorted(kept):      # a parent closes by the first of its parts
            planned = calendar.add(key, lambda key: _emitted(key, states),
                                   None if late_ms == watermark.NEVER_MS else late_ms)
            if planned.rests:
                states.release([planned.text])

    def _fits(self, key: PaneKey, states: States) -> bool:
        """False for a pane of other granularities than now. Only a finest pane has a row before it is emitted."""
        return key.size_ms == self.grid.finest_ms or (key.size_ms in self.grid.sizes_ms and _emitted(key, states))

    def _let_go(self, states: States, over_ms: int) -> list[W]:
        """Emit panes of other granularities as they are, and drop them."""
        closed, foreign = list[Closed](), self._calendar(states).foreign
        while foreign:
            key = foreign.pop()
            self.foreign_panes += 1
            if not _emitted(key, states):
                closed.append((key, pane(states.entry(key.text()))))
            states.drop(key.text())
        return self._write(closed, states.partition, over_ms)


def _emitted(key: PaneKey, states: States) -> bool:
    text = key.text()
    return text in states and pane(states.entry(text)).emitted
