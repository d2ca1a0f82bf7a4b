"""metrics, feedback -> drift-events: closed windows and late labels against each version's reference.

telemetry -> drift-events: what is joint, with STREAMGAUGE_DRIFT_JOINT.
"""

from __future__ import annotations

from dataclasses import replace

from agents.drift.engine import DriftEngine, DriftOptions
from agents.drift.joint import BUDGET_SHARE, JointEngine
from agents.drift.performance import PerformanceEngine
from schemas.drift import DriftEvent
from streams import messages, metrics
from streams.app import Pipeline
from streams.messages import to_bytes
from streams.records import RecordBatch
from streams.state.checkpoint import Partition
from streams.topics import DRIFT_EVENTS, FEEDBACK, METRICS, TELEMETRY

NAME = "drift"
LABELS = "performance"
JOINT = "joint"


def register(pipeline: Pipeline) -> None:
    """Add both agents to a worker."""
    options = DriftOptions.from_settings(pipeline.settings)
    joint = JointEngine(options) if pipeline.settings.drift_joint else None
    left = options.budget_per_day * (1.0 - (BUDGET_SHARE if joint else 0.0))
    windows, labels = DriftEngine(replace(options, budget_per_day=left)), PerformanceEngine(options)
    topic = pipeline.settings.topic(DRIFT_EVENTS.name)
    pipeline.state(NAME, windows.codec)
    pipeline.state(LABELS, labels.codec)

    async def publish(events: list[DriftEvent], partition: Partition) -> None:
        for event in events:
            metrics.DRIFT_EVENTS.labels(event.kind, event.state).inc()
            partition.publish(topic, event.model, to_bytes(event))

    async def drift(batch: RecordBatch, partition: Partition) -> None:
        closed = batch.decoded(messages.windows(options.granularity_ms))
        await publish(windows.run(closed, partition.states(NAME), batch.topic, batch.partition), partition)

    async def performance(batch: RecordBatch, partition: Partition) -> None:
        truths = batch.decoded(pipeline.decode_feedback).labels
        await publish(labels.run(truths, partition.states(LABELS), batch.topic, batch.partition), partition)

    pipeline.agent(NAME, METRICS, drift)
    pipeline.agent(LABELS, FEEDBACK, performance)
    if joint is None:
        return
    joint.warm()
    pipeline.state(JOINT, joint.codec)

    async def inputs(batch: RecordBatch, partition: Partition) -> None:
        await publish(joint.run(batch.decoded(pipeline.decode), partition.states(JOINT), batch.topic), partition)

    pipeline.agent(JOINT, TELEMETRY, inputs)
