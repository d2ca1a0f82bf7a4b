"""The pure core over late labels: the error of each version, and of each slice, against its own past.

For classes the error of a label is 0 or 1; for numbers it is the distance. Labels are gathered into groups, as windows
are. A label that is sent twice counts twice: producers that repeat must not repeat the event_id in other records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from agents.drift.engine import make_event
from agents.drift.options import EFFECTS, DriftOptions
from agents.drift.watch import Point, Watch, WatchState
from schemas.drift import DriftEvent
from schemas.telemetry import Feedback
from streams.state.keyed import Entry, KeyedStates

_UNIT = "\x1f"
LEAST_LABELS = 20
MOST_SLICES = 128
FIELD = "error"


class Slice(msgspec.Struct):
    """Labels of one version, or of one value of a segment key, since the last point."""

    watch: WatchState = msgspec.field(default_factory=WatchState)
    start_ms: int = -1
    n: int = 0
    mean: float = 0.0
    m2: float = 0.0
    numeric: bool = False


class Live:
    """A slice with its detector."""

    def __init__(self, state: Slice, delta: float) -> None:
        self.slice = state
        self.effect = EFFECTS["labels_numeric" if state.numeric else "labels"]
        self.watch = Watch(self.effect, delta, state.watch)

    def add(self, error: float, ts_ms: int) -> Point | None:
        """Take in one error; a point when the group is full."""
        group = self.slice
        if group.start_ms < 0:
            group.start_ms = ts_ms
        group.n += 1
        delta = error - group.mean
        group.mean += delta / group.n
        group.m2 += delta * (error - group.mean)
        if group.n < LEAST_LABELS:
            return None
        point = Point(group.start_ms, max(ts_ms, group.start_ms), group.n, group.mean, group.m2 / group.n)
        group.start_ms, group.n, group.mean, group.m2 = -1, 0, 0.0, 0.0
        return point

    def snapshot(self) -> Slice:
        self.slice.watch = self.watch.snapshot()
        return self.slice


Slices = dict[str, Live]


class Codec:
    """Slices as msgpack."""

    def __init__(self, delta: float) -> None:
        self.delta = delta

    def new(self, key: str) -> Slices:
        return {}

    def encode(self, key: str, state: Slices) -> bytes:
        return msgspec.msgpack.encode({name: live.snapshot() for name, live in state.items()})

    def decode(self, key: str, data: bytes) -> Slices:
        return {name: Live(found, self.delta)
                for name, found in msgspec.msgpack.decode(data, type=dict[str, Slice]).items()}


class PerformanceEngine:
    """One a worker; keys are environment, model and component."""

    def __init__(self, options: DriftOptions | None = None) -> None:
        self.options = options or DriftOptions()
        self.codec = Codec(self.options.delta)

    def run(self, labels: Sequence[tuple[int, Feedback]], states: KeyedStates[Slices], topic: str,
            partition: int) -> list[DriftEvent]:
        """Take in late labels, (offset, label) in log order; where errors moved."""
        found: list[DriftEvent] = []
        touched: dict[str, tuple[Entry[Slices], int]] = {}
        for offset, label in labels:
            entry = states.entry(_UNIT.join((label.environment, label.model, label.component)))
            if not entry.includes(topic, offset):
                found += self._label(entry.state, label, partition)
                touched[entry.key] = (entry, offset)
        for entry, offset in touched.values():
            states.touch(entry, topic, offset)
        return found

    def _label(self, slices: Slices, label: Feedback, partition: int) -> Iterator[DriftEvent]:
        both = isinstance(label.prediction, float) and isinstance(label.label, float)
        error = abs(label.prediction - label.label) if both else float(  # type: ignore[operator]
            label.prediction != label.label)
        for name, field in _names(label):
            live = slices.get(name)
            if live is None:
                if len(slices) >= MOST_SLICES:
                    continue
                live = slices[name] = Live(Slice(numeric=both), self.options.delta)
            point = live.add(error, label.predicted_at or label.ts)
            change = live.watch.add(point) if point is not None else None
            if change is not None:
                yield make_event(label.environment, label.model, label.version, label.component, field,
                                 "mean" if both else "rate", change, [label.version], live.effect.large, partition,
                                 self.options.delta, "performance")


def _names(label: Feedback) -> Iterator[tuple[str, str]]:
    """(slice, field of the event): the version, then each segment value."""
    yield f"version{_UNIT}{label.version}", FIELD
    for key, value in label.segment.items():
        yield f"segment{_UNIT}{key}{_UNIT}{value}", f"{FIELD}[{key}={value}]"[:128]
