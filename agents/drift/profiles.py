"""A version's profile from training (`schemas.profiles`) as the references that its statistics begin on.

A profile may come at any time, on another topic than the windows; what it changes must not hang on which of the two is
read first. So the offset of `metrics` from which on it counts is chosen once, written with it, and only then do windows
go on (`agent`): after a crash the same windows meet the same profile.

State is per (environment, model, component): the latest profile of a version and the one before it. It is written as
bytes and read where a statistic is seen for the first time. Distributions become 48 buckets, as references have them;
of quantiles and histograms the distribution function is taken to go straight between what is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import NamedTuple

import msgspec
import numpy as np

from agents.drift.cells import LARGEST
from agents.drift.distance import FloatArray, coarse
from agents.drift.level import NO_PAIRS, kept
from agents.drift.message import UNIT
from agents.drift.options import (
    CONFIDENCE,
    FEATURE,
    MEAN,
    MISSING,
    PREDICTION,
    RATE,
    Statistic,
    effect_of,
)
from agents.drift.reference import MOST_POINTS, Reference, Warm, learn, never
from agents.drift.watch import MOST_BUCKETS
from schemas.alerts import LifecycleEvent
from schemas.profiles import FieldProfile, Histogram, Profile
from streams.state.keyed import KeyedStates
from streams.windows.sketch import bucket, bucket_value

#: Values that stand for a distribution of which only some points are known.
STANDING = 400
#: A class with a smaller share is not waited for: its going would be no change that counts.
LEAST_EXPECTED = 0.05
#: What is kept, so that a row stays far below what the broker takes: statistics of a profile, classes of a field, and
#: versions of a component.
MOST_STATISTICS, MOST_CLASSES, MOST_VERSIONS = 1_024, 32, 8


class Known(msgspec.Struct, array_like=True, frozen=True):
    """A statistic at training."""

    reference: Reference
    sketch: msgspec.Raw = NO_PAIRS


class Body(msgspec.Struct, array_like=True, frozen=True):
    """What is read of a profile when it is needed: statistics by field and name, and rows with a value by field."""

    known: dict[str, Known]
    present: dict[str, int]

    def find(self, statistic: Statistic) -> Known | None:
        """What it was at training; of a class that was not there, that it never was. None if nothing is known."""
        found = self.known.get(UNIT.join(statistic))
        base = statistic[0].partition("=")[0]
        if found is None and "=" in statistic[0] and base in self.present:
            return Known(never(self.present[base]))
        return found

    def classes(self) -> dict[str, list[Statistic]]:
        """The classes that are to be expected, by field."""
        found: dict[str, list[Statistic]] = {}
        for key, known in self.known.items():
            name, _, statistic = key.rpartition(UNIT)
            base, is_class, _ = name.partition("=")
            if is_class and base in self.present and known.reference.mean >= LEAST_EXPECTED:
                found.setdefault(base, []).append((name, statistic))
        return found


class Training(msgspec.Struct, array_like=True, frozen=True, dict=True):
    """A version's profile as it is kept. It counts from the window at `from_offset` on."""

    id: str
    ts: int
    from_offset: int
    data: bytes

    def find(self, statistic: Statistic) -> Known | None:
        """As `Body.find`."""
        return _body(self.data).find(statistic)

    @cached_property
    def classes(self) -> dict[str, list[Statistic]]:
        """As `Body.classes`."""
        return _body(self.data).classes()


#: Version -> its profiles, the last one last. The one before counts for windows that are read again after a crash.
Trainings = dict[str, list[Training]]
_KEPT = 2


class Codec:
    """Profiles of a component as msgpack."""

    def new(self, key: str) -> Trainings:
        return {}

    def encode(self, key: str, state: Trainings) -> bytes:
        return msgspec.msgpack.encode(state)

    def decode(self, key: str, data: bytes) -> Trainings:
        """Raises ValueError if the bytes are damaged."""
        try:
            return msgspec.msgpack.decode(data, type=Trainings)
        except msgspec.MsgspecError as error:
            raise ValueError(f"profiles of training are damaged: {error}") from None


class Profiles:
    """The profiles of one partition."""

    def __init__(self, states: KeyedStates[Trainings]) -> None:
        self.states = states

    def new(self, events: Sequence[tuple[int, LifecycleEvent]], topic: str) -> list[tuple[int, LifecycleEvent]]:
        """Those that bring a profile, and are not in the state yet."""
        return [(offset, event) for offset, event in events if event.profile is not None
                and not (_key(event) in self.states and self.states.entry(_key(event)).includes(topic, offset))]

    def take(self, events: Sequence[tuple[int, LifecycleEvent]], topic: str, from_offset: int) -> int:
        """Keep profiles, which count from an offset of `metrics` on; how many were not known. An older one is no news.
        """
        taken = 0
        for offset, event in events:
            entry = self.states.entry(_key(event))
            known = entry.state.get(event.version, [])
            newest = (known[-1].ts, known[-1].id) if known else (-1, "")
            if event.profile is not None and (event.ts, event.lifecycle_id) > newest:
                new = Training(event.lifecycle_id, event.ts, from_offset, msgspec.msgpack.encode(
                    body_of(event.profile)))
                entry.state[event.version] = [*known[1 - _KEPT:], new]
                taken += 1
                while len(entry.state) > MOST_VERSIONS:
                    del entry.state[min(entry.state, key=lambda name: (entry.state[name][-1].ts, name))]
            self.states.touch(entry, topic, offset)
        return taken

    def of(self, component: str, version: str, offset: int) -> Training | None:
        """What counts for a version of a component (ENVIRONMENT, MODEL and COMPONENT, by `UNIT`) at a window."""
        if component not in self.states:
            return None
        known = self.states.entry(component).state.get(version, ())
        return next((one for one in reversed(known) if offset >= one.from_offset), None)

    def __bool__(self) -> bool:
        return bool(self.states.live or self.states.snapshots)


@lru_cache(maxsize=64)
def _body(data: bytes) -> Body:
    return msgspec.msgpack.decode(data, type=Body)


def _key(event: LifecycleEvent) -> str:
    return UNIT.join((event.environment, event.model, event.component))


# -- a profile's fields as references -----------------------------------------------------------------


def body_of(profile: Profile) -> Body:
    """The references of what a profile speaks of: at most `MOST_STATISTICS`, fields that would be too many left out."""
    fields = {FEATURE + name: field for name, field in profile.features.items()}
    fields |= {name: field for name, field in ((PREDICTION, profile.prediction), (CONFIDENCE, profile.confidence))
               if field is not None}
    known: dict[str, Known] = {}
    present: dict[str, int] = {}
    for name, field in fields.items():
        n = max(1, round(profile.rows * (1.0 - field.missing_share)))
        found = _of_field(name, field, profile.rows, n)
        if len(known) + len(found) <= MOST_STATISTICS:
            known |= {UNIT.join(statistic): one for statistic, one in found.items()}
            if field.classes:
                present[name] = n
    return Body(known, present)


def _of_field(name: str, field: FieldProfile, rows: int, n: int) -> dict[Statistic, Known]:
    """The statistics of a field of which n rows have a value; of classes the most frequent."""
    found: dict[Statistic, Known] = {}
    if name.startswith(FEATURE):
        found[name, MISSING] = _share((name, MISSING), field.missing_share, rows)
    if field.classes:
        total = math.fsum(field.classes.values())
        most = sorted(field.classes.items(), key=lambda item: (-item[1], item[0]))[:MOST_CLASSES]
        found |= {(f"{name}={value}", RATE): _share((f"{name}={value}", RATE), weight / total, n)
                  for value, weight in most}
    elif field.is_distributed or field.mean is not None:
        found[name, MEAN] = _numbers((name, MEAN), field, n)
    return found


def _share(statistic: Statistic, share: float, n: int) -> Known:
    warm = Warm(n, share, share * (1.0 - share), math.nan, math.nan, share)
    return Known(_frozen(learn([warm], effect_of(statistic))))


def _numbers(statistic: Statistic, field: FieldProfile, n: int) -> Known:
    """A field of numbers. Moments are of its values, not of their buckets, which may be wider than its spread."""
    values, weights = _standing(field)
    mean, sd = field.mean, field.sd
    log_mean = log_variance = math.nan
    if mean is None or sd is None:
        mean, variance = _moments(values, weights)
        sd = math.sqrt(variance)
    if len(values) and (values > 0.0).all():
        log_mean, log_variance = _moments(np.log(values), weights)
    warm = Warm(n, held(mean), held(sd) ** 2, log_mean, log_variance, held(mean))
    sketch = field.sketch or _sketch(values, n)
    return Known(_frozen(learn([warm], effect_of(statistic))), kept(coarse(sketch, MOST_BUCKETS)))


def _frozen(reference: Reference) -> Reference:
    return msgspec.structs.replace(reference, points=MOST_POINTS)


def held(value: float) -> float:
    return max(-LARGEST, min(LARGEST, value))


def _moments(values: FloatArray, weights: FloatArray) -> tuple[float, float]:
    mean = float(np.average(values, weights=weights))
    return mean, float(np.average((values - mean) ** 2, weights=weights))


class _Curve(NamedTuple):
    """Points of a distribution function, between which it goes straight."""

    values: list[float]
    shares: list[float]


def _standing(field: FieldProfile) -> tuple[FloatArray, FloatArray]:
    """Values that stand for a field's distribution, ascending, and their weights; none if it says nothing of it."""
    if field.sketch:
        return (np.array([held(bucket_value(code)) for code, _ in field.sketch]),
                np.array([count for _, count in field.sketch], np.float64))
    curve = _of_histogram(field.histogram) if field.histogram else _of_quantiles(field.quantiles)
    if not curve.values:
        return np.empty(0), np.empty(0)
    middles = (np.arange(STANDING) + 0.5) / STANDING
    return np.interp(middles, curve.shares, [held(value) for value in curve.values]), np.ones(STANDING)


def _sketch(values: FloatArray, n: int) -> list[tuple[int, int]]:
    """n values, as likely as each of these, in the buckets of a window's sketch."""
    counts: dict[int, int] = {}
    for at, value in enumerate(values.tolist()):
        code = int(bucket(value))
        counts[code] = counts.get(code, 0) + n * (at + 1) // len(values) - n * at // len(values)
    return sorted((code, count) for code, count in counts.items() if count)


def _of_histogram(found: Histogram) -> _Curve:
    total = math.fsum(found.counts)
    return _Curve(list(found.edges), [0.0, *(sum_ / total for sum_ in accumulate(found.counts))])


def _of_quantiles(found: list[tuple[float, float]]) -> _Curve:
    return _Curve([value for _, value in found], [share for share, _ in found])
