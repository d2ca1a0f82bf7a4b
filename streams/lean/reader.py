"""The compiled reader with its memory: which names are known, and how their numbers become a batch's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from schemas.base import MAX_FEATURES
from schemas.telemetry import TelemetryEvent
from streams.lean import columns, decoding
from streams.lean.columns import Known, Out
from streams.lean.events import Limits
from streams.lean.learning import DEFAULT_COMPONENT
from streams.lean.names import CLASSES, FEATURES, METRICS, NONE, SEGMENTS, SERIES, Names
from streams.wire import Block

#: A value takes at least four bytes of JSON, an event sixty.
_BYTES_A_VALUE, _BYTES_AN_EVENT = 4, 60
_KEY_PLACES = 32
#: What fields' names begin with, by the parent of their names.
_PREFIX = {FEATURES: "feature.", METRICS: "metric.", CLASSES: "prediction=", SEGMENTS: "segment."}
if TelemetryEvent.model_fields["component"].default != DEFAULT_COMPONENT.decode():
    raise RuntimeError("the contract's default component is not the reader's")


class SeriesKey(NamedTuple):
    """What a series of numbers belongs to."""

    environment: str
    model: str
    version: str
    component: str


class Texts(Sequence[str | None]):
    """Texts that stay bytes until they are asked for."""

    def __init__(self, data: NDArray[np.uint8], spans: NDArray[np.int64], others: dict[int, str | None]) -> None:
        self._data = data
        self._spans = spans
        self._others = others

    def __len__(self) -> int:
        return len(self._spans)

    @overload
    def __getitem__(self, at: int) -> str | None: ...
    @overload
    def __getitem__(self, at: slice) -> Texts: ...

    def __getitem__(self, at: int | slice) -> str | Texts | None:
        if isinstance(at, slice):
            rows = range(len(self))[at]
            others = {rows.index(row): text for row, text in self._others.items() if row in rows}
            return Texts(self._data, self._spans[at], others)
        row = range(len(self))[at]
        if row in self._others:
            return self._others[row]
        begin, end = self._spans[row].tolist()
        return None if begin < 0 else self._data[begin:end].tobytes().decode("ascii")

    def __eq__(self, other: object) -> bool:
        return list(self) == other

    __hash__ = None  # type: ignore[assignment]


class Reader:
    """Reads the records of one batch after another. Of segments it keeps those with one of the keys."""

    def __init__(self, limits: Limits, segment_keys: Sequence[str] = ()) -> None:
        self._limits = limits._replace(segment_keys=len(segment_keys))
        self._segment_keys = frozenset(segment_keys)
        self._item = columns.new_event()
        self._used: NDArray[np.int64] = np.zeros(columns.CURSORS, np.int64)
        self._known = _unknown()
        self._forget()

    def start(self, records: Block) -> Rows:
        """Begin a batch."""
        each = self._known.each
        each[columns.FIELDS_HERE, each[columns.FIELD_ORDER, :self._used[columns.LOCAL_FIELDS]]] = NONE
        each[columns.SERIES_HERE, each[columns.SERIES_ORDER, :self._used[columns.LOCAL_SERIES]]] = NONE
        self._spell()
        if self._names.full:
            self._forget()
        rows = Rows(records)
        rows.out.cursor[columns.EVENT] = self._used[columns.EVENT]
        self._used = rows.out.cursor
        return rows

    def read(self, rows: Rows, first: int) -> int:
        """Read records from `first` on; the number of the first that is left to the contract."""
        block = rows.records
        found: int = decoding.read(block.buffer, block.value, block.timestamp, first, self._names.table, self._known,
                                   self._item, self._limits, rows.out)
        return found

    def left(self, rows: Rows) -> tuple[int, bool]:
        """Of the record that `read` or `resume` left: which event of its array, and whether `resume` can go on there.
        """
        return int(rows.out.cursor[columns.LEFT]), bool(rows.out.cursor[columns.LEFT_AT] >= 0)

    def resume(self, rows: Rows, record: int, after: int) -> bool:
        """Go on in an array that is known to be one, so many events `after` the one that was left; True at its end."""
        block = rows.records
        found: bool = decoding.resume(block.buffer, block.value, block.timestamp, record, after, self._names.table,
                                      self._known, self._item, self._limits, rows.out)
        return found

    def undo(self, rows: Rows) -> None:
        """Drop what was read of the record that is left."""
        cursor = rows.out.cursor
        cursor[columns.ROWS], cursor[columns.VALUES] = cursor[columns.ROWS_BEFORE], cursor[columns.VALUES_BEFORE]

    def learn(self, event: TelemetryEvent) -> bool:
        """Know the series of an event that the contract has read, or if that is known its other names; True if some
        are new: it may be read now."""
        self._spell()
        before = self._names.size
        self._series_of(event)
        if self._names.size == before:
            self._learn(event, self._item)
        self._fit()
        return self._names.size > before

    def add(self, rows: Rows, record: int, position: int, event: TelemetryEvent) -> None:
        """Add an event that the contract has read, and know its names from now on."""
        self._spell()
        out, item = rows.out, self._item
        series = self._learn(event, item)
        row = int(out.cursor[columns.ROWS])
        rows.event_ids[row], rows.trace_ids[row] = event.event_id, event.trace_id
        local = columns.local_series(series, self._known, out.cursor)
        columns.write(record, position, local, item, self._known, out)

    def keys(self, rows: Rows) -> list[SeriesKey]:
        """The batch's series, in order of first appearance."""
        self._spell()
        order = self._known.each[columns.SERIES_ORDER, :rows.out.cursor[columns.LOCAL_SERIES]]
        return [self._series[number] for number in order.tolist()]

    def fields(self, rows: Rows) -> list[str]:
        """The batch's fields, in order of first appearance."""
        self._spell()
        order = self._known.each[columns.FIELD_ORDER, :rows.out.cursor[columns.LOCAL_FIELDS]]
        return [self._fields[number] for number in order.tolist()]

    # -- names ------------------------------------------------------------------------------------

    def _spell(self) -> None:
        """Know by their texts what compiled code has learnt."""
        count, each = self._known.count, self._known.each
        self._names.size = int(count[columns.NAMES])
        for name in each[columns.FIELD_NAMES, len(self._fields):count[columns.FIELDS_KNOWN]].tolist():
            self._field(self._text_of(name))
        for name in each[columns.SERIES_NAMES, len(self._series):count[columns.SERIES_KNOWN]].tolist():
            self._number_of(SeriesKey(*reversed(list(self._path(name)))))

    def _text_of(self, name: int) -> str:
        """What the field that a name means is called."""
        text, parent = self._names.text(name), int(self._names.table.parent[name])
        if parent >= 0:
            root = int(self._names.table.parent[parent])
            return f"{_PREFIX[root]}{self._names.text(parent)}={text}"
        return f"{_PREFIX[parent]}{text}"

    def _path(self, name: int) -> Iterator[str]:
        """The texts of a name and of those above it."""
        while name >= 0:
            yield self._names.text(name)
            name = int(self._names.table.parent[name])

    def _forget(self) -> None:
        self._names = Names()
        self._series: list[SeriesKey] = []
        self._series_numbers: dict[SeriesKey, int] = {}
        self._fields: list[str] = []
        self._field_numbers: dict[str, int] = {}
        self._numeric: dict[str, int] = {}              # numeric feature -> its field
        self._metrics: dict[str, int] = {}
        self._used = np.zeros(columns.CURSORS, np.int64)
        self._known = _unknown()
        for name in ("latency_ms", "confidence", "prediction"):
            self._field(name)
        for key in sorted(self._segment_keys):
            self._names.add(SEGMENTS, key)
        self._known.count[columns.SPLIT] = any("=" in key for key in self._segment_keys)
        self._fit()

    def _learn(self, event: TelemetryEvent, item: columns.Event) -> int:
        """Fill `item` as the compiled reader would, adding names; the number of the series."""
        series = self._series_of(event)
        item.whole[:] = event.ts, event.error is not None, NONE, len(event.features), len(event.metrics), 0
        item.number[:] = (-1.0 if event.latency_ms is None else event.latency_ms,
                          -1.0 if event.confidence is None else event.confidence, 0.0)
        if isinstance(event.prediction, str):
            name = self._names.add(CLASSES, event.prediction)
            item.whole[columns.CLASS] = self._means(name, f"prediction={event.prediction}")
            item.number[columns.PREDICTED] = 1.0
        elif event.prediction is not None:
            item.whole[columns.CLASS], item.number[columns.PREDICTED] = columns.PREDICTION_FIELD, event.prediction
        for at, (feature, value) in enumerate(event.features.items()):
            item.field[at], item.value[at] = self._feature(feature, value)
        for at, (metric, number) in enumerate(event.metrics.items(), MAX_FEATURES):
            field = self._metrics.get(metric)
            if field is None:
                field = self._metrics[metric] = self._means(self._names.add(METRICS, metric), f"metric.{metric}")
            item.field[at], item.value[at] = field, number
        for key in (key for key in event.segment if key in self._segment_keys):
            self._segment(item, key, event.segment[key])
        self._fit()
        return series

    def _segment(self, item: columns.Event, key: str, value: str) -> None:
        at = columns.SEGMENTS_AT + int(item.whole[columns.SEGMENT_COUNT])
        name = self._names.add(self._names.add(SEGMENTS, key), value)
        item.field[at], item.value[at] = self._means(name, f"segment.{key}={value}"), 1.0
        item.whole[columns.SEGMENT_COUNT] += 1

    def _feature(self, feature: str, value: Any) -> tuple[int, float]:
        self._known.count[columns.SPLIT] |= "=" in feature
        if isinstance(value, str):
            name = self._names.add(FEATURES, feature)
            self._means(name, f"feature.{feature}")
            return self._means(self._names.add(name, value), f"feature.{feature}={value}"), 1.0
        field = self._numeric.get(feature)
        if field is None:
            field = self._numeric[feature] = self._means(self._names.add(FEATURES, feature), f"feature.{feature}")
        return field, float("nan") if value is None else float(value)

    def _series_of(self, event: TelemetryEvent) -> int:
        key = SeriesKey(event.environment, event.model, event.version, event.component)
        number, name = self._number_of(key), SERIES
        for part in key[:3]:
            name = self._names.add(name, part)
        if key.component.encode() == DEFAULT_COMPONENT:
            self._names.table.meaning[name] = number
        self._names.table.meaning[self._names.add(name, key.component)] = number
        return number

    def _number_of(self, key: SeriesKey) -> int:
        number = self._series_numbers.setdefault(key, len(self._series))
        if number == len(self._series):
            self._series.append(key)
        return number

    def _means(self, name: int, field: str) -> int:
        number = self._field(field)
        self._names.table.meaning[name] = number
        return number

    def _field(self, field: str) -> int:
        number = self._field_numbers.setdefault(field, len(self._fields))
        if number == len(self._fields):
            self._fields.append(field)
        return number

    def _fit(self) -> None:
        """As much room for what is known as there are names."""
        most = max(len(self._names.table.parent), len(self._series), len(self._fields))
        each = self._known.each
        if most > each.shape[1]:
            self._known = self._known._replace(each=np.full((len(each), 2 * most), NONE))
            self._known.each[:, :each.shape[1]] = each
        self._known.count[:columns.SPLIT] = self._names.size, len(self._series), len(self._fields)


def _unknown() -> Known:
    return Known(np.full((columns.ROWS_EACH, 0), NONE), np.full((2, MAX_FEATURES), NONE),
                 np.full(_KEY_PLACES, columns.UNKNOWN - 1), np.zeros(columns.COUNTS, np.int64))


class Rows:
    """The columns of a batch that is being read; what did not stay in the buffer is beside them."""

    def __init__(self, records: Block) -> None:
        self.records = records
        size = int(np.maximum(records.value[:, 1] - records.value[:, 0], 0).sum())
        rows, values = size // _BYTES_AN_EVENT + len(records), size // _BYTES_A_VALUE + 1
        self.out = Out(np.empty(rows, np.int64), np.empty(rows, np.int64), np.empty(rows, np.int32),
                       np.empty(rows, np.bool_), np.zeros(rows + 1, np.int64), np.empty(values, np.int32),
                       np.empty(values), np.empty(rows, np.int64), np.empty((rows, 4), np.int64),
                       np.zeros(columns.CURSORS, np.int64))
        self.event_ids: dict[int, str | None] = {}
        self.trace_ids: dict[int, str | None] = {}

    def texts(self) -> tuple[Texts, Texts]:
        """The events' ids, and their traces'."""
        spans = self.out.spans[:self.out.cursor[columns.ROWS]]
        return (Texts(self.records.buffer, spans[:, :2], self.event_ids),
                Texts(self.records.buffer, spans[:, 2:], self.trace_ids))
