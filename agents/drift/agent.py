"""metrics, feedback -> drift-events: closed windows and late labels against each version's reference.

lifecycle-events: the references that versions bring from training. telemetry: sums of segments, with
STREAMGAUGE_SEGMENT_KEYS, in which a drift is located; and what is joint, with STREAMGAUGE_DRIFT_JOINT.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from agents.drift.engine import DriftEngine, DriftOptions
from agents.drift.joint import BUDGET_SHARE, JointEngine
from agents.drift.performance import PerformanceEngine
from agents.drift.profiles import Codec as ProfilesCodec
from agents.drift.profiles import Profiles
from agents.drift.segments import SegmentEngine
from schemas.drift import DriftEvent
from streams import messages, metrics
from streams.app import Pipeline
from streams.messages import to_bytes
from streams.records import RecordBatch
from streams.state.checkpoint import Partition
from streams.topics import DRIFT_EVENTS, FEEDBACK, LIFECYCLE_EVENTS, METRICS, TELEMETRY
from streams.windows.closed import ClosedWindow

NAME = "drift"
#: The agent that makes windows.
WINDOWS = "aggregation"
LABELS = "performance"
JOINT = "joint"
PROFILES = "drift.profiles"
SEGMENTS = "drift.segments"
#: Longest that windows wait for the events that they are made of to be in the sums of segments; and how long, if all
#: events seem to be there.
WAIT_SECONDS, LEVEL_SECONDS, STEP_SECONDS = 10.0, 0.25, 0.005


def register(pipeline: Pipeline) -> None:
    """Add the agents to a worker."""
    options = DriftOptions.from_settings(pipeline.settings)
    joint = JointEngine(options) if pipeline.settings.drift_joint else None
    left = options.budget_per_day * (1.0 - (BUDGET_SHARE if joint else 0.0))
    windows, labels = DriftEngine(replace(options, budget_per_day=left)), PerformanceEngine(options)
    windows.warm()
    topic = pipeline.settings.topic(DRIFT_EVENTS.name)
    pipeline.state(NAME, windows.codec)
    pipeline.state(LABELS, labels.codec)
    pipeline.state(PROFILES, ProfilesCodec())
    one_at_a_time = asyncio.Lock()
    segments = SegmentEngine(pipeline.settings.segment_keys, pipeline.settings.watermark_delay_ms, options) \
        if pipeline.settings.segment_keys else None

    def profiles_of(partition: Partition) -> Profiles:
        return Profiles(partition.states(PROFILES))

    async def publish(events: list[DriftEvent], partition: Partition) -> None:
        for event in events:
            metrics.DRIFT_EVENTS.labels(event.kind, event.state).inc()
            partition.publish(topic, event.model, to_bytes(event))

    async def drift(batch: RecordBatch, partition: Partition) -> None:
        closed = batch.decoded(messages.windows(options.granularity_ms))
        if segments is not None:
            await sums_are_there(closed, partition)
        async with one_at_a_time:
            found = windows.run(closed, partition.states(NAME), batch.topic, batch.partition, profiles_of(partition))
            if segments is not None and found:
                found = [segments.located(event, partition.states(SEGMENTS)) for event in found]
            await publish(found, partition)

    async def sums_are_there(closed: list[tuple[int, ClosedWindow]], partition: Partition) -> None:
        """Wait until the sums of segments have the events that closed these windows.

        Windows that a clock has closed are later than all events: then it is enough that both agents have been through
        with the same events for a while. After a restart nobody knows that, and the wait is bounded.
        """
        states, closed_ms = partition.states(SEGMENTS), max((window.closed_ms for _, window in closed), default=0)
        waited = level = 0.0
        while (waited < WAIT_SECONDS and level < LEVEL_SECONDS and not partition.closed
               and SegmentEngine.newest_ms(states) < closed_ms):
            await asyncio.sleep(STEP_SECONDS)
            done, wanted = (pipeline.done(agent, TELEMETRY, partition.number) for agent in (SEGMENTS, WINDOWS))
            waited, level = waited + STEP_SECONDS, level + STEP_SECONDS if done >= wanted >= 0 else 0.0

    async def add_up(batch: RecordBatch, partition: Partition) -> None:
        assert segments is not None
        segments.run(batch.decoded(pipeline.decode), partition.states(SEGMENTS), batch.topic)

    async def trained(batch: RecordBatch, partition: Partition) -> None:
        """Profiles count from the end of `metrics` on; no window is judged until that is written."""
        profiles = profiles_of(partition)
        async with one_at_a_time:
            new = profiles.new(batch.decoded(pipeline.decode_lifecycle).events, batch.topic)
            if new:
                end = await pipeline.end(METRICS, batch.partition)
                metrics.PROFILES.inc(profiles.take(new, batch.topic, end))
                await pipeline.checkpointer.persist(PROFILES, partition)

    async def performance(batch: RecordBatch, partition: Partition) -> None:
        truths = batch.decoded(pipeline.decode_feedback).labels
        await publish(labels.run(truths, partition.states(LABELS), batch.topic, batch.partition), partition)

    pipeline.agent(NAME, METRICS, drift)
    pipeline.agent(LABELS, FEEDBACK, performance)
    pipeline.agent(PROFILES, LIFECYCLE_EVENTS, trained)
    if segments is not None:
        segments.warm()
        pipeline.state(SEGMENTS, segments.codec)
        pipeline.agent(SEGMENTS, TELEMETRY, add_up)
    if joint is None:
        return
    joint.warm()
    pipeline.state(JOINT, joint.codec)

    async def inputs(batch: RecordBatch, partition: Partition) -> None:
        await publish(joint.run(batch.decoded(pipeline.decode), partition.states(JOINT), batch.topic), partition)

    pipeline.agent(JOINT, TELEMETRY, inputs)
