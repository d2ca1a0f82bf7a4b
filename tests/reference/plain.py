"""Anomalies and drift of one partition's log, event by event, through River's interface of single calls."""

from __future__ import annotations

from typing import Any

import numpy as np

from agents.drift.component import Component
from agents.drift.engine import DriftEngine
from agents.drift.options import DriftOptions
from agents.scoring.detectors.ensemble import Ensemble
from agents.scoring.detectors.half_space_trees import HalfSpaceTrees
from agents.scoring.engine import detector_key
from agents.scoring.pace import Pace
from agents.scoring.state import CONFIDENCE, ScoringOptions
from agents.scoring.threshold import QuantileThreshold
from reference.windows import Key, Windows
from schemas.drift import DriftEvent
from streams.windows.record import SummaryRecord, WindowRecord, buckets

#: (event id, score, threshold)
Alarm = tuple[str, float, float]


class Scores:
    """A detector and a threshold a key: ask, judge, learn."""

    def __init__(self, options: ScoringOptions) -> None:
        self.options = options
        self.alarms: list[Alarm] = []
        self._held: dict[str, tuple[HalfSpaceTrees | Ensemble, QuantileThreshold, Pace]] = {}

    def add(self, found: dict[str, Any]) -> None:
        """Score an event, then learn it."""
        detector, threshold, pace = self._of(found)
        inputs = {f"feature.{name}": value for name, value in found.get("features", {}).items()
                  if not isinstance(value, str)}
        if found.get("confidence") is not None:
            inputs = {CONFIDENCE: found["confidence"]} | inputs
        for name in inputs:
            detector.column(name)
        ready, score, limit = detector.ready, detector.score_one(inputs), threshold.value
        if score > limit:
            self.alarms.append((found["event_id"], score, limit))
        detector.learn_one(inputs)
        if ready:
            threshold.observe(score)
        if self.options.alarm_budget and pace.note(np.array([found["ts"]])):
            threshold.aim(1.0 - pace.share(self.options.alarm_budget))

    def _of(self, found: dict[str, Any]) -> tuple[HalfSpaceTrees | Ensemble, QuantileThreshold, Pace]:
        options = self.options
        key = detector_key(found["environment"], found["model"], found.get("component", "model"))
        if key not in self._held:
            self._held[key] = options.detector(key), QuantileThreshold(options.threshold_quantile), Pace()
        return self._held[key]


class Drift:
    """Each closed window of the finest granularity, once, in order, to its component: no log, no fences, no rows."""

    def __init__(self, options: DriftOptions, partition: int) -> None:
        self.engine = DriftEngine(options)
        self.partition = partition
        self.events: list[DriftEvent] = []
        self._held: dict[tuple[str, str, str], Component] = {}

    def add(self, key: Key, stated: dict[str, Any]) -> None:
        """Take in a window as it was when it closed."""
        (environment, model, version, component), size, start = key
        held = self._held.setdefault((environment, model, component), Component(self.engine.options))
        self.events += self.engine._window(held, WindowRecord(
            environment=environment, model=model, version=version, component=component, window_id="w",
            start_ms=start, size_ms=size, partition=self.partition, count=stated["count"], errors=stated["errors"],
            closed_ms=start + size, fields={name: summary(cells) for name, cells in stated["fields"].items()}),
            self.partition)


def summary(cells: dict[str, Any]) -> SummaryRecord:
    """A field's cells as the contract has them."""
    return SummaryRecord(**{name: value for name, value in cells.items() if name != "sketch"},
                         buckets=buckets(cells["sketch"]))


def run(events: list[dict[str, Any]], windows: Windows, scores: Scores, drift: Drift) -> None:
    """All of a log through all three."""
    for number, found in enumerate(events):
        scores.add(found)
        for key, stated in windows.add(number, found):
            drift.add(key, stated)
