"""A day of real server metrics through decoder, windows and history: replayed in other batches, the same tables."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from stores_world import DAY, database

from agents.aggregation.beside import of_telemetry
from agents.aggregation.engine import AggregationEngine, AggregationOptions
from streams.batch import Decoder, Limits
from streams.records import RecordBatch
from streams.settings import Settings
from streams.state.checkpoint import Partition
from streams.state.keyed import KeyedStates
from streams.stores.history import History
from streams.stores.postgres import connect, moment
from streams.stores.spans import Retention
from streams.windows.levels import read_level
from streams.windows.record import read_head
from streams.windows.written import written
from streams.wire import WireRecord

DATA = Path(os.environ.get("STREAMGAUGE_DATA", "../shared/data"))
SIZES = (60_000, 600_000, 3_600_000)
MINUTES, FIELDS = 1_440, 8


def records() -> list[WireRecord]:
    """A day of minutes of three machines, one event a machine and minute; and one much later, which closes all."""
    files = sorted((DATA / "smd").glob("*.npz"))
    if not files:
        pytest.skip(f"no data in {DATA / 'smd'}: set STREAMGAUGE_DATA")
    found: list[WireRecord] = []

    def add(machine: str, ts: int, values: Any) -> None:
        found.append(WireRecord(len(found), 0, machine.encode(), msgspec.json.encode({
            "event_id": f"{machine}-{ts}", "ts": ts, "environment": "prod", "model": machine, "version": "1",
            "segment": {"shift": str(ts // 60_000 % 5)}, "latency_ms": float(values[0]),
            "features": {f"m{at}": float(value) for at, value in enumerate(values)}})))

    days = {file.stem: np.load(file, allow_pickle=False)["X_test"][:MINUTES, :FIELDS] for file in files}
    for minute in range(MINUTES):
        for machine, values in days.items():
            add(machine, DAY + 60_000 * minute, values[minute])
    add("last", DAY + 60_000 * MINUTES + 86_400_000, [0.0])
    return found


async def replay(history: History, log: list[WireRecord], cut: int, at_once: int) -> None:
    """The log through a new engine, its windows into the history `at_once`."""
    engine = AggregationEngine(AggregationOptions(SIZES), written)
    states: Any = KeyedStates("aggregation", 0, engine.codec, {})
    decode, windows = Decoder(Limits(), ("shift",)), []
    beside = of_telemetry(Settings(granularities_ms=SIZES, segment_keys=("shift",), segment_values=3))
    rows: Any = SimpleNamespace(view=lambda number, agent: {})
    partition = Partition(0, 1, rows, dict(state for one in beside for state in one.states()), rows)
    levels = []
    for first in range(0, len(log), cut):
        batch = decode(RecordBatch("telemetry", 0, log[first:first + cut]))
        windows += [read_head(window.value) for window in engine.run(batch, states, "telemetry").windows]
        levels += [read_level(window.value) for one in beside
                   for window in one.run(batch, partition, "telemetry", 1).windows]
    for first in range(0, len(levels), at_once):
        await history.levels(levels[first:first + at_once])
    for first in range(0, len(windows), at_once):
        await history.windows(windows[first:first + at_once])


async def tables(pool: Any) -> tuple[int, str]:
    """(events in the coarsest windows, a digest of the tables)."""
    digest = hashlib.sha256()
    for query in ("SELECT * FROM metric_windows ORDER BY window_id, start_at",
                  "SELECT environment, model, version, component, partition, size_ms, first_at, end_at "
                  "FROM metric_series ORDER BY 1, 2, 3, 4, 5, 6",
                  "SELECT * FROM level_windows ORDER BY window_id, start_at",
                  "SELECT level, environment, model, version, component, segment, partition, size_ms, first_at, end_at "
                  "FROM level_series ORDER BY 1, 2, 3, 4, 5, 6, 7, 8"):
        for row in await pool.fetch(query):
            digest.update(repr(tuple(row)).encode())
    total = await pool.fetchval("SELECT sum(count) FROM metric_windows WHERE size_ms = 3600000 AND model <> 'last'")
    return int(total), digest.hexdigest()


async def test_a_day_replayed_twice_gives_identical_tables(postgres_url: str) -> None:
    log = records()
    pool = await connect(Settings(database_url=await database(postgres_url)))
    other = await connect(Settings(database_url=await database(postgres_url)))
    try:
        history = History(pool, Retention(10_000))
        await replay(history, log, 997, 500)
        first = await tables(pool)
        assert first[0] == len(log) - 1
        await replay(history, log, 313, 1_999)
        assert await tables(pool) == first
        await replay(History(other, Retention(10_000)), log, 2_500, 77)
        assert await tables(other) == first
        sums = await pool.fetch("SELECT sum(count) AS events, sum((fields->'feature.m0'->>'count')::bigint) AS numbers "
                                "FROM metric_windows WHERE model <> 'last' GROUP BY size_ms")
        assert {(row["events"], row["numbers"]) for row in sums} == {(len(log) - 1, len(log) - 1)}
        sums = await pool.fetch("SELECT level, size_ms, sum(count) AS events FROM level_windows "
                                f"WHERE start_at < '{moment(DAY + 86_400_000).isoformat()}' GROUP BY 1, 2")
        assert {(row["level"], row["size_ms"], int(row["events"])) for row in sums} == {
            (level, size, len(log) - 1) for level, sizes in (("environment", SIZES), ("segment", SIZES[1:]))
            for size in sizes}
    finally:
        await pool.close()
        await other.close()
