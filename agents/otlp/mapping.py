"""OTLP metrics as telemetry events: the points of one subject, moment and set of attributes become one event.

Subject, from a point's attributes, else its scope's, else its resource's:

    environment   streamgauge.environment, deployment.environment.name, deployment.environment
    model         streamgauge.model, service.name
    version       streamgauge.version, service.version
    component     streamgauge.component; `otel` without one, so that counts of points and of predictions stay apart

    gauge                     metrics[NAME] = value
    sum, of deltas            metrics[NAME] = value
    sum, not monotonic        metrics[NAME] = value
    histogram, of deltas      metrics[NAME.count], [NAME.sum]; [NAME.mean], [NAME.min], [NAME.max] where they are known
    summary                   metrics[NAME.count], [NAME.sum], and [NAME.pQ] of each quantile

What adds up since its start (monotonic cumulative sums, cumulative histograms) says nothing about a window by itself:
it is refused, and the collector's processor `cumulativetodelta` makes deltas of it. Other attributes of a point are its
segment: the first eight by name. Points that say "no recorded value" are passed over.

Source: OpenTelemetry protocol 1.x, metrics/v1/metrics.proto, and its JSON encoding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from google.protobuf.json_format import Parse, ParseError
from google.protobuf.message import DecodeError
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_DELTA,
    DataPointFlags,
    Metric,
    MetricsData,
)

from schemas.base import MAX_METRICS, MAX_SEGMENT_KEYS
from schemas.rejected import Reason

COMPONENT = "otel"
_SUBJECT = {
    "environment": ("streamgauge.environment", "deployment.environment.name", "deployment.environment"),
    "model": ("streamgauge.model", "service.name"),
    "version": ("streamgauge.version", "service.version"),
    "component": ("streamgauge.component",),
}
_OURS = frozenset(name for names in _SUBJECT.values() for name in names)
_LONGEST = 128
Attributes = Mapping[str, str]


class OtlpError(ValueError):
    """A record that is no OTLP; or a part of one that cannot be telemetry."""

    def __init__(self, reason: Reason, field: str, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.field = field


class _Key(NamedTuple):
    """What one event is about."""

    subject: tuple[tuple[str, str], ...]
    ts_ms: int
    segment: tuple[tuple[str, str], ...]


def decoded(value: bytes) -> MetricsData:
    """A record of the exporter, in JSON (`otlp_json`) or protobuf (`otlp_proto`); which, it says itself: an OTLP
    message begins with the tag of its first field, 0x0a, and JSON with `{`.

    Raises:
        OtlpError: neither.
    """
    found = MetricsData()
    if value.lstrip()[:1] == b"{":
        try:
            Parse(value, found, ignore_unknown_fields=True)
        except (ParseError, ValueError, RecursionError) as error:
            raise OtlpError("not_json", "", f"no OTLP metrics in JSON: {error}"[:512]) from None
        return found
    try:
        found.ParseFromString(value)
    except DecodeError as error:
        raise OtlpError("undecodable", "", f"neither OTLP metrics in protobuf nor JSON: {error}"[:512]) from None
    return found


def events(data: MetricsData, source: str) -> Iterator[dict[str, Any] | OtlpError]:
    """Telemetry events, or why a metric is none. `source` names the record: the same one gives the same ids."""
    groups: dict[_Key, dict[str, float]] = {}
    for resource in data.resource_metrics:
        of_resource = _attributes(resource.resource.attributes)
        for scope in resource.scope_metrics:
            outer = of_resource | _attributes(scope.scope.attributes)
            for metric in scope.metrics:
                try:
                    for at_ms, attributes, values in _points(metric):
                        groups.setdefault(_key(at_ms, outer, attributes), {}).update(values)
                except OtlpError as error:
                    yield error
    for number, (key, values) in enumerate(groups.items()):
        yield from _split(key, values, f"{source}-{number}")


def _split(key: _Key, values: dict[str, float], source: str) -> Iterator[dict[str, Any]]:
    """An event, or several where there are more metrics than one may carry."""
    names = list(values)
    for first in range(0, len(names), MAX_METRICS):
        identity = hashlib.blake2b(f"{source}-{first}".encode(), digest_size=12).hexdigest()
        yield dict(key.subject) | {
            "event_id": f"otlp-{identity}", "ts": key.ts_ms, "segment": dict(key.segment),
            "metrics": {name: values[name] for name in names[first:first + MAX_METRICS]}}


def _key(ts_ms: int, outer: Attributes, attributes: Attributes) -> _Key:
    both = {**outer, **attributes}
    subject = {key: value for key, names in _SUBJECT.items()
               if (value := next((both[name] for name in names if both.get(name)), ""))}
    for key, names in _SUBJECT.items():
        if key not in subject and key != "component":
            raise OtlpError("missing_field", key, f"no {key}: give the resource the attribute {' or '.join(names)}")
    segment = [(name[:_LONGEST], value[:_LONGEST]) for name, value in sorted(attributes.items()) if name not in _OURS]
    return _Key(tuple(({"component": COMPONENT} | subject).items()), ts_ms, tuple(segment[:MAX_SEGMENT_KEYS]))


Point = tuple[int, Attributes, dict[str, float]]


def _points(metric: Metric) -> Iterator[Point]:
    kind, name = metric.WhichOneof("data"), metric.name
    if kind is None:
        return
    data = getattr(metric, kind)
    if kind in ("histogram", "exponential_histogram") or (kind == "sum" and data.is_monotonic):
        _deltas(name, data)
    for point in data.data_points:
        if point.flags & DataPointFlags.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK:
            continue
        if not point.time_unix_nano:
            raise OtlpError("missing_field", "timeUnixNano", f"{name[:100]}: a point without a time")
        yield point.time_unix_nano // 1_000_000, _attributes(point.attributes), _values(kind, name, point)


def _deltas(name: str, data: Any) -> None:
    if data.aggregation_temporality != AGGREGATION_TEMPORALITY_DELTA:
        raise OtlpError("wrong_type", "aggregationTemporality", f"{name[:100]} adds up since its start: put the "
                        "processor cumulativetodelta into the collector's pipeline")


def _values(kind: str, name: str, point: Any) -> dict[str, float]:
    if kind in ("gauge", "sum"):
        return {name: float(point.as_int if point.WhichOneof("value") == "as_int" else point.as_double)}
    found = {f"{name}.count": float(point.count)}
    if kind == "summary" or point.HasField("sum"):
        found[f"{name}.sum"] = point.sum
        if point.count:
            found[f"{name}.mean"] = point.sum / point.count
    if kind == "summary":
        return found | {f"{name}.p{value.quantile * 100:g}": value.value for value in point.quantile_values}
    return found | {f"{name}.{edge}": getattr(point, edge) for edge in ("min", "max") if point.HasField(edge)}


def _attributes(found: Iterable[Any]) -> dict[str, str]:
    """Attributes that are one value, as text; lists, maps and bytes are left out."""
    return {one.key: text for one in found if (text := _text(one.value))}


def _text(value: Any) -> str:
    kind = value.WhichOneof("value")
    if kind == "bool_value":
        return "true" if value.bool_value else "false"
    return str(getattr(value, kind)) if kind in ("string_value", "int_value", "double_value") else ""
