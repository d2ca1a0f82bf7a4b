"""telemetry -> telemetry-rejected. The batch is decoded once for all agents; this one keeps what was refused."""

from __future__ import annotations

import time

from streams import metrics
from streams.app import Pipeline
from streams.records import RecordBatch
from streams.state.checkpoint import Partition
from streams.topics import REJECTED, TELEMETRY


def register(pipeline: Pipeline) -> None:
    """Add the agent to a worker."""
    topic = pipeline.settings.topic(REJECTED.name)

    async def ingest(batch: RecordBatch, partition: Partition) -> None:
        with metrics.stage("decode"):
            events = batch.decoded(pipeline.decode)
        metrics.EVENTS.inc(len(events))
        for record in events.rejected:
            metrics.REJECTED.labels(record.reason).inc()
            await partition.publish(topic, record.rejected_id, record.model_dump_json().encode(), batch.partition)
        if len(events):
            delay = time.time() - int(events.ts_ms.max()) / 1000
            metrics.WATERMARK_DELAY.labels(str(batch.partition)).set(delay)

    pipeline.agent("ingest", TELEMETRY, ingest)
