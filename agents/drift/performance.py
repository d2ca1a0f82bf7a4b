"""The pure core over late labels: the error of each version, and of each slice, against its own past.

For classes the error of a label is 0 or 1; for numbers it is the distance. Labels are gathered into points of at least
`least_labels`, and watched as the statistics of windows are; a new version starts on the incumbent's reference. A slice
is one value of a segment key, over all versions.

Where labels of classes come with the prediction's confidence, calibration is watched by version, too: whether it was
right (1 or 0) less its confidence, which is 0 on average while confidence means what it says.

Errors of classes are also read one by one, by a bank of likelihood ratios: it finds a rise sooner than points can, be
it a large one within a few labels or one too small for a point to show. Its allowance is the budget of false alarms,
per component and day of event time, in equal parts for the slices there are (alpha spending).

A record that is read again is passed over by its offset. A label that its producer sends twice, in two records, counts
twice: to know them all by event_id would take more memory than what it guards against.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from agents.drift.budget import DAY_MS, height
from agents.drift.cause import Verdict, judge
from agents.drift.cells import LARGEST
from agents.drift.detectors.likelihood import Likelihood
from agents.drift.level import Change, WatchState
from agents.drift.message import UNIT, About, make_event, rank, told_of
from agents.drift.options import DISTANCES, GAPS, LABELS, MEAN, RATE, DriftOptions, Effect, Statistic
from agents.drift.reference import Point
from agents.drift.watch import Watch
from schemas.drift import DriftEvent
from schemas.telemetry import Feedback
from streams.state.keyed import KeyedStates

FIELD, CALIBRATION_FIELD = "error", "calibration"
VERSION, SEGMENT, CALIBRATION = f"version{UNIT}", f"segment{UNIT}", f"calibration{UNIT}"
#: Versions that a point of a slice remembers.
_MOST_VERSIONS = 8
#: Characters of a segment's value in its contract.
_LONGEST = 128
#: A rise of errors that is smaller matters to nobody; and the most false alarms allowed a label, however few come.
LEAST_RISE, MOST_RATE = 0.02, 1e-3
#: How much more a segment's errors have to be off than those beside it, for a drift to be its own.
CONCENTRATED = 2.0


class Labels(msgspec.Struct, array_like=True):
    """Labels since the last point. `watched`: their errors through the lens, if there was one all along."""

    start_ms: int = 0
    end_ms: int = 0
    n: int = 0
    mean: float = 0.0
    m2: float = 0.0
    watched_n: int = 0
    watched: float = 0.0
    versions: list[str] = []

    def add(self, error: float, label: Feedback, watch: Watch) -> None:
        """Take in one error (Welford)."""
        begun = begun_ms(label)
        self.start_ms = min(self.start_ms, begun) if self.n else begun
        self.end_ms = max(self.end_ms, label.ts)
        self.n += 1
        delta = error - self.mean
        self.mean += delta / self.n
        self.m2 += delta * (error - self.mean)
        lens = watch.lens
        if lens is not None:
            self.watched_n += 1
            self.watched += max(lens.low, min(lens.high, error))
        if label.version not in self.versions and len(self.versions) < _MOST_VERSIONS:
            self.versions.append(label.version)

    def point(self) -> Point:
        watched = self.watched / self.n if self.watched_n == self.n else math.nan
        return Point(self.start_ms, self.end_ms, 1, self.n, self.mean, self.m2 / self.n, watched=watched)


def begun_ms(label: Feedback) -> int:
    """When the prediction was made, as far as is known."""
    return label.ts if label.predicted_at is None else min(label.predicted_at, label.ts)


class SliceState(msgspec.Struct, array_like=True):
    """A slice as written."""

    numeric: bool
    seen_ms: int
    events: int
    labels: Labels
    watch: WatchState
    bank: bytes = b""
    since_ms: int = 0
    version: str = ""


@dataclass(slots=True, eq=False)
class Slice:
    """A version, or one value of a segment key; its last drift was told of `version`."""

    numeric: bool
    watch: Watch
    labels: Labels
    seen_ms: int = 0
    events: int = 0
    bank: Likelihood = field(default_factory=Likelihood)
    since_ms: int = 0
    version: str = ""

    def points_per_day(self, n: int) -> float:
        """Points of n labels, as they came so far."""
        return (self.events if self.numeric else self.bank.n) / n * DAY_MS / max(1_000, self.seen_ms - self.since_ms)

    def risen(self, error: float, label: Feedback, allowed_per_day: float) -> Change | None:
        """Give one error of a class to the bank; a change, if it makes a rise certain that matters.

        The bank keeps away from errors of a drift under way, and begins anew with the watch's reference.
        """
        watch, bank = self.watch, self.bank
        if watch.state.direction:
            return None
        if not bank.n or (watch.state.reference is None and not watch.state.warm):
            self.bank = bank = Likelihood()
            self.since_ms = label.ts
        elapsed = max(1_000, self.seen_ms - self.since_ms)
        bank.rate = min(MOST_RATE, allowed_per_day * elapsed / DAY_MS / max(1, bank.n))
        if not bank.update_at(error, begun_ms(label)):
            return None
        rise, change = bank.rise(), None
        if rise.after - rise.before >= LEAST_RISE:
            change = watch.risen(rise, label.ts, max(1, rise.n // 20))
        bank.calm()
        return change


Slices = dict[str, Slice]


class Codec:
    """Slices as msgpack."""

    def __init__(self, delta: float) -> None:
        self.delta = delta

    def new(self, key: str) -> Slices:
        return {}

    def encode(self, key: str, state: Slices) -> bytes:
        return msgspec.msgpack.encode({name: SliceState(one.numeric, one.seen_ms, one.events, one.labels,
                                                        one.watch.snapshot(), one.bank.encode(), one.since_ms,
                                                        one.version)
                                       for name, one in state.items()})

    def decode(self, key: str, data: bytes) -> Slices:
        """Raises ValueError if the bytes are damaged."""
        try:
            kept = msgspec.msgpack.decode(data, type=dict[str, SliceState])
        except msgspec.MsgspecError as error:
            raise ValueError(f"drift state of late labels is damaged: {error}") from None
        return {name: self._slice(name, one) for name, one in kept.items()}

    def _slice(self, name: str, kept: SliceState) -> Slice:
        bank = Likelihood()
        if kept.bank:
            bank.restore(kept.bank)
        watch = Watch(_effect(name, kept.numeric), self.delta, kept.watch)
        return Slice(kept.numeric, watch, kept.labels, kept.seen_ms, kept.events, bank, kept.since_ms,
                     kept.version)


class PerformanceEngine:
    """One a worker; keys are environment, model and component."""

    def __init__(self, options: DriftOptions | None = None) -> None:
        self.options = options or DriftOptions()
        self.codec = Codec(self.options.delta)

    def run(self, feedback: Sequence[tuple[int, Feedback]], states: KeyedStates[Slices], topic: str,
            partition: int) -> list[DriftEvent]:
        """Take in late labels, (offset, label) in log order; where errors moved."""
        found: list[DriftEvent] = []
        for offset, label in feedback:
            entry = states.entry(UNIT.join((label.environment, label.model, label.component)))
            if not entry.includes(topic, offset):
                found.extend(self._label(entry.state, label, partition))
                states.touch(entry, topic, offset)
        return found

    def _label(self, slices: Slices, label: Feedback, partition: int) -> Iterator[DriftEvent]:
        for name, told, error, numeric in _measures(label):
            found = slices.get(name)
            if found is None:
                found = slices[name] = self._new_slice(slices, name, numeric)
                found.since_ms = label.ts
            if found.numeric != numeric:
                continue
            found.seen_ms = max(found.seen_ms, label.ts)
            found.events += 1
            found.labels.add(error, label, found.watch)
            versions = found.labels.versions
            change = None if numeric else found.risen(error, label, self.options.budget_per_day / len(slices))
            if change is None and found.labels.n >= self.options.least_labels:
                labels, found.labels = found.labels, Labels()
                found.watch.height = height(found.points_per_day(labels.n), self.options.budget_per_day / len(slices))
                change = found.watch.add(labels.point())
            if change is not None:
                found.version = told_of(found.version, change, label.version)
                yield self._event(slices, label, found.version, (told, MEAN if numeric else RATE), change, versions,
                                  partition)

    def _event(self, slices: Slices, label: Feedback, version: str, statistic: Statistic, change: Change,
               versions: list[str], partition: int) -> DriftEvent:
        subject = (label.environment, label.model, version, label.component)
        about = About()
        if change.state == "drifted":
            verdict = Verdict("new_version") if _is_on_trial(slices) else judge("performance", statistic, change)
            about = About(verdict, rank(_watches(slices)), _segment(slices))
        return make_event(subject, "performance", statistic, change, versions, partition, self.options.delta, about)

    def _new_slice(self, slices: Slices, name: str, numeric: bool) -> Slice:
        """Room is made by forgetting the value of that key that is longest unseen, or the slice."""
        family = name[:name.rindex(UNIT) + 1]
        _make_room(slices, [known for known in slices if known.startswith(family)], self.options.most_values)
        _make_room(slices, list(slices), self.options.most_slices)
        effect, delta = _effect(name, numeric), self.options.delta
        incumbent = _incumbent(slices, family, numeric) if family in (VERSION, CALIBRATION) else None
        watch = Watch(effect, delta)
        if incumbent is not None and incumbent.state.reference is not None:
            watch = Watch.on(effect, delta, incumbent.state.reference, inherited=True)
        return Slice(numeric, watch, Labels())


def _watches(slices: Slices) -> dict[Statistic, Watch]:
    """All watches, by the field that an event would name."""
    found = {}
    for name, one in slices.items():
        key, _, value = name.removeprefix(SEGMENT).partition(UNIT)
        of = CALIBRATION_FIELD if name.startswith(CALIBRATION) else FIELD
        field = f"{of}[{key}={value}]" if name.startswith(SEGMENT) else f"{of}[version={value}]"
        found[field, MEAN if one.numeric else RATE] = one.watch
    return found


def _is_on_trial(slices: Slices) -> bool:
    """True while a new version does worse than the incumbent did: then it is what slices over all versions show."""
    return any(one.watch.state.inherited and one.watch.weight > 0.0 for one in slices.values())


def _segment(slices: Slices) -> dict[str, str]:
    """The value of each segment key where errors are off while those of the key's other values are not.

    A value holds a change if it is off by at least `CONCENTRATED` times as much as any other of its key.
    """
    weights: dict[str, list[tuple[float, str]]] = {}
    for name, one in slices.items():
        if name.startswith(SEGMENT):
            key, _, value = name.removeprefix(SEGMENT).partition(UNIT)
            if key and len(value) <= _LONGEST:      # else the key itself has the separator in it
                weights.setdefault(key, []).append((one.watch.weight, value))
    found = {}
    for key, known in weights.items():
        (most, value), others = max(known), sorted(known)[:-1]
        if others and most > 0.0 and most >= CONCENTRATED * others[-1][0]:
            found[key] = value
    return found


def _make_room(slices: Slices, candidates: list[str], most: int) -> None:
    if len(candidates) >= most:
        del slices[min(candidates, key=lambda name: slices[name].seen_ms)]


def _incumbent(slices: Slices, family: str, numeric: bool) -> Watch | None:
    """The watch of the version with the most labels."""
    others = [(one.events, name) for name, one in slices.items()
              if name.startswith(family) and one.numeric == numeric and one.watch.ready]
    return slices[max(others)[1]].watch if others else None


def _effect(name: str, numeric: bool) -> Effect:
    return GAPS if name.startswith(CALIBRATION) else DISTANCES if numeric else LABELS


def _error(label: Feedback) -> tuple[float, bool]:
    """How wrong a prediction was, and whether that is a distance between numbers."""
    predicted, true = label.prediction, label.label
    if isinstance(predicted, float) and isinstance(true, float):
        return min(LARGEST, abs(predicted - true)), True
    return float(predicted != true), False


def _measures(label: Feedback) -> Iterator[tuple[str, str, float, bool]]:
    """(slice, field of the event, value, whether it is a number): the version, each segment value, calibration."""
    error, numeric = _error(label)
    yield f"{VERSION}{label.version}", FIELD, error, numeric
    for key, value in label.segment.items():
        yield f"{SEGMENT}{key}{UNIT}{value}", f"{FIELD}[{key}={value}]", error, numeric
    if label.confidence is not None and not numeric:
        yield f"{CALIBRATION}{label.version}", CALIBRATION_FIELD, 1.0 - error - label.confidence, True
