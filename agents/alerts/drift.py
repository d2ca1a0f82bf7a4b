"""Drift events into incidents: which family a field belongs to, and when an incident's fields have all recovered."""

from __future__ import annotations

from typing import Literal

from agents.alerts import custom, text
from agents.alerts.incident import find_slot, raise_signal, settle, slot_of
from agents.alerts.options import MAX_DRIFT_IDS, AlertOptions
from agents.alerts.state import Clue, ModelState, Signal, bounded
from agents.alerts.watch import DRIFT, sweep
from schemas.drift import DriftEvent

Family = Literal["data", "latency", "errors", "performance"]
STATISTICS = ("mean", "rate", "missing_share")
CAUSES = {"data": "drift", "latency": "latency", "errors": "error_rate", "performance": "performance"}


def family_of(event: DriftEvent) -> Family:
    """The family of causes that a drift event speaks for."""
    if event.kind == "performance":
        return "performance"
    if event.field == "latency_ms":
        return "latency"
    return "errors" if event.field == "error_rate" else "data"


def is_worse(event: DriftEvent, options: AlertOptions) -> bool:
    """False if latency or errors fell, or latency rose by next to nothing: known of, but nothing to be alerted to."""
    family = family_of(event)
    if family == "data" or event.statistic == "missing_share" or event.field == text.CALIBRATION:
        return True
    return event.after - event.before >= (options.latency_excess_ms if family == "latency" else 0.0)


def take(state: ModelState, event: DriftEvent, options: AlertOptions) -> None:
    """Raise or end the signal of one field of one version, unless the event is a repeat."""
    if event.drift_id in state.drift_ids:
        return
    state.drift_ids[event.drift_id] = event.detected_ms
    bounded(state.drift_ids, MAX_DRIFT_IDS)
    if event.kind != "performance":     # after a pause labels may be read hours ahead of windows
        state.clock_ms = max(state.clock_ms, event.detected_ms)
    if options.ruleset.rules:
        _people(state, event, options)
    if not options.built_in:
        return
    if event.state == "drifted" and is_worse(event, options):
        _drifted(state, event, options)
    else:
        _recovered(state, event, options)
    if state.slots:
        sweep(state, options)


def _people(state: ModelState, event: DriftEvent, options: AlertOptions) -> None:
    """People's rules about drift: a signal a field and version, in the rule's own slot."""
    name = signal_name(event, event.statistic)
    for rule in custom.drift_rules(state, event, options):
        slot = slot_of(state, event.component, custom.RULE + rule.name)
        if event.state == "drifted":
            clue = Clue("drift", event.drift_id, event.detected_ms, text.clip(text.evidence(event)))
            about = text.subject(event.environment, event.model, event.component)
            raise_signal(slot, name, Signal(
                "drift", rule.severity, event.detected_ms, event.detected_ms, event.onset_ms,
                text.clip(f"{about}: {rule.title or text.drifted(event)}"), text.clip(text.drifted_detail(event)),
                event.version, [event.version], event.field, event.after, rule=rule.name), [clue])
            settle(state, slot, event.detected_ms, options.cooldown_ms, [clue])
        elif slot.signals.pop(name, None) is not None:
            settle(state, slot, event.detected_ms, options.cooldown_ms, ending="recovered")


def _drifted(state: ModelState, event: DriftEvent, options: AlertOptions) -> None:
    family = family_of(event)
    slot = slot_of(state, event.component, family)
    known = state.components.get(event.component)
    several = known is not None and len(known.versions) > 1
    about = text.subject(event.environment, event.model, event.component, event.version if several else "")
    clue = Clue("drift", event.drift_id, event.detected_ms, text.clip(text.evidence(event)))
    raise_signal(slot, signal_name(event, event.statistic), Signal(
        CAUSES[family], "critical" if event.severity == "critical" else "warning", event.detected_ms, event.detected_ms,
        event.onset_ms, text.clip(f"{about}: {text.drifted(event)}"), text.clip(text.drifted_detail(event)),
        event.version, list(dict.fromkeys([event.version, *event.versions])), event.field, event.after),
        [clue])
    settle(state, slot, event.detected_ms, options.cooldown_ms, [clue])


def _recovered(state: ModelState, event: DriftEvent, options: AlertOptions) -> None:
    """End the field's signal: that of the same statistic, else that of another."""
    slot = find_slot(state, event.component, family_of(event))
    if slot is None:
        return
    for statistic in (event.statistic, *STATISTICS):
        if slot.signals.pop(signal_name(event, statistic), None) is not None:
            settle(state, slot, event.detected_ms, options.cooldown_ms, ending="recovered")
            return


def signal_name(event: DriftEvent, statistic: str) -> str:
    """One signal a field, statistic and version."""
    return f"{DRIFT}{event.kind}:{event.field}:{statistic}:{event.version}"
