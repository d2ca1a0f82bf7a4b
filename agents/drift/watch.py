r"""One statistic against its frozen reference: warm-up, stable, drifted, and back.

z = (point - reference) / se says how far a point lies from the reference in standard errors. Two detectors read it:

- `cusum`: S = max(0, S + z - k) upwards, the mirror image downwards; alarm above H (Page, Biometrika 41, 1954). The
  allowance k is half the least effect, and at least 1: so differences that do not matter never add up. For independent
  normal points the mean time between false alarms is about exp(2 k H) / (2 k^2) points: 10^10 for k = 1, H = 12.
- `adwin`: for changes that single points are too noisy to show (`memory`).

An alarm counts only if the change has the least effect. The cusum's must also be confirmed: each of the last three
points beyond half of that effect. A drift ends by the same test run backwards, between the least effect and none, so
that a level in between does not swing the state. A new level that lasts becomes the reference without a word, as does
a lasting improvement of what can only get worse.

A level that is usual at this hour of the day, by earlier days (`season`), is no drift: the reference moves there.

A new version's statistic starts on the incumbent's reference, with larger least effects, until it has its own; these
two are compared when it has (detector `incumbent`). One that has a profile from training starts on that, and stays on
it: its own points only say how much they scatter (detector `profile` if they differ).

Invariants: the same points give the same changes, wherever snapshots were taken. Units: the statistic's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import msgspec

from agents.drift import gathered
from agents.drift.detectors.likelihood import Rise
from agents.drift.distance import coarse
from agents.drift.gathered import Buckets
from agents.drift.level import (
    INCUMBENT,
    NO_PAIRS,
    NOWHERE,
    PROFILE,
    Change,
    Onset,
    WatchState,
    interval_of,
    kept,
    level_of,
    onset_of,
    pairs,
    raw_level_of,
    step_of,
)
from agents.drift.memory import Memory, Past
from agents.drift.options import Effect
from agents.drift.reference import (
    MOST_POINTS,
    WARM_BYTES,
    WARM_UP_POINTS,
    Lens,
    Point,
    Reference,
    Warm,
    is_unsteady,
    learn,
    packed,
    unpacked,
)

K_LEAST, H = 1.0, 12.0
#: Evidence that ends a drift.
H_BACK = 8.0
#: What one point can add to, or take from, the evidence.
STEP_MOST = 7.0
CONFIRM_POINTS = 3
RUN_POINTS = 32
#: A level that holds for so many points and so long becomes the reference.
ADOPT_POINTS, ADOPT_MS = 10 * WARM_UP_POINTS, 30 * 60_000
#: How much more a new version may differ from the incumbent.
INHERITED_FACTOR = 1.5
#: A share is not rare from there on, and nearly gone when it has lost so much of itself.
NOT_RARE, NEARLY_GONE = 0.05, 0.9
#: Weight of a point in the slow mean.
SLOW = 1 / 32
#: Standard errors between a new version's own reference and the incumbent's that make it another one.
INCUMBENT_Z = 5.0
#: Evidence from which on sketches are read, to tell what it is that moves; and how many buckets of one are kept.
CLOSER, MOST_BUCKETS = 3.0, 48
#: Standard errors that a level may be off what is usual at its hour.
USUAL_Z = 3.0
#: Points that ADWIN's onset may be off.
ADWIN_UNSURE = 16
#: Times that a warm-up whose level moved is begun anew.
MOST_TRIES = 4


@dataclass(slots=True, eq=False)
class Watch:
    """A statistic's detectors; `add` points in time order."""

    effect: Effect
    delta: float
    state: WatchState = field(default_factory=WatchState)
    memory: Memory = field(init=False)
    height: float = H
    #: What the last point had, if it is to be gathered: `settle` does so for many watches at once.
    waits: Buckets | None = None

    def __post_init__(self) -> None:
        self.memory = Memory(self.delta, self.state.past)

    @classmethod
    def on(cls, effect: Effect, delta: float, reference: Reference, inherited: bool,
           sketch: msgspec.Raw = NO_PAIRS, source: str = "") -> Watch:
        """A watch that has a reference from the start; with a `source`, that of a profile from training."""
        return cls(effect, delta, WatchState(reference, inherited, slow=reference.mean, slow_raw=reference.raw_mean,
                                             sketch=sketch, source=source))

    def turn_to(self, reference: Reference, sketch: msgspec.Raw, source: str) -> Watch:
        """The watch on the reference of a profile that came late. A drift under way goes on, against this one."""
        was, turned = self.state, Watch.on(self.effect, self.delta, reference, True, sketch, source)
        state = turned.state
        state.occurred_ms, state.complete, state.usual = was.occurred_ms, was.complete, was.usual
        state.direction, state.since_ms, state.seen, state.cause = was.direction, was.since_ms, was.seen, was.cause
        if was.direction:
            state.after, state.after_raw = reference.seen(was.after_raw), was.after_raw
        return turned

    @property
    def ready(self) -> bool:
        """True once there is a reference of its own."""
        return self.state.reference is not None and not self.state.inherited

    @property
    def lens(self) -> Lens | None:
        """How to read the next values; None while nothing is known."""
        known = self.state.reference
        return None if known is None else Lens(known.log, known.low, known.high, self.state.inherited)

    @property
    def looks_closer(self) -> bool:
        """True while sketches are wanted: in a warm-up, and when a change is suspected."""
        state = self.state
        return not self.ready or (not state.direction and max(state.up, state.down) > CLOSER)

    @property
    def level(self) -> float:
        """The latest level, in the field's unit; NaN while nothing is known."""
        state = self.state
        if state.reference is None:
            return math.nan
        if state.direction:
            return state.after_raw
        return raw_level_of(state.run) if len(state.run) >= CONFIRM_POINTS else state.slow_raw

    @property
    def weight(self) -> float:
        """How far the statistic is off, in units of the least change that counts: 0 unless there is evidence."""
        state, reference = self.state, self.state.reference
        if reference is None or not (state.direction or max(state.up, state.down) > CLOSER):
            return 0.0
        by = state.after - reference.mean if state.direction else level_of(state.run or [NOWHERE]) - reference.mean
        return abs(by) / max(1e-12, self._least(reference, 1 if by > 0 else -1))

    def snapshot(self) -> WatchState:
        """The state, for a codec."""
        settle([self])
        self.state.past = self.memory.past()
        return self.state

    def add(self, point: Point) -> Change | None:
        """Take in a point; a change, if this one makes it certain."""
        state = self.state
        change = None
        if not state.direction and state.reference is not None and not math.isnan(point.watched):
            log = state.reference.log
            state.usual.add(point.start_ms, point.n, point.watched if log else point.mean, log)
        if state.reference is not None and not math.isnan(point.watched):
            change = self._while_drifted(point, state.reference) if state.direction \
                else self._while_stable(point, state.reference)
        if not self.ready and not state.direction:
            return self._warm(point) or change
        return change

    def _gather(self, point: Point) -> None:
        if self.waits is not None:
            settle([self])
        if point.sketch.high > point.sketch.low:
            self.waits = point.sketch

    def _gathered(self) -> list[tuple[int, int]]:
        settle([self])
        return gathered.pairs_of(cast(bytes, self.state.gathered))

    def _forget(self) -> None:
        self.state.gathered, self.waits = b"", None

    # -- learning -----------------------------------------------------------------------------------

    def _warm(self, point: Point) -> Change | None:
        state = self.state
        if not state.warm:
            state.warm_ms = point.start_ms
        state.warm = cast(bytes, state.warm) + packed([point])
        self._gather(point)
        if len(state.warm) < WARM_UP_POINTS * WARM_BYTES:
            return None
        points = unpacked(state.warm)
        own = learn(points, self.effect)
        if state.tries < MOST_TRIES and is_unsteady(points, own, self.effect):
            state.tries += 1
            state.warm = packed(points[WARM_UP_POINTS // 2:])
            self._forget()
            return None
        change = None if state.reference is None else self._against_incumbent(point, points, own, state.reference)
        if change is None:
            sketch = coarse(self._gathered(), MOST_BUCKETS)
            if state.source and state.reference is not None:
                self._settle(state.reference.scattered(points, self.effect.counts))
            else:
                self._settle(own)
                self.state.sketch = kept(sketch)
        return change

    def _against_incumbent(self, point: Point, points: Sequence[Warm], own: Reference,
                           reference: Reference) -> Change | None:
        """The whole warm-up of a new version, as one point."""
        known = [warm for warm in points if not math.isnan(warm.watched)]
        n = sum(warm.n for warm in known)
        level = math.fsum(warm.n * warm.watched for warm in known) / n if n else reference.mean
        direction = 1 if level > reference.mean else -1
        by = abs(level - reference.mean)
        error = math.sqrt(reference.variance / reference.n + max(reference.variance, own.variance) / max(1, n))
        if by < self._least(reference, direction) or by < INCUMBENT_Z * error or (direction < 0 and self.effect.worse):
            return None
        since = self.state.warm_ms
        return self._drift(point, reference, direction, level, own.raw_mean,
                           Onset(since, since, since + point.end_ms - point.start_ms, len(known), n),
                           PROFILE if self.state.source else INCUMBENT)

    def _settle(self, reference: Reference | None) -> None:
        """Begin on a reference, or to learn one."""
        was = self.state
        self.memory, self.waits = Memory(self.delta, Past()), None
        self.state = WatchState(reference, occurred_ms=was.occurred_ms, complete=was.complete, usual=was.usual)
        if reference is not None:
            self.state.sketch, self.state.source = was.sketch, was.source
            self.state.slow, self.state.slow_raw = reference.mean, reference.raw_mean

    # -- stable -------------------------------------------------------------------------------------

    def _least(self, reference: Reference, direction: int) -> float:
        """The least change that counts, upwards (1) or downwards (-1)."""
        least = reference.unit(self.effect, self.effect.least) * (INHERITED_FACTOR if self.state.inherited else 1.0)
        if self.effect.vanishes and direction < 0:
            return min(least, max(NOT_RARE, NEARLY_GONE * reference.mean))
        return least

    def _while_stable(self, point: Point, reference: Reference) -> Change | None:
        state, error = self.state, reference.error(point.n)
        z = (point.watched - reference.mean) / error
        up, down = (max(K_LEAST, self._least(reference, direction) / 2 / error) for direction in (1, -1))
        if self.effect.counts:
            state.up = _sum(state.up, reference.step(point.n, point.watched, up, 1))
            state.down = _sum(state.down, reference.step(point.n, point.watched, down, -1))
        else:
            state.up, state.down = _sum(state.up, z - up), _sum(state.down, -z - down)
        state.slow += SLOW * (point.watched - state.slow)
        state.slow_raw += SLOW * (point.mean - state.slow_raw)
        state.moved = self.memory.add(z, point.start_ms) or state.moved
        if state.up > 0.0 or (state.down > 0.0 and not self.effect.worse):
            state.run = [*state.run[1 - RUN_POINTS:], step_of(point)]
            if self.ready:
                self._gather(point)
        else:
            state.run = []
            if self.ready:
                self._forget()
        if self.effect.worse and self._is_lasting_improvement(point):
            self._settle(None)
            return None
        if self.ready and reference.points < MOST_POINTS and max(state.up, state.down) < self.height / 2:
            state.reference = reference.refined(point)
        return self._by_cusum(point, reference) or self._by_adwin(point, reference)

    def _is_lasting_improvement(self, point: Point) -> bool:
        state = self.state
        if state.down == 0.0:
            state.seen = 0
            return False
        if state.seen == 0:
            state.since_ms = point.start_ms
        state.seen += 1
        return state.down > self.height and state.seen >= ADOPT_POINTS and point.end_ms - state.since_ms >= ADOPT_MS

    def _by_cusum(self, point: Point, reference: Reference) -> Change | None:
        state = self.state
        direction = 1 if state.up > self.height else -1 if state.down > self.height and not self.effect.worse else 0
        if not direction or len(state.run) < CONFIRM_POINTS:
            return None
        least = self._least(reference, direction)
        moved = [direction * (step.watched - reference.mean) for step in state.run]
        if min(moved[-CONFIRM_POINTS:]) < least / 2:
            return None
        first = onset_of([step.n * (by - least / 2) for step, by in zip(state.run, moved, strict=True)])
        run = state.run[min(first, len(state.run) - CONFIRM_POINTS):]
        if direction * (level_of(run) - reference.mean) < least:
            return None
        low, high = interval_of(state.run, moved, direction * (level_of(run) - reference.mean), reference.variance)
        length = point.end_ms - point.start_ms
        onset = Onset(run[0].start_ms, max(0, min(low, run[0].start_ms) - length),
                      min(point.end_ms, max(high, run[0].start_ms) + length), sum(step.windows for step in run),
                      sum(step.n for step in run))
        return self._drift(point, reference, direction, level_of(run), raw_level_of(run), onset, "cusum")

    def _by_adwin(self, point: Point, reference: Reference) -> Change | None:
        """ADWIN saw a change since the level was last at the reference, and it has become one that matters."""
        state = self.state
        if not state.moved:
            return None
        by = state.slow - reference.mean
        least = self._least(reference, 1 if by > 0 else -1)
        if abs(by) < least / 4:
            state.moved = False
        if abs(by) < least or (by < 0.0 and self.effect.worse):
            return None
        at, unsure = self.memory.onset_ms(point.start_ms), ADWIN_UNSURE * (point.end_ms - point.start_ms)
        points = round(1 / SLOW)
        onset = Onset(at, max(0, at - unsure), min(point.end_ms, at + unsure), points * point.windows,
                      points * point.n)
        return self._drift(point, reference, 1 if by > 0 else -1, state.slow, state.slow_raw, onset, "adwin")

    def risen(self, rise: Rise, end_ms: int, windows: int) -> Change | None:
        """A rise that a detector of single values is sure of; None if the watch cannot judge it, or knows of it."""
        state, reference = self.state, self.state.reference
        if reference is None or not self.ready or state.direction:
            return None
        reference = msgspec.structs.replace(reference, n=max(reference.n, rise.reference_n), mean=rise.before,
                                            raw_mean=rise.before)
        state.reference = reference
        point = Point(rise.at, end_ms, windows, max(1, rise.n), rise.after, 0.0)
        unsure = round((end_ms - rise.at) * min(1.0, rise.unsure / max(1, rise.n)))
        onset = Onset(rise.at, max(0, rise.at - unsure), min(end_ms, rise.at + unsure), windows, rise.n)
        change = self._drift(point, reference, 1, rise.after, rise.after, onset, "likelihood")
        if change is not None:
            state.least = min(self._least(reference, 1), rise.after - rise.before)
        return change

    def _usual(self, point: Point, reference: Reference, direction: int, level: float, n: int) -> float | None:
        """The level of this hour, or of that in which the point ends, on earlier days; None if it is not the present.

        What is usual may differ from `level`, of n events, by less than the least effect and what chance does.
        """
        reach = self._least(reference, direction) + USUAL_Z * math.sqrt(reference.variance / max(1, n))
        for at_ms in (point.start_ms, point.end_ms):
            usual = self.state.usual.level(at_ms)
            if abs(level - usual) <= reach:
                return usual
        return None

    def _drift(self, point: Point, reference: Reference, direction: int, watched: float, raw: float, onset: Onset,
               detector: str) -> Change | None:
        state = self.state
        usual = self._usual(point, reference, direction, watched if reference.log else raw, onset.n)
        if usual is not None and detector not in (INCUMBENT, PROFILE):
            state.reference = reference.moved_to(usual)
            state.up, state.down, state.run, state.moved = 0.0, 0.0, [], False
            self._forget()
            state.slow, state.slow_raw = state.reference.mean, state.reference.raw_mean
            return None
        name = INCUMBENT if state.of == INCUMBENT else detector
        others = [other for other, sees in (("adwin", state.moved), ("cusum", max(state.up, state.down) > self.height))
                  if sees and other != name]
        large = abs(watched - reference.mean) >= reference.unit(self.effect, self.effect.large)
        change = self._change("drifted", point, reference, watched, raw, onset, name, large)._replace(
            agreeing=(name, *others), before_sketch=pairs(state.sketch),
            after_sketch=coarse(self._gathered(), MOST_BUCKETS))
        state.direction, state.back, state.run, state.seen, state.since_ms = direction, 0.0, [], 0, onset.at_ms
        state.warm, state.least = b"", 0.0
        self._forget()
        state.after, state.after_raw = watched, change.after
        return change

    # -- drifted ------------------------------------------------------------------------------------

    def _while_drifted(self, point: Point, reference: Reference) -> Change | None:
        state, error = self.state, reference.error(point.n)
        least = state.least or self._least(reference, state.direction)
        state.seen += 1
        by = state.direction * (point.watched - reference.mean)
        state.back = max(0.0, state.back + max(-STEP_MOST, min(STEP_MOST, (least / 2 - by) / error)))
        state.run = [*state.run[1 - RUN_POINTS:], step_of(point)] if state.back > 0.0 else []
        is_near = len(state.run) >= CONFIRM_POINTS and abs(level_of(state.run) - reference.mean) <= 0.75 * least
        if state.back > H_BACK and is_near:
            run = state.run
            large = abs(level_of(run) - reference.mean) >= reference.unit(self.effect, self.effect.large)
            length = point.end_ms - point.start_ms
            onset = Onset(run[0].start_ms, max(0, run[0].start_ms - length), run[0].start_ms + length,
                          sum(step.windows for step in run), sum(step.n for step in run))
            level, raw = level_of(run), raw_level_of(run)
            self._calm(reference)
            return self._change("recovered", point, reference, level, raw, onset, "cusum", large)
        if state.seen >= ADOPT_POINTS and point.end_ms - state.since_ms >= ADOPT_MS:
            self._settle(None)
        return None

    def _calm(self, reference: Reference) -> None:
        inherited = self.state.inherited
        self._settle(reference)
        self.state.inherited = inherited

    def _change(self, kind: Literal["drifted", "recovered"], point: Point, reference: Reference, watched: float,
                raw: float, onset: Onset, detector: str, large: bool) -> Change:
        return Change(kind, reference.level(reference.mean, reference.raw_mean), reference.level(watched, raw),
                      reference.raw_spread, onset.at_ms, point.start_ms, point.end_ms, onset.windows, detector, large,
                      onset.low_ms, onset.high_ms, reference=self.state.of)


def _sum(evidence: float, step: float) -> float:
    return min(2 * H, max(0.0, evidence + max(-STEP_MOST, min(STEP_MOST, step))))


def settle(watches: Sequence[Watch]) -> None:
    """Add what waits to what was gathered; of watches that were given points of the same group."""
    waiting = [(watch, watch.waits) for watch in watches if watch.waits is not None]
    if not waiting:
        return
    found = gathered.added([cast(bytes, watch.state.gathered) for watch, _ in waiting], [more for _, more in waiting])
    for (watch, _), sums in zip(waiting, found, strict=True):
        watch.state.gathered, watch.waits = sums, None
