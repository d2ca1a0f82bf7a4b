"""Events into the finest panes: a few passes over columns, then a little work for each pane touched.

    rows -> panes -> cells (pane, field) -> rows of one table -> values added in log order -> back into the panes

No Python runs for an event or a value. Cells are found by hashing, not as a grid of panes × fields, so that thousands
of models with features of their own cost what they have.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.aggregation.calendar import Calendar, Planned
from agents.aggregation.cutting import panes_of
from agents.aggregation.state import State, States, panes
from streams.batch import TelemetryBatch
from streams.state.keyed import Entry
from streams.windows import grouping, sampling, summary
from streams.windows.layout import Layout, Layouts
from streams.windows.panes import Pane, PaneKey
from streams.windows.sketches import Sketches

IntArray = NDArray[np.int64]


class Touched(NamedTuple):
    """A pane that took in events, what is planned of it (None: it is new), and the first row that it took in."""

    key: PaneKey
    planned: Planned | None
    entry: Entry[State]
    pane: Pane
    row: int


#: As `Touched._make`, and quicker: no function in between.
_touched: Callable[[tuple[PaneKey, Planned | None, Entry[State], Pane, int]], Touched] = partial(
    tuple.__new__, Touched)


class Intake:
    """Adds batches to panes. `ignored_values` and `folded_values` count what the bounds on fields kept out,
    `unsketched_values` those of features with more than `most` a pane that were left out of their sketches."""

    def __init__(self, size_ms: int, layouts: Layouts, most: int = sampling.NEVER) -> None:
        self.unsketched_values = 0
        self.ignored_values = 0
        self.folded_values = 0
        self._size_ms = size_ms
        self._layouts = layouts
        self._most = most

    def add(self, batch: TelemetryBatch, leave_out: NDArray[np.bool_], states: States, topic: str,
            fences: dict[str, int] | None, calendar: Calendar) -> list[Touched]:
        """Add rows, but those left out (n,) and those that a pane's fence includes.

        `fences`: of panes as they were before the batch, kept here where a batch is added in parts; None: it is not.
        """
        pane_of_row, keys = panes_of(batch, self._size_ms, leave_out)
        planned = calendar.find(keys)
        texts = [key.text() if known is None else known.text for key, known in zip(keys, planned, strict=True)]
        entries = states.entries(texts)
        found = panes(entries)
        had = [entry.fence.get(topic, -1) for entry in entries]
        if fences is not None:
            had = list(map(fences.setdefault, texts, had))
        includes = np.array(had, np.int64)
        if len(found) and batch.offset[0] <= includes.max():
            pane_of_row[batch.offset <= includes[pane_of_row]] = -1
        used = pane_of_row >= 0
        counts = np.bincount(pane_of_row[used], minlength=len(found)).tolist()
        failed = batch.error & used
        errors = np.bincount(pane_of_row[failed], minlength=len(found)).tolist() if failed.any() else None
        for item, count in zip(found, counts, strict=True):
            item.count += count
        if errors is not None:
            for item, count in zip(found, errors, strict=True):
                item.errors += count
        self._add_values(batch, pane_of_row, found)
        first = np.full(len(found), -1, np.int64)
        first[pane_of_row[used][::-1]] = np.flatnonzero(used)[::-1]
        touched = [item for item in map(_touched, zip(keys, planned, entries, found, first.tolist(), strict=True))
                   if item.row >= 0]
        states.touch_all([item.entry for item in touched], topic, batch.last_offset)
        return touched

    def _add_values(self, batch: TelemetryBatch, pane_of_row: IntArray, found: list[Pane]) -> None:
        fields = len(batch.fields)
        if not fields or not found:
            return
        cell_of_value, cells = grouping.distinct(grouping.cell_keys(batch.start, batch.field, pane_of_row, fields))
        slot_of_cell, folded, rows = self._slots(cells, fields, batch.fields, found)
        if folded.any() or (slot_of_cell < 0).any():
            self._count_kept_out(cell_of_value, cells // fields, slot_of_cell < 0, folded, found)
        self._accumulate(batch.value, cell_of_value, cells // fields, slot_of_cell, rows, found)

    def _accumulate(self, value: NDArray[np.float64], cell_of_value: IntArray, pane_of_cell: IntArray,
                    slot_of_cell: IntArray, rows: _Rows, found: list[Pane]) -> None:
        """Put the panes' rows into one table, add the values in log order, and put the rows back."""
        row_of_cell = np.where(slot_of_cell >= 0, slot_of_cell + rows.edges[pane_of_cell], -1)
        table = summary.widened(np.concatenate([item.table for item in found]),
                                np.array([len(item.table) for item in found]), rows.edges)
        first = np.append(pane_of_cell, len(found))[cell_of_value]
        first = np.concatenate(([0], np.cumsum(np.bincount(first, minlength=len(found) + 1))))[:len(found)]
        keys, end = np.empty(len(value), np.int32), first.copy()
        weighed, left = np.empty((len(value), 3), np.int64), np.zeros(len(table), np.int64)
        many = summary.accumulate(table, rows.sketched, rows.pane, np.append(row_of_cell, -1)[cell_of_value],
                                  value, keys, end, self._most, weighed, left)
        places = rows.edges.tolist()
        for item, (low, high) in zip(found, itertools.pairwise(places), strict=True):
            item.table = table[low:high].copy()
        Sketches.add_each([item.sketches for item in found], keys, first.tolist(), end.tolist())
        if many or left.any():
            self._sample(weighed[:many], left, places, found)

    def _sample(self, weighed: IntArray, left: IntArray, bases: list[int], found: list[Pane]) -> None:
        """Into panes with very many values: those that stand for others, and how many were left out."""
        self.unsketched_values += int(left.sum())
        order, edges = grouping.by_group(weighed[:, 0].copy(), len(found))
        some = np.unique(np.append(weighed[:, 0], np.searchsorted(bases, np.flatnonzero(left), side="right") - 1))
        for at in some.tolist():
            item = found[at]
            of_pane, part = order[edges[at]:edges[at + 1]], left[bases[at]:bases[at + 1]]
            if len(of_pane):
                item.sketches.weigh(weighed[of_pane, 1].astype(np.int32), weighed[of_pane, 2], len(part))
            if part.any():
                item.leave(part, item.layout.identity)

    def _slots(self, cells: IntArray, fields: int, names: list[str],
               found: list[Pane]) -> tuple[IntArray, NDArray[np.bool_], _Rows]:
        """The slot of every cell in its pane's layout (-1: no room), whether it is counted under `<other>`, and the
        rows that the panes have then.

        Makes room for new fields, in log order. Panes with the same layout that take in the same fields are one case.
        """
        order, edges = grouping.by_group(cells // fields, len(found))
        ordered, numbers = cells[order] % fields, dict[Layout, int]()
        before = [numbers.setdefault(item.layout, len(numbers)) for item in found]
        case, example = grouping.alike(ordered, edges, np.array(before, np.int64))
        layouts, slots, folded = list[Layout](), list[IntArray](), list[bool]()
        for at in example.tolist():
            wanted = [names[field] for field in ordered[edges[at]:edges[at + 1]].tolist()]
            layout, where = self._layouts.extended(found[at].layout, wanted)
            layouts.append(layout)
            slots.append(where)
            folded += [slot >= 0 and layout.names[slot] != name
                       for slot, name in zip(where.tolist(), wanted, strict=True)]
        for item, number in zip(found, case.tolist(), strict=True):
            item.layout = layouts[number]
        place = np.empty(len(cells), np.int64)
        place[order] = grouping.spread(case, grouping.edges([len(where) for where in slots]), edges)
        return np.concatenate(slots)[place], np.array(folded, np.bool_)[place], _rows(case, layouts)

    def _count_kept_out(self, cell_of_value: IntArray, pane_of_cell: IntArray, ignored: NDArray[np.bool_],
                        folded: NDArray[np.bool_], found: list[Pane]) -> None:
        values = np.bincount(cell_of_value[cell_of_value >= 0], minlength=len(ignored))
        self.folded_values += int(values[folded].sum())
        self.ignored_values += int(values[ignored].sum())
        for cell in np.flatnonzero(ignored).tolist():
            found[pane_of_cell[cell]].ignored += int(values[cell])


class _Rows(NamedTuple):
    """The rows of panes, one after the other: pane p's are edges[p] to edges[p + 1]; of each its pane, and its slot as
    in `Layout.sketched`."""

    edges: IntArray
    pane: IntArray
    sketched: IntArray


def _rows(case: IntArray, layouts: list[Layout]) -> _Rows:
    """Those of panes with the layouts of their cases."""
    sizes = np.array([len(layout.names) for layout in layouts], np.int64)
    edges = grouping.edges(sizes[case])
    of_rows = grouping.spread(case, grouping.edges(sizes), edges)
    return _Rows(edges, np.repeat(np.arange(len(case)), sizes[case]),
                 np.concatenate([layout.sketched for layout in layouts])[of_rows])
