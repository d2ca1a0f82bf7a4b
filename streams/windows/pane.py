"""A pane: everything about one series in one span of event time, mergeable and bounded.

    names   field -> slot
    table   (slots, 7) float64: count, missing, sum, min, max, mean, M2
    sketch  slot and bucket packed in one integer, with counts; in chunks that are merged when they are read

Sums are taken event by event in log order (Welford 1962), and panes merge in time order (Chan, Golub, LeVeque 1979),
so that the numbers do not depend on how the log was cut into batches.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray

from schemas.windows import Summary
from streams.windows import sketch as sketches

COUNT, MISSING, SUM, MIN, MAX, MEAN, M2 = range(7)
COLUMNS = 7
FORMAT = 1
#: Distinct fields a pane keeps; the rest is not summarised (`Pane.ignored` counts their values).
MAX_FIELDS = 512
#: Distinct categories a pane keeps of one field; the rest is counted as `OTHER`.
MAX_CATEGORIES = 32
OTHER = "<other>"
_SLOT_BITS = 18
_MAX_CHUNKS = 8
_LARGEST = 1.7976931348623157e308

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Pane:
    """One series in [start, start + size)."""

    __slots__ = ("_categories", "_chunks", "count", "emitted", "errors", "ignored", "names", "revision", "table")

    def __init__(self) -> None:
        self.count = 0
        self.errors = 0
        self.ignored = 0
        self.revision = 0
        self.emitted = False
        self.names: dict[str, int] = {}
        self.table: FloatArray = empty_cells(0)
        self._chunks: list[tuple[IntArray, IntArray]] = []
        self._categories: dict[str, int] = {}

    def slot(self, name: str) -> int:
        """The field's slot, made if there is room; a category too many becomes `<other>`; -1 if there is none."""
        found = self.names.get(name)
        if found is not None:
            return found
        field, equals, category = name.partition("=")
        if equals and category != OTHER:
            if self._categories.get(field, 0) >= MAX_CATEGORIES:
                return self.slot(f"{field}={OTHER}")
            if len(self.names) < MAX_FIELDS:
                self._categories[field] = self._categories.get(field, 0) + 1
        if len(self.names) >= MAX_FIELDS:
            return -1
        self.names[name] = len(self.names)
        if len(self.names) > len(self.table):
            self.table = np.vstack([self.table, empty_cells(max(8, len(self.table)))])
        return self.names[name]

    def add_sketch(self, slots: IntArray, codes: IntArray, counts: IntArray) -> None:
        """Add bucket counts; arrays of one length."""
        self._chunks.append(((slots << _SLOT_BITS) | (codes + sketches.SPAN), counts))
        if len(self._chunks) > _MAX_CHUNKS:
            self._merged_sketch()

    def _merged_sketch(self) -> tuple[IntArray, IntArray]:
        if not self._chunks:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        if len(self._chunks) > 1:
            packed = np.concatenate([keys for keys, _ in self._chunks])
            counts = np.concatenate([counts for _, counts in self._chunks])
            keys, where = np.unique(packed, return_inverse=True)
            sums = np.zeros(len(keys), np.int64)
            np.add.at(sums, where, counts)
            self._chunks = [_bounded(keys, sums)]
        return self._chunks[0]

    def merge(self, other: Pane) -> None:
        """Take in a pane that lies later in time."""
        self.count += other.count
        self.errors += other.errors
        self.ignored += other.ignored
        mapping = np.array([self.slot(name) for name in other.names], np.int64)
        kept = mapping >= 0
        merge_cells(self.table, other.table, mapping)
        keys, counts = other._merged_sketch()
        slots = keys >> _SLOT_BITS
        if len(keys):
            keep = kept[slots]
            self.add_sketch(mapping[slots[keep]], (keys[keep] & ((1 << _SLOT_BITS) - 1)) - sketches.SPAN, counts[keep])

    def summaries(self) -> dict[str, Summary]:
        """The contract's view: field -> summary."""
        keys, counts = self._merged_sketch()
        slots = keys >> _SLOT_BITS
        codes = (keys & ((1 << _SLOT_BITS) - 1)) - sketches.SPAN
        edges = np.searchsorted(slots, np.arange(len(self.names) + 1)).tolist()
        pairs = list(zip(codes.tolist(), counts.tolist(), strict=True))
        rows = self.table[: len(self.names)].tolist()
        return {name: _summary(rows[at], pairs[edges[at]:edges[at + 1]]) for name, at in self.names.items()}

    def encode(self) -> bytes:
        """The pane as bytes; see `decode`."""
        keys, counts = self._merged_sketch()
        return msgspec.msgpack.encode((
            FORMAT, self.count, self.errors, self.ignored, self.revision, self.emitted, list(self.names),
            self.table[: len(self.names)].tobytes(), keys.tobytes(), counts.tobytes()))

    @staticmethod
    def decode(data: bytes) -> Pane:
        """The pane in the bytes.

        Raises:
            ValueError: cut short, or of another format.
        """
        try:
            parts: Any = msgspec.msgpack.decode(data)
            if parts[0] != FORMAT:
                raise ValueError(f"pane format {parts[0]} is not known; this release reads {FORMAT}")
            pane = Pane()
            _, pane.count, pane.errors, pane.ignored, pane.revision, pane.emitted, names, table, keys, counts = parts
            for name in names:
                pane.slot(name)
            pane.table[: len(names)] = np.frombuffer(table, np.float64).reshape(-1, COLUMNS)
            if keys:
                pane._chunks = [(np.frombuffer(keys, np.int64), np.frombuffer(counts, np.int64))]
        except (msgspec.MsgspecError, TypeError, IndexError) as error:
            raise ValueError(f"pane is damaged: {error}") from None
        return pane


def empty_cells(rows: int) -> FloatArray:
    """(rows, 7) of empty summaries."""
    cells = np.zeros((rows, COLUMNS))
    cells[:, MIN] = np.inf
    cells[:, MAX] = -np.inf
    return cells


def _bounded(keys: IntArray, counts: IntArray) -> tuple[IntArray, IntArray]:
    slots = keys >> _SLOT_BITS
    if len(keys) <= sketches.MAX_BUCKETS or np.bincount(slots).max() <= sketches.MAX_BUCKETS:
        return keys, counts
    parts = [sketches.collapse(keys[slots == slot], counts[slots == slot]) for slot in np.unique(slots)]
    return np.concatenate([part for part, _ in parts]), np.concatenate([part for _, part in parts])


def _summary(row: list[float], buckets: list[tuple[int, int]]) -> Summary:
    present = row[COUNT] > 0
    return Summary.model_construct(
        schema_version=1, count=int(row[COUNT]), missing=int(row[MISSING]), sum=_finite(row[SUM]),
        min=row[MIN] if present else None, max=row[MAX] if present else None,
        mean=_finite(row[MEAN]) if present else None, m2=max(0.0, _finite(row[M2])), sketch=buckets)


def _finite(value: float) -> float:
    """Sums of values near the largest double overflow; they are stated as the largest one."""
    if math.isfinite(value):
        return value
    return 0.0 if math.isnan(value) else math.copysign(_LARGEST, value)


@njit(cache=True)
def accumulate(start: IntArray, field: NDArray[np.int32], value: FloatArray, pane_of_row: IntArray, fields: int,
               sketched: NDArray[np.bool_], cells: FloatArray, first: IntArray, packed: IntArray) -> None:
    """Add every value to its cell (pane * fields + field), in log order.

    pane_of_row (n,): -1 leaves a row out. first (cells,): index of the first value a cell saw, -1 before. packed (m,):
    filled with cell << 18 | bucket for sketched values, -1 for the others.
    """
    for row in range(len(pane_of_row)):
        pane = pane_of_row[row]
        for at in range(start[row], start[row + 1]):
            packed[at] = -1
            if pane < 0:
                continue
            cell = pane * fields + field[at]
            if first[cell] < 0:
                first[cell] = at
            found = value[at]
            if math.isnan(found):
                cells[cell, MISSING] += 1
                continue
            cells[cell, COUNT] += 1
            cells[cell, SUM] += found
            cells[cell, MIN] = min(cells[cell, MIN], found)
            cells[cell, MAX] = max(cells[cell, MAX], found)
            delta = found - cells[cell, MEAN]
            cells[cell, MEAN] += delta / cells[cell, COUNT]
            cells[cell, M2] += delta * (found - cells[cell, MEAN])
            if sketched[field[at]]:
                packed[at] = (cell << 18) | (sketches.bucket(found) + sketches.SPAN)


@njit(cache=True)
def merge_cells(into: FloatArray, other: FloatArray, mapping: IntArray) -> None:
    """Merge row i of `other` into row mapping[i] of `into` (-1: leave out)."""
    for row in range(len(mapping)):
        at = mapping[row]
        if at < 0:
            continue
        count, more = into[at, COUNT], other[row, COUNT]
        into[at, MISSING] += other[row, MISSING]
        if more == 0:
            continue
        into[at, SUM] += other[row, SUM]
        into[at, MIN] = min(into[at, MIN], other[row, MIN])
        into[at, MAX] = max(into[at, MAX], other[row, MAX])
        delta, total = other[row, MEAN] - into[at, MEAN], count + more
        into[at, MEAN] += delta * more / total
        into[at, M2] += other[row, M2] + delta * delta * count * more / total
        into[at, COUNT] = total
