"""Panes: one series in one half-open span of event time, [start, start + size), in whole milliseconds.

A pane's bytes are one MessagePack array; the row around them carries the checksum.

    format, count, errors, ignored values, revision, emitted, late, [names],
    table (rows of 7 float64), sketch keys (int32, each less the one before), sketch counts (int32 or int64),
    and in format 3, of panes whose sketches are samples: values left out of each (int64 a name)

Arrays are little-endian.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.batch import SeriesKey
from streams.windows import summary
from streams.windows.grouping import chunks, edges
from streams.windows.layout import Layout, Layouts
from streams.windows.record import SummaryRecord
from streams.windows.sketches import Sketches

FORMAT, SAMPLED_FORMAT = 2, 3
_UNIT = "\x1f"
#: Above every size.
_FAR_MS = 10**14
_MAX_INT32 = 2**31 - 1

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

#: Rows that are rolled up together: more would not stay in a processor's cache.
_TOGETHER = 1 << 14
_NO_ROWS = summary.empty_rows(0)
_encode = msgspec.msgpack.Encoder().encode


class PaneFormatError(ValueError):
    """Bytes that are not a pane. What to do: as for a damaged snapshot row, see `streams.state.row`."""

    code = "pane_format"
    retriable = False


class PaneKey(NamedTuple):
    """Where a pane belongs."""

    series: SeriesKey
    size_ms: int
    start_ms: int

    @property
    def end_ms(self) -> int:
        return self.start_ms + self.size_ms

    def text(self) -> str:
        """The key of the pane's row. Of one series, coarser panes sort first.

        Rows are written in the order of their keys, and a crash keeps the first ones. So a coarser pane's row is never
        older than those of its finer panes: were it, the amendments that only the finer rows know would be skipped in
        the replay, and be missing from the coarser pane for good.
        """
        return f"{_head(self.series, self.size_ms)}{self.start_ms}"

    @staticmethod
    def parse(text: str) -> PaneKey:
        """The key in a row's key.

        Raises:
            ValueError: it is none.
        """
        environment, model, version, component, size, start = text.split(_UNIT)
        return PaneKey(SeriesKey(environment, model, version, component), _FAR_MS - int(size), int(start))


@lru_cache(maxsize=65_536)
def _head(series: SeriesKey, size_ms: int) -> str:
    """The text of a pane's key up to its start."""
    return _UNIT.join((*series, f"{_FAR_MS - size_ms:015d}", ""))


#: As `PaneKey(*parts)`, and quicker: no function in between.
pane_key: Callable[[tuple[SeriesKey, int, int]], PaneKey] = partial(tuple.__new__, PaneKey)


class Grid:
    """The granularities: ascending, each dividing the next; start of a span: ts - ts mod size."""

    def __init__(self, sizes_ms: tuple[int, ...]) -> None:
        self.sizes_ms = sizes_ms
        self.finest_ms = sizes_ms[0]
        self._coarser = dict(itertools.pairwise(sizes_ms))
        self._finer = {coarse: fine for fine, coarse in itertools.pairwise(sizes_ms)}

    def parent(self, key: PaneKey) -> PaneKey | None:
        """The next coarser pane that the pane is a part of; None for the coarsest."""
        series, size_ms, start_ms = key
        size = self._coarser.get(size_ms)
        return pane_key((series, size, start_ms - start_ms % size)) if size else None

    def finer_ms(self, size_ms: int) -> int:
        """The size of the parts of a pane of this size."""
        return self._finer[size_ms]


class Pane:
    """Everything about one series in one span; bounded, mergeable. Row i of `table` is field `layout.names[i]`.

    late_ms: the watermark at the first event, if the pane was over by then; else None. left (names,): values that are
    not in the field's sketch, which is a sample then (`sampling`); None: all sketches are whole.
    """

    __slots__ = ("count", "emitted", "errors", "ignored", "late_ms", "layout", "left", "revision", "sketches", "table")

    def __init__(self, layout: Layout, table: FloatArray | None = None) -> None:
        self.count = 0
        self.errors = 0
        self.ignored = 0
        self.revision = 0
        self.emitted = False
        self.late_ms: int | None = None
        self.left: IntArray | None = None
        self.layout = layout
        if table is None:
            table = summary.empty_rows(len(layout.names)) if layout.names else _NO_ROWS
        self.table = table
        self.sketches = Sketches()

    def merge(self, other: Pane, layouts: Layouts) -> None:
        """Take in a pane that lies later in time."""
        self.count += other.count
        self.errors += other.errors
        self.ignored += other.ignored
        if not self.layout.names:
            self.layout, self.table = other.layout, other.table.copy()
            self.leave(other.left, self.layout.identity)
            self.sketches.merge(other.sketches, None)
        elif other.layout is self.layout:
            self.leave(other.left, self.layout.identity)
            summary.merge_rows(self.table, other.table, self.layout.identity)
            self.sketches.merge(other.sketches, None)
        else:
            self.layout, mapping = layouts.extended(self.layout, other.layout.names)
            self.table = summary.extended(self.table, len(self.layout.names)).copy()
            self.leave(other.left, mapping)
            lost = other.table[mapping < 0]
            self.ignored += int(lost[:, summary.COUNT].sum() + lost[:, summary.MISSING].sum())
            summary.merge_rows(self.table, other.table, mapping)
            self.sketches.merge(other.sketches, mapping)

    @classmethod
    def rolled(cls, groups: Sequence[Sequence[Pane]], layouts: Layouts) -> list[Pane]:
        """The panes of each group as one, as if each were merged after the other into an empty one; in time order."""
        alike = [len({part.layout for part in parts}) == 1 and len(parts[0].layout.names) > 0 for parts in groups]
        found = itertools.chain.from_iterable(map(cls._alike, (few for few, _ in chunks(
            [parts for parts, same in zip(groups, alike, strict=True) if same], _rows_of, _TOGETHER))))
        return [next(found) if same else cls._one_by_one(parts, layouts)
                for parts, same in zip(groups, alike, strict=True)]

    @classmethod
    def _one_by_one(cls, parts: Sequence[Pane], layouts: Layouts) -> Pane:
        whole = cls(layouts.empty)
        for part in parts:
            whole.merge(part, layouts)
        return whole

    @classmethod
    def _alike(cls, groups: Sequence[Sequence[Pane]]) -> list[Pane]:
        """The same of groups of panes with the same fields, at once: most are."""
        fields = [len(parts[0].layout.names) for parts in groups]
        tables = summary.rolled_rows(np.concatenate([part.table for parts in groups for part in parts]),
                                     np.array(fields), np.array([len(parts) for parts in groups]))
        sketches = Sketches.summed([[part.sketches for part in parts] for parts in groups], fields)
        found, row = list[Pane](), 0
        for parts, rows, summed in zip(groups, fields, sketches, strict=True):
            whole = cls(parts[0].layout, tables[row:row + rows].copy())
            whole.sketches, row = summed, row + rows
            for part in parts:
                whole.count += part.count
                whole.errors += part.errors
                whole.ignored += part.ignored
                if part.left is not None:
                    whole.leave(part.left, whole.layout.identity)
            found.append(whole)
        return found

    def leave(self, left: IntArray | None, mapping: IntArray) -> None:
        """Note values that no sketch has: left[i] of the field mapping[i] (-1: none of ours)."""
        if left is None:
            return
        have = np.zeros(len(self.layout.names), np.int64)
        if self.left is not None:
            have[:len(self.left)] = self.left
        mapping = mapping[:len(left)]
        have[mapping[mapping >= 0]] += left[mapping >= 0]
        self.left = have

    def summaries(self) -> dict[str, SummaryRecord]:
        """The contract's view: field -> summary."""
        names = self.layout.names
        left = itertools.chain(() if self.left is None else self.left.tolist(), itertools.repeat(0))
        buckets, rows = self.sketches.by_slot(len(names)), self.table.tolist()
        return {name: summary.to_summary(*found) for name, *found in zip(names, rows, buckets, left, strict=False)}

    def encode(self) -> bytes:
        """The pane as bytes; see the module's docstring."""
        return encoded([self])[0]

    @staticmethod
    def decode(data: bytes, layouts: Layouts) -> Pane:
        """The pane in the bytes.

        Raises:
            PaneFormatError: cut short, damaged, or of another format.
        """
        try:
            parts: Any = msgspec.msgpack.decode(data)
            if parts[0] not in (FORMAT, SAMPLED_FORMAT):
                raise PaneFormatError(f"pane format {parts[0]} is not known; this release reads {SAMPLED_FORMAT}")
            _, count, errors, ignored, revision, emitted, late_ms, names, table, keys, counts, *more = parts
            pane = Pane(layouts.of(tuple(names)))
            pane.count, pane.errors, pane.ignored, pane.revision, pane.emitted, pane.late_ms = (
                count, errors, ignored, revision, emitted, late_ms)
            pane.table = np.frombuffer(table, "<f8").astype(np.float64).reshape(len(names), summary.CELLS)
            steps = np.frombuffer(keys, "<i4")
            numbers = np.frombuffer(counts, "<i4" if len(counts) == len(keys) else "<i8").astype(np.int64)
            if len(numbers) != len(steps):
                raise PaneFormatError(f"pane is damaged: {len(steps)} buckets with {len(numbers)} counts")
            if parts[0] == SAMPLED_FORMAT:
                (left,) = more
                pane.left = np.frombuffer(left, "<i8").astype(np.int64)
            if len(more) != (pane.left is not None) or (pane.left is not None and len(pane.left) > len(names)):
                raise PaneFormatError("pane is damaged: what its sketches leave out is not of its fields")
            pane.sketches = Sketches(np.cumsum(steps, dtype=np.int32), numbers)
        except PaneFormatError:
            raise
        except (msgspec.MsgspecError, TypeError, LookupError, ValueError) as error:
            raise PaneFormatError(f"pane is damaged: {error}") from None
        return pane


def encoded(panes: Sequence[Pane]) -> list[bytes]:
    """The panes as bytes; see the module's docstring."""
    if not panes:
        return []
    ends, keys, counts = Sketches.columns([pane.sketches for pane in panes])
    wide = bool(counts.max(initial=0) > _MAX_INT32)
    if wide and len(panes) > 1:
        return [encoded([pane])[0] for pane in panes]
    steps, first = np.diff(keys, prepend=np.int32(0)), ends[:-1][ends[:-1] < ends[1:]]
    steps[first] = keys[first]
    rows, found = edges([len(pane.table) for pane in panes]), list[bytes]()
    parts = zip(_cut(np.concatenate([pane.table for pane in panes]), "<f8", rows), _cut(steps, "<i4", ends),
                _cut(counts, "<i8" if wide else "<i4", ends), strict=True)
    for pane, (table, step, count) in zip(panes, parts, strict=True):
        left = () if pane.left is None else (pane.left.astype("<i8").tobytes(),)
        found.append(_encode((
            SAMPLED_FORMAT if left else FORMAT, pane.count, pane.errors, pane.ignored, pane.revision, pane.emitted,
            pane.late_ms, pane.layout.packed, table, step, count, *left)))
    return found


def _cut(of: NDArray[Any], kind: str, edges: IntArray) -> list[memoryview]:
    """The bytes of an array's rows edges[i]:edges[i + 1]."""
    array = np.ascontiguousarray(of, kind)
    whole = array.reshape(-1).view(np.uint8).data
    at = (edges * (array.itemsize * math.prod(array.shape[1:]))).tolist()
    return [whole[low:high] for low, high in itertools.pairwise(at)]


def _rows_of(parts: Sequence[Pane]) -> int:
    return len(parts) * len(parts[0].layout.names)
