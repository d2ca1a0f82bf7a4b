"""What Prometheus is told about models: every event once, amendments by their difference, labels bounded."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from stores_world import DAY, a_drift, a_window, an_alert, an_anomaly, summary

from dashboards.api.metrics import INCIDENTS, MOST_INCIDENTS, note_incidents
from streams.stores.exposition import IDLE_SECONDS, OTHER, REMEMBERED, ModelMetrics
from streams.windows.record import WindowHead, read_head, write_window

CHURN = {"environment": "prod", "model": "churn", "version": "3", "component": "model"}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def models(clock: Clock) -> ModelMetrics:
    return ModelMetrics(most=3, clock=clock)


def head(*given: Any, **more: Any) -> WindowHead:
    return read_head(write_window(a_window(*given, **more)))


def value(models: ModelMetrics, name: str, **labels: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(models)
    return registry.get_sample_value(name, labels)


def test_events_are_counted_once_and_an_amendment_by_its_difference(models: ModelMetrics) -> None:
    fields = {"latency_ms": summary(2.0, 40.0, 40.0), "confidence": summary(0.5, 1.0)}
    models.window(head(DAY, 3, errors=1, fields=fields))
    models.window(head(DAY + 10_000, 2, fields={}))
    for _ in range(2):
        models.window(head(DAY, 5, errors=2, revision=1, fields={"latency_ms": summary(2.0, 40.0, 40.0, 70.0, 99e3)}))
    models.window(head(DAY, 3, errors=1, fields=fields))
    assert value(models, "streamgauge_model_events_total", **CHURN) == 7
    assert value(models, "streamgauge_model_errors_total", **CHURN) == 2
    buckets = [value(models, "streamgauge_model_latency_seconds_bucket", **CHURN, le=edge)
               for edge in ("0.001", "0.0025", "0.025", "0.05", "0.1", "30.0", "+Inf")]
    assert buckets == [0, 1, 1, 3, 4, 4, 5]
    assert value(models, "streamgauge_model_latency_seconds_count", **CHURN) == 5
    assert value(models, "streamgauge_model_latency_seconds_sum", **CHURN) == pytest.approx(99.152)
    assert value(models, "streamgauge_model_confidences_total", **CHURN) == 0, "its newer copy has none"
    assert value(models, "streamgauge_model_newest_window_seconds", **CHURN) == (DAY + 70_000) / 1000


def test_an_amendment_of_a_window_from_before_this_process_is_left_out(models: ModelMetrics) -> None:
    models.window(head(DAY, 50, revision=4))
    assert value(models, "streamgauge_model_events_total", **CHURN) == 0
    for number in range(REMEMBERED + 1):
        models.window(head(DAY + 60_000 * number, 1))
    models.window(head(DAY, 9, revision=1))
    assert value(models, "streamgauge_model_events_total", **CHURN) == REMEMBERED + 1


def test_labels_are_bounded_and_silent_series_make_room(models: ModelMetrics, clock: Clock) -> None:
    for number in range(10):
        models.window(head(DAY, 1, model=f"m{number}"))
        models.anomaly(an_anomaly(number, model=f"m{number}"))
        models.drift(a_drift(number, model=f"m{number}"))
        models.alert(an_alert(number, model=f"m{number}"))
    other = dict.fromkeys(CHURN, OTHER)
    assert value(models, "streamgauge_model_events_total", **other) == 7
    assert value(models, "streamgauge_model_anomalies_total", **other) == 7
    assert value(models, "streamgauge_model_folded_windows_total") == 7
    registry = CollectorRegistry()
    registry.register(models)
    samples = generate_latest(registry).decode()
    assert samples.count("streamgauge_model_events_total{") == 4
    assert samples.count("streamgauge_model_drift_events_total{") == 4
    clock.now = IDLE_SECONDS + 1
    models.prune()
    models.window(head(DAY, 2, model="m9"))
    assert value(models, "streamgauge_model_events_total", **CHURN | {"model": "m9"}) == 2
    assert value(models, "streamgauge_model_events_total", **CHURN | {"model": "m0"}) is None


def test_open_incidents_are_counted_by_model_and_bounded() -> None:
    note_incidents([{"environment": "prod", "model": f"m{number}", "severity": "critical"}
                    for number in (0, 0, *range(1, MOST_INCIDENTS + 30))])
    try:
        assert INCIDENTS.labels("prod", "m0", "critical")._value.get() == 2
        samples = [sample for family in INCIDENTS.collect() for sample in family.samples]
        assert len(samples) == MOST_INCIDENTS + 1
        assert sum(sample.value for sample in samples) == MOST_INCIDENTS + 31
    finally:
        note_incidents([])
