"""Faust as its tutorial shows it: one event at a time, a pydantic model, River's half-space trees, three windows.

Prints one line of JSON when it has seen PEER_EVENTS events: {"events": n, "seconds": s}.
"""

import json
import os
import sys
import time

import faust
from river import anomaly

from schemas.telemetry import TelemetryEvent

WANTED = int(os.environ["PEER_EVENTS"])
app = faust.App("tutorial", broker=f"kafka://{os.environ['PEER_BROKER']}", store="memory://", web_enabled=False,
                topic_partitions=4, value_serializer="raw", consumer_auto_offset_reset="earliest",
                topic_disable_leader=True)
telemetry = app.topic(os.environ["PEER_TOPIC"], value_type=bytes)
tables = [app.Table(f"window-{size}", default=float).tumbling(size, expires=600) for size in (1.0, 10.0, 60.0)]
detectors: dict[str, anomaly.HalfSpaceTrees] = {}
seen = 0
started = 0.0


@app.agent(telemetry)
async def watch(stream):
    global seen, started
    async for value in stream:
        started = started or time.perf_counter()
        event = TelemetryEvent.model_validate_json(value)
        detector = detectors.get(event.model)
        if detector is None:
            detector = detectors[event.model] = anomaly.HalfSpaceTrees(n_trees=25, height=8, seed=42)
        detector.score_one(event.features)
        detector.learn_one(event.features)
        for table in tables:
            table[f"{event.model}|count"] += 1
            table[f"{event.model}|latency"] += event.latency_ms
        seen += 1
        if seen == WANTED:
            print(json.dumps({"events": seen, "seconds": time.perf_counter() - started}),
                  file=sys.__stdout__, flush=True)       # Faust sends sys.stdout to its log
            os._exit(0)


if __name__ == "__main__":
    app.main()
