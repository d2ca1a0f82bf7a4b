"""Inputs of the alerts room, made small: a log of three topics for one engine, and what it would publish."""

from __future__ import annotations

from typing import Any

from agents.alerts.engine import AlertEngine, AlertOptions
from agents.alerts.state import ModelState
from schemas.alerts import Alert
from schemas.anomalies import Anomaly, Contribution
from schemas.drift import DriftEvent
from schemas.windows import window_id
from streams.windows.record import SummaryRecord, WindowRecord
from streams.state.keyed import KeyedStates

ORIGIN_MS = 1_700_000_000_000
TOPICS = {Anomaly: "anomalies", WindowRecord: "metrics", DriftEvent: "drift-events"}
Message = Anomaly | WindowRecord | DriftEvent


def window(second: int, count: int = 20, errors: int = 0, latency: float | None = None, version: str = "1",
           component: str = "model", size_ms: int = 1_000, outlier: float = 0.0, **about: Any) -> WindowRecord:
    """The window of one second after ORIGIN_MS; all of its requests take `latency`, one of them `outlier` more."""
    about = {"environment": "prod", "model": "churn"} | about
    start = ORIGIN_MS + second * 1_000
    fields = {} if latency is None else {"latency_ms": SummaryRecord(
        count=count, sum=latency * count + outlier, mean=latency + outlier / count, max=latency + outlier)}
    return WindowRecord(
        **about, version=version, component=component, start_ms=start, size_ms=size_ms, partition=0, count=count,
        window_id=window_id(about["environment"], about["model"], version, component, size_ms, start, 0),
        errors=errors, closed_ms=start + size_ms + 1_000, fields=fields)


def anomaly(second: int, offset: int, feature: str = "tenure", value: float | None = 9e3, share: float = 0.8,
            version: str = "1", component: str = "model", **about: Any) -> Anomaly:
    """An anomaly in that second; `offset` is its place in telemetry."""
    about = {"environment": "prod", "model": "churn"} | about
    return Anomaly(
        **about, version=version, component=component, anomaly_id=f"a-{component}-{offset}", event_id=f"e{offset}",
        ts=ORIGIN_MS + second * 1_000 + offset % 1_000, detector="half_space_trees", score=0.95, threshold=0.8,
        contributions=[Contribution(feature=feature, value=value, share=share)], partition=0, offset=offset)


def drift(second: int, field: str = "feature.tenure", state: str = "drifted", kind: str = "data", version: str = "1",
          severity: str = "warning", **more: Any) -> DriftEvent:
    """A drift event detected in that second, with its onset ten seconds earlier."""
    values: dict[str, Any] = {
        "environment": "prod", "model": "churn", "component": "model", "before": 12.0, "after": 12_000.0,
        "onset_ms": ORIGIN_MS + (second - 10) * 1_000, "detected_ms": ORIGIN_MS + second * 1_000, "sureness": 0.99999,
        "detector": "adwin", "windows": 10, "drift_id": f"d-{second}-{state}-{version[:8]}-{kind}-{field}"[:128]}
    return DriftEvent(**(values | {"field": field, "state": state, "kind": kind, "version": version,
                                   "severity": severity} | more))


class World:
    """One engine on one partition. Messages go in one by one, each at the next offset of its topic."""

    def __init__(self, options: AlertOptions | None = None, rows: dict[str, bytes] | None = None,
                 partition: int = 0) -> None:
        self.engine = AlertEngine(options)
        self.rows: dict[str, bytes] = {} if rows is None else rows
        self.states: KeyedStates[ModelState] = KeyedStates("alerts", partition, self.engine.codec, self.rows)
        self.offsets = dict.fromkeys(TOPICS.values(), 0)
        self.place = 0

    def feed(self, *messages: Message) -> list[Alert]:
        """Take messages in; the alerts that they brought about, as published."""
        for message in messages:
            topic = TOPICS[type(message)]
            self.deliver(topic, [(self.offsets[topic], message)])
            self.offsets[topic] += 1
        return self.publish()

    def deliver(self, topic: str, items: list[Any]) -> None:
        """A batch of one topic."""
        take = {"anomalies": self.engine.on_anomalies, "metrics": self.engine.on_windows,
                "drift-events": self.engine.on_drift}[topic]
        take(items, self.states, topic)

    def publish(self) -> list[Alert]:
        """Empty the outbox."""
        alerts = self.engine.outbox(self.states)
        self.engine.published(self.states, [alert.alert_id for alert in alerts])
        return alerts

    def tick(self, wall_ms: int) -> list[Alert]:
        self.engine.tick(self.states, wall_ms)
        return self.publish()

    def calm(self, first: int, last: int, **window_values: Any) -> list[Alert]:
        """Ordinary windows, one a second, for first <= second < last."""
        return self.feed(*(window(second, **window_values) for second in range(first, last)))

    def odd(self, second: int, count: int, **values: Any) -> list[Anomaly]:
        """`count` anomalies of one second, at new places in telemetry."""
        self.place += count
        return [anomaly(second, place, **values) for place in range(self.place - count, self.place)]

    def model(self, environment: str = "prod", model: str = "churn") -> ModelState:
        return self.states.entry(f"{environment}\x1f{model}").state
