"""Questions to PostgreSQL, answered as plain dictionaries."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import asyncpg

from streams.windows.sketch import quantile

Row = dict[str, Any]
_INCIDENTS = """
WITH ranked AS (
  SELECT *, row_number() OVER (PARTITION BY incident_id ORDER BY at DESC,
    CASE state WHEN 'resolved' THEN 2 WHEN 'escalated' THEN 1 ELSE 0 END DESC) AS newest FROM alerts)
SELECT body FROM ranked WHERE newest = 1
  AND ($1 = '' OR environment = $1) AND ($2 = '' OR model = $2) AND ($3 = '' OR severity = $3)
  AND ($4 = '' OR (state = 'resolved') = ($4 = 'resolved'))
ORDER BY at DESC LIMIT $5
"""
_WINDOWS = """
SELECT start_at, version, component, partition, count, errors, revision, fields FROM metric_windows
WHERE environment = $1 AND model = $2 AND size_ms = $3 AND start_at >= $4 AND start_at < $5
  AND ($6 = '' OR version = $6) AND ($7 = '' OR component = $7)
ORDER BY start_at, version, component, partition LIMIT $8
"""
_MODELS = """
SELECT environment, model, array_agg(DISTINCT version ORDER BY version) AS versions,
  array_agg(DISTINCT component ORDER BY component) AS components, sum(count) AS events, sum(errors) AS errors,
  max(start_at) AS last_at
FROM metric_windows WHERE size_ms = $1 AND start_at > $2 GROUP BY environment, model ORDER BY environment, model
"""
#: Tables with a body, and their column of time.
BODIES = {"anomalies", "drift_events", "alerts", "retraining_requests"}


class HistoryReader:
    """The reading side of the history."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self.pool = pool

    async def incidents(self, state: str, environment: str, model: str, severity: str, limit: int) -> list[Row]:
        """The newest transition of each incident, newest first."""
        return [json.loads(row["body"]) for row in
                await self.pool.fetch(_INCIDENTS, environment, model, severity, state, limit)]

    async def incident(self, incident_id: str) -> list[Row]:
        """Every transition of one incident, oldest first."""
        return [json.loads(row["body"]) for row in await self.pool.fetch(
            "SELECT body FROM alerts WHERE incident_id = $1 ORDER BY at, alert_id", incident_id)]

    async def bodies(self, table: str, environment: str, model: str, before_ms: int, limit: int) -> list[Row]:
        """Messages of one table, newest first; `before_ms` pages."""
        if table not in BODIES:
            raise ValueError(f"no such table: {table}")
        rows = await self.pool.fetch(
            f"SELECT body FROM {table} WHERE ($1 = '' OR environment = $1) AND ($2 = '' OR model = $2) "  # noqa: S608
            "AND at < $3 ORDER BY at DESC LIMIT $4", environment, model, _at(before_ms), limit)
        return [json.loads(row["body"]) for row in rows]

    async def models(self, size_ms: int, since_ms: int) -> list[Row]:
        """Who sent something since then, with totals."""
        return [{**dict(row), "events": int(row["events"]), "errors": int(row["errors"]),
                 "last_at": row["last_at"].isoformat()} for row in
                await self.pool.fetch(_MODELS, size_ms, _at(since_ms))]

    async def windows(self, environment: str, model: str, size_ms: int, from_ms: int, to_ms: int, version: str,
                      component: str, field: str, limit: int) -> list[Row]:
        """Closed windows in time order; with `field`, its summary and quantiles in each."""
        rows = await self.pool.fetch(_WINDOWS, environment, model, size_ms, _at(from_ms), _at(to_ms), version,
                                     component, limit)
        return [_window(row, field) for row in rows]


def _window(row: Any, field: str) -> Row:
    found: Row = {"start_ms": int(row["start_at"].timestamp() * 1000), "version": row["version"],
                  "component": row["component"], "partition": row["partition"], "count": row["count"],
                  "errors": row["errors"], "revision": row["revision"]}
    fields = json.loads(row["fields"])
    if not field:
        return found | {"fields": {name: _summary(summary) for name, summary in fields.items()}}
    return found | {"value": _summary(fields[field]) if field in fields else None}


def _summary(summary: Row) -> Row:
    buckets = [(code, count) for code, count in summary.pop("sketch", [])]
    return summary | {f"p{int(q * 100)}": quantile(buckets, q) for q in (0.5, 0.95, 0.99)}


def _at(timestamp_ms: int) -> datetime:
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC)
