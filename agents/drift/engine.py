"""The pure core over closed windows: each version against its own reference, a new one first against the incumbent's.

State is per (environment, model, component); versions and their statistics live inside, bounded, so that an event can
name the versions it affects. Windows of a series come in time order; repeats and amendments are passed over by start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from agents.drift.grouping import Group, Statistic
from agents.drift.options import CONFIDENCE, ERROR_RATE, DriftOptions, effect_of, kind_of
from agents.drift.watch import Change, Point, Watch, WatchState
from schemas.base import Severity
from schemas.drift import DriftEvent
from schemas.windows import MetricWindow
from streams.state.keyed import Entry, KeyedStates

__all__ = ["DriftEngine", "DriftOptions"]
_UNIT = "\x1f"
#: A new version is held against the incumbent in these only; others may differ for good reasons.
COMPARED = {ERROR_RATE: 0.10, CONFIDENCE: 0.15}
#: Points of a new version that must all be worse than the incumbent by that much.
COMPARED_POINTS = 4


class VersionState(msgspec.Struct):
    """One version of a component."""

    taken_ms: int = -1
    group: Group = msgspec.field(default_factory=Group)
    worse: dict[str, int] = {}
    blamed: list[str] = []


class ComponentState(msgspec.Struct):
    """One component of a model in an environment; watches by (version, field, statistic)."""

    versions: dict[str, VersionState] = {}
    watches: dict[str, WatchState] = {}


class Component:
    """The live form of `ComponentState`."""

    def __init__(self, state: ComponentState, delta: float) -> None:
        self.versions = state.versions
        self.delta = delta
        self.watches: dict[tuple[str, str, str], Watch] = {}
        for text, watch in state.watches.items():
            version, name, statistic = text.split(_UNIT)
            self.watches[(version, name, statistic)] = Watch(effect_of(name, statistic), delta, watch)

    def state(self) -> ComponentState:
        return ComponentState(self.versions, {_UNIT.join(key): watch.snapshot() for key, watch in self.watches.items()})

    def known(self, version: str) -> set[Statistic]:
        return {(name, statistic) for owner, name, statistic in self.watches if owner == version}


class Codec:
    """Components as msgpack."""

    def __init__(self, delta: float) -> None:
        self.delta = delta

    def new(self, key: str) -> Component:
        return Component(ComponentState(), self.delta)

    def encode(self, key: str, state: Component) -> bytes:
        return msgspec.msgpack.encode(state.state())

    def decode(self, key: str, data: bytes) -> Component:
        return Component(msgspec.msgpack.decode(data, type=ComponentState), self.delta)


class DriftEngine:
    """One a worker; the state is in the KeyedStates of each partition."""

    def __init__(self, options: DriftOptions | None = None) -> None:
        self.options = options or DriftOptions()
        self.codec = Codec(self.options.delta)

    def run(self, windows: Sequence[tuple[int, MetricWindow]], states: KeyedStates[Component], topic: str,
            partition: int) -> list[DriftEvent]:
        """Take in windows, (offset, window) in log order; what moved."""
        found: list[DriftEvent] = []
        touched: dict[str, tuple[Entry[Component], int]] = {}
        for offset, window in windows:
            if window.size_ms != self.options.granularity_ms:
                continue
            entry = states.entry(_UNIT.join((window.environment, window.model, window.component)))
            if not entry.includes(topic, offset):
                found += self._window(entry.state, window, partition)
                touched[entry.key] = (entry, offset)
        for entry, offset in touched.values():
            states.touch(entry, topic, offset)
        return found

    def _window(self, component: Component, window: MetricWindow, partition: int) -> list[DriftEvent]:
        version = self._version(component, window.version)
        if window.start_ms <= version.taken_ms:
            return []
        version.taken_ms = window.start_ms
        version.group.add(window, self.options.most_fields)
        if not version.group.is_full(self.options):
            return []
        points = version.group.points(component.known(window.version))
        version.group = Group()
        found = self._against_incumbent(component, version, window, points, partition)
        for (name, statistic), point in points.items():
            watch = self._watch(component, window.version, name, statistic)
            change = watch.add(point) if watch is not None else None
            if change is not None:
                found.append(self._event(component, window, name, statistic, change, partition))
        return found

    def _version(self, component: Component, name: str) -> VersionState:
        found = component.versions.get(name)
        if found is None:
            if len(component.versions) >= self.options.most_versions:
                oldest = min(component.versions, key=lambda version: component.versions[version].taken_ms)
                del component.versions[oldest]
                component.watches = {key: watch for key, watch in component.watches.items() if key[0] != oldest}
            found = component.versions[name] = VersionState()
        return found

    def _watch(self, component: Component, version: str, name: str, statistic: str) -> Watch | None:
        key = (version, name, statistic)
        found = component.watches.get(key)
        if found is None and len(component.watches) < self.options.most_fields * 4:
            found = component.watches[key] = Watch(effect_of(name, statistic), self.options.delta)
        return found

    def _against_incumbent(self, component: Component, version: VersionState, window: MetricWindow,
                           points: dict[Statistic, Point], partition: int) -> list[DriftEvent]:
        """A version without a reference of its own yet, that fails or doubts more than the one beside it."""
        found = []
        for (name, statistic), point in points.items():
            least = COMPARED.get(name)
            own = component.watches.get((window.version, name, statistic))
            if least is None or name in version.blamed or (own is not None and own.ready):
                continue
            incumbent = self._incumbent(component, window.version, name, statistic)
            if incumbent is None:
                continue
            before = incumbent.state.reference.mean
            worse = (before - point.mean if name == CONFIDENCE else point.mean - before) >= least
            version.worse[name] = version.worse.get(name, 0) + 1 if worse else 0
            if version.worse[name] >= COMPARED_POINTS:
                version.blamed.append(name)
                change = Change("drifted", before, point.mean, incumbent.state.reference.variance ** 0.5,
                                point.start_ms, point.end_ms, COMPARED_POINTS, "incumbent", abs(point.mean - before))
                found.append(self._event(component, window, name, statistic, change, partition))
        return found

    def _incumbent(self, component: Component, version: str, name: str, statistic: str) -> Watch | None:
        """The ready watch of another version with the largest reference."""
        others = [watch for (owner, field, stat), watch in component.watches.items()
                  if owner != version and (field, stat) == (name, statistic) and watch.ready]
        return max(others, key=lambda watch: watch.state.reference.n, default=None)

    def _event(self, component: Component, window: MetricWindow, name: str, statistic: str, change: Change,
               partition: int) -> DriftEvent:
        moved = {version for (version, field, stat), watch in component.watches.items()
                 if (field, stat) == (name, statistic) and watch.state.drifted} | {window.version}
        return make_event(window.environment, window.model, window.version, window.component, name, statistic, change,
                          sorted(moved)[:32], effect_of(name, statistic).large, partition, self.options.delta,
                          kind_of(name))


def make_event(environment: str, model: str, version: str, component: str, name: str, statistic: str, change: Change,
               versions: list[str], large: float, partition: int, delta: float, kind: str) -> DriftEvent:
    """The message, with a deterministic id."""
    parts = (environment, model, component, version, name, statistic, change.state, change.detector,
             str(change.detected_ms), str(partition))
    severity: Severity = "critical" if change.size >= large else "warning"
    return DriftEvent.model_validate({
        "drift_id": "d-" + hashlib.blake2b(_UNIT.join(parts).encode(), digest_size=12).hexdigest(),
        "environment": environment, "model": model, "version": version, "component": component, "kind": kind,
        "state": change.state, "field": name[:128],
        "statistic": statistic, "before": change.before, "after": change.after, "scale": change.scale,
        "onset_ms": change.onset_ms, "detected_ms": change.detected_ms, "sureness": 1.0 - delta,
        "detector": change.detector, "severity": severity, "versions": versions, "windows": change.points,
        "partition": partition})
