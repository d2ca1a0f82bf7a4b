"""People's rules over a model's windows, anomalies and drift events; each rule has an incident of its own.

A rule's condition is pending until it has held for `for_s` of event time; then its incident opens. It ends once the
condition has not held for `calm_ms`, when its version is withdrawn, or with the rule itself. What a rule has counted
lies in the state of the model (`Tally`), in slices a fifth as long as its shortest look, so a look is right to a slice.
"""

from __future__ import annotations

from typing import Any

from agents.alerts import text
from agents.alerts.options import AlertOptions
from agents.alerts.rules import Finding
from agents.alerts.ruleset import (
    AnomalyRateRule,
    CelRule,
    DriftRule,
    ObjectiveRule,
    matches,
    slice_ms,
    span_s,
)
from agents.alerts.state import ModelState, Tally
from schemas.anomalies import Anomaly
from schemas.drift import DriftEvent
from streams.windows.closed import ClosedWindow
from streams.windows.record import SummaryRecord
from streams.windows.sketch import bucket, quantile

#: How a rule's signal and family begin.
RULE = "rule:"
SEPARATOR = "\x1f"
RANK = {"info": 0, "warning": 1, "critical": 2}
#: A condition is calm when a rate is below this share of its limit.
CALM_SHARE = 0.9


def counting(state: ModelState, component: str, options: AlertOptions) -> list[Any]:
    """Rules about this component that look at windows."""
    return [rule for rule in options.ruleset.rules if isinstance(rule, AnomalyRateRule | ObjectiveRule | CelRule)
            and rule.concerns(state.environment, state.model, component)]


def tally_of(state: ModelState, rule: Any, component: str) -> Tally:
    """What the rule has counted; nothing if it was another rule that did."""
    key = f"{rule.name}{SEPARATOR}{component}"
    found = state.tallies.get(key)
    if found is None or found.about != rule.about:
        found = state.tallies[key] = Tally(rule.about)
    return found


def forget(state: ModelState, options: AlertOptions) -> None:
    """Drop tallies of rules that are gone."""
    for key in [key for key in state.tallies if key.partition(SEPARATOR)[0] not in options.ruleset.names]:
        del state.tallies[key]


def note_anomaly(state: ModelState, anomaly: Anomaly, options: AlertOptions) -> None:
    """Count an anomaly for the rules about rates."""
    for rule in counting(state, anomaly.component, options):
        if isinstance(rule, AnomalyRateRule):
            _add(tally_of(state, rule, anomaly.component), anomaly.ts, slice_ms(rule, options.bucket_ms), span_s(rule),
                 0, 1)


def judge(state: ModelState, window: ClosedWindow, clock_ms: int, unusual: int, options: AlertOptions
          ) -> list[tuple[Any, Finding]]:
    """What each rule finds after a new window."""
    return [(rule, _pending(tally_of(state, rule, window.component), rule, _look(state, rule, window, clock_ms, unusual,
                                                                                 options), clock_ms))
            for rule in counting(state, window.component, options)]


def _look(state: ModelState, rule: Any, window: ClosedWindow, clock_ms: int, unusual: int, options: AlertOptions
          ) -> Finding:
    if isinstance(rule, CelRule):
        return _condition(rule, window, clock_ms, unusual)
    tally = tally_of(state, rule, window.component)
    bad = _bad(rule, window) if isinstance(rule, ObjectiveRule) else 0
    _add(tally, window.start_ms, slice_ms(rule, options.bucket_ms), span_s(rule), window.count, bad)
    if isinstance(rule, ObjectiveRule):
        return _burning(rule, tally, window, clock_ms)
    events, hits = _sum(tally, clock_ms - 1000 * rule.over_s)
    rate = min(1.0, hits / events) if events else 0.0
    wrong = events >= rule.least_events and rate > rule.limit
    return _found(rule, wrong, rate < CALM_SHARE * rule.limit, rate, rule.limit, window, clock_ms - 1000 * rule.over_s,
                  f"{text.percent(rate)} of events are unusual (limit {text.percent(rule.limit)})",
                  f"{hits} of {events} events in {text.duration(1000 * rule.over_s)}.")


def _condition(rule: CelRule, window: ClosedWindow, clock_ms: int, unusual: int) -> Finding:
    holds = rule.holds(context(window, unusual, rule.wants_quantiles))
    return _found(rule, holds, not holds, float(window.count), None, window, window.start_ms,
                  f"{rule.name} holds", f"{rule.when} at {text.clock(window.start_ms)}.")


def context(window: ClosedWindow, unusual: int, quantiles: bool) -> dict[str, Any]:
    """What a CEL rule sees. Numbers are doubles: CEL mixes no kinds of them."""
    return {"environment": window.environment, "model": window.model, "version": window.version,
            "component": window.component, "seconds": window.size_ms / 1000, "count": float(window.count),
            "errors": float(window.errors), "error_rate": window.errors / window.count if window.count else 0.0,
            "anomalies": float(unusual),
            "fields": {name: _field(summary, quantiles) for name, summary in window.fields.items()}}


def _field(summary: SummaryRecord, quantiles: bool) -> dict[str, Any]:
    known = {"count": float(summary.count), "missing": float(summary.missing), "mean": summary.mean,
             "min": summary.min, "max": summary.max}
    if quantiles:
        known |= {f"p{q}": quantile(summary.sketch, q / 100) for q in (50, 95, 99)}
    return {name: value for name, value in known.items() if value is not None}


def _burning(rule: ObjectiveRule, tally: Tally, window: ClosedWindow, clock_ms: int) -> Finding:
    """The first burn rate that is too high, in both of its windows; they are listed from the gravest on."""
    budget, calm = 1 - rule.target, True
    for burn in rule.burns:
        events, bad = _sum(tally, clock_ms - 1000 * burn.long_s)
        short_events, short_bad = _sum(tally, clock_ms - 1000 * burn.short_s)
        rate = bad / events / budget if events else 0.0
        short = short_bad / short_events / budget if short_events else 0.0
        if events >= rule.least_events and rate > burn.factor and short > burn.factor:
            return _found(rule, True, False, rate, burn.factor, window, clock_ms - 1000 * burn.long_s,
                          f"the error budget of {rule.name} burns {text.number(rate)} times too fast",
                          f"{bad} of {events} events were bad in {text.duration(1000 * burn.long_s)}; promised are "
                          f"{100 * rule.target:g}% good.", burn.severity)
        calm = calm and short < CALM_SHARE * burn.factor
    return _found(rule, False, calm, 0.0, None, window, clock_ms, "", "")


def _bad(rule: ObjectiveRule, window: ClosedWindow) -> int:
    if rule.of == "errors" or rule.latency_ms is None:
        return window.errors
    latency, limit = window.summary("latency_ms"), bucket(rule.latency_ms)
    return sum(count for code, count in latency.sketch if code > limit) if latency is not None else 0


def _found(rule: Any, wrong: bool, calm: bool, value: float, threshold: float | None, window: ClosedWindow,
           onset_ms: int, said: str, detail: str, severity: str = "") -> Finding:
    return Finding(wrong, calm, severity or rule.severity, value, threshold or 0.0, max(0, onset_ms), 1, window.version,
                   False, (window.version,), None, rule.title or said, detail)._replace(rule=rule.name)


def _pending(tally: Tally, rule: Any, found: Finding, clock_ms: int) -> Finding:
    """A condition that has not held for long enough is not wrong yet, and not calm."""
    if not found.wrong:
        tally.since_ms = -1
        return found
    if tally.since_ms < 0:
        tally.since_ms = clock_ms
    if clock_ms - tally.since_ms < 1000 * rule.for_s:
        return found._replace(wrong=False, calm=False)
    return found._replace(pending_ms=tally.since_ms if rule.for_s else -1)


def _add(tally: Tally, at_ms: int, size_ms: int, span: int, events: int, bad: int) -> None:
    """Count into the slice of that time; slices that no look reaches any more go."""
    start = at_ms - at_ms % size_ms
    for place in range(len(tally.slices) - 1, -1, -1):
        begin, have, worse = tally.slices[place]
        if begin == start:
            tally.slices[place] = (start, have + events, worse + bad)
            return
        if begin < start:
            tally.slices.insert(place + 1, (start, events, bad))
            break
    else:
        tally.slices.insert(0, (start, events, bad))
    oldest = tally.slices[-1][0] - 1000 * span - size_ms
    while tally.slices[0][0] < oldest:
        del tally.slices[0]


def _sum(tally: Tally, from_ms: int) -> tuple[int, int]:
    """Events and bad ones of the slices that begin there or later."""
    events = bad = 0
    for begin, have, worse in reversed(tally.slices):
        if begin < from_ms:
            break
        events, bad = events + have, bad + worse
    return events, bad


def drift_rules(state: ModelState, event: DriftEvent, options: AlertOptions) -> list[DriftRule]:
    """Rules that this drift event falls under."""
    return [rule for rule in options.ruleset.rules if isinstance(rule, DriftRule)
            and rule.concerns(state.environment, state.model, event.component) and matches(rule.field, event.field)
            and (event.state != "drifted" or RANK[event.severity] >= RANK[rule.least])]
