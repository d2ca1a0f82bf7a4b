r"""One statistic watched against a frozen reference.

Windows are grouped into points of at least `least_events` events, so that a point's mean has a known standard error:
z = (point - reference) / se, with se^2 = v / n + v / N, v the larger of the raw variance and what the points of the
warm-up scattered with. Two detectors read z:

- `page_hinkley`: S+ = max(0, S+ + z - K), S- likewise; alarm above H (Page, Biometrika 41, 1954). For independent
  normal points the mean time between false alarms is about exp(2 K H) / (2 K^2) points: 10^10 for K = 1, H = 12.
- `adwin`: River's ADWIN (Bifet, Gavalda, SDM 2007) over 1/2 + z/20 in [0, 1].

An alarm counts only with a least effect, and over at least three points: many windows make anything significant.

Invariants: the same points give the same events, however they came in batches. Units: the statistic's own.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import msgspec
from river.drift import ADWIN

WARM_UP_POINTS = 15
K, H = 1.0, 12.0
#: A single point counts for no more than this many standard errors.
Z_MOST = 8.0
LEAST_POINTS = 3
#: Points that must lie near the reference again before a drift is over, and how near: share of the least effect.
RECOVERY_POINTS, RECOVERY_SHARE = 3, 0.5
#: A level that holds for so many points and so long becomes the reference.
ADOPT_POINTS, ADOPT_MS = 200, 30 * 60_000
#: ADWIN's memory; cut back to half when full, so that it can be made again from a snapshot.
ADWIN_POINTS = 200

Measure = Literal["sd", "share", "ratio"]


class Point(NamedTuple):
    """A statistic over one group of windows. `variance` is of single events."""

    start_ms: int
    end_ms: int
    n: int
    mean: float
    variance: float


class Effect(NamedTuple):
    """What counts as a change: `least` in standard deviations, absolute share, or ratio; severity at `large`."""

    measure: Measure
    least: float
    large: float


class Change(NamedTuple):
    """A drift that begins or ends."""

    state: Literal["drifted", "recovered"]
    before: float
    after: float
    scale: float
    onset_ms: int
    detected_ms: int
    points: int
    detector: str
    size: float


class Reference(msgspec.Struct):
    """Events of the warm-up, merged; `scatter` is the variance of single events that its points would imply."""

    points: list[tuple[int, float, float]] = []
    n: int = 0
    mean: float = 0.0
    variance: float = 0.0


class WatchState(msgspec.Struct):
    """All that a watch remembers."""

    reference: Reference = msgspec.field(default_factory=Reference)
    up: float = 0.0
    down: float = 0.0
    run: list[tuple[int, int, float]] = []      # (start, n, mean) of the excursion, or of the drift
    drifted: bool = False
    near: int = 0
    onset_ms: int = 0
    seen: int = 0
    history: bytes = b""                        # float32 of what ADWIN has seen


@dataclass(slots=True, eq=False)
class Watch:
    """A statistic's detector; `add` points in time order."""

    effect: Effect
    delta: float
    state: WatchState = field(default_factory=WatchState)
    _adwin: ADWIN | None = None
    _history: array[float] = field(default_factory=lambda: array("f"))

    def __post_init__(self) -> None:
        self._history = array("f", self.state.history)
        self._adwin = _adwin(self.delta, self._history)

    @property
    def ready(self) -> bool:
        """True once the reference is frozen."""
        return len(self.state.reference.points) == WARM_UP_POINTS

    def snapshot(self) -> WatchState:
        """The state, for a codec."""
        self.state.history = self._history.tobytes()
        return self.state

    def add(self, point: Point) -> Change | None:
        """Take in a point; a change, if this one makes it certain."""
        if not self.ready:
            self._warm(point)
            return None
        return self._while_drifted(point) if self.state.drifted else self._while_stable(point)

    def distance(self, mean: float) -> float:
        """How far a level is from the reference, in the units of `effect.least`."""
        before = self.state.reference.mean
        match self.effect.measure:
            case "sd":
                spread = math.sqrt(self.state.reference.variance)
                return abs(mean - before) / spread if spread > 0 else (math.inf if mean != before else 0.0)
            case "ratio":
                low, high = sorted((max(before, 1e-9), max(mean, 1e-9)))
                return high / low
            case _:
                return abs(mean - before)

    def _warm(self, point: Point) -> None:
        reference = self.state.reference
        reference.points.append((point.n, point.mean, point.variance))
        if len(reference.points) < WARM_UP_POINTS:
            return
        reference.n = sum(n for n, _, _ in reference.points)
        reference.mean = math.fsum(n * mean for n, mean, _ in reference.points) / reference.n
        within = math.fsum(n * variance for n, _, variance in reference.points) / reference.n
        scatter = math.fsum(n * (mean - reference.mean) ** 2 for n, mean, _ in reference.points)
        reference.variance = max(within, scatter / (WARM_UP_POINTS - 1))

    def _z(self, point: Point) -> float:
        reference = self.state.reference
        variance = reference.variance
        if self.effect.measure == "share":
            variance = max(variance, 1.0 / reference.n)      # a share of 0 or 1 was never exactly that
        if self.effect.measure == "ratio":
            variance = max(variance, (0.1 * reference.mean) ** 2)
        error = math.sqrt(variance / point.n + variance / reference.n)
        if error == 0.0:
            return 0.0 if point.mean == reference.mean else math.copysign(Z_MOST, point.mean - reference.mean)
        return max(-Z_MOST, min(Z_MOST, (point.mean - reference.mean) / error))

    def _while_stable(self, point: Point) -> Change | None:
        state, z = self.state, self._z(point)
        state.up, state.down = max(0.0, state.up + z - K), max(0.0, state.down - z - K)
        if state.up == 0.0 and state.down == 0.0:
            state.run = []
        else:
            state.run = [*state.run[-63:], (point.start_ms, point.n, point.mean)]
        detector = "page_hinkley" if max(state.up, state.down) > H else ""
        if self._feed(z) and not detector:
            detector = "adwin"
        level = _level(state.run)
        enough = len(state.run) >= LEAST_POINTS and self.distance(level) >= self.effect.least
        if not detector or not enough:
            return None
        state.drifted, state.near, state.onset_ms, state.seen = True, 0, state.run[0][0], len(state.run)
        return self._change("drifted", level, point, detector)

    def _while_drifted(self, point: Point) -> Change | None:
        state = self.state
        state.seen += 1
        state.run = [*state.run[-63:], (point.start_ms, point.n, point.mean)]
        state.near = state.near + 1 if self._is_near(point) else 0
        if state.near >= RECOVERY_POINTS:
            change = self._change("recovered", _level(state.run[-RECOVERY_POINTS:]), point, "page_hinkley")
            self._calm()
            return change
        if state.seen >= ADOPT_POINTS and point.end_ms - state.onset_ms >= ADOPT_MS:
            self._calm()
            state.reference = Reference()
        return None

    def _is_near(self, point: Point) -> bool:
        distance, least = self.distance(point.mean), self.effect.least
        if self.effect.measure == "ratio":
            return distance <= 1 + (least - 1) * RECOVERY_SHARE
        return distance <= least * RECOVERY_SHARE or abs(self._z(point)) < 2.0

    def _calm(self) -> None:
        state = self.state
        state.drifted, state.up, state.down, state.run, state.near, state.seen = False, 0.0, 0.0, [], 0, 0
        self._history = array("f")
        self._adwin = _adwin(self.delta, self._history)

    def _change(self, kind: Literal["drifted", "recovered"], after: float, point: Point, detector: str) -> Change:
        reference = self.state.reference
        return Change(kind, reference.mean, after, math.sqrt(reference.variance), self.state.onset_ms, point.end_ms,
                      len(self.state.run), detector, self.distance(after))

    def _feed(self, z: float) -> bool:
        """Give ADWIN a point; True if it sees a change."""
        self._history.append(0.5 + z / 20)
        if len(self._history) > ADWIN_POINTS:
            self._history = self._history[-ADWIN_POINTS // 2:]
            self._adwin = _adwin(self.delta, self._history)
            return False
        assert self._adwin is not None
        self._adwin.update(self._history[-1])
        return bool(self._adwin.drift_detected)


def _adwin(delta: float, history: array[float]) -> ADWIN:
    detector = ADWIN(delta=delta, clock=1)
    for value in history:
        detector.update(value)
    return detector


def _level(run: list[tuple[int, int, float]]) -> float:
    """The mean over the events of some points."""
    total = sum(n for _, n, _ in run)
    return math.fsum(n * mean for _, n, mean in run) / total if total else 0.0
