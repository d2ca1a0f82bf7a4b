"""A history of many windows of six sizes, made inside PostgreSQL from real summaries, and a gateway before it."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import numpy as np
from support import Worker, free_port

from infra.embedded.postgres import PostgresServer
from infra.embedded.valkey import ValkeyServer
from infra.migrations import FOLDER
from schemas.windows import series_digest, window_id
from streams.settings import PREFIX, Settings
from streams.stores.history import History
from streams.stores.postgres import connect, migrate, moment
from streams.stores.spans import Retention, Span, span
from streams.windows.packed import packed
from streams.windows.record import SummaryRecord, WindowRecord, buckets
from streams.windows.sketch import bucket

SIZES = (1_000, 10_000, 60_000, 600_000, 3_600_000, 86_400_000)
DAYS = 2
DAY_MS = 86_400_000
#: 2026-05-01T00:00:00Z
FIRST_MS = 1_777_593_600_000
FIELDS = ("latency_ms", "confidence", "prediction", "feature.f0", "feature.f1")
EVENTS_PER_S = 5
MOST_VALUES = 20_000
VARIANTS = 16
WRITTEN, WRITTEN_AT_ONCE = 20_000, 2_000
TOKEN = "a-token-for-benchmarks"
#: A folder in which the history is kept for the next run: to fill it takes minutes.
KEPT = "STREAMGAUGE_BENCH_STORED"


@dataclass(frozen=True)
class Stored:
    """What was stored, and where to ask."""

    page: str
    series: list[dict[str, str]]
    first_ms: int
    windows: int
    size_bytes: int
    written_per_s: float

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {TOKEN}"}


@contextmanager
def stored(folder: Path, windows: int) -> Iterator[Stored]:
    """At least two series of whole days, and about as many windows as asked; a gateway that answers."""
    each = sum(DAYS * DAY_MS // size for size in SIZES)
    series = [{"environment": "prod", "model": f"model-{number // 4:03d}", "version": str(1 + number % 2),
               "component": ("model", "preprocess")[number // 2 % 2]} for number in range(max(2, windows // each))]
    kept = Path(os.environ[KEPT]) if KEPT in os.environ else folder
    for part in (kept, *kept.parents):          # PostgreSQL's own user must reach it, where we are root
        if os.access(part, os.W_OK) and part != Path("/"):
            part.chmod(part.stat().st_mode | 0o755)
    filled = kept / f"filled-{len(series)}.json"
    with PostgresServer(kept / "postgres") as postgres, ValkeyServer(folder / "valkey", keep=False) as valkey:
        settings = Settings(database_url=postgres.url)
        if not filled.exists():
            filled.write_text(json.dumps(asyncio.run(_fill(settings, series))))
        count, size_bytes = json.loads(filled.read_text())
        written = asyncio.run(_written(settings))
        port = free_port()
        gateway = Worker({f"{PREFIX}DATABASE_URL": postgres.url, f"{PREFIX}REDIS_URL": valkey.url,
                          f"{PREFIX}API_TOKEN": TOKEN, f"{PREFIX}PORT": str(port), f"{PREFIX}LOG_LEVEL": "warning",
                          f"{PREFIX}DATA_DIR": str(folder / "data"),
                          f"{PREFIX}GRANULARITIES_MS": ",".join(map(str, SIZES))},
                         folder / "gateway.log", ["-m", "infra.cli.main", "gateway"]).start()
        gateway.port = port
        try:
            gateway.wait_ready(120)
            yield Stored(f"http://127.0.0.1:{port}", series, FIRST_MS, count, size_bytes, written)
        finally:
            gateway.stop()


async def _fill(settings: Settings, series: list[dict[str, str]]) -> tuple[int, int]:
    """(windows, bytes on disk)."""
    await migrate(settings, FOLDER)
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        await _templates(connection, series)
        for size in SIZES:
            starts = range(FIRST_MS, FIRST_MS + DAYS * DAY_MS, min(DAY_MS, 32 * DAY_MS))
            for found in sorted({span(size, moment(start)) for start in starts}):
                await _span(connection, found)
        await connection.execute(
            "INSERT INTO metric_series SELECT environment, model, version, component, 0, size_ms, $1, $2 "
            "FROM series CROSS JOIN unnest($3::integer[]) size_ms",
            moment(FIRST_MS), moment(FIRST_MS + DAYS * DAY_MS), list(SIZES))
        await connection.execute("VACUUM ANALYZE", timeout=600)
        count = await connection.fetchval("SELECT count(*) FROM metric_windows", timeout=600)
        size_bytes = await connection.fetchval(
            "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits "
            "WHERE inhparent = 'metric_windows'::regclass")
        return int(count), int(size_bytes)
    finally:
        await connection.close()


async def _templates(connection: Any, series: list[dict[str, str]]) -> None:
    await connection.execute(
        "CREATE TABLE series (environment text, model text, version text, component text, digest text);"
        "CREATE TABLE templates (size_ms integer, number integer, count bigint, fields jsonb)")
    await connection.copy_records_to_table("series", records=[(*row.values(), series_digest(**row)) for row in series])
    rows = []
    for size, number in itertools.product(SIZES, range(VARIANTS)):
        count = EVENTS_PER_S * size // 1_000
        rows.append((size, number, count, packed(msgspec.json.encode(_fields(count, number)).decode())))
    await connection.copy_records_to_table("templates", records=rows)


def _fields(count: int, seed: int) -> dict[str, SummaryRecord]:
    rng = np.random.default_rng((count, seed))
    return {name: _summary(rng.lognormal(1.5, 0.5, min(count, MOST_VALUES)) if name == "latency_ms"
                           else rng.standard_normal(min(count, MOST_VALUES))) for name in FIELDS}


def _summary(values: np.ndarray[Any, Any]) -> SummaryRecord:
    codes, counts = np.unique([bucket(value) for value in values.tolist()], return_counts=True)
    return SummaryRecord(count=len(values), sum=float(values.sum()), min=float(values.min()), max=float(values.max()),
                         mean=float(values.mean()), m2=float(((values - values.mean()) ** 2).sum()),
                         buckets=buckets(list(zip(codes.tolist(), counts.tolist(), strict=True))))


async def _span(connection: Any, found: Span) -> None:
    """A partition in the order in which windows come, indexed afterwards."""
    begin, end = max(found.begin_at, moment(FIRST_MS)), min(found.end_at, moment(FIRST_MS + DAYS * DAY_MS))
    table = found.table("metric_windows")
    async with connection.transaction():
        await connection.execute(f"CREATE TABLE {table} (LIKE metric_windows)")
        await connection.execute(f"""
            INSERT INTO {table}
            SELECT 'w-' || s.digest || '-' || {found.size_ms} || '-' || (extract(epoch FROM at) * 1000)::bigint || '-0',
              at, {found.size_ms}, s.environment, s.model, s.version, s.component, 0, t.count, 0, 0, t.fields
            FROM generate_series($1::timestamptz, $2::timestamptz - make_interval(secs => {found.size_ms / 1000}),
                                 make_interval(secs => {found.size_ms / 1000})) WITH ORDINALITY g (at, n)
            CROSS JOIN series s JOIN templates t
              ON t.size_ms = {found.size_ms} AND t.number = (g.n + length(s.digest) + ascii(s.digest)) % {VARIANTS}
            ORDER BY at""", begin, end, timeout=1_800)
        await connection.execute(
            f"ALTER TABLE {table} ADD PRIMARY KEY (window_id, size_ms, start_at);"
            f"CREATE INDEX ON {table} (environment, model, size_ms, start_at);"
            f"ALTER TABLE metric_windows ATTACH PARTITION {table} FOR VALUES "
            f"FROM ({found.size_ms}, '{found.begin_at.isoformat()}') TO ({found.size_ms}, "
            f"'{found.end_at.isoformat()}')", timeout=1_800)
        await connection.execute("INSERT INTO window_spans VALUES ($1, $2, now())", *found)


async def _written(settings: Settings) -> float:
    """Windows a second that the history sink writes, beside all those: copied, upserted, noted."""
    pool, fields, partition = await connect(settings, command_seconds=120), _fields(EVENTS_PER_S, 0), int(time.time())
    try:
        history, began = History(pool, Retention(30)), time.perf_counter()
        for first in range(0, WRITTEN, WRITTEN_AT_ONCE):
            numbers = range(first, first + WRITTEN_AT_ONCE)
            await history.windows([_window(number, partition, fields) for number in numbers])
        return WRITTEN / (time.perf_counter() - began)
    finally:
        await pool.close()


def _window(number: int, partition: int, fields: dict[str, SummaryRecord]) -> WindowRecord:
    model, start = f"other-{number % 50:02d}", FIRST_MS + number // 50 * 1_000
    return WindowRecord(
        environment="prod", model=model, version="1", component="model", start_ms=start, size_ms=1_000,
        partition=partition, window_id=window_id("prod", model, "1", "model", 1_000, start, partition),
        count=EVENTS_PER_S, errors=0, closed_ms=start + 2_000, fields=fields)
