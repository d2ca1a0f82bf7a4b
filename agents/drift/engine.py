"""The pure core over closed windows: each version against its own reference, a new one first against the incumbent's;
and the component's traffic against what is usual at the hour.

State is per (environment, model, component); versions and their statistics live inside, bounded, so that an event can
name the versions it affects. Windows of a series come in time order; repeats and amendments are passed over by start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agents.drift import grouping
from agents.drift.budget import DAY_MS, height
from agents.drift.cause import Verdict, judge
from agents.drift.component import Codec, Component, Version
from agents.drift.level import Change
from agents.drift.message import UNIT, About, make_event, rank, told_of
from agents.drift.options import CONFIDENCE, ERROR_RATE, FEATURE, MEAN, DriftOptions, Statistic, kind_of
from agents.drift.profiles import Profiles, Training
from agents.drift.traffic import FIELD as TRAFFIC
from agents.drift.watch import Watch, settle
from schemas.drift import DriftEvent
from streams.state.keyed import KeyedStates
from streams.windows import closed
from streams.windows.closed import ClosedWindow, FieldNames, Fields, ReadWindow, fields_of

__all__ = ["DriftEngine", "DriftOptions"]


class DriftEngine:
    """One a worker; the state is in the KeyedStates of each partition."""

    def __init__(self, options: DriftOptions | None = None) -> None:
        self.options = options or DriftOptions()
        self.codec = Codec(self.options)
        self._known = FieldNames()

    def warm(self) -> None:
        """Compile, or load from the cache."""
        closed.warm()
        grouping.warm()

    def run(self, windows: Sequence[tuple[int, ClosedWindow]], states: KeyedStates[Component], topic: str,
            partition: int, profiles: Profiles | None = None) -> list[DriftEvent]:
        """Take in windows, (offset, window) in log order; what moved. `profiles`: those from training, if there are
        some in the partition.
        """
        found: list[DriftEvent] = []
        for offset, window in windows:
            if window.size_ms != self.options.granularity_ms:
                continue
            entry = states.entry(UNIT.join((window.environment, window.model, window.component)))
            if not entry.includes(topic, offset):
                training = profiles.of(entry.key, window.version, offset) if profiles else None
                found.extend(self._window(entry.state, window, partition, training))
                states.touch(entry, topic, offset)
        return found

    def _window(self, component: Component, window: ClosedWindow, partition: int,
                training: Training | None = None) -> Iterator[DriftEvent]:
        version = component.version(window.version, window.start_ms)
        if window.start_ms <= version.taken_ms:
            return
        version.taken_ms = window.start_ms
        version.events += window.count
        traffic = component.traffic
        change = traffic.add(window.start_ms, window.count, self.options.budget_per_day / (1 + len(version.watches)))
        if change is not None:
            traffic.minutes.version = told_of(traffic.minutes.version, change, window.version)
            subject = (window.environment, window.model, traffic.minutes.version, window.component)
            verdict = Verdict("operational" if change.state == "drifted" else "unknown")
            yield make_event(subject, "operational", (TRAFFIC, MEAN), change, component.versions, partition,
                             self.options.delta, About(verdict))
        if version.group.is_over(window.start_ms, self.options):
            yield from self._close(component, version, window, partition)
        if training is not version.training:
            component.trained(version, training)
        version.group.begin(window.start_ms, window.size_ms, window.count, window.errors)
        version.group.add(*self._fields(window), version.watches, self.options.most_statistics)
        if version.group.is_full(self.options):
            yield from self._close(component, version, window, partition)

    def _fields(self, window: ClosedWindow) -> tuple[Fields, int, int]:
        if isinstance(window, ReadWindow):
            return window.read, window.low, window.high
        if self._known.names.full:
            self._known = FieldNames()
        return fields_of(window.fields, self._known)

    def _close(self, component: Component, version: Version, window: ClosedWindow,
               partition: int) -> Iterator[DriftEvent]:
        """The group into points, each to its watch; then what moved, told with all that is known by then."""
        group = version.group
        changes: list[tuple[Statistic, Watch, Change]] = []
        waiting: list[Watch] = []
        high = height(DAY_MS / max(1, group.end_ms - group.start_ms),
                      self.options.budget_per_day / (1 + len(version.watches)))
        component.expect(window.version, group.names, group.end_ms)
        for statistic, point in group.points(version.watches):
            watch = component.watch(window.version, statistic, point.end_ms)
            if watch is None:
                continue
            if statistic[0] in group.names or statistic[0] == ERROR_RATE:
                watch.state.occurred_ms = point.end_ms
            watch.height = high
            change = watch.add(point)
            if watch.waits is not None:
                waiting.append(watch)
            if change is not None:
                changes.append((statistic, watch, change))
        settle(waiting)
        group.clear()
        for statistic, watch, change in changes:
            subject = (window.environment, window.model, window.version, window.component)
            about = About()
            if change.state == "drifted":
                about = self._about(component, version, statistic, watch, change)
            yield make_event(subject, kind_of(statistic[0]), statistic, change, component.moved(statistic),
                             partition, self.options.delta, about)

    def _about(self, component: Component, version: Version, statistic: Statistic, watch: Watch,
               change: Change) -> About:
        watches = version.watches
        numeric = "=" in statistic[0] and (statistic[0].partition("=")[0], MEAN) in watches
        verdict = judge(kind_of(statistic[0]), statistic, change, numeric, component.broken(),
                        any(name.startswith(FEATURE) for name, _ in watches))
        if statistic[0].startswith(FEATURE):
            watch.state.cause = verdict.breakage or ""
        confidence = watches.get((CONFIDENCE, MEAN))
        expected = None
        if confidence is not None and confidence.state.reference is not None:
            before, after = confidence.state.reference.raw_mean, confidence.level
            expected = (min(1.0, max(0.0, 1.0 - before)), min(1.0, max(0.0, 1.0 - after)))
        return About(verdict, rank(watches), expected_error=expected)
