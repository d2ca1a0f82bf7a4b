"""What every worker counts, under the names that dashboards and alert rules use."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)

EVENTS = Counter("streamgauge_events", "Telemetry events taken in")
FEEDBACK = Counter("streamgauge_feedback", "Late labels taken in")
REJECTED = Counter("streamgauge_rejected", "Records and events that broke the contract", ["reason"])
BATCH_EVENTS = Histogram("streamgauge_batch_events", "Records a batch", ["topic"], buckets=_SIZES)
STAGE_SECONDS = Histogram("streamgauge_stage_seconds", "Time a batch spends in a stage", ["stage"], buckets=_SECONDS)
WATERMARK_DELAY = Gauge("streamgauge_watermark_delay_seconds", "Wall clock minus the newest event's time",
                        ["partition"])
REREADS = Counter("streamgauge_batch_rereads", "Batches that did not follow on the one before, so that the log was "
                  "read again", ["topic"])
LAG = Gauge("streamgauge_consumer_lag", "Records behind the end of the log", ["topic", "partition"])
SNAPSHOT_BYTES = Gauge("streamgauge_snapshot_bytes", "Bytes written by the last checkpoint")
SNAPSHOT_ROWS = Gauge("streamgauge_snapshot_rows", "Rows written by the last checkpoint")
SNAPSHOT_SECONDS = Histogram("streamgauge_snapshot_seconds", "Time of a checkpoint, from freeze to commit",
                             buckets=_SECONDS)
SNAPSHOT_FREEZE_SECONDS = Histogram("streamgauge_snapshot_freeze_seconds",
                                    "Time in which a checkpoint holds the event loop", buckets=_SECONDS)
OPEN_WINDOWS = Gauge("streamgauge_open_windows", "Panes held in memory")
WINDOWS_CLOSED = Counter("streamgauge_windows_closed", "Windows published, amendments included")
TOO_LATE = Counter("streamgauge_too_late", "Events that came after their window's grace")
BOUNDED = Counter("streamgauge_bounded", "What a bound on windows has acted on: events of series counted as other, "
                  "values of categories counted as <other>, values of fields left out, values of hot features left "
                  "out of sketches", ["what"])
TOO_LATE_LABELS = Counter("streamgauge_too_late_labels", "Late labels of predictions past their window's grace")
DETECTORS = Gauge("streamgauge_detectors", "Detectors held in memory")
DETECTOR_WORTH = Gauge("streamgauge_detector_worth", "Precision, recall and ROC-AUC by the labels so far",
                       ["model", "detector", "measure"])
EVICTED = Counter("streamgauge_detectors_evicted", "Detectors put back to their snapshots to save memory")
RETURNED = Counter("streamgauge_detectors_returned", "Detectors made again from their snapshots")
ANOMALIES = Counter("streamgauge_anomalies", "Anomalous events published")
DRIFT_EVENTS = Counter("streamgauge_drift_events", "Drift events published", ["kind", "state"])
PROFILES = Counter("streamgauge_training_profiles", "Versions' profiles from training taken in")
RETRAINING_REQUESTS = Counter("streamgauge_retraining_requests", "Retraining requests published")
ALERTS = Counter("streamgauge_alerts", "Alert transitions published", ["cause", "state"])
HOOKS = Counter("streamgauge_hook_alerts", "Alerts told to receivers: delivered, failed (a try), undelivered, grouped "
                "(left out, as another of the cause was told), gone (a device that was subscribed to web push)",
                ["hook", "outcome"])
SKIPPED = Counter("streamgauge_skipped", "Internal records that could not be read", ["topic"])
PARTITIONS = Gauge("streamgauge_partitions", "Partitions that this worker owns")
REBALANCES = Counter("streamgauge_rebalances", "Times that partitions were given up")


class Shared:
    """A stage that several tasks may wait in at once: the time in which any of them does is told, once."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._inside = 0
        self._since = 0.0

    def __enter__(self) -> None:
        if not self._inside:
            self._since = time.perf_counter()
        self._inside += 1

    def __exit__(self, *_: object) -> None:
        self._inside -= 1
        if not self._inside:
            STAGE_SECONDS.labels(self._name).observe(time.perf_counter() - self._since)


@contextmanager
def stage(name: str, without: Callable[[], float] = lambda: 0.0) -> Iterator[None]:
    """Time a stage of a batch, less the seconds of another stage within it."""
    start = time.perf_counter()
    try:
        yield
    finally:
        STAGE_SECONDS.labels(name).observe(max(0.0, time.perf_counter() - start - without()))
