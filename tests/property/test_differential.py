"""The whole core against the plain reference: windows, anomalies and drift events are the same, bit for bit.

Seeded streams of two partitions, with an incident in each, are cut into any batches; workers checkpoint, restart and
crash at any point, and read again from what they had committed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from agents.aggregation.engine import AggregationEngine, AggregationOptions
from agents.drift.engine import DriftEngine
from agents.drift.options import DriftOptions
from agents.scoring.engine import ScoringEngine, ScoringOptions
from reference import plain
from reference.windows import Windows
from schemas.anomalies import Anomaly
from schemas.drift import DriftEvent
from streams import messages
from streams.batch import Decoder, Limits
from streams.records import RecordBatch
from streams.state.keyed import KeyedStates
from streams.windows.written import written

BASE = 1_700_000_000_000
EVENTS, MODELS, PER_SECOND, PARTITIONS = 2_400, ("churn", "fraud", "price"), 30, 2
SCORING = ScoringOptions(trees=8, height=6, window=60, threshold_quantile=0.98)
#: All scorings that must be functions of the log alone: trees, the default ensemble, and one of all kinds of members.
SCORINGS = {"trees": SCORING,
            "ensemble": ScoringOptions(threshold_quantile=0.98, detectors=("ensemble",), alarm_budget=20_000.0),
            "mixed": ScoringOptions(trees=4, height=4, window=60, threshold_quantile=0.98, detectors=(
                "half_space_trees", "online_isolation_forest", "online_autoencoder", "loda"))}
WINDOWS = AggregationOptions(granularities_ms=(1_000, 10_000, 60_000), delay_ms=1_000, grace_ms=5_000, idle_ms=60_000,
                             amend_ms=200)
DRIFT = DriftOptions(least_events=5)
TELEMETRY, METRICS = "telemetry", "metrics"
DECODE = Decoder(Limits())


def stream(seed: int, disorder_ms: int) -> list[dict[str, Any]]:
    """A partition's log: three models, two versions; in the last third one feature is in another unit, one is gone."""
    rng = random.Random(seed)
    found = [_event(rng, number, disorder_ms) for number in range(EVENTS)]
    last = {"event_id": "last", "ts": BASE + 10_000_000, "environment": "prod", "model": "flush", "version": "1"}
    return [*found, last]


def _event(rng: random.Random, number: int, disorder_ms: int) -> dict[str, Any]:
    wrong = number > EVENTS * 2 // 3
    model = rng.choice(MODELS)
    features: dict[str, Any] = {"age": rng.gauss(40, 5) * (1_000 if wrong and model == "churn" else 1),
                                "income": None if wrong and model == "fraud" else rng.lognormvariate(3, 0.4),
                                "plan": rng.choice(["basic", "pro"])}
    if number % 7 == 0:
        features["rare"] = rng.random()
    ts = BASE + number * 1_000 // PER_SECOND - rng.choice([0, 0, 0, rng.randint(0, disorder_ms)])
    found = {"event_id": f"e{number}", "ts": ts, "environment": "prod", "model": model, "version": rng.choice("12"),
             "prediction": rng.choice(["yes", "no"]) if model != "price" else rng.gauss(10, 1),
             "confidence": round(rng.random(), 3), "latency_ms": rng.lognormvariate(1, 0.3), "features": features,
             "metrics": {"tokens": float(number % 50)}}
    return found | {"error": "TimeoutError"} if rng.random() < (0.3 if wrong and model == "price" else 0.01) else found


def records(bodies: list[bytes], first: int = 0, keys: list[bytes] | None = None) -> list[Any]:
    return [SimpleNamespace(offset=first + at, timestamp=0, key=keys[at] if keys else b"", value=body)
            for at, body in enumerate(bodies)]


@dataclass
class Log:
    """A partition of the broker: what was written to it stays, whatever dies."""

    telemetry: list[bytes]
    metrics: list[tuple[bytes, bytes]] = field(default_factory=list)
    anomalies: dict[str, Anomaly] = field(default_factory=dict)
    drift: dict[str, DriftEvent] = field(default_factory=dict)
    rows: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"scoring": {}, "aggregation": {}, "drift": {}})
    committed: tuple[int, int] = (0, 0)


class Worker:
    """The agents of one partition, from its rows and its committed offsets on."""

    def __init__(self, number: int, log: Log, scoring: ScoringOptions) -> None:
        self.number, self.log = number, log
        self.scoring, self.drift = ScoringEngine(scoring), DriftEngine(DRIFT)
        self.aggregation = AggregationEngine(WINDOWS, written)
        self.states: dict[str, KeyedStates[Any]] = {
            name: KeyedStates(name, number, engine.codec, dict(log.rows[name]))
            for name, engine in (("scoring", self.scoring), ("aggregation", self.aggregation), ("drift", self.drift))}
        self.at, self.metrics_at = log.committed

    def read(self, size: int) -> None:
        """Take in the next records of telemetry."""
        part = self.log.telemetry[self.at:self.at + size]
        if not part:
            return
        batch = DECODE(RecordBatch(TELEMETRY, self.number, records(part, self.at)))
        self.at += len(part)
        for anomaly in self.scoring.run(batch, self.states["scoring"], TELEMETRY):
            have = self.log.anomalies.setdefault(anomaly.anomaly_id, anomaly)
            assert have == anomaly, "a repeat is the same"
        closed = self.aggregation.run(batch, self.states["aggregation"], TELEMETRY, now_ms=self.at)
        self.log.metrics += [(window.window_id.encode(), window.value) for window in closed.windows]

    def read_windows(self, size: int) -> None:
        """Take in the next records of metrics."""
        part = self.log.metrics[self.metrics_at:self.metrics_at + size]
        if not part:
            return
        batch = RecordBatch(METRICS, self.number, records([value for _, value in part], self.metrics_at,
                                                          [key for key, _ in part]))
        self.metrics_at += len(part)
        for event in self.drift.run(messages.windows(DRIFT.granularity_ms)(batch), self.states["drift"], METRICS,
                                    self.number):
            have = self.log.drift.setdefault(event.drift_id, event)
            assert have == event, "a repeat is the same"

    def checkpoint(self, commit: bool) -> None:
        """Write every agent's rows; commit, or die before that."""
        amended = self.aggregation.amend(self.states["aggregation"])
        self.log.metrics += [(window.window_id.encode(), window.value) for window in amended]
        for name, states in self.states.items():
            frozen = states.freeze(1)
            states.written(frozen)
            self.log.rows[name] = dict(states.snapshots)
        if commit:
            self.log.committed = self.at, self.metrics_at


def played(events: list[dict[str, Any]], number: int, draw: random.Random, scoring: ScoringOptions = SCORING) -> Log:
    """The log after workers have read all of it, in batches of any size, with restarts and crashes."""
    log = Log([msgspec.json.encode(event) for event in events])
    worker = Worker(number, log, scoring)
    while worker.at < len(log.telemetry) or worker.metrics_at < len(log.metrics):
        worker.read(draw.choice([1, 3, 40, 200, 900]))
        worker.read_windows(draw.choice([1, 20, 400]))
        action = draw.choice(["go on", "go on", "checkpoint", "evict", "restart", "uncommitted", "crash"])
        if action in ("checkpoint", "restart", "uncommitted", "evict"):
            worker.checkpoint(commit=action != "uncommitted")
        if action == "evict":
            worker.states["scoring"].shrink(1)
        if action in ("restart", "uncommitted", "crash"):
            worker = Worker(number, log, scoring)
    return log


def newest(log: Log) -> dict[str, dict[str, Any]]:
    """window_id -> the copy with the largest count, as every reader of `metrics` takes it."""
    found: dict[str, dict[str, Any]] = {}
    for _, value in log.metrics:
        window = msgspec.json.decode(value)
        have = found.get(window["window_id"])
        if have is None or window["count"] >= have["count"]:
            found[window["window_id"]] = window
    return found


def first_copies(log: Log) -> dict[Any, dict[str, Any]]:
    """What each finest window said when it closed."""
    found: dict[Any, dict[str, Any]] = {}
    for _, value in log.metrics:
        window = msgspec.json.decode(value)
        if window["size_ms"] == WINDOWS.granularities_ms[0]:
            found.setdefault(key_of(window), stated(window))
    return found


def key_of(w: dict[str, Any]) -> Any:
    return (w["environment"], w["model"], w["version"], w["component"]), w["size_ms"], w["start_ms"]


def stated(window: dict[str, Any]) -> dict[str, Any]:
    return {"count": window["count"], "errors": window["errors"], "fields": {
        name: {"sketched": UNSET} | {key: [tuple(pair) for pair in value] if key == "sketch" else value
                                     for key, value in cells.items() if key != "schema_version"}
        for name, cells in window["fields"].items()}}


def apart(got: dict[Any, Any], expected: dict[Any, Any]) -> list[Any]:
    """The first few that differ: pytest takes hours to compare all of it."""
    return [(key, got.get(key), expected.get(key)) for key in {**expected, **got}
            if key not in got or key not in expected or got[key] != expected[key]][:3]


def check(events: list[dict[str, Any]], number: int, log: Log, scoring: ScoringOptions = SCORING) -> plain.Drift:
    """Everything that came out against the reference."""
    windows, scores = Windows(WINDOWS), plain.Scores(scoring)
    drift = plain.Drift(DRIFT, number)
    plain.run(events, windows, scores, drift)
    got = {key_of(window): stated(window) for window in newest(log).values()}
    assert not apart(got, {key: value for key, value in windows.stated().items() if key[0][1] != "flush"})
    assert not apart(first_copies(log), dict(windows.first))
    assert sorted((a.event_id, a.score, a.threshold) for a in log.anomalies.values()) == sorted(scores.alarms)
    assert log.drift == {event.drift_id: event for event in drift.events}
    assert scores.alarms
    return drift


@given(st.integers(0, 2**32), st.sampled_from([0, 900, 4_000]))
@settings(deadline=None, max_examples=12)
def test_windows_scores_and_drift_are_the_references_for_any_cutting_and_any_restart(seed: int, disorder: int) -> None:
    draw = random.Random(seed)
    for number in range(PARTITIONS):
        events = stream(draw.randrange(2**32), disorder)
        check(events, number, played(events, number, draw))


@pytest.mark.parametrize("name", ["ensemble", "mixed"])
def test_so_are_those_of_every_kind_of_detector(name: str) -> None:
    for seed in (3, 4):
        events = stream(seed, 900)
        check(events, 0, played(events, 0, random.Random(seed), SCORINGS[name]), SCORINGS[name])


@pytest.mark.parametrize("number", range(PARTITIONS))
def test_the_streams_incidents_are_found_at_all(number: int) -> None:
    events = stream(number, 500)
    drift = check(events, number, played(events, number, random.Random(5)))
    assert {(event.model, event.field) for event in drift.events} >= {("churn", "feature.age"),
                                                                      ("fraud", "feature.income")}
