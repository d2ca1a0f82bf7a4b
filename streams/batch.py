"""bytes -> TelemetryBatch: validated, columnar, offsets kept; what breaks the contract leaves as `RejectedRecord`.

The contract is `schemas.telemetry.TelemetryEvent`. The hot path decodes with msgspec into a narrower struct: what it
accepts, the contract accepts with the same values (a differential test holds this); what it does not take, the
contract itself judges. So a lean decoder costs no second definition of what is valid.

Fields are long-format: one (row, field, value) a number. A class or a text is the field `NAME=VALUE` with value 1,
so that counting categories is the same work as summing numbers. A missing feature is NaN.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from schemas.base import MAX_FEATURES, MAX_METRICS, MAX_TIMESTAMP_MS
from schemas.rejected import Reason, RejectedRecord
from schemas.telemetry import Feedback, TelemetryEvent
from streams.records import Record, RecordBatch

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class SeriesKey(NamedTuple):
    """What a series of numbers belongs to."""

    environment: str
    model: str
    version: str
    component: str


@dataclass(slots=True, eq=False)
class TelemetryBatch:
    """The valid events of one batch, as columns. n rows (events) and m values.

    Rows are in log order. `start[i]:start[i + 1]` are the values of row i; `fields[field[j]]` names value j:
    latency_ms, confidence, prediction, prediction=CLASS, feature.NAME, feature.NAME=VALUE, metric.NAME.
    """

    partition: int
    first_offset: int
    last_offset: int
    offset: IntArray            # (n,) of the record
    position: IntArray          # (n,) in the record's array, 0 for a single event
    ts_ms: IntArray             # (n,)
    series: NDArray[np.int32]   # (n,) index into keys
    error: NDArray[np.bool_]    # (n,) the event carries an error
    start: NDArray[np.int64]    # (n + 1,)
    field: NDArray[np.int32]    # (m,) index into fields
    value: FloatArray           # (m,) NaN: missing
    keys: list[SeriesKey]       # distinct, in order of first appearance
    fields: list[str]           # distinct, in order of first appearance
    event_ids: list[str]        # (n,)
    trace_ids: list[str | None]  # (n,)
    rejected: list[RejectedRecord]

    def __len__(self) -> int:
        return len(self.ts_ms)


class _Event(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The contract's common shape, narrower: see the module's docstring."""

    environment: str
    model: str
    version: str
    event_id: str
    ts: Annotated[int, msgspec.Meta(ge=0, le=MAX_TIMESTAMP_MS)]
    component: str = "model"
    schema_version: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    prediction: float | str | None = None
    confidence: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] | None = None
    label: float | str | None = None
    latency_ms: Annotated[float, msgspec.Meta(ge=0.0, le=1e9)] | None = None
    error: Annotated[str, msgspec.Meta(max_length=512)] | None = None
    features: dict[str, float | bool | str | None] = {}
    metrics: dict[str, float] = {}
    segment: dict[str, str] = {}
    trace_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None


class Limits(NamedTuple):
    """What is let in besides the contract."""

    max_record_bytes: int = 1_048_576
    max_events_per_record: int = 10_000
    max_age_ms: int = 0
    max_ahead_ms: int = 10_000


class _Fault(Exception):
    """A record or event that is refused; carried to the edge of the decoder and turned into a value there."""

    def __init__(self, reason: Reason, field: str, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.field = field
        self.message = message


_EVENT = msgspec.json.Decoder(_Event)
_EVENTS = msgspec.json.Decoder(list[_Event])
_RAW_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_MAX_NAMES = 100_000

_REASONS: dict[str, Reason] = {
    "missing": "missing_field", "json_invalid": "not_json", "model_type": "not_an_object",
    "finite_number": "not_finite", "literal_error": "schema_version",
    "too_long": "out_of_bounds", "string_too_long": "out_of_bounds", "string_too_short": "out_of_bounds",
    "string_pattern_mismatch": "out_of_bounds", "greater_than_equal": "out_of_bounds",
    "less_than_equal": "out_of_bounds", "value_error": "time_zone",
}


def fault_of(error: ValidationError) -> tuple[Reason, str, str]:
    """The first thing pydantic found: (reason, path of the field, what to change)."""
    first = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(str(part) for part in first["loc"])[:200]
    reason = _REASONS.get(first["type"], "wrong_type")
    if reason == "time_zone" and "time zone" not in first["msg"]:
        reason = "wrong_type"
    return reason, path, f"{path or 'record'}: {first['msg']}"[:512]


class Decoder:
    """Decodes batches of one worker. Remembers names that it has validated, so that they cost one look-up."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._keys: dict[tuple[str, str, str, str], SeriesKey] = {}
        self._names: dict[tuple[str, ...], bool] = {}

    def __call__(self, batch: RecordBatch) -> TelemetryBatch:
        """Columns of the valid events, and the rest as rejected records. Never raises on bad input."""
        columns = _Columns(batch)
        for record in batch.records:
            self._record(columns, record)
        return columns.finish()

    def _record(self, columns: _Columns, record: Record) -> None:
        value = record.value
        try:
            if not value:
                raise _Fault("empty", "", "the record has no value: send one JSON object, or an array of them")
            if len(value) > self.limits.max_record_bytes:
                raise _Fault("too_large", "", f"{len(value)} bytes: a record may have "
                             f"{self.limits.max_record_bytes}; send smaller arrays")
        except _Fault as fault:
            columns.reject(record, fault, -1, value or b"", self.limits.max_record_bytes)
            return
        if value.lstrip()[:1] == b"[":
            self._array(columns, record, value)
        else:
            self._one(columns, record, value, 0, -1)

    def _one(self, columns: _Columns, record: Record, value: bytes | msgspec.Raw, position: int, shown: int) -> None:
        try:
            event: _Event | TelemetryEvent = _EVENT.decode(value)
            if not self._plain(event):  # type: ignore[arg-type]
                event = self._contract(bytes(value))
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            try:
                event = self._contract(bytes(value))
            except _Fault as fault:
                columns.reject(record, fault, shown, bytes(value), self.limits.max_record_bytes)
                return
        except _Fault as fault:
            columns.reject(record, fault, shown, bytes(value), self.limits.max_record_bytes)
            return
        self._add(columns, record, event, position, value, shown)

    def _array(self, columns: _Columns, record: Record, value: bytes) -> None:
        try:
            items: list[msgspec.Raw] = _RAW_ITEMS.decode(value)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            columns.reject(record, _Fault("not_json", "", f"not a JSON array: {error}"[:512]), -1, value,
                           self.limits.max_record_bytes)
            return
        if len(items) > self.limits.max_events_per_record:
            fault = _Fault("too_large", "", f"{len(items)} events: a record may have "
                           f"{self.limits.max_events_per_record}")
            columns.reject(record, fault, -1, value, self.limits.max_record_bytes)
            return
        try:
            events = _EVENTS.decode(value)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            for position, item in enumerate(items):
                self._one(columns, record, item, position, position)
            return
        for position, event in enumerate(events):
            if self._plain(event):
                self._add(columns, record, event, position, items[position], position)
            else:
                self._one(columns, record, items[position], position, position)

    def _plain(self, event: _Event) -> bool:
        """True if the lean event is certain to be valid; False sends it to the contract."""
        return (
            0 < len(event.event_id) <= 128
            and (event.environment, event.model, event.version, event.component) in self._keys
            and (not event.features or self._known(tuple(event.features), MAX_FEATURES))
            and (not event.metrics or self._known(tuple(event.metrics), MAX_METRICS))
            and not event.segment
            and all(type(v) is not str or len(v) <= 128 for v in (event.prediction, event.label))
            and all(type(v) is not str or len(v) <= 128 for v in event.features.values())
        )

    def _known(self, names: tuple[str, ...], most: int) -> bool:
        known = self._names.get(names)
        if known is None:
            known = len(names) <= most and all(0 < len(name) <= 128 for name in names)
            if len(self._names) < _MAX_NAMES:
                self._names[names] = known
        return known and len(names) <= most

    def _contract(self, value: bytes) -> TelemetryEvent:
        try:
            event = TelemetryEvent.model_validate_json(value)
        except ValidationError as error:
            raise _Fault(*fault_of(error)) from None
        except (RecursionError, ValueError) as error:
            raise _Fault("undecodable", "", f"cannot be decoded: {error}"[:512]) from None
        key = SeriesKey(event.environment, event.model, event.version, event.component)
        if key not in self._keys and len(self._keys) < _MAX_NAMES:
            self._keys[key] = key
        return event

    def _add(self, columns: _Columns, record: Record, event: _Event | TelemetryEvent, position: int,
             value: bytes | msgspec.Raw, shown: int) -> None:
        limits, at = self.limits, record.timestamp
        if at > 0 and limits.max_ahead_ms and event.ts > at + limits.max_ahead_ms:
            fault = _Fault("from_future", "ts", f"ts is {event.ts - at} ms after the broker's clock; "
                           f"{limits.max_ahead_ms} ms are allowed: check the producer's clock and unit")
        elif at > 0 and limits.max_age_ms and event.ts < at - limits.max_age_ms:
            fault = _Fault("too_old", "ts", f"ts is {at - event.ts} ms before the broker's clock; "
                           f"{limits.max_age_ms} ms are allowed (STREAMGAUGE_MAX_AGE_MS)")
        else:
            columns.add(record.offset, position, event)
            return
        columns.reject(record, fault, shown, bytes(value), limits.max_record_bytes)


class _Columns:
    """Lists that grow by an event, and become arrays once."""

    def __init__(self, batch: RecordBatch) -> None:
        self.batch = batch
        self.offset: list[int] = []
        self.position: list[int] = []
        self.ts_ms: list[int] = []
        self.series: list[int] = []
        self.error: list[bool] = []
        self.start: list[int] = [0]
        self.field: list[int] = []
        self.value: list[float] = []
        self.event_ids: list[str] = []
        self.trace_ids: list[str | None] = []
        self.keys: dict[SeriesKey, int] = {}
        self.fields: dict[str, int] = {}
        self.layouts: dict[tuple[str, tuple[str, ...]], list[int]] = {}
        self.rejected: list[RejectedRecord] = []

    def add(self, offset: int, position: int, event: _Event | TelemetryEvent) -> None:
        key = SeriesKey(event.environment, event.model, event.version, event.component)
        self.series.append(self.keys.setdefault(key, len(self.keys)))
        self.offset.append(offset)
        self.position.append(position)
        self.ts_ms.append(event.ts)
        self.error.append(event.error is not None)
        self.event_ids.append(event.event_id)
        self.trace_ids.append(event.trace_id)
        if event.latency_ms is not None:
            self._number("latency_ms", event.latency_ms)
        if event.confidence is not None:
            self._number("confidence", event.confidence)
        if event.prediction is not None:
            self._outcome("prediction", event.prediction)
        if event.features:
            self._mapping("feature.", event.features)
        if event.metrics:
            self._mapping("metric.", event.metrics)
        self.start.append(len(self.field))

    def _number(self, name: str, value: float) -> None:
        self.field.append(self.fields.setdefault(name, len(self.fields)))
        self.value.append(value)

    def _outcome(self, name: str, value: Any) -> None:
        if type(value) is str:
            self._number(f"{name}={value}", 1.0)
        else:
            self._number(name, value)

    def _mapping(self, prefix: str, mapping: dict[str, Any]) -> None:
        values = list(mapping.values())
        kinds = set(map(type, values))
        if kinds == {float}:
            names = tuple(mapping)
            layout = self.layouts.get((prefix, names))
            if layout is None:
                layout = [self.fields.setdefault(prefix + name, len(self.fields)) for name in names]
                self.layouts[(prefix, names)] = layout
            self.field.extend(layout)
            self.value.extend(values)
            return
        for name, value in mapping.items():
            self._outcome(prefix + name, float("nan") if value is None else value)

    def reject(self, record: Record, fault: _Fault, position: int, payload: bytes, most: int) -> None:
        batch = self.batch
        self.rejected.append(rejected_record(batch.topic, batch.partition, record, fault.reason, fault.field,
                                             fault.message, position, payload, most))

    def finish(self) -> TelemetryBatch:
        return TelemetryBatch(
            partition=self.batch.partition,
            first_offset=self.batch.first_offset,
            last_offset=self.batch.last_offset,
            offset=np.array(self.offset, np.int64),
            position=np.array(self.position, np.int64),
            ts_ms=np.array(self.ts_ms, np.int64),
            series=np.array(self.series, np.int32),
            error=np.array(self.error, np.bool_),
            start=np.array(self.start, np.int64),
            field=np.array(self.field, np.int32),
            value=np.array(self.value, np.float64),
            keys=list(self.keys),
            fields=list(self.fields),
            event_ids=self.event_ids,
            trace_ids=self.trace_ids,
            rejected=self.rejected,
        )


def rejected_record(topic: str, partition: int, record: Record, reason: Reason, field: str, message: str,
                    position: int, payload: bytes, most: int) -> RejectedRecord:
    """The record kept: bytes up to `most`, reason, field, coordinates."""
    return RejectedRecord(
        rejected_id=f"r-{topic}-{partition}-{record.offset}-{position}"[-128:],
        reason=reason, field=field[:512], message=message[:512], topic=topic, partition=partition,
        offset=record.offset, position=position, ts=max(record.timestamp, 0),
        key_base64=base64.b64encode((record.key or b"")[:1024]).decode(),
        payload_base64=base64.b64encode(payload[:most]).decode(),
        payload_size_bytes=len(payload), truncated=len(payload) > most,
    )


class FeedbackBatch(NamedTuple):
    """Late labels of one batch: (offset, label) in log order, and what was refused."""

    labels: list[tuple[int, Feedback]]
    rejected: list[RejectedRecord]


def decode_feedback(batch: RecordBatch, limits: Limits) -> FeedbackBatch:
    """Late labels, one a record. Never raises on bad input; tombstones and bad records are refused with a reason."""
    found = FeedbackBatch([], [])
    for record in batch.records:
        value = record.value or b""
        try:
            if len(value) > limits.max_record_bytes:
                raise _Fault("too_large", "", f"{len(value)} bytes: a record may have {limits.max_record_bytes}")
            if not value:
                raise _Fault("empty", "", "the record has no value: send one JSON object")
            found.labels.append((record.offset, Feedback.model_validate_json(value)))
            continue
        except _Fault as error:
            fault = error
        except ValidationError as error:
            fault = _Fault(*fault_of(error))
        except (RecursionError, ValueError) as error:
            fault = _Fault("undecodable", "", f"cannot be decoded: {error}"[:512])
        found.rejected.append(rejected_record(batch.topic, batch.partition, record, fault.reason, fault.field,
                                              fault.message, -1, value, limits.max_record_bytes))
    return found
