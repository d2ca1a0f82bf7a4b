r"""The rules that read rates and latency: is it wrong now, and is it over?

A rate k/n is wrong if it is above the limit, rests on enough events, and would be a surprise at the usual rate p:
n * KL(k/n || p) >= SURPRISE_NATS, where KL(a || b) = a ln(a/b) + (1 - a) ln((1 - a)/(1 - b)). By Chernoff's bound
P(K >= k) <= exp(-n KL) for K ~ Binomial(n, p). Source: Hoeffding, J. Am. Stat. Assoc. 58 (1963), theorem 1.
It is over when the rate stays below half-way between the usual rate and the limit.

Latency is wrong if its mean since the first slow window is above factor times the usual, by at least
`latency_excess_ms`, and at least half of the windows looked at (15 s or more) are slow, so that neither one outlier
nor a pause of a busy machine is a regression.
It is over when the mean stays below half-way between the two. Each window's largest value is left out of its mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from agents.alerts import text
from agents.alerts.buckets import Tally, pushes, spanned, tally
from agents.alerts.options import (
    CALM_HITS,
    LATENCY_MS,
    LATENCY_SLOW_SHARE,
    LONG_MS,
    RATE_FLOOR,
    RATE_WARM_EVENTS,
    SHORT_MS,
    SPARSE_MS,
    SURPRISE_NATS,
    AlertOptions,
)
from agents.alerts.state import Base, Bucket, Component, Series


class Finding(NamedTuple):
    """What a rule sees now. `wrong`: open or keep open; `calm`: towards the end; neither: in between."""

    wrong: bool
    calm: bool
    severity: str = "warning"
    value: float = 0.0
    threshold: float = 0.0
    onset_ms: int = 0
    weight: int = 0             # pieces of evidence it rests on
    version: str = ""
    named: bool = False         # the version belongs in the title
    versions: tuple[str, ...] = ()
    field: str | None = None
    said: str = ""
    detail: str = ""
    rule: str = ""              # people's rule; empty: a built-in one
    pending_ms: int = -1        # since when its condition has held


def surprise_nats(events: int, hits: int, usual: float) -> float:
    """n * KL(hits/events || usual); 0 when the rate is not above the usual one."""
    rate = min(1.0, hits / events)
    if rate <= usual:
        return 0.0
    rest = (1 - rate) * math.log((1 - rate) / (1 - usual)) if rate < 1 else 0.0
    return events * (rate * math.log(rate / usual) + rest)


def usual_rate(base: Base, limit: float) -> float:
    """The usual rate, kept within [limit * RATE_FLOOR, limit]; half the limit until it is known."""
    if base.events < RATE_WARM_EVENTS:
        return limit / 2
    return min(limit, max(limit * RATE_FLOOR, base.hits / base.events))


def looks(versions: dict[str, Series], clock_ms: int, cleared_ms: int, hits_of: Callable[[Bucket], int],
          least_events: int) -> Iterator[Tally]:
    """The last 5 s and 30 s, and 120 s if those hold too little; never behind the end of the last trouble."""
    for span in (SHORT_MS, LONG_MS, SPARSE_MS):
        found = tally(versions, max(clock_ms - span, cleared_ms), hits_of)
        yield found
        if span == LONG_MS and found.events >= least_events:
            return


class RateRule(NamedTuple):
    """A limit on a share of events."""

    limit: float
    least_hits: int
    options: AlertOptions

    def strong(self, seen: Tally) -> bool:
        return seen.events >= self.options.strong_events and seen.rate >= self.options.strong_rate

    def wrong(self, seen: Tally, base: Base) -> bool:
        """Above the limit, on enough events, and a surprise."""
        enough = seen.events >= self.options.least_events and seen.hits >= self.least_hits
        if seen.rate <= self.limit or not (enough or self.strong(seen)):
            return False
        return surprise_nats(seen.events, seen.hits, usual_rate(base, self.limit)) >= SURPRISE_NATS

    def calm_below(self, base: Base) -> float:
        """Half-way between the usual rate and the limit; half the limit while the usual rate is unknown."""
        usual = usual_rate(base, self.limit) if base.events >= RATE_WARM_EVENTS else 0.0
        return (self.limit + (usual if usual > self.limit * RATE_FLOOR else 0.0)) / 2

    def judge(self, versions: dict[str, Series], clock_ms: int, cleared_ms: int, hits_of: Callable[[Bucket], int],
              base: Base) -> tuple[Tally | None, Finding]:
        """From the shortest look on: the first that is wrong, or holds enough to say that it is over, decides.

        If it is wrong, the tally is of what has been since the look's first hit: that is what people are told.
        """
        calm = True
        enough = max(self.options.least_events, math.ceil(CALM_HITS / self.limit))
        for seen in looks(versions, clock_ms, cleared_ms, hits_of, self.options.least_events):
            if self.wrong(seen, base):
                since = tally(versions, seen.onset_ms, hits_of)
                return since, Finding(True, False, "critical" if self.strong(since) else "warning", since.rate,
                                      self.limit, since.onset_ms, since.hits)
            calm = seen.rate < self.calm_below(base)
            if calm and seen.events >= enough:
                break
        return None, Finding(False, calm)


def anomaly_rate(component: Component, cleared_ms: int, options: AlertOptions) -> Finding:
    """Share of events that scoring found unusual."""
    rule = RateRule(options.anomaly_rate_limit, options.least_anomalies, options)
    since, found = rule.judge(component.versions, component.clock_ms, cleared_ms, lambda bucket: bucket.unusual,
                              component.unusual)
    if since is None:
        return found
    version, named = _culprit(since)
    field, dominance, missing = _dominant(component.versions, since)
    return found._replace(
        version=version, named=named, field=field,
        versions=tuple(sorted(name for name, (_, hits) in since.versions.items() if hits)),
        said=text.unusual(since.rate, rule.limit, field, dominance, missing),
        detail=text.unusual_detail(field, since.onset_ms, since.events, since.hits))


def _culprit(seen: Tally) -> tuple[str, bool]:
    """The version with the most hits; to be named if others have many events and few hits."""
    version = max(sorted(seen.versions), key=lambda name: seen.versions[name][1])
    events, hits = seen.versions[version]
    return version, len(seen.versions) > 1 and hits >= 0.8 * seen.hits and events <= 0.6 * seen.events


def _dominant(versions: dict[str, Series], seen: Tally) -> tuple[str | None, float, float]:
    """The field with the largest sum of shares, its share, and how often it was missing."""
    found = pushes(versions, seen.onset_ms)
    if not found:
        return None, 0.0, 0.0
    feature = max(sorted(found), key=lambda name: found[name].share)
    hits = max(1, seen.hits)
    field = feature if feature == "confidence" or feature.startswith("feature.") else f"feature.{feature}"
    return field, found[feature].share / hits, found[feature].missing / hits


def error_rate(component: Component, version: str, cleared_ms: int, options: AlertOptions) -> Finding:
    """Share of a version's requests that fail."""
    rule = RateRule(options.error_rate_limit, options.least_errors, options)
    since, found = rule.judge({version: component.versions[version]}, component.clock_ms, cleared_ms,
                              lambda bucket: bucket.errors, component.errors)
    if since is None:
        return found
    everyone = tally(component.versions, component.clock_ms - LONG_MS, lambda bucket: bucket.errors)
    others = [(events, hits) for name, (events, hits) in everyone.versions.items() if name != version]
    alone = bool(others) and all(hits <= rule.limit * events for events, hits in others)
    return found._replace(
        version=version, named=bool(others), versions=(version,), said=text.failing(since.rate, rule.limit),
        detail=text.failing_detail(version, alone, since.onset_ms, since.events, since.hits))


def latency(component: Component, name: str, version: str, cleared_ms: int, options: AlertOptions) -> Finding:
    """Mean latency against the usual. Neither wrong nor calm while the usual is unknown."""
    usual = component.usual_ms
    if usual is None:
        return Finding(False, False)
    limit = max(usual * options.latency_factor, usual + options.latency_excess_ms)
    timed: list[Bucket] = []
    for span in (LATENCY_MS, LONG_MS, SPARSE_MS):
        from_ms = max(component.clock_ms - span, cleared_ms)
        timed = [bucket for bucket in spanned(component.versions.values(), from_ms) if bucket.timed]
        if sum(bucket.timed for bucket in timed) >= options.least_events:
            break
    count = sum(bucket.timed for bucket in timed)
    if not count:
        return Finding(False, False)
    slow = [bucket for bucket in timed if bucket.mean_ms > limit]
    onset = min((bucket.start_ms for bucket in slow), default=component.clock_ms)
    since = _mean_ms([bucket for bucket in timed if bucket.start_ms >= onset])
    if count < options.least_events or since <= limit or len(slow) < LATENCY_SLOW_SHARE * len(timed):
        return Finding(False, _mean_ms(timed) < (usual + limit) / 2)
    return Finding(True, False, "critical" if since >= options.strong_latency * usual else "warning", since, limit,
                   onset, len(slow), version, False, _slow_versions(component, onset, limit) or (version,),
                   "latency_ms", text.slow(since, usual), text.slow_detail(onset, name))


def _mean_ms(buckets: list[Bucket]) -> float:
    count = sum(bucket.timed for bucket in buckets)
    return sum(bucket.latency_sum for bucket in buckets) / count if count else 0.0


def _slow_versions(component: Component, from_ms: int, limit: float) -> tuple[str, ...]:
    return tuple(sorted(name for name, series in component.versions.items()
                        if any(bucket.mean_ms > limit for bucket in spanned((series,), from_ms))))
