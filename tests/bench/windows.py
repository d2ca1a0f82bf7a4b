"""Windows: what aggregation costs with 1, 3 and 6 granularities, and with environments and a segment beside the series;
what a series holds, and how long questions take.

Aggregation alone: the reference load, decoded before, 10,000 events a second of event time, then every window closed;
the engine in this process, windows written as JSON. The runs take turns, and the best of each is shown. The load is a
minute, so each window of 10 min, 1 h and 1 d pays for itself by a minute's events only; ten such minutes, one after the
other, are shown beside it, which is nearer to what a worker has. `cost_of_six` is the share of the events/s with one
granularity that are lost with six.
A series: what Python and NumPy hold for it when its windows are open, by tracemalloc.
Questions: by HTTP to a gateway of its own, over ten million stored windows of six sizes, each with five numbers.
"""

from __future__ import annotations

import gc
import random
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from agents.aggregation.beside import of_telemetry
from agents.aggregation.engine import AggregationEngine, AggregationOptions
from streams.batch import Decoder, Limits, TelemetryBatch
from streams.garbage import THRESHOLDS
from streams.records import RecordBatch
from streams.settings import Settings
from streams.state.checkpoint import Partition
from streams.state.keyed import KeyedStates
from streams.windows.written import WrittenWindow, written
from streams.wire import WireRecord
from tests.bench.load import events
from tests.bench.stored import DAYS, SIZES, Stored, stored
from tests.bench.world import machine

GRANULARITIES = {1: SIZES[:1], 3: SIZES[:3], 6: SIZES}
EVENTS = {True: 60_000, False: 600_000}
TURNS = {True: 1, False: 5}
MINUTES, LONG_TURNS = {True: 2, False: 10}, {True: 1, False: 2}
BATCH = 5_000
EVENTS_PER_MS = 10
SERIES = {True: 100, False: 1_000}
STORED = {True: 100_000, False: 10_000_000}
QUESTIONS = {True: 10, False: 100}
DAY_MS = 86_400_000


def main(quick: bool) -> dict[str, Any]:
    """Run, print a table, return the figures."""
    rates = _aggregation(quick)
    alone = {many: rate for many, rate in rates.items() if many.isdecimal()}
    held = {str(many): _held(sizes, SERIES[quick]) for many, sizes in GRANULARITIES.items()}
    with tempfile.TemporaryDirectory() as folder, stored(Path(folder), STORED[quick]) as found:
        times = {name: _asked(found, query, QUESTIONS[quick]) for name, query in _QUESTIONS.items()}
        about = {"stored_windows": found.windows, "stored_bytes": found.size_bytes,
                 "written_windows_per_s": round(found.written_per_s), "series": len(found.series)}
    longer = f"{MINUTES[quick]} minutes"
    cost = {span: round(1 - rates["6" + also] / rates["1" + also], 3) for span, also in (
        ("1 minute", ""), (longer, f", {longer}"))}
    figures = {"events_per_s": alone, "cost_of_six": cost, "events_per_s_beside": rates, "bytes_per_series": held["6"],
               "bytes_per_series_by": held, "query_p95_ms": times["24 h chart"]["p95_ms"], "queries": times, **about}
    _print(figures)
    return {"bench": "windows", "quick": quick, "machine": machine(), "events": EVENTS[quick]} | figures


# -- aggregation -------------------------------------------------------------------------------------------------------

def _beside(batches: list[TelemetryBatch], settings: Settings) -> float:
    """Seconds of the processor for windows beside those of three granularities."""
    levels = of_telemetry(settings)
    codecs: Any = dict(state for one in levels for state in one.states())
    partition = Partition(0, 1, _Nothing(), codecs, _Nothing())     # type: ignore[arg-type]
    began = time.process_time()
    for batch in batches:
        for one in levels:
            one.run(batch, partition, "telemetry", 1)
    return time.process_time() - began


class _Nothing:
    """No rows, and nowhere to send any."""

    def view(self, number: int, agent: str) -> dict[str, bytes]:
        return {}


def _in_segments(batches: list[TelemetryBatch]) -> list[TelemetryBatch]:
    """The same, each event of one of ten countries."""
    found = []
    for batch in batches:
        rows, names = len(batch), [f"segment.country={at}" for at in range(10)]
        value = np.insert(batch.value, batch.start[1:], 1.0)
        field = np.insert(batch.field, batch.start[1:], len(batch.fields) + np.arange(rows, dtype=np.int32) % 10)
        found.append(replace(batch, start=batch.start + np.arange(rows + 1), field=field, value=value,
                             fields=[*batch.fields, *names]))
    return found


def _batches(count: int, models: int) -> list[TelemetryBatch]:
    """The load as decoded batches, its time stretched."""
    decode, load = Decoder(Limits()), events(count, models)
    start = int(time.time() * 1000)
    found = []
    for first in range(0, count, BATCH):
        records = [WireRecord(first + at, 0, key, value) for at, (key, value) in enumerate(load[first:first + BATCH])]
        batch = decode(RecordBatch("telemetry", 0, records))
        assert len(batch) == len(records)
        batch.ts_ms = start + (first + np.arange(len(batch), dtype=np.int64)) // EVENTS_PER_MS
        found.append(batch)
    return found


def _last(batch: TelemetryBatch) -> TelemetryBatch:
    """One batch much later: it closes every window."""
    records = [WireRecord(batch.last_offset + 1, 0, b"m", events(1)[0][1])]
    late = Decoder(Limits())(RecordBatch("telemetry", 0, records))
    late.ts_ms = batch.ts_ms[-1:] + 3 * DAY_MS
    return late


def _engine(sizes: tuple[int, ...]) -> tuple[AggregationEngine[WrittenWindow], KeyedStates[Any]]:
    engine = AggregationEngine(AggregationOptions(sizes), written)
    engine.warm()
    return engine, KeyedStates("aggregation", 0, engine.codec, {})


def _aggregation(quick: bool) -> dict[str, int]:
    batches = _batches(EVENTS[quick], 50)
    batches.append(_last(batches[-1]))
    of_countries = _in_segments(batches)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)          # as in a worker
    best: dict[str, float] = {}
    three = 0.0
    for _ in range(TURNS[quick]):
        for many, sizes in GRANULARITIES.items():
            taken = _taken(batches, sizes)
            best[str(many)] = max(best.get(str(many), 0.0), EVENTS[quick] / taken)
            if many == 3:
                three = taken
        for name, load, settings in (("3 and environments", batches, Settings(segment_keys=())),
                                     ("3 and a segment", of_countries, Settings(segment_keys=("country",),
                                                                                environment_windows=False))):
            taken = three + _beside(load, settings)
            best[name] = max(best.get(name, 0.0), EVENTS[quick] / taken)
    longer = _again_and_again(batches[:-1], MINUTES[quick])
    for _ in range(LONG_TURNS[quick]):
        for many in (min(GRANULARITIES), max(GRANULARITIES)):
            name, count = f"{many}, {MINUTES[quick]} minutes", EVENTS[quick] * MINUTES[quick]
            best[name] = max(best.get(name, 0.0), count / _taken(longer, GRANULARITIES[many]))
    return {many: round(rate) for many, rate in best.items()}


def _taken(batches: list[TelemetryBatch], sizes: tuple[int, ...]) -> float:
    """Seconds of the processor for windows of these sizes."""
    engine, states = _engine(sizes)
    began = time.process_time()
    closed = sum(len(engine.run(batch, states, "telemetry").windows) for batch in batches)
    taken = time.process_time() - began
    assert closed > 0
    return taken


def _again_and_again(batches: list[TelemetryBatch], times: int) -> list[TelemetryBatch]:
    """The same load so many times, one after the other in time and in the log, then what closes every window."""
    records = batches[-1].last_offset + 1
    found = [replace(batch, first_offset=batch.first_offset + past, last_offset=batch.last_offset + past,
                     offset=batch.offset + past, ts_ms=batch.ts_ms + past // EVENTS_PER_MS)
             for past in range(0, times * records, records) for batch in batches]
    return [*found, _last(found[-1])]


def _held(sizes: tuple[int, ...], series: int) -> int:
    """Bytes of a series: two seconds of ten events each, its windows open."""
    engine, states = _engine(sizes)
    batches = _batches(20 * series, series)
    for batch in batches:
        batch.ts_ms = batch.ts_ms[0] - batch.ts_ms[0] % 60_000 + (np.arange(len(batch)) * 2_000 // len(batch))
    seen = len({key for batch in batches for key in batch.keys})
    gc.collect()
    tracemalloc.start()
    for batch in batches:
        engine.run(batch, states, "telemetry")
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return round(held / seen)


# -- questions ---------------------------------------------------------------------------------------------------------

Query = dict[str, str | int]
#: Name -> the query, given a series and the start of a day in which it has windows.
_QUESTIONS: dict[str, Callable[[dict[str, str], int], Query]] = {
    "24 h chart": lambda series, start: series | {"from": start, "to": start + DAY_MS, "field": "latency_ms"},
    "24 h chart by the minute": lambda series, start: series | {
        "from": start, "to": start + DAY_MS, "field": "latency_ms", "granularity_ms": 60_000, "limit": 2_000},
    "1 h chart, all versions": lambda series, start: {
        "environment": series["environment"], "model": series["model"], "from": start, "to": start + DAY_MS // 24,
        "field": "latency_ms"},
    "24 h, two versions compared": lambda series, start: series | {
        "from": start, "to": start + DAY_MS, "field": "latency_ms", "version": "1", "compare_version": "2"},
    "24 h, the fleet's counts by model": lambda series, start: {
        "environment": "*", "from": start, "to": start + DAY_MS, "field": "none", "group_by": "model",
        "limit": 10_000},
}


def _asked(found: Stored, query: Callable[[dict[str, str], int], Query], many: int) -> dict[str, float]:
    """Times of questions about series and days at random; all answers have points."""
    rng, taken, points = random.Random(7), [], 0
    with httpx.Client(base_url=found.page, headers=found.headers, trust_env=False, timeout=60) as client:
        for _ in range(many):
            start = found.first_ms + rng.randrange(0, max(1, (DAYS - 1) * DAY_MS), 600_000)
            asked = query(rng.choice(found.series), start)
            began = time.perf_counter()
            answer = client.get("/api/metrics", params=asked)
            taken.append((time.perf_counter() - began) * 1000)
            windows = answer.json()["windows"] if answer.status_code == 200 else []
            assert windows, answer.text[:500]
            points += len(windows)
    low, middle, high = np.percentile(taken, (50, 95, 99)).tolist()
    return {"p50_ms": round(low, 1), "p95_ms": round(middle, 1), "p99_ms": round(high, 1),
            "points": round(points / many)}


def _print(figures: dict[str, Any]) -> None:
    table = Table(title=f"Windows; {machine()}")
    for column in ("granularities", "events/s, aggregation alone", "kB a series"):
        table.add_column(column, justify="right")
    for many, rate in figures["events_per_s_beside"].items():
        held = figures["bytes_per_series_by"].get(many)
        table.add_row(many, f"{rate:,}", "" if held is None else f"{held / 1e3:,.1f}")
    Console().print(table)
    table = Table(title=f"Questions at {figures['stored_windows']:,} stored windows "
                        f"({figures['stored_bytes'] / 1e9:,.1f} GB)")
    for column in ("question", "points", "p50, ms", "p95, ms", "p99, ms"):
        table.add_column(column, justify="left" if column == "question" else "right")
    for name, row in figures["queries"].items():
        table.add_row(name, f"{row['points']:,}", *(f"{row[key]:,.1f}" for key in ("p50_ms", "p95_ms", "p99_ms")))
    Console().print(table)
    Console().print(f"Written by the sink's own code: {figures['written_windows_per_s']:,} windows/s")
