"""telemetry, feedback, lifecycle-events -> telemetry-rejected: what was refused. A batch is decoded once for all."""

from __future__ import annotations

import time

from schemas.rejected import RejectedRecord
from streams import metrics
from streams.app import Pipeline
from streams.messages import to_bytes
from streams.records import RecordBatch
from streams.state.checkpoint import Partition
from streams.topics import FEEDBACK, LIFECYCLE_EVENTS, REJECTED, TELEMETRY


def register(pipeline: Pipeline) -> None:
    """Add the agents to a worker."""
    topic = pipeline.settings.topic(REJECTED.name)

    async def keep(rejected: list[RejectedRecord], partition: Partition) -> None:
        for record in rejected:
            metrics.REJECTED.labels(record.reason).inc(record.events)
            partition.publish(topic, record.rejected_id, to_bytes(record))

    async def telemetry(batch: RecordBatch, partition: Partition) -> None:
        events = batch.decoded(pipeline.decode)
        metrics.EVENTS.inc(len(events))
        if len(events):
            delay = time.time() - int(events.ts_ms.max()) / 1000
            metrics.WATERMARK_DELAY.labels(str(batch.partition)).set(delay)
        await keep(events.rejected, partition)

    async def feedback(batch: RecordBatch, partition: Partition) -> None:
        found = batch.decoded(pipeline.decode_feedback)
        metrics.FEEDBACK.inc(len(found.labels))
        await keep(found.rejected, partition)

    async def lifecycle(batch: RecordBatch, partition: Partition) -> None:
        await keep(batch.decoded(pipeline.decode_lifecycle).rejected, partition)

    pipeline.agent("ingest", TELEMETRY, telemetry)
    pipeline.agent("ingest.feedback", FEEDBACK, feedback)
    pipeline.agent("ingest.lifecycle", LIFECYCLE_EVENTS, lifecycle)
