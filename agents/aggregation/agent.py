"""telemetry -> metrics: closed windows, and their amendments. Events too late for any window are kept aside."""

from __future__ import annotations

import time

from agents.aggregation.engine import AggregationEngine, AggregationOptions
from streams import metrics
from streams.app import Pipeline
from streams.batch import TelemetryBatch, rejected_record
from streams.messages import to_bytes
from streams.records import RecordBatch
from streams.state.checkpoint import Partition
from streams.topics import METRICS, REJECTED, TELEMETRY
from streams.windows.written import WrittenWindow, written

NAME = "aggregation"
IDLE_CHECK_MS = 500


def register(pipeline: Pipeline) -> None:
    """Add the agent, and the clock that closes windows when traffic stops."""
    settings = pipeline.settings
    engine = AggregationEngine(AggregationOptions.from_settings(settings), written)
    engine.warm()
    topic, aside = settings.topic(METRICS.name), settings.topic(REJECTED.name)
    pipeline.state(NAME, engine.codec)

    async def publish(windows: list[WrittenWindow], partition: Partition) -> None:
        metrics.WINDOWS_CLOSED.inc(len(windows))
        for window in windows:
            partition.publish(topic, window.window_id, window.value)

    async def keep_aside(batch: RecordBatch, events: TelemetryBatch, rows: list[int], partition: Partition) -> None:
        for row in rows:
            metrics.TOO_LATE.inc()
            record = batch.columns.at_offset(int(events.offset[row]))
            kept = rejected_record(
                batch.topic, batch.partition, record, "too_old", "ts",
                f"ts {events.ts_ms[row]} is past its window's grace (STREAMGAUGE_GRACE_MS): counted in no window",
                int(events.position[row]), record.value or b"", settings.max_record_bytes)
            partition.publish(aside, kept.rejected_id, to_bytes(kept))

    async def aggregate(batch: RecordBatch, partition: Partition) -> None:
        events = batch.decoded(pipeline.decode)
        result = engine.run(events, partition.states(NAME), batch.topic, now_ms=int(time.time() * 1000))
        await keep_aside(batch, events, result.too_late.tolist(), partition)
        await publish(result.windows, partition)

    async def idle() -> None:
        for partition in pipeline.partitions:
            behind = pipeline.behind(TELEMETRY, partition.number)
            await publish(engine.idle(partition.states(NAME), int(time.time() * 1000), behind), partition)
        metrics.OPEN_WINDOWS.set(sum(len(owned.states(NAME).live) for owned in pipeline.partitions))

    pipeline.agent(NAME, TELEMETRY, aggregate)
    pipeline.timer(IDLE_CHECK_MS, idle, "idle")
