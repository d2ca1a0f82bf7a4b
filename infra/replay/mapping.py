"""Rows as telemetry: which column means what, and instants in the forms that files have them in."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from pydantic import ValidationError

from infra.replay.sources import Row, Source, SourceError, is_number
from schemas.base import EPOCH, MAX_FEATURES
from schemas.telemetry import TelemetryEvent
from streams.batch import fault_of

TIME_NAMES = ("timestamp", "ts", "time", "datetime", "date", "event_time", "created_at")
_SHOWN_FAULTS = 5


@dataclass(frozen=True, slots=True)
class Mapping:
    """What the user said about the columns. Empty: not there, or the default."""

    environment: str = "replay"
    model: str = ""
    version: str = "v1"
    component: str = "model"
    time: str = ""
    time_format: str = ""
    interval_ms: int = 0
    features: tuple[str, ...] | None = None
    metrics: tuple[str, ...] = ()
    segment: tuple[str, ...] = ()
    prediction: str = ""
    label: str = ""
    confidence: str = ""
    latency: str = ""
    error: str = ""
    id: str = ""
    classes: bool = False

    def named(self) -> set[str]:
        """Columns that have a meaning, and so are no features unless asked for."""
        single = (self.time, self.prediction, self.label, self.confidence, self.latency, self.error, self.id)
        return {name for name in (*single, *self.metrics, *self.segment) if name}


@dataclass(slots=True)
class Faults:
    """Bad rows: how many of each kind, and the first few in full."""

    total: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)

    def add(self, where: str, text: str) -> None:
        self.total += 1
        kind = text.split(":")[0][:60]
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if len(self.shown) < _SHOWN_FAULTS:
            self.shown.append(f"{where}: {text}")


def instant_ms(value: Any, time_format: str = "") -> tuple[int, bool]:
    """(epoch milliseconds, whether a zone was known) of a number, a text or a datetime.

    A number is seconds, milliseconds, microseconds or nanoseconds since 1970, by its size: what it would mean
    otherwise lies before 1971 or after the year 5000. An instant without a zone is taken as UTC.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(value, bool) or value is None or value == "":
        raise ValueError("no time")
    if time_format:
        return _moment(datetime.strptime(str(value), time_format))
    if is_number(value):
        number = float(value)
        if not math.isfinite(number) or number < 0:
            raise ValueError(f"no time: {value}")
        for limit, factor in ((1e11, 1_000.0), (1e14, 1.0), (1e17, 1e-3), (math.inf, 1e-6)):
            if number < limit:
                return round(number * factor), True
    if isinstance(value, datetime):
        return _moment(value)
    if isinstance(value, date):
        return _moment(datetime(value.year, value.month, value.day))
    try:
        return _moment(datetime.fromisoformat(str(value).strip()))
    except ValueError:
        raise ValueError(f"no time: {str(value)[:40]!r}; say how it is written with --time-format") from None


def _moment(moment: datetime) -> tuple[int, bool]:
    known = moment.tzinfo is not None
    return round(((moment if known else moment.replace(tzinfo=UTC)) - EPOCH).total_seconds() * 1000), known


def name_of(text: str) -> str:
    """A model's name that the contract takes, made of a file's."""
    name = re.sub(r"[^A-Za-z0-9._:@/+-]+", "-", text).lstrip("._:@/+-")
    return name[:128] or "model"


class Mapper:
    """Turns the rows of one source into (ts, event). Every event has passed the contract.

    Raises:
        SourceError: a column is named that the file does not have, or it has no time.
    """

    def __init__(self, source: Source, mapping: Mapping, now_ms: int) -> None:
        self.source = source
        self.mapping = mapping
        self.model = mapping.model or name_of(source.path.stem)
        self.time = mapping.time or self._time_column()
        self.without_zone = 0
        self.disordered = 0
        self._first_ms = now_ms - source.count * mapping.interval_ms
        wanted = mapping.named() | set(mapping.features or ())
        missing = sorted(wanted - set(source.columns))
        if missing and source.path.suffix.lower() not in (".ndjson", ".jsonl"):
            raise SourceError(f"{source.path} has no column {', '.join(missing)}; it has {', '.join(source.columns)}")
        free = tuple(name for name in source.numeric if name not in mapping.named() and name != self.time)
        self.features = free if mapping.features is None else mapping.features
        if len(self.features) > MAX_FEATURES:
            raise SourceError(f"{source.path} has {len(self.features)} numeric columns, and an event holds "
                              f"{MAX_FEATURES} features: choose with --features")

    def _time_column(self) -> str:
        if self.mapping.interval_ms:
            return ""
        by_name = {name.lower(): name for name in self.source.columns}
        for name in TIME_NAMES:
            if name in by_name:
                return by_name[name]
        raise SourceError(f"{self.source.path}: which column is the time? Give --time, one of "
                          f"{', '.join(self.source.columns[:20])}; or --interval 60s if it has none")

    def time_of(self, row: Row) -> int:
        """The row's instant.

        Raises:
            ValueError: it has none.
        """
        if self.mapping.interval_ms and not self.mapping.time:
            return self._first_ms + row.number * self.mapping.interval_ms
        assert row.values is not None
        ms, known = instant_ms(row.values.get(self.time), self.mapping.time_format)
        self.without_zone += not known
        return ms

    def events(self, faults: Faults, start: int = 0, limit: int | None = None,
               shift_ms: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
        """(ts, event) of the rows after the first `start`, at most `limit` events; bad rows go to `faults`."""
        given, last_ms = 0, -1
        for row in self.source.read():
            if row.number <= start:
                continue
            if limit is not None and given >= limit:
                return
            where = f"{self.source.path.name} row {row.number}"
            if row.values is None:
                faults.add(where, row.fault)
                continue
            try:
                ts = self.time_of(row) + shift_ms
                event = self._event(row, row.values, ts)
                TelemetryEvent.model_validate(event)
            except ValidationError as error:
                faults.add(where, fault_of(error)[2])
                continue
            except (ValueError, OverflowError) as error:
                faults.add(where, str(error))
                continue
            self.disordered += ts < last_ms
            last_ms, given = max(last_ms, ts), given + 1
            yield ts, event

    def _event(self, row: Row, values: dict[str, Any], ts: int) -> dict[str, Any]:
        m = self.mapping
        event: dict[str, Any] = {
            "event_id": str(values[m.id]) if m.id and values.get(m.id) else f"{self.model[:100]}-{row.number}",
            "ts": ts, "environment": m.environment, "model": self.model, "version": m.version,
            "component": m.component, "features": {name: _feature(values.get(name)) for name in self.features}}
        metrics = {name: _number(name, values.get(name)) for name in m.metrics}
        found = {"metrics": {name: value for name, value in metrics.items() if value is not None},
                 "segment": {name: str(values[name])[:128] for name in m.segment if values.get(name) not in (None, "")},
                 "prediction": _outcome(m.prediction, values, m.classes), "label": _outcome(m.label, values, m.classes),
                 "confidence": _number(m.confidence, values.get(m.confidence)),
                 "latency_ms": _number(m.latency, values.get(m.latency)),
                 "error": str(values[m.error])[:512] if m.error and values.get(m.error) else None}
        return event | {name: value for name, value in found.items() if value not in (None, {})}


def _number(name: str, value: Any) -> float | None:
    """A finite number; None for missing and NaN.

    Raises:
        ValueError: it is something else.
    """
    if value is None or value == "":
        return None
    if not is_number(value):
        raise ValueError(f"{name} is not a number: {str(value)[:40]!r}")
    return float(value) if math.isfinite(float(value)) else None


def _feature(value: Any) -> float | bool | str | None:
    """A feature as the contract has it: NaN and infinity are missing, numbers in text are numbers."""
    if value is None or isinstance(value, bool):
        return value
    if is_number(value):
        return float(value) if math.isfinite(float(value)) else None
    return str(value) or None


def _outcome(name: str, values: dict[str, Any], classes: bool) -> float | str | None:
    value = values.get(name) if name else None
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if classes or not is_number(value):
        return str(value)
    return float(value) if math.isfinite(float(value)) else None
