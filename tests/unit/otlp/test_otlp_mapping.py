"""OTLP metrics as telemetry: every kind of point, in both encodings, and what cannot be telemetry says why."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.json_format import MessageToJson, ParseDict
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData

from agents.otlp.bridge import messages
from schemas.rejected import RejectedRecord
from schemas.telemetry import TelemetryEvent

AT_MS = 1_777_593_600_123
NANO = str(AT_MS * 1_000_000 + 999)
DELTA, CUMULATIVE = 1, 2
MOST = 1_048_576


def text(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": value}}


RESOURCE = [text("deployment.environment.name", "prod"), text("service.name", "churn"), text("service.version", "3")]


def point(**more: Any) -> dict[str, Any]:
    return {"timeUnixNano": NANO} | more


def gauge(name: str, *points: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "gauge": {"dataPoints": list(points)}}


def otlp(*metrics: dict[str, Any], resource: list[dict[str, Any]] | None = None) -> MetricsData:
    return ParseDict({"resourceMetrics": [{"resource": {"attributes": RESOURCE if resource is None else resource},
                                           "scopeMetrics": [{"scope": {"name": "s"}, "metrics": list(metrics)}]}]},
                     MetricsData())


def record(value: bytes | None, offset: int = 7) -> Any:
    return SimpleNamespace(topic="otlp_metrics", partition=1, offset=offset, timestamp=AT_MS, key=None, value=value)


def passed_on(value: bytes | None, offset: int = 7) -> tuple[list[TelemetryEvent], list[RejectedRecord]]:
    found = list(messages(record(value, offset), MOST))
    return ([TelemetryEvent.model_validate_json(body) for topic, _, body in found if topic == "telemetry"],
            [RejectedRecord.model_validate_json(body) for topic, _, body in found if topic == "telemetry-rejected"])


def both(data: MetricsData) -> list[TelemetryEvent]:
    """The events, which both encodings give alike."""
    events, rejected = passed_on(data.SerializeToString())
    assert rejected == []
    assert passed_on(MessageToJson(data).encode()) == (events, [])
    return events


def test_points_of_one_moment_and_attributes_are_one_event() -> None:
    here = [text("country", "PT"), {"key": "gpu", "value": {"intValue": "1"}}]
    (one, two) = both(otlp(gauge("queue", point(asInt="12", attributes=here), point(asInt="3")),
                           gauge("load", point(asDouble=0.5, attributes=here))))
    assert (one.environment, one.model, one.version, one.component) == ("prod", "churn", "3", "otel")
    assert (one.ts, one.metrics, one.segment) == (AT_MS, {"queue": 12.0, "load": 0.5}, {"country": "PT", "gpu": "1"})
    assert (two.metrics, two.segment) == ({"queue": 3.0}, {})
    assert one.event_id != two.event_id
    assert (one.prediction, one.features) == (None, {})


def test_the_same_record_gives_the_same_ids_and_another_one_others() -> None:
    value = otlp(gauge("load", point(asDouble=1.0))).SerializeToString()
    assert passed_on(value) == passed_on(value)
    assert passed_on(value, 8)[0][0].event_id != passed_on(value, 7)[0][0].event_id


def test_sums_histograms_and_summaries() -> None:
    (event,) = both(otlp(
        {"name": "requests", "sum": {"aggregationTemporality": DELTA, "isMonotonic": True,
                                     "dataPoints": [point(asInt="5")]}},
        {"name": "connections", "sum": {"aggregationTemporality": CUMULATIVE, "isMonotonic": False,
                                        "dataPoints": [point(asInt="9")]}},
        {"name": "latency", "histogram": {"aggregationTemporality": DELTA, "dataPoints": [
            point(count="4", sum=10.0, min=1.0, max=4.0, bucketCounts=["4"])]}},
        {"name": "size", "exponentialHistogram": {"aggregationTemporality": DELTA, "dataPoints": [
            point(count="2", sum=3.0, scale=1)]}},
        {"name": "old", "summary": {"dataPoints": [
            point(count="2", sum=8.0, quantileValues=[{"quantile": 0.5, "value": 3.0},
                                                      {"quantile": 0.999, "value": 5.0}])]}}))
    assert event.metrics == {
        "requests": 5, "connections": 9, "latency.count": 4, "latency.sum": 10, "latency.mean": 2.5, "latency.min": 1,
        "latency.max": 4, "size.count": 2, "size.sum": 3, "size.mean": 1.5, "old.count": 2, "old.sum": 8,
        "old.mean": 4, "old.p50": 3, "old.p99.9": 5}


@pytest.mark.parametrize("data", [
    {"sum": {"aggregationTemporality": CUMULATIVE, "isMonotonic": True, "dataPoints": [point(asInt="5")]}},
    {"histogram": {"aggregationTemporality": CUMULATIVE, "dataPoints": [point(count="1", bucketCounts=["1"])]}}])
def test_what_adds_up_since_its_start_is_refused_with_what_to_do(data: dict[str, Any]) -> None:
    events, (rejected,) = passed_on(otlp({"name": "n"} | data, gauge("load", point(asInt="1"))).SerializeToString())
    assert [event.metrics for event in events] == [{"load": 1.0}], "the others are taken"
    assert (rejected.reason, rejected.field) == ("wrong_type", "aggregationTemporality")
    assert "cumulativetodelta" in rejected.message


def test_a_points_attributes_come_before_its_resources() -> None:
    named = [text(f"streamgauge.{key}", value) for key, value in (
        ("model", "fraud"), ("component", "ranker"), ("version", "9"), ("environment", "staging"))]
    (event,) = both(otlp(gauge("load", point(asInt="1", attributes=named))))
    assert (event.environment, event.model, event.version, event.component) == ("staging", "fraud", "9", "ranker")
    assert event.segment == {}


@pytest.mark.parametrize("missing", ["environment", "model", "version"])
def test_a_subject_without_a_name_is_refused_with_the_attribute_that_it_needs(missing: str) -> None:
    at = ["environment", "model", "version"].index(missing)
    events, (rejected,) = passed_on(otlp(gauge("load", point(asInt="1")),
                                         resource=RESOURCE[:at] + RESOURCE[at + 1:]).SerializeToString())
    assert events == []
    assert (rejected.reason, rejected.field) == ("missing_field", missing)
    assert "streamgauge." in rejected.message


def test_what_the_contract_refuses_is_kept_with_its_event() -> None:
    bad = [*RESOURCE[:1], text("service.name", "a name with blanks"), *RESOURCE[2:]]
    events, (rejected,) = passed_on(otlp(gauge("load", point(asInt="1")), resource=bad).SerializeToString())
    assert events == []
    assert (rejected.reason, rejected.field, rejected.topic, rejected.offset) == ("out_of_bounds", "model",
                                                                                  "otlp_metrics", 7)
    assert json.loads(base64.b64decode(rejected.payload_base64))["model"] == "a name with blanks"


def test_many_metrics_are_several_events_and_many_attributes_eight() -> None:
    events = both(otlp(*(gauge(f"m{n:03d}", point(asInt=str(n), attributes=[text(f"k{k:02d}", "v") for k in range(12)]))
                         for n in range(130))))
    assert [len(event.metrics) for event in events] == [64, 64, 2]
    assert len({event.event_id for event in events}) == 3
    assert list(events[0].segment) == [f"k{k:02d}" for k in range(8)]


def test_points_without_a_value_are_passed_over_and_without_a_time_refused() -> None:
    events, rejected = passed_on(otlp(gauge("gone", point(flags=1, asDouble=0.0)), gauge("odd", {"asInt": "1"}),
                                      {"name": "none"}).SerializeToString())
    assert events == []
    assert [one.field for one in rejected] == ["timeUnixNano"]


@pytest.mark.parametrize(("value", "reason"), [
    (None, "empty"), (b"", "empty"), (b"{", "not_json"), (b'{"resourceMetrics": 5}', "not_json"),
    (b"[" * 50_000, "undecodable"), (b'{"a":' * 50_000, "not_json"), (b"hello", "undecodable"),
    (b"\x0a" + b"x" * MOST, "too_large")])
def test_what_is_no_otlp_is_kept_with_its_bytes(value: bytes | None, reason: str) -> None:
    events, (rejected,) = passed_on(value)
    assert (events, rejected.reason, rejected.position) == ([], reason, -1)
    assert base64.b64decode(rejected.payload_base64) == (value or b"")[:MOST]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400))
def test_damaged_records_never_raise(more: bytes, cut: int) -> None:
    whole = otlp(gauge("load", point(asDouble="NaN"), point(asInt="5"))).SerializeToString()
    for value in (more, whole[:cut] + more, whole + more, b"{" + more, MessageToJson(otlp()).encode() + more):
        for event in passed_on(value)[0]:
            assert event.metrics
