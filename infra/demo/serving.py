"""The serving loop of one deployment: transform and predict on what callers send, and report what happened.

Requests are served in small batches, as a model server does. `latency_ms` is the CPU time that the serving thread
spent on the batch in that component: what each of its requests waited for. It is not divided by the batch's size,
and not wall time: on a shared machine wall time measures the neighbours.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from infra.demo.incidents import SLOW_TIMES, Disturbance
from infra.demo.models import MODEL, NEXT, PREPROCESS, Model, Version
from infra.demo.traffic import CANARY_ROUTE, EXTRA_ROUTE, REGIONS, Requests, Traffic, concatenate

Row = list[float | str | None]
_MAX_ERROR = 512


class Message(NamedTuple):
    """One record to publish: its event time, its topic, its key and its body (plain JSON values)."""

    ts_ms: int
    topic: str
    model: str
    body: dict[str, Any]


class Answers(NamedTuple):
    """What serving one batch of n rows gave. `failed` is the component that raised."""

    predictions: list[Any]
    confidences: list[float] | None
    preprocess_ms: float
    model_ms: float
    failed: str = ""
    error: str = ""


class Deployment:
    """One model in one environment: its traffic, its versions, the labels still to come."""

    def __init__(self, environment: str, model: Model, traffic: Traffic, main: str, run: str,
                 clock_ns: Callable[[], int] = time.thread_time_ns) -> None:
        self.environment = environment
        self.model = model
        self.traffic = traffic
        self.main = model.versions[main]
        self.extra: Version | None = None
        self.slow_component = ""
        self._prefix = f"{run}-{environment}-{model.spec.name}"
        self._clock_ns = clock_ns
        self._waiting: list[Requests] = []
        self._labels: list[tuple[int, int, dict[str, Any]]] = []

    def advance(self, until_ms: int, disturbances: list[Disturbance]) -> list[Message]:
        """Serve what arrived before `until_ms`; also the labels that became known by then."""
        while self.traffic.planned_ms < until_ms:
            self._waiting.append(self.traffic.next_slice(disturbances))
        for disturbance in disturbances:
            self.extra = disturbance.extra or self.extra
            if disturbance.incident.kind == "latency_regression":
                self.slow_component = disturbance.incident.component
        if not self._waiting:
            return self._known_labels(until_ms)
        arrived = concatenate(self._waiting)
        now = arrived.ts_ms < until_ms
        self._waiting = [arrived.take(~now)]
        messages = [message for batch in _batches(arrived.take(now)) for message in self._serve(batch)]
        return messages + self._known_labels(until_ms)

    def _known_labels(self, until_ms: int) -> list[Message]:
        messages = []
        while self._labels and self._labels[0][0] < until_ms:
            ts, _, body = heapq.heappop(self._labels)
            messages.append(Message(ts, "feedback", self.model.spec.name, body))
        return messages

    def _version(self, route: int) -> Version:
        if route == EXTRA_ROUTE and self.extra is not None:
            return self.extra
        return self.model.versions[NEXT] if route == CANARY_ROUTE else self.main

    def _serve(self, batch: Requests) -> Iterator[Message]:
        version = self._version(int(batch.route[0]))
        rows = _payload(batch)
        answers = self._answer(version, rows, slow=bool(batch.slow[0]))
        for i in range(len(batch)):
            yield from self._report(version, batch, i, rows[i], answers)

    def _answer(self, version: Version, rows: list[Row], slow: bool) -> Answers:
        """Really transform and predict; an exception is an answer too."""
        parts = len(self.model.spec.components)
        times = {part: SLOW_TIMES if slow and (parts == 1 or part == self.slow_component) else 1
                 for part in (PREPROCESS, MODEL)}
        started = self._clock_ns()
        try:
            for _ in range(times[PREPROCESS]):
                scaled = version.preprocess.transform(np.asarray(rows, np.float64))
        except Exception as error:
            return Answers([], None, (self._clock_ns() - started) / 1e6, 0.0, PREPROCESS, _text(error))
        transformed = self._clock_ns()
        try:
            for _ in range(times[MODEL]):
                predictions, confidences = _predict(version, scaled)
        except Exception as error:
            return Answers([], None, (transformed - started) / 1e6, (self._clock_ns() - transformed) / 1e6, MODEL,
                           _text(error))
        return Answers(predictions, confidences, (transformed - started) / 1e6,
                       (self._clock_ns() - transformed) / 1e6)

    def _report(self, version: Version, batch: Requests, i: int, row: Row, answers: Answers) -> Iterator[Message]:
        """The events of request i, one a component, and its label for later."""
        number, ts = int(batch.number[i]), int(batch.ts_ms[i])
        event_id = f"{self._prefix}-{number}"
        segment = {"region": REGIONS[int(batch.region[i])]}
        features = {name: value if not isinstance(value, str) else None
                    for name, value in zip(self.model.table.columns, row, strict=True)}

        def event(component: str, latency_ms: float, **found: Any) -> Message:
            suffix = "" if component == MODEL else f"-{component}"
            body = {"event_id": event_id + suffix, "ts": ts, "environment": self.environment,
                    "model": self.model.spec.name, "version": version.name, "component": component,
                    "latency_ms": round(latency_ms, 4), "segment": segment, "trace_id": event_id,
                    **{key: value for key, value in found.items() if value is not None}}
            return Message(ts, "telemetry", self.model.spec.name, body)

        answer: dict[str, Any] = {"error": answers.error or None}
        if not answers.failed:
            answer = {"prediction": answers.predictions[i],
                      "confidence": answers.confidences[i] if answers.confidences is not None else None}
            self._remember_label(version, batch, i, event_id, segment, answer)
        if PREPROCESS not in self.model.spec.components:
            yield event(MODEL, answers.preprocess_ms + answers.model_ms, features=features, **answer)
        elif answers.failed == PREPROCESS:
            yield event(PREPROCESS, answers.preprocess_ms, features=features, **answer)
        else:
            yield event(PREPROCESS, answers.preprocess_ms, features=features)
            yield event(MODEL, answers.model_ms, **answer)

    def _remember_label(self, version: Version, batch: Requests, i: int, event_id: str, segment: dict[str, str],
                        answer: dict[str, Any]) -> None:
        known_ms, truth = int(batch.label_ts_ms[i]), batch.label[i]
        if known_ms < 0:
            return
        body = {"event_id": event_id, "ts": known_ms, "predicted_at": int(batch.ts_ms[i]),
                "environment": self.environment, "model": self.model.spec.name, "version": version.name,
                "component": MODEL, **{key: value for key, value in answer.items() if value is not None},
                "label": str(truth) if self.model.table.classes else round(float(truth), 4), "segment": segment}
        heapq.heappush(self._labels, (known_ms, int(batch.number[i]), body))


def _batches(requests: Requests) -> Iterator[Requests]:
    """Groups that one call can serve: same version, same pace. A malformed request is served alone."""
    alone = requests.malformed >= 0
    for i in np.flatnonzero(alone):
        yield requests.take(np.array([i]))
    for route in np.unique(requests.route[~alone]):
        for slow in (False, True):
            group = ~alone & (requests.route == route) & (requests.slow == slow)
            if group.any():
                yield requests.take(group)


def _payload(batch: Requests) -> list[Row]:
    """What the callers sent: numbers, null for missing, and text where a row is malformed."""
    rows: list[Row] = [[None if value != value else value for value in row] for row in np.round(batch.x, 5).tolist()]
    for row, column in zip(rows, batch.malformed.tolist(), strict=True):
        if column >= 0:
            row[column] = f"{row[column]} units"
    return rows


def _predict(version: Version, scaled: Any) -> tuple[list[Any], list[float] | None]:
    estimator = version.estimator
    if not hasattr(estimator, "predict_proba"):
        return np.round(estimator.predict(scaled), 4).tolist(), None
    chances = estimator.predict_proba(scaled)
    best = chances.argmax(axis=1)
    confidences = np.round(np.minimum(chances[np.arange(len(best)), best], 1.0), 6)
    return [str(name) for name in estimator.classes_[best]], confidences.tolist()


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:_MAX_ERROR]
