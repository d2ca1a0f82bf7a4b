"""What the events and windows of a load cost as bytes alone: the floor under what a worker takes.

Windows go as JSON over the log, where drift and alerts read them. So every worker of this design reads each event once,
writes each window once and reads it once. That is taken here with nothing else: names known, no state, no detector.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from agents.aggregation.engine import AggregationEngine, AggregationOptions
from streams.batch import Decoder
from streams.records import RecordBatch
from streams.settings import Settings
from streams.state.keyed import KeyedStates
from streams.windows.record import read_window
from streams.windows.written import written
from streams.wire import WireRecord
from tests.bench.load import Item

BATCH = 10_000
RUNS = 3


def floor(load: Sequence[Item]) -> dict[str, float]:
    """Microseconds an event, by what they go to, and `events_per_s` if nothing else cost."""
    records = [WireRecord(at, 0, *item) for at, item in enumerate(load)]
    batches = [RecordBatch("telemetry", 0, records[at:at + BATCH]) for at in range(0, len(load), BATCH)]
    windows = _windows(batches)
    decode, loose = Decoder(), msgspec.json.Decoder()
    encode, values = msgspec.json.Encoder().encode, [loose.decode(window) for window in windows]

    def read_events() -> None:
        for batch in batches:
            decode(batch)

    read_events()                       # names are new once
    found = {name: round(_seconds(run) / len(load) * 1e6, 3) for name, run in (
        ("events_read", read_events), ("windows_written", lambda: [encode(value) for value in values]),
        ("windows_read", lambda: [read_window(window) for window in windows]))}
    return found | {"events_per_s": round(1e6 / sum(found.values()))}


def _windows(batches: Sequence[RecordBatch]) -> list[bytes]:
    """The windows that close."""
    engine, decode = AggregationEngine(AggregationOptions(Settings().granularities_ms), written), Decoder()
    states = KeyedStates("aggregation", 0, engine.codec, {})
    return [bytes(window.value) for batch in batches
            for window in engine.run(decode(batch), states, "telemetry").windows]


def _seconds(run: Callable[[], object]) -> float:
    """The least of some runs, as it is a floor."""
    return min(_once(run) for _ in range(RUNS))


def _once(run: Callable[[], object]) -> float:
    began = time.thread_time()
    run()
    return time.thread_time() - began
