"""Events into the finest panes: a few passes over columns, then a little work for each pane touched.

    rows -> panes -> cells (pane, field) -> rows of one table -> values added in log order -> back into the panes

No Python runs for an event or a value. Cells are found by hashing, not as a grid of panes × fields, so that thousands
of models with features of their own cost what they have.
"""

from __future__ import annotations

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

IntArray = NDArray[np.int64]


class Touched(NamedTuple):
    """A pane that took in events, what is planned of it (None: it is new), and the first row that it took in."""

    key: PaneKey
    planned: Planned | None
    entry: Entry[State]
    pane: Pane
    row: int


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
            fences: dict[str, int], calendar: Calendar) -> list[Touched]:
        """Add rows, but those left out (n,) and those that a pane's fence includes.

        `fences`: of panes as they were before the batch, kept here where a batch is added in parts.
        """
        pane_of_row, keys = panes_of(batch, self._size_ms, leave_out)
        planned = calendar.find(keys)
        texts = [key.text() if known is None else known.text for key, known in zip(keys, planned, strict=True)]
        entries = states.entries(texts)
        found = panes(entries)
        includes = np.array([fences.setdefault(text, entry.fence.get(topic, -1))
                             for text, entry in zip(texts, entries, strict=True)], np.int64)
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
        touched = [Touched(*item) for item in zip(keys, planned, entries, found, first.tolist(), strict=True)
                   if item[-1] >= 0]
        states.touch_all([item.entry for item in touched], topic, batch.last_offset)
        return touched

    def _add_values(self, batch: TelemetryBatch, pane_of_row: IntArray, found: list[Pane]) -> None:
        fields = len(batch.fields)
        if not fields or not found:
            return
        cell_of_value, cells = grouping.distinct(grouping.cell_keys(batch.start, batch.field, pane_of_row, fields))
        slot_of_cell, folded = self._slots(cells, fields, batch.fields, found)
        if folded.any() or (slot_of_cell < 0).any():
            self._count_kept_out(cell_of_value, cells // fields, slot_of_cell < 0, folded, found)
        self._accumulate(batch.value, cell_of_value, cells // fields, slot_of_cell, found)

    def _accumulate(self, value: NDArray[np.float64], cell_of_value: IntArray, pane_of_cell: IntArray,
                    slot_of_cell: IntArray, found: list[Pane]) -> None:
        """Put the panes' rows into one table, add the values in log order, and put the rows back."""
        sizes = np.array([len(item.layout.names) for item in found])
        bases = np.concatenate(([0], np.cumsum(sizes)))
        table = np.concatenate([summary.extended(item.table, len(item.layout.names)) for item in found])
        row_of_cell = np.where(slot_of_cell >= 0, slot_of_cell + bases[pane_of_cell], -1)
        first = np.append(pane_of_cell, len(found))[cell_of_value]
        first = np.concatenate(([0], np.cumsum(np.bincount(first, minlength=len(found) + 1))))[:len(found)]
        keys, end = np.empty(len(value), np.int32), first.copy()
        weighed, left = np.empty((len(value), 3), np.int64), np.zeros(len(table), np.int64)
        many = summary.accumulate(table, np.concatenate([item.layout.sketched for item in found]),
                                  np.repeat(np.arange(len(found)), sizes), np.append(row_of_cell, -1)[cell_of_value],
                                  value, keys, end, self._most, weighed, left)
        rows, spans = bases.tolist(), zip(first.tolist(), end.tolist(), strict=True)
        for at, (item, (low, high)) in enumerate(zip(found, spans, strict=True)):
            item.table = table[rows[at]:rows[at + 1]].copy()
            item.sketches.add(keys[low:high])
        if many or left.any():
            self._sample(weighed[:many], left, rows, found)

    def _sample(self, weighed: IntArray, left: IntArray, bases: list[int], found: list[Pane]) -> None:
        """Into panes with very many values: those that stand for others, and how many were left out."""
        self.unsketched_values += int(left.sum())
        order, edges = grouping.by_group(weighed[:, 0].copy(), len(found))
        for at, (item, base) in enumerate(zip(found, bases, strict=False)):
            of_pane, part = order[edges[at]:edges[at + 1]], left[base:base + len(item.layout.names)]
            if len(of_pane):
                item.sketches.weigh(weighed[of_pane, 1].astype(np.int32), weighed[of_pane, 2], len(part))
            if part.any():
                item.leave(part, item.layout.identity)

    def _slots(self, cells: IntArray, fields: int, names: list[str],
               found: list[Pane]) -> tuple[IntArray, NDArray[np.bool_]]:
        """The slot of every cell in its pane's layout (-1: no room), and whether it is counted under `<other>`.

        Makes room for new fields, in log order.
        """
        order, edges = grouping.by_group(cells // fields, len(found))
        ordered = cells[order] % fields
        slots, folded = np.empty(len(cells), np.int64), np.zeros(len(cells), np.bool_)
        memo: dict[tuple[Layout, bytes], tuple[Layout, IntArray, list[bool]]] = {}
        for at, item in enumerate(found):
            part = slice(edges[at], edges[at + 1])
            seen = (item.layout, ordered[part].tobytes())
            if seen not in memo:
                wanted = [names[field] for field in ordered[part].tolist()]
                layout, where = self._layouts.extended(item.layout, wanted)
                memo[seen] = layout, where, [slot >= 0 and layout.names[slot] != name
                                             for slot, name in zip(where.tolist(), wanted, strict=True)]
            item.layout, slots[order[part]], folded[order[part]] = memo[seen]
        return slots, folded

    def _count_kept_out(self, cell_of_value: IntArray, pane_of_cell: IntArray, ignored: NDArray[np.bool_],
                        folded: NDArray[np.bool_], found: list[Pane]) -> None:
        values = np.bincount(cell_of_value[cell_of_value >= 0], minlength=len(ignored))
        self.folded_values += int(values[folded].sum())
        self.ignored_values += int(values[ignored].sum())
        for cell in np.flatnonzero(ignored).tolist():
            found[pane_of_cell[cell]].ignored += int(values[cell])
