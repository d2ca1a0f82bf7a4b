"""What rules would have done: the very engine, over what is kept, with time taken from the events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agents.alerts.engine import AlertEngine, AlertOptions
from agents.alerts.ruleset import RuleSet
from agents.alerts.state import ModelState
from schemas.alerts import Alert
from schemas.anomalies import Anomaly
from schemas.drift import DriftEvent
from streams.state.keyed import KeyedStates
from streams.windows.record import WindowRecord

#: Between two looks for silence.
TICK_MS = 10_000


def rehearse(rules: RuleSet, windows: Sequence[WindowRecord], anomalies: Iterable[Anomaly],
             drifts: Iterable[DriftEvent], size_ms: int, end_ms: int) -> list[Alert]:
    """The alerts of these rules alone, in order of making.

    `windows` are of one size, in time order; looks that are shorter than that see one window. Coarse windows make
    incidents begin and end later than live ones by up to their size.
    """
    engine = AlertEngine(AlertOptions(ruleset=rules, built_in=False, bucket_ms=size_ms, retire_ms=1 << 62))
    states: KeyedStates[ModelState] = KeyedStates("rehearsal", 0, engine.codec, {})
    told: list[Alert] = []
    story: list[tuple[int, int, object]] = [
        *((anomaly.ts, 0, anomaly) for anomaly in anomalies), *((drift.detected_ms, 1, drift) for drift in drifts),
        *((window.start_ms + window.size_ms, 2, window) for window in windows)]
    story.sort(key=lambda item: item[:2])
    clock = story[0][0] if story else end_ms
    for offset, (at_ms, _, message) in enumerate(story):
        clock = _tick(engine, states, clock, at_ms)
        if isinstance(message, WindowRecord):
            engine.on_windows([(offset, message)], states, "metrics")
        elif isinstance(message, Anomaly):      # their places in telemetry may lie in another order than their times
            placed = message.model_copy(update={"partition": 0, "offset": offset, "position": 0})
            engine.on_anomalies([(offset, placed)], states, "anomalies")
        elif isinstance(message, DriftEvent):
            engine.on_drift([(offset, message)], states, "drift-events")
        told += _told(engine, states)
    _tick(engine, states, clock, end_ms)
    return told + _told(engine, states)


def _tick(engine: AlertEngine, states: KeyedStates[ModelState], clock_ms: int, now_ms: int) -> int:
    while clock_ms + TICK_MS <= now_ms:
        clock_ms += TICK_MS
        engine.tick(states, clock_ms)
    return clock_ms


def _told(engine: AlertEngine, states: KeyedStates[ModelState]) -> list[Alert]:
    alerts = engine.outbox(states)
    engine.published(states, [alert.alert_id for alert in alerts])
    return alerts
