"""History: messages into PostgreSQL, written so that a repeat does no harm, and dropped when their time is over."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from schemas.alerts import Alert
from schemas.anomalies import Anomaly
from schemas.drift import DriftEvent, RetrainingRequest
from streams.stores.postgres import moment
from streams.stores.spans import Retention, Span, span
from streams.windows.levels import LevelHead
from streams.windows.packed import packed
from streams.windows.record import WindowHead, WindowRecord

#: So often, at the most, is it noted that a partition is still written to.
TOUCH = timedelta(hours=1)
#: Rows deleted by one statement.
CHUNK = 5_000
_LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


@dataclass(frozen=True, slots=True)
class Table:
    """Where a kind of message goes, and what becomes of a row whose key is there already."""

    name: str
    key: str
    columns: tuple[str, ...]
    conflict: str = "DO NOTHING"

    @property
    def insert(self) -> str:
        """Of `incoming` into the table, in the key's order, so that two writers never wait for each other in a ring."""
        columns = ", ".join(self.columns)
        return (f"INSERT INTO {self.name} ({columns}) SELECT {columns} FROM incoming "  # noqa: S608
                f"ORDER BY {self.key} ON CONFLICT ({self.key}) {self.conflict}")

    def statement(self, then: str = "") -> str:
        """All of a batch in one statement, so in one transaction and one way to the database and back.

        Its parameters are the columns, each as an array. `then`: another statement of `incoming`, after the insert.
        """
        given = ", ".join(f"${at}::{_TYPES.get(column, 'text')}[]" for at, column in enumerate(self.columns, 1))
        then = f", noted AS ({then})" if then else ""
        return (f"WITH incoming AS MATERIALIZED (SELECT * FROM unnest({given}) "  # noqa: S608
                f"AS given ({', '.join(self.columns)})){then} {self.insert}")


#: Of columns that are not text.
_TYPES = {"start_at": "timestamptz", "at": "timestamptz", "size_ms": "integer", "partition": "integer",
          "count": "bigint", "errors": "bigint", "revision": "integer", "score": "double precision",
          "fields": "jsonb", "body": "jsonb"}
_NEWER = ("DO UPDATE SET count = excluded.count, errors = excluded.errors, revision = excluded.revision, "
          "fields = excluded.fields WHERE (excluded.count, excluded.revision) >= ({0}.count, {0}.revision)")


class Windows:
    """The tables of one kind of windows: themselves, how far each series is known, and which partitions there are.

    keys: the columns that name a series.
    """

    def __init__(self, name: str, series: str, spans: str, keys: tuple[str, ...]) -> None:
        self.table = Table(name, "window_id, size_ms, start_at",
                           ("window_id", "start_at", "size_ms", *keys, "partition", "count", "errors", "revision",
                            "fields"), _NEWER.format(name))
        self.series = series
        self.spans = spans
        self.keys = keys
        self.statement = self.table.statement(self.note)

    @property
    def note(self) -> str:
        """How far each series is known: a statement of `incoming`, which PostgreSQL runs after the insert."""
        keys = ", ".join((*self.keys, "partition", "size_ms"))
        return f"""
            INSERT INTO {self.series} AS have ({keys}, first_at, end_at)
            SELECT {keys}, min(start_at), max(start_at) + size_ms * interval '1 millisecond'
            FROM incoming GROUP BY {keys} ORDER BY {keys}
            ON CONFLICT ({keys}) DO UPDATE SET first_at = least(have.first_at, excluded.first_at),
              end_at = greatest(have.end_at, excluded.end_at), written_at = now()"""  # noqa: S608


_SERIES = ("environment", "model", "version", "component")
WINDOWS = Windows("metric_windows", "metric_series", "window_spans", _SERIES)
LEVELS = Windows("level_windows", "level_series", "level_spans", ("level", *_SERIES, "segment"))
ANOMALIES = Table("anomalies", "anomaly_id", ("anomaly_id", "at", "environment", "model", "version", "component",
                                              "score", "body"))
DRIFT_EVENTS = Table("drift_events", "drift_id", ("drift_id", "at", "environment", "model", "kind", "state", "body"))
ALERTS = Table("alerts", "alert_id", ("alert_id", "incident_id", "at", "environment", "model", "state", "cause",
                                      "severity", "body"))
REQUESTS = Table("retraining_requests", "request_id", ("request_id", "at", "environment", "model", "body"))


class History:
    """Idempotent writes. A window gives way to a newer copy (by count, then revision); other messages are written once.
    """

    def __init__(self, pool: asyncpg.Pool, retention: Retention,
                 clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.pool = pool
        self.retention = retention
        self._clock = clock
        self._spans: dict[tuple[str, Span], datetime] = {}

    async def windows(self, found: Sequence[WindowHead | WindowRecord]) -> None:
        """Upsert windows of series, each into the partition of its size and time."""
        await self._windows(WINDOWS, found)

    async def levels(self, found: Sequence[LevelHead]) -> None:
        """Upsert windows of environments, segments and late labels, likewise."""
        await self._windows(LEVELS, found)

    async def _windows(self, tables: Windows, found: Sequence[WindowHead | WindowRecord | LevelHead]) -> None:
        newest: dict[str, WindowHead | WindowRecord | LevelHead] = {}
        for window in found:
            have = newest.get(window.window_id)
            if have is None or (window.count, window.revision) >= (have.count, have.revision):
                newest[window.window_id] = window
        rows = [(w.window_id, moment(w.start_ms), w.size_ms, *(_text(getattr(w, key)) for key in tables.keys),
                 w.partition, w.count, w.errors, w.revision, jsonb(packed(w.fields_json()))) for w in newest.values()]
        spans = {span(w.size_ms, moment(w.start_ms)) for w in newest.values()}
        async with self.pool.acquire() as connection:
            await self._touch(connection, tables, spans)
            try:
                await _load(connection, tables.statement, rows)
            except asyncpg.CheckViolationError:         # a partition that we knew was dropped since
                self._spans.clear()
                await self._touch(connection, tables, spans)
                await _load(connection, tables.statement, rows)

    async def anomalies(self, found: Sequence[Anomaly]) -> None:
        await self._write(ANOMALIES, [
            (a.anomaly_id, moment(a.ts), a.environment, a.model, a.version, a.component, a.score,
             jsonb(a.model_dump_json())) for a in found])

    async def drift(self, found: Sequence[DriftEvent]) -> None:
        await self._write(DRIFT_EVENTS, [
            (d.drift_id, moment(d.detected_ms), d.environment, d.model, d.kind, d.state, jsonb(d.model_dump_json()))
            for d in found])

    async def alerts(self, found: Sequence[Alert]) -> None:
        await self._write(ALERTS, [
            (a.alert_id, a.incident_id, moment(a.ts), a.environment, a.model, a.state, a.cause, a.severity,
             jsonb(a.model_dump_json())) for a in found])

    async def requests(self, found: Sequence[RetrainingRequest]) -> None:
        await self._write(REQUESTS, [
            (r.request_id, moment(r.ts), r.environment, r.model, jsonb(r.model_dump_json())) for r in found])

    async def drop_old(self) -> None:
        """Drop what tells of a time before the retention and was written before it too.

        An incident goes as a whole, once it is resolved.
        """
        now = self._clock()
        cutoff = now - self.retention.of_messages
        async with self.pool.acquire() as connection:
            for tables in (WINDOWS, LEVELS):
                await self._drop_windows(connection, tables, now)
            for table in (ANOMALIES, DRIFT_EVENTS, REQUESTS):
                await _delete(connection, table, f"SELECT {table.key} FROM {table.name} "  # noqa: S608
                                                 "WHERE at < $1 AND written_at < $1", cutoff)
            await _delete(connection, ALERTS, """
                SELECT alert_id FROM alerts WHERE incident_id IN (
                    SELECT incident_id FROM alerts GROUP BY incident_id
                    HAVING max(at) < $1 AND max(written_at) < $1 AND bool_or(state = 'resolved'))""", cutoff)

    async def _drop_windows(self, connection: Any, tables: Windows, now: datetime) -> None:
        for row in await connection.fetch(f"SELECT size_ms, begin_at FROM {tables.spans}"):  # noqa: S608
            await self._drop_span(connection, tables, Span(row["size_ms"], row["begin_at"]), now)
        for row in await connection.fetch(f"SELECT DISTINCT size_ms FROM {tables.series}"):  # noqa: S608
            oldest = now - self.retention.of(row["size_ms"])
            await connection.execute(f"DELETE FROM {tables.series} WHERE size_ms = $1 AND end_at < $2 "  # noqa: S608
                                     "AND written_at < $2", row["size_ms"], oldest)

    async def _write(self, table: Table, rows: list[tuple[Any, ...]]) -> None:
        async with self.pool.acquire() as connection:
            await _load(connection, table.statement(), rows)

    async def _touch(self, connection: Any, tables: Windows, spans: Iterable[Span]) -> None:
        """Make these partitions, and note that they are written to.

        The note comes first: whoever drops a partition takes its note away before, and so waits for us or we for them.
        """
        now, name = self._clock(), tables.table.name
        for found in sorted(spans):
            if now - self._spans.get((tables.spans, found), _LONG_AGO) < TOUCH:
                continue
            await connection.execute(
                f"INSERT INTO {tables.spans} VALUES ($1, $2, $3) ON CONFLICT (size_ms, begin_at) "  # noqa: S608
                f"DO UPDATE SET written_at = greatest({tables.spans}.written_at, excluded.written_at)", *found, now)
            with contextlib.suppress(asyncpg.DuplicateTableError, asyncpg.UniqueViolationError):    # another worker's
                await connection.execute(
                    f"CREATE TABLE IF NOT EXISTS {found.table(name)} PARTITION OF {name} FOR VALUES "
                    f"FROM ({found.size_ms}, '{found.begin_at.isoformat()}') "
                    f"TO ({found.size_ms}, '{found.end_at.isoformat()}')")
            self._spans[tables.spans, found] = now

    async def _drop_span(self, connection: Any, tables: Windows, found: Span, now: datetime) -> None:
        cutoff = now - self.retention.of(found.size_ms)
        if found.end_at > cutoff:
            return
        async with connection.transaction():
            gone = await connection.fetchval(
                f"DELETE FROM {tables.spans} WHERE size_ms = $1 AND begin_at = $2 "  # noqa: S608
                "AND written_at < $3 RETURNING size_ms", *found, cutoff)
            if gone is not None:
                await connection.execute(f"DROP TABLE IF EXISTS {found.table(tables.table.name)}")
                await connection.execute(
                    f"UPDATE {tables.series} SET first_at = greatest(first_at, least(end_at, $2)) "  # noqa: S608
                    "WHERE size_ms = $1 AND first_at < $2", found.size_ms, found.end_at)
                self._spans.pop((tables.spans, found), None)


async def _load(connection: Any, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Rows into a statement that takes them as columns; asyncpg prepares each statement once a connection."""
    if rows:
        await connection.execute(statement, *map(list, zip(*rows, strict=True)))


async def _delete(connection: Any, table: Table, which: str, cutoff: datetime) -> None:
    """Delete in chunks, so that no statement holds much for long."""
    statement = f"DELETE FROM {table.name} WHERE {table.key} IN ({which} LIMIT {CHUNK})"  # noqa: S608
    while await connection.execute(statement, cutoff) == f"DELETE {CHUNK}":
        pass


def _text(name: str) -> str:
    """PostgreSQL's text holds no U+0000 either; of our names only a segment could have one."""
    return name.replace("\0", "\ufffd")


def jsonb(text: str) -> str:
    """PostgreSQL's jsonb holds no U+0000: JSON text with U+FFFD in its place."""
    return _NUL.sub(r"\1\\ufffd", text) if "\\u0000" in text else text
