"""PostgreSQL: connections, migrations, and writes that may be repeated without harm."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from schemas.alerts import Alert
from schemas.anomalies import Anomaly
from schemas.drift import DriftEvent, RetrainingRequest
from schemas.windows import MetricWindow
from streams.settings import Settings

_LOCK = 0x53_67_61_67
COMMAND_SECONDS = 30.0


class MigrationError(RuntimeError):
    """The database cannot be brought to this release's shape; the text says why."""

    code = "migration"
    retriable = False


async def connect(settings: Settings, most: int = 4) -> asyncpg.Pool:
    """A pool of connections; JSON columns come and go as text."""
    return await asyncpg.create_pool(settings.database_url.get_secret_value(), min_size=1, max_size=most,
                                     command_timeout=COMMAND_SECONDS)


async def migrate(settings: Settings, folder: Path) -> list[str]:
    """Apply the SQL files of the folder that have not been applied; returns their names.

    Raises:
        MigrationError: a file that was applied has changed since.
    """
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        await connection.execute("CREATE TABLE IF NOT EXISTS migrations "
                                 "(name text PRIMARY KEY, checksum text NOT NULL, at timestamptz DEFAULT now())")
        rows = await connection.fetch("SELECT name, checksum FROM migrations")
        applied = {row["name"]: row["checksum"] for row in rows}
        new = []
        for path in sorted(folder.glob("*.sql")):  # noqa: ASYNC240  (a handful of small files, once)
            text = path.read_text()
            checksum = hashlib.sha256(text.encode()).hexdigest()
            if applied.get(path.name, checksum) != checksum:
                raise MigrationError(f"{path.name} was applied in another form; restore the file, and put the change "
                                     "into a new one with the next number")
            if path.name not in applied:
                async with connection.transaction():
                    await connection.execute(text)
                    await connection.execute("INSERT INTO migrations VALUES ($1, $2)", path.name, checksum)
                new.append(path.name)
        return new
    finally:
        await connection.close()


class History:
    """Idempotent writes. A window gives way to a copy with a larger count; other messages are written once."""

    def __init__(self, pool: asyncpg.Pool, retention_days: int) -> None:
        self.pool = pool
        self.retention_days = retention_days
        self._days: set[str] = set()

    async def windows(self, found: Sequence[MetricWindow]) -> None:
        """Upsert windows: COPY into a temporary table, then one statement."""
        newest: dict[str, MetricWindow] = {}
        for window in found:
            have = newest.get(window.window_id)
            if have is None or window.count >= have.count:
                newest[window.window_id] = window
        rows = [(w.window_id, _at(w.start_ms), w.size_ms, w.environment, w.model, w.version, w.component, w.partition,
                 w.count, w.errors, w.revision,
                 _jsonb(json.dumps({name: field.model_dump(exclude={"schema_version"})
                                    for name, field in w.fields.items()})))
                for w in newest.values()]
        async with self.pool.acquire() as connection:
            await self._make_days(connection, {row[1] for row in rows})
            async with connection.transaction():
                await connection.execute("CREATE TEMPORARY TABLE incoming (LIKE metric_windows) ON COMMIT DROP")
                await connection.copy_records_to_table("incoming", records=rows)
                await connection.execute(
                    "INSERT INTO metric_windows SELECT * FROM incoming ON CONFLICT (window_id, start_at) DO UPDATE "
                    "SET count = excluded.count, errors = excluded.errors, revision = excluded.revision, "
                    "fields = excluded.fields WHERE excluded.count >= metric_windows.count")

    async def anomalies(self, found: Sequence[Anomaly]) -> None:
        await self._once("anomalies", 8, [
            (a.anomaly_id, _at(a.ts), a.environment, a.model, a.version, a.component, a.score,
             _jsonb(a.model_dump_json()))
            for a in found])

    async def drift(self, found: Sequence[DriftEvent]) -> None:
        await self._once("drift_events", 7, [
            (d.drift_id, _at(d.detected_ms), d.environment, d.model, d.kind, d.state, _jsonb(d.model_dump_json()))
            for d in found])

    async def alerts(self, found: Sequence[Alert]) -> None:
        await self._once("alerts", 9, [
            (a.alert_id, a.incident_id, _at(a.ts), a.environment, a.model, a.state, a.cause, a.severity,
             _jsonb(a.model_dump_json())) for a in found])

    async def requests(self, found: Sequence[RetrainingRequest]) -> None:
        await self._once("retraining_requests", 5, [
            (r.request_id, _at(r.ts), r.environment, r.model, _jsonb(r.model_dump_json())) for r in found])

    async def drop_old(self, now: datetime) -> list[str]:
        """Drop the days of windows that are older than the retention; returns the tables' names."""
        oldest = f"metric_windows_{(now - timedelta(days=self.retention_days)):%Y%m%d}"
        async with self.pool.acquire() as connection:
            tables = await connection.fetch("SELECT inhrelid::regclass::text AS name FROM pg_inherits "
                                            "WHERE inhparent = 'metric_windows'::regclass")
            dropped = [row["name"] for row in tables if row["name"] < oldest]
            for name in dropped:
                await connection.execute(f'DROP TABLE "{name}"')
                self._days.discard(name)
        return dropped

    async def _once(self, table: str, columns: int, rows: list[tuple[Any, ...]]) -> None:
        marks = ", ".join(f"${number}" for number in range(1, columns + 1))
        async with self.pool.acquire() as connection:
            await connection.executemany(f"INSERT INTO {table} VALUES ({marks}) ON CONFLICT DO NOTHING",  # noqa: S608
                                         rows)

    async def _make_days(self, connection: Any, moments: Iterable[datetime]) -> None:
        for day in sorted({moment.date() for moment in moments}):
            name = f"metric_windows_{day:%Y%m%d}"
            if name in self._days:
                continue
            begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
            with contextlib.suppress(asyncpg.DuplicateTableError, asyncpg.UniqueViolationError):    # another worker's
                await connection.execute(
                    f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF metric_windows FOR VALUES "
                    f"FROM ('{begin.isoformat()}') TO ('{(begin + timedelta(days=1)).isoformat()}')")
            self._days.add(name)


def _jsonb(text: str) -> str:
    """PostgreSQL's jsonb holds no U+0000; names that have one are kept with U+FFFD in its place."""
    return text.replace("\\u0000", "\\ufffd")


def _at(timestamp_ms: int) -> datetime:
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC)
