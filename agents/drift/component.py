"""The state of one component of a model: its versions, the statistics watched in each, its traffic. Bounded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

import msgspec

from agents.drift.cause import Verdict
from agents.drift.grouping import Group, GroupState
from agents.drift.level import WatchState
from agents.drift.options import ERROR_RATE, PREDICTION, RATE, DriftOptions, Statistic, effect_of
from agents.drift.profiles import Training
from agents.drift.reference import never
from agents.drift.traffic import Minutes, Traffic
from agents.drift.watch import Watch
from schemas.drift import Breakage

#: A version without events for so long is no incumbent while another has some; a statistic may make room for another.
ACTIVE_MS = 600_000


class VersionState(msgspec.Struct, array_like=True):
    """A version as written; watches as (field, statistic, state), in the order in which they came up."""

    taken_ms: int = -1
    events: int = 0
    group: GroupState = msgspec.field(default_factory=GroupState)
    watches: list[tuple[str, str, WatchState]] = []
    profiled: str = ""


@dataclass(slots=True, eq=False)
class Version:
    """A version that is live. `taken_ms`: start of the last window taken in. `profiled`: the id of the profile from
    training that its statistics were turned to.
    """

    taken_ms: int = -1
    events: int = 0
    group: Group = field(default_factory=Group)
    watches: dict[Statistic, Watch] = field(default_factory=dict)
    profiled: str = ""
    training: Training | None = None


class ComponentState(msgspec.Struct, array_like=True):
    """A component as written."""

    versions: dict[str, VersionState] = {}
    traffic: Minutes = msgspec.field(default_factory=Minutes)


class Component:
    """Versions by name, least recently seen evicted; and so are a version's statistics."""

    def __init__(self, options: DriftOptions) -> None:
        self.options = options
        self.versions: dict[str, Version] = {}
        self.traffic = Traffic(options.delta)

    def version(self, name: str, now_ms: int) -> Version:
        """A version; a new one is expected to predict what the incumbent predicts, even if it never does."""
        found = self.versions.get(name)
        if found is None:
            if len(self.versions) >= self.options.most_versions:
                del self.versions[min(self.versions, key=lambda known: self.versions[known].taken_ms)]
            found = self.versions[name] = Version()
            for statistic in {key: None for version in self.versions.values() for key in version.watches}:
                if statistic[0].startswith(f"{PREDICTION}=") and self._incumbent(name, statistic, now_ms) is not None:
                    self.watch(name, statistic, now_ms)
        return found

    def trained(self, version: Version, training: Training | None) -> None:
        """Measure a version against this profile from now on. Between two groups: it changes how values are read."""
        same = training is not None and version.profiled == training.id
        if training is None or same or version.group.windows:
            version.training = training if same else None
            return
        version.training, version.profiled = training, training.id
        for statistic, watch in version.watches.items():
            known = training.find(statistic)
            if known is not None:
                version.watches[statistic] = watch.turn_to(known.reference, known.sketch, training.id)

    def expect(self, name: str, fields: Iterable[str], now_ms: int) -> None:
        """Watch the classes that fields had at training, even if they never come."""
        training = self.versions[name].training
        if training is not None:
            for base in dict.fromkeys(field.partition("=")[0] for field in fields if "=" in field):
                for statistic in training.classes.get(base, ()):
                    self.watch(name, statistic, now_ms)

    def watch(self, name: str, statistic: Statistic, now_ms: int) -> Watch | None:
        """The watch of a version's statistic; None if there is no room for another."""
        version = self.versions[name]
        found = version.watches.get(statistic)
        if found is None:
            if "=" in statistic[0] and self._has_all_categories(version, statistic):
                return None
            if len(version.watches) >= self.options.most_statistics and not _evict(version, now_ms):
                return None
            found = version.watches[statistic] = self._new_watch(name, statistic, now_ms)
            found.state.occurred_ms = now_ms
        return found

    def moved(self, statistic: Statistic) -> list[str]:
        """Versions in which a statistic is drifted now."""
        return [name for name, version in self.versions.items()
                if (watch := version.watches.get(statistic)) is not None and watch.state.direction]

    def broken(self) -> list[Verdict]:
        """Features that are broken now, in any version; those that broke first come first."""
        found = [(watch.state.since_ms, name, watch.state.cause) for version in self.versions.values()
                 for (name, _), watch in version.watches.items() if watch.state.direction and watch.state.cause]
        return [Verdict("data_quality", cast(Breakage, cause), name.partition("=")[0])
                for _, name, cause in sorted(found)]

    def _has_all_categories(self, version: Version, statistic: Statistic) -> bool:
        base = statistic[0].partition("=")[0] + "="
        return sum(name.startswith(base) for name, _ in version.watches) >= self.options.most_categories

    def _new_watch(self, name: str, statistic: Statistic, now_ms: int) -> Watch:
        """On what training knows, else on the incumbent's reference; a category that comes up late, on not being there.
        """
        effect, delta = effect_of(statistic), self.options.delta
        training = self.versions[name].training
        known = training.find(statistic) if training is not None else None
        if training is not None and known is not None:
            return Watch.on(effect, delta, known.reference, True, known.sketch, training.id)
        incumbent = self._incumbent(name, statistic, now_ms)
        if incumbent is not None and incumbent.state.reference is not None:
            return Watch.on(effect, delta, incumbent.state.reference, True, incumbent.state.sketch)
        errors = self.versions[name].watches.get((ERROR_RATE, RATE))
        if "=" in statistic[0] and errors is not None and errors.ready and errors.state.reference is not None:
            return Watch.on(effect, delta, never(errors.state.reference.n), inherited=False)
        return Watch(effect, delta)

    def _incumbent(self, name: str, statistic: Statistic, now_ms: int) -> Watch | None:
        """The watch of the version with the most events, those of the last minutes first."""
        others = [(version.taken_ms >= now_ms - ACTIVE_MS, version.events, other, version.watches[statistic])
                  for other, version in self.versions.items()
                  if other != name and statistic in version.watches and version.watches[statistic].ready]
        return max(others, key=lambda other: other[:3])[3] if others else None


def _evict(version: Version, now_ms: int) -> bool:
    """Forget the statistic that is longest unseen, unless all are in use."""
    oldest = min(version.watches, key=lambda key: version.watches[key].state.occurred_ms)
    if version.watches[oldest].state.occurred_ms >= now_ms - ACTIVE_MS:
        return False
    del version.watches[oldest]
    return True


class Codec:
    """Components as msgpack."""

    def __init__(self, options: DriftOptions) -> None:
        self.options = options

    def new(self, key: str) -> Component:
        return Component(self.options)

    def encode(self, key: str, state: Component) -> bytes:
        return msgspec.msgpack.encode(ComponentState({
            name: VersionState(version.taken_ms, version.events, version.group.snapshot(),
                               [(*statistic, watch.snapshot()) for statistic, watch in version.watches.items()],
                               version.profiled)
            for name, version in state.versions.items()}, state.traffic.snapshot()))

    def decode(self, key: str, data: bytes) -> Component:
        """Raises ValueError if the bytes are damaged."""
        try:
            whole = msgspec.msgpack.decode(data, type=ComponentState)
        except msgspec.MsgspecError as error:
            raise ValueError(f"drift state is damaged: {error}") from None
        component = Component(self.options)
        component.traffic = Traffic(self.options.delta, whole.traffic)
        try:
            self._versions(component, whole)
        except ValueError as error:
            raise ValueError(f"drift state is damaged: {error}") from None
        return component

    def _versions(self, component: Component, whole: ComponentState) -> None:
        for name, kept in whole.versions.items():
            watches = {(field, statistic): Watch(effect_of((field, statistic)), self.options.delta, state)
                       for field, statistic, state in kept.watches}
            component.versions[name] = Version(kept.taken_ms, kept.events, Group.of(kept.group, watches), watches,
                                               kept.profiled)
