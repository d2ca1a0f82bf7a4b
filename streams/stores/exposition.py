"""What models do, for Prometheus: counters and a latency histogram by environment, model, version and component.

They are taken from closed windows of one granularity, so nothing is done per event and an event is counted once by one
worker; an amendment adds its difference. Latencies are placed by their sketch: a value within 1% of an edge may be
counted on its other side. A process counts from its start, as Prometheus expects of counters.

Labels are bounded: the first `most` series keep their names, the others are counted together as `<other>`, and a series
without a window for an hour of wall clock makes room. Of `<other>`, an amendment is counted while its window is among
the last remembered.

The histogram has fixed edges; `streamgauge_model_latency_native_seconds` is the same as a native one, in the protobuf
form of the page only (`streams.protobuf`). Its buckets are nine percent wide, and a value within 1% of an edge may be
counted on its other side, too.
"""

from __future__ import annotations

import itertools
import math
import time
from bisect import bisect_left
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import msgspec
from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from schemas.alerts import Alert
from schemas.anomalies import Anomaly
from schemas.drift import DriftEvent
from streams import protobuf
from streams.windows.record import SummaryRecord, WindowHead
from streams.windows.sketch import bucket_value

OTHER = "<other>"
SERIES = ("environment", "model", "version", "component")
#: Seconds; of a model's answer, from a cache to a large language model.
EDGES_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
#: Windows of a series whose part of the counters is remembered, so that an amendment adds its difference only.
REMEMBERED = 64
IDLE_SECONDS = 3_600.0
#: In place of a native bucket.
ZERO = -(1 << 30)
_summary = msgspec.json.Decoder(SummaryRecord).decode

Labels = tuple[str, ...]


@dataclass(slots=True)
class Told:
    """What a window says, or a series has said so far."""

    events: int = 0
    errors: int = 0
    latency: list[int] = field(default_factory=lambda: [0] * (len(EDGES_S) + 1))
    fine: Counter[int] = field(default_factory=Counter)     # by native bucket; ZERO: of values of nothing
    latency_sum_s: float = 0.0
    confidence_count: int = 0
    confidence_sum: float = 0.0

    def add(self, other: Told, sign: int = 1) -> None:
        self.events += sign * other.events
        self.errors += sign * other.errors
        self.latency = [have + sign * more for have, more in zip(self.latency, other.latency, strict=True)]
        for index, many in other.fine.items():
            self.fine[index] += sign * many
        self.latency_sum_s += sign * other.latency_sum_s
        self.confidence_count += sign * other.confidence_count
        self.confidence_sum += sign * other.confidence_sum


def told(window: WindowHead) -> Told:
    """What a window says; its other fields are not read."""
    found = Told(window.count, window.errors)
    if "latency_ms" in window.fields:
        latency = _summary(window.fields["latency_ms"])
        found.latency_sum_s = latency.sum / 1000
        for code, many in latency.sketch:
            seconds, index = _places(code)
            found.latency[bisect_left(EDGES_S, seconds)] += many
            found.fine[index] += many
    if "confidence" in window.fields:
        confidence = _summary(window.fields["confidence"])
        found.confidence_count, found.confidence_sum = confidence.count, confidence.sum
    return found


@lru_cache(maxsize=8_192)
def _places(code: int) -> tuple[float, int]:
    """(seconds, native bucket) of a bucket of a sketch of milliseconds."""
    seconds = bucket_value(code) / 1000
    return seconds, ZERO if seconds <= 0.0 else math.ceil(math.log2(seconds) * (1 << protobuf.SCHEMA))


@dataclass(slots=True)
class Series:
    """A series' counters."""

    so_far: Told = field(default_factory=Told)
    newest_s: float = 0.0
    heard_s: float = 0.0
    of_windows: OrderedDict[str, Told] = field(default_factory=OrderedDict)

    def take(self, window: WindowHead) -> None:
        """Add a window, or what an amendment adds to it. One amended from before this process is left out."""
        before = self.of_windows.get(window.window_id)
        if before is None and window.revision:
            return
        if before is not None and before.events >= window.count:
            return
        new = told(window)
        if before is not None:
            self.so_far.add(before, -1)
        self.so_far.add(new)
        self.of_windows[window.window_id] = new
        while len(self.of_windows) > REMEMBERED:
            self.of_windows.popitem(last=False)
        self.newest_s = max(self.newest_s, (window.start_ms + window.size_ms) / 1000)


class ModelMetrics(Collector):
    """Everything about models that a worker tells Prometheus."""

    def __init__(self, most: int = 200, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self.folded_windows = 0
        self._clock = clock
        self._series: dict[Labels, Series] = {}
        self._seen: dict[str, defaultdict[Labels, int]] = {name: defaultdict(int) for name in _COUNTED}

    def window(self, window: WindowHead) -> None:
        """Take in a closed window, or an amendment."""
        labels: Labels = (window.environment, window.model, window.version, window.component)
        series = self._series.get(labels)
        if series is None:
            if len(self._series) >= self.most:
                self.folded_windows += 1
                labels = (OTHER,) * len(SERIES)
            series = self._series.setdefault(labels, Series())
        series.take(window)
        series.heard_s = self._clock()

    def anomaly(self, found: Anomaly) -> None:
        self._count("anomalies", (found.environment, found.model, found.version, found.component))

    def drift(self, found: DriftEvent) -> None:
        self._count("drift_events", (found.environment, found.model, found.kind, found.state))

    def alert(self, found: Alert) -> None:
        self._count("alerts", (found.environment, found.model, found.cause, found.severity, found.state))

    def _count(self, name: str, labels: Labels) -> None:
        counted = self._seen[name]
        if labels not in counted and len(counted) >= self.most:
            labels = (OTHER,) * len(labels)
        counted[labels] += 1

    def prune(self) -> None:
        """Forget series that are silent."""
        now = self._clock()
        for labels in [labels for labels, series in self._series.items() if now - series.heard_s > IDLE_SECONDS]:
            del self._series[labels]

    # -- what Prometheus reads ------------------------------------------------------------------------

    def describe(self) -> Iterable[Metric]:
        return self._families({}, {})

    def collect(self) -> Iterator[Metric]:
        yield from self._families(self._series, self._seen)

    def _families(self, series: dict[Labels, Series], seen: dict[str, defaultdict[Labels, int]]) -> Iterable[Metric]:
        events = CounterMetricFamily("streamgauge_model_events", "Events in closed windows", labels=SERIES)
        errors = CounterMetricFamily("streamgauge_model_errors", "Events with an error, in closed windows",
                                     labels=SERIES)
        latency = HistogramMetricFamily("streamgauge_model_latency_seconds", "Latency, from closed windows",
                                        labels=SERIES)
        native = protobuf.NativeFamily("streamgauge_model_latency_native_seconds", "Latency, from closed windows",
                                       SERIES)
        confidence = CounterMetricFamily("streamgauge_model_confidence", "Sum of confidences", labels=SERIES)
        confidences = CounterMetricFamily("streamgauge_model_confidences", "Events with a confidence", labels=SERIES)
        newest = GaugeMetricFamily("streamgauge_model_newest_window_seconds", "End of the newest closed window, event "
                                   "time (epoch)", labels=SERIES)
        for labels, one in series.items():
            so_far = one.so_far
            events.add_metric(labels, so_far.events)
            errors.add_metric(labels, so_far.errors)
            up_to = itertools.accumulate(so_far.latency)
            latency.add_metric(labels, list(zip([*map(str, EDGES_S), "+Inf"], up_to, strict=True)),
                               so_far.latency_sum_s)
            native.native.append(protobuf.Native(
                tuple(zip(SERIES, labels, strict=True)), so_far.latency_sum_s, so_far.fine[ZERO],
                {index: many for index, many in so_far.fine.items() if many and index != ZERO}))
            confidence.add_metric(labels, so_far.confidence_sum)
            confidences.add_metric(labels, so_far.confidence_count)
            newest.add_metric(labels, one.newest_s)
        counted = [CounterMetricFamily(f"streamgauge_model_{name}", text, labels=labels)
                   for name, (text, labels) in _COUNTED.items()]
        for name, family in zip(_COUNTED, counted, strict=True):
            for labels, many in seen.get(name, {}).items():
                family.add_metric(labels, many)
        folded = CounterMetricFamily("streamgauge_model_folded_windows", "Windows counted as <other>: more series than "
                                     "STREAMGAUGE_EXPOSED_SERIES", value=self.folded_windows)
        return [events, errors, latency, native, confidence, confidences, newest, *counted, folded]


_COUNTED: dict[str, tuple[str, tuple[str, ...]]] = {
    "anomalies": ("Anomalous events", SERIES),
    "drift_events": ("Drift events", ("environment", "model", "kind", "state")),
    "alerts": ("Alert transitions", ("environment", "model", "cause", "severity", "state")),
}

#: This process's. On its page as soon as this module is imported; empty until a worker's sink feeds it.
MODELS = ModelMetrics()
REGISTRY.register(MODELS)
