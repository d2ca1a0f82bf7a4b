"""telemetry -> metrics, metrics-levels: closed windows, and their amendments. Events too late for any window are kept
aside. feedback -> metrics-levels: windows of late labels.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

from agents.aggregation import projection
from agents.aggregation.beside import Beside, BesideLabels, Cap, of_telemetry
from agents.aggregation.engine import AggregationEngine, AggregationOptions
from agents.aggregation.idling import IdleClock
from schemas.rejected import Reason
from streams import metrics
from streams.app import Pipeline
from streams.batch import TelemetryBatch, rejected_record
from streams.messages import to_bytes
from streams.records import RecordBatch
from streams.state.checkpoint import Partition
from streams.topics import FEEDBACK, LEVELS, METRICS, REJECTED, TELEMETRY
from streams.windows.written import WrittenWindow, written

NAME = "aggregation"
LABELS = "aggregation.labels"
IDLE_CHECK_MS = 500


def register(pipeline: Pipeline) -> None:
    """Add the agents, and the clock that closes windows when traffic stops."""
    settings = pipeline.settings
    engine = AggregationEngine(AggregationOptions.from_settings(settings), written)
    engine.warm()
    projection.warm()
    beside, of_labels, cap = of_telemetry(settings), BesideLabels(settings), Cap(settings)
    topic, levels, aside = (settings.topic(row.name) for row in (METRICS, LEVELS, REJECTED))
    pipeline.state(NAME, engine.codec)
    pipeline.state(cap.name, cap.names.codec)
    kept_out, clock = Counter[str](), IdleClock(IDLE_CHECK_MS)
    everything: list[Beside | BesideLabels] = [*beside, of_labels]
    for name, codec in [state for one in everything for state in one.states()]:
        pipeline.state(name, codec)

    def publish(windows: Sequence[WrittenWindow], partition: Partition, to: str = topic) -> None:
        metrics.WINDOWS_CLOSED.inc(len(windows))
        partition.publish_all(to, windows)

    def keep_aside(batch: RecordBatch, offset: int, position: int, reason: Reason, field: str, message: str,
                   partition: Partition) -> None:
        record = batch.columns.at_offset(offset)
        kept = rejected_record(batch.topic, batch.partition, record, reason, field, message, position,
                               record.value or b"", settings.max_record_bytes)
        partition.publish(aside, kept.rejected_id, to_bytes(kept))

    def too_late(batch: RecordBatch, events: TelemetryBatch, rows: list[int], partition: Partition) -> None:
        for row in rows:
            metrics.TOO_LATE.inc()
            keep_aside(batch, int(events.offset[row]), int(events.position[row]), "too_old", "ts",
                       f"ts {events.ts_ms[row]} is past its window's grace (STREAMGAUGE_GRACE_MS): counted in no "
                       "window", partition)

    def bounded(folded: int) -> None:
        """Count what bounds have kept out since the last time."""
        metrics.BOUNDED.labels("series").inc(folded)
        taken_in = engine.intake
        for what, so_far in (("categories", taken_in.folded_values), ("fields", taken_in.ignored_values),
                             ("sketches", taken_in.unsketched_values)):
            metrics.BOUNDED.labels(what).inc(so_far - kept_out[what])
            kept_out[what] = so_far

    async def aggregate(batch: RecordBatch, partition: Partition) -> None:
        events, now_ms = batch.decoded(pipeline.decode), clock.now_ms
        states = partition.states(NAME)
        plain, folded = cap(projection.without_segments(events) if settings.segment_keys else events, partition)
        result = engine.run(plain, states, batch.topic, now_ms)
        bounded(folded)
        too_late(batch, events, result.too_late.tolist(), partition)
        publish(result.windows, partition)
        for one in beside:
            publish(one.run(events, partition, batch.topic, now_ms).windows, partition, levels)

    async def judge(batch: RecordBatch, partition: Partition) -> None:
        found = batch.decoded(pipeline.decode_feedback).labels
        windows, late, ahead = of_labels.run(batch, found, partition, clock.now_ms)
        publish(windows, partition, levels)
        metrics.TOO_LATE_LABELS.inc(len(late))
        for offset in late:
            keep_aside(batch, offset, -1, "too_old", "predicted_at", "the prediction is past its window's grace "
                       "(STREAMGAUGE_LABEL_GRACE_MS): the label is counted in no window", partition)
        for offset in ahead:
            keep_aside(batch, offset, -1, "from_future", "ts", "the label is of a later time than when it came "
                       "(STREAMGAUGE_MAX_AHEAD_MS): it is counted in no window", partition)

    def amend(partition: Partition) -> None:
        publish(engine.amend(partition.states(NAME)), partition)
        for one in everything:
            publish(one.amend(partition), partition, levels)

    async def idle() -> None:
        now_ms = clock.looked(int(time.monotonic() * 1000))
        for partition in pipeline.partitions:
            await asyncio.sleep(0)      # each may have much to amend
            if partition.closed:
                continue
            behind = pipeline.behind(NAME, TELEMETRY, partition.number)
            publish(engine.idle(partition.states(NAME), now_ms, behind), partition)
            for one in beside:
                publish(one.idle(partition, now_ms, behind), partition, levels)
            behind = pipeline.behind(LABELS, FEEDBACK, partition.number)
            publish(of_labels.idle(partition, now_ms, behind), partition, levels)
        metrics.OPEN_WINDOWS.set(sum(len(owned.states(name).live) for owned in pipeline.partitions
                                     for name in (NAME, *(level.name for level in everything))))

    pipeline.agent(NAME, TELEMETRY, aggregate)
    if settings.label_windows:
        pipeline.agent(LABELS, FEEDBACK, judge)
    pipeline.checkpointer.before(amend)
    pipeline.timer(IDLE_CHECK_MS, idle, "idle")
