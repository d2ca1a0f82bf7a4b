"""Bytewax as its documentation shows it: a dataflow from Kafka, pydantic, River's half-space trees, three windows.

The same work as the Faust tutorial: each event is validated, scored and learnt by the trees of its model, and counted
with its latency's sum in tumbling windows of 1, 10 and 60 seconds of event time. Differs: state is in memory only (no
recovery store is set), and the windows' results are not sent on.

Prints one line of JSON when it has seen PEER_EVENTS events: {"events": n, "seconds": s}.
"""

import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta

import bytewax.operators as op
import bytewax.operators.windowing as win
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.run import cli_main
from confluent_kafka import OFFSET_BEGINNING
from river import anomaly

from schemas.telemetry import TelemetryEvent

WANTED = int(os.environ["PEER_EVENTS"])
ALIGNED = datetime(2020, 1, 1, tzinfo=UTC)
started = 0.0
seen = 0


def parse(message: KafkaSourceMessage) -> tuple[str, TelemetryEvent]:
    """Validate."""
    global started
    started = started or time.perf_counter()
    event = TelemetryEvent.model_validate_json(message.value)
    return event.model, event


def watch(detector: anomaly.HalfSpaceTrees | None, event: TelemetryEvent) -> tuple[anomaly.HalfSpaceTrees, object]:
    """Score, learn."""
    detector = detector or anomaly.HalfSpaceTrees(n_trees=25, height=8, seed=42)
    score = detector.score_one(event.features)
    detector.learn_one(event.features)
    return detector, (event.ts, event.latency_ms or 0.0, score)


def count(_: object) -> None:
    """An event has been through the trees."""
    global seen
    seen += 1
    if seen == WANTED:
        print(json.dumps({"events": seen, "seconds": time.perf_counter() - started}), file=sys.__stdout__, flush=True)
        os._exit(0)


class _Count(StatelessSinkPartition):
    def write_batch(self, items: list[object]) -> None:
        for item in items:
            count(item)


class Count(DynamicSink):
    """Where every event ends."""

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Count:
        return _Count()


class _Nothing(StatelessSinkPartition):
    def write_batch(self, items: list[object]) -> None:
        pass


class Nothing(DynamicSink):
    """Where closed windows end."""

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Nothing:
        return _Nothing()


flow = Dataflow("peer")
messages = op.input("telemetry", flow, KafkaSource([os.environ["PEER_BROKER"]], [os.environ["PEER_TOPIC"]],
                                                   starting_offset=OFFSET_BEGINNING, tail=True, batch_size=1_000))
scored = op.stateful_map("score", op.map("parse", messages, parse), watch)
clock = win.EventClock(lambda value: datetime.fromtimestamp(value[0] / 1000, UTC),
                       wait_for_system_duration=timedelta(seconds=60))
for size in (1, 10, 60):
    windows = win.fold_window(f"window-{size}", scored, clock,
                              win.TumblingWindower(length=timedelta(seconds=size), align_to=ALIGNED),
                              lambda: (0, 0.0), lambda sums, value: (sums[0] + 1, sums[1] + value[1]),
                              lambda sums, more: (sums[0] + more[0], sums[1] + more[1]))
    op.output(f"closed-{size}", windows.down, Nothing())
op.output("count", scored, Count())

if __name__ == "__main__":
    cli_main(flow)
