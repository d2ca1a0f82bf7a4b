"""Batches for tests of aggregation: events in, decoded as in production."""

from types import SimpleNamespace
from typing import Any

import msgspec

from agents.aggregation.engine import AggregationEngine, AggregationOptions, AggregationResult
from streams.windows.record import WindowRecord
from reference.windows import as_objects
from streams.batch import Decoder, Limits, TelemetryBatch
from streams.records import RecordBatch
from streams.state.keyed import KeyedStates

BASE = 1_700_000_000_000 // 60_000 * 60_000
TOPIC = "telemetry"
OPTIONS = AggregationOptions((1_000, 10_000, 60_000), delay_ms=1_000, grace_ms=30_000, idle_ms=2_000)


def event(ts: int, model: str = "m", **more: Any) -> dict[str, Any]:
    return {"event_id": f"e{ts}", "ts": BASE + ts, "environment": "prod", "model": model, "version": "1", **more}


def batch(events: list[Any], offset: int = 0, partition: int = 0) -> TelemetryBatch:
    """One record an event; a list of events is one record."""
    records = [SimpleNamespace(offset=offset + at, timestamp=0, key=b"", value=msgspec.json.encode(one))
               for at, one in enumerate(events)]
    return Decoder(Limits())(RecordBatch(TOPIC, partition, records))


class World:
    """An engine, one partition's state, and the log so far."""

    def __init__(self, options: AggregationOptions = OPTIONS, changelog: dict[str, bytes] | None = None,
                 offset: int = 0) -> None:
        self.engine = AggregationEngine(options, as_objects)
        self.states: KeyedStates[Any] = KeyedStates("aggregation", 0, self.engine.codec, dict(changelog or {}))
        self.offset = offset

    def run(self, *events: Any, now_ms: int = 1) -> AggregationResult:
        found = batch(list(events), self.offset)
        self.offset += len(events)
        return self.engine.run(found, self.states, TOPIC, now_ms)

    def restarted(self, options: AggregationOptions | None = None) -> "World":
        """After a checkpoint and a restart, perhaps with other settings."""
        self.states.written(self.states.freeze(1))
        return World(options or self.engine.options, dict(self.states.snapshots), self.offset)


def spans(windows: list[WindowRecord]) -> list[tuple[int, int, int, int]]:
    """(size, start, count, revision) of each, times in seconds after BASE."""
    return [(w.size_ms // 1_000, (w.start_ms - BASE) // 1_000, w.count, w.revision) for w in windows]
