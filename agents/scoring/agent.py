"""telemetry -> anomalies. Score before learning (prequential); publish under the same key, so order holds.

feedback -> what each detector is worth, and its weight in the ensemble, with STREAMGAUGE_FOLLOW_LABELS.
"""

from __future__ import annotations

from agents.scoring.engine import ScoringEngine, ScoringOptions
from streams import metrics
from streams.app import Pipeline
from streams.messages import to_bytes
from streams.records import RecordBatch
from streams.state.checkpoint import Partition
from streams.topics import ANOMALIES, FEEDBACK, TELEMETRY

NAME = "scoring"
LABELS = "scoring.labels"
MAKE_ROOM_MS = 1_000


def register(pipeline: Pipeline) -> None:
    """Add the agent to a worker; compiles the kernels first."""
    engine = ScoringEngine(ScoringOptions.from_settings(pipeline.settings))
    engine.warm()
    topic = pipeline.settings.topic(ANOMALIES.name)
    pipeline.state(NAME, engine.codec)

    async def score(batch: RecordBatch, partition: Partition) -> None:
        states = partition.states(NAME)
        for anomaly in engine.run(batch.decoded(pipeline.decode), states, batch.topic):
            metrics.ANOMALIES.inc()
            partition.publish(topic, anomaly.model, to_bytes(anomaly))

    async def make_room() -> None:
        held = [owned.states(NAME) for owned in pipeline.partitions]
        for states in held:
            metrics.EVICTED.inc(states.shrink(pipeline.settings.max_detectors // len(held)))
            metrics.RETURNED.inc(states.returned)
            states.returned = 0
        metrics.DETECTORS.set(sum(len(states.live) for states in held))

    async def labels(batch: RecordBatch, partition: Partition) -> None:
        truths = batch.decoded(pipeline.decode_feedback).labels
        for model, by in engine.learn_labels(truths, partition.states(NAME), batch.topic).items():
            for detector, worth in by.items():
                for measure in ("precision", "recall", "roc_auc"):
                    value = getattr(worth, measure)
                    if value is not None:
                        metrics.DETECTOR_WORTH.labels(model, detector, measure).set(value)

    pipeline.agent(NAME, TELEMETRY, score)
    if engine.options.follow_labels:
        pipeline.agent(LABELS, FEEDBACK, labels)
    pipeline.timer(MAKE_ROOM_MS, make_room, "make room")
