"""drift-events -> retraining-requests, one open a model."""

from __future__ import annotations

from agents.retraining.engine import RetrainingEngine, RetrainingOptions
from schemas.drift import DriftEvent
from streams import metrics
from streams.app import Pipeline
from streams.messages import reader, to_bytes
from streams.records import RecordBatch
from streams.state.checkpoint import Partition
from streams.topics import DRIFT_EVENTS, RETRAINING_REQUESTS

NAME = "retraining"


def register(pipeline: Pipeline) -> None:
    """Add the agent to a worker."""
    engine = RetrainingEngine(RetrainingOptions.from_settings(pipeline.settings))
    topic = pipeline.settings.topic(RETRAINING_REQUESTS.name)
    pipeline.state(NAME, engine.codec)

    async def request(batch: RecordBatch, partition: Partition) -> None:
        for wish in engine.run(batch.decoded(reader(DriftEvent)), partition.states(NAME), batch.topic):
            metrics.RETRAINING_REQUESTS.inc()
            partition.publish(topic, wish.model, to_bytes(wish))

    pipeline.agent(NAME, DRIFT_EVENTS, request)
