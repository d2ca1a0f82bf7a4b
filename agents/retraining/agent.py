"""drift-events, metrics -> retraining-requests, one open a model: written first, then told."""

from __future__ import annotations

import asyncio

from agents.retraining.engine import RetrainingEngine, RetrainingOptions
from schemas.drift import DriftEvent
from streams import messages, metrics
from streams.app import Pipeline
from streams.messages import reader, to_bytes
from streams.records import RecordBatch
from streams.state.checkpoint import Partition
from streams.topics import DRIFT_EVENTS, METRICS, RETRAINING_REQUESTS

NAME = "retraining"


def register(pipeline: Pipeline) -> None:
    """Add both agents to a worker."""
    engine = RetrainingEngine(RetrainingOptions.from_settings(pipeline.settings))
    topic = pipeline.settings.topic(RETRAINING_REQUESTS.name)
    pipeline.state(NAME, engine.codec)
    one_at_a_time = asyncio.Lock()

    async def tell(partition: Partition) -> None:
        states = partition.states(NAME)
        if not engine.outbox(states):
            return
        async with one_at_a_time:
            waiting = engine.outbox(states)
            await pipeline.checkpointer.persist(NAME, partition)
            if partition.closed:
                return
            for wish in waiting:
                metrics.RETRAINING_REQUESTS.inc()
                partition.publish(topic, wish.model, to_bytes(wish))
            engine.published(states, [wish.request_id for wish in waiting])

    async def on_drift(batch: RecordBatch, partition: Partition) -> None:
        engine.on_drift(batch.decoded(reader(DriftEvent)), partition.states(NAME), batch.topic)
        await tell(partition)

    async def on_windows(batch: RecordBatch, partition: Partition) -> None:
        closed = batch.decoded(messages.windows(engine.options.granularity_ms))
        engine.on_windows(closed, partition.states(NAME))
        await tell(partition)

    pipeline.agent("retraining.drift", DRIFT_EVENTS, on_drift)
    pipeline.agent("retraining.windows", METRICS, on_windows)
