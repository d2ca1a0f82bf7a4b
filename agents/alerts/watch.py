"""Windows and anomalies of one model into its state, and the rules that read them."""

from __future__ import annotations

from agents.alerts import buckets, custom, rules, text
from agents.alerts.incident import RANK, SILENCE, add_clue, find_slot, idle, raise_signal, settle, slot_of
from agents.alerts.options import (
    MAX_COMPONENTS,
    MAX_EVIDENCE,
    WITHDRAWN_GAPS,
    WITHDRAWN_MS,
    WITHDRAWN_WINDOWS,
    AlertOptions,
)
from agents.alerts.rules import Finding
from agents.alerts.state import Bucket, Clue, Component, ModelState, Series, Signal, Slot
from schemas.anomalies import Anomaly
from streams.windows.closed import ClosedWindow

UNUSUAL, SLOW, FAILING = "anomaly_rate", "latency", "error_rate@"
DRIFT = "drift:"
NO_SIGNALS: dict[str, Signal] = {}


def component_of(state: ModelState, name: str) -> Component:
    """The component; the one quiet for longest makes room for a new one."""
    component = state.components.get(name)
    if component is None:
        if len(state.components) >= MAX_COMPONENTS:
            del state.components[min(state.components, key=lambda one: state.components[one].clock_ms)]
        component = state.components[name] = Component()
    return component


# -- inputs ------------------------------------------------------------------------------------------


def take_anomaly(state: ModelState, anomaly: Anomaly, options: AlertOptions) -> None:
    """Count an anomaly, unless it is a repeat; look again if its window is there already."""
    component = component_of(state, anomaly.component)
    place = (anomaly.offset, anomaly.position)
    if place <= component.taken.get(anomaly.partition, (-1, -1)):
        return
    component.taken[anomaly.partition] = place
    clue = _clue(anomaly)
    component.recent = [*component.recent[1 - MAX_EVIDENCE:], clue]
    bucket = buckets.add_anomaly(component, anomaly, options)
    slot = find_slot(state, anomaly.component, "data")
    if slot is not None:
        add_clue(slot, clue)
    if options.ruleset.rules:
        custom.note_anomaly(state, anomaly, options)
    if bucket is not None and bucket.count >= 0 and options.built_in:
        _check_unusual(state, anomaly.component, component, options)


def take_window(state: ModelState, window: ClosedWindow, options: AlertOptions) -> None:
    """Count a window, unless it is a repeat or an amendment, and look at its component."""
    component = component_of(state, window.component)
    bucket = buckets.add_window(component, window, options)
    if bucket is None:
        return
    state.version = window.version
    state.clock_ms = max(state.clock_ms, component.clock_ms)
    _learn(state, window.component, window.version, component, options)
    if options.built_in:
        _check(state, window, component, bucket, options)
    if options.ruleset.rules:
        _check_rules(state, window, component, bucket, options)
    if state.slots:
        sweep(state, options)


def _check(state: ModelState, window: ClosedWindow, component: Component, bucket: Bucket, options: AlertOptions
           ) -> None:
    """The built-in rules, as far as the window gives them reason to look."""
    if bucket.unusual or state.slots:
        _check_unusual(state, window.component, component, options)
    if bucket.errors or state.slots:
        _check_failing(state, window, component, options)
    if state.slots or (component.usual_ms is not None and bucket.mean_ms > component.usual_ms
                       * min(2.0, options.latency_factor)):
        _check_slow(state, window, component, options)


def _check_rules(state: ModelState, window: ClosedWindow, component: Component, bucket: Bucket, options: AlertOptions
                 ) -> None:
    """People's rules."""
    for rule, found in custom.judge(state, window, component.clock_ms, bucket.unusual, options):
        cause = {"anomaly_rate": "anomaly_rate", "objective": "objective"}.get(rule.kind, "rule")
        clue = Clue("window", window.window_id, window.start_ms, f"{window.errors} of {window.count} failed")
        _follow(state, window.component, component, custom.RULE + rule.name, custom.RULE + rule.name, cause, found,
                [clue] if found.wrong else [], options)


def _clue(anomaly: Anomaly) -> Clue:
    said = f"score {text.number(anomaly.score)} above {text.number(anomaly.threshold)}"
    if anomaly.contributions:
        most = anomaly.contributions[0]
        value = "missing" if most.value is None else text.number(most.value)
        said += f": {most.feature} = {value}"
    return Clue("anomaly", anomaly.anomaly_id, anomaly.ts, text.clip(said))


def _learn(state: ModelState, name: str, version: str, component: Component, options: AlertOptions) -> None:
    """Settled buckets become usual, except while they are the trouble."""
    data = errors = latency = NO_SIGNALS
    if state.slots:
        data, errors, latency = (_signals(state, name, family) for family in ("data", "errors", "latency"))

    def learn(bucket: Bucket) -> None:
        if UNUSUAL not in data:
            buckets.learn_rate(component.unusual, bucket.count, bucket.unusual)
        if FAILING + version not in errors:
            buckets.learn_rate(component.errors, bucket.count, bucket.errors)
        if SLOW not in latency:
            buckets.learn_latency(component, bucket)

    buckets.settle_and_trim(component, component.versions[version], learn, options)


def _signals(state: ModelState, component: str, family: str) -> dict[str, Signal]:
    slot = find_slot(state, component, family)
    return slot.signals if slot is not None else NO_SIGNALS


# -- rules -------------------------------------------------------------------------------------------


def _check_unusual(state: ModelState, name: str, component: Component, options: AlertOptions) -> None:
    found = rules.anomaly_rate(component, component.cleared.get(UNUSUAL, -1), options)
    clues = [clue for clue in component.recent if clue.ts >= found.onset_ms] if found.wrong else []
    _follow(state, name, component, "data", UNUSUAL, "anomaly_rate", found, clues, options)


def _check_failing(state: ModelState, window: ClosedWindow, component: Component, options: AlertOptions) -> None:
    signal = FAILING + window.version
    found = rules.error_rate(component, window.version, component.cleared.get(signal, -1), options)
    clue = Clue("window", window.window_id, window.start_ms, f"{window.errors} of {window.count} failed")
    _follow(state, window.component, component, "errors", signal, "error_rate", found, [clue], options)


def _check_slow(state: ModelState, window: ClosedWindow, component: Component, options: AlertOptions) -> None:
    found = rules.latency(component, window.component, window.version, component.cleared.get(SLOW, -1), options)
    mean = component.versions[window.version].buckets
    latest = next((bucket.mean_ms for bucket in reversed(mean) if bucket.start_ms == window.start_ms), 0.0)
    clue = Clue("window", window.window_id, window.start_ms, f"mean latency {text.number(latest)} ms")
    _follow(state, window.component, component, "latency", SLOW, "latency", found, [clue], options)


def _follow(state: ModelState, name: str, component: Component, family: str, signal_name: str, cause: str,
            found: Finding, clues: list[Clue], options: AlertOptions) -> None:
    """Raise, keep, or end a signal by what its rule found, and tell."""
    slot = find_slot(state, name, family)
    signal = slot.signals.get(signal_name) if slot is not None else None
    if found.wrong:
        slot = slot_of(state, name, family)
        fresh = _signal(state, name, cause, found, component.clock_ms)
        if signal is not None and RANK[fresh.severity] < RANK[signal.severity]:
            fresh.title, fresh.detail = signal.title, signal.detail
        raise_signal(slot, signal_name, fresh, clues if family != "data" and slot.incident else ())
        settle(state, slot, component.clock_ms, options.cooldown_ms, clues)
    elif slot is not None and signal is not None:
        if not found.calm:
            signal.calm_since_ms = -1
        elif signal.calm_since_ms < 0:
            signal.calm_since_ms = component.clock_ms
        elif component.clock_ms - signal.calm_since_ms >= options.calm_ms:
            _end(state, slot, signal_name, component, options, "calm")


def _signal(state: ModelState, name: str, cause: str, found: Finding, now_ms: int) -> Signal:
    about = text.subject(state.environment, state.model, name, found.version if found.named else "")
    return Signal(cause, found.severity, now_ms, now_ms, found.onset_ms, text.clip(f"{about}: {found.said}"),
                  text.clip(found.detail), found.version, list(found.versions), found.field, found.value,
                  found.threshold, found.weight, rule=found.rule, pending_ms=found.pending_ms)


def _end(state: ModelState, slot: Slot, signal_name: str, component: Component | None, options: AlertOptions,
         ending: str) -> None:
    del slot.signals[signal_name]
    if component is not None:
        component.cleared[signal_name] = component.clock_ms
    settle(state, slot, state.clock_ms, options.cooldown_ms, ending=ending)


# -- what ends or begins without an input of its own -------------------------------------------------


def sweep(state: ModelState, options: AlertOptions) -> None:
    """End signals whose version or component is withdrawn, or whose level is accepted; open after a cooldown."""
    for key, slot in list(state.slots.items()):
        if slot.family == SILENCE:
            continue
        component = state.components.get(slot.component)
        for name, signal in list(slot.signals.items()):
            ending = _ending(state, name, signal, component, options)
            if ending:
                if name == SLOW and component is not None and ending == "accepted":
                    component.latencies, component.usual_ms = [], None
                _end(state, slot, name, component, options, ending)
        if slot.signals and slot.incident is None:
            settle(state, slot, state.clock_ms, options.cooldown_ms)
        if idle(slot, state.clock_ms, options.cooldown_ms):
            del state.slots[key]


def _ending(state: ModelState, name: str, signal: Signal, component: Component | None, options: AlertOptions) -> str:
    if signal.rule and signal.rule not in options.ruleset.names:
        return "removed"
    drifting = name.startswith(DRIFT)
    if (drifting or name == SLOW) and state.clock_ms - signal.raised_ms >= options.accept_ms:
        return "accepted"
    if component is None:
        return "" if drifting else "withdrawn"
    if component.versions and _withdrawn(
            component.clock_ms, max(component.versions.values(), key=_last_start),
            [series for other in state.components.values() if other is not component
             for series in other.versions.values()], state.clock_ms, options):
        return "withdrawn"
    series = component.versions.get(signal.version)
    if series is None or series.last_start_ms < 0 or name in (SLOW, UNUSUAL):
        return ""
    others = [other for other in component.versions.values() if other is not series]
    return "withdrawn" if _withdrawn(series.last_start_ms, series, others, component.clock_ms, options) else ""


def _last_start(series: Series) -> int:
    return series.last_start_ms


def _withdrawn(last_ms: int, series: Series, others: list[Series], now_ms: int, options: AlertOptions) -> bool:
    """True if a series has been quiet for long while others went on."""
    if now_ms - last_ms <= WITHDRAWN_MS + WITHDRAWN_GAPS * buckets.usual_gap_ms(series, options):
        return False
    return sum(1 for _ in buckets.spanned(others, last_ms + 1)) >= WITHDRAWN_WINDOWS
