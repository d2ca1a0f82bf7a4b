"""bytes -> TelemetryBatch: validated, columnar, offsets kept; what breaks the contract leaves as `RejectedRecord`.

The contract is `schemas.telemetry.TelemetryEvent`. The hot path is a compiled reader of the common shapes: what it
takes, the contract takes with the same values (a differential test holds this); what it leaves, the contract itself
judges. So a lean reader costs no second definition of what is valid.

Fields are long-format: one (row, field, value) a number. A class or a text is the field `NAME=VALUE` with value 1,
so that counting categories is the same work as summing numbers. A missing feature is NaN.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json

from schemas.alerts import LifecycleEvent
from schemas.rejected import Reason, RejectedRecord
from schemas.telemetry import Feedback, TelemetryEvent
from streams import wire
from streams.lean import columns, names
from streams.lean.events import Limits
from streams.lean.reader import Reader, Rows, SeriesKey, Texts
from streams.records import Record, RecordBatch
from streams.wire import WireRecord

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
M = TypeVar("M", bound=BaseModel)

#: Bad events of one array that are kept each by itself; the others are kept together.
MOST_REJECTED = 100

__all__ = ["Decoder", "FeedbackBatch", "LifecycleBatch", "Limits", "SeriesKey", "TelemetryBatch", "decode_feedback",
           "decode_lifecycle", "fault_of", "rejected_record"]


@dataclass(slots=True, eq=False)
class TelemetryBatch:
    """The valid events of one batch, as columns. n rows (events) and m values.

    Rows are in log order. `start[i]:start[i + 1]` are the values of row i; `fields[field[j]]` names value j:
    latency_ms, confidence, prediction, prediction=CLASS, feature.NAME, feature.NAME=VALUE, metric.NAME, and of the keys
    that are asked for segment.KEY=VALUE.
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
    event_ids: Texts            # (n,)
    trace_ids: Texts            # (n,) None: it has none
    rejected: list[RejectedRecord]

    def __len__(self) -> int:
        return len(self.ts_ms)

    def part(self, low: int, high: int) -> TelemetryBatch:
        """Rows from `low` to `high`, as views; names, ids and what was rejected stay the whole batch's."""
        if (low, high) == (0, len(self)):
            return self
        rows, values = slice(low, high), slice(int(self.start[low]), int(self.start[high]))
        return replace(self, offset=self.offset[rows], position=self.position[rows], ts_ms=self.ts_ms[rows],
                       series=self.series[rows], error=self.error[rows], start=self.start[low:high + 1] - values.start,
                       field=self.field[values], value=self.value[values],
                       event_ids=self.event_ids[rows], trace_ids=self.trace_ids[rows])


class _Fault(Exception):
    """A record or event that is refused; carried to the edge of the decoder and turned into a value there."""

    def __init__(self, reason: Reason, field: str, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.field = field
        self.message = message


_NO_OBJECT: tuple[Reason, str, str] = "not_an_object", "", "record: Input should be an object"
_RAW_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])

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
    """Decodes batches of one worker. Remembers the names that the contract has accepted.

    Segments with one of `segment_keys` become the fields segment.KEY=VALUE.
    """

    def __init__(self, limits: Limits | None = None, segment_keys: Sequence[str] = ()) -> None:
        self.limits = limits or Limits()
        self._reader = Reader(self.limits, segment_keys)

    def __call__(self, batch: RecordBatch) -> TelemetryBatch:
        """Columns of the valid events, and the rest as rejected records. Never raises on bad input."""
        rows = self._reader.start(batch.columns)
        rejected: list[RejectedRecord] = []
        at = self._reader.read(rows, 0)
        while at < len(batch):
            left = _Slow(self._reader, rows, at, batch, self.limits)
            at = left.record()
            rejected += left.rejected
        return self._finish(batch, rows, rejected)

    def warm(self) -> None:
        """Compile, or load from the cache."""
        wire.warm()
        event = {"event_id": "1", "ts": 1, "environment": "e", "model": "m", "version": "1", "prediction": "a",
                 "features": {"a": 1.5}, "metrics": {"b": 1}}
        by_contract = event | {"event_id": "\N{LATIN SMALL LETTER E WITH ACUTE}", "features": {"a=b": 1}}
        values = map(msgspec.json.encode, (event, by_contract, [event, by_contract, event]))
        Decoder(self.limits)(RecordBatch("", 0, [WireRecord(at, 0, None, value) for at, value in enumerate(values)]))
        names.Names().spread()

    def _finish(self, batch: RecordBatch, rows: Rows, rejected: list[RejectedRecord]) -> TelemetryBatch:
        out, records = rows.out, batch.columns
        n, m = int(out.cursor[columns.ROWS]), int(out.cursor[columns.VALUES])
        event_ids, trace_ids = rows.texts()
        return TelemetryBatch(
            partition=batch.partition, first_offset=batch.first_offset, last_offset=batch.last_offset,
            offset=records.offset[out.record[:n]], position=out.position[:n], ts_ms=out.ts_ms[:n],
            series=out.series[:n], error=out.error[:n], start=out.start[:n + 1], field=out.field[:m],
            value=out.value[:m], keys=self._reader.keys(rows), fields=self._reader.fields(rows),
            event_ids=event_ids, trace_ids=trace_ids, rejected=rejected)


class _Slow:
    """One record that the compiled reader left: what it cannot read, the contract judges event by event.

    Perhaps it had no room for a new name. It has, once the contract has accepted the event, and goes on there.
    """

    def __init__(self, reader: Reader, rows: Rows, number: int, batch: RecordBatch, limits: Limits) -> None:
        self.reader = reader
        self.rows = rows
        self.number = number
        self.batch = batch
        self.limits = limits
        self.from_log = batch.columns[number]
        self.rejected: list[RejectedRecord] = []
        self.rest: list[tuple[_Fault, int, bytes]] = []

    def record(self) -> int:
        """Add its events, or reject them, and read on; the next record that the compiled reader leaves."""
        value, limits = self.from_log.value, self.limits
        if not value:
            self._reject(_Fault("empty", "", "the record has no value: send one JSON object, or an array of them"),
                         -1, b"")
        elif len(value) > limits.max_record_bytes:
            self._reject(_Fault("too_large", "", f"{len(value)} bytes: a record may have {limits.max_record_bytes}; "
                                "send smaller arrays"), -1, value)
        elif value.lstrip()[:1] == b"[":
            self._array(value)
        else:
            event = self._judged(value, -1)
            if event is not None:
                if self.reader.learn(event):
                    found = self.reader.read(self.rows, self.number)
                    if found > self.number:
                        return found
                self.reader.add(self.rows, self.number, 0, event)
        return self.reader.read(self.rows, self.number + 1)

    def _array(self, value: bytes) -> None:
        try:
            items = _items(value)
        except ValueError as error:
            self.reader.undo(self.rows)
            self._reject(_Fault("not_json", "", f"not a JSON array: {error}"[:512]), -1, value)
            return
        if len(items) > self.limits.max_events_per_record:
            self.reader.undo(self.rows)
            self._reject(_Fault("too_large", "", f"{len(items)} events: a record may have "
                                f"{self.limits.max_events_per_record}"), -1, value)
            return
        (position, resumable), behind = self.reader.left(self.rows), 0
        while position < len(items):
            event = self._judged(items[position], position)
            if event is None:               # after a bad event mostly comes another: that is the contract's, too
                position, behind = position + 1, behind + 1
                continue
            if resumable and self.reader.learn(event):
                at, resumable = self._resume(len(items), behind)
                behind = 0
                if at > position:
                    position = at
                    continue
            self.reader.add(self.rows, self.number, position, event)
            position, behind = position + 1, behind + 1
            if resumable and position < len(items):
                position, resumable = self._resume(len(items), behind)
                behind = 0
        self._reject_rest()

    def _resume(self, most: int, after: int) -> tuple[int, bool]:
        """Let the compiled reader go on in the array; which event it left then, and whether it can go on there."""
        if self.reader.resume(self.rows, self.number, after):
            return most, False
        return self.reader.left(self.rows)

    def _judged(self, value: bytes, shown: int) -> TelemetryEvent | None:
        """The event, if the contract accepts it. `shown`: its number in the record's array, -1 if it is not in one."""
        try:
            if shown >= 0 and not value.startswith(b"{"):   # quickly: there may be many thousands in an array
                raise _Fault(*_NO_OBJECT)
            event = _contract(value)
            self._in_time(event)
        except _Fault as fault:
            if len(self.rejected) < MOST_REJECTED:
                self._reject(fault, shown, value)
            else:
                self.rest.append((fault, shown, value))
            return None
        return event

    def _in_time(self, event: TelemetryEvent) -> None:
        limits, at = self.limits, self.from_log.timestamp
        if at > 0 and limits.max_ahead_ms and event.ts > at + limits.max_ahead_ms:
            raise _Fault("from_future", "ts", f"ts is {event.ts - at} ms after the broker's clock; "
                         f"{limits.max_ahead_ms} ms are allowed: check the producer's clock and unit")
        if at > 0 and limits.max_age_ms and event.ts < at - limits.max_age_ms:
            raise _Fault("too_old", "ts", f"ts is {at - event.ts} ms before the broker's clock; "
                         f"{limits.max_age_ms} ms are allowed (STREAMGAUGE_MAX_AGE_MS)")

    def _reject(self, fault: _Fault, position: int, payload: bytes, events: int = 1) -> None:
        self.rejected.append(rejected_record(
            self.batch.topic, self.batch.partition, self.from_log, fault.reason, fault.field, fault.message, position,
            payload, self.limits.max_record_bytes, events))

    def _reject_rest(self) -> None:
        """Keep the array's other bad events as one array: an array of nonsense would give thousands of records."""
        if self.rest:
            fault, position, _ = self.rest[0]
            more = f"{len(self.rest)} more events of an array are refused, the first of them: {fault.message}"
            self._reject(_Fault(fault.reason, fault.field, more), position,
                         b"[" + b",".join(value for _, _, value in self.rest) + b"]", len(self.rest))


def _items(value: bytes) -> list[bytes]:
    """The bytes of an array's items. With NaN or infinity in it they are written anew: it may be in one of them only.

    Raises:
        ValueError: it is no array.
    """
    try:
        return [bytes(item) for item in _RAW_ITEMS.decode(value)]
    except (msgspec.MsgspecError, RecursionError):
        return [to_json(item, inf_nan_mode="constants") for item in from_json(value, allow_inf_nan=True)]


def _contract(value: bytes) -> TelemetryEvent:
    try:
        return TelemetryEvent.model_validate_json(value)
    except ValidationError as error:
        raise _Fault(*fault_of(error)) from None
    except (RecursionError, ValueError) as error:
        raise _Fault("undecodable", "", f"cannot be decoded: {error}"[:512]) from None


def rejected_record(topic: str, partition: int, record: Record, reason: Reason, field: str, message: str,
                    position: int, payload: bytes, most: int, events: int = 1) -> RejectedRecord:
    """The record kept: bytes up to `most`, reason, field, coordinates."""
    return RejectedRecord(
        rejected_id=f"r-{topic}-{partition}-{record.offset}-{position}"[-128:],
        reason=reason, field=field[:512], message=message[:512], topic=topic, partition=partition,
        offset=record.offset, position=position, ts=max(record.timestamp, 0),
        key_base64=base64.b64encode((record.key or b"")[:1024]).decode(),
        payload_base64=base64.b64encode(payload[:most]).decode(),
        payload_size_bytes=len(payload), truncated=len(payload) > most, events=events,
    )


class FeedbackBatch(NamedTuple):
    """Late labels of one batch: (offset, label) in log order, and what was refused."""

    labels: list[tuple[int, Feedback]]
    rejected: list[RejectedRecord]


class LifecycleBatch(NamedTuple):
    """Lifecycle events of one batch: (offset, event) in log order, and what was refused."""

    events: list[tuple[int, LifecycleEvent]]
    rejected: list[RejectedRecord]


def decode_feedback(batch: RecordBatch, limits: Limits) -> FeedbackBatch:
    """Late labels, one a record. Never raises on bad input; tombstones and bad records are refused with a reason."""
    return FeedbackBatch(*_messages(batch, limits, Feedback))


def decode_lifecycle(batch: RecordBatch, limits: Limits) -> LifecycleBatch:
    """Lifecycle events, in the same way."""
    return LifecycleBatch(*_messages(batch, limits, LifecycleEvent))


def _messages(batch: RecordBatch, limits: Limits, model: type[M]) -> tuple[list[tuple[int, M]], list[RejectedRecord]]:
    found: list[tuple[int, M]] = []
    rejected: list[RejectedRecord] = []
    for record in batch.records:
        value = record.value or b""
        try:
            if len(value) > limits.max_record_bytes:
                raise _Fault("too_large", "", f"{len(value)} bytes: a record may have {limits.max_record_bytes}")
            if not value:
                raise _Fault("empty", "", "the record has no value: send one JSON object")
            found.append((record.offset, model.model_validate_json(value)))
            continue
        except _Fault as error:
            fault = error
        except ValidationError as error:
            fault = _Fault(*fault_of(error))
        except (RecursionError, ValueError) as error:
            fault = _Fault("undecodable", "", f"cannot be decoded: {error}"[:512])
        rejected.append(rejected_record(batch.topic, batch.partition, record, fault.reason, fault.field,
                                        fault.message, -1, value, limits.max_record_bytes))
    return found, rejected
