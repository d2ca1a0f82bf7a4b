"""The demo fleet through the cores of aggregation, drift and retraining: no broker; what came of each incident."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import msgspec
from demo_machine import Machine

from agents.aggregation.engine import AggregationEngine, AggregationOptions
from agents.drift.engine import DriftEngine
from agents.drift.options import DriftOptions
from agents.drift.performance import PerformanceEngine
from agents.retraining.engine import RetrainingEngine, RetrainingOptions
from infra.demo.fleet import Fleet
from infra.demo.incidents import Incident
from infra.demo.models import Model
from schemas.drift import DriftEvent, RetrainingRequest
from schemas.telemetry import Feedback
from streams import messages
from streams.batch import Decoder, Limits
from streams.records import RecordBatch
from streams.state.keyed import KeyedStates
from streams.windows.written import written

ORIGIN_MS = 1_700_000_000_000
STEP_MS = 2_000
#: After the end of an incident, in which what it did may still be seen.
TOLERANCE_MS = 60_000
PERSISTENCE_MS = 20_000


@dataclass
class Played:
    """A run: its incidents, the drift events in the order in which they came, and what they asked for."""

    incidents: list[Incident] = field(default_factory=list)
    events: list[DriftEvent] = field(default_factory=list)
    requests: list[RetrainingRequest] = field(default_factory=list)

    def of(self, incident: Incident) -> list[DriftEvent]:
        """Drifts that began in an incident, of its model, most certain to be its own first."""
        return [event for event in self.events
                if event.state == "drifted" and (event.environment, event.model) == (
                    incident.environment, incident.model)
                and incident.start_ms <= event.detected_ms <= incident.end_ms + TOLERANCE_MS]

    def stray(self) -> list[DriftEvent]:
        """Drifts that belong to no incident."""
        mine = {event.drift_id for incident in self.incidents for event in self.of(incident)}
        return [event for event in self.events if event.state == "drifted" and event.drift_id not in mine]


def play(models: Sequence[Model], seed: int, minutes: int, rate: float = 120.0, incidents: bool = True,
         cooldown_ms: int = 250_000) -> Played:
    """Run the fleet for so many minutes of event time, with the scripted incidents.

    `cooldown_ms` is longer than an incident, as a feed that stays broken for as long is taken for what it is now; and
    shorter than the calm between two of a model.
    """
    machine = Machine(seed)
    fleet = Fleet(machine.load(models), rate, ORIGIN_MS, seed, minutes * 60_000, incidents, machine.clock_ns)
    return _Run(cooldown_ms).over(fleet, minutes * 60_000)


class _Run:
    def __init__(self, cooldown_ms: int) -> None:
        options = DriftOptions()
        self.aggregation = AggregationEngine(AggregationOptions(granularities_ms=(1_000, 10_000)), written)
        self.drift, self.labels = DriftEngine(options), PerformanceEngine(options)
        self.retraining = RetrainingEngine(RetrainingOptions(cooldown_ms, PERSISTENCE_MS))
        self.states: dict[str, KeyedStates[Any]] = {
            name: KeyedStates(name, 0, engine.codec, {}) for name, engine in (
                ("aggregation", self.aggregation), ("drift", self.drift), ("performance", self.labels),
                ("retraining", self.retraining))}
        self.decode, self.read = Decoder(Limits()), messages.windows(options.granularity_ms)
        self.offsets = dict.fromkeys(("telemetry", "feedback", "metrics", "drift-events"), 0)
        self.played = Played()

    def over(self, fleet: Fleet, length_ms: int) -> Played:
        for until in range(STEP_MS, length_ms + 1, STEP_MS):
            found = fleet.advance(ORIGIN_MS + until)
            self._telemetry([m.body for m in found if m.topic == "telemetry"])
            self._feedback([m.body for m in found if m.topic == "feedback"])
        self.played.incidents = fleet.closed + fleet.stop()
        return self.played

    def _telemetry(self, bodies: list[dict[str, Any]]) -> None:
        if not bodies:
            return
        batch = self.decode(RecordBatch("telemetry", 0, self._records(
            "telemetry", [msgspec.json.encode(body) for body in bodies])))
        closed = self.aggregation.run(batch, self.states["aggregation"], "telemetry", now_ms=1).windows
        if not closed:
            return
        records = self._records("metrics", [window.value for window in closed])
        for record, window in zip(records, closed, strict=True):
            record.key = window.window_id.encode()
        windows = self.read(RecordBatch("metrics", 0, records))
        self._took(self.drift.run(windows, self.states["drift"], "metrics", 0))
        self.retraining.on_windows(windows, self.states["retraining"])
        self._asked()

    def _feedback(self, bodies: list[dict[str, Any]]) -> None:
        labels = [(self._next("feedback"), Feedback.model_validate(body)) for body in bodies]
        self._took(self.labels.run(labels, self.states["performance"], "feedback", 0))

    def _took(self, events: list[DriftEvent]) -> None:
        self.played.events += events
        numbered = [(self._next("drift-events"), event) for event in events]
        self.retraining.on_drift(numbered, self.states["retraining"], "drift-events")
        self._asked()

    def _asked(self) -> None:
        requests = self.retraining.outbox(self.states["retraining"])
        self.retraining.published(self.states["retraining"], [request.request_id for request in requests])
        self.played.requests += requests

    def _next(self, topic: str) -> int:
        self.offsets[topic] += 1
        return self.offsets[topic]

    def _records(self, topic: str, bodies: Sequence[bytes]) -> list[Any]:
        return [SimpleNamespace(offset=self._next(topic), timestamp=0, key=b"", value=body) for body in bodies]
