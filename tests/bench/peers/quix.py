"""Quix Streams as its documentation shows it: a StreamingDataFrame, pydantic, River's half-space trees, three windows.

The same work as the Faust tutorial: each event is validated, scored and learnt by the trees of its model, and counted
with its latency's sum in tumbling windows of 1, 10 and 60 seconds, which are state in RocksDB with a changelog.
Differs: windows are by the event's time, and their results are not sent on.

Prints one line of JSON when it has seen PEER_EVENTS events: {"events": n, "seconds": s}.
"""

import json
import os
import sys
import time

from quixstreams import Application
from river import anomaly

from schemas.telemetry import TelemetryEvent

WANTED = int(os.environ["PEER_EVENTS"])
app = Application(broker_address=os.environ["PEER_BROKER"], consumer_group="quix", auto_offset_reset="earliest",
                  state_dir="quix-state", loglevel="WARNING")
telemetry = app.topic(os.environ["PEER_TOPIC"], value_deserializer="bytes", key_deserializer="str",
                      timestamp_extractor=lambda value, headers, timestamp, kind: timestamp)
detectors: dict[str, anomaly.HalfSpaceTrees] = {}
seen = 0
started = 0.0


def watch(value: bytes) -> dict[str, float]:
    """Validate, score, learn."""
    global seen, started
    started = started or time.perf_counter()
    event = TelemetryEvent.model_validate_json(value)
    detector = detectors.get(event.model)
    if detector is None:
        detector = detectors[event.model] = anomaly.HalfSpaceTrees(n_trees=25, height=8, seed=42)
    score = detector.score_one(event.features)
    detector.learn_one(event.features)
    return {"score": score, "latency": event.latency_ms or 0.0}


def count(_: object) -> None:
    """The last step of an event: after its last window."""
    global seen
    seen += 1
    if seen == WANTED:
        print(json.dumps({"events": seen, "seconds": time.perf_counter() - started}), file=sys.__stdout__, flush=True)
        os._exit(0)


events = app.dataframe(telemetry).apply(watch)
for size in (1_000, 10_000, 60_000):
    last = events.tumbling_window(size, grace_ms=60_000).reduce(
        reducer=lambda window, value: {"count": window["count"] + 1, "latency": window["latency"] + value["latency"]},
        initializer=lambda value: {"count": 1, "latency": value["latency"]}).current()
last.update(count)

if __name__ == "__main__":
    app.run()
