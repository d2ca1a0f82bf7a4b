"""anomalies, metrics, drift-events, alert-commands -> alerts: incidents that open, escalate, are acknowledged, resolve.

An alert goes out only after the state that holds it is written: three topics interleave in another way after a crash,
and what people were told must not depend on that. The outbox in the state is published again with the same ids.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from agents.alerts.engine import AlertEngine, AlertOptions
from agents.alerts.ruleset import NONE
from agents.alerts.rulesfile import RulesFile
from schemas.alerts import AlertCommand
from schemas.anomalies import Anomaly
from schemas.drift import DriftEvent
from streams import log, messages, metrics
from streams.app import Pipeline
from streams.messages import reader, to_bytes
from streams.records import RecordBatch
from streams.state.checkpoint import Partition
from streams.topics import ALERT_COMMANDS, ALERTS, ANOMALIES, DRIFT_EVENTS, METRICS

NAME = "alerts"
#: The state that holds silences and rules.
POLICIES = "alerts.policy"
TICK_MS = 1_000
logger = log.get(__name__)


def register(pipeline: Pipeline) -> None:
    """Add the four agents and the clock for silence and escalation."""
    engine = AlertEngine(AlertOptions.from_settings(pipeline.settings))
    topic = pipeline.settings.topic(ALERTS.name)
    pipeline.state(NAME, engine.codec)
    pipeline.state(POLICIES, engine.policy_codec)
    file = RulesFile(pipeline.settings.rules_file)
    engine.base(file.changed() or NONE)
    obeyed: set[Partition] = set()
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
            for alert in waiting:
                out = alert.model_copy(update={"published_ms": int(time.time() * 1000)})
                metrics.ALERTS.labels(out.cause, out.state).inc()
                logger.info("alert.published", alert_id=out.alert_id, state=out.state, title=out.title)
                partition.publish(topic, out.model, to_bytes(out))
            engine.published(states, [alert.alert_id for alert in waiting])

    def ready(partition: Partition) -> Any:
        """The partition's states, with its policy in force."""
        if partition not in obeyed:
            obeyed.intersection_update(pipeline.partitions)
            obeyed.add(partition)
            engine.obey(partition.states(POLICIES))
        return partition.states(NAME)

    async def on_anomalies(batch: RecordBatch, partition: Partition) -> None:
        engine.on_anomalies(batch.decoded(reader(Anomaly)), ready(partition), batch.topic)
        await tell(partition)

    async def on_windows(batch: RecordBatch, partition: Partition) -> None:
        closed = batch.decoded(messages.windows(engine.options.bucket_ms))
        engine.on_windows(closed, ready(partition), batch.topic)
        await tell(partition)

    async def on_drift(batch: RecordBatch, partition: Partition) -> None:
        engine.on_drift(batch.decoded(reader(DriftEvent)), ready(partition), batch.topic)
        await tell(partition)

    async def on_commands(batch: RecordBatch, partition: Partition) -> None:
        engine.on_commands(batch.decoded(reader(AlertCommand)), ready(partition), partition.states(POLICIES),
                           batch.topic)
        await tell(partition)

    async def tick() -> None:
        rules = file.changed()
        if rules is not None:
            engine.base(rules)
            obeyed.clear()
        for partition in pipeline.partitions:
            engine.tick(ready(partition), int(time.time() * 1000))
            await tell(partition)

    pipeline.agent("alerts.anomalies", ANOMALIES, on_anomalies)
    pipeline.agent("alerts.windows", METRICS, on_windows)
    pipeline.agent("alerts.drift", DRIFT_EVENTS, on_drift)
    pipeline.agent("alerts.commands", ALERT_COMMANDS, on_commands)
    pipeline.timer(TICK_MS, tick, "silence")
