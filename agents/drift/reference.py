r"""What a statistic was like: learnt from a warm-up, made surer while nothing moves, frozen at 100 points.

Later points are read through the reference's `Lens`. Means are winsorised: each event counts at most three standard
deviations from the reference, so that no handful of events moves a point; this biases a mean by at most 1/12 of that
deviation (Chebyshev), which is less than any change that counts. Latency, and features that are positive and skewed,
are read as logarithms, which a window's log-bucket sketch gives within 1%.

The standard error of a point is sqrt(v / n + v / N), n its events, N those of the reference. v is the variance of
single events, or what the scatter of the points implies if that is more (events of a window are often alike), and no
less than R^2 / N for a range of R: what was constant for N events may yet be seen to vary once in N.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from agents.drift.gathered import NO_SKETCH, Buckets
from agents.drift.options import Effect

#: Points of a warm-up.
WARM_UP_POINTS = 20
#: Points at which a reference is frozen.
MOST_POINTS = 100
WINSOR_SD = 3.0
#: Standard deviations between two halves of a warm-up that make the older one no part of the reference.
UNSTEADY_Z = 4.0


class Lens(NamedTuple):
    """How to read values: as logarithms or as they are, within [low, high]; `learning`: keep raw ones besides."""

    log: bool
    low: float
    high: float
    learning: bool


class Point(msgspec.Struct, frozen=True, gc=False):
    """A statistic over one group of windows; variances are of single events.

    `log_mean` is NaN where logarithms are unknown; `watched` is the mean through the lens, NaN before there is one.
    `sketch`: where the watch keeps them.
    """

    start_ms: int
    end_ms: int
    windows: int
    n: int
    mean: float
    variance: float
    log_mean: float = math.nan
    log_variance: float = math.nan
    watched: float = math.nan
    sketch: Buckets = NO_SKETCH


class Reference(msgspec.Struct, array_like=True, frozen=True):
    """n events in so many points. `raw_mean` and `raw_spread` are in the field's unit, the rest in the lens's.

    `variance` is for standard errors, `spread` (standard deviation) for effects.
    """

    n: int
    points: int
    log: bool
    mean: float
    spread: float
    variance: float
    low: float
    high: float
    raw_mean: float
    raw_spread: float

    def error(self, n: int) -> float:
        """Standard error of the difference to a point of n events."""
        return math.sqrt(self.variance / n + self.variance / self.n)

    def step(self, n: int, level: float, allowance: float, direction: int) -> float:
        """What a point of n events at a share adds to the evidence for a change (`counts` of an effect).

        Of rare ones two or three at once are no such wonder as a normal z says. So it is half the logarithm of the
        binomial likelihood ratio, of a share 2k standard errors away to the reference's, k the allowance: where counts
        are large that is k (z - k), and to it belong the heights of k = 1 (`budget`; Siegmund, Sequential Analysis,
        1985). It is divided by how much more the shares scatter than binomial ones do.
        """
        least = 1.0 / (self.n + 2)
        was = min(1.0 - least, max(least, self.mean))
        now = min(1.0 - least / 2, max(least / 2, was + direction * 2.0 * allowance * self.error(n)))
        ratio = n * (level * math.log(now / was) + (1.0 - level) * math.log((1.0 - now) / (1.0 - was)))
        return ratio / (2.0 * max(1.0, self.variance / (was * (1.0 - was))))

    def refined(self, point: Point) -> Reference:
        """With one more calm point; effects stay measured by the spread of the warm-up."""
        n, by = self.n + point.n, point.watched - self.mean
        reach = (self.high - self.low) / 2
        variance = (self.points * self.variance + point.n * by * by) / (self.points + 1)
        return msgspec.structs.replace(
            self, n=n, points=self.points + 1, mean=self.mean + by * point.n / n,
            raw_mean=self.raw_mean + (point.mean - self.raw_mean) * point.n / n,
            variance=max(variance, reach * reach / n))

    def unit(self, effect: Effect, size: float) -> float:
        """An effect's size in the lens's unit."""
        if effect.measure == "sd":
            return size * self.spread
        return math.log(size) if effect.measure == "ratio" else size

    def moved_to(self, level: float) -> Reference:
        """The same around another level, in the lens's unit."""
        by = level - self.mean
        raw = self.raw_mean * math.exp(max(-300.0, min(300.0, by))) if self.log else level
        return msgspec.structs.replace(self, mean=level, low=self.low + by, high=self.high + by, raw_mean=raw)

    def scattered(self, points: Sequence[Warm], counts: bool) -> Reference:
        """With standard errors that are no less than how points that were read through its lens scatter.

        `counts`: shares scatter by their level, too; so only as much more as these do than binomial ones of their own.
        """
        seen = [(p.n, p.watched, 0.0) for p in points if not math.isnan(p.watched)]
        if not seen:
            return self
        own = _moments(seen)
        more = self.variance * own.scatter / max(1.0 / own.n, own.mean * (1.0 - own.mean)) if counts else own.scatter
        return msgspec.structs.replace(self, variance=max(self.variance, more))

    def seen(self, raw: float) -> float:
        """A level in the field's unit, through the lens."""
        value = (math.log(raw) if raw > 0.0 else self.low) if self.log else raw
        return max(self.low, min(self.high, value))

    def level(self, watched: float, raw: float) -> float:
        """What to tell people: the mean, or the geometric mean under a logarithm."""
        return math.exp(min(watched, 300.0)) if self.log else raw


class Warm(NamedTuple):
    """What is kept of a warm-up's point."""

    n: int
    mean: float
    variance: float
    log_mean: float
    log_variance: float
    watched: float


#: A point as it is kept and written, a quarter of what objects take: n as int64, the others as float64, little-endian.
_WARM = struct.Struct("<q5d")
WARM_BYTES = _WARM.size
#: Events of a point are held at this: up to there a float64 has each number.
MOST_EVENTS = 1 << 53


def packed(points: Iterable[Warm | Point]) -> bytes:
    """What is kept of points, `WARM_BYTES` each, one after the other."""
    return b"".join([_WARM.pack(min(point.n, MOST_EVENTS), point.mean, point.variance, point.log_mean,
                                point.log_variance, point.watched) for point in points])


def unpacked(points: bytes) -> list[Warm]:
    """The points that were packed."""
    return [Warm(*point) for point in _WARM.iter_unpack(points)]


def learn(points: Sequence[Warm], effect: Effect) -> Reference:
    """The reference that these points make."""
    raw = _moments([(p.n, p.mean, p.variance) for p in points])
    raw_spread = math.sqrt(raw.total)
    positive = not any(math.isnan(p.log_mean) for p in points)
    log = positive and (effect.measure == "ratio" or (effect.measure == "sd" and raw_spread > raw.mean))
    seen = _moments([(p.n, p.log_mean, p.log_variance) for p in points]) if log else raw
    spread = max(math.sqrt(seen.total), 1e-6 * abs(seen.mean), 1e-12)
    reach = WINSOR_SD * spread
    if effect.measure == "ratio":
        reach = max(reach, 2.0 * math.log(effect.large))
    elif effect.measure == "share":
        reach = 1.0
    variance = max(seen.within, seen.scatter, reach * reach / seen.n)
    return Reference(seen.n, len(points), log, seen.mean, spread, variance, seen.mean - reach, seen.mean + reach,
                     raw.mean, raw_spread)


def never(n: int) -> Reference:
    """The reference of a category that n events were without."""
    return Reference(n, MOST_POINTS, False, 0.0, 1e-12, 1.0 / n, -1.0, 1.0, 0.0, 0.0)


def is_unsteady(points: Sequence[Warm], reference: Reference, effect: Effect) -> bool:
    """True if the newer half of a warm-up lies elsewhere than the older."""
    half = len(points) // 2
    means = [(p.n, p.log_mean if reference.log else p.mean, p.log_variance if reference.log else p.variance)
             for p in points]
    older, newer = _moments(means[:half]), _moments(means[half:])
    moved = abs(newer.mean - older.mean)
    variance = max(older.within, newer.within, older.scatter, newer.scatter, 1e-24)
    return (moved >= reference.unit(effect, effect.least)
            and moved > UNSTEADY_Z * math.sqrt(variance / older.n + variance / newer.n))


class _Moments(NamedTuple):
    n: int
    mean: float
    within: float       # variance of events inside points
    scatter: float      # variance of events that the points' scatter implies
    total: float        # variance of all events


def _moments(points: Sequence[tuple[int, float, float]]) -> _Moments:
    n = sum(m for m, _, _ in points)
    mean = math.fsum(m * x for m, x, _ in points) / n
    within = math.fsum(m * v for m, _, v in points) / n
    between = math.fsum(m * (x - mean) * (x - mean) for m, x, _ in points)
    return _Moments(n, mean, within, between / max(1, len(points) - 1), within + between / n)
