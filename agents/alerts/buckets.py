"""The recent past of a component, in buckets of event time, and sums over it.

Windows and anomalies come from two topics, in no order to one another, so each has its half of a bucket. A bucket
counts once its window has come; anomalies that come later are added to it and it is looked at again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from operator import attrgetter
from statistics import median
from typing import NamedTuple

from agents.alerts.options import (
    LATENCY_REFRESH_WINDOWS,
    LATENCY_WARM_WINDOWS,
    LATENCY_WINDOWS,
    LONG_MS,
    MAX_PENDING,
    MAX_PUSHES,
    MAX_VERSIONS,
    RATE_MEMORY_WINDOWS,
    SETTLE_MS,
    SPARSE_MS,
    TRIM_LEAST,
    AlertOptions,
)
from agents.alerts.state import Base, Bucket, Component, Push, Series
from schemas.anomalies import Anomaly
from streams.windows.closed import ClosedWindow

_start = attrgetter("start_ms")


class Tally(NamedTuple):
    """Events and hits over a span. `versions`: version -> (events, hits), of those with events."""

    events: int
    hits: int
    onset_ms: int
    versions: dict[str, tuple[int, int]]

    @property
    def rate(self) -> float:
        return min(1.0, self.hits / self.events) if self.events else 0.0


def series_of(component: Component, version: str) -> Series:
    """The version's series; the one quiet for longest makes room for a new one."""
    series = component.versions.get(version)
    if series is None:
        if len(component.versions) >= MAX_VERSIONS:
            quiet = min(component.versions, key=lambda name: component.versions[name].last_start_ms)
            del component.versions[quiet]
        series = component.versions[version] = Series()
    return series


def add_window(component: Component, window: ClosedWindow, options: AlertOptions) -> Bucket | None:
    """Take in a window of the finest granularity. None: it is a repeat, or an amendment."""
    series = series_of(component, window.version)
    if window.start_ms <= series.last_start_ms:
        return None
    series.last_start_ms = window.start_ms
    bucket, fresh = _bucket(series, window.start_ms)
    if not fresh:
        series.pending -= 1
    bucket.count, bucket.errors = window.count, window.errors
    latency = window.summary("latency_ms")
    if latency is not None:
        bucket.timed, bucket.latency_sum = latency.count, latency.sum
        if latency.max is not None and latency.count >= TRIM_LEAST:
            bucket.timed, bucket.latency_sum = latency.count - 1, latency.sum - latency.max
    series.events += window.count
    component.clock_ms = max(component.clock_ms, window.start_ms + window.size_ms)
    return bucket


def add_anomaly(component: Component, anomaly: Anomaly, options: AlertOptions) -> Bucket | None:
    """Count an anomaly in its bucket. None: the bucket is out of memory already."""
    start = anomaly.ts - anomaly.ts % options.bucket_ms
    if start < component.clock_ms - LONG_MS:
        component.stale += 1
        return None
    series = series_of(component, anomaly.version)
    bucket, fresh = _bucket(series, start)
    series.pending += fresh
    bucket.unusual += 1
    for contribution in anomaly.contributions:
        push = bucket.pushes.get(contribution.feature)
        if push is None:
            push = bucket.pushes[contribution.feature] = Push()
        push.share += contribution.share
        push.missing += contribution.value is None
    if len(bucket.pushes) > 2 * MAX_PUSHES:
        kept = sorted(bucket.pushes.items(), key=lambda item: (-item[1].share, item[0]))[:MAX_PUSHES]
        bucket.pushes = dict(kept)
    if series.pending > MAX_PENDING:
        _drop_pending(series)
    return bucket


def _bucket(series: Series, start_ms: int) -> tuple[Bucket, bool]:
    """The bucket that starts there, and whether it is new."""
    buckets = series.buckets
    if not buckets or buckets[-1].start_ms < start_ms:
        buckets.append(Bucket(start_ms))
        return buckets[-1], True
    at = bisect_left(buckets, start_ms, key=_start)
    if buckets[at].start_ms == start_ms:
        return buckets[at], False
    buckets.insert(at, Bucket(start_ms))
    if at < series.settled:
        series.settled += 1
    return buckets[at], True


def _drop_pending(series: Series) -> None:
    """Anomalies far ahead of their windows: forget the oldest."""
    at = next(at for at, bucket in enumerate(series.buckets) if bucket.count < 0)
    del series.buckets[at]
    series.pending -= 1
    if at < series.settled:
        series.settled -= 1


def settle_and_trim(component: Component, series: Series, learn: Callable[[Bucket], None],
                    options: AlertOptions) -> None:
    """Let buckets that are old enough become part of what is usual, and forget the oldest."""
    buckets, clock = series.buckets, component.clock_ms
    while series.settled < len(buckets) and buckets[series.settled].start_ms < clock - SETTLE_MS:
        bucket = buckets[series.settled]
        series.settled += 1
        if bucket.count >= 0:
            learn(bucket)
    keep = 0
    for bucket in buckets:
        if bucket.start_ms >= clock - LONG_MS or keep >= series.settled:
            break
        if bucket.start_ms >= clock - SPARSE_MS and series.events - max(bucket.count, 0) < options.least_events:
            break
        keep += 1
        series.events -= max(bucket.count, 0)
        series.pending -= bucket.count < 0
    if keep:
        del buckets[:keep]
        series.settled -= keep


# -- what is usual -----------------------------------------------------------------------------------


def learn_rate(base: Base, events: int, hits: int) -> None:
    """A settled bucket into the usual rate."""
    base.events += events
    base.hits += min(events, hits)
    base.windows += 1
    if base.windows >= RATE_MEMORY_WINDOWS:
        base.events, base.hits, base.windows = base.events / 2, base.hits / 2, base.windows // 2


def learn_latency(component: Component, bucket: Bucket) -> None:
    """A settled bucket's mean into the usual latency."""
    if not bucket.timed:
        return
    component.latencies.append(float(f"{bucket.mean_ms:.5g}"))
    component.learnt += 1
    if len(component.latencies) > LATENCY_WINDOWS:
        del component.latencies[0]
    enough = len(component.latencies) >= LATENCY_WARM_WINDOWS
    if enough and (component.usual_ms is None or component.learnt % LATENCY_REFRESH_WINDOWS == 0):
        component.usual_ms = median(component.latencies)


# -- sums --------------------------------------------------------------------------------------------


def spanned(series: Iterable[Series], from_ms: int) -> Iterable[Bucket]:
    """Buckets whose window has come, that start at or after `from_ms`."""
    for one in series:
        for bucket in reversed(one.buckets):
            if bucket.start_ms < from_ms:
                break
            if bucket.count >= 0:
                yield bucket


def tally(versions: dict[str, Series], from_ms: int, hits_of: Callable[[Bucket], int]) -> Tally:
    """Events and hits since `from_ms`."""
    events = hits = 0
    onset = -1
    found: dict[str, tuple[int, int]] = {}
    for name, series in versions.items():
        own_events = own_hits = 0
        for bucket in spanned((series,), from_ms):
            own_events += bucket.count
            own = hits_of(bucket)
            if own:
                own_hits += own
                onset = bucket.start_ms if onset < 0 else min(onset, bucket.start_ms)
        if own_events:
            found[name] = (own_events, own_hits)
        events, hits = events + own_events, hits + own_hits
    return Tally(events, hits, onset, found)


def pushes(versions: dict[str, Series], from_ms: int) -> dict[str, Push]:
    """Contributions to the anomalies since `from_ms`, by feature."""
    found: dict[str, Push] = {}
    for bucket in spanned(versions.values(), from_ms):
        for feature, push in bucket.pushes.items():
            into = found.setdefault(feature, Push())
            into.share += push.share
            into.missing += push.missing
    return found


def usual_gap_ms(series: Series, options: AlertOptions) -> int:
    """Mean distance of the windows in memory."""
    starts = [bucket.start_ms for bucket in series.buckets if bucket.count >= 0]
    return (starts[-1] - starts[0]) // (len(starts) - 1) if len(starts) > 1 else options.bucket_ms
