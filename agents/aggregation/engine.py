"""The pure core: events in, closed windows and their amendments out.

Only panes of the finest granularity are updated by events. A coarser pane is the merge, in time order, of its finer
panes, computed when it closes and again when one of them is amended; so it costs nothing per event, and its numbers
do not depend on how the log was cut into batches.

Event time. The watermark of a partition is its newest event's time minus `delay_ms`, as it stands *before* each
event: a pane closes when the watermark passes its end; an event for a closed pane amends it until the watermark
passes end + grace; after that the event is too late. An idle clock may close panes earlier, but never makes an event
too late. A pane stays in memory until its parent can no longer be amended.
"""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.windows import MetricWindow, window_id
from streams.batch import SeriesKey, TelemetryBatch
from streams.settings import Settings
from streams.state.keyed import META, Entry, KeyedStates
from streams.windows import pane as panes
from streams.windows import sketch
from streams.windows.pane import Pane

_UNIT = "\x1f"
_NEVER = -(1 << 62)


@dataclass(frozen=True, slots=True)
class AggregationOptions:
    """Milliseconds throughout; granularities ascend, each dividing the next."""

    granularities_ms: tuple[int, ...] = (1_000, 10_000, 60_000)
    delay_ms: int = 1_000
    grace_ms: int = 30_000
    idle_ms: int = 2_000

    @classmethod
    def from_settings(cls, settings: Settings) -> AggregationOptions:
        return cls(settings.granularities_ms, settings.watermark_delay_ms, settings.grace_ms, settings.idle_ms)


class AggregationResult(NamedTuple):
    """What a batch closed or amended, and the rows of the batch that came too late."""

    windows: list[MetricWindow]
    too_late: NDArray[np.int64]


class PaneKey(NamedTuple):
    """Where a pane belongs."""

    series: SeriesKey
    size_ms: int
    start_ms: int

    @property
    def end_ms(self) -> int:
        return self.start_ms + self.size_ms

    def text(self) -> str:
        return _UNIT.join((*self.series, str(self.size_ms), str(self.start_ms)))

    @staticmethod
    def parse(text: str) -> PaneKey:
        environment, model, version, component, size, start = text.split(_UNIT)
        return PaneKey(SeriesKey(environment, model, version, component), int(size), int(start))


class Meta(msgspec.Struct):
    """The partition's own state."""

    newest_ms: int = _NEVER
    too_late: int = 0


class Codec:
    """Panes and META as bytes."""

    def new(self, key: str) -> Pane | Meta:
        return Meta() if key == META else Pane()

    def encode(self, key: str, state: Pane | Meta) -> bytes:
        return msgspec.msgpack.encode(state) if isinstance(state, Meta) else state.encode()

    def decode(self, key: str, data: bytes) -> Pane | Meta:
        return msgspec.msgpack.decode(data, type=Meta) if key == META else Pane.decode(data)


@dataclass(slots=True)
class _Index:
    """Where the partition's panes are; in memory only, made from the keys."""

    states: KeyedStates[Pane | Meta]
    to_close: list[tuple[int, int, PaneKey]] = field(default_factory=list)     # (end, size, key)
    to_drop: list[tuple[int, PaneKey]] = field(default_factory=list)           # (last use, key)
    known: set[PaneKey] = field(default_factory=set)
    children: dict[PaneKey, set[int]] = field(default_factory=lambda: defaultdict(set))
    last_batch_ms: int = 0


class AggregationEngine:
    """One a worker; the state is in the KeyedStates of each partition."""

    def __init__(self, options: AggregationOptions | None = None) -> None:
        self.options = options or AggregationOptions()
        self.codec = Codec()
        self.ignored_values = 0
        self._indices: dict[int, _Index] = {}
        sizes = self.options.granularities_ms
        self._finest = sizes[0]
        self._parent_size = dict(itertools.pairwise(sizes))

    def warm(self) -> None:
        """Compile the kernels, or load them from their cache."""
        one = np.zeros(1, np.int64)
        panes.accumulate(np.array([0, 1]), np.zeros(1, np.int32), np.ones(1), one, 1, np.ones(1, np.bool_),
                         panes.empty_cells(1), one - 1, one.copy())
        panes.merge_cells(panes.empty_cells(1), panes.empty_cells(1), one)

    def run(self, batch: TelemetryBatch, states: KeyedStates[Pane | Meta], topic: str,
            now_ms: int = 0) -> AggregationResult:
        """Take in a batch. `now_ms` is the wall clock, for the idle clock only."""
        index = self._index(states)
        index.last_batch_ms = now_ms
        meta_entry, meta = self._meta(states)
        rows = np.flatnonzero(batch.offset > meta_entry.fence.get(topic, -1))
        if not len(rows):
            return AggregationResult([], rows)
        late = self._too_late(batch.ts_ms[rows], meta)
        touched = self._accumulate(batch, rows[~late], states, index, topic)
        meta.newest_ms = max(meta.newest_ms, int(batch.ts_ms[rows].max()))
        meta.too_late += int(late.sum())
        states.touch(meta_entry, topic, batch.last_offset)
        windows = self._amend(touched, states, index, meta)
        windows += self._close(states, index, meta.newest_ms - self.options.delay_ms)
        self._drop(states, index, meta)
        return AggregationResult(windows, rows[late])

    def idle(self, states: KeyedStates[Pane | Meta], now_ms: int) -> list[MetricWindow]:
        """Close what the wall clock says is over, when no batch has come for `idle_ms`."""
        index = self._index(states)
        _, meta = self._meta(states)
        if index.last_batch_ms == 0:
            index.last_batch_ms = now_ms
        waited = now_ms - index.last_batch_ms
        if waited < self.options.idle_ms or meta.newest_ms == _NEVER or not index.to_close:
            return []
        return self._close(states, index, meta.newest_ms + waited - self.options.delay_ms)

    # -- events -----------------------------------------------------------------------------------

    def _too_late(self, ts_ms: NDArray[np.int64], meta: Meta) -> NDArray[np.bool_]:
        before = np.maximum.accumulate(np.concatenate(([meta.newest_ms], ts_ms[:-1])))
        ends = ts_ms - ts_ms % self._finest + self._finest
        late: NDArray[np.bool_] = ends + self.options.grace_ms <= before - self.options.delay_ms
        return late

    def _accumulate(self, batch: TelemetryBatch, rows: NDArray[np.int64], states: KeyedStates[Pane | Meta],
                    index: _Index, topic: str) -> list[tuple[PaneKey, Entry[Pane | Meta]]]:
        """Add rows to the finest panes, one kernel call; returns the panes touched."""
        starts = batch.ts_ms[rows] // self._finest
        low = int(starts.min()) if len(rows) else 0
        span = int(starts.max()) - low + 1 if len(rows) else 1
        combined, where = np.unique(batch.series[rows].astype(np.int64) * span + (starts - low), return_inverse=True)
        touched: list[tuple[PaneKey, Entry[Pane | Meta]]] = []
        fences = np.empty(len(combined), np.int64)
        for at, code in enumerate(combined.tolist()):
            key = PaneKey(batch.keys[code // span], self._finest, (code % span + low) * self._finest)
            entry = states.entry(key.text())
            fences[at] = entry.fence.get(topic, -1)
            touched.append((key, entry))
        fresh = batch.offset[rows] > fences[where]
        if fresh.any():
            self._add(batch, rows[fresh], where[fresh], [entry.state for _, entry in touched])
        kept = []
        counts = np.bincount(where[fresh], minlength=len(touched))
        for (key, entry), count in zip(touched, counts.tolist(), strict=True):
            if count:
                states.touch(entry, topic, batch.last_offset)
                self._know(index, key, entry.state)
                kept.append((key, entry))
        return kept

    def _add(self, batch: TelemetryBatch, rows: NDArray[np.int64], where: NDArray[np.int64],
             found: list[Pane | Meta]) -> None:
        fields = max(1, len(batch.fields))
        pane_of_row = np.full(len(batch), -1, np.int64)
        pane_of_row[rows] = where
        sketched = np.array(["=" not in name for name in batch.fields] or [False])
        cells = panes.empty_cells(len(found) * fields)
        first = np.full(len(cells), -1, np.int64)
        packed = np.empty(len(batch.value), np.int64)
        slots = np.array([[pane.names.get(name, -1) for name in batch.fields] or [-1]  # type: ignore[union-attr]
                          for pane in found], np.int64)
        for at, pane in enumerate(found):
            assert isinstance(pane, Pane)
            has = np.flatnonzero(slots[at] >= 0)
            cells[at * fields + has] = pane.table[slots[at, has]]
        panes.accumulate(batch.start, batch.field, batch.value, pane_of_row, fields, sketched, cells, first, packed)
        keys, counts = np.unique(packed[packed >= 0], return_counts=True)
        owner = keys >> 18
        edges = np.searchsorted(owner, np.arange(len(found) + 1) * fields)
        events = np.bincount(where, minlength=len(found)).tolist()
        errors = np.bincount(where, weights=batch.error[rows], minlength=len(found)).tolist()
        for at, pane in enumerate(found):
            assert isinstance(pane, Pane)
            pane.count += events[at]
            pane.errors += int(errors[at])
            own = slice(at * fields, (at + 1) * fields)
            self._store(pane, batch.fields, slots[at], cells[own], first[own])
            part = slice(edges[at], edges[at + 1])
            slot = slots[at][owner[part] - at * fields]
            keep = slot >= 0
            if keep.any():
                codes = (keys[part] & ((1 << 18) - 1)) - sketch.SPAN
                pane.add_sketch(slot[keep], codes[keep], counts[part][keep])

    def _store(self, pane: Pane, names: list[str], slots: NDArray[np.int64], cells: panes.FloatArray,
               first: NDArray[np.int64]) -> None:
        """Put a pane's cells back, making slots for new fields in the order in which they came."""
        seen = np.flatnonzero(first >= 0)
        fresh = seen[slots[seen] < 0]
        plain = seen[slots[seen] >= 0]
        pane.table[slots[plain]] = cells[plain]
        for at in fresh[np.argsort(first[fresh])].tolist():
            slots[at] = pane.slot(names[at])
            if slots[at] < 0:
                values = int(cells[at, panes.COUNT] + cells[at, panes.MISSING])
                pane.ignored += values
                self.ignored_values += values
            else:
                panes.merge_cells(pane.table, cells[at:at + 1], slots[at:at + 1])

    # -- windows ----------------------------------------------------------------------------------

    def _amend(self, touched: list[tuple[PaneKey, Entry[Pane | Meta]]], states: KeyedStates[Pane | Meta],
               index: _Index, meta: Meta) -> list[MetricWindow]:
        """Publish again what was closed before this batch changed it."""
        stale = {key for key, entry in touched if _pane(entry).emitted}
        return self._publish_again(stale, states, index, meta.newest_ms - self.options.delay_ms)

    def _publish_again(self, stale: set[PaneKey], states: KeyedStates[Pane | Meta], index: _Index,
                       watermark_ms: int) -> list[MetricWindow]:
        """Published panes that changed, and their published parents, from fine to coarse."""
        windows = []
        while stale:
            parents = set()
            for key in sorted(stale, key=lambda key: (key.size_ms, key.start_ms, key.series)):
                windows.append(self._emit(key, states, index, watermark_ms))
                parents |= self._published_parent(key, states)
            stale = parents
        return windows

    def _published_parent(self, key: PaneKey, states: KeyedStates[Pane | Meta]) -> set[PaneKey]:
        parent = self._parent(key)
        if parent is None or parent.text() not in states or not _pane(states.entry(parent.text())).emitted:
            return set()
        return {parent}

    def _close(self, states: KeyedStates[Pane | Meta], index: _Index, watermark_ms: int) -> list[MetricWindow]:
        """Publish panes that end at or before the watermark. One that began late amends its published parents."""
        windows: list[MetricWindow] = []
        stale: set[PaneKey] = set()
        while index.to_close and index.to_close[0][0] <= watermark_ms:
            _, _, key = heapq.heappop(index.to_close)
            if not _pane(states.entry(key.text())).emitted:
                windows.append(self._emit(key, states, index, watermark_ms))
                stale |= self._published_parent(key, states)
        return windows + self._publish_again(stale, states, index, watermark_ms)

    def _roll_up(self, key: PaneKey, entry: Entry[Pane | Meta], states: KeyedStates[Pane | Meta],
                 index: _Index) -> None:
        """The pane anew from its finer panes, in time order."""
        old, new = _pane(entry), Pane()
        new.revision, new.emitted = old.revision, old.emitted
        size = self._child_size(key.size_ms)
        for start in sorted(index.children[key]):
            new.merge(_pane(states.entry(PaneKey(key.series, size, start).text())))
        entry.state = new

    def _emit(self, key: PaneKey, states: KeyedStates[Pane | Meta], index: _Index,
              watermark_ms: int) -> MetricWindow:
        entry = states.entry(key.text())
        if key.size_ms != self._finest:
            self._roll_up(key, entry, states, index)
        pane = _pane(entry)
        if pane.emitted:
            pane.revision += 1
        pane.emitted = True
        states.touch(entry)
        return MetricWindow.model_construct(
            schema_version=1, **key.series._asdict(), start_ms=key.start_ms, size_ms=key.size_ms,
            window_id=window_id(*key.series, key.size_ms, key.start_ms, states.partition),
            partition=states.partition, count=pane.count, errors=pane.errors, revision=pane.revision,
            closed_ms=max(0, watermark_ms), fields=pane.summaries())

    def _drop(self, states: KeyedStates[Pane | Meta], index: _Index, meta: Meta) -> None:
        """Forget panes that nothing can amend any more."""
        over = meta.newest_ms - self.options.delay_ms
        while index.to_drop and index.to_drop[0][0] <= over:
            _, key = heapq.heappop(index.to_drop)
            states.drop(key.text())
            index.known.discard(key)
            index.children.pop(key, None)

    # -- the index --------------------------------------------------------------------------------

    def _index(self, states: KeyedStates[Pane | Meta]) -> _Index:
        index = self._indices.get(states.partition)
        if index is None or index.states is not states:
            index = self._indices[states.partition] = _Index(states)
            for text in states.keys():  # noqa: SIM118
                key = PaneKey.parse(text)
                self._know(index, key, states.entry(text).state)
        return index

    def _know(self, index: _Index, key: PaneKey, state: Pane | Meta) -> None:
        """Plan when a pane closes and when it is dropped, and its parents with it."""
        if key in index.known:
            return
        index.known.add(key)
        if not (isinstance(state, Pane) and state.emitted):
            heapq.heappush(index.to_close, (key.end_ms, key.size_ms, key))
        parent = self._parent(key)
        last_use = (parent or key).end_ms + self.options.grace_ms
        heapq.heappush(index.to_drop, (last_use, key))
        if parent is not None:
            index.children[parent].add(key.start_ms)
            text = parent.text()
            self._know(index, parent, index.states.entry(text).state if text in index.states else Pane())

    def _parent(self, key: PaneKey) -> PaneKey | None:
        size = self._parent_size.get(key.size_ms)
        return PaneKey(key.series, size, key.start_ms - key.start_ms % size) if size else None

    def _child_size(self, size_ms: int) -> int:
        sizes = self.options.granularities_ms
        return sizes[sizes.index(size_ms) - 1]

    def _meta(self, states: KeyedStates[Pane | Meta]) -> tuple[Entry[Pane | Meta], Meta]:
        entry = states.entry(META)
        assert isinstance(entry.state, Meta)
        return entry, entry.state


def _pane(entry: Entry[Pane | Meta]) -> Pane:
    assert isinstance(entry.state, Pane)
    return entry.state
